//! What the tests of replication share: a small game on a scripted server, and clients in the same process.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate that uses a part of it"
)]

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_player_data::{
    client::{DisconnectedByServer, ReplicationRefused},
    prelude::*,
    replication::{ClientStats, ReplicationStats},
    testing::{LocalConnection, ScriptPlayer as _, ScriptedServerPlugin, Way, headless_app},
};
use bevy_renet::{
    RenetClientPlugin, RenetServer, RenetServerPlugin,
    renet::{ClientId, ConnectionConfig},
};
use serde::{Deserialize, Serialize};

mod game;
pub use game::{Coins, Guild, Inventory};

/// One tick, at 60 Hz.
pub const TICK: Duration = Duration::from_micros(16_667);

/// Something that may be large.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Drawing(pub String);
impl PlayerData for Drawing {
    const KEY: &'static str = "drawing";
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct CheatScore(pub String);
impl PlayerData for CheatScore {
    const KEY: &'static str = "cheat_score";
    const PRIVATE: bool = true;
}

pub fn shared_data(app: &mut App) {
    app.persist::<Coins>()
        .persist::<Inventory>()
        .persist_optional::<Guild>()
        .persist::<Drawing>();
}

pub fn config() -> ConnectionConfig {
    ConnectionConfig::default().with_player_data()
}

/// A server that persists nothing yet.
pub fn bare_server() -> App {
    let mut app = headless_app();
    app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((RenetServerPlugin, ScriptedServerPlugin::default()))
        .insert_resource(RenetServer::new(config()));
    app
}

/// A server with the small game, and a private component that clients don't know.
pub fn server() -> App {
    let mut app = bare_server();
    app.add_plugins(shared_data).persist::<CheatScore>();
    app
}

/// What a client was told, in order.
#[derive(Resource, Default)]
pub struct Heard(pub Vec<Told>);

#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Loaded { player: PlayerId, first_join: bool },
    LoadFailed { error: LoadError },
    Saved { result: Result<(), SaveError> },
    Ended { reason: SessionEnd },
    Refused { reason: String },
    Disconnected { reason: String },
}

/// A client app that persists nothing yet.
pub fn bare_client(settings: ReplicationSettings) -> App {
    let mut app = headless_app();
    app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            RenetClientPlugin,
            PlayerDataPlugin::client().with_settings(settings),
        ))
        .init_resource::<Heard>()
        .add_observer(|on: On<PlayerLoaded>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Loaded {
                player: on.player,
                first_join: on.first_join,
            });
        })
        .add_observer(|on: On<PlayerLoadFailed>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::LoadFailed {
                error: on.error.clone(),
            });
        })
        .add_observer(|on: On<PlayerSaved>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Saved {
                result: on.result.clone(),
            });
        })
        .add_observer(|on: On<PlayerSessionEnded>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Ended { reason: on.reason });
        })
        .add_observer(|on: On<ReplicationRefused>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Refused {
                reason: on.reason.clone(),
            });
        })
        .add_observer(|on: On<DisconnectedByServer>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Disconnected {
                reason: on.reason.clone(),
            });
        });
    app
}

/// A client with its connection.
pub struct Client {
    pub app: App,
    pub connection: LocalConnection,
    /// Every packet since the beginning.
    pub packets: Vec<(Way, Vec<u8>)>,
}

impl Client {
    /// A client with the small game.
    pub fn connect(server: &mut App, id: ClientId) -> Self {
        let mut app = bare_client(ReplicationSettings::default());
        app.add_plugins(shared_data);
        Self::connect_app(server, app, id)
    }

    pub fn connect_app(server: &mut App, mut app: App, id: ClientId) -> Self {
        let connection = LocalConnection::open(server, &mut app, id, config());
        Self {
            app,
            connection,
            packets: Vec::new(),
        }
    }

    /// A connected client, and on the server the entity of a player who is being loaded.
    pub fn join(server: &mut App, id: ClientId, name: &str) -> (Self, Entity) {
        let client = Self::connect(server, id);
        let entity = spawn(server, id, name);
        (client, entity)
    }

    /// A client whose player is loaded with `values`, with all of it applied and acknowledged.
    pub fn join_and_load(server: &mut App, id: ClientId, name: &str, values: impl Bundle) -> (Self, Entity) {
        let (mut client, entity) = Self::join(server, id, name);
        server.world_mut().finish_load(entity, false, values);
        client.settle(server);
        (client, entity)
    }

    pub fn deliver(&mut self, server: &mut App) {
        let packets = &mut self.packets;
        self.connection
            .deliver_watched(server, &mut self.app, |way, packet| {
                packets.push((way, packet.to_vec()));
            });
    }

    /// One update of both sides.
    pub fn step(&mut self, server: &mut App) {
        server.update();
        self.deliver(server);
        self.app.update();
        self.deliver(server);
    }

    /// Steps until `condition` holds for the client's world.
    #[track_caller]
    pub fn until(&mut self, server: &mut App, what: &str, mut condition: impl FnMut(&mut World) -> bool) {
        for _ in 0..3000 {
            if condition(self.app.world_mut()) {
                return;
            }
            self.step(server);
        }
        panic!("waited in vain until {what}");
    }

    /// Like [`until`](Self::until), for a server whose threads need time.
    #[track_caller]
    pub fn until_in_time(
        &mut self,
        server: &mut App,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            self.step(server);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Steps until everything that was to be said has been said and acknowledged. An acknowledgement for which nothing
    /// waits is read within 16 updates.
    pub fn settle(&mut self, server: &mut App) {
        for _ in 0..20 {
            self.step(server);
        }
    }

    pub fn mirror(&mut self) -> Option<Entity> {
        self.app
            .world_mut()
            .query_filtered::<Entity, With<OwnPlayer>>()
            .single(self.app.world())
            .ok()
    }

    pub fn get<T: Component + Clone>(&mut self) -> Option<T> {
        let mirror = self.mirror()?;
        self.app.world().get::<T>(mirror).cloned()
    }

    pub fn has<T: Component>(&mut self) -> bool {
        self.mirror()
            .is_some_and(|mirror| self.app.world().entity(mirror).contains::<T>())
    }

    pub fn heard(&self) -> Vec<Told> {
        self.app.world().resource::<Heard>().0.clone()
    }

    pub fn is_connected(&self, server: &App) -> bool {
        server
            .world()
            .resource::<RenetServer>()
            .is_connected(self.connection.client())
    }

    pub fn stats(&self, server: &App) -> ClientStats {
        let stats = server.world().resource::<ReplicationStats>();
        stats.client(self.connection.client()).expect("it is connected")
    }

    /// Whether `needle` was in any packet to this client.
    pub fn was_sent(&self, needle: &[u8]) -> bool {
        let mut to_client = self.packets.iter().filter(|(way, _)| *way == Way::ToClient);
        to_client.any(|(_, packet)| packet.windows(needle.len()).any(|window| window == needle))
    }
}

pub fn spawn(server: &mut App, client: ClientId, name: &str) -> Entity {
    server
        .world_mut()
        .spawn((PersistentPlayer(PlayerId::from_name(name)), PlayerClient(client)))
        .id()
}

/// What this process has logged, at `WARN` and above. Tests that run at the same time log as well: look for what only
/// one of them can cause.
pub struct Logs(Arc<Mutex<Vec<String>>>);

impl Logs {
    pub fn capture() -> Self {
        static LINES: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
        let lines = LINES.get_or_init(|| {
            let lines = Arc::default();
            tracing::subscriber::set_global_default(Collector(Arc::clone(&lines))).expect("nobody else logs");
            lines
        });
        Self(Arc::clone(lines))
    }

    pub fn count(&self, text: &str) -> usize {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).count()
    }
}

struct Collector(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Collector {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message.0);
    }
}
