//! Autosave: every changed player once per interval, spread over it.

#[path = "support/server.rs"]
mod support;

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Fault, Op},
    testing::FaultyStore,
};
use support::*;

/// The interval in updates, at the 16 ms that `support::bare_server` lets pass in each.
const UPDATES: u64 = 100;

fn every_hundred_updates() -> ServerSettings {
    ServerSettings {
        autosave: Some(Duration::from_millis(16 * UPDATES)),
        ..quick("a")
    }
}

#[test]
fn a_changed_player_is_saved_within_the_interval_without_being_asked() {
    let store = Rows::default();
    let mut app = server(store.clone(), every_hundred_updates());
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    for _ in 0..=UPDATES {
        app.update();
    }
    app.until_heard("ada is saved", |told| {
        matches!(
            told,
            Told::Saved {
                is_final: false,
                result: Ok(()),
                ..
            }
        )
    });
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(5)));
}

#[test]
fn an_unchanged_player_is_not_written() {
    let store = Rows::default();
    let mut app = server(store.clone(), every_hundred_updates());
    let ada = app.join_and_load("ada");
    assert_eq!(app.save(ada, "ada"), Ok(()));
    let before = row(&store, "ada").unwrap();
    app.forget();
    for _ in 0..3 * UPDATES {
        app.update();
    }
    assert_eq!(row(&store, "ada").unwrap(), before);
    assert_eq!(app.heard(), [], "nothing was queued either");
}

#[test]
fn no_update_pays_for_everybody() {
    const PLAYERS: usize = 1000;
    let store = FaultyStore::new(Rows::default(), 1);
    let faults = store.faults();
    let mut app = server(store, every_hundred_updates());
    let everybody: Vec<_> = (0..PLAYERS).map(|player| app.join(&player.to_string())).collect();
    app.until("everybody is loaded", |world| {
        world.query::<&PlayerSession>().iter(world).count() == PLAYERS
    });
    app.until_answered();
    // What is queued from here on stays queued, so that it can be counted.
    faults.fail_next(Op::Commit, usize::MAX, Fault::Hang);
    let mut most = 0;
    for _ in 0..=UPDATES {
        for &entity in &everybody {
            app.world_mut().get_mut::<Coins>(entity).unwrap().0 += 1;
        }
        let before = app.queue_len();
        app.update();
        most = most.max(app.queue_len() - before);
    }
    assert_eq!(app.queue_len(), PLAYERS, "everybody's turn comes");
    // Their share would be ten.
    assert!(
        most <= 20,
        "{most} of {PLAYERS} players were saved in one update of {UPDATES}"
    );
}

#[test]
fn a_player_whose_save_is_still_on_its_way_is_not_queued_twice() {
    let store = FaultyStore::new(Rows::default(), 1);
    let faults = store.faults();
    let mut app = server(store, every_hundred_updates());
    let ada = app.join_and_load("ada");
    faults.fail_next(Op::Commit, 1, Fault::Hang);
    for round in 1..=5 * UPDATES {
        app.world_mut().get_mut::<Coins>(ada).unwrap().0 = round;
        app.update();
    }
    let queued = app
        .world_mut()
        .run_system_cached(|server: PlayerDataServer| server.queue_len_of(id("ada")))
        .unwrap();
    assert_eq!(queued, 1);
    faults.resume();
}

#[test]
fn autosave_can_be_turned_off() {
    let store = Rows::default();
    let mut app = server(
        store.clone(),
        ServerSettings {
            autosave: None,
            ..quick("a")
        },
    );
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    for _ in 0..3 * UPDATES {
        app.update();
    }
    assert_eq!(row(&store, "ada").unwrap().document, None);
}
