//! The server side: the systems that own sessions.
//!
//! The module owns the plugin, its settings, and the table of players with their sessions. It promises the flows that
//! the crate's guide describes: joining, loading, saving, autosaving, leaving, exiting; and that `save::capture` is the
//! only place that builds what gets saved. It leaves ordering, retries and locks to [`session`](crate::session), and the
//! network to [`replication`].

use std::sync::{
    Arc, Mutex, PoisonError,
    mpsc::{Receiver, Sender, channel},
};

use bevy::{ecs::entity::EntityHashMap, platform::collections::HashMap, prelude::*};

use crate::{
    id::PlayerId,
    registry::{DataTypes, Registry},
    replication,
    session::{LeaseState, Opening, Sessions},
    store::Store,
    systems::{self, PlayerDataSystems},
};

mod autosave;
mod exit;
mod join;
mod leave;
mod load;
mod report;
mod save;
mod settings;
mod signals;
mod stats;
mod wait;

pub use exit::{FlushPlayerData, PlayerDataFlushed, UnsavedPlayer};
pub use settings::{Identify, OnLoadFailure, OnSessionLost, ServerSettings};
pub use stats::ServerStats;
pub use wait::{PlayerDataServer, WaitForLoad};

use autosave::Autosave;
use report::Report;
use save::LiveSession;
use wait::Waiters;

/// Loads, saves and replicates players' data. Made by [`PlayerDataPlugin::server`](crate::PlayerDataPlugin::server).
pub struct PlayerDataServerPlugin {
    store: Arc<dyn Store>,
    settings: ServerSettings,
}

impl PlayerDataServerPlugin {
    pub(crate) fn new(store: impl Store) -> Self {
        Self {
            store: Arc::new(store),
            settings: ServerSettings::default(),
        }
    }

    /// Replaces the default settings.
    #[must_use]
    pub fn with_settings(self, settings: ServerSettings) -> Self {
        Self { settings, ..self }
    }

    /// Sets only the server's [name](ServerSettings::name).
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }
}

impl Plugin for PlayerDataServerPlugin {
    /// # Panics
    /// When the settings can't work together, saying why, or when the system refuses to start a thread.
    fn build(&self, app: &mut App) {
        if let Err(problem) = self.settings.validate() {
            panic!("`PlayerDataPlugin::server` can't work with these settings: {problem}");
        }
        systems::configure(app);
        app.insert_resource(Server::new(Arc::clone(&self.store), self.settings.clone()))
            .init_resource::<Registry>()
            .init_resource::<Autosave>()
            .init_resource::<ServerStats>()
            .init_resource::<Waiters>()
            .add_observer(join::start_loading)
            .add_observer(save::save_on_request)
            .add_observer(save::keep_ticks_in_range)
            .add_systems(
                PreUpdate,
                (keep_lease, load::start_waiting_loads, report::apply_reports)
                    .chain()
                    .in_set(PlayerDataSystems::Load),
            )
            .add_systems(PostUpdate, autosave::autosave.in_set(PlayerDataSystems::Capture));
        leave::register_hooks(app.world_mut());
        replication::install_server(app, self.settings.replication.clone());
        if self.settings.auto_join {
            join::install_auto_join(app);
        }
        exit::install(app);
    }

    fn finish(&self, app: &mut App) {
        // Here and not in `build`: after every other plugin has installed its own handlers, and never in tests that
        // drive `App::update` by hand.
        if self.settings.handle_signals {
            signals::install(app);
        }
    }
}

/// The players of this server and the way to their sessions.
#[derive(Resource)]
pub(crate) struct Server {
    settings: ServerSettings,
    sessions: Sessions,
    /// `None` only while the resource is being dropped.
    runtime: Option<tokio::runtime::Runtime>,
    players: EntityHashMap<Player>,
    /// The entity that speaks for a player: the newest one.
    entity_of: HashMap<PlayerId, Entity>,
    /// Spawned, and not yet asked for.
    waiting: Vec<Entity>,
    /// Final saves on their way, by ticket.
    closing: HashMap<u64, Closing>,
    next_ticket: u64,
    reports: Mutex<Receiver<Report>>,
    reporter: Sender<Report>,
    exiting: bool,
    name_refused: bool,
}

/// What the server knows about a player entity.
enum Player {
    /// Asked for; dropping the handle cancels it.
    Loading {
        player: PlayerId,
        ticket: u64,
        _opening: Opening,
    },
    /// Loaded, with its session.
    Live(Box<LiveSession>),
    /// On defaults.
    Fallback { player: PlayerId },
}

/// A final save that has not been answered yet.
struct Closing {
    player: PlayerId,
    entity: Entity,
}

impl Player {
    fn id(&self) -> PlayerId {
        match self {
            Self::Loading { player, .. } | Self::Fallback { player } => *player,
            Self::Live(live) => live.player,
        }
    }
}

impl Server {
    fn new(store: Arc<dyn Store>, settings: ServerSettings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("player data")
            .enable_time()
            .build()
            .unwrap_or_else(|error| panic!("can't start the threads that load and save players: {error}"));
        let sessions = Sessions::new(store, settings.session(), runtime.handle().clone());
        let (reporter, reports) = channel();
        Self {
            settings,
            sessions,
            runtime: Some(runtime),
            players: EntityHashMap::default(),
            entity_of: HashMap::default(),
            waiting: Vec::new(),
            closing: HashMap::default(),
            next_ticket: 0,
            reports: Mutex::new(reports),
            reporter,
            exiting: false,
            name_refused: false,
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn next_report(&self) -> Option<Report> {
        self.reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_recv()
            .ok()
    }

    /// Takes the player's entry out; whoever does so is the one that ends its load or session.
    fn take(&mut self, entity: Entity) -> Option<Player> {
        let player = self.players.remove(&entity)?;
        if self.entity_of.get(&player.id()) == Some(&entity) {
            self.entity_of.remove(&player.id());
        }
        Some(player)
    }

    fn live_mut(&mut self, entity: Entity) -> Option<&mut LiveSession> {
        match self.players.get_mut(&entity) {
            Some(Player::Live(live)) => Some(live),
            _ => None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A world that is dropped without an `AppExit` is a crash: nothing is flushed. Waiting for the runtime's threads
        // here could block for good, and panics inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The frozen table of types.
fn types(world: &World) -> Arc<DataTypes> {
    match world.resource::<Registry>() {
        Registry::Frozen(types) => Arc::clone(types),
        Registry::Open(_) => unreachable!("players are loaded after the first update has begun"),
    }
}

/// Shows the other servers that the game loop is alive, and ends the app when it can't have its name.
fn keep_lease(mut server: ResMut<Server>, mut exit: MessageWriter<AppExit>) {
    server.sessions.tick();
    if !server.name_refused && server.sessions.status().state == LeaseState::Refused {
        server.name_refused = true;
        exit.write(AppExit::error());
    }
}
