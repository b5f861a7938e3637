//! This crate, with its own half of the server alone: nobody is saved.

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_player_data::{
    prelude::*,
    replication::ReplicationStats,
    testing::{ScriptPlayer, ScriptedServerPlugin, headless_app},
};
use bevy_renet::{RenetClientPlugin, RenetServer, RenetServerPlugin, renet::ConnectionConfig};

use crate::{
    figures::TICK,
    side::{Library, Side},
    workload::{Coins, Data, Inventory, Level, Settings, Stats},
};

pub struct Ours;

fn data(app: &mut App) {
    app.persist::<Coins>()
        .persist::<Level>()
        .persist::<Settings>()
        .persist::<Inventory>()
        .persist::<Stats>();
}

fn config() -> ConnectionConfig {
    ConnectionConfig::default().with_player_data()
}

/// A server with nothing but renet.
pub fn bare_server() -> App {
    let mut app = headless_app();
    app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins(RenetServerPlugin)
        .insert_resource(RenetServer::new(config()));
    app
}

impl Library for Ours {
    fn server() -> App {
        let mut app = bare_server();
        app.add_plugins(ScriptedServerPlugin::default());
        data(&mut app);
        app
    }

    fn client() -> App {
        let mut app = headless_app();
        app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
            .add_plugins((RenetClientPlugin, PlayerDataPlugin::client()));
        data(&mut app);
        app
    }

    fn config(_: &App) -> ConnectionConfig {
        config()
    }

    fn spawn(server: &mut App, id: u64) -> Entity {
        let player = PlayerId::from_name(&id.to_string());
        server
            .world_mut()
            .spawn((PersistentPlayer(player), PlayerClient(id)))
            .id()
    }

    fn load(server: &mut App, player: Entity, data: Data) {
        server.world_mut().finish_load(player, false, data);
    }

    fn message_bytes(side: &Side<Self>) -> u64 {
        side.server
            .world()
            .resource::<ReplicationStats>()
            .total
            .sent_bytes
    }

    fn mirror(client: &mut App) -> Entity {
        let world = client.world_mut();
        let mut mirrors = world.query_filtered::<Entity, (With<OwnPlayer>, With<Coins>)>();
        mirrors.single(world).expect("there is one mirror")
    }
}
