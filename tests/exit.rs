//! The app exits: everybody is saved, in parallel and in time, or named.

#[path = "support/server.rs"]
mod support;

use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Fault, FaultRates, Op},
    testing::{Faults, FaultyStore},
};
use support::*;

#[derive(Resource)]
struct Flushed(PlayerDataFlushed);

fn start(settings: ServerSettings) -> (App, Rows, Faults) {
    let rows = Rows::default();
    let store = FaultyStore::new(rows.clone(), 7);
    let faults = store.faults();
    let mut app = server(store, settings);
    app.add_observer(|flushed: On<PlayerDataFlushed>, mut commands: Commands| {
        commands.insert_resource(Flushed(flushed.clone()));
    });
    (app, rows, faults)
}

/// Lets each request to the store take `latency`.
fn slow_down(faults: &Faults, latency: Duration) {
    faults.set_rates(FaultRates {
        latency: latency..=latency,
        ..default()
    });
}

fn join_many(app: &mut App, count: usize) -> Vec<Entity> {
    let everybody: Vec<_> = (0..count).map(|player| app.join(&player.to_string())).collect();
    app.until("everybody is loaded", |world| {
        world.query::<&PlayerSession>().iter(world).count() == count
    });
    everybody
}

#[test]
fn a_thousand_changed_players_are_saved_in_parallel_and_unlocked() {
    let (mut app, rows, faults) = start(quick("a"));
    let everybody = join_many(&mut app, 1000);
    for (player, &entity) in everybody.iter().enumerate() {
        app.set(entity, Coins(player as u64));
    }
    slow_down(&faults, Duration::from_millis(50));
    let started = Instant::now();
    assert_eq!(app.exit(), AppExit::Success);
    // One after the other they would take 50 s, which is above the exit deadline as well.
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "the saves did not overlap"
    );
    for player in 0..1000 {
        let name = player.to_string();
        assert_eq!(stored_value::<Coins>(&rows, &name), Some(Coins(player)));
        assert!(!is_locked(&rows, &name));
    }
    let flushed = &app.world().resource::<Flushed>().0;
    assert_eq!((flushed.saved(), flushed.total), (1000, 1000));
}

#[test]
fn the_server_row_is_gone_after_an_orderly_exit() {
    let rows = Rows::default();
    let mut app = server(rows.connect(), quick("a"));
    app.join_and_load("ada");
    assert_eq!(app.exit(), AppExit::Success);
    let other = OtherServer::start(&rows, "b");
    let leases = wait(bevy_player_data::store::Store::lease(
        &rows,
        bevy_player_data::store::Lease {
            server: other.server,
            name: "b".to_owned(),
            lapsed: Vec::new(),
        },
    ));
    let names: Vec<_> = leases
        .unwrap()
        .servers
        .into_iter()
        .map(|lease| lease.name)
        .collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn a_store_that_hangs_is_given_up_at_the_deadline_with_every_unsaved_player_named() {
    let settings = ServerSettings {
        exit_deadline: Duration::from_millis(300),
        ..quick("a")
    };
    let (mut app, rows, faults) = start(settings);
    let everybody = join_many(&mut app, 5);
    for &entity in &everybody {
        app.set(entity, Coins(1));
    }
    faults.fail_next(Op::Commit, 100, Fault::Hang);
    let started = Instant::now();
    assert!(app.exit().is_error(), "the exit code must tell");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "the deadline was not kept"
    );
    let flushed = app.world().resource::<Flushed>().0.clone();
    assert_eq!((flushed.saved(), flushed.total), (0, 5));
    let mut named: Vec<_> = flushed.unsaved.iter().map(|unsaved| unsaved.player).collect();
    let mut expected: Vec<_> = (0..5).map(|player| id(&player.to_string())).collect();
    named.sort();
    expected.sort();
    assert_eq!(named, expected);
    assert!(
        flushed
            .unsaved
            .iter()
            .all(|unsaved| unsaved.error == SaveError::Deadline)
    );
    for player in 0..5 {
        assert!(
            is_locked(&rows, &player.to_string()),
            "a lock whose save may still land must not be freed"
        );
    }
}

#[test]
fn a_load_in_flight_leaves_no_lock() {
    let (mut app, rows, faults) = start(quick("a"));
    app.join_and_load("somebody else");
    slow_down(&faults, Duration::from_millis(100));
    app.join("ada");
    app.update();
    assert_eq!(app.exit(), AppExit::Success);
    assert!(!is_locked(&rows, "ada"));
}

#[test]
fn players_who_left_just_before_are_waited_for() {
    let (mut app, rows, faults) = start(quick("a"));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    slow_down(&faults, Duration::from_millis(200));
    app.leave(ada);
    assert_eq!(app.exit(), AppExit::Success);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(5)));
    let flushed = &app.world().resource::<Flushed>().0;
    assert_eq!((flushed.saved(), flushed.total), (1, 1));
}

#[test]
fn an_exit_that_is_asked_for_in_the_last_schedule_flushes_too() {
    let (mut app, rows, _) = start(quick("a"));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    app.add_systems(Last, |mut exit: MessageWriter<AppExit>| {
        exit.write(AppExit::Success);
    });
    app.update();
    assert_eq!(app.should_exit(), Some(AppExit::Success));
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(5)));
    assert!(!is_locked(&rows, "ada"));
}

#[test]
fn only_the_last_of_ten_queued_saves_is_written() {
    let (mut app, rows, faults) = start(quick("a"));
    let ada = app.join_and_load("ada");
    slow_down(&faults, Duration::from_millis(300));
    app.forget();
    for coins in 1..=10 {
        app.set(ada, Coins(coins));
        app.world_mut().trigger(SavePlayer { entity: ada });
        app.world_mut().flush();
    }
    app.set(ada, Coins(11));
    assert_eq!(app.exit(), AppExit::Success);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(11)));
    let skipped = app.heard().into_iter().filter(|told| {
        matches!(
            told,
            Told::Saved {
                result: Err(SaveError::Skipped),
                ..
            }
        )
    });
    assert!(
        skipped.count() >= 8,
        "waiters of skipped saves hear so: {:?}",
        app.heard()
    );
}

/// What cannot be encoded must not take the others down.
#[test]
fn one_players_broken_data_does_not_keep_the_others_from_being_saved() {
    #[derive(Component, serde::Deserialize, Default)]
    struct Bomb(bool);
    impl serde::Serialize for Bomb {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            assert!(!self.0, "boom");
            serializer.serialize_newtype_struct("Bomb", &false)
        }
    }
    impl PlayerData for Bomb {
        const KEY: &'static str = "bomb";
    }

    let (mut app, rows, _) = start(quick("a"));
    app.persist::<Bomb>();
    let everybody = join_many(&mut app, 3);
    for &entity in &everybody {
        app.set(entity, Coins(1));
    }
    app.set(everybody[1], Bomb(true));
    assert!(app.exit().is_error());
    let flushed = app.world().resource::<Flushed>().0.clone();
    assert_eq!(flushed.unsaved.len(), 1);
    assert_eq!(flushed.unsaved[0].player, id("1"));
    for name in ["0", "2"] {
        assert_eq!(stored_value::<Coins>(&rows, name), Some(Coins(1)));
    }
    assert!(
        ["0", "1", "2"].iter().all(|name| !is_locked(&rows, name)),
        "every lock is given back"
    );
}

#[test]
fn a_world_that_is_dropped_without_an_exit_is_a_crash() {
    let (mut app, rows, _) = start(quick("a"));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    assert_eq!(app.save(ada, "ada"), Ok(()));
    app.set(ada, Coins(2));
    drop(app);
    assert_eq!(
        stored_value::<Coins>(&rows, "ada"),
        Some(Coins(1)),
        "what was acknowledged is there, and nothing else"
    );
    assert!(is_locked(&rows, "ada"));
}
