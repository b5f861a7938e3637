//! The client side: a read-only mirror of the player's own data.
//!
//! The module owns the plugin and the mirror: one entity with [`OwnPlayer`], which carries the
//! player's public components as the server has them, and on which the same states and entity events occur as on the
//! server. Writing to it changes nothing but what this client sees until the next update of the component. It leaves the
//! form of the messages to [`replication`](crate::replication), and needs neither a store nor an async runtime.
//!
//! # The life of the mirror
//!
//! It is spawned as a [`PlayerLoading`](crate::player::PlayerLoading) when the server first speaks of a player on this
//! connection, gets all values at once when the load has ended, and is despawned when the session ends, after
//! [`PlayerSessionEnded`](crate::player::PlayerSessionEnded), or when the connection does. A reconnected client, or a
//! player whose load starts over, gets a new one. There is none on a host that plays on its own server: an entity with
//! `OwnPlayer` is there already.

use bevy::{platform::collections::HashSet, prelude::*};
use bevy_renet::{
    RenetClient, RenetClientPlugin,
    netcode::{NetcodeClientPlugin, NetcodeClientTransport},
};

use crate::{
    player::{DisconnectKind, OwnPlayer, PlayerSession, SaveBlocked, SaveError, remember_own_purchase},
    reflect,
    registry::{self, Registry},
    replication::{
        ChannelCheck, NeedsPlugin, PublicTypes, ReplicationSettings, client_channels, warn_about_channels,
    },
    systems::{self, PlayerDataSystems},
};

mod connection;
mod mirror;
mod receive;

use connection::Connection;

/// Shows a client its own player's data. Made by [`PlayerDataPlugin::client`](crate::PlayerDataPlugin::client).
#[derive(Default)]
pub struct PlayerDataClientPlugin {
    settings: ReplicationSettings,
}

impl PlayerDataClientPlugin {
    /// Replaces the default settings: channels and game version have to be the server's.
    #[must_use]
    pub fn with_settings(self, settings: ReplicationSettings) -> Self {
        Self { settings }
    }
}

impl Plugin for PlayerDataClientPlugin {
    /// # Panics
    /// When the settings can't work, saying why.
    fn build(&self, app: &mut App) {
        self.settings.assert_sound();
        systems::configure(app);
        registry::freeze_at_first_update(app);
        reflect::register(app);
        reflect::register_in(app, reflect::read_only::<LastSaveFailed>);
        app.insert_resource(ReplicationClient::new(self.settings.clone()))
            .init_resource::<MirrorStats>()
            .add_plugins((
                NeedsPlugin::<RenetClient, RenetClientPlugin>::new("RenetClient", "RenetClientPlugin"),
                NeedsPlugin::<NetcodeClientTransport, NetcodeClientPlugin>::new(
                    "NetcodeClientTransport",
                    "NetcodeClientPlugin",
                ),
            ))
            .add_systems(PreStartup, number_public_types.after(registry::freeze_registry))
            .add_systems(PreUpdate, receive::receive.in_set(PlayerDataSystems::Receive))
            .add_observer(take_up_client)
            .add_observer(remember_own_purchase);
        // The game may have inserted it before adding the plugin.
        if let Some(client) = app.world().get_resource::<RenetClient>() {
            let check = check_channels(client, &self.settings);
            app.world_mut().resource_mut::<ReplicationClient>().channel = check;
        }
    }
}

/// Triggered on a client that the server refuses, because the two were built with different player data or different
/// [game versions](ReplicationSettings::game_version). The server disconnects right after.
#[derive(Event, Clone, Debug, PartialEq, Eq)]
pub struct ReplicationRefused {
    /// What doesn't match, to be shown to a developer.
    pub reason: String,
}

/// Triggered on a client that the server is about to disconnect. (A client whose connection merely ends hears of it from
/// its transport alone.)
#[derive(Event, Clone, Debug, PartialEq, Eq)]
pub struct DisconnectedByServer {
    /// Why, for the game.
    pub kind: DisconnectKind,
    /// Why in words, to be shown to the player.
    pub reason: String,
}

/// Triggered on a client whose player goes on on another server: connect there. Everything is saved, and nobody else
/// has the player. This server disconnects right after.
#[derive(Event, Clone, Debug, PartialEq, Eq)]
pub struct TransferredTo {
    /// Where to, as the server's game has put it into its `TransferPlayer`.
    pub server: String,
}

/// On the mirror while the last save of the player's data has failed; gone with the next that succeeds. Meanwhile the
/// player can't purchase anything, see [`own_player_can_purchase`].
#[derive(Component, Reflect, Clone, Debug, PartialEq, Eq)]
#[component(immutable)]
#[reflect(from_reflect = false)]
pub struct LastSaveFailed {
    reason: SaveError,
}

impl LastSaveFailed {
    /// Why it failed.
    #[must_use]
    pub const fn reason(&self) -> &SaveError {
        &self.reason
    }
}

type Unhindered = (
    With<OwnPlayer>,
    With<PlayerSession>,
    Without<SaveBlocked>,
    Without<LastSaveFailed>,
);

/// Run condition: the local player's data is loaded, and neither a load nor a save error stands in the way of a
/// purchase.
pub fn own_player_can_purchase(players: Query<(), Unhindered>) -> bool {
    !players.is_empty()
}

/// What a client has received from this crate's half of the server since the app started, over all connections.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorStats {
    /// Messages, as renet counts them: large ones come in parts.
    pub received_messages: u64,
    /// Their size in bytes.
    pub received_bytes: u64,
}

/// The client's end of the connection.
#[derive(Resource)]
struct ReplicationClient {
    settings: ReplicationSettings,
    /// Set at the first update.
    types: Option<PublicTypes>,
    channel: ChannelCheck,
    connection: Option<Connection>,
    /// Whether the `RenetClient` was replaced since the last look at it.
    is_replaced: bool,
    /// Public types whose bytes could not be read, which is said once.
    undecodable: HashSet<u16>,
}

impl ReplicationClient {
    fn new(settings: ReplicationSettings) -> Self {
        Self {
            settings,
            types: None,
            channel: ChannelCheck::Unknown,
            connection: None,
            is_replaced: false,
            undecodable: HashSet::default(),
        }
    }
}

fn number_public_types(world: &mut World) {
    let types = PublicTypes::new(Registry::freeze(world));
    world.resource_mut::<ReplicationClient>().types = Some(types);
}

fn check_channels(client: &RenetClient, settings: &ReplicationSettings) -> ChannelCheck {
    let check = client_channels(client, settings.channels);
    if check == ChannelCheck::Missing {
        warn_about_channels("RenetClient", settings.channels);
    }
    check
}

/// A `RenetClient` is inserted, or replaces another.
fn take_up_client(
    _: On<Insert, RenetClient>,
    client: Res<RenetClient>,
    mut replication: ResMut<ReplicationClient>,
) {
    replication.channel = check_channels(&client, &replication.settings);
    replication.is_replaced = true;
}
