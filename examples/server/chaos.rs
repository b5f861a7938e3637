//! `POST /chaos`, with `--chaos`: brings about what a player may meet, so that a developer can see what they would see.
//!
//! `{"store": "down"}`, `"slow"` or `"up"`; `{"take": "ada"}` and `{"release": "ada"}`, which have another server hold
//! ada's lock; `{"send": {"player": "ada", "to": "http://…"}}`, which sends her on to the server where one logs in at
//! that address; `{"kick": "ada"}`; `{"exit": true}`. Anybody who reaches the address can do all of that, so it is off
//! unless asked for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{
        Acquire, Commit, FaultRates, Faults, FaultyStore, LapsedLease, Lease, LockId, ServerId, Store,
        StoreError, Then, Write,
    },
};
use bevy_renet::RenetServer;
use serde::{Deserialize, Serialize};

use crate::{account::player_named, status::say};

/// Where to ask for it.
pub const PATH: &str = "/chaos";
/// How often a player is saved meanwhile, unless the command line says so: a developer doesn't want to wait for long.
pub const AUTOSAVE: Duration = Duration::from_secs(5);

/// The longest body of a request, in bytes.
const BODY_LIMIT: usize = 1024;
/// How long each request takes while the store is slow.
const SLOW: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2);
/// What the server is called that takes players away.
const RIVAL: &str = "arena-elsewhere";
/// How often that shows that it lives; well below the TTL of a lease.
const BEAT: Duration = Duration::from_secs(5);

/// What can be asked for.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wish {
    Store(StoreState),
    Take(String),
    Release(String),
    Send { player: String, to: String },
    Kick(String),
    Exit(bool),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum StoreState {
    Down,
    Slow,
    Up,
}

/// The answer to a wish that was granted.
#[derive(Serialize)]
struct Granted {
    done: String,
}

/// The answer to every other.
#[derive(Serialize)]
struct Denied {
    error: String,
}

/// Something that only the game itself can do.
enum Deed {
    /// Saves the player, so that the server notices whose they are by now.
    Save(PlayerId),
    Send {
        player: PlayerId,
        to: String,
    },
    Kick(PlayerId),
    Exit,
}

/// What the game still has to do.
#[derive(Resource)]
struct Deeds(Mutex<Receiver<Deed>>);

/// Wraps the store for a server whose developer wants to see it fail. Returns the store for the game, and what the routes
/// need.
pub fn prepare(store: Arc<dyn Store>) -> (Arc<dyn Store>, Chaos) {
    let faulty = FaultyStore::new(Arc::clone(&store), fastrand::u64(..));
    let chaos = Chaos {
        faults: faulty.faults(),
        rival: Rival {
            store,
            server: ServerId::random(),
            locks: Mutex::default(),
        },
    };
    (Arc::new(faulty), chaos)
}

/// What brings things about.
pub struct Chaos {
    faults: Faults,
    rival: Rival,
}

/// Adds the part that happens in the game, and returns the routes.
pub fn install(app: &mut App, chaos: Chaos) -> Router {
    let (deeds, to_do) = channel();
    app.insert_resource(Deeds(Mutex::new(to_do)))
        .add_systems(Update, act)
        .add_observer(|sent: On<PlayerTransferred>| match &sent.result {
            Ok(()) => say(format_args!("chaos: {} has gone on to {}", sent.player, sent.to)),
            Err(problem) => say(format_args!(
                "chaos: {} could not be sent on: {problem}",
                sent.player
            )),
        });
    let desk = Desk { chaos, deeds };
    Router::new()
        .route(PATH, post(grant))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::new(desk))
}

struct Desk {
    chaos: Chaos,
    deeds: Sender<Deed>,
}

async fn grant(
    State(desk): State<Arc<Desk>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Granted>, Denial> {
    let body = body.map_err(|rejection| Denial(rejection.status(), rejection.body_text()))?;
    let wish = serde_json::from_slice(&body).map_err(|problem| {
        Denial(
            StatusCode::BAD_REQUEST,
            format!("this can't be brought about: {problem}"),
        )
    })?;
    let done = desk.fulfil(wish).await?;
    say(format_args!("chaos: {done}"));
    Ok(Json(Granted { done }))
}

impl Desk {
    async fn fulfil(self: &Arc<Self>, wish: Wish) -> Result<String, Denial> {
        Ok(match wish {
            Wish::Store(state) => self.set_store(state).to_owned(),
            Wish::Take(name) => {
                let player = known(&name)?;
                if self.chaos.rival.take(player).await? {
                    tokio::spawn(Arc::clone(self).keep_the_rival_alive());
                }
                self.tell(Deed::Save(player));
                format!("the server `{RIVAL}` has {name}")
            }
            Wish::Release(name) => {
                if !self.chaos.rival.release(known(&name)?).await? {
                    return Err(Denial(
                        StatusCode::CONFLICT,
                        format!("the server `{RIVAL}` doesn't have {name}: take them first"),
                    ));
                }
                format!("the server `{RIVAL}` has let go of {name}")
            }
            Wish::Send { player: name, to } => {
                let done = format!("{name} is sent to {to}, if they are here");
                let player = known(&name)?;
                self.tell(Deed::Send { player, to });
                done
            }
            Wish::Kick(name) => {
                self.tell(Deed::Kick(known(&name)?));
                format!("{name} is thrown out, if they are here")
            }
            Wish::Exit(true) => {
                self.tell(Deed::Exit);
                "this server is shutting down".to_owned()
            }
            Wish::Exit(false) => {
                return Err(Denial(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the server runs anyway: only `true` makes a difference to `exit`".to_owned(),
                ));
            }
        })
    }

    fn set_store(&self, state: StoreState) -> &'static str {
        let faults = &self.chaos.faults;
        faults.clear();
        match state {
            StoreState::Down => {
                faults.down();
                "the store is down"
            }
            StoreState::Slow => {
                faults.set_rates(FaultRates {
                    latency: SLOW,
                    ..default()
                });
                "the store is slow"
            }
            StoreState::Up => "the store is up",
        }
    }

    /// A game that has ended has nothing to do any more.
    fn tell(&self, deed: Deed) {
        let _ = self.deeds.send(deed);
    }

    async fn keep_the_rival_alive(self: Arc<Self>) {
        while self.chaos.rival.has_somebody() {
            tokio::time::sleep(BEAT).await;
            if let Err(problem) = self.chaos.rival.beat().await {
                warn!("the rival's lease can't be kept: {problem}");
            }
        }
        if let Err(problem) = self.chaos.rival.store.retire(self.chaos.rival.server).await {
            warn!("the rival can't retire: {problem}");
        }
    }
}

fn known(name: &str) -> Result<PlayerId, Denial> {
    player_named(name).map_err(|problem| Denial(StatusCode::UNPROCESSABLE_ENTITY, problem))
}

/// Another server on the same store, which has nothing but locks. It meets none of the faults.
struct Rival {
    store: Arc<dyn Store>,
    server: ServerId,
    /// The locks that it holds, with their fences.
    locks: Mutex<HashMap<PlayerId, (LockId, u64)>>,
}

impl Rival {
    /// Takes a player over, as if every other server had been out of touch for a whole TTL. Returns whether it is the
    /// only one.
    async fn take(&self, player: PlayerId) -> Result<bool, StoreError> {
        let leases = self.beat().await?;
        let own_beat = leases.iter().find(|lease| lease.server == self.server);
        let until_beat = own_beat.map_or(0, |lease| lease.beat);
        let lock = LockId::random();
        let acquired = self
            .store
            .acquire(Acquire {
                player,
                lock,
                server: self.server,
                lapsed: leases
                    .into_iter()
                    .filter(|lease| lease.server != self.server)
                    .collect(),
                orphan: None,
                until_beat,
            })
            .await?;
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.insert(player, (lock, acquired.fence));
        Ok(locks.len() == 1)
    }

    /// Lets go of a player, if it has them.
    async fn release(&self, player: PlayerId) -> Result<bool, StoreError> {
        let held = self
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&player);
        let Some((lock, fence)) = held else {
            return Ok(false);
        };
        let write = Write {
            player,
            lock,
            fence,
            seq: 1,
            document: None,
            settle: Vec::new(),
            then: Then::Release,
        };
        self.store.commit(Commit::from(write)).await?;
        Ok(true)
    }

    fn has_somebody(&self) -> bool {
        !self
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Shows that it lives, and returns how far every server's lease is.
    async fn beat(&self) -> Result<Vec<LapsedLease>, StoreError> {
        let lease = Lease {
            server: self.server,
            name: RIVAL.to_owned(),
            lapsed: Vec::new(),
        };
        let leases = self.store.lease(lease).await?;
        Ok(leases
            .servers
            .into_iter()
            .map(|lease| LapsedLease {
                server: lease.server,
                beat: lease.beat,
            })
            .collect())
    }
}

fn act(
    mut deeds: ResMut<Deeds>,
    players: Query<(Entity, &PersistentPlayer, Option<&PlayerClient>)>,
    mut server: ResMut<RenetServer>,
    mut commands: Commands,
) {
    let Ok(deeds) = deeds.0.get_mut() else { return };
    for deed in deeds.try_iter() {
        let find = |wanted| {
            players
                .iter()
                .find(move |&(_, &PersistentPlayer(player), _)| player == wanted)
        };
        match deed {
            Deed::Save(player) => {
                if let Some((entity, ..)) = find(player) {
                    commands.trigger(SavePlayer { entity });
                }
            }
            Deed::Send { player, to } => {
                if let Some((entity, ..)) = find(player) {
                    commands.trigger(TransferPlayer { entity, to });
                }
            }
            Deed::Kick(player) => {
                if let Some((_, _, Some(&PlayerClient(client)))) = find(player) {
                    server.disconnect(client);
                }
            }
            Deed::Exit => commands.trigger(ShutDown),
        }
    }
}

/// Why nothing is brought about.
struct Denial(StatusCode, String);

impl From<StoreError> for Denial {
    fn from(problem: StoreError) -> Self {
        let status = match problem {
            StoreError::SessionLocked { .. } | StoreError::LockLost { .. } => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, problem.to_string())
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Json(Denied { error })).into_response()
    }
}
