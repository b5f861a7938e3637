//! What can happen, how often it is to happen, and what has to have come of it in many histories.

use crate::{server::OPS, tally::Tally};

/// What can happen, and how often it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Join,
    Leave,
    Hop,
    /// The player joins another server, and doesn't leave the first.
    HandOff,
    /// The game sends the player to another server.
    Transfer,
    TakeOver,
    Play,
    Save,
    Trade,
    Buy,
    Repeat,
    Refund,
    Submit,
    NotNow,
    Fail,
    HoldBack,
    Slow,
    Down,
    Hang,
    Heal,
    Pause,
    GoOn,
    Crash,
    Exit,
    Start,
    Wait,
}

const STEP_WEIGHTS: [(Step, u32); 26] = [
    (Step::Join, 26),
    (Step::Leave, 8),
    (Step::Hop, 8),
    (Step::HandOff, 8),
    (Step::Transfer, 3),
    (Step::TakeOver, 2),
    (Step::Play, 30),
    (Step::Save, 8),
    (Step::Trade, 14),
    (Step::Buy, 10),
    (Step::Repeat, 4),
    (Step::Refund, 5),
    (Step::Submit, 4),
    (Step::NotNow, 2),
    (Step::Fail, 12),
    (Step::HoldBack, 4),
    (Step::Slow, 2),
    (Step::Down, 2),
    (Step::Hang, 1),
    (Step::Heal, 6),
    (Step::Pause, 3),
    (Step::GoOn, 4),
    (Step::Crash, 3),
    (Step::Exit, 2),
    (Step::Start, 7),
    (Step::Wait, 8),
];

impl Step {
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        let sum: u32 = STEP_WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut throw = random.u32(..sum);
        for (step, weight) in STEP_WEIGHTS {
            if throw < weight {
                return step;
            }
            throw -= weight;
        }
        Self::Wait
    }
}

/// What has to have happened in many histories.
pub fn expected() -> Tally {
    let mut tally = Tally::default();
    for (step, _) in STEP_WEIGHTS {
        tally.add("steps", format!("{step:?}"), 0);
    }
    for (_, name) in OPS {
        tally.add("faults", name, 0);
    }
    let groups: [(&'static str, &[&str]); 14] = [
        ("faults", &["wire: late, whoever asked may be dead"]),
        (
            "effects",
            &[
                "commit accepted",
                "commit landed before",
                "commit refused: lock lost",
                "commit refused: superseded",
                "lock granted",
                "lock taken over",
                "lock refused",
            ],
        ),
        ("loads", &["first join", "again"]),
        ("loads failed", &["SessionLocked", "Unavailable", "Newer"]),
        (
            "saves",
            &["final", "final, failed", "in between", "in between, failed"],
        ),
        (
            "sessions ended",
            &[
                "Left",
                "Replaced",
                "LockLost",
                "ServerExit",
                "CommitRefused",
                "HandedOff",
            ],
        ),
        ("asked for a player", &["gives them up", "keeps them"]),
        ("sent to another server", &["saved and free", "failed"]),
        (
            "purchases processed",
            &["granted", "refused", "refunded", "not processed yet"],
        ),
        ("trades", &["settled", "refused"]),
        ("crashes", &["at rest", "with requests under way"]),
        ("exits", &["all saved", "some named as not saved"]),
        ("packets", &["to clients", "with the reader's own words"]),
        (
            "in the end",
            &[
                "granted",
                "refused",
                "refunded",
                "mirror is equal",
                "saved on leaving",
            ],
        ),
    ];
    for (group, names) in groups {
        for name in names {
            tally.add(group, *name, 0);
        }
    }
    tally
}
