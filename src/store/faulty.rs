//! A store that fails on purpose, so that a game can see what its players would see.
//!
//! The module owns [`FaultyStore`], which wraps any other store, and (in `faults`) the handle that says when and how it
//! fails. It promises that without a fault it is the wrapped store, that a fault happens exactly as asked for, and that
//! the same seed gives the same faults. Time is tokio's, so a paused clock works.

use std::{fmt, sync::Arc};

use tokio::time::sleep;

use super::{
    Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Import, Lease, Leases, LockId,
    NewReceipt, Notice, PurchaseId, Record, ServerId, Store, StoreError, StoredReceipt, Wish, Wishes,
};
use crate::id::PlayerId;

mod faults;

use faults::Plan;
pub use faults::{Fault, FaultRates, Faults, Op};

/// Wraps a [`Store`] and fails as its [`Faults`] say.
///
/// Give the app this store in a test, keep the [`faults`](Self::faults), and take the database away in the middle of the
/// game:
///
/// ```
/// use bevy_player_data::{PlayerId, store::{Fault, FaultyStore, MemoryStore, Op, Store}};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let rows = MemoryStore::default();
/// let store = FaultyStore::new(rows.connect(), 42);    // 42: the seed of what is random
/// let faults = store.faults();
///
/// // … `PlayerDataPlugin::server(store)`, let a player join, then:
/// faults.down();
/// assert!(store.peek(PlayerId::from_name("ada")).await.unwrap_err().is_worth_a_retry());
/// faults.up();
/// assert!(store.peek(PlayerId::from_name("ada")).await.is_ok());
///
/// // The next save is stored, but its acknowledgement gets lost on the way:
/// faults.fail_next(Op::Commit, 1, Fault::After);
/// # assert_eq!(faults.calls(Op::Peek), 2);
/// // … play on, then make sure that the test has tested something:
/// assert_eq!(faults.injected(Op::Peek), 1);
/// # }
/// ```
///
/// A clone is another handle of the same store with the same faults. Late effects and hanging requests run as tasks of
/// the tokio runtime on which the request was made; each keeps a handle of the wrapped store until it is through.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Faults,
}

impl FaultyStore {
    /// Wraps `inner`; whatever is random follows from `seed`. There are no faults until [`faults`](Self::faults) are
    /// asked for some.
    pub fn new(inner: impl Store, seed: u64) -> Self {
        Self {
            inner: Arc::new(inner),
            faults: Faults::new(seed),
        }
    }

    /// The handle that says when and how this store fails.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Makes a request of the wrapped store, or of nobody, as planned.
    async fn call<T: Send + 'static>(
        &self,
        op: Op,
        request: impl FnOnce(Arc<dyn Store>) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Plan { latency, fault } = self.faults.plan(op);
        if !latency.is_zero() {
            sleep(latency).await;
        }
        let inner = Arc::clone(&self.inner);
        match fault {
            None => request(inner).await,
            Some(Fault::Before) => Err(StoreError::unavailable(
                "an injected fault kept the request from the store",
            )),
            Some(Fault::After) => {
                // The outcome, good or bad, is what gets lost.
                let _ = request(inner).await;
                Err(reply_lost())
            }
            Some(Fault::Late(delay)) => {
                let under_way = self.faults.late_begins();
                tokio::spawn(async move {
                    sleep(delay).await;
                    let _ = request(inner).await;
                    drop(under_way);
                });
                Err(reply_lost())
            }
            Some(Fault::Hang) => {
                // A task, because a request on the wire is beyond recall: it goes on when its caller has given up.
                let resumed = self.faults.hang_begins();
                let task = tokio::spawn(async move {
                    resumed.wait().await;
                    request(inner).await
                });
                task.await.unwrap_or_else(|_| Err(reply_lost()))
            }
        }
    }
}

fn reply_lost() -> StoreError {
    StoreError::unavailable("an injected fault lost the store's reply")
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Store for FaultyStore {
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(self.call(Op::Lease, |store| {
            Box::pin(async move { store.lease(lease).await })
        }))
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(self.call(Op::Leases, |store| Box::pin(async move { store.leases().await })))
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call(Op::Retire, move |store| {
            Box::pin(async move { store.retire(server).await })
        }))
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        Box::pin(self.call(Op::Acquire, |store| {
            Box::pin(async move { store.acquire(acquire).await })
        }))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(self.call(Op::Commit, |store| {
            Box::pin(async move { store.commit(commit).await })
        }))
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.call(Op::Peek, move |store| {
            Box::pin(async move { store.peek(player).await })
        }))
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        Box::pin(self.call(Op::List, move |store| {
            Box::pin(async move { store.list(after, limit).await })
        }))
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.call(Op::Erase, move |store| {
            Box::pin(async move { store.erase(player).await })
        }))
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        Box::pin(self.call(Op::Enqueue, move |store| {
            Box::pin(async move { store.enqueue(receipt, notice).await })
        }))
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        Box::pin(self.call(Op::Receipts, move |store| {
            Box::pin(async move { store.receipt(purchase).await })
        }))
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(self.call(Op::Receipts, move |store| {
            Box::pin(async move { store.open_receipts(player).await })
        }))
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(self.call(Op::Receipts, move |store| {
            Box::pin(async move { store.receipts_of(player, before, limit).await })
        }))
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        Box::pin(self.call(Op::Arrivals, move |store| {
            Box::pin(async move { store.arrivals(since).await })
        }))
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.call(Op::Wish, move |store| {
            Box::pin(async move { store.wish(wish).await })
        }))
    }

    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call(Op::Withdraw, move |store| {
            Box::pin(async move { store.withdraw(player, lock).await })
        }))
    }

    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>> {
        Box::pin(self.call(Op::Wishes, move |store| {
            Box::pin(async move { store.wishes(server).await })
        }))
    }

    fn hints(&self) -> u64 {
        self.inner.hints()
    }

    fn all_receipts(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(self.call(Op::Receipts, move |store| {
            Box::pin(async move { store.all_receipts(after, limit).await })
        }))
    }

    fn import(&self, rows: Import) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call(Op::Enqueue, move |store| {
            Box::pin(async move { store.import(rows).await })
        }))
    }
}
