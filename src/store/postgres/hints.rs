//! `LISTEN` and `NOTIFY`: what makes a look at the arrivals worth its while before it is due. Nothing relies on it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    connection::{Connection, Connections},
    error::Failure,
};

/// The channel on which the database says that something has arrived.
const CHANNEL: &str = "bevy_player_data";

/// How long after its end listening begins again, at first and after many failures.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the database tells whoever listens.
#[derive(Default)]
pub(super) struct Hints {
    /// Whether it knows how to.
    are_known: AtomicBool,
    heard: AtomicU64,
    /// The database's processes that serve us.
    own: Mutex<HashSet<i32>>,
}

impl Hints {
    fn own(&self) -> MutexGuard<'_, HashSet<i32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a hint, unless it comes from one of our own connections: what we have handed in ourselves is no news.
    pub(super) fn hear(&self, from: i32) {
        if !self.own().contains(&from) {
            self.heard.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes in a connection that this process of the database serves.
    pub(super) fn join(this: &Arc<Self>, pid: Option<i32>) -> Membership {
        this.own().extend(pid);
        Membership {
            hints: Arc::clone(this),
            pid,
        }
    }
}

/// What a connection has to do with hints.
pub(super) struct Membership {
    hints: Arc<Hints>,
    pid: Option<i32>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.hints.own().remove(&pid);
        }
    }
}

impl Connection {
    /// Tells everybody who listens, when the transaction is committed.
    pub(super) async fn notify(&self) -> Result<(), Failure> {
        // Nobody has been seen to listen, or what speaks the protocol knows no such statement.
        if self.hints.hints.are_known.load(Ordering::Relaxed) {
            self.batch_execute(&format!("NOTIFY {CHANNEL}")).await?;
        }
        Ok(())
    }
}

impl Connections {
    /// How often something may have arrived.
    pub(super) fn hints(&self) -> u64 {
        self.pool.manager().hints.heard.load(Ordering::Relaxed)
    }

    /// Listens for hints, for good, on a connection of its own.
    pub(super) async fn listen(&self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            if self.listen_once().await {
                pause = SHORTEST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Listens until the connection ends. Whether it has.
    async fn listen_once(&self) -> bool {
        let manager = self.pool.manager();
        let Ok(Ok(connection)) = timeout(self.timeout, manager.open()).await else {
            return false;
        };
        match timeout(
            self.timeout,
            connection.batch_execute(&format!("LISTEN {CHANNEL}")),
        )
        .await
        {
            Ok(Ok(())) => manager.hints.are_known.store(true, Ordering::Relaxed),
            // A database that knows no hints is asked now and then all the same: it may be another one by now.
            Ok(Err(error)) => {
                tracing::debug!("the database gives no hints now: {error}");
                return false;
            }
            Err(_) => return false,
        }
        // What was missed meanwhile.
        manager.hints.heard.fetch_add(1, Ordering::Relaxed);
        let mut asked = Instant::now();
        // An end is seen at once, and a silence that is one by asking.
        while !connection.is_closed() {
            sleep(SHORTEST_PAUSE).await;
            if asked.elapsed() >= self.timeout * 4 {
                let answer = timeout(self.timeout, connection.batch_execute("SELECT 1")).await;
                if !matches!(answer, Ok(Ok(()))) {
                    break;
                }
                asked = Instant::now();
            }
        }
        true
    }
}
