//! `LISTEN` and `NOTIFY`: what makes a look at the arrivals worth its while before it is due. Nothing relies on it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::time::{sleep, timeout};

use super::{
    connection::{Connection, Connections},
    error::Failure,
};

/// The channel on which the database says that something has arrived.
const CHANNEL: &str = "bevy_player_data";

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
        let manager = self.pool.manager();
        let listen = format!("LISTEN {CHANNEL}");
        loop {
            if let Ok(Ok(connection)) = timeout(self.timeout, manager.open()).await {
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
}
