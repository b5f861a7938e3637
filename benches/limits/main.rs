//! How close the crate comes to what SQLite itself can do.
//!
//! Each row compares the crate, from changed components to acknowledged commits, with bare `rusqlite` that writes the
//! same number of bytes to a file of the same schema and pragmas. Both take turns in the same run, so that a busy machine
//! slows down both; the table shows medians and their ratio. Nothing is asserted about time.
//!
//! `cargo bench --bench limits`, or with `-- --quick` to see only that it runs. Names of groups of rows (`saves`,
//! `loads`, `exits`, `beats`, `processes`) run only these.

#[path = "../support/figures.rs"]
mod figures;
#[path = "../support/resources.rs"]
mod resources;

mod bare;
mod exits;
mod groups;
mod loads;
mod ours;
mod processes;
mod saves;

use std::env::args;

use figures::quick;

/// How much is done.
pub struct Scale {
    /// How often both sides take their turn.
    rounds: usize,
    /// Who save in a closed loop, and join all at once.
    players: usize,
    /// Saves of a turn.
    saves: usize,
    leavers: [usize; 2],
    beats: usize,
    /// How long the processes that share a file run, in seconds.
    seconds: f64,
}

fn main() {
    if processes::is_child() {
        return processes::run_child();
    }
    let scale = if quick() {
        Scale {
            rounds: 1,
            players: 100,
            saves: 300,
            leavers: [100, 200],
            beats: 10,
            seconds: 0.2,
        }
    } else {
        Scale {
            rounds: 7,
            players: 1_000,
            saves: 20_000,
            leavers: [1_000, 10_000],
            beats: 200,
            seconds: 3.0,
        }
    };
    println!(
        "{} alternating rounds; medians; ratio = crate / baseline\n",
        scale.rounds
    );
    println!("| what | crate | baseline | ratio | goal |");
    println!("|---|---|---|---|---|");
    for (name, rows) in [
        ("saves", saves::rows as fn(&Scale)),
        ("loads", loads::rows),
        ("beats", loads::beats),
        ("exits", exits::rows),
        ("processes", processes::rows),
    ] {
        let chosen: Vec<String> = args()
            .skip(1)
            .filter(|argument| !argument.starts_with("--"))
            .collect();
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            rows(&scale);
        }
    }
}

/// Prints a row of figures of which there is a ratio.
fn row(what: &str, ours: f64, baseline: f64, digits: usize, goal: &str) {
    println!(
        "| {what} | {ours:.digits$} | {baseline:.digits$} | {:.2} | {goal} |",
        ours / baseline
    );
}

/// The one in the middle.
fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
