//! The store is down, slow, or loses its replies, and nothing of the player's is lost or overwritten.

#[path = "support/server.rs"]
mod support;

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    session::{Attempts, RetryPolicy},
    store::{Fault, Op},
    testing::{Faults, FaultyStore},
};
use support::*;

/// Gives up soon, so that a test need not wait for long.
fn impatient() -> ServerSettings {
    let settings = quick("a");
    ServerSettings {
        load_timeout: Duration::from_millis(100),
        retry: RetryPolicy {
            attempts: Attempts::Limited(2),
            ..settings.retry
        },
        ..settings
    }
}

fn start(settings: ServerSettings) -> (App, Rows, Faults) {
    let rows = Rows::default();
    let store = FaultyStore::new(rows.clone(), 7);
    let faults = store.faults();
    (server(store, settings), rows, faults)
}

#[test]
fn a_player_who_joins_while_the_store_is_down_plays_on_defaults_that_never_overwrite_the_real_data() {
    let (mut app, rows, faults) = start(impatient());
    put(&rows, "ada", &with_value("coins", 1, &412_u64));
    app.join_and_load("somebody else"); // so that the lease is not what fails
    faults.down();
    let ada = app.join("ada");
    app.until_heard("the load fails", |told| matches!(told, Told::LoadFailed { .. }));
    assert!(app.component::<PlayerSession>(ada).is_none());
    assert_eq!(app.component::<Coins>(ada), Some(Coins(0)));
    let reason = app.component::<PlayerFallback>(ada).unwrap().reason().clone();
    assert!(matches!(reason, LoadError::Unavailable { .. }), "{reason}");

    faults.up();
    app.set(ada, Coins(5));
    assert_eq!(app.save(ada, "ada"), Err(SaveError::NoSession));
    app.leave(ada);
    assert_eq!(app.exit(), AppExit::Success);
    assert_eq!(
        stored_value::<Coins>(&rows, "ada"),
        Some(Coins(412)),
        "defaults were saved over the real data"
    );
    assert!(!is_locked(&rows, "ada"));
}

#[test]
fn a_game_may_turn_players_away_whose_data_can_not_be_loaded() {
    let settings = ServerSettings {
        on_load_failure: |_| OnLoadFailure::Disconnect,
        ..impatient()
    };
    let (mut app, _, faults) = start(settings);
    faults.down();
    let ada = app.join("ada");
    app.until("ada is gone", |world| world.get_entity(ada).is_err());
    assert!(
        matches!(app.heard()[..], [Told::LoadFailed { .. }]),
        "{:?}",
        app.heard()
    );
}

#[test]
fn a_save_that_fails_is_reported_and_the_next_one_carries_its_data() {
    let (mut app, rows, faults) = start(impatient());
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    faults.down();
    assert!(matches!(app.save(ada, "ada"), Err(SaveError::Unavailable { .. })));
    assert!(
        app.component::<PlayerSession>(ada).is_some(),
        "the session goes on"
    );
    faults.up();
    assert_eq!(app.save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(1)));
    assert!(faults.injected(Op::Commit) > 0);
}

#[test]
fn an_older_save_that_lands_does_not_unblock_data_that_was_refused_since() {
    let (mut app, _, faults) = start(ServerSettings {
        document_limit: 1000,
        ..quick("a")
    });
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    faults.fail_next(Op::Commit, 1, Fault::Hang);
    app.world_mut().trigger(SavePlayer { entity: ada });
    app.until("the save is running", |_| faults.injected(Op::Commit) > 0);
    app.set(ada, Guild("g".repeat(2000)));
    assert!(matches!(app.save(ada, "ada"), Err(SaveError::TooLarge { .. })));
    app.forget();
    faults.resume();
    app.until_heard("the older save ends", |told| {
        matches!(told, Told::Saved { result: Ok(()), .. })
    });
    assert!(
        app.component::<SaveBlocked>(ada).is_some(),
        "the data is refused as it is"
    );

    app.set(ada, Guild("small".to_owned()));
    assert_eq!(app.save(ada, "ada"), Ok(()));
    assert!(app.component::<SaveBlocked>(ada).is_none());
}

#[test]
fn a_game_that_asks_for_a_save_in_every_update_of_an_outage_fills_no_memory() {
    let (mut app, rows, faults) = start(quick("a"));
    let ada = app.join_and_load("ada");
    faults.hang();
    app.forget();
    for round in 1..=500 {
        app.set(ada, Coins(round));
        app.world_mut().trigger(SavePlayer { entity: ada });
        app.update();
    }
    let queued = app
        .world_mut()
        .run_system_cached(|server: PlayerDataServer| server.queue_len_of(id("ada")))
        .unwrap();
    assert!(queued <= 64, "{queued} saves are waiting");
    assert!(
        app.heard()
            .iter()
            .any(|told| matches!(told, Told::Saved { result: Err(_), .. })),
        "the game hears of it"
    );
    faults.resume();
    faults.clear();
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(500)));
}

#[test]
fn a_final_save_is_tried_until_the_store_is_back() {
    let (mut app, rows, faults) = start(impatient());
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(9));
    app.forget();
    faults.down();
    app.leave(ada);
    app.until("several attempts have failed", |_| {
        faults.injected(Op::Commit) > 5
    });
    assert!(
        !app.heard().iter().any(|told| matches!(told, Told::Saved { .. })),
        "it gave up"
    );
    faults.up();
    app.until_heard("the final save ends", |told| {
        matches!(
            told,
            Told::Saved {
                is_final: true,
                result: Ok(()),
                ..
            }
        )
    });
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(9)));
    assert!(!is_locked(&rows, "ada"));
}

#[test]
fn a_save_whose_reply_is_lost_takes_effect_once() {
    let (mut app, rows, faults) = start(quick("a"));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    let version = row(&rows, "ada").unwrap().version;
    faults.fail_next(Op::Commit, 1, Fault::After);
    assert_eq!(app.save(ada, "ada"), Ok(()));
    assert_eq!(row(&rows, "ada").unwrap().version, version + 1);
    assert_eq!(faults.injected(Op::Commit), 1);
}

#[test]
fn a_release_whose_reply_is_lost_gives_the_lock_back_once() {
    let (mut app, rows, faults) = start(quick("a"));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    faults.fail_next(Op::Commit, 1, Fault::After);
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert!(!is_locked(&rows, "ada"));
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(1)));
}

#[test]
fn an_acquire_whose_reply_is_lost_while_the_player_leaves_leaves_no_lock() {
    let (mut app, rows, faults) = start(quick("a"));
    app.join_and_load("somebody else");
    faults.fail_next(Op::Acquire, 1, Fault::After);
    let ada = app.join("ada");
    app.update();
    app.until("the acquire took effect", |_| faults.injected(Op::Acquire) > 0);
    app.leave(ada);
    app.until("no lock stays behind", |_| !is_locked(&rows, "ada"));
    let again = app.join_and_load("ada");
    assert_eq!(app.leave_and_save(again, "ada"), Ok(()));
}

#[test]
fn the_data_changes_while_a_save_is_running_and_the_player_leaves() {
    let (mut app, rows, faults) = start(quick("a"));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    faults.fail_next(Op::Commit, 1, Fault::Hang);
    app.world_mut().trigger(SavePlayer { entity: ada });
    app.until("the save is running", |_| faults.injected(Op::Commit) > 0);
    app.set(ada, Coins(2));
    app.forget();
    app.leave(ada);
    faults.resume();
    app.until_heard("the final save ends", |told| {
        matches!(
            told,
            Told::Saved {
                is_final: true,
                result: Ok(()),
                ..
            }
        )
    });
    assert_eq!(
        stored_value::<Coins>(&rows, "ada"),
        Some(Coins(2)),
        "the close was merged into the running save"
    );
}
