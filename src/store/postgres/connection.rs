//! Connections: how one is opened and set up, and what is done with it after something went wrong.
//!
//! The module owns the pool. It promises that nobody waits without an end (for a free connection, for an answer), that a
//! connection whose state is not known is never used again, and that a commit which was only cut short is not taken for
//! one that succeeded.

use std::{
    collections::HashSet,
    future::poll_fn,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType},
};
use deadpool_postgres::ClientWrapper;
use tokio::time::{sleep, timeout};
use tokio_postgres::{
    AsyncMessage, NoTls, SimpleQueryMessage, Socket,
    error::Severity,
    tls::{MakeTlsConnect, TlsConnect},
};

use super::{
    super::{BoxFuture, StoreError},
    error::{Failure, Refusal},
    target::{Endpoint, Target},
};
use crate::chance::random;

/// The oldest version of PostgreSQL that will do, as `server_version_num` spells it.
const OLDEST: u32 = 130_000;

/// A connection that is set up.
pub(super) struct Connection {
    client: ClientWrapper,
    /// Whether the server has warned that it didn't wait for a standby.
    warned: Arc<AtomicBool>,
    hints: Arc<Hints>,
    /// The database's process that serves it.
    pid: Option<i32>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.hints.own().remove(&pid);
        }
    }
}

/// What the database tells whoever listens.
#[derive(Default)]
struct Hints {
    /// Whether it knows how to.
    are_known: AtomicBool,
    heard: AtomicU64,
    /// The database's processes that serve us: what we have handed in ourselves is no news.
    own: Mutex<HashSet<i32>>,
}

impl Hints {
    fn own(&self) -> MutexGuard<'_, HashSet<i32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The channel on which the database says that something has arrived.
const CHANNEL: &str = "bevy_player_data";

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
    /// [`Failure::Unknown`] also when there was a warning. A commit that waits for a synchronous standby and is cancelled
    /// is durable here, may be nowhere else, and is reported as a success with a warning.
    pub(super) async fn commit(&self) -> Result<(), Failure> {
        self.warned.store(false, Ordering::SeqCst);
        self.client.batch_execute("COMMIT").await?;
        if self.warned.load(Ordering::SeqCst) {
            return Err(Failure::Unknown(
                "the commit was cut short while it waited for a synchronous standby".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Connection {
    /// Tells everybody who listens, when the transaction is committed.
    pub(super) async fn notify(&self) -> Result<(), Failure> {
        // Nobody has been seen to listen, or what speaks the protocol knows no such statement.
        if self.hints.are_known.load(Ordering::Relaxed) {
            self.client.batch_execute(&format!("NOTIFY {CHANNEL}")).await?;
        }
        Ok(())
    }
}

/// The pool.
pub(super) struct Connections {
    pool: Pool<Manager>,
    pub(super) target: Arc<Target>,
    timeout: Duration,
}

impl Connections {
    pub(super) fn new(target: Target, size: usize, timeout: Duration) -> Result<Self, StoreError> {
        let target = Arc::new(target);
        let manager = Manager {
            target: Arc::clone(&target),
            timeout,
            newest_timeline: AtomicU32::new(0),
            hints: Arc::default(),
        };
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

    /// How often something may have arrived.
    pub(super) fn hints(&self) -> u64 {
        self.pool.manager().hints.heard.load(Ordering::Relaxed)
    }

    /// Listens for hints, for good, on a connection of its own. Nothing depends on it.
    pub(super) async fn listen(&self) {
        let manager = self.pool.manager();
        loop {
            if let Ok(Ok(connection)) = timeout(self.timeout, manager.open()).await {
                let listen = format!("LISTEN {CHANNEL}");
                match timeout(self.timeout, connection.batch_execute(&listen)).await {
                    Ok(Ok(())) => manager.hints.are_known.store(true, Ordering::Relaxed),
                    Ok(Err(error)) if error.code().is_some() => {
                        return tracing::debug!("the database has no hints to give: {error}");
                    }
                    _ => {}
                }
                // What was missed meanwhile.
                manager.hints.heard.fetch_add(1, Ordering::Relaxed);
                while let Ok(Ok(())) = timeout(self.timeout, connection.batch_execute("SELECT 1")).await {
                    sleep(self.timeout * 4).await;
                }
            }
            sleep(self.timeout).await;
        }
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

/// Opens connections for the pool.
pub(super) struct Manager {
    target: Arc<Target>,
    timeout: Duration,
    newest_timeline: AtomicU32,
    hints: Arc<Hints>,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Refusal;

    async fn create(&self) -> Result<Connection, Refusal> {
        self.open().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Refusal> {
        if connection.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        Ok(())
    }
}

impl Manager {
    /// Opens a connection to the first host that will do.
    async fn open(&self) -> Result<Connection, Refusal> {
        let hosts = &self.target.hosts;
        // Each gets its share of the time: one that hangs must not keep us from the next, nor from saying so.
        let share = self.timeout * 9 / 10 / u32::try_from(hosts.len()).unwrap_or(1).max(1);
        let mut start = 0;
        if self.target.in_any_order {
            // Truncated on purpose; a start beyond the end is the first host.
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a small number of hosts, times a number from 0 to 1"
            )]
            let chosen = (random() * hosts.len() as f64) as usize;
            start = chosen;
        }
        let (later, sooner) = hosts.split_at(start.min(hosts.len()));
        let mut troubles = Vec::new();
        for endpoint in sooner.iter().chain(later) {
            let refusal = match timeout(share, self.open_at(endpoint)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::passing(format_args!(
                    "did not answer within {share:?}: check that it runs, and the network in between"
                )),
            };
            troubles.push((endpoint, refusal));
        }
        let is_lasting = !troubles.is_empty() && troubles.iter().all(|(_, refusal)| refusal.is_lasting);
        let sentences: Vec<String> = troubles
            .into_iter()
            .map(|(endpoint, refusal)| format!("PostgreSQL at {} {}", endpoint.place, refusal.why))
            .collect();
        Err(Refusal {
            why: sentences.join("; "),
            is_lasting,
        })
    }

    async fn open_at(&self, endpoint: &Endpoint) -> Result<Connection, Refusal> {
        match self.target.tls.clone().into_inner() {
            Some(tls) => self.open_with(endpoint, tls).await,
            None => self.open_with(endpoint, NoTls).await,
        }
    }

    async fn open_with<T>(&self, endpoint: &Endpoint, tls: T) -> Result<Connection, Refusal>
    where
        T: MakeTlsConnect<Socket> + Send,
        T::TlsConnect: Send,
        T::Stream: Send + 'static,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let refusal = |error| Refusal::from_connecting(&error, &self.target);
        let (client, mut messages) = endpoint.config.connect(tls).await.map_err(refusal)?;
        let warned = Arc::new(AtomicBool::new(false));
        let (flag, hints) = (Arc::clone(&warned), Arc::clone(&self.hints));
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| messages.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        tracing::debug!("PostgreSQL says: {}: {}", notice.severity(), notice.message());
                        // What other warnings there are, those of somebody's trigger for example, says nothing about
                        // the commit.
                        let is_about_standbys = notice.file().is_none_or(|file| file.ends_with("syncrep.c"));
                        if notice.parsed_severity() == Some(Severity::Warning) && is_about_standbys {
                            flag.store(true, Ordering::SeqCst);
                        }
                    }
                    Ok(AsyncMessage::Notification(hint)) if hints.own().contains(&hint.process_id()) => {}
                    Ok(AsyncMessage::Notification(_)) => {
                        hints.heard.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!("a connection to PostgreSQL has ended: {error}");
                        break;
                    }
                }
            }
        });
        let client = ClientWrapper::new(client, driver);
        check_version(&client).await?;
        self.check_timeline(&client).await?;
        set_up(&client, self.timeout).await.map_err(refusal)?;
        let pid = client.simple_query("SELECT pg_backend_pid()").await.unwrap_or_default();
        let pid = only_value(&pid).and_then(|text| text.parse().ok());
        let hints = Arc::clone(&self.hints);
        hints.own().extend(pid);
        Ok(Connection {
            client,
            warned,
            hints,
            pid,
        })
    }
}

/// What a promoted standby has one more of than its primary had.
const TIMELINE: &str = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";

impl Manager {
    /// Refuses a host that takes writes although another one was promoted over it: an old primary that has come back.
    async fn check_timeline(&self, client: &ClientWrapper) -> Result<(), Refusal> {
        // Whatever else speaks the protocol has no such thing.
        let shown = client.simple_query(TIMELINE).await.unwrap_or_default();
        let timeline = only_value(&shown).and_then(|text| u32::from_str_radix(text, 16).ok());
        let Some(timeline) = timeline else {
            return Ok(());
        };
        let newest = self.newest_timeline.fetch_max(timeline, Ordering::SeqCst);
        if timeline < newest {
            return Err(Refusal::passing(format_args!(
                "is an old primary (its timeline is {timeline}, and {newest} was seen): take it away, or make it a \
                 standby of the new one"
            )));
        }
        Ok(())
    }
}

fn only_value(messages: &[SimpleQueryMessage]) -> Option<&str> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })
}

async fn check_version(client: &ClientWrapper) -> Result<(), Refusal> {
    let shown = client
        .simple_query("SHOW server_version_num")
        .await
        .unwrap_or_default();
    judge_version(only_value(&shown).and_then(|text| text.parse().ok()))
}

fn judge_version(version: Option<u32>) -> Result<(), Refusal> {
    match version {
        Some(version) if version >= OLDEST => Ok(()),
        Some(version) => Err(Refusal::lasting(format_args!(
            "is version {}, and at least {} is needed: upgrade it",
            version / 10_000,
            OLDEST / 10_000
        ))),
        None => Err(Refusal::lasting(
            "does not say which version it is: it has to speak PostgreSQL's dialect",
        )),
    }
}

/// What holds for everything that is asked on a connection, whatever the defaults of its role and database are.
async fn set_up(client: &ClientWrapper, timeout: Duration) -> Result<(), tokio_postgres::Error> {
    let whole = timeout.as_millis().clamp(1, 3_600_000);
    let half = (whole / 2).max(1);
    client
        .batch_execute(&format!(
            // No `statement_timeout`: it would also cancel a commit that waits for a synchronous standby, which makes
            // it durable here and nowhere else.
            "SET statement_timeout = 0;
             SET lock_timeout = {half};
             SET idle_in_transaction_session_timeout = {whole};
             SET client_min_messages = warning;
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        ))
        .await?;
    // So that a server which we can't reach any more gives up what we hold there. Not every version, and not everything
    // that speaks the protocol, has these.
    let seconds = (whole / 1000).max(1);
    for (setting, value) in [
        ("tcp_user_timeout", whole),
        ("tcp_keepalives_idle", seconds),
        ("tcp_keepalives_interval", seconds),
        ("tcp_keepalives_count", 3),
        ("client_connection_check_interval", whole),
    ] {
        if let Err(error) = client.batch_execute(&format!("SET {setting} = {value}")).await
            && error.code().is_none()
        {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_in_one_sentence() {
        assert!(judge_version(Some(130_000)).is_ok());
        assert!(judge_version(Some(170_002)).is_ok());
        let refusal = judge_version(Some(90_624)).unwrap_err();
        assert!(refusal.is_lasting);
        assert_eq!(refusal.why, "is version 9, and at least 13 is needed: upgrade it");
        assert!(judge_version(None).unwrap_err().is_lasting);
    }
}
