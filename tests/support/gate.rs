//! A store whose answers a test can hold back.

#[path = "forward.rs"]
mod forward;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bevy_player_data::{
    PlayerId,
    store::{Arrivals, BoxFuture, Commit, Committed, MemoryStore, Store, StoreError, StoredReceipt},
};
use forward::forward;

/// Passes everything on to its rows.
#[derive(Clone, Default)]
pub struct Gate {
    pub rows: MemoryStore,
    /// Commits wait here before they reach the store.
    pub commits: Bar,
    /// What was read of receipts waits here before it is told.
    pub reads: Bar,
    rejected: Arc<Mutex<Option<PlayerId>>>,
    read_panics: Arc<AtomicBool>,
    poll_panics: Arc<AtomicBool>,
}

/// Open or closed.
#[derive(Clone, Default)]
pub struct Bar {
    is_closed: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

impl Bar {
    pub fn close(&self) {
        self.is_closed.store(true, SeqCst);
    }

    pub fn open(&self) {
        self.is_closed.store(false, SeqCst);
    }

    /// Opens it after this long, from another thread.
    pub fn open_once_waiting_for(&self, time: Duration) {
        let bar = self.clone();
        std::thread::spawn(move || {
            std::thread::sleep(time);
            bar.open();
        });
    }

    /// How many have found it closed.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    async fn pass(&self) {
        if self.is_closed.load(SeqCst) {
            self.waiting.fetch_add(1, SeqCst);
        }
        while self.is_closed.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Gate {
    /// Rejects what is written of this player from now on.
    pub fn reject(&self, player: PlayerId) {
        *self.rejected.lock().expect("no panics") = Some(player);
    }

    /// Panics when receipts are read the next time.
    pub fn panics_next(&self) {
        self.read_panics.store(true, SeqCst);
    }

    pub fn has_panicked(&self) -> bool {
        !self.read_panics.load(SeqCst)
    }

    /// Panics when arrivals are looked for the next time.
    pub fn polls_panic_next(&self) {
        self.poll_panics.store(true, SeqCst);
    }
}

impl Store for Gate {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            let rejected = *self.rejected.lock().expect("no panics");
            self.commits.pass().await;
            if commit.writes.iter().any(|write| Some(write.player) == rejected) {
                return Err(StoreError::rejected("it is that player's"));
            }
            self.rows.commit(commit).await
        })
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(async move {
            assert!(!self.read_panics.swap(false, SeqCst), "a bug in somebody's store");
            let read = self.rows.open_receipts(player).await;
            self.reads.pass().await;
            read
        })
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        Box::pin(async move {
            assert!(!self.poll_panics.swap(false, SeqCst), "a bug in somebody's store");
            self.rows.arrivals(since).await
        })
    }

    forward! {
        rows: lease, leases, retire, acquire, peek, list, erase, enqueue, receipt, receipts_of, wish,
        withdraw, wishes
    }
}
