//! The small game that the targets about the wire play, in one process: a server without a store, and its clients.

use std::{collections::BTreeMap, time::Duration};

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_player_data::{
    prelude::*,
    testing::{LocalConnection, ScriptedServerPlugin, Way, headless_app},
};
use bevy_renet::{
    RenetClientPlugin, RenetServer, RenetServerPlugin,
    renet::{self, ClientId, ConnectionConfig},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::is_control;

/// The id of the channels, both ways.
pub const CHANNEL: u8 = 250;
/// One tick, at 60 Hz.
const TICK: Duration = Duration::from_micros(16_667);

#[derive(Component, Serialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct Coins(pub u64);
impl PlayerData for Coins {
    const KEY: &'static str = "coins";
}

impl<'de> Deserialize<'de> for Coins {
    /// The control of `wire_client`: a decoder that can't take every number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let coins = u64::deserialize(deserializer)?;
        assert!(
            !((100..=250).contains(&coins) && is_control("wire_client")),
            "control: a decoder that panics"
        );
        if coins == u64::MAX {
            return Err(D::Error::custom("nobody is that rich"));
        }
        Ok(Self(coins))
    }
}

/// Something that may be large.
#[derive(Component, Serialize, Clone, Debug, Default, PartialEq)]
pub struct Drawing(pub String);
impl PlayerData for Drawing {
    const KEY: &'static str = "drawing";
}

impl<'de> Deserialize<'de> for Drawing {
    /// The control of `mirror`: what doesn't fit into one part is lost.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        if text.is_char_boundary(16 * 1024) && is_control("mirror") {
            text.truncate(16 * 1024);
        }
        Ok(Self(text))
    }
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Inventory(pub BTreeMap<String, Vec<Option<i32>>>);
impl PlayerData for Inventory {
    const KEY: &'static str = "inventory";
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[component(immutable)]
pub struct Guild(pub String);
impl PlayerData for Guild {
    const KEY: &'static str = "guild";
}

fn shared_data(app: &mut App) {
    app.persist::<Coins>()
        .persist::<Inventory>()
        .persist_optional::<Guild>()
        .persist::<Drawing>();
}

pub fn config() -> ConnectionConfig {
    ConnectionConfig::default().with_player_data()
}

/// A server where the target says what happens to the players.
pub fn server(replication: ReplicationSettings) -> App {
    let mut app = headless_app();
    app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            RenetServerPlugin,
            ScriptedServerPlugin { replication },
            shared_data,
        ))
        .insert_resource(RenetServer::new(config()));
    app
}

/// A client, not connected.
pub fn client() -> App {
    let mut app = headless_app();
    app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((RenetClientPlugin, PlayerDataPlugin::client(), shared_data));
    app
}

/// A player whose data is being loaded.
pub fn spawn(server: &mut App, client: ClientId, name: &str) -> Entity {
    let player = PersistentPlayer(PlayerId::from_name(name));
    server.world_mut().spawn((player, PlayerClient(client))).id()
}

/// Disconnects a client and forgets its player.
pub fn part(server: &mut App, client: ClientId, player: Entity) {
    server.world_mut().despawn(player);
    server
        .world_mut()
        .resource_mut::<RenetServer>()
        .remove_connection(client);
    server.update();
}

/// The local player's entity on a client.
pub fn mirror(client: &mut App) -> Option<Entity> {
    let world = client.world_mut();
    let mut mirrors = world.query_filtered::<Entity, With<OwnPlayer>>();
    let all: Vec<Entity> = mirrors.iter(world).collect();
    assert!(all.len() <= 1, "there are {} mirrors", all.len());
    all.first().copied()
}

/// What the plugins of both sides say to each other while `play` is played: to the client, and to the server.
pub fn overhear(play: impl FnOnce(&mut App, &mut dyn FnMut(&mut App))) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut server = server(ReplicationSettings::default());
    let mut client = client();
    let connection = LocalConnection::open(&mut server, &mut client, 1, config());
    let mut at_client = renet::RenetClient::new(config());
    at_client.set_connected();
    let mut at_server = renet::RenetServer::new(config());
    at_server.add_connection(1);
    play(&mut server, &mut |server| {
        for _ in 0..4 {
            server.update();
            for _ in 0..2 {
                connection.deliver_watched(server, &mut client, |way, packet| match way {
                    Way::ToClient => at_client.process_packet(packet),
                    Way::ToServer => at_server.process_packet_from(packet, 1).expect("it is connected"),
                });
                client.update();
            }
        }
    });
    (
        std::iter::from_fn(|| at_client.receive_message(CHANNEL).map(Vec::from)).collect(),
        std::iter::from_fn(|| at_server.receive_message(1, CHANNEL).map(Vec::from)).collect(),
    )
}
