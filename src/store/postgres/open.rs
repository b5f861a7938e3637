//! Opening a connection: which host will do, and what holds for everything that is asked there.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio::{sync::RwLock, time::timeout};
use tokio_postgres::{
    AsyncMessage, NoTls, SimpleQueryMessage, Socket,
    error::Severity,
    tls::{MakeTlsConnect, TlsConnect},
};

use super::{
    connection::Connection,
    error::Refusal,
    hints::Hints,
    target::{Endpoint, Target},
};
use crate::chance::random;

/// The oldest version of PostgreSQL that will do, as `server_version_num` spells it.
const OLDEST: u32 = 130_000;

/// Opens connections for the pool.
pub(super) struct Manager {
    target: Arc<Target>,
    timeout: Duration,
    /// The newest one that was seen on any host.
    newest_timeline: AtomicU32,
    pub(super) hints: Arc<Hints>,
    turns: Arc<RwLock<()>>,
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
    pub(super) fn new(target: Arc<Target>, timeout: Duration) -> Self {
        Self {
            target,
            timeout,
            newest_timeline: AtomicU32::new(0),
            hints: Arc::default(),
            turns: Arc::default(),
        }
    }

    /// Opens a connection to the first host that will do.
    pub(super) async fn open(&self) -> Result<Connection, Refusal> {
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
                    Ok(AsyncMessage::Notification(hint)) => hints.hear(hint.process_id()),
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
        check_encoding(&client).await?;
        self.check_timeline(&client).await?;
        set_up(&client, self.timeout).await.map_err(refusal)?;
        let pid = client
            .simple_query("SELECT pg_backend_pid()")
            .await
            .unwrap_or_default();
        let pid = only_value(&pid).and_then(|text| text.parse().ok());
        Ok(Connection {
            client,
            warned,
            turns: Arc::clone(&self.turns),
            hints: Hints::join(&self.hints, pid),
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

/// In any other encoding there are names and notes that can't be stored.
async fn check_encoding(client: &ClientWrapper) -> Result<(), Refusal> {
    let shown = client
        .simple_query("SHOW server_encoding")
        .await
        .unwrap_or_default();
    match only_value(&shown) {
        Some("UTF8") => Ok(()),
        encoding => Err(Refusal::lasting(format_args!(
            "has the encoding {}, and `UTF8` is needed: create the database with `ENCODING 'UTF8' TEMPLATE template0`",
            encoding.unwrap_or("unknown")
        ))),
    }
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
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
        ))
        .await?;
    let (whole, seconds) = (whole.to_string(), (whole / 1000).max(1).to_string());
    let settings = [
        // So that a server which we can't reach any more gives up what we hold there.
        ("tcp_user_timeout", whole.as_str()),
        ("tcp_keepalives_idle", &seconds),
        ("tcp_keepalives_interval", &seconds),
        ("tcp_keepalives_count", "3"),
        ("client_connection_check_interval", &whole),
        // All that we ask goes by keys, whatever their values. Left alone, a statement that is prepared while a table
        // is small reads all of it, and goes on to do so while the table grows, until it is analyzed. What can't be
        // asked without reading a (small) table passes for expensive then, which is no reason to compile it.
        ("enable_seqscan", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("jit", "off"),
    ]
    .map(|(setting, value)| format!("SET {setting} = {value};"));
    // In one round trip, after which all of them are set, or none. Not every version, and not everything that speaks
    // the protocol, has all.
    if client.batch_execute(&settings.concat()).await.is_ok() {
        return Ok(());
    }
    for setting in settings {
        if let Err(error) = client.batch_execute(&setting).await
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
