//! The crate and `bevy_replicon_renet` share one `RenetServer`, whichever plugin comes first.
#![cfg(all(feature = "client", feature = "server"))]

#[path = "support/net.rs"]
mod net;

use bevy::{prelude::*, state::app::StatesPlugin, time::TimeUpdateStrategy};
use bevy_player_data::{
    prelude::*,
    testing::{LocalConnection, ScriptPlayer, ScriptedServerPlugin},
};
use bevy_renet::{RenetServer, renet::ConnectionConfig};
use bevy_replicon::prelude::*;
use bevy_replicon_renet::{RenetChannelsExt, RepliconRenetPlugins};
use net::{Coins, Guild, TICK, shared_data};
use serde::{Deserialize, Serialize};

/// What everybody sees, and replicon replicates.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
struct Position(i32, i32);

/// Sent from clients to the server.
#[derive(Message, Serialize, Deserialize)]
struct Jump;

#[derive(Resource, Default)]
struct Jumps(u32);

#[derive(Clone, Copy)]
enum Order {
    RepliconFirst,
    RepliconLast,
}

fn app(order: Order, player_data: impl Plugin) -> App {
    let replicon = (
        RepliconPlugins.set(ServerPlugin::new(PostUpdate)),
        RepliconRenetPlugins,
    );
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, StatesPlugin))
        .insert_resource(TimeUpdateStrategy::ManualDuration(TICK));
    match order {
        Order::RepliconFirst => app.add_plugins(replicon).add_plugins(player_data),
        Order::RepliconLast => app.add_plugins(player_data).add_plugins(replicon),
    };
    app.add_plugins(shared_data)
        .replicate::<Position>()
        .add_client_message::<Jump>(Channel::Ordered);
    app.finish();
    app.cleanup();
    app
}

fn config(app: &App) -> ConnectionConfig {
    let channels = app.world().resource::<RepliconChannels>();
    ConnectionConfig {
        server_channels_config: channels.server_configs(),
        client_channels_config: channels.client_configs(),
        ..default()
    }
    .with_player_data()
}

fn both_work(order: Order) {
    let mut server = app(order, ScriptedServerPlugin::default());
    let mut client = app(order, PlayerDataPlugin::client());
    server.init_resource::<Jumps>().add_systems(
        Update,
        |mut messages: MessageReader<FromClient<Jump>>, mut jumps: ResMut<Jumps>| {
            jumps.0 += u32::try_from(messages.read().count()).expect("a few");
        },
    );
    let renet = RenetServer::new(config(&server));
    server.insert_resource(renet);
    server.update();
    let config = config(&client);
    let connection = LocalConnection::open(&mut server, &mut client, 1, config);
    let id = PlayerId::from_name("ada");
    let player = server
        .world_mut()
        .spawn((PersistentPlayer(id), PlayerClient(1), Replicated, Position(1, 2)))
        .id();
    let steps = |server: &mut App, client: &mut App| {
        for _ in 0..10 {
            connection.step(server, client);
        }
    };
    steps(&mut server, &mut client);
    server
        .world_mut()
        .finish_load(player, false, (Coins(412), Guild("owls".to_owned())));
    client.world_mut().write_message(Jump);
    steps(&mut server, &mut client);
    server
        .world_mut()
        .entity_mut(player)
        .insert((Coins(413), Position(3, 4)));
    steps(&mut server, &mut client);

    let world = client.world_mut();
    let mirrors: Vec<_> = world
        .query::<(&Coins, &Guild, &OwnPlayer, &PlayerSession)>()
        .iter(world)
        .collect();
    let [(coins, guild, ..)] = mirrors[..] else {
        panic!("one mirror, not {}", mirrors.len())
    };
    assert_eq!((coins, guild), (&Coins(413), &Guild("owls".to_owned())));
    let positions: Vec<_> = world.query::<&Position>().iter(world).copied().collect();
    assert_eq!(positions, [Position(3, 4)]);
    assert_eq!(server.world().resource::<Jumps>().0, 1);
    assert!(server.world().resource::<RenetServer>().is_connected(1));
}

#[test]
fn both_work_when_replicon_is_added_first() {
    both_work(Order::RepliconFirst);
}

#[test]
fn both_work_when_replicon_is_added_last() {
    both_work(Order::RepliconLast);
}
