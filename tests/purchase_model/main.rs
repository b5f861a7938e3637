//! Purchases against a model: whatever is delivered, repeated, reordered, refunded, joined, left, failed or crashed, in
//! the end each player has what was paid, less what was refunded and what was refused.
//!
//! The steps of each case are drawn by `proptest-state-machine` from what makes sense next (`market`), and shrunk by it
//! when a case fails. They are taken by two servers with real apps (`servers`), and after each step everything that is
//! stored is compared with everything else (`books`). A case counts only if at least one fault or crash happened, and
//! something was committed, before everything had to settle.
//!
//! | variable | default | |
//! |---|---|---|
//! | `PURCHASE_MODEL_CASES` | 500 | how many cases have to count |
//! | `PURCHASE_MODEL_SEED` | 1 | where all cases follow from |
//! | `PURCHASE_MODEL_CASE` | | runs this case alone |
//! | `PLAYER_STORE` | memory | the rows are in an SQLite file or, with the feature `postgres`, in a PostgreSQL database |
//!
//! All chance follows from the seed. Only the servers are older in a long run, which a case that is run alone starts
//! anew: its beats may be a tick off.

#[path = "../support/at_once.rs"]
mod at_once;
mod books;
mod case;
#[path = "../support/driven.rs"]
mod driven;
#[path = "../support/env.rs"]
mod env;
mod late_replies;
mod market;
#[path = "../support/rows.rs"]
#[allow(dead_code, reason = "shared with tests of single servers")]
mod rows;
mod servers;
mod shop;
#[path = "../support/split_store.rs"]
#[allow(dead_code, reason = "it can split trades as well")]
mod split_store;
#[path = "../support/stored.rs"]
mod stored;
#[path = "../support/tally.rs"]
mod tally;

use std::{
    cell::{Cell, RefCell},
    fmt, panic,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bevy_player_data::testing::follow_seed;
use case::Case;
use env::number;
use market::{FAULTS, Market, Step};
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;
use rows::command;
use servers::{Cluster, LATE_REPLY, OPS, Soundness, fault_name, op_name};
use shop::Mishap;
use tally::Tally;

/// How many steps a case has.
const STEPS: std::ops::RangeInclusive<usize> = 8..=28;
/// After how many cases the servers are started anew: the store looks at all receipts when it is asked for some.
const CASES_PER_CLUSTER: u32 = 40;

/// What has to happen in many cases, beside every step, every fault and every mishap.
const EXPECTED: [(&str, &[&str]); 9] = [
    ("faults", &[LATE_REPLY]),
    ("crashes", &["at rest", "with requests under way"]),
    (
        "answers to callbacks",
        &["stored", "known already", "conflict", "unavailable"],
    ),
    ("answers to submissions", &DECISIONS),
    ("events", &DECISIONS),
    (
        "ends of sessions",
        &["Left", "Replaced", "LockLost", "ServerExit"],
    ),
    ("repetitions of a receipt that is", &STATES),
    ("refunds of a receipt that is", &STATES),
    (
        "receipts in the end",
        &["granted", "refused", "refunded", "refunded, not fully"],
    ),
];
const DECISIONS: [&str; 4] = ["granted", "refused", "refunded", "not processed yet"];
const STATES: [&str; 5] = ["not stored", "pending", "granted", "refused", "refunded"];
/// With fewer cases, some of it may not happen.
const MANY: u64 = 5_000;

#[test]
fn granted_is_what_was_paid_less_what_was_refunded() {
    let wanted = number("PURCHASE_MODEL_CASES").unwrap_or(500);
    let started = Instant::now();
    let tally = match run(Soundness::Sound, wanted) {
        Ok(tally) => tally,
        Err(failure) => panic!("{failure}"),
    };
    println!("{tally}in {:.1?}", started.elapsed());
    if number::<u64>("PURCHASE_MODEL_CASE").is_none() && wanted >= MANY {
        assert_eq!(tally.zeroes(), Vec::<String>::new(), "these never happened");
    }
}

#[test]
fn a_store_that_saves_an_award_and_its_settlement_one_after_the_other_is_found_out() {
    let failure = run(Soundness::Split, 2_000).expect_err("the broken store passes for a sound one");
    println!("{failure}");
    assert!(
        failure.reason.contains("disagree"),
        "it is found out for another reason: {}",
        failure.reason
    );
}

/// A case that fails, with as few steps as possible.
struct Failure {
    case: u64,
    seed: u64,
    reason: String,
    steps: Vec<Step>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case,
            seed,
            reason,
            steps,
        } = self;
        writeln!(f, "case {case} fails: {reason}\nafter these steps:")?;
        for step in steps {
            writeln!(f, "    {step:?}")?;
        }
        write!(
            f,
            "to run it alone: {}",
            command(
                &format!("PURCHASE_MODEL_SEED={seed} PURCHASE_MODEL_CASE={case}"),
                "purchase_model"
            )
        )
    }
}

/// Runs cases until enough of them counted, or one fails.
fn run(soundness: Soundness, wanted: u64) -> Result<Tally, Box<Failure>> {
    keep_quiet_about_panics_on_purpose();
    let seed = number("PURCHASE_MODEL_SEED").unwrap_or(1);
    let only = number("PURCHASE_MODEL_CASE");
    let mut track = Track::new(soundness);
    for case in only.unwrap_or_default().. {
        track.run_one(seed, case)?;
        if only.is_some() || track.tally.borrow().get("cases", "counted") >= wanted {
            break;
        }
    }
    Ok(track.tally.into_inner())
}

/// Where cases run, one after the other.
struct Track {
    soundness: Soundness,
    /// The servers, unless the last case left them in an unknown state, and how many cases they have seen.
    cluster: RefCell<Option<(Cluster, u32)>>,
    tally: RefCell<Tally>,
}

impl Track {
    fn new(soundness: Soundness) -> Self {
        let mut tally = Tally::default();
        let expected = Step::names()
            .map(|name| ("steps", name.to_owned()))
            .chain(FAULTS.map(|(op, fault)| ("faults", format!("{}: {}", op_name(op), fault_name(fault)))))
            .chain(OPS.map(|(_, name)| ("faults", format!("{name}: store down"))))
            .chain(Mishap::ALL.map(|mishap| ("mishaps", format!("{mishap:?}"))))
            .chain(
                EXPECTED
                    .iter()
                    .flat_map(|(group, names)| names.iter().map(|name| (*group, (*name).to_owned()))),
            );
        for (group, name) in expected {
            tally.add(group, name, 0);
        }
        Self {
            soundness,
            cluster: RefCell::default(),
            tally: RefCell::new(tally),
        }
    }

    fn run_one(&mut self, seed: u64, number: u64) -> Result<(), Box<Failure>> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        let config = Config {
            max_shrink_iters: 2_000,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let tree = Market::sequential_strategy(STEPS)
            .new_tree(&mut runner)
            .expect("some step is always possible");
        let runs = Cell::new(0);
        // What the runner returns may be a step off.
        let failed = RefCell::new(Vec::new());
        let outcome = runner.run_one(tree, |(_, steps, seen)| {
            // All but the first are for shrinking: they are on fresh servers, count nothing, and fail in silence.
            let is_first = runs.replace(runs.get() + 1) == 0;
            IS_SHRINKING.set(!is_first);
            let failed_before = failed.replace(steps.clone());
            let outcome = self.play(number, &steps, seen.as_deref(), is_first);
            if outcome.is_ok() {
                failed.replace(failed_before);
            }
            outcome
        });
        IS_SHRINKING.set(false);
        match outcome {
            Ok(_) => Ok(()),
            Err(TestError::Fail(reason, _)) => Err(Box::new(Failure {
                case: number,
                seed,
                reason: reason.message().to_owned(),
                steps: failed.take(),
            })),
            Err(TestError::Abort(reason)) => panic!("a case was given up: {reason}"),
        }
    }

    fn play(
        &self,
        number: u64,
        steps: &[Step],
        seen: Option<&AtomicUsize>,
        is_first: bool,
    ) -> Result<(), TestCaseError> {
        // It comes back only if all goes well.
        let cluster = self.cluster.borrow_mut().take();
        let reusable = cluster.filter(|(_, cases)| is_first && *cases < CASES_PER_CLUSTER);
        let (mut cluster, cases) = reusable.unwrap_or_else(|| (Cluster::start(self.soundness), 0));
        follow_seed(Some(number));
        let mut case = Case::new(&mut cluster, number);
        case.open()
            .map_err(|problem| TestCaseError::fail(format!("{problem} (at the opening)")))?;
        for step in steps {
            if let Some(seen) = seen {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            case.step(step)
                .map_err(|problem| TestCaseError::fail(format!("{problem} (after {step:?})")))?;
        }
        let counts = case.counts();
        case.settle()
            .map_err(|problem| TestCaseError::fail(format!("{problem} (when everything has to settle)")))?;
        if is_first {
            let mut tally = std::mem::take(&mut case.tally);
            tally.count(
                "cases",
                if counts {
                    "counted"
                } else {
                    "without a fault or a commit"
                },
            );
            self.tally.borrow_mut().merge(tally);
        }
        *self.cluster.borrow_mut() = Some((cluster, cases + 1));
        Ok(())
    }
}

thread_local! {
    static IS_SHRINKING: Cell<bool> = const { Cell::new(false) };
}

fn keep_quiet_about_panics_on_purpose() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some(shop::ON_PURPOSE) && !IS_SHRINKING.get() {
                others(info);
            }
        }));
    });
}
