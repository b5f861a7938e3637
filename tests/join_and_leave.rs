//! A player joins, plays, leaves and comes back.

#[path = "support/server.rs"]
mod support;

use bevy::{
    ecs::{lifecycle::HookContext, world::DeferredWorld},
    prelude::*,
};
use bevy_player_data::{
    prelude::*,
    session::RetryPolicy,
    testing::{FaultyStore, headless_app},
};
use serde::{Deserialize, Serialize};
use support::*;

fn start() -> (App, Rows) {
    let store = Rows::default();
    (server(store.clone(), quick("a")), store)
}

#[test]
fn a_new_player_gets_defaults_and_finds_the_changes_on_coming_back() {
    let (mut app, store) = start();
    let ada = app.join_and_load("ada");
    assert!(
        app.component::<PlayerSession>(ada)
            .is_some_and(|session| session.first_join())
    );
    assert_eq!(app.component::<Coins>(ada), Some(Coins(0)));
    assert_eq!(
        app.component::<Guild>(ada),
        None,
        "an optional component has no default"
    );
    app.world_mut().get_mut::<Coins>(ada).unwrap().0 = 412;
    app.set(ada, Guild("weavers".to_owned()));
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert!(!is_locked(&store, "ada"));

    app.forget();
    let ada = app.join_and_load("ada");
    assert_eq!(app.component::<Coins>(ada), Some(Coins(412)));
    assert_eq!(app.component::<Guild>(ada), Some(Guild("weavers".to_owned())));
    assert_eq!(
        app.heard(),
        [Told::Loaded {
            player: id("ada"),
            first_join: false
        }]
    );
}

#[test]
fn nothing_of_the_data_is_on_the_entity_before_all_of_it_is() {
    #[derive(Resource, Default)]
    struct Seen(Vec<(u64, bool, bool)>);

    let (mut app, store) = start();
    put(&store, "ada", &with_value("coins", 1, &7_u64));
    app.init_resource::<Seen>().add_observer(
        |add: On<Add, Coins>,
         players: Query<(&Coins, Has<Inventory>, Has<PlayerSession>)>,
         mut seen: ResMut<Seen>| {
            let (coins, inventory, session) = players.get(add.entity).unwrap();
            seen.0.push((coins.0, inventory, session));
        },
    );
    let ada = app.join("ada");
    assert!(app.component::<Coins>(ada).is_none());
    assert!(app.component::<PlayerLoading>(ada).is_some());
    app.until("ada is loaded", |world| {
        world.entity(ada).contains::<PlayerSession>()
    });
    assert!(
        app.component::<PlayerLoading>(ada).is_none(),
        "a player is in exactly one state"
    );
    assert_eq!(
        app.world().resource::<Seen>().0,
        [(7, true, true)],
        "the observer saw the stored value, and all of it"
    );
}

#[test]
fn what_observers_of_the_load_change_is_saved() {
    let (mut app, store) = start();
    put(&store, "ada", &with_value("coins", 1, &7_u64));
    app.add_observer(|add: On<Add, Coins>, mut coins: Query<&mut Coins>| {
        coins.get_mut(add.entity).unwrap().0 += 1;
    });
    let ada = app.join_and_load("ada");
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(8)));
}

/// Its hook gives the player a coin.
#[derive(Component, Serialize, Deserialize, Default)]
#[component(on_add = give_a_coin)]
struct Medal;

fn give_a_coin(mut world: DeferredWorld, context: HookContext) {
    world
        .get_mut::<Coins>(context.entity)
        .expect("both are loaded together")
        .0 += 1;
}

impl PlayerData for Medal {
    const KEY: &'static str = "a medal";
}

#[test]
fn what_component_hooks_of_the_load_change_is_saved() {
    let store = Rows::default();
    let mut app = headless_app();
    // Known to Bevy before any component of the crate is.
    app.persist::<Medal>();
    app.add_plugins((
        PlayerDataPlugin::server(store.clone()).with_settings(quick("a")),
        shared_data,
    ));
    observe(&mut app);
    put(&store, "ada", &with_value("coins", 1, &7_u64));
    let ada = app.join_and_load("ada");
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(8)));
}

#[test]
fn what_observers_of_the_despawn_change_is_saved() {
    let (mut app, store) = start();
    app.add_observer(
        |despawn: On<Despawn, PlayerSession>, mut coins: Query<&mut Coins>| {
            coins.get_mut(despawn.entity).unwrap().0 += 1;
        },
    );
    app.add_observer(|remove: On<Remove, Coins>, mut coins: Query<&mut Coins>| {
        coins.get_mut(remove.entity).unwrap().0 += 10;
    });
    let ada = app.join_and_load("ada");
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(11)));
}

#[test]
fn losing_the_persistent_player_is_leaving_too() {
    let (mut app, store) = start();
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    app.forget();
    app.world_mut().entity_mut(ada).remove::<PersistentPlayer>();
    app.until_heard("ada's final save ends", |told| {
        matches!(told, Told::Saved { is_final: true, .. })
    });
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(5)));
    assert!(!is_locked(&store, "ada"));
    assert!(
        app.component::<PlayerSession>(ada).is_none(),
        "without a player there is no session"
    );
    app.set(ada, Coins(6));
    app.update();
    assert_eq!(
        stored_value::<Coins>(&store, "ada"),
        Some(Coins(5)),
        "what stays on the entity is not persisted"
    );
}

#[test]
fn losing_the_session_component_is_leaving_too() {
    let (mut app, store) = start();
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    app.forget();
    app.world_mut().entity_mut(ada).remove::<PlayerSession>();
    app.until_heard("ada's final save ends", |told| {
        matches!(told, Told::Saved { is_final: true, .. })
    });
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(5)));
    assert!(app.component::<PersistentPlayer>(ada).is_none());
}

#[test]
fn an_entity_that_becomes_another_player_takes_nothing_along() {
    let (mut app, store) = start();
    let entity = app.join_and_load("ada");
    app.set(entity, Coins(99));
    app.set(entity, Guild("weavers".to_owned()));
    app.forget();
    app.set(entity, PersistentPlayer(id("bob")));
    assert_eq!(
        app.component::<Coins>(entity),
        None,
        "bob is loading and has ada's coins"
    );
    app.until_heard(
        "bob is loaded",
        |told| matches!(told, Told::Loaded { player, .. } if *player == id("bob")),
    );
    assert_eq!(app.component::<Coins>(entity), Some(Coins(0)));
    assert_eq!(app.component::<Guild>(entity), None);
    app.until_heard(
        "ada's final save ends",
        |told| matches!(told, Told::Saved { player, is_final: true, .. } if *player == id("ada")),
    );
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(99)));
    assert_eq!(app.leave_and_save(entity, "bob"), Ok(()));
    assert_eq!(stored_value::<Coins>(&store, "bob"), Some(Coins(0)));
}

#[test]
fn what_the_game_spawns_beside_the_player_does_not_mix_with_what_is_stored() {
    let (mut app, store) = start();
    put(&store, "ada", &with_value("coins", 1, &7_u64));
    let spawned = (
        PersistentPlayer(id("ada")),
        Coins(1000),
        Guild("impostors".to_owned()),
    );
    let ada = app.world_mut().spawn(spawned).id();
    app.until("ada is loaded", |world| {
        world.entity(ada).contains::<PlayerSession>()
    });
    assert_eq!(app.component::<Coins>(ada), Some(Coins(7)));
    assert_eq!(app.component::<Guild>(ada), None);
}

#[test]
fn the_same_player_joining_twice_finds_what_the_older_entity_had() {
    let (mut app, _) = start();
    let older = app.join_and_load("ada");
    app.set(older, Coins(33));
    app.forget();
    let newer = app.join_and_load("ada");
    assert_eq!(app.component::<Coins>(newer), Some(Coins(33)));
    assert!(app.world().get_entity(older).is_err(), "the older entity is gone");
    let ended = Told::Ended {
        player: id("ada"),
        reason: SessionEnd::Replaced,
    };
    assert_eq!(app.heard().iter().filter(|told| **told == ended).count(), 1);
    app.set(newer, Coins(34));
    assert_eq!(app.leave_and_save(newer, "ada"), Ok(()));
}

#[test]
fn joining_twice_while_the_first_load_is_still_under_way_loads_once() {
    let (mut app, store) = start();
    let older = app.join("ada");
    app.update();
    let newer = app.join_and_load("ada");
    assert!(app.world().get_entity(older).is_err());
    assert_eq!(app.leave_and_save(newer, "ada"), Ok(()));
    assert!(!is_locked(&store, "ada"));
}

#[test]
fn leaving_before_the_load_ends_leaves_no_lock_and_a_rejoin_gets_the_data() {
    let inner = Rows::default();
    put(&inner, "ada", &with_value("coins", 1, &7_u64));
    let mut app = server(inner.clone(), quick("a"));
    for _ in 0..20 {
        let ada = app.join("ada");
        app.update();
        app.leave(ada);
    }
    let ada = app.join_and_load("ada");
    assert_eq!(app.component::<Coins>(ada), Some(Coins(7)));
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert!(!is_locked(&inner, "ada"));
}

#[test]
fn a_save_on_request_is_durable_when_it_is_answered() {
    let (mut app, store) = start();
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(50));
    assert_eq!(app.save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(50)));
    assert!(is_locked(&store, "ada"), "the session goes on");
}

#[test]
fn a_save_on_request_carries_what_the_same_system_changed() {
    let (mut app, store) = start();
    app.add_observer(
        |loaded: On<PlayerLoaded>, mut coins: Query<&mut Coins>, mut commands: Commands| -> Result {
            if loaded.first_join {
                coins.get_mut(loaded.entity)?.0 = 50;
            }
            commands.trigger(SavePlayer {
                entity: loaded.entity,
            });
            Ok(())
        },
    );
    app.join("ada");
    app.until_heard("ada's save ends", |told| matches!(told, Told::Saved { .. }));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(50)));
}

#[test]
fn a_removed_optional_component_is_gone_and_a_removed_required_one_is_back_at_its_default() {
    let (mut app, store) = start();
    let ada = app.join_and_load("ada");
    app.set(ada, Guild("weavers".to_owned()));
    app.set(ada, Coins(9));
    assert_eq!(app.save(ada, "ada"), Ok(()));
    app.world_mut().entity_mut(ada).remove::<Guild>();
    app.world_mut().entity_mut(ada).remove::<Coins>();
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Guild>(&store, "ada"), None);
    let ada = app.join_and_load("ada");
    assert_eq!(app.component::<Guild>(ada), None);
    assert_eq!(app.component::<Coins>(ada), Some(Coins(0)));
}

#[test]
fn an_offline_player_is_edited_by_spawn_change_despawn() {
    let (mut app, store) = start();
    put(&store, "ada", &with_value("coins", 1, &7_u64));
    let ada = app.join_and_load("ada");
    app.world_mut().get_mut::<Coins>(ada).unwrap().0 += 1;
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(8)));
}

#[test]
fn unchanged_data_is_not_written_again() {
    let (mut app, store) = start();
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    assert_eq!(app.save(ada, "ada"), Ok(()));
    let version = row(&store, "ada").unwrap().version;
    assert_eq!(app.save(ada, "ada"), Ok(()));
    assert_eq!(
        row(&store, "ada").unwrap().version,
        version,
        "equal data was written again"
    );
}

#[test]
fn a_player_without_a_session_is_told_that_nothing_can_be_saved() {
    let store = FaultyStore::new(Rows::default(), 1);
    let mut settings = quick("a");
    settings.load_timeout = std::time::Duration::from_millis(50);
    settings.retry = RetryPolicy {
        first: std::time::Duration::from_millis(1),
        ..settings.retry
    };
    let mut app = server(store.clone(), settings);
    store.faults().down();
    let ada = app.join("ada");
    app.until("ada is on defaults", |world| {
        world.entity(ada).contains::<PlayerFallback>()
    });
    assert_eq!(app.save(ada, "ada"), Err(SaveError::NoSession));
}

#[test]
fn waiting_for_a_load_outside_the_schedule_ends_with_it() {
    fn waiting(app: &mut App, entity: Entity) -> std::thread::JoinHandle<Result<PlayerLoaded, LoadError>> {
        let future = app
            .world_mut()
            .run_system_cached_with(
                |In(entity): In<Entity>, mut server: PlayerDataServer| server.wait_for_load(entity),
                entity,
            )
            .unwrap();
        std::thread::spawn(move || wait(future))
    }

    let (mut app, _) = start();
    app.update();
    let ada = app.join("ada");
    let early = waiting(&mut app, ada);
    app.until("the future is ready", |_| early.is_finished());
    assert!(early.join().unwrap().unwrap().first_join);
    let late = waiting(&mut app, ada);
    assert_eq!(
        late.join().unwrap().unwrap().player,
        id("ada"),
        "a load that has ended is answered at once"
    );

    let bob = app.join("bob");
    let left = waiting(&mut app, bob);
    app.leave(bob);
    app.update();
    assert_eq!(left.join().unwrap().unwrap_err(), LoadError::Left);
}

#[test]
fn players_spawned_before_the_first_update_are_loaded_too() {
    let (mut app, _) = start();
    app.add_systems(Startup, |mut commands: Commands| {
        commands.spawn(PersistentPlayer(id("bob")));
    });
    app.join("ada");
    for name in ["ada", "bob"] {
        app.until_heard(
            name,
            |told| matches!(told, Told::Loaded { player, .. } if *player == id(name)),
        );
    }
}
