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

use bevy::{
    ecs::entity::EntityHashMap,
    platform::{collections::HashMap, time::Instant},
    prelude::*,
};

use crate::{
    id::{PlayerId, ProductId},
    player::remember_own_purchase,
    reflect,
    registry::{DataTypes, Registry},
    replication,
    session::{LeaseState, Opening, Sessions},
    store::{Settlement, Store, StoreError},
    systems::{self, PlayerDataSystems},
};

mod agenda;
mod attempt;
mod autosave;
mod exit;
mod hand_off;
mod join;
mod leave;
mod load;
mod purchases;
mod report;
mod runtime;
mod save;
mod settings;
mod shut_down;
mod signals;
mod stats;
mod trade;
mod wait;

pub use exit::{FlushPlayerData, PlayerDataFlushed, UnsavedPlayer};
pub use hand_off::HandOffSettings;
pub use purchases::{
    Product, PurchaseAppExt, PurchaseSettings, Receipt, Refuse, Revoked, answer::WaitForPurchase,
};
pub use settings::{Identify, OnLoadFailure, OnSessionLost, ServerSettings};
pub use shut_down::ShutDown;
pub use stats::ServerStats;
pub use trade::{Trade, TradeCommandsExt};
pub use wait::{PlayerDataServer, WaitForLoad};

use autosave::Autosave;
use report::Report;
use runtime::Runtime;
use save::LiveSession;
use wait::Waiters;

/// Loads, saves and replicates players' data. Made by [`PlayerDataPlugin::server`](crate::PlayerDataPlugin::server).
pub struct PlayerDataServerPlugin {
    store: Arc<dyn Store>,
    settings: ServerSettings,
    #[cfg(feature = "testing")]
    driven: Option<Arc<tokio::runtime::Runtime>>,
}

impl PlayerDataServerPlugin {
    pub(crate) fn new(store: impl Store) -> Self {
        Self {
            store: Arc::new(store),
            settings: ServerSettings::default(),
            #[cfg(feature = "testing")]
            driven: None,
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

    /// Runs everything that is asynchronous on a runtime that the caller drives, instead of on threads of its own: with a
    /// current-thread runtime and a paused clock, nothing happens between two updates but what a test lets happen.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn driven_by(mut self, runtime: Arc<tokio::runtime::Runtime>) -> Self {
        self.driven = Some(runtime);
        self
    }

    fn runtime(&self) -> Runtime {
        #[cfg(feature = "testing")]
        if let Some(runtime) = &self.driven {
            return Runtime::driven(Arc::clone(runtime));
        }
        Runtime::own()
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
        reflect::register(app);
        app.insert_resource(Server::new(
            Arc::clone(&self.store),
            self.settings.clone(),
            self.runtime(),
        ))
        .init_resource::<Registry>()
        .init_resource::<Autosave>()
        .init_resource::<ServerStats>()
        .init_resource::<Waiters>()
        .init_resource::<purchases::answer::Waiters>()
        .init_resource::<purchases::deliver::Deliveries>()
        .init_resource::<hand_off::HandOffs>()
        .add_observer(join::start_loading)
        .add_observer(save::save_on_request)
        .add_observer(hand_off::transfer_on_request)
        .add_observer(remember_own_purchase)
        .add_observer(save::keep_ticks_in_range)
        .add_observer(purchases::keep_ticks_in_range)
        .add_systems(
            PreUpdate,
            (
                keep_lease,
                load::start_waiting_loads,
                report::apply_reports,
                purchases::deliver::deliver,
                hand_off::hand_off,
            )
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
        shut_down::install(app);
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
    store: Arc<dyn Store>,
    sessions: Sessions,
    runtime: Runtime,
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
    /// What waits for the end of an award or a trade; `None` when there is none under way.
    deferred: Option<Vec<attempt::Deferred>>,
    started: Instant,
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
    /// The receipts that it settles.
    carried: Vec<(ProductId, Settlement)>,
    /// What follows, if the player goes on to another server.
    departure: Option<hand_off::Departure>,
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
    fn new(store: Arc<dyn Store>, settings: ServerSettings, runtime: Runtime) -> Self {
        let sessions = Sessions::new(Arc::clone(&store), settings.session(), runtime.handle().clone());
        let (reporter, reports) = channel();
        let wishes = reporter.clone();
        sessions.watch_wishes(move |wished| {
            // Nobody is left to hear it after the app is gone.
            let _ = wishes.send(Report::Wished(wished));
        });
        Self {
            settings,
            store,
            sessions,
            runtime,
            players: EntityHashMap::default(),
            entity_of: HashMap::default(),
            waiting: Vec::new(),
            closing: HashMap::default(),
            next_ticket: 0,
            reports: Mutex::new(reports),
            reporter,
            exiting: false,
            name_refused: false,
            deferred: None,
            started: Instant::now(),
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Asks the store something, once, and reports what it says.
    fn ask<T: Send, F: Future<Output = Result<T, StoreError>> + Send>(
        &self,
        question: impl FnOnce(Arc<dyn Store>) -> F + Send + 'static,
        report: impl FnOnce(Result<T, StoreError>) -> Report + Send + 'static,
    ) {
        let (store, reporter) = (Arc::clone(&self.store), self.reporter.clone());
        let retry = self.settings.retry.clone();
        self.spawn(async move {
            // A question that panics is one that was not answered.
            let answer = retry.careful_attempt(async { question(store).await }).await;
            // Nobody is left to hear it after the app is gone.
            let _ = reporter.send(report(answer));
        });
    }

    /// Runs a task of the asynchronous half.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.handle().spawn(task);
    }

    fn new_reports(&self) -> Vec<Report> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.try_iter().collect()
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
