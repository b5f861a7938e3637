//! A broken store, on purpose: it says that a save is durable, and makes it so a moment later.
//!
//! It is what a crash test is tried against: one that finds nothing wrong with this store would find nothing wrong with a
//! crate that answers too early.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use bevy_player_data::store::{Acquire, Acquired, BoxFuture, Commit, Committed, Store, StoreError, Then};
use tokio::{runtime, sync::oneshot};

use super::split_store::forward::forward;

/// How long a commit is on its way after it was acknowledged.
const DELAY: Duration = Duration::from_millis(300);

/// Everything but [`commit`](Store::commit) is the other store's.
pub struct EarlyStore {
    store: Arc<dyn Store>,
    late: Mutex<mpsc::Sender<Late>>,
}

enum Late {
    Commit(Commit, Instant),
    /// Answered once everything before it has landed.
    Flush(oneshot::Sender<()>),
}

impl EarlyStore {
    pub fn new(store: Arc<dyn Store>) -> Self {
        let (late, queue) = mpsc::channel();
        let inner = Arc::clone(&store);
        thread::spawn(move || land(&*inner, &queue));
        Self {
            store,
            late: Mutex::new(late),
        }
    }

    fn send(&self, late: Late) {
        let sender = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread lives as long as this store does.
        let _ = sender.send(late);
    }

    async fn flush(&self) {
        let (landed, answer) = oneshot::channel();
        self.send(Late::Flush(landed));
        let _ = answer.await;
    }
}

fn land(store: &dyn Store, queue: &mpsc::Receiver<Late>) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for one thread");
    while let Ok(late) = queue.recv() {
        match late {
            Late::Commit(commit, acknowledged) => {
                thread::sleep(DELAY.saturating_sub(acknowledged.elapsed()));
                // Too late to tell anybody how it went.
                let _ = runtime.block_on(store.commit(commit));
            }
            Late::Flush(landed) => drop(landed.send(())),
        }
    }
}

impl Store for EarlyStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            if commit.writes.iter().any(|write| write.then == Then::Release) {
                self.flush().await;
                return self.store.commit(commit).await;
            }
            let mut versions = Vec::new();
            for write in &commit.writes {
                let row = self.store.peek(write.player).await?;
                versions.push(row.map_or(0, |row| row.version) + 1);
            }
            self.send(Late::Commit(commit, Instant::now()));
            Ok(Committed { versions })
        })
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        Box::pin(async move {
            self.flush().await;
            self.store.acquire(acquire).await
        })
    }

    forward! {
        store: lease, leases, retire, peek, list, erase, enqueue, receipt, open_receipts, receipts_of,
        arrivals, wish, withdraw, wishes
    }
}
