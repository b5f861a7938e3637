//! `kill -9` of real server processes while their players buy and trade, at every step of the way and at random.
//!
//! A server is started, killed, looked at and started again, hundreds of times on the same file; all the while a
//! payment provider repeats its callbacks, and a player plays from outside, over HTTP and UDP. After each kill SQLite
//! has to find the file sound, the books have to balance, and what the provider or the player was told is there has to
//! be there. In the end everything that was paid for has to be there, once. The same runs on a store that does in two
//! transactions what belongs in one, or that answers before it has saved, have to find that out.
//!
//! It needs the example server with the feature `step-points`, which Cargo does not build for a single test:
//!
//! ```console
//! $ cargo build --features step-points --example server
//! $ cargo test --features step-points --test crash
//! ```
//!
//! `CRASH_KILLS` sets the number of kills of each test, and `CRASH_SEED` the plan.

#![cfg(all(unix, feature = "sqlite", feature = "client", feature = "step-points"))]

#[path = "../support/env.rs"]
mod env;
#[path = "../support/process.rs"]
#[allow(unused_imports, reason = "shared with other tests")]
mod process;

#[path = "../../examples/game/game.rs"]
#[allow(dead_code, reason = "shared with the examples")]
mod game;

mod campaign;
mod provider;
mod victim;
mod witness;

use campaign::{Campaign, Found};
use env::number;

/// Everything that a purchase passes through, from the callback to the answer.
const PURCHASE_STEPS: &[&str] = &[
    "receipt.arriving",
    "receipt.durable",
    "receipt.fetched",
    "award.before",
    "award.done",
    "save.queued",
    "commit.before",
    "commit.done",
    "award.settled",
];

/// Everything that a trade passes through.
const TRADE_STEPS: &[&str] = &[
    "trade.done",
    "trade.queued",
    "commit.before",
    "commit.done",
    "trade.settled",
];

/// How many kills a test has.
fn kills() -> u32 {
    number("CRASH_KILLS").unwrap_or(200)
}

#[test]
fn what_was_paid_for_is_granted_exactly_once_however_often_the_server_is_killed() {
    let report = Campaign::new(PURCHASE_STEPS).run(kills());
    println!("{report}");
    assert_eq!(report.findings, Vec::<Found>::new(), "{report}");
    assert!(
        report.granted > 0 && report.refunded > 0 && report.repeated > 0,
        "{report}"
    );
    report.assert_every_step_was_met();
    report.assert_promises_were_made();
}

#[test]
fn a_relic_that_is_traded_is_there_exactly_once_however_often_the_server_is_killed() {
    let report = Campaign::new(TRADE_STEPS).run(kills());
    println!("{report}");
    assert_eq!(report.findings, Vec::<Found>::new(), "{report}");
    assert!(report.relics > 0, "{report}");
    report.assert_every_step_was_met();
    report.assert_promises_were_made();
}

/// The control: an award and its settlement in two transactions.
#[test]
fn a_store_that_settles_in_a_second_transaction_is_found_out() {
    let report = Campaign::new(&["split.between"])
        .sabotaged("split-purchases")
        .run_until_found(40);
    println!("{report}");
    assert!(!report.findings.is_empty(), "{report}");
}

/// The control: each side of a trade in a transaction of its own.
#[test]
fn a_store_that_saves_each_side_of_a_trade_alone_is_found_out() {
    let report = Campaign::new(&["split.between"])
        .sabotaged("split-trades")
        .run_until_found(40);
    println!("{report}");
    assert!(!report.findings.is_empty(), "{report}");
}

/// The control: saves that are acknowledged, and then made.
#[test]
fn a_store_that_answers_before_it_has_saved_is_found_out() {
    let report = Campaign::new(&[]).sabotaged("early-answers").run_until_found(40);
    println!("{report}");
    let is_missing =
        |found: &Found| found.contains("was told that") && found.contains("is saved, and the file has");
    assert!(report.findings.iter().any(is_missing), "{report}");
}
