//! The protocol as a model, explored to the end: three servers, two players with a purchase each and a trade, and
//! whatever a network, a clock and a power supply may do in between.
//!
//! Two models share one store, which judges by the crate's own `src/store/rules.rs`, compiled into this test:
//!
//! | model | what it asks | faults |
//! |---|---|---|
//! | [`commits`] | is anything lost, doubled, torn or stuck, whoever believes to hold a lock? | requests lost, doubled, delayed, reordered; answers lost; attempts repeated, saves given up; crashes, restarts, power cuts; any lease found lapsed at any moment |
//! | [`leases`] | is a lock taken from nobody who beats, and always given back? | pauses, crashes, restarts; beats, their answers and looks that fail; acquires late or unanswered, loads given up |
//!
//! That [`commits`] lets leases lapse at will is on purpose: what holds there does not rest on leases.
//!
//! Exploring ends because what may happen is counted: loads, operations, saves, awards, trades, units of time, and
//! faults (see [`commits::Budget`], [`leases::Budget`]). Within these bounds *every* history was seen, up to a
//! collision of 64-bit hashes; nothing is said about histories beyond them. There are no refunds here
//! (`tests/purchase_model/` has them), no queue of several saves, and documents are a few bits. "Can be loaded again"
//! is checked by trying one fixed continuation without faults from every single state, so it means "there is a way",
//! and the way is the one that the code takes.
//!
//! Each control takes out one mechanism and must be found out by the property named in it, nearest counterexample first.
//!
//! ```text
//! cargo test --test protocol_model -- --nocapture
//! PROTOCOL_MODEL_SCOPE=full cargo test --profile model --test protocol_model -- --nocapture --test-threads 1
//! ```
//!
//! `PROTOCOL_MODEL_SCOPE` is `small` (the default), `full`, or `long`. Nothing is random: the same command finds the
//! same.

/// Where the store's rules look for it.
mod id {
    pub use bevy_player_data::PlayerId;
}

mod commits;
mod controls;
mod leases;
mod run;
mod store;

use commits::Commits;
use leases::Leases;
use run::{
    Event::{self, *},
    Tally,
};

/// What a control takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    /// A write's fence is compared with its row's.
    Fence,
    /// A write's number is compared with its row's.
    Sequence,
    /// A reply is sent when the commit is on the disk.
    DurableReply,
    /// An award and its receipt's settlement are one transaction.
    OneTransactionPerAward,
    /// Both sides of a trade are one commit.
    OneCommitPerTrade,
    /// The lock of a server that is gone can be taken over.
    LapsingLeases,
    /// A lease lapses when its beat was seen standing still, whatever any wall clock says.
    ObservedBeats,
    /// A claim that a lease has lapsed names the beat, which the store compares.
    BeatNamedByClaim,
    /// An acquire is good for two beats of its server and no longer.
    EndOfAcquire,
    /// The locks of unanswered acquires are looked for at each beat.
    Suspects,
    /// They are looked for until the last of their attempts has come to its end.
    LongestSuspicion,
}

/// How far the models are explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Small,
    Full,
    Long,
}

impl Scope {
    fn chosen() -> Self {
        match std::env::var("PROTOCOL_MODEL_SCOPE").as_deref() {
            Err(_) | Ok("small") => Self::Small,
            Ok("full") => Self::Full,
            Ok("long") => Self::Long,
            Ok(other) => panic!("PROTOCOL_MODEL_SCOPE is `{other}`: it is `small`, `full` or `long`"),
        }
    }
}

const COMMITS: commits::Budget = commits::Budget {
    loads: 2,
    ops: 1,
    saves: 1,
    awards: 1,
    trades: 1,
    faults: 1,
};
const LEASES: leases::Budget = leases::Budget {
    servers: 3,
    loads: 2,
    time: 2,
    faults: 1,
};

/// What takes place in every exploration of the commits.
const IN_COMMITS: &[Event] = &[
    Load,
    FailedLoad,
    Opened,
    Granted,
    GrantedAgain,
    TakenOver,
    Locked,
    NoLease,
    Award,
    Save,
    Close,
    Trade,
    Accepted,
    JointCommit,
    LandedBefore,
    Settled,
    SettledAgain,
    LockLost,
    Superseded,
    Acknowledged,
    SessionLost,
    Retry,
    AnswerLost,
    GiveUp,
    Lost,
    Doubled,
    Crash,
    Restart,
    PowerCut,
];
/// What takes place only where a player in a trade can be loaded once more.
const AFTER_TRADES: &[Event] = &[FoundLanded, Forfeited];

/// What takes place in every exploration of the leases.
const IN_LEASES: &[Event] = &[
    Load,
    FailedLoad,
    Opened,
    Granted,
    GrantedAgain,
    TakenOver,
    Locked,
    SessionLost,
    Close,
    Accepted,
    AnswerLost,
    Crash,
    Restart,
    Tick,
    Beat,
    FailedBeat,
    Pause,
    Resume,
    LateLock,
    GivenBack,
];
/// What takes place only where there are two loads, and time for an attempt to come too late.
const WITH_RIVALS: &[Event] = &[Orphan, TooLate];

/// What has to take place: some of it only with larger bounds than the small ones.
fn expected(always: &[Event], with_more: &[Event]) -> Vec<Event> {
    let more = if Scope::chosen() > Scope::Small {
        with_more
    } else {
        &[]
    };
    [always, more].concat()
}

#[test]
fn no_fault_loses_doubles_or_tears_what_was_committed() {
    let budgets = match Scope::chosen() {
        Scope::Small => vec![COMMITS],
        Scope::Full => vec![
            commits::Budget { loads: 3, ..COMMITS },
            commits::Budget {
                ops: 2,
                faults: 2,
                ..COMMITS
            },
        ],
        Scope::Long => vec![
            commits::Budget {
                loads: 3,
                ops: 2,
                awards: 2,
                ..COMMITS
            },
            commits::Budget {
                loads: 3,
                faults: 2,
                ..COMMITS
            },
            commits::Budget {
                ops: 2,
                awards: 2,
                faults: 3,
                ..COMMITS
            },
        ],
    };
    let tally = Tally::default();
    for budget in budgets {
        let model = Commits {
            budget,
            without: None,
            judged_by: None,
            tally: tally.clone(),
        };
        run::holds(&format!("{budget:?}"), model, commits::symmetry::representative);
    }
    tally.tell(&expected(IN_COMMITS, AFTER_TRADES));
}

#[test]
fn no_server_that_beats_loses_a_lock_and_every_lock_is_given_back() {
    let budgets = match Scope::chosen() {
        Scope::Small => vec![
            leases::Budget { servers: 2, ..LEASES },
            leases::Budget {
                loads: 1,
                time: 1,
                ..LEASES
            },
        ],
        Scope::Full => vec![
            LEASES,
            leases::Budget {
                loads: 1,
                time: 3,
                ..LEASES
            },
            leases::Budget {
                loads: 1,
                faults: 2,
                ..LEASES
            },
            leases::Budget {
                servers: 2,
                time: 3,
                ..LEASES
            },
        ],
        Scope::Long => vec![
            leases::Budget { time: 3, ..LEASES },
            leases::Budget { faults: 2, ..LEASES },
            leases::Budget {
                servers: 2,
                time: 3,
                faults: 2,
                ..LEASES
            },
        ],
    };
    let tally = Tally::default();
    for budget in budgets {
        let model = Leases {
            budget,
            without: None,
            judged_by: None,
            tally: tally.clone(),
        };
        run::holds(&format!("{budget:?}"), model, leases::symmetry::representative);
    }
    tally.tell(&expected(IN_LEASES, WITH_RIVALS));
}
