//! What a player is told beside their data: why loading takes long, that a save is on its way, and why the server hangs
//! up.

#[path = "support/net.rs"]
mod support;

use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy_player_data::{
    client::DisconnectedByServer,
    prelude::*,
    session::RetryPolicy,
    store::{Acquire, FaultyStore, Lease, LockId, ServerId, Store},
    testing::headless_app,
};
use bevy_renet::{RenetServer, RenetServerPlugin};
use support::*;

fn ada() -> PlayerId {
    PlayerId::from_name("ada")
}

/// Settings with which a test needs to wait for nothing.
fn quick() -> ServerSettings {
    ServerSettings {
        name: "arena-1".to_owned(),
        identify: Identify::by(|client, _| {
            Some(PlayerId::from_name(if client == 1 { "ada" } else { "eve" }))
        }),
        handle_signals: false,
        autosave: None,
        retry: RetryPolicy {
            first: Duration::from_millis(1),
            max: Duration::from_millis(10),
            ..RetryPolicy::default()
        },
        ..default()
    }
}

/// A real server, and ada's client.
fn play(store: impl Store, settings: ServerSettings) -> (App, Client) {
    let mut server = headless_app();
    server
        .insert_resource(bevy::time::TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            RenetServerPlugin,
            PlayerDataPlugin::server(store).with_settings(settings),
        ))
        .insert_resource(RenetServer::new(config()))
        .add_plugins(shared_data);
    let mut client = Client::connect(&mut server, 1);
    client
        .app
        .init_resource::<Kinds>()
        .add_observer(|on: On<DisconnectedByServer>, mut kinds: ResMut<Kinds>| kinds.0.push(on.kind));
    (server, client)
}

/// As what kinds of disconnection the client was told.
#[derive(Resource, Default)]
struct Kinds(Vec<DisconnectKind>);

fn kinds(client: &Client) -> Vec<DisconnectKind> {
    client.app.world().resource::<Kinds>().0.clone()
}

fn until_loaded(server: &mut App, client: &mut Client) {
    client.until_in_time(server, "ada is loaded", |client| client.has::<PlayerSession>());
}

fn player(server: &mut App) -> Entity {
    let world = server.world_mut();
    world
        .query_filtered::<Entity, With<PersistentPlayer>>()
        .single(world)
        .expect("one player")
}

fn save(server: &mut App) {
    let entity = player(server);
    server.world_mut().trigger(SavePlayer { entity });
    server.world_mut().flush();
}

/// Another server that has ada in a session, at the level of the store.
struct Holder(ServerId);

impl Holder {
    async fn take(store: &dyn Store) -> Self {
        let server = ServerId::random();
        let name = "arena-2".to_owned();
        store
            .lease(Lease {
                server,
                name,
                lapsed: Vec::new(),
            })
            .await
            .expect("a lease");
        let acquire = Acquire {
            player: ada(),
            lock: LockId::random(),
            server,
            lapsed: Vec::new(),
            orphan: None,
            until_beat: u64::MAX,
        };
        store.acquire(acquire).await.expect("the lock is free");
        Self(server)
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime for one request")
        .block_on(future)
}

#[test]
fn a_player_who_waits_for_another_session_is_told_where_it_is_and_for_how_long() {
    let store = MemoryStore::default();
    let holder = wait(Holder::take(&store));
    let (mut server, mut client) = play(store.connect(), quick());
    client.until_in_time(&mut server, "ada is told why", |client| {
        client.has::<LoadDelayed>()
    });
    let delayed: LoadDelayed = client.get().expect("it was there");
    assert_eq!(
        delayed.reason(),
        &LoadError::SessionLocked {
            server: "arena-2".to_owned()
        }
    );
    let timeout = quick().load_timeout;
    assert!(
        delayed.gives_up_in() > timeout / 2 && delayed.gives_up_in() <= timeout,
        "{delayed:?}"
    );
    assert!(client.has::<PlayerLoading>(), "it goes on being tried");

    wait(store.retire(holder.0)).expect("the store answers");
    until_loaded(&mut server, &mut client);
    assert!(!client.has::<LoadDelayed>(), "nothing is in the way any more");
    let player = player(&mut server);
    assert!(server.world().get::<LoadDelayed>(player).is_none());
}

#[test]
fn a_player_who_waits_for_the_store_is_told_so_without_what_only_operators_should_know() {
    let store = FaultyStore::new(MemoryStore::default(), 1);
    let faults = store.faults();
    faults.down();
    let (mut server, mut client) = play(store, quick());
    client.until_in_time(&mut server, "ada is told why", |client| {
        client.has::<LoadDelayed>()
    });
    let delayed: LoadDelayed = client.get().expect("it was there");
    assert_eq!(
        delayed.reason(),
        &LoadError::Unavailable {
            message: "try again later".to_owned()
        }
    );
    faults.up();
    until_loaded(&mut server, &mut client);
    assert!(!client.has::<LoadDelayed>());
}

#[test]
fn the_newest_reason_for_the_wait_is_shown() {
    let store = FaultyStore::new(MemoryStore::default(), 1);
    let faults = store.faults();
    let rows = store.clone();
    let _holder = wait(Holder::take(&rows));
    let (mut server, mut client) = play(store, quick());
    let is_locked = |client: &mut Client| {
        client
            .get::<LoadDelayed>()
            .is_some_and(|delayed| matches!(delayed.reason(), LoadError::SessionLocked { .. }))
    };
    client.until_in_time(&mut server, "the lock is in the way", is_locked);
    faults.down();
    client.until_in_time(&mut server, "the store is in the way", |client| {
        client
            .get::<LoadDelayed>()
            .is_some_and(|delayed| matches!(delayed.reason(), LoadError::Unavailable { .. }))
    });
    faults.up();
    client.until_in_time(&mut server, "the lock is in the way again", is_locked);
}

#[test]
fn a_player_on_defaults_waits_for_nothing() {
    let store = MemoryStore::default();
    let _holder = wait(Holder::take(&store));
    let settings = ServerSettings {
        load_timeout: Duration::from_millis(200),
        ..quick()
    };
    let (mut server, mut client) = play(store, settings);
    client.until_in_time(&mut server, "the load has failed", |client| {
        client.has::<PlayerFallback>()
    });
    assert!(!client.has::<LoadDelayed>());
    let player = player(&mut server);
    assert!(server.world().get::<LoadDelayed>(player).is_none());
}

#[test]
fn a_save_is_shown_while_it_is_on_its_way() {
    let store = FaultyStore::new(MemoryStore::default(), 1);
    let faults = store.faults();
    let (mut server, mut client) = play(store, quick());
    until_loaded(&mut server, &mut client);
    assert!(!client.has::<SaveUnderWay>());

    faults.hang();
    let entity = player(&mut server);
    server.world_mut().get_mut::<Coins>(entity).expect("loaded").0 = 5;
    save(&mut server);
    client.until_in_time(&mut server, "the save is shown", |client| {
        client.has::<SaveUnderWay>()
    });
    save(&mut server);
    for _ in 0..5 {
        client.step(&mut server);
    }
    assert!(client.has::<SaveUnderWay>(), "it takes its time");
    assert!(
        !client
            .heard()
            .iter()
            .any(|told| matches!(told, Told::Saved { .. })),
        "nothing is saved yet"
    );

    faults.resume();
    client.until_in_time(&mut server, "the saves have ended", |client| {
        !client.has::<SaveUnderWay>()
    });
    assert!(client.heard().contains(&Told::Saved { result: Ok(()) }));
    let player = player(&mut server);
    assert!(server.world().get::<SaveUnderWay>(player).is_none());
}

#[test]
fn a_save_that_nobody_watches_is_not_shown() {
    let store = FaultyStore::new(MemoryStore::default(), 1);
    let faults = store.faults();
    let (mut server, _client) = play(store, quick());
    let bob = server
        .world_mut()
        .spawn(PersistentPlayer(PlayerId::from_name("bob")))
        .id();
    bevy_player_data::testing::update_until(&mut server, "bob is loaded", |world| {
        world.entity(bob).contains::<PlayerSession>()
    });
    faults.hang();
    server.world_mut().trigger(SavePlayer { entity: bob });
    server.world_mut().flush();
    assert!(server.world().get::<SaveUnderWay>(bob).is_none());

    server.world_mut().entity_mut(bob).insert(OwnPlayer);
    server.world_mut().trigger(SavePlayer { entity: bob });
    server.world_mut().flush();
    assert!(
        server.world().get::<SaveUnderWay>(bob).is_some(),
        "the host of a listen server sees it"
    );
    faults.resume();
}

#[test]
fn clients_are_told_that_the_server_shuts_down_before_it_exits() {
    let store = MemoryStore::default();
    let (mut server, mut client) = play(store.connect(), quick());
    until_loaded(&mut server, &mut client);
    let entity = player(&mut server);
    server.world_mut().get_mut::<Coins>(entity).expect("loaded").0 = 5;

    server.world_mut().trigger(ShutDown);
    server.world_mut().flush();
    assert_eq!(server.should_exit(), None, "the client has not read it yet");
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.should_exit().is_none() {
        assert!(Instant::now() < deadline, "it doesn't exit");
        client.step(&mut server);
    }
    assert_eq!(server.should_exit(), Some(AppExit::Success));
    assert_eq!(kinds(&client), [DisconnectKind::ServerExit]);
    let row = wait(store.peek(ada()))
        .expect("the store answers")
        .expect("a row");
    assert!(
        row.document.is_some() && row.lock.is_none(),
        "ada is saved and free"
    );
}

#[test]
fn a_client_that_does_not_listen_holds_an_exit_up_for_no_longer_than_the_farewell_timeout() {
    let mut settings = quick();
    settings.replication.farewell_timeout = Duration::from_millis(50);
    let (mut server, mut client) = play(MemoryStore::default(), settings);
    until_loaded(&mut server, &mut client);
    let mut listener = Client::connect(&mut server, 2);
    until_loaded(&mut server, &mut listener);

    server.world_mut().trigger(ShutDown);
    server.world_mut().flush();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut was_told = false;
    while server.should_exit().is_none() {
        assert!(Instant::now() < deadline, "it doesn't exit");
        was_told = matches!(listener.heard().last(), Some(Told::Disconnected { .. }));
        assert!(
            listener.is_connected(&server),
            "who has read it is not sent away before the end"
        );
        listener.step(&mut server);
    }
    assert!(was_told, "it was told, and the other one was waited for");
}

#[test]
fn without_clients_a_server_shuts_down_at_once() {
    let mut server = headless_app();
    server.add_plugins(PlayerDataPlugin::server(MemoryStore::default()).with_settings(quick()));
    server.add_systems(Update, |mut commands: Commands| commands.trigger(ShutDown));
    server.update();
    assert_eq!(server.should_exit(), Some(AppExit::Success));
}

#[test]
fn a_client_whose_session_was_lost_is_told_in_which_way() {
    let store = MemoryStore::default();
    let (mut server, mut client) = play(store.connect(), quick());
    until_loaded(&mut server, &mut client);
    server.world_mut().spawn(PersistentPlayer(ada()));
    client.until_in_time(&mut server, "ada is sent away", |client| {
        !kinds(client).is_empty()
    });
    assert_eq!(
        kinds(&client),
        [DisconnectKind::SessionEnded(SessionEnd::Replaced)]
    );
}

#[test]
fn a_client_that_may_not_play_on_defaults_is_told_in_which_way_the_load_failed() {
    let store = MemoryStore::default();
    let _holder = wait(Holder::take(&store));
    let settings = ServerSettings {
        load_timeout: Duration::from_millis(100),
        on_load_failure: |_| OnLoadFailure::Disconnect,
        ..quick()
    };
    let (mut server, mut client) = play(store, settings);
    client.until_in_time(&mut server, "ada is sent away", |client| {
        !kinds(client).is_empty()
    });
    assert_eq!(
        kinds(&client),
        [DisconnectKind::LoadFailed(ErrorKind::SessionLocked)]
    );
}

#[test]
fn a_save_is_shown_also_when_the_refusal_of_another_one_is_told_first() {
    let store = FaultyStore::new(MemoryStore::default(), 1);
    let faults = store.faults();
    let (mut server, mut client) = play(store, quick());
    until_loaded(&mut server, &mut client);
    faults.hang();
    let entity = player(&mut server);
    server.world_mut().get_mut::<Coins>(entity).expect("loaded").0 = 5;
    // One more than may wait.
    for _ in 0..65 {
        save(&mut server);
    }
    client.until_in_time(&mut server, "the refusal is told", |client| {
        let heard = client.heard();
        heard
            .iter()
            .any(|told| matches!(told, Told::Saved { result: Err(_) }))
    });
    assert!(client.has::<SaveUnderWay>(), "64 saves are on their way");
    faults.resume();
}

#[test]
fn a_client_that_comes_late_is_told_the_time_that_is_left_by_then() {
    let store = MemoryStore::default();
    let _holder = wait(Holder::take(&store));
    let (mut server, mut client) = play(
        store,
        ServerSettings {
            auto_join: false,
            ..quick()
        },
    );
    let entity = server.world_mut().spawn(PersistentPlayer(ada())).id();
    bevy_player_data::testing::update_until(&mut server, "the load is delayed", |world| {
        world.entity(entity).contains::<LoadDelayed>()
    });
    let on_server = server
        .world()
        .get::<LoadDelayed>(entity)
        .expect("it is there")
        .clone();
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(300) {
        client.step(&mut server);
        std::thread::yield_now();
    }
    server.world_mut().entity_mut(entity).insert(PlayerClient(1));
    client.until_in_time(&mut server, "the client is told", |client| {
        client.has::<LoadDelayed>()
    });
    let on_client: LoadDelayed = client.get().expect("it is there");
    let passed = on_server.gives_up_in() - on_client.gives_up_in();
    assert!(passed >= Duration::from_millis(300), "{passed:?}");
}

#[test]
fn who_has_heard_that_the_server_shuts_down_goes_on_seeing_what_happens() {
    let (mut server, mut client) = play(MemoryStore::default(), quick());
    until_loaded(&mut server, &mut client);
    let _deaf = Client::connect(&mut server, 2);
    let entity = player(&mut server);
    server.world_mut().trigger(ShutDown);
    server.world_mut().flush();
    client.until_in_time(&mut server, "ada is told", |client| !kinds(client).is_empty());
    assert_eq!(server.should_exit(), None, "the deaf one is waited for");
    server.world_mut().get_mut::<Coins>(entity).expect("loaded").0 = 77;
    client.until_in_time(&mut server, "ada sees it", |client| {
        client.get::<Coins>() == Some(Coins(77))
    });
    assert_eq!(kinds(&client), [DisconnectKind::ServerExit], "that is said once");
}

#[test]
#[should_panic(expected = "must be at most a minute")]
fn a_farewell_that_could_hold_an_exit_up_for_good_is_refused() {
    let mut settings = quick();
    settings.replication.farewell_timeout = Duration::MAX;
    drop(play(MemoryStore::default(), settings));
}

#[test]
fn the_purchases_of_a_player_who_has_left_are_not_shown_to_the_next_one() {
    let (mut server, _client) = play(MemoryStore::default(), quick());
    let bob = || PlayerId::from_name("bob");
    let host = server
        .world_mut()
        .spawn((PersistentPlayer(bob()), OwnPlayer))
        .id();
    bevy_player_data::testing::update_until(&mut server, "bob is loaded", |world| {
        world.entity(host).contains::<PlayerSession>()
    });
    let news = |purchase: &str| PurchaseProcessed {
        entity: host,
        player: bob(),
        purchase: purchase.parse().expect("a purchase id"),
        product: "coins_100".parse().expect("a product id"),
        decision: PurchaseDecision::PurchaseGranted,
    };
    server.world_mut().trigger(news("pi_1"));
    let remembered = |server: &App| {
        let purchases = server
            .world()
            .get::<OwnPurchases>(host)
            .expect("the host has some");
        purchases.iter().count()
    };
    assert_eq!(remembered(&server), 1);
    let carl = PersistentPlayer(PlayerId::from_name("carl"));
    server.world_mut().entity_mut(host).insert(carl);
    server.update();
    assert_eq!(remembered(&server), 0, "carl has bought nothing");
    server.world_mut().trigger(news("pi_2"));
    assert_eq!(remembered(&server), 0, "bob's last news are none of carl's");
}
