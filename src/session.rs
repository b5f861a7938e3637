//! Session locks and the ordered queue: which server may write a player's record, and in which order.
//!
//! The module owns [`Sessions`], of which a server process has one: its lease (driven by [`Sessions::tick`]), the
//! queue that everything about a player goes through, and every [`Session`] that it handed out. It promises that a
//! player's requests reach the store in the order in which they were asked for, that a write which lost its lock
//! changes nothing, and that a lock is given back however a session ends, short of a crash. It knows neither Bevy nor
//! what is inside a document, and leaves durability to the [`Store`].
//!
//! | file | concept |
//! |---|---|
//! | `handle.rs` | [`Session`]: the right to save a player |
//! | `settings.rs`, `error.rs` | what can be set; what can become of a load or a save |
//! | `queue.rs`, `queue/` | [`OrderedQueue`]: per key first in, first out, one at a time |
//! | `retry.rs` | [`RetryPolicy`]: exponential backoff with jitter, inside the slot |
//! | `lease.rs` | [`LeaseWatch`]: whose lease stood still for a whole TTL |
//! | `heartbeat.rs` | our own lease: when to beat, and what to say when it doesn't work |
//! | `opening.rs` | a load, from its request to its [`Session`] or its error |
//! | `settle.rs` | abandoned and late acquires leave no lock behind |
//! | `wishes.rs` | asking other servers for their players, and hearing who asks for ours |
//! | `commit.rs` | what a session writes, and what the answers mean |
//! | `fate.rs` | whether a commit has landed whose answer was lost together with the lock |
//! | `together.rs` | two sessions in one commit: trades |
//! | `registry.rs` | which locks of this process are in use, and who waits for them |

mod commit;
mod error;
mod fate;
mod handle;
mod heartbeat;
mod lease;
mod opening;
mod queue;
mod registry;
mod retry;
mod settings;
mod settle;
mod together;
mod wishes;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::runtime::Handle;

use crate::{
    id::PlayerId,
    store::{Commit, Committed, ServerId, Store, StoreError, Then, Wished},
};
use heartbeat::Heartbeat;
use registry::Registry;
use settle::Suspects;
use wishes::WishList;

pub use commit::Snapshot;
pub use error::{OpenError, SaveError};
pub use handle::{Saved, Session};
pub use heartbeat::{LeaseState, LeaseStatus};
pub use lease::LeaseWatch;
pub use opening::{Delay, Opened, Opening};
pub(crate) use queue::panic_message;
pub use queue::{NotRun, OrderedQueue, Request, Skip, Ticket, Turn};
pub use retry::{Attempts, RetryPolicy};
pub use settings::SessionSettings;

/// All sessions of one server process. A cheap handle: clones share everything.
///
/// Nothing here blocks: requests are enqueued at once, work happens on the runtime, and answers arrive through the
/// `done` callbacks, which run on a runtime thread (or, for a request that never started, on the thread that
/// cancelled it). A callback should do no more than pass its answer on; if the runtime is shut down first, it is
/// dropped without being called.
///
/// Dropping the last handle is a crash as far as the store is concerned: locks are left to lapse. The orderly end
/// is [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

/// What all handles share.
struct Inner {
    store: Arc<dyn Store>,
    settings: SessionSettings,
    server: ServerId,
    runtime: Handle,
    queue: OrderedQueue<PlayerId>,
    heartbeat: Heartbeat,
    registry: Registry,
    suspects: Suspects,
    wishes: WishList,
    /// Numbers openings and sessions, so that the queue can tell whose request is whose.
    series: AtomicU64,
}

impl Sessions {
    /// Starts a server's boot. Nothing reaches the store before the first [`tick`](Self::tick).
    ///
    /// Check the settings with [`SessionSettings::validate`] first.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: SessionSettings, runtime: Handle) -> Self {
        let server = ServerId::random();
        let inner = Inner {
            queue: OrderedQueue::new(runtime.clone()),
            heartbeat: Heartbeat::new(server, &settings),
            registry: Registry::default(),
            suspects: Suspects::default(),
            wishes: WishList::default(),
            series: AtomicU64::new(0),
            store,
            settings,
            server,
            runtime,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Identifies this boot of the server.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.inner.server
    }

    /// The settings that [`new`](Self::new) was given.
    #[must_use]
    pub fn settings(&self) -> &SessionSettings {
        &self.inner.settings
    }

    /// Starts a beat of our lease when one is due. Call it once per update of the game loop; it costs a glance at
    /// the clock.
    ///
    /// Only this call keeps the lease alive, so a game loop that hangs lapses like a server that crashed.
    pub fn tick(&self) {
        heartbeat::tick(self);
    }

    /// How our lease is doing.
    #[must_use]
    pub fn status(&self) -> LeaseStatus {
        // The clock is the runtime's, wherever this is called from.
        let _context = self.inner.runtime.enter();
        self.inner.heartbeat.status()
    }

    /// Starts to look, every [`SessionSettings::wish_poll`], at who wishes for a player of whom: `seen` is told all
    /// wishes of other servers for players of this one, whenever they are not the same as the last time, and loads of
    /// this server are woken when their wishes have come true. It ends with the last handle. Call it once.
    ///
    /// `seen` is told that there are none while the store can't be asked. It should do no more than pass them on.
    pub fn watch_wishes(&self, seen: impl FnMut(Vec<Wished>) + Send + 'static) {
        self.inner
            .runtime
            .spawn(wishes::watch(Arc::downgrade(&self.inner), seen));
    }

    /// Asks for a player's session. The request takes its place in the player's queue at once.
    ///
    /// `done` is called exactly once, at the latest when [`SessionSettings::load_timeout`], counted from this call, has
    /// passed. If another server has the player, it is told that this one would like to have them (unless
    /// [`SessionSettings::ask`] says otherwise). While the game still holds an older session of the same player, the
    /// load waits until that one has been closed and its final save has landed. Whatever becomes of the load, it leaves
    /// no lock behind.
    ///
    /// Dropping the returned [`Opening`] cancels the load, so keep it until `done` was called.
    ///
    /// # Errors
    /// `done` gets an [`OpenError`].
    pub fn open(
        &self,
        player: PlayerId,
        done: impl FnOnce(Result<Opened, OpenError>) + Send + 'static,
    ) -> Opening {
        self.open_telling(player, |_| (), done)
    }

    /// The same, for somebody who shows the player why it takes long: `delayed` is called whenever there is a new
    /// reason for that. (A call that was already under way when `done` was called may end after it.)
    ///
    /// # Errors
    /// `done` gets an [`OpenError`].
    pub fn open_telling(
        &self,
        player: PlayerId,
        delayed: impl Fn(Delay) + Send + Sync + 'static,
        done: impl FnOnce(Result<Opened, OpenError>) + Send + 'static,
    ) -> Opening {
        opening::open(self, player, Box::new(delayed), Box::new(done))
    }

    /// Drops what need not run when the server is about to exit, and hurries the rest.
    ///
    /// Loads that have not started are cancelled; waiting saves with a later save or close of the same session
    /// behind them are answered [`SaveError::Skipped`]; closes always run. Running backoffs are cut short: their next
    /// attempt happens at once.
    pub fn skip_all_to_last(&self) {
        for parked in self.inner.registry.parked() {
            parked.abandon(OpenError::Cancelled {
                player: parked.player(),
            });
        }
        self.inner.queue.skip_all_to_last();
    }

    /// How many requests of this player are waiting or running. A load that waits for an older session to be closed
    /// has not joined the queue yet.
    #[must_use]
    pub fn queue_len(&self, player: PlayerId) -> usize {
        self.inner.queue.len(&player)
    }

    /// How many requests of all players are waiting or running.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.inner.queue.total_len()
    }

    /// Waits until no request is waiting or running.
    pub async fn drained(&self) {
        self.inner.queue.drained().await;
    }

    /// The orderly end: cancels what is still loading, waits until every request has ended, then gives the server's
    /// name and lease back, which frees whatever lock still hangs on it. No beat follows, and every later load is
    /// answered [`OpenError::Cancelled`].
    ///
    /// Close the sessions before. There is no time limit: wrap it in a timeout.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the store could not be told; locks are then left to lapse.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        for opening in self.inner.registry.refuse_openings() {
            opening.abandon(OpenError::Cancelled {
                player: opening.player(),
            });
        }
        self.drained().await;
        heartbeat::retire(self).await
    }

    fn next_series(&self) -> u64 {
        self.inner.series.fetch_add(1, Ordering::Relaxed)
    }

    /// What an answer means to whoever sent this. A write that ends a session is sent again though the store is
    /// damaged: that may be mended, and until there is no more time, nobody gives up what is to be kept, or a lock. (A
    /// session that goes on has its data all the same, and is told at once.)
    fn endure(
        &self,
        commit: &Commit,
        answer: Result<Committed, StoreError>,
    ) -> Result<Committed, StoreError> {
        let is_last = commit.writes.iter().all(|write| write.then == Then::Release);
        match answer {
            Err(damage @ StoreError::Corrupt { .. }) if is_last && !self.inner.queue.is_hurried() => {
                Err(StoreError::unavailable(damage))
            }
            answer => answer,
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("name", &self.inner.settings.name)
            .field("server", &self.inner.server)
            .field("queued", &self.total_len())
            .finish_non_exhaustive()
    }
}
