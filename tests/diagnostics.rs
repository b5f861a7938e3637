//! The figures in Bevy's `DiagnosticsStore`.

#[path = "support/net.rs"]
mod support;

use std::time::Duration;

use bevy::{
    diagnostic::{DiagnosticPath, DiagnosticsStore},
    prelude::*,
};
use bevy_player_data::{prelude::*, store::FaultyStore, testing::headless_app};
use bevy_renet::{RenetServer, RenetServerPlugin};
use support::*;

type Paths = PlayerDataDiagnosticsPlugin;

/// Takes the figures in every update.
fn figures() -> PlayerDataDiagnosticsPlugin {
    PlayerDataDiagnosticsPlugin {
        interval: Duration::ZERO,
    }
}

fn last(app: &App, path: &DiagnosticPath) -> Option<f64> {
    app.world().resource::<DiagnosticsStore>().get(path)?.value()
}

fn highest(app: &App, path: &DiagnosticPath) -> f64 {
    let diagnostics = app.world().resource::<DiagnosticsStore>();
    let values = diagnostics.get(path).expect("it is registered").values();
    values.copied().fold(0.0, f64::max)
}

#[test]
fn the_server_shows_its_sessions_and_its_saves_and_the_client_what_it_receives() {
    let store = FaultyStore::new(MemoryStore::default(), 1);
    let faults = store.faults();
    let mut server = headless_app();
    server
        // Before the plugin that it reports on: their order is free.
        .add_plugins(figures())
        .add_plugins((
            RenetServerPlugin,
            PlayerDataPlugin::server(store).with_settings(ServerSettings {
                identify: Identify::by(|_, _| Some(PlayerId::from_name("ada"))),
                handle_signals: false,
                autosave: None,
                ..default()
            }),
        ))
        .insert_resource(RenetServer::new(config()))
        .add_plugins(shared_data);
    faults.hang();
    let mut client = Client::connect(&mut server, 1);
    client.app.add_plugins(figures());
    for _ in 0..5 {
        client.step(&mut server);
    }
    assert_eq!(last(&server, &Paths::LOADING), Some(1.0));
    assert_eq!(last(&server, &Paths::SESSIONS), Some(0.0));
    assert_eq!(last(&server, &Paths::QUEUED_REQUESTS), Some(1.0), "the load");

    faults.resume();
    client.until_in_time(&mut server, "ada is loaded", |client| {
        client.has::<PlayerSession>()
    });
    client.step(&mut server);
    assert_eq!(last(&server, &Paths::LOADING), Some(0.0));
    assert_eq!(last(&server, &Paths::SESSIONS), Some(1.0));
    assert!(highest(&server, &Paths::REPLICATED_BYTES) > 0.0);
    assert!(highest(&client.app, &Paths::RECEIVED_BYTES) > 0.0);
    assert!(highest(&client.app, &Paths::RECEIVED_MESSAGES) > 0.0);

    assert_eq!(last(&server, &Paths::SAVE_LATENCY), None, "nothing was saved yet");
    let world = server.world_mut();
    let entity = world
        .query_filtered::<Entity, With<PersistentPlayer>>()
        .single(world)
        .expect("one player");
    world.get_mut::<Coins>(entity).expect("loaded").0 = 1;
    world.trigger(SavePlayer { entity });
    client.until_in_time(&mut server, "ada is saved", |client| {
        client.heard().contains(&Told::Saved { result: Ok(()) })
    });
    client.step(&mut server);
    assert!(highest(&server, &Paths::SAVES_PER_SECOND) > 0.0);
    let latency = last(&server, &Paths::SAVE_LATENCY).expect("there was a save");
    assert!(latency > 0.0 && latency < 30_000.0, "{latency} ms");
    assert_eq!(highest(&server, &Paths::FAILURES), 0.0);
}

#[test]
fn failures_are_shown() {
    let store = FaultyStore::new(MemoryStore::default(), 1);
    store.faults().down();
    let mut server = headless_app();
    server.add_plugins((
        PlayerDataPlugin::server(store).with_settings(ServerSettings {
            load_timeout: Duration::from_millis(50),
            handle_signals: false,
            ..default()
        }),
        figures(),
        shared_data,
    ));
    server
        .world_mut()
        .spawn(PersistentPlayer(PlayerId::from_name("ada")));
    bevy_player_data::testing::update_until(&mut server, "the load has failed", |world| {
        world.resource::<ServerStats>().load_failures > 0
    });
    server.update();
    assert!(highest(&server, &Paths::FAILURES) > 0.0);
}

#[test]
fn an_app_of_neither_side_has_no_figures_and_no_trouble() {
    let mut app = headless_app();
    app.add_plugins(figures());
    app.update();
    assert_eq!(last(&app, &Paths::SESSIONS), None);
    assert_eq!(last(&app, &Paths::RECEIVED_BYTES), None);
}
