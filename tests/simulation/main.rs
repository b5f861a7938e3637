//! A simulation that tries to lose, double or leak data: several real servers and clients on one store, everything that
//! can happen to them, and an oracle that looks at every request where it takes effect.
//!
//! A history is drawn from a seed, and happens on one thread: each server has a tokio runtime of its own with a paused
//! clock, so nothing happens but what the seed wants, and the same seed gives the same history, byte for byte. Servers
//! stand still, crash, exit and come back in an older or newer version; their store is slow, fails, hangs, loses
//! replies, and lets requests take effect long after whoever made them is dead. In the end the faults stop, and
//! everything has to be settled.
//!
//! | variable | default | |
//! |---|---|---|
//! | `SIMULATION_SEEDS` | 200 | how many histories have to count: with a fault and a commit |
//! | `SIMULATION_FROM` | 0 | the first seed |
//! | `SIMULATION_SEED` | | this one alone, with its history in `simulation.log` beside the test's binary |
//! | `SIMULATION_SECONDS` | | goes on for so long instead |
//! | `PLAYER_STORE` | memory | the rows are in an SQLite file or, with the feature `postgres`, in a PostgreSQL database |
//!
//! On those each request has taken effect as well before anything else happens (`at_once`), and each history is
//! compared with the one that the same seed gives in memory: they have to be the same, byte for byte. On PostgreSQL
//! they may part where a server is started again after a crash, whose name is taken until its lease has lapsed.
//!
//! `game` is what is played, `server` and `client` the processes, `ears` what they say, `wire` the way between them and
//! the rows, `oracle` what must be so, and `run` what happens, step by `step`.

#[path = "../support/at_once.rs"]
mod at_once;
mod client;
#[path = "../support/driven.rs"]
mod driven;
mod ears;
#[path = "../support/env.rs"]
mod env;
mod game;
mod leases;
mod oracle;
#[path = "../support/rows.rs"]
#[allow(dead_code, reason = "shared with tests of single servers")]
mod rows;
mod run;
mod server;
#[path = "../support/split_store.rs"]
mod split_store;
mod step;
#[path = "../support/stored.rs"]
mod stored;
#[path = "../support/tally.rs"]
mod tally;
mod wire;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use env::number;
use rows::{command, kind};
use run::{Outcome, run};
use step::expected;
use tally::Tally;
use wire::Sabotage;

/// With fewer histories, some of what is expected may not happen.
const MANY: u64 = 2_000;
/// One history in so many is told twice.
const TOLD_TWICE: u64 = 20;
/// So many histories are told on two stores, whatever `PLAYER_STORE` says.
#[cfg(feature = "sqlite")]
const COMPARED: u64 = 20;

#[test]
fn whatever_happens_nothing_is_lost_doubled_or_leaked() {
    if let Some(seed) = number("SIMULATION_SEED") {
        let outcome = run(seed, &kind(), None);
        let log = std::env::current_exe()
            .expect("it runs")
            .with_file_name("simulation.log");
        std::fs::write(&log, &outcome.history).expect("the history can be written");
        println!("{}the history is in {}", outcome.tally, log.display());
        if let Err(violation) = outcome.verdict {
            panic!("seed {seed}: {violation}");
        }
        return;
    }
    let began = Instant::now();
    let wanted = number("SIMULATION_SEEDS").unwrap_or(200);
    let seconds = number("SIMULATION_SECONDS").map(Duration::from_secs);
    let mut total = expected();
    let (counted, failure) = many(None, |counted| match seconds {
        Some(seconds) => began.elapsed() < seconds,
        None => counted < wanted,
    });
    total.merge(counted);
    println!("{total}in {:.1?}", began.elapsed());
    if let Some((seed, violation)) = failure {
        panic!("{violation}\n{}", how_to_replay(seed));
    }
    if total.get("histories", "counted") >= MANY {
        assert_eq!(total.zeroes(), Vec::<String>::new(), "these never happened");
    }
}

/// A few of them, in every run; with `PLAYER_STORE` each history is compared.
#[cfg(feature = "sqlite")]
#[test]
fn the_same_happens_in_memory_and_in_an_sqlite_file() {
    let from: u64 = number("SIMULATION_FROM").unwrap_or(0);
    for seed in from..from + COMPARED {
        let (memory, sqlite) = (run(seed, "memory", None), run(seed, "sqlite", None));
        if let Err(differ) = is_the_same(&memory.history, &sqlite.history) {
            panic!("seed {seed}, in memory and in a file: {differ}");
        }
    }
}

#[test]
fn a_write_that_is_not_fenced_is_found_out() {
    // I2 where somebody's last write, repeated after a hand-off, is taken for that of whoever has the player by then.
    is_found_out(Sabotage::NoFence, &["I1", "I2"]);
}

#[test]
fn a_lock_that_is_taken_from_a_server_that_beats_is_found_out() {
    is_found_out(Sabotage::HastyLocks, &["I1"]);
}

#[test]
fn a_late_attempt_that_overwrites_a_newer_commit_is_found_out() {
    is_found_out(Sabotage::NoSeq, &["I2"]);
}

#[test]
fn an_acknowledgement_before_the_commit_is_found_out() {
    is_found_out(Sabotage::EarlyReply, &["I6", "I8", "I9"]);
}

#[test]
fn a_lock_that_is_not_given_back_is_found_out() {
    is_found_out(Sabotage::KeptLocks, &["I7"]);
}

#[test]
fn a_key_that_is_dropped_because_it_is_unknown_is_found_out() {
    is_found_out(Sabotage::ForgottenKeys, &["I1", "I11"]);
}

#[test]
fn a_trade_in_two_transactions_is_found_out() {
    is_found_out(Sabotage::SplitTrades, &["I9"]);
}

#[test]
fn an_award_and_its_settlement_in_two_transactions_are_found_out() {
    is_found_out(Sabotage::SplitPurchases, &["I4"]);
}

#[test]
fn default_data_that_is_saved_is_found_out() {
    is_found_out(Sabotage::SavedFallbacks, &["I3"]);
}

#[test]
fn an_exit_that_names_nobody_is_found_out() {
    is_found_out(Sabotage::SilentExit, &["I8"]);
}

#[test]
fn a_private_component_that_is_registered_as_public_is_found_out() {
    is_found_out(Sabotage::OpenDiary, &["I10"]);
}

#[test]
fn packets_for_somebody_else_are_found_out() {
    is_found_out(Sabotage::WrongClient, &["I10"]);
}

/// A world with something wrong in it must be found out, and for the right reason.
#[track_caller]
fn is_found_out(sabotage: Sabotage, invariants: &[&str]) {
    let (tally, failure) = many(Some(sabotage), |counted| counted < MANY);
    let histories = tally.sum("histories");
    let (seed, violation) =
        failure.unwrap_or_else(|| panic!("{sabotage:?} is not found out in {histories} histories"));
    println!("{sabotage:?} is found out with seed {seed}, after {histories} histories: {violation}");
    let is_right = invariants
        .iter()
        .any(|invariant| violation.starts_with(&format!("{invariant}:")));
    assert!(is_right, "it is found out for another reason: {violation}");
}

/// Runs histories on all cores until `go_on` has enough of them, or one fails.
fn many(sabotage: Option<Sabotage>, go_on: impl Fn(u64) -> bool + Sync) -> (Tally, Option<(u64, String)>) {
    let next = AtomicU64::new(number("SIMULATION_FROM").unwrap_or(0));
    let counted = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let total = Mutex::new((Tally::default(), None::<(u64, String)>));
    let store = kind();
    let worker = || {
        while go_on(counted.load(Ordering::SeqCst)) && !over.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            let outcome = run(seed, &store, sabotage);
            let verdict = match &outcome.verdict {
                Ok(()) if sabotage.is_none() => told_again(seed, &store, &outcome),
                verdict => verdict.clone(),
            };
            counted.fetch_add(u64::from(outcome.counts), Ordering::SeqCst);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.0.merge(outcome.tally);
            total.0.count(
                "histories",
                if outcome.counts {
                    "counted"
                } else {
                    "without a fault or a commit"
                },
            );
            if let Err(violation) = verdict {
                over.store(true, Ordering::SeqCst);
                if total.1.as_ref().is_none_or(|(first, _)| seed < *first) {
                    total.1 = Some((seed, violation));
                }
            }
        }
    };
    // In a real store, most of the time is spent with waiting for an answer.
    let workers_per_core = if store == "memory" { 1 } else { 4 };
    let workers = workers_per_core * thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The same seed has to give the same history, byte for byte, told twice and on every store.
fn told_again(seed: u64, store: &str, outcome: &Outcome) -> Result<(), String> {
    if store != "memory" {
        let here = up_to_a_name_that_is_taken(&outcome.history);
        let elsewhere = run(seed, "memory", None).history;
        let elsewhere = elsewhere.get(..here.len()).unwrap_or(&elsewhere);
        is_the_same(here, elsewhere).map_err(|differ| format!("on {store} and in memory, {differ}"))?;
    }
    if seed.is_multiple_of(TOLD_TWICE) {
        let again = run(seed, store, None).history;
        is_the_same(&outcome.history, &again).map_err(|differ| format!("told twice, {differ}"))?;
    }
    Ok(())
}

/// From there on, histories on stores part in which nothing proves a server dead: the next one of its name waits for
/// its lease.
fn up_to_a_name_that_is_taken(history: &str) -> &str {
    let taken = history.find(" is already named ").unwrap_or(history.len());
    let line = history[..taken].rfind('\n').filter(|_| taken < history.len());
    &history[..line.map_or(history.len(), |end| end + 1)]
}

fn is_the_same(history: &str, again: &str) -> Result<(), String> {
    let differ = history.lines().zip(again.lines()).find(|(a, b)| a != b);
    match differ {
        Some((a, b)) => Err(format!("it was\n{a}\nand then\n{b}")),
        None if history.len() != again.len() => Err("one history goes on when the other ends".to_owned()),
        None => Ok(()),
    }
}

fn how_to_replay(seed: u64) -> String {
    let again = command(
        &format!("SIMULATION_SEED={seed}"),
        "simulation whatever_happens -- --nocapture",
    );
    format!("to run it alone: {again}")
}
