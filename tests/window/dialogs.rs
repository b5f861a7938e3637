//! What the player is told, in the UI's tree: each dialog with its words and its buttons, brought about by a real server.

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Acquire, LapsedLease, Lease, LockId, ServerId, Store},
};

use crate::{
    support::{Pair, ada, client, press, texts, topic},
    window::{
        link::{Farewell, Link},
        telling::Topic,
    },
};

/// Has another server hold ada's lock. It takes her away from a server that has her, as if that had been out of touch for
/// too long.
fn hold_elsewhere(rows: &MemoryStore) {
    let store = rows.connect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let server = ServerId::random();
        let lease = Lease {
            server,
            name: "arena-elsewhere".to_owned(),
            lapsed: Vec::new(),
        };
        let leases = store.lease(lease).await.expect("it is kept in memory");
        let lapsed = leases.servers.iter().map(|lease| LapsedLease {
            server: lease.server,
            beat: lease.beat,
        });
        let acquire = Acquire {
            player: ada(),
            lock: LockId::random(),
            server,
            lapsed: lapsed.collect(),
            orphan: None,
            until_beat: u64::MAX,
        };
        store.acquire(acquire).await.expect("nobody else has her");
    });
}

#[test]
fn a_player_in_a_session_is_told_nothing() {
    let mut pair = Pair::in_session();
    pair.step();
    assert_eq!(pair.texts(), Vec::<String>::new());
}

#[test]
fn a_load_that_waits_for_another_servers_session_names_that_server_and_shows_the_time_left() {
    let mut pair = Pair::meet(|rows, _| hold_elsewhere(rows));
    pair.until_told("“arena-elsewhere” has your data");
    assert_eq!(topic(&pair.client), Some(Topic::LockedElsewhere));
    pair.until_told(" s left. After that you can play without it, but nothing is kept.");
}

#[test]
fn a_load_that_waits_for_the_store_says_so() {
    let mut pair = Pair::meet(|_, faults| faults.down());
    pair.until_told("The server can't reach the store that has it.");
    assert_eq!(topic(&pair.client), Some(Topic::StoreAwaited));
    pair.faults.up();
    pair.until_in_session();
    pair.step();
    assert_eq!(topic(&pair.client), None, "there is nothing more to tell");
}

#[test]
fn whoever_plays_on_defaults_is_told_that_nothing_is_kept_and_may_do_so() {
    let mut pair = Pair::meet_for(Duration::from_millis(200), |_, faults| faults.down());
    pair.until_told("Your data could not be loaded");
    assert!(
        pair.texts()
            .iter()
            .any(|text| text.contains("nothing of that is kept")),
        "what it means is said: {:?}",
        pair.texts()
    );
    pair.press("Play all the same");
    pair.step();
    assert_eq!(topic(&pair.client), None, "it was read");
    pair.step();
    assert_eq!(pair.texts(), Vec::<String>::new(), "the dialog is gone");
}

#[test]
fn whoever_is_locked_out_is_told_by_which_server() {
    let mut pair = Pair::meet_for(Duration::from_millis(200), |rows, _| hold_elsewhere(rows));
    pair.until_told("Your data is in use elsewhere");
    pair.until_told("“arena-elsewhere” has not let go of your data");
    assert_eq!(topic(&pair.client), Some(Topic::PlayingOnDefaultsWhileLocked));
}

#[test]
fn a_save_that_fails_is_told_until_one_lands_and_once_it_was_read_not_again() {
    let mut pair = Pair::in_session();
    pair.faults.down();
    pair.save();
    pair.until_told("You are not being saved");
    pair.press("Keep playing");
    pair.save();
    for _ in 0..200 {
        pair.step();
        assert_eq!(topic(&pair.client), None, "it was read");
    }
    pair.faults.up();
    pair.save();
    pair.until("a save lands", |pair| {
        let world = pair.client.world_mut();
        world.query::<&LastSaveFailed>().iter(world).next().is_none()
    });
    pair.step();
    pair.faults.down();
    pair.save();
    pair.until_told("You are not being saved");
}

#[test]
fn a_player_who_was_taken_over_is_told_what_is_lost() {
    let mut pair = Pair::in_session();
    hold_elsewhere(&pair.store);
    pair.save();
    pair.until_told("Another server has taken you over");
    pair.until_told("since the last save is lost");
    pair.until_told("Join again");
    assert_eq!(topic(&pair.client), Some(Topic::SessionTakenOver));
}

#[test]
fn a_server_that_shuts_down_says_so_and_the_client_means_to_come_back() {
    let mut pair = Pair::in_session();
    pair.server.world_mut().trigger(ShutDown);
    pair.until_told("The server is shutting down");
    pair.until_told("Then this client tries again by itself.");
    pair.until_told("It saves everybody on its way out.");
}

#[test]
fn whoever_was_not_being_saved_hears_that_when_the_server_shuts_down() {
    let mut pair = Pair::in_session();
    pair.faults.down();
    pair.save();
    pair.until_told("You are not being saved");
    pair.server.world_mut().trigger(ShutDown);
    pair.until_told("The last save had failed");
}

/// A client whose connection ended like that.
fn after(farewell: Farewell) -> App {
    let mut app = client();
    app.insert_resource(Link::Down(farewell));
    app.update();
    app.update();
    app
}

#[test]
fn every_end_of_a_connection_has_its_words_and_its_buttons() {
    for (farewell, title, buttons) in [
        (
            Farewell::NoAnswer,
            "The server doesn't answer",
            ["Try now", "Leave"],
        ),
        (
            Farewell::Lost("timed out".to_owned()),
            "The connection broke off",
            ["Try now", "Leave"],
        ),
        (
            Farewell::SessionLost(SessionEnd::Replaced),
            "You play in another window now",
            ["Join again", "Leave"],
        ),
        (
            Farewell::SessionLost(SessionEnd::CommitRefused),
            "Your session is over",
            ["Join again", "Leave"],
        ),
        (
            Farewell::Unwanted("this client is too old".to_owned()),
            "The server turns you away",
            ["Try again", "Leave"],
        ),
    ] {
        let shown = texts(&mut after(farewell.clone()));
        assert_eq!(shown.first().map(String::as_str), Some(title), "for {farewell:?}");
        for button in buttons {
            assert!(
                shown.iter().any(|text| text == button),
                "`{button}` is in {shown:?}"
            );
        }
    }
}

#[test]
fn a_client_that_tries_again_and_gets_no_answer_says_so_and_goes_on_trying() {
    let mut app = after(Farewell::Lost("timed out".to_owned()));
    press(&mut app, "Try now");
    let began = std::time::Instant::now();
    while !texts(&mut app)
        .iter()
        .any(|text| text == "The server doesn't answer")
    {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody listens there");
        app.update();
    }
    assert_eq!(topic(&app), Some(Topic::Disconnected));
    app.update();
    let shown = texts(&mut app);
    assert!(
        shown.iter().any(|text| text.contains("tries again by itself")),
        "it goes on: {shown:?}"
    );
}

#[test]
fn leaving_ends_the_client() {
    let mut app = after(Farewell::NoAnswer);
    press(&mut app, "Leave");
    app.update();
    assert!(app.should_exit().is_some());
}
