//! A broken store, on purpose: whoever gets a lock from it leaves something behind.

use std::{
    fs::File,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use bevy_player_data::store::{Acquire, Acquired, BoxFuture, Store, StoreError};

use super::split_store::forward::forward;

/// How much memory is lost with each lock, in bytes.
const LOST: usize = 1024 * 1024;

/// Everything but [`acquire`](Store::acquire) is the other store's.
pub struct LeakyStore {
    store: Arc<dyn Store>,
    locks: AtomicU32,
}

impl LeakyStore {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            locks: AtomicU32::new(0),
        }
    }

    fn leak(&self) {
        mem::forget(vec![1_u8; LOST]);
        if let Ok(file) = std::env::current_exe().and_then(File::open) {
            mem::forget(file);
        }
        if self.locks.fetch_add(1, Relaxed).is_multiple_of(20) {
            thread::spawn(|| {
                loop {
                    thread::park();
                }
            });
        }
    }
}

impl Store for LeakyStore {
    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        self.leak();
        self.store.acquire(acquire)
    }

    forward! {
        store: lease, leases, retire, commit, peek, list, erase, enqueue, receipt, open_receipts,
        receipts_of, arrivals, wish, withdraw, wishes
    }
}
