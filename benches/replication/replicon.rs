//! `bevy_replicon`, where a player is visible to its owner only.

use bevy::{prelude::*, state::app::StatesPlugin, time::TimeUpdateStrategy};
use bevy_player_data::testing::headless_app;
use bevy_renet::{RenetServer, renet::ConnectionConfig};
use bevy_replicon::{
    client::ClientReplicationStats, prelude::*, shared::backend::connected_client::NetworkId,
};
use bevy_replicon_renet::{RenetChannelsExt, RepliconRenetPlugins};

use crate::{
    figures::TICK,
    side::{Library, Side},
    workload::{Coins, Data, Inventory, Level, Settings, Stats},
};

pub struct Replicon;

/// Whose an entity is: on the player, and on the entity that stands for the client.
#[derive(Component, Clone, Copy, PartialEq)]
#[component(immutable)]
struct Owner(u64);

impl VisibilityFilter for Owner {
    type ClientComponent = Self;
    type Scope = Entity;

    fn is_visible(&self, _: Entity, client: Option<&Self>) -> bool {
        client == Some(self)
    }
}

fn app() -> App {
    let mut app = headless_app();
    let shared = RepliconSharedPlugin {
        auth_method: AuthMethod::None,
    };
    app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            StatesPlugin,
            RepliconPlugins.set(shared).set(ServerPlugin::new(PostUpdate)),
            RepliconRenetPlugins,
        ))
        .replicate::<Coins>()
        .replicate::<Level>()
        .replicate::<Settings>()
        .replicate::<Inventory>()
        .replicate::<Stats>()
        .add_visibility_filter::<Owner>();
    app.finish();
    app.cleanup();
    app
}

fn config_of(app: &App) -> ConnectionConfig {
    let channels = app.world().resource::<RepliconChannels>();
    ConnectionConfig {
        server_channels_config: channels.server_configs(),
        client_channels_config: channels.client_configs(),
        ..default()
    }
}

impl Library for Replicon {
    fn server() -> App {
        let mut app = app();
        app.add_observer(
            |added: On<Add, NetworkId>, ids: Query<&NetworkId>, mut commands: Commands| {
                let id = ids.get(added.entity).map_or(0, |id| id.get());
                commands.entity(added.entity).insert(Owner(id));
            },
        );
        let renet = RenetServer::new(config_of(&app));
        app.insert_resource(renet);
        app.update();
        app
    }

    fn client() -> App {
        let mut app = app();
        app.init_resource::<ClientReplicationStats>();
        app
    }

    fn config(app: &App) -> ConnectionConfig {
        config_of(app)
    }

    fn spawn(server: &mut App, id: u64) -> Entity {
        server.world_mut().spawn(Owner(id)).id()
    }

    fn load(server: &mut App, player: Entity, data: Data) {
        server.world_mut().entity_mut(player).insert((data, Replicated));
    }

    fn message_bytes(side: &Side<Self>) -> u64 {
        side.clients.with(|clients| {
            let stats = clients
                .iter()
                .map(|client| client.world().resource::<ClientReplicationStats>());
            stats.map(|stats| stats.bytes as u64).sum()
        })
    }

    fn mirror(client: &mut App) -> Entity {
        let world = client.world_mut();
        let mut mirrors = world.query_filtered::<Entity, With<Coins>>();
        mirrors
            .single(world)
            .expect("the client sees its own entity, and no other")
    }
}
