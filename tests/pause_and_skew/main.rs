//! Two real server processes on one file, one of them stopped (`SIGSTOP`) or with a clock that jumps by an hour: there is
//! never a second accepted writer.
//!
//! A player is in a session on one server and wanted by the other. The one with the session appends to the player's
//! journal and saves, again and again. Then the fault: a server stands still for longer than its lease lasts, in the
//! middle of a transaction, between a save's capture and its commit, or just before it takes a player over; both stand
//! still at once; or the wall clock of one of them jumps. Triggers in the file write down every change that any process
//! makes to a player's row and every beat, in order, and that history is judged: the journal only ever grows, by one
//! server per fence; what was acknowledged is in it; and nobody takes a player from a server that beats. The last is
//! judged by the order of the beats, so that a slow machine fails nothing.
//!
//! It needs Linux, the feature `step-points` and, for the clocks, [libfaketime](https://github.com/wolfcw/libfaketime)
//! (Debian and Ubuntu: `apt-get install libfaketime`):
//!
//! ```console
//! $ PAUSE_RUNS=100 SKEW_RUNS=100 cargo test --features step-points --test pause_and_skew -- --nocapture --test-threads 1
//! ```
//!
//! `PAUSE_RUNS` and `SKEW_RUNS` set how many faults there are. `PAUSE_SEED` sets the plan (what happens to whom, and
//! for how long); the operating system adds its own chance to that.

#![cfg(all(target_os = "linux", feature = "sqlite", feature = "step-points"))]
#![allow(clippy::unwrap_used, reason = "in a test, what must not fail may panic")]

#[path = "../support/env.rs"]
mod env;
#[path = "../support/forward.rs"]
mod forward;
#[path = "../support/tally.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod tally;

mod broken;
mod clock;
mod duel;
mod fighter;
mod history;
mod pause;
mod report;
mod server;
mod skew;

use env::number;

/// A server process of the other tests, which start it with their own program.
#[test]
#[ignore = "a server of the other tests, which they start themselves"]
fn a_server() {
    server::serve_if_asked();
}

#[test]
fn a_server_that_stood_still_overwrites_nobody_and_learns_that_it_has_lost_the_player() {
    let report = pause::campaign(number("PAUSE_RUNS").unwrap_or(14), None);
    println!("{report}");
    report.assert_nothing_was_found("PAUSE_RUNS");
    report.assert_happened("fault", pause::FAULTS);
    report.assert_happened(
        "outcome",
        &[
            "the rival took over a stopped server's player",
            "the stopped server kept its player",
            "a late write was refused",
            "a session ended with LockLost",
            "a verdict was out of date",
            "nobody was taken over after all had stood still",
            "handed over in order",
        ],
    );
}

#[test]
fn a_wall_clock_that_jumps_by_an_hour_takes_nobody_from_a_server_that_beats() {
    let report = skew::campaign(number("SKEW_RUNS").unwrap_or(12), clock::Faked::Wall, None);
    println!("{report}");
    report.assert_nothing_was_found("SKEW_RUNS");
    report.assert_happened("fault", skew::FAULTS);
    report.assert_happened("outcome", &["no takeover", "handed over in order"]);
}

/// No operating system does that. Servers may stand still then, or take each other for dead; nobody's data may suffer.
#[test]
fn even_a_monotonic_clock_that_jumps_makes_no_second_writer() {
    let report = skew::campaign(
        number("SKEW_RUNS").unwrap_or(12_u32).div_ceil(5),
        clock::Faked::Monotonic,
        None,
    );
    println!("{report}");
    report.assert_nothing_was_found("SKEW_RUNS");
}

/// The control: a store that takes every write for one of the session that has the lock.
#[test]
fn a_store_without_fences_is_found_out() {
    let report = pause::campaign(28, Some("no-fence"));
    println!("{report}");
    report.assert_found("was overwritten");
}

/// The control: a takeover that does not look whether the lease that it judged still stands.
#[test]
fn a_takeover_that_looks_away_between_judging_and_acting_is_found_out() {
    let report = pause::campaign(28, Some("stale-verdict"));
    println!("{report}");
    report.assert_found("from a server that beats");
}

/// The control: leases that end at a time of day.
#[test]
fn leases_that_are_judged_by_the_wall_clock_are_found_out() {
    let report = skew::campaign(16, clock::Faked::Wall, Some("wall-clock"));
    println!("{report}");
    report.assert_found("from a server that beats");
}
