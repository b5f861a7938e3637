//! The store in a PostgreSQL database: any number of servers on any number of machines.
//!
//! The module owns [`PostgresStore`] and the thread that talks to the database: its pool (`connection`), what waits for a
//! transaction (`queue`), and what a transaction does (`transaction`, `write_back`). It promises that nobody is answered
//! before what they asked for is committed, and that nobody waits without an end. The rules themselves are the parent
//! module's; ordering and retries are the session's; replication and failover are PostgreSQL's own.

use std::{fmt, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tokio_postgres::error::SqlState;

use super::{
    Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Import, Lease, Leases, LockId,
    NewReceipt, Notice, Record, ServerId, Store, StoreError, StoredReceipt, Wish, Wishes,
};
use crate::id::{PlayerId, PurchaseId};

mod connection;
mod erase;
mod error;
mod hints;
mod import;
mod leases;
mod open;
mod queue;
mod reader;
mod receipts;
mod row;
mod schema;
mod target;
mod tls;
mod transaction;
mod wishes;
mod write_back;

use connection::{Connection, Connections};
use error::{Consequence, Failure};
use queue::{Answer, Ask, Queues};
use target::Target;

/// How often a request by itself is run again when it met another one.
const ATTEMPTS: usize = 8;

/// A [`Store`] in a PostgreSQL database (version 13 or newer).
///
/// - **Durable.** What was acknowledged is committed, with `synchronous_commit` at least `on` and, where the database
///   has a synchronous standby, there as well: a failover loses none of it. With asynchronous replication a failover
///   loses what the standby had not received yet; that is PostgreSQL's promise, not this crate's.
/// - **Fast.** What is asked for while the connections that save are busy shares the next transaction, in two
///   round trips.
/// - **Shared.** Any number of servers may use one database. Only a host that takes writes is used; nothing is read from
///   standbys.
/// - **Prompt.** `LISTEN` and `NOTIFY`, where the database has them, [hint](Store::hints) at receipts that have
///   arrived. Polling finds them as well.
/// - **Names.** No lock of an operating system proves a crashed server dead: a restart under its name waits until its
///   lease has lapsed.
/// - **Logs.** None of this crate's lines has a document, a payload or a password in it. The driver's have: at the level
///   `debug`, `tokio_postgres` logs the parameters of each statement. Keep that target at `info` or above, whatever the
///   others are at.
/// - **Portable.** No advisory locks, triggers or sequences, so that the statements should do on `CockroachDB` and
///   `YugabyteDB` as well. Both are untested. A connection pooler in between has to be in session mode.
///
/// The URL is libpq's: `postgres://user:password@host1:5432,host2:5432/database?sslmode=require`. With several hosts,
/// the first that takes writes is used, and the next one after a failover. What the URL leaves out comes from the
/// environment: `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`. No password is
/// logged, and none is in an error's text. `sslmode=require` verifies the server's certificate, chain and name, against
/// `sslrootcert` (a PEM file) or the system's authorities; the default, `prefer`, encrypts if the server can and
/// verifies nothing.
///
/// A clone is another handle to the same thread. Dropping the last handle lets what is under way end by itself; dropping
/// it without [`Store::retire`] is what a crash is to other servers.
///
/// A request is sent when its future is first polled, or dropped unsent if its future was dropped meanwhile.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    queues: Queues,
    connections: Arc<Connections>,
    runtime: Handle,
    /// Dropped with the last handle, which ends the thread.
    _life: oneshot::Sender<()>,
}

/// How a [`PostgresStore`] behaves.
///
/// ```no_run
/// # use std::time::Duration;
/// # use bevy_player_data::store::{PostgresSettings, PostgresStore};
/// let settings = PostgresSettings { connections: 16, ..PostgresSettings::default() };
/// let store = PostgresStore::connect_with("postgres://game@db.example:5432/players?sslmode=require", settings);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// How many connections this process has at most, beside one that listens for hints. A quarter of them
    /// take locks and save, or two, if that is no more than half. Default: 8.
    pub connections: usize,
    /// How long a request waits for a free connection, and then for the database, before it is answered with
    /// [`StoreError::Unavailable`]; it waits half of this for another transaction's lock. It should be well below the
    /// retry policy's [`attempt_timeout`](crate::session::RetryPolicy::attempt_timeout). Default: 4 seconds.
    pub timeout: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            connections: 8,
            timeout: Duration::from_secs(4),
        }
    }
}

impl PostgresStore {
    /// Connects to a database, and creates or upgrades its tables. Many servers may do so at once.
    ///
    /// Blocks until the database has answered: call it before the game loop starts.
    ///
    /// # Errors
    /// One sentence that names the hosts and what to do. [`StoreError::Rejected`] when somebody has to change something
    /// (the URL, a password, a missing database, a server that is too old, tables that are not ours, a newer schema);
    /// [`StoreError::Unavailable`] when the database can't be reached or used now.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(url, PostgresSettings::default())
    }

    /// [`connect`](Self::connect) with settings of your own.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn connect_with(url: &str, settings: PostgresSettings) -> Result<Self, StoreError> {
        let PostgresSettings { connections, timeout } = settings;
        if connections == 0 || timeout.is_zero() {
            return Err(StoreError::rejected(
                "`PostgresSettings` with no connection or no time can't work: give it at least one of each",
            ));
        }
        let target = Target::from_url(url, timeout)?;
        let pool = Arc::new(Connections::new(target, connections, timeout)?);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            StoreError::unavailable(format_args!(
                "a runtime for PostgreSQL cannot be started ({error}): end other processes or raise the limit"
            ))
        })?;
        let handle = runtime.handle().clone();
        let (opened, answer) = std::sync::mpsc::channel();
        let (life, end) = oneshot::channel::<()>();
        let own = Arc::clone(&pool);
        let serve = async move {
            let prepared = async {
                own.check().await?;
                schema::migrate(&own).await
            };
            if let Err(error) = prepared.await {
                // Whoever asked is waiting.
                let _ = opened.send(Err(error));
                return;
            }
            let (queues, lanes) = queue::start(&own, connections);
            let _ = opened.send(Ok(queues));
            let listener = tokio::spawn(async move { own.listen().await });
            // Ends when the last handle is dropped, and the queues with it; the lanes end what is queued.
            let _ = end.await;
            listener.abort();
            for lane in lanes {
                if lane.await.is_err() {
                    tracing::error!("a lane of the PostgreSQL store had panicked");
                }
            }
        };
        thread::Builder::new()
            .name("player data postgres".to_owned())
            .spawn(move || runtime.block_on(serve))
            .map_err(|error| {
                StoreError::unavailable(format_args!(
                    "a thread for PostgreSQL cannot be started ({error}): end other processes or raise the limit"
                ))
            })?;
        let queues = answer.recv().unwrap_or_else(|_| {
            Err(StoreError::unavailable(
                "the thread that talks to PostgreSQL has died, see the log for its panic: restart this server",
            ))
        })?;
        tracing::info!("connected player data store to {}", pool.target);
        Ok(Self {
            shared: Arc::new(Shared {
                queues,
                connections: pool,
                runtime: handle,
                _life: life,
            }),
        })
    }

    /// Runs something that needs no queue on a connection of its own, and again when it met another transaction.
    async fn alone<T: Send + 'static>(
        &self,
        work: impl for<'a> Fn(&'a Connection) -> BoxFuture<'a, Result<T, Failure>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let connections = Arc::clone(&self.shared.connections);
        // On the thread whose sockets these are, and to its end: a connection that is left half way is lost.
        let task = self.shared.runtime.spawn(async move {
            let mut attempts = 0;
            loop {
                attempts += 1;
                match connections.with(&work).await {
                    Err(failure) if attempts < ATTEMPTS && met_another(&failure) => {}
                    answer => return answer.map_err(|failure| failure.explain(&connections.target)),
                }
            }
        });
        task.await.unwrap_or_else(|_| {
            Err(StoreError::unavailable(
                "the thread that talks to PostgreSQL has dropped a request, see the log for its panic: restart this server",
            ))
        })
    }
}

/// Whether a request is to be run again: another transaction was in its way, or has just registered the same name.
fn met_another(failure: &Failure) -> bool {
    let is_a_double = matches!(failure, Failure::Database(error)
        if error.code() == Some(&SqlState::UNIQUE_VIOLATION));
    is_a_double || failure.consequence() == Consequence::RunAgain
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("target", &format_args!("{}", self.shared.connections.target))
            .finish_non_exhaustive()
    }
}

/// The answer of the one kind that a request of this kind has.
macro_rules! ask {
    ($store:ident, $ask:expr, $answer:path) => {
        Box::pin(async move {
            match $store.shared.queues.ask($ask).await? {
                $answer(answer) => Ok(answer),
                other => unreachable!("the answer to another request: {other:?}"),
            }
        })
    };
}

impl Store for PostgresStore {
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        let lease = Arc::new(lease);
        Box::pin(self.alone(move |connection| {
            let lease = Arc::clone(&lease);
            Box::pin(async move { leases::lease(connection, &lease).await })
        }))
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(self.alone(|connection| Box::pin(leases::leases(connection))))
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(leases::retire(connection, server))))
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        ask!(self, Ask::Acquire(acquire), Answer::Acquired)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        ask!(self, Ask::Commit(commit), Answer::Committed)
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(reader::peek(connection, player))))
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(reader::list(connection, after, limit))))
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        ask!(self, Ask::Erase(player), Answer::Erased)
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        ask!(self, Ask::Enqueue(receipt, notice), Answer::Enqueued)
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        Box::pin(self.alone(move |connection| {
            let purchase = purchase.clone();
            Box::pin(async move { receipts::receipt(connection, &purchase).await })
        }))
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(receipts::open_receipts(connection, player))))
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(
            self.alone(move |connection| Box::pin(receipts::receipts_of(connection, player, before, limit))),
        )
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(receipts::arrivals(connection, since))))
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(async move { wishes::wish(connection, &wish).await })))
    }

    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(wishes::withdraw(connection, player, lock))))
    }

    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(wishes::wishes(connection, server))))
    }

    fn hints(&self) -> u64 {
        self.shared.connections.hints()
    }

    fn all_receipts(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(self.alone(move |connection| Box::pin(receipts::all_receipts(connection, after, limit))))
    }

    fn import(&self, rows: Import) -> BoxFuture<'_, Result<(), StoreError>> {
        let rows = Arc::new(rows);
        Box::pin(self.alone(move |connection| {
            let rows = Arc::clone(&rows);
            Box::pin(async move { import::run(connection, &rows).await })
        }))
    }
}
