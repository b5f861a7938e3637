//! Shutting down for real: SIGTERM to a server process with a thousand unsaved players, on a store that is slow, hangs,
//! dies half way or finds its file locked, and SIGKILL around the deadline.
//!
//! Afterwards the file is looked at: everybody is either saved and released, or locked with the previous version whole;
//! the exit code is 0 exactly if everybody was saved, and whoever was not is named. The next run begins with a server
//! of the same name, which has to get everybody back, with what the file said.
//!
//! ```console
//! $ SHUTDOWN_RUNS=100 cargo test --test shutdown -- --nocapture --test-threads 1
//! ```
//!
//! `SHUTDOWN_RUNS` is the number of runs (default: 10), `SHUTDOWN_SEED` draws what happens in them.

#![cfg(all(unix, feature = "sqlite"))]

#[path = "../support/env.rs"]
mod env;
#[path = "../support/forward.rs"]
mod forward;
#[path = "../support/tally.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod tally;

mod books;
mod campaign;
mod moods;
mod server;

use campaign::{Campaign, Report};
use env::number;
use server::Sabotage;

/// With fewer runs, some of what is expected may not happen.
const MANY: u64 = 50;

fn campaign(runs: u64, sabotage: Option<Sabotage>) -> Report {
    let campaign = Campaign {
        runs,
        seed: number("SHUTDOWN_SEED").unwrap_or(1),
        sabotage,
    };
    let report = campaign.run();
    println!("{report}");
    if sabotage.is_none() {
        let again = "cargo test --profile model --test shutdown -- --nocapture --test-threads 1";
        println!(
            "again: SHUTDOWN_SEED={} SHUTDOWN_RUNS={runs} {again}",
            campaign.seed
        );
    }
    report
}

/// A server process of the other tests, which start it with their own program.
#[test]
#[ignore = "a server of the other tests, which they start themselves"]
fn a_server() {
    server::serve_if_asked();
}

#[test]
fn everybody_is_saved_and_released_or_locked_with_the_previous_version_whole() {
    let runs = number("SHUTDOWN_RUNS").unwrap_or(10);
    let report = campaign(runs, None);
    assert!(report.found.is_empty(), "see above");
    if runs >= MANY {
        assert_eq!(
            report.tally.zeroes(),
            Vec::<String>::new(),
            "these never happened"
        );
    }
}

/// The control: an exit that saves nobody.
#[test]
fn an_exit_without_a_flush_is_found_out() {
    let report = campaign(5, Some(Sabotage::NoFlush));
    report.assert_found("was not saved, and nobody said so");
}

/// The control: a store that says that a save is durable before it is, and then dies.
#[test]
fn a_store_that_answers_too_early_is_found_out() {
    let report = campaign(5, Some(Sabotage::EarlyAnswers));
    report.assert_found("was not saved, and nobody said so");
}
