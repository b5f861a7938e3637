//! A store that has read what it was asked for, and says so late: by then it may not be so any more.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bevy_player_data::{
    PlayerId,
    store::{
        Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Lease, Leases, NewReceipt,
        Notice, PurchaseId, Record, ServerId, Store, StoreError, StoredReceipt,
    },
};
use tokio::time::sleep;

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

    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        self.store.lease(lease)
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        self.store.leases()
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.retire(server)
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        self.store.acquire(acquire)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        self.store.commit(commit)
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.store.peek(player)
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        self.store.list(after, limit)
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.store.erase(player)
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        self.store.enqueue(receipt, notice)
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        self.store.receipt(purchase)
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        self.store.receipts_of(player, before, limit)
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        self.store.arrivals(since)
    }
}
