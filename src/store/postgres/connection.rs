//! Connections, and what is done with one after something went wrong. How one is opened is the business of `open`.
//!
//! The module owns the pool. It promises that nobody waits without an end (for a free connection, for an answer), that a
//! connection whose state is not known is never used again, and that a commit which was only cut short is not taken for
//! one that succeeded.

use std::{
    future::Future,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{Object, Pool, PoolError, QueueMode, TimeoutType},
};
use deadpool_postgres::ClientWrapper;
use tokio::{sync::RwLock, time::timeout};

use super::{
    super::{BoxFuture, StoreError},
    error::Failure,
    hints::Membership,
    open::Manager,
    target::Target,
};

/// A connection that is set up.
pub(super) struct Connection {
    pub(super) client: ClientWrapper,
    /// Whether the server has warned that it didn't wait for a standby.
    pub(super) warned: Arc<AtomicBool>,
    /// Shared by who grants locks, and had alone by who changes our row in `servers`. The database lets a shared lock
    /// on a row pass by an exclusive one that waits, so that the stream of them which a busy server is would keep its
    /// own beat waiting for good.
    pub(super) turns: Arc<RwLock<()>>,
    pub(super) hints: Membership,
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl Connection {
    pub(super) async fn begin(&self) -> Result<(), Failure> {
        // Said aloud, so that no default of a role or a database decides, and no standby takes it.
        self.client
            .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            .await?;
        Ok(())
    }

    /// Ends the transaction. May be sent together with the statements before it: when one of them fails, the server
    /// rolls back, and it is that statement which says so.
    ///
    /// # Errors
    /// Those of [`durably`](Self::durably).
    pub(super) async fn commit(&self) -> Result<(), Failure> {
        self.durably(self.client.batch_execute("COMMIT")).await
    }

    /// Runs a statement that commits.
    ///
    /// # Errors
    /// [`Failure::Unknown`] also when there was a warning. A commit that waits for a synchronous standby and is cancelled
    /// is durable here, may be nowhere else, and is reported as a success with a warning.
    pub(super) async fn durably<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
    ) -> Result<T, Failure> {
        self.warned.store(false, Ordering::SeqCst);
        let done = statement.await?;
        if self.warned.load(Ordering::SeqCst) {
            return Err(Failure::Unknown(
                "the commit was cut short while it waited for a synchronous standby".to_owned(),
            ));
        }
        Ok(done)
    }
}

/// The pool.
pub(super) struct Connections {
    pub(super) pool: Pool<Manager>,
    pub(super) target: Arc<Target>,
    pub(super) timeout: Duration,
}

impl Connections {
    pub(super) fn new(target: Target, size: usize, timeout: Duration) -> Result<Self, StoreError> {
        let target = Arc::new(target);
        let manager = Manager::new(Arc::clone(&target), timeout);
        let pool = Pool::builder(manager)
            .max_size(size.max(1))
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| {
                StoreError::rejected(format_args!("no pool of connections can be made ({error})"))
            })?;
        Ok(Self {
            pool,
            target,
            timeout,
        })
    }

    /// Looks whether there is a database of ours that can be used.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when somebody has to change something first, [`StoreError::Unavailable`] otherwise.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        match timeout(self.timeout, self.pool.manager().open()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) if refusal.is_lasting => Err(StoreError::rejected(refusal.why)),
            Ok(Err(refusal)) => Err(StoreError::unavailable(refusal.why)),
            Err(_) => Err(StoreError::unavailable(self.silent())),
        }
    }

    /// Does something on a connection, in a bounded time.
    ///
    /// # Errors
    /// Those of `work`, whose transaction is rolled back then, and [`Failure::Unknown`] when the time was not enough.
    pub(super) async fn with<T: Send>(
        &self,
        work: impl for<'a> FnOnce(&'a Connection) -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut lent = Lent {
            object: Some(self.get().await?),
            is_sound: false,
        };
        let answer = match timeout(self.timeout, work(lent.connection())).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Unknown(format!(
                "nothing came within {:?}",
                self.timeout
            ))),
        };
        match &answer {
            Ok(_) => lent.is_sound = true,
            Err(failure) if failure.leaves_the_connection_usable() => {
                let rolled_back = lent.connection().batch_execute("ROLLBACK");
                lent.is_sound = matches!(timeout(self.timeout, rolled_back).await, Ok(Ok(())));
            }
            Err(failure) if failure.is_about_the_server() => {
                self.pool.retain(|_, _| false);
            }
            Err(_) => {}
        }
        answer
    }

    async fn get(&self) -> Result<Object<Manager>, Failure> {
        self.pool.get().await.map_err(|error| {
            Failure::NoConnection(match error {
                PoolError::Backend(refusal) => refusal.why,
                PoolError::Timeout(TimeoutType::Wait) => format!(
                    "all {} connections to {} were busy for {:?}: raise `PostgresSettings::connections`, or look for \
                     what is slow there",
                    self.pool.status().max_size,
                    self.target,
                    self.timeout
                ),
                PoolError::Timeout(_) => self.silent(),
                PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                    format!("the pool of connections to {} was closed", self.target)
                }
            })
        })
    }

    fn silent(&self) -> String {
        format!(
            "{} did not answer within {:?}: check that it runs, and the network in between",
            self.target, self.timeout
        )
    }
}

/// A connection on loan, which goes back to the pool only if it is known to be sound.
struct Lent {
    object: Option<Object<Manager>>,
    is_sound: bool,
}

impl Lent {
    fn connection(&self) -> &Connection {
        self.object.as_ref().expect("taken only when it is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.object.take_if(|_| !self.is_sound) {
            // Closes the socket, whatever is still under way on it.
            drop(Object::take(object));
        }
    }
}
