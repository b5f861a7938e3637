//! A store that has read what it was asked for, and says so late: by then it may not be so any more.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bevy_player_data::{
    PlayerId,
    store::{BoxFuture, Store, StoreError, StoredReceipt},
};
use tokio::time::sleep;

use super::split_store::forward::forward;

/// Everything but reading a player's open receipts is the other store's.
pub struct LateReplies<S> {
    store: S,
    delays: Delays,
}

/// How late the next replies are. A clone is another handle.
#[derive(Clone, Default)]
pub struct Delays(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    next: VecDeque<Duration>,
    met: u64,
}

impl Delays {
    pub fn push(&self, delay: Duration) {
        self.with(|queue| queue.next.push_back(delay));
    }

    pub fn clear(&self) {
        self.with(|queue| queue.next.clear());
    }

    /// How many replies were late since the last call.
    pub fn take_met(&self) -> u64 {
        self.with(|queue| std::mem::take(&mut queue.met))
    }

    fn next(&self) -> Option<Duration> {
        self.with(|queue| {
            let next = queue.next.pop_front();
            queue.met += u64::from(next.is_some());
            next
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S> LateReplies<S> {
    pub fn new(store: S) -> Self {
        Self {
            store,
            delays: Delays::default(),
        }
    }

    pub fn delays(&self) -> Delays {
        self.delays.clone()
    }
}

impl<S: Store> Store for LateReplies<S> {
    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(async move {
            let read = self.store.open_receipts(player).await;
            if let Some(delay) = self.delays.next() {
                sleep(delay).await;
            }
            read
        })
    }

    forward! {
        store: lease, leases, retire, acquire, commit, peek, list, erase, enqueue, receipt, receipts_of,
        arrivals, wish, withdraw, wishes
    }
}
