//! The game's own code interferes at awkward moments: it despawns, saves, panics, clones and replaces.

#[path = "support/server.rs"]
mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Fault, FaultRates, Op, Store},
    testing::{Faults, FaultyStore},
};
use serde::{Deserialize, Serialize};
use support::*;

fn start() -> (App, MemoryStore) {
    let store = MemoryStore::default();
    (server(store.clone(), quick("a")), store)
}

fn start_faulty(settings: ServerSettings) -> (App, MemoryStore, Faults) {
    let rows = MemoryStore::default();
    let store = FaultyStore::new(rows.clone(), 7);
    let faults = store.faults();
    (server(store, settings), rows, faults)
}

#[test]
fn a_player_sent_away_at_the_very_end_of_the_loading_loses_nothing() {
    let (mut app, store) = start();
    put(&store, "ada", &with_value("coins", 1, &412_u64));
    app.add_observer(|on: On<Remove, PlayerLoading>, mut commands: Commands| {
        commands.entity(on.entity).despawn();
    });
    let ada = app.join("ada");
    app.until("ada is gone", |world| world.get_entity(ada).is_err());
    assert_eq!(app.exit(), AppExit::Success);
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(412)));
    assert!(!is_locked(&store, "ada"));
}

#[test]
fn a_save_that_is_asked_for_at_the_very_end_of_the_loading_wipes_nothing() {
    let (mut app, store) = start();
    put(&store, "ada", &with_value("coins", 1, &412_u64));
    app.add_observer(|on: On<Remove, PlayerLoading>, mut commands: Commands| {
        commands.trigger(SavePlayer { entity: on.entity });
    });
    app.join_and_load("ada");
    for _ in 0..50 {
        app.update();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(412)));
}

#[test]
fn a_player_component_removed_at_the_very_end_of_the_loading_leaves_no_session() {
    let (mut app, store) = start();
    put(&store, "ada", &with_value("coins", 1, &412_u64));
    app.add_observer(|on: On<Remove, PlayerLoading>, mut commands: Commands| {
        commands.entity(on.entity).remove::<PersistentPlayer>();
    });
    let ada = app.join("ada");
    app.until("ada is no player", |world| {
        !world.entity(ada).contains::<PersistentPlayer>()
    });
    app.until("unlocked", |_| !is_locked(&store, "ada"));
    assert!(app.component::<PlayerSession>(ada).is_none());
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(412)));
}

fn join_twenty_with_five_coins(app: &mut App) -> Vec<String> {
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for name in &names {
        let player = app.join_and_load(name);
        app.set(player, Coins(5));
    }
    names
}

#[track_caller]
fn assert_saved_and_unlocked(store: &MemoryStore, names: &[String]) {
    for name in names {
        assert!(!is_locked(store, name), "{name}");
        assert_eq!(stored_value::<Coins>(store, name), Some(Coins(5)), "{name}");
    }
}

#[test]
fn an_observer_that_panics_at_exit_keeps_nobody_from_being_saved() {
    let (mut app, store) = start();
    let names = join_twenty_with_five_coins(&mut app);
    app.add_observer(|_: On<PlayerSessionEnded>| panic!("injected"));
    assert!(catch_unwind(AssertUnwindSafe(|| app.exit())).is_err());
    drop(app);
    assert_saved_and_unlocked(&store, &names);
}

#[test]
fn an_observer_of_saves_that_panics_at_exit_keeps_nobody_from_being_saved() {
    let (mut app, store, faults) = start_faulty(quick("a"));
    let names = join_twenty_with_five_coins(&mut app);
    let slow = Duration::from_millis(20)..=Duration::from_millis(200);
    faults.set_rates(FaultRates {
        latency: slow,
        ..default()
    });
    app.add_observer(|_: On<PlayerSaved>| panic!("injected"));
    assert!(catch_unwind(AssertUnwindSafe(|| app.exit())).is_err());
    drop(app);
    assert_saved_and_unlocked(&store, &names);
}

#[test]
fn a_newcomer_sent_away_while_it_replaces_an_older_entity_leaves_no_session_behind() {
    #[derive(Resource)]
    struct Newcomer(Entity);
    let (mut app, store) = start();
    let older = app.join_and_load("ada");
    app.set(older, Coins(7));
    let newer = app.join("ada");
    app.insert_resource(Newcomer(newer));
    app.add_observer(
        |_: On<PlayerSessionEnded>, newcomer: Res<Newcomer>, mut commands: Commands| {
            commands.entity(newcomer.0).try_despawn();
        },
    );
    app.until("the newcomer is gone", |world| world.get_entity(newer).is_err());
    for _ in 0..50 {
        app.update();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!is_locked(&store, "ada"));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(7)));
    assert_eq!(app.exit(), AppExit::Success);
}

#[derive(Component, Serialize, Clone, Debug, Default, PartialEq)]
struct Trap(u8);
impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u8::deserialize(deserializer)?;
        assert!(value != 13, "injected");
        Ok(Self(value))
    }
}
impl PlayerData for Trap {
    const KEY: &'static str = "trap";
}

#[test]
fn a_component_that_panics_while_it_is_decoded_fails_that_load_only() {
    let (mut app, store) = start();
    app.persist::<Trap>();
    put(&store, "ada", &with_value("trap", 1, &13_u8));
    let before = row(&store, "ada").unwrap().document;
    let ada = app.join("ada");
    app.until("the load fails", |world| {
        world.entity(ada).contains::<PlayerFallback>()
    });
    let reason = app.component::<PlayerFallback>(ada).unwrap().reason().clone();
    assert!(
        matches!(&reason, LoadError::Corrupt { message } if message.contains("trap")),
        "{reason}"
    );
    app.leave(ada);
    app.until("unlocked", |_| !is_locked(&store, "ada"));
    assert_eq!(row(&store, "ada").unwrap().document, before);
}

#[test]
fn a_component_that_panics_when_it_is_checked_in_debug_builds_is_saved_all_the_same() {
    let (mut app, store) = start();
    app.persist::<Trap>();
    let ada = app.join_and_load("ada");
    app.set(ada, Trap(13));
    assert_eq!(app.save(ada, "ada"), Ok(()));
    app.set(ada, Trap(1));
    assert_eq!(app.save(ada, "ada"), Ok(()));
    assert!(stored(&store, "ada").get("trap").is_some());
}

#[test]
fn a_load_that_ended_in_the_update_of_the_exit_leaves_no_lock() {
    let (mut app, store, faults) = start_faulty(quick("a"));
    let somebody = app.join_and_load("somebody");
    assert_eq!(app.leave_and_save(somebody, "somebody"), Ok(()));
    let latency = Duration::from_millis(300);
    faults.set_rates(FaultRates {
        latency: latency..=latency,
        ..default()
    });
    app.add_systems(
        Update,
        |server: PlayerDataServer,
         loading: Query<(), With<PlayerLoading>>,
         mut exit: MessageWriter<AppExit>| {
            if loading.is_empty() {
                return;
            }
            let started = Instant::now();
            while server.queue_len_of(id("ada")) > 0 {
                assert!(started.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(1));
            }
            exit.write(AppExit::Success);
        },
    );
    app.join("ada");
    app.update();
    assert_eq!(app.should_exit(), Some(AppExit::Success));
    assert!(
        !app.heard()
            .iter()
            .any(|told| matches!(told, Told::Loaded { player, .. } if *player == id("ada")))
    );
    assert!(row(&store, "ada").is_some(), "the lock had been taken");
    assert!(!is_locked(&store, "ada"));
}

#[test]
fn a_load_in_flight_leaves_no_lock_even_if_somebody_else_could_not_be_saved() {
    let mut settings = quick("a");
    settings.document_limit = 1000;
    let (mut app, rows, faults) = start_faulty(settings);
    let bob = app.join_and_load("bob");
    app.set(bob, Guild("g".repeat(2000)));
    let latency = Duration::from_millis(200);
    faults.set_rates(FaultRates {
        latency: latency..=latency,
        ..default()
    });
    app.join("ada");
    app.update();
    std::thread::sleep(Duration::from_millis(100));
    assert!(app.exit().is_error());
    drop(app);
    assert!(!is_locked(&rows, "bob"));
    assert!(!is_locked(&rows, "ada"));
    assert_eq!(
        wait(rows.leases()).unwrap().servers,
        [],
        "the lease is given back"
    );
}

#[test]
fn the_lease_is_kept_alive_while_everybody_is_saved_at_exit() {
    let settings = ServerSettings {
        beat: Duration::from_millis(50),
        lease_ttl: Duration::from_secs(20),
        exit_deadline: Duration::from_secs(10),
        ..quick("a")
    };
    let (mut app, rows, faults) = start_faulty(settings);
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    faults.fail_next(Op::Commit, 1, Fault::Hang);
    let observer = std::thread::spawn(move || {
        let beat = || wait(rows.leases()).unwrap().servers[0].beat;
        while faults.injected(Op::Commit) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (before, started) = (beat(), Instant::now());
        while beat() < before + 3 {
            if started.elapsed() > Duration::from_secs(8) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        faults.resume();
        true
    });
    let exit = app.exit();
    assert!(observer.join().unwrap(), "the lease was not refreshed");
    assert_eq!(exit, AppExit::Success);
}

#[test]
fn an_entity_that_becomes_another_player_may_be_despawned_on_the_way() {
    let (mut app, store) = start();
    let entity = app.join_and_load("ada");
    app.set(entity, Coins(9));
    app.add_observer(|on: On<PlayerSessionEnded>, mut commands: Commands| {
        commands.entity(on.entity).try_despawn();
    });
    app.set(entity, PersistentPlayer(id("bob")));
    app.until_heard("ada is saved", |told| {
        matches!(told, Told::Saved { is_final: true, .. })
    });
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(9)));
    app.exit();
    assert!(!is_locked(&store, "bob"));
}

#[test]
fn a_save_before_the_first_update_does_nothing() {
    let (mut app, _) = start();
    let ada = app.join("ada");
    app.world_mut().trigger(SavePlayer { entity: ada });
    app.world_mut().flush();
    app.until("ada is loaded", |world| {
        world.entity(ada).contains::<PlayerSession>()
    });
}

#[test]
fn an_entity_that_was_many_players_is_autosaved_once_an_interval() {
    let settings = ServerSettings {
        autosave: Some(Duration::from_millis(1600)),
        ..quick("a")
    };
    let (mut app, rows, faults) = start_faulty(settings);
    let entity = app.join_and_load("0");
    for n in 1..=10 {
        let name = n.to_string();
        app.set(entity, PersistentPlayer(id(&name)));
        app.until_heard(
            "loaded",
            |told| matches!(told, Told::Loaded { player, .. } if *player == id(&name)),
        );
    }
    let _ = (rows, faults);
    app.forget();
    for round in 0..300 {
        app.set(entity, Coins(round));
        app.update();
        std::thread::sleep(Duration::from_millis(2));
    }
    let saves = app
        .heard()
        .iter()
        .filter(|told| matches!(told, Told::Saved { is_final: false, .. }))
        .count();
    assert!((2..=4).contains(&saves), "{saves} in three intervals");
}

#[test]
fn players_stay_spread_over_the_autosave_interval_after_a_frame_that_took_long() {
    use bevy::time::TimeUpdateStrategy;
    let settings = ServerSettings {
        autosave: Some(Duration::from_millis(1600)),
        ..quick("a")
    };
    let (mut app, _, _) = start_faulty(settings);
    let everybody: Vec<_> = (0..300).map(|player| app.join(&player.to_string())).collect();
    app.until("everybody is loaded", |world| {
        world.query::<&PlayerSession>().iter(world).count() == 300
    });
    app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_secs(60)));
    app.update();
    app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_millis(16)));
    let mut most = 0;
    app.until("all answered", |_| true);
    for _ in 0..100 {
        app.update();
        std::thread::sleep(Duration::from_millis(1));
    }
    for round in 0..200 {
        for &entity in &everybody {
            app.world_mut().get_mut::<Coins>(entity).unwrap().0 = round;
        }
        app.forget();
        app.update();
        most = most.max(
            app.heard()
                .iter()
                .filter(|told| matches!(told, Told::Saved { .. }))
                .count(),
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(most > 0 && most < 100, "{most} of 300 in one update");
}

#[test]
fn autosave_works_in_an_app_without_time() {
    let store = MemoryStore::default();
    let settings = ServerSettings {
        autosave: Some(Duration::from_millis(50)),
        ..quick("a")
    };
    let mut app = App::new();
    app.add_plugins(bevy::app::TaskPoolPlugin::default())
        .add_plugins(PlayerDataPlugin::server(store.clone()).with_settings(settings))
        .add_plugins(shared_data);
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    app.until("saved", |_| row(&store, "ada").unwrap().document.is_some());
}

#[test]
fn the_same_player_inserted_again_changes_nothing() {
    let (mut app, _) = start();
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(3));
    app.set(ada, PersistentPlayer(id("ada")));
    app.update();
    assert!(app.component::<PlayerSession>(ada).is_some());
    assert!(
        app.component::<PlayerLoading>(ada).is_none(),
        "a player is in exactly one state"
    );
    assert_eq!(app.component::<Coins>(ada), Some(Coins(3)));
}

#[test]
fn a_clone_of_a_players_entity_is_no_player() {
    let (mut app, _) = start();
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(3));
    let clone = app.world_mut().entity_mut(ada).clone_and_spawn();
    for _ in 0..20 {
        app.update();
    }
    assert_eq!(app.component::<Coins>(clone), Some(Coins(3)));
    assert!(app.component::<PlayerSession>(clone).is_none());
    assert!(app.component::<PersistentPlayer>(clone).is_none());
    assert!(
        app.component::<PlayerSession>(ada).is_some(),
        "the original plays on"
    );
}

#[test]
#[should_panic(expected = "`load_timeout` is longer than a year")]
fn times_without_end_are_refused() {
    let settings = ServerSettings {
        load_timeout: Duration::MAX,
        ..quick("a")
    };
    drop(server(MemoryStore::default(), settings));
}
