//! Failover, for real: servers write, their primary is killed, the standby takes over, and nothing that was acknowledged
//! may be missing there.
//!
//! Two real PostgreSQL servers replicate into each other's place, again and again: the primary is ended by `kill -9`,
//! the standby is looked at before anybody can write to it, then it is promoted, and the old primary's place is given to
//! a new standby. All the while three servers' sessions save and are awarded purchases, a provider hands them in, and
//! everything that was acknowledged is written down. The same with asynchronous replication has to lose some of it.
//!
//! `FAILOVER_CYCLES` sets the number of failovers, and `FAILOVER_SEED` their moments.

#![cfg(all(unix, feature = "postgres", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/env.rs"]
mod env;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;

mod books;
mod campaign;
mod cuts;
mod pair;
mod players;

use campaign::Campaign;
use env::number;
use pair::Replication;

fn seed() -> u64 {
    number("FAILOVER_SEED").unwrap_or(1)
}

#[test]
fn nothing_that_was_acknowledged_is_lost_or_doubled_by_a_failover() {
    let cycles = number("FAILOVER_CYCLES").unwrap_or(5);
    let report = Campaign {
        cycles,
        seed: seed(),
        replication: Replication::Synchronous,
    }
    .run();
    println!("{report}");
    assert_eq!(report.lost, Vec::<String>::new(), "{report}");
    assert_eq!(report.doubled, Vec::<String>::new(), "{report}");
    assert_eq!(report.ended_badly, Vec::<String>::new(), "{report}");
    assert_eq!(report.cycles, cycles, "{report}");
    assert!(
        report.saves > 10 * u64::from(cycles) && report.awards > u64::from(cycles),
        "{report}"
    );
    assert!(
        report.went_on > 0,
        "no session went on through a failover: {report}"
    );
    assert!(report.old_primaries > 0, "no old primary came back: {report}");
}

#[test]
fn with_asynchronous_replication_the_same_loses_what_was_acknowledged() {
    let cycles = number("FAILOVER_CYCLES").map_or(3, |cycles: u32| (cycles / 6).max(3));
    let report = Campaign {
        cycles,
        seed: seed(),
        replication: Replication::Asynchronous,
    }
    .run();
    println!("{report}");
    assert!(
        !report.lost.is_empty(),
        "the control lost nothing, so the test would not have noticed: {report}"
    );
}
