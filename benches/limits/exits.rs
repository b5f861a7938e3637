//! Exits, in which everybody is saved and unlocked.

use std::time::Instant;

use crate::{
    Scale,
    bare::{Bare, Synchronous},
    middle,
    ours::Ours,
    row,
};

pub fn rows(scale: &Scale) {
    for players in scale.leavers {
        for bytes in [1024, 4 * 1024, 16 * 1024] {
            of(scale.rounds.min(5), players, bytes);
        }
    }
}

/// `players` changed players are saved and unlocked by an `AppExit`, beside one transaction of the same documents.
fn of(rounds: usize, players: usize, bytes: usize) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let folder = tempfile::tempdir().expect("a folder for the files");
    let mut bare = Bare::new(&folder.path().join("bare.db"), players, Synchronous::Full);
    let path = folder.path().join("crate.db");
    for round in 0..=rounds {
        let mut server = Ours::with_players(&path, "crate", 0..players, bytes);
        server.settle();
        server.start_from(round);
        server.change_everybody();
        let took = server.exit();
        let began = Instant::now();
        bare.save(players, players, bytes);
        let bare_took = began.elapsed();
        if round > 0 {
            // The first round warms both files up.
            ours.push(took.as_secs_f64() * 1e3);
            theirs.push(bare_took.as_secs_f64() * 1e3);
        }
    }
    let goal = if (players, bytes) == (10_000, 4 * 1024) {
        "1.2"
    } else {
        ""
    };
    let title = format!("exit of {players} changed players of {} KiB, ms", bytes / 1024);
    row(&title, middle(ours), middle(theirs), 0, goal);
}
