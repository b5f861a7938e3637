//! Loads of players who join all at once, from a file that nobody has read yet; and beats of a server's lease.

use std::time::Instant;

use bevy_player_data::{
    prelude::*,
    store::{Lease, ServerId, Store},
};

use crate::{
    Scale,
    bare::{Bare, Synchronous},
    figures::quantile,
    middle,
    ours::Ours,
    row,
};

pub fn rows(scale: &Scale) {
    for bytes in [1024, 16 * 1024] {
        of_size(scale, bytes);
    }
}

fn of_size(scale: &Scale, bytes: usize) {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let path = folder.path().join("players.db");
    let mut ours = Ours::with_players(&path, "crate", 0..scale.players, bytes);
    ours.change_everybody();
    ours.exit();
    let (mut per_second, mut bare_per_second) = (Vec::new(), Vec::new());
    let (mut worst, mut bare_total) = (Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        let mut ours = Ours::new(&path, "crate", bytes);
        let waits = ours.join(0..scale.players);
        ours.leave();
        ours.exit();
        let bare = Bare::again(&path, scale.players);
        let began = Instant::now();
        assert!(
            bare.load_everybody() >= scale.players * bytes,
            "a document is short"
        );
        let took = began.elapsed().as_secs_f64();
        bare.unlock_everybody();
        if round == 0 {
            continue; // The first round warms the machine up.
        }
        let of = |share| quantile(&waits, share).map_or(f64::NAN, |wait| wait.as_secs_f64());
        per_second.push(scale.players as f64 / of(1.0));
        bare_per_second.push(scale.players as f64 / took);
        worst.push(of(0.99) * 1e3);
        bare_total.push(took * 1e3);
    }
    let what = format!("{} players of {} KiB", scale.players, bytes / 1024);
    let title = format!("loads a second, {what} who join at once");
    row(&title, middle(per_second), middle(bare_per_second), 0, "0.95");
    let title = format!("p99 of what they wait, beside all of the bare loads, ms, {what}");
    row(&title, middle(worst), middle(bare_total), 1, "1.5");
}

pub fn beats(scale: &Scale) {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let path = folder.path().join("crate.db");
    let store = SqliteStore::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let bare = Bare::new(&folder.path().join("bare.db"), 0, Synchronous::Full);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime for the beats");
    let lease = Lease {
        server: ServerId::random(),
        name: "crate".to_owned(),
        lapsed: Vec::new(),
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..=scale.rounds {
        let time = |beat: &dyn Fn()| {
            let began = Instant::now();
            (0..scale.beats).for_each(|_| beat());
            scale.beats as f64 / began.elapsed().as_secs_f64()
        };
        ours.push(time(&|| {
            let beaten = runtime.block_on(store.lease(lease.clone()));
            beaten.unwrap_or_else(|error| panic!("{error}"));
        }));
        theirs.push(time(&|| bare.beat()));
    }
    row(
        "heartbeats a second, one after the other",
        middle(ours),
        middle(theirs),
        0,
        "",
    );
}
