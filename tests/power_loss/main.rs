//! Power cuts: what was acknowledged is on the disk, and nothing is there by half.
//!
//! The real [`SqliteStore`](bevy_player_data::store::SqliteStore) runs over a VFS that writes down each write, sync,
//! creation and deletion ([`shim`], [`tape`]). Then the power is cut, on paper, at many places of that recording: a
//! disk is put together that has everything that was synced and any part of what wasn't ([`disk`]), the store opens it,
//! and its books have to be those after some number of requests, in their order: no fewer than were answered, no more
//! than were asked ([`survey`]). One of these disks is what the next recording begins with, so the power also goes
//! while the traces of an earlier cut are being mended.
//!
//! The same is tried on a store that runs with `synchronous=NORMAL`, on a disk whose syncs do nothing, and on stores
//! that do in two transactions what belongs in one. Each has to be found out, and for what it does.
//!
//! ```console
//! $ POWER_CUTS=10000 cargo test --profile model --test power_loss -- --nocapture
//! ```
//!
//! `POWER_CUTS` sets the number of cuts of the first test (the second one has a tenth), `POWER_SEED` the first seed; a
//! seed is 100 cuts. From the same seed follows the same recording and the same cuts, except that the thread which
//! folds the log takes its turns when it likes.

#![cfg(all(unix, feature = "sqlite"))]
#![allow(unsafe_code, reason = "a VFS is a table of C functions")]

#[path = "../support/env.rs"]
mod env;
#[path = "../support/split_store.rs"]
#[allow(unreachable_pub, reason = "shared with other tests")]
mod split_store;

mod books;
mod campaign;
mod disk;
mod disk_io;
mod places;
mod sabotage;
mod shim;
mod survey;
mod tally;
mod tape;
mod wishes;
mod workload;

use std::sync::Arc;

use books::Books;
use campaign::{CUTS_PER_SEED, Campaign, Recording};
use env::number;
use places::{Place, places};
use sabotage::Sabotage;
use tally::Tally;
use tape::{Event, Files, Synchronous};

fn first_seed() -> u64 {
    number("POWER_SEED").unwrap_or(1)
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_and_nothing_is_there_by_half() {
    let cuts = number("POWER_CUTS").unwrap_or(300);
    let tally = Campaign::FAITHFUL.run(first_seed(), cuts);
    println!("{tally}");
    assert_eq!(tally.violations(), 0, "{tally}");
    assert!(tally.cuts >= cuts);
    if cuts >= 3 * CUTS_PER_SEED {
        assert_everything_happened(&tally);
    }
}

/// A thread of the store's own folds the log while the writer goes on.
#[test]
fn what_was_acknowledged_survives_a_power_cut_while_the_log_is_folded() {
    let cuts: usize = number("POWER_CUTS").unwrap_or(1_000) / 10;
    let tally = Campaign::FOLDING.run(first_seed(), cuts);
    println!("{tally}");
    assert_eq!(tally.violations(), 0, "{tally}");
    let folding = tally.places.get(&Place::Checkpoint).copied().unwrap_or_default();
    assert!(
        folding * 20 > cuts,
        "too few cuts while the log is folded: {tally}"
    );
}

fn assert_everything_happened(tally: &Tally) {
    for place in Place::ALL {
        assert!(
            tally.places.contains_key(&place),
            "no cut was a {place:?}: {tally}"
        );
    }
    for fault in FAULTS {
        assert!(
            tally.faults.get(fault).is_some_and(|&count| count > 0),
            "never: {fault}: {tally}"
        );
    }
    for deed in DEEDS {
        assert!(tally.deeds.contains_key(deed), "never: {deed}: {tally}");
    }
    assert!(
        tally.unanswered_survived > 0 && tally.unanswered_lost > 0,
        "{tally}"
    );
}

const FAULTS: [&str; 10] = [
    "a write is lost",
    "a write is there without a sync",
    "a later write is there and an earlier one isn't",
    "a write is torn between sectors",
    "a sector is half written",
    "a sector holds garbage",
    "a file has its new length without the content",
    "a new file's name is missing",
    "a deleted file is back",
    "the log's index is garbage",
];

const DEEDS: [&str; 15] = [
    "beat",
    "load",
    "first save",
    "save",
    "receipt",
    "grant",
    "refuse",
    "refund asked for",
    "refund",
    "trade",
    "leave",
    "leave unsaved",
    "stale write refused",
    "retire",
    "close and open",
];

/// The control: without a sync per commit, SQLite keeps the file whole, and loses what was acknowledged last.
#[test]
fn a_store_with_synchronous_normal_loses_what_it_acknowledged_and_is_found_out() {
    let normal = Campaign {
        synchronous: Synchronous::Normal,
        ..Campaign::FAITHFUL
    };
    let tally = normal.run(first_seed(), 100);
    println!("{tally}");
    assert!(tally.times("lost") > 0, "{tally}");
    assert_eq!(
        tally.times("lost"),
        tally.violations(),
        "only lost, never damaged: {tally}"
    );
}

/// The control: a disk that only says that it has synced.
#[test]
fn a_disk_whose_syncs_do_nothing_is_found_out() {
    let lying = Campaign {
        disk_lies: true,
        ..Campaign::FAITHFUL
    };
    let tally = lying.run(first_seed(), 100);
    println!("{tally}");
    assert!(tally.times("lost") > 0, "{tally}");
    assert!(tally.times("damaged") + tally.times("refused") > 0, "{tally}");
}

/// The control: an answer before the commit.
#[test]
fn a_store_that_answers_before_it_commits_is_found_out() {
    let tally = Campaign::sabotaged(Sabotage::Hasty).run(first_seed(), 100);
    println!("{tally}");
    assert!(tally.times("lost") > 0, "{tally}");
    assert_eq!(tally.times("lost"), tally.violations(), "only lost: {tally}");
}

/// The control: each side of a trade in a transaction of its own.
#[test]
fn a_store_that_saves_each_side_of_a_trade_alone_is_found_out() {
    let tally = Campaign::sabotaged(Sabotage::SplitTrades).run(first_seed(), 100);
    println!("{tally}");
    assert!(tally.times("half a trade") > 0, "{tally}");
    assert_eq!(
        tally.times("half a trade"),
        tally.violations(),
        "only half a trade: {tally}"
    );
}

/// The control: an award and its settlement in two transactions.
#[test]
fn a_store_that_settles_in_a_second_transaction_is_found_out() {
    let tally = Campaign::sabotaged(Sabotage::SplitPurchases).run(first_seed(), 100);
    println!("{tally}");
    assert!(tally.times("half a purchase") > 0, "{tally}");
    assert_eq!(
        tally.times("half a purchase"),
        tally.violations(),
        "only half a purchase: {tally}"
    );
}

/// One life of a new file.
fn record(rounds: usize, rng: fastrand::Rng) -> Recording {
    let books = Arc::new(Books::default());
    Campaign::FAITHFUL.record(&Files::new(), books, rounds, rng, &mut Tally::default())
}

#[test]
fn every_moment_of_a_files_creation_can_be_the_last() {
    let mut rng = fastrand::Rng::with_seed(first_seed());
    let recording = record(0, rng.fork());
    let (moments, log) = {
        let tape = recording.tape.state();
        let is_log = |event: &Event| matches!(event, Event::Created { name, .. } if name.ends_with("-wal"));
        let log = tape.events.iter().position(is_log).expect("the store has a log");
        (
            places(&tape, true).into_iter().enumerate().collect::<Vec<_>>(),
            log,
        )
    };
    let mut tally = Tally::default();
    let mut torn = 0;
    // All of them once, and more often those that only a journal mends.
    for repetition in 0..15 {
        let moments = if repetition == 0 {
            &moments[..]
        } else {
            &moments[..=log]
        };
        Campaign::FAITHFUL.cut_at(
            &Files::new(),
            &recording,
            moments,
            &mut rng,
            &mut tally,
            |n, files, outcome, tally| {
                let database = files.get(disk_io::DATABASE).filter(|content| !content.is_empty());
                torn += usize::from(database.is_some_and(|content| !content.starts_with(b"SQLite format 3")));
                if let Err(found) = outcome {
                    tally.find(&found, format_args!("before event {n}, with {:?}", files.keys()));
                }
            },
        );
    }
    println!("{tally}  files without a header: {torn}");
    assert_eq!(tally.violations(), 0, "{tally}");
    assert!(torn > 0, "no cut tore the header: {tally}");
}

/// What a seed's replay rests on: the sizes and places of all writes, the syncs between them and the answers.
#[test]
fn the_same_seed_gives_the_same_recording() {
    let outline = || {
        let rng = fastrand::Rng::with_seed(first_seed());
        let recording = record(60, rng);
        let mut events = recording.tape.state().events.clone();
        for event in &mut events {
            // Salts and times of day differ.
            if let Event::Written { bytes, .. } = event {
                *bytes = vec![0; bytes.len()].into();
            }
        }
        (events, recording.history)
    };
    let (first, second) = (outline(), outline());
    assert!(first.0.len() > 500, "{} events are no recording", first.0.len());
    assert!(first == second, "two recordings of one seed differ");
}
