//! What somebody plays on: a real client, its connection, and the ear on it.

use bevy::{
    prelude::*,
    time::{TimePlugin, TimeUpdateStrategy},
};
use bevy_player_data::{
    prelude::*,
    replication::PlayerDataChannels,
    testing::{LocalConnection, Way},
};
use bevy_renet::{
    RenetClient, RenetClientPlugin, RenetServer,
    renet::{ClientId, ConnectionConfig},
};

use crate::{
    driven::run_on_one_thread,
    game::{self, Badge},
    recorder::{Ear, Recorder},
    run::TICK,
    sabotage::Sabotage,
    secret::Person,
};

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// The game's own.
    Honest,
    /// Built with other types.
    OtherTypes,
    /// Of another version of the game.
    OtherVersion,
    /// Says nothing that makes sense.
    Nonsense,
}

pub struct Device {
    /// Who reads what arrives.
    pub reader: Person,
    app: App,
    connection: LocalConnection,
    ear: Ear,
    make: Make,
    /// For so many ticks the game stands still, while its transport lives on.
    pub stalled: u32,
    /// For so many ticks every packet is lost.
    pub lossy: u32,
}

pub fn config() -> ConnectionConfig {
    ConnectionConfig::default().with_player_data()
}

/// A client's app.
fn client(make: Make, sabotage: Option<Sabotage>) -> App {
    let game_version = match make {
        Make::OtherVersion => "another",
        _ => "",
    };
    let settings = ReplicationSettings {
        game_version: game_version.to_owned(),
        ..default()
    };
    let mut app = App::new();
    app.add_plugins(TimePlugin)
        .insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            RenetClientPlugin,
            PlayerDataPlugin::client().with_settings(settings),
        ));
    match make {
        Make::OtherTypes => drop(app.persist::<Badge>()),
        _ => game::public_data(&mut app, sabotage),
    }
    run_on_one_thread(&mut app);
    app
}

impl Device {
    pub fn connect(
        server: &mut App,
        reader: Person,
        id: ClientId,
        make: Make,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let mut app = client(make, sabotage);
        let connection = LocalConnection::open(server, &mut app, id, config());
        Self {
            reader,
            app,
            connection,
            ear: Ear::new(config()),
            make,
            stalled: 0,
            lossy: 0,
        }
    }

    /// Hands over what both sides have to say, and takes all of it down in `recorder`.
    pub fn tick(&mut self, server: &mut App, recorder: &mut Recorder) {
        let is_lossy = self.lossy > 0 && self.is_connected(server);
        let ear = &mut self.ear;
        if is_lossy {
            self.lossy -= 1;
            let mut renet = server.world_mut().resource_mut::<RenetServer>();
            for packet in renet
                .get_packets_to_send(self.connection.client())
                .unwrap_or_default()
            {
                ear.hear(&packet, recorder);
            }
        } else {
            self.connection
                .deliver_watched(server, &mut self.app, |way, packet| {
                    if way == Way::ToClient {
                        ear.hear(packet, recorder);
                    }
                });
        }
        if self.stalled > 0 {
            self.stalled -= 1;
            return;
        }
        if self.make == Make::Nonsense
            && let Some(mut renet) = self.app.world_mut().get_resource_mut::<RenetClient>()
        {
            renet.send_message(PlayerDataChannels::default().to_server, vec![0xff; 20]);
        }
        self.app.update();
    }

    pub fn disconnect(&mut self) {
        if let Some(mut renet) = self.app.world_mut().get_resource_mut::<RenetClient>() {
            renet.disconnect();
        }
    }

    pub fn is_connected(&self, server: &App) -> bool {
        server
            .world()
            .resource::<RenetServer>()
            .is_connected(self.connection.client())
    }

    pub fn badge(&mut self) -> Option<String> {
        let world = self.app.world_mut();
        let mut mirror = world.query_filtered::<&Badge, With<OwnPlayer>>();
        mirror.iter(world).next().map(|badge| badge.0.clone())
    }

    pub fn hang_up(self, recorder: &mut Recorder) {
        self.ear.hang_up(recorder);
    }
}
