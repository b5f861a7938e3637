//! How close the crate comes to what PostgreSQL itself can do.
//!
//! Saves, loads and receipts a second through a `PostgresStore`, by 1, 2, 4 and 8 server processes on one database,
//! beside the same statements sent by bare `tokio-postgres` over as many connections, each transaction in two round
//! trips: for one request a transaction, and for as many as there are players for a connection. The latter knows
//! beforehand what belongs together, and judges nothing: it is the bound. All processes of a row run at the same time,
//! the sides in turns. Nothing is asserted about time.
//!
//! `cargo bench --features postgres --bench postgres`, or with `-- --quick` to see only that it runs. It starts a
//! PostgreSQL of its own, with its default durability, and needs the package `postgresql`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

mod bare;
#[path = "../support/figures.rs"]
mod figures;
mod ours;
#[path = "../../tests/support/postgres.rs"]
mod postgres;

use std::{
    env::{args, current_exe},
    process::{Command, Stdio},
    time::Duration,
};

use bevy_player_data::{PlayerId, store::PostgresStore};
use figures::quick;
use postgres::Cluster;
use tokio::runtime::Runtime;

/// What a child process is told: `--child`, the side, what to do, the URL, its number, and for how long.
const CHILD: &str = "--child";
/// How many connections each process has, on either side.
const CONNECTIONS: usize = 8;
/// How many players ask at once, in each process.
const PLAYERS: usize = 200;
const DOCUMENT: usize = 1024;

const OURS: &str = "crate";
const SINGLE: &str = "bare";
const GROUPED: &str = "bare, grouped";

fn main() {
    let given: Vec<String> = args().skip_while(|argument| argument != CHILD).skip(1).collect();
    if let [side, deed, url, number, seconds] = &given[..] {
        let number = number.parse().unwrap();
        let time = Duration::from_secs_f64(seconds.parse().unwrap());
        let runtime = Runtime::new().unwrap();
        let per_second = match side.as_str() {
            OURS => runtime.block_on(ours::run(deed, url, number, time)),
            GROUPED => runtime.block_on(bare::run(deed, PLAYERS / CONNECTIONS, url, number, time)),
            _ => runtime.block_on(bare::run(deed, 1, url, number, time)),
        };
        return println!("{per_second}");
    }
    let (seconds, rounds, processes): (f64, usize, &[usize]) = match quick() {
        true => (0.3, 1, &[1, 2]),
        false => (3.0, 3, &[1, 2, 4, 8]),
    };
    let cluster = Cluster::start(&["max_connections=200"]);
    println!("{rounds} alternating rounds of {seconds} s; medians; {CONNECTIONS} connections a process\n");
    println!(
        "| what | processes | crate | bare, one a transaction | ratio | goal | bare, grouped | ratio | goal |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for deed in ["saves", "loads", "receipts"] {
        for &count in processes {
            let mut sides = [OURS, SINGLE, GROUPED].map(|side| (side, Vec::new()));
            for _ in 0..rounds {
                for (side, figures) in &mut sides {
                    // Tables of their own, so that neither inherits the other's dead rows.
                    let url = cluster.new_schema();
                    drop(PostgresStore::connect(&url).unwrap());
                    figures.push(run(side, deed, &url, count, seconds));
                }
            }
            let [ours, single, grouped] = sides.map(|(_, figures)| median(figures));
            println!(
                "| {deed} a second | {count} | {ours:.0} | {single:.0} | {:.2} | ≥ 0.8 | {grouped:.0} | {:.2} | ≥ 0.8 |",
                ours / single,
                ours / grouped
            );
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Runs so many processes at the same time, and adds their figures up.
fn run(side: &str, deed: &str, url: &str, count: usize, seconds: f64) -> f64 {
    let children: Vec<_> = (0..count)
        .map(|number| {
            Command::new(current_exe().unwrap())
                .args([CHILD, side, deed, url, &number.to_string(), &seconds.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let figures = children.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "a process of the {side} side failed");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse::<f64>()
            .unwrap()
    });
    figures.sum()
}

fn player(process: usize, n: usize) -> PlayerId {
    PlayerId::from_name("bench").slot(u32::try_from(process * 10_000_000 + n).unwrap())
}

fn document(n: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(n);
    std::iter::repeat_with(|| random.u8(..)).take(DOCUMENT).collect()
}
