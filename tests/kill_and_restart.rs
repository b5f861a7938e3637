//! `kill -9` in the middle of a game, and a restart under the same name.

#![cfg(all(unix, feature = "sqlite", feature = "client", not(feature = "window")))]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

#[path = "support/process.rs"]
mod process;

use process::{Player, Row, Server, play, rows, wait_for};

/// By default another server waits 30 s before it takes over what a dead one held. A restart takes far less, on a store
/// that can prove the predecessor dead.
fn at_once() -> Duration {
    let must_lapse = std::env::var("PLAYER_STORE").is_ok_and(|store| store == "postgres");
    Duration::from_secs(if must_lapse { 45 } else { 15 })
}
const BOTS: &str = "20";

#[test]
fn after_kill_9_a_server_of_the_same_name_takes_its_players_up_at_once_with_what_was_saved_last() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(folder.path(), &["--bots", BOTS]);
    wait_for("all bots have been saved, and some have come back", || {
        let rows = rows(folder.path());
        let saved = rows.iter().filter(|row| row.coins.is_some()).count();
        (saved == 20 && rows.iter().any(|row| row.fence > 1)).then_some(())
    });
    server.kill();

    let left: HashMap<_, Row> = rows(folder.path())
        .into_iter()
        .map(|row| (row.player, row))
        .collect();
    assert!(
        left.values().any(|row| row.is_locked),
        "it died in the middle of sessions"
    );

    let restarted = Instant::now();
    let server = Server::start(folder.path(), &["--bots", BOTS]);
    wait_for("everybody is in a session again", || {
        let rows = rows(folder.path());
        rows.iter()
            .all(|row| row.fence > left[&row.player].fence)
            .then_some(())
    });
    assert!(
        restarted.elapsed() < at_once(),
        "nobody waits for the dead server's lease: {:?}",
        restarted.elapsed()
    );
    server.signal("TERM");
    let ended = server.wait();
    ended.assert_all_saved();
    assert!(
        !ended.said.join("\n").contains("plays on defaults"),
        "everybody got their data"
    );

    let found = rows(folder.path());
    assert_eq!(found.len(), left.len());
    for row in found {
        let left = &left[&row.player];
        assert!(!row.is_locked, "every lock is given back: {row:?}");
        assert!(
            row.version >= left.version,
            "nothing is rolled back: {left:?} became {row:?}"
        );
        assert!(
            row.coins >= left.coins,
            "nobody's coins are gone: {left:?} became {row:?}"
        );
    }
}

#[test]
fn a_player_whose_server_was_killed_is_back_at_once_after_the_restart() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(folder.path(), &[]);
    let ada = Player::join(&server.url(), "ada");
    let place = ada.wait_for_line("at ");
    wait_for("ada's first save", || {
        rows(folder.path()).first().and_then(|row| row.coins)
    });
    server.kill();
    assert!(
        rows(folder.path())[0].is_locked,
        "it died in the middle of her session"
    );

    let server = Server::start(folder.path(), &[]);
    let joined = Instant::now();
    let said = String::from_utf8(play(&server.url(), "ada", "quit\n").stdout).expect("UTF-8");
    assert!(
        joined.elapsed() < at_once(),
        "she doesn't wait: {:?}",
        joined.elapsed()
    );
    assert!(said.contains("welcome back: your data is loaded"), "{said}");
    assert!(
        said.contains("coins 10") && said.contains(&place),
        "all as it was saved: {said}"
    );
}
