//! A store behind a network that loses, delays and refuses as it is told.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bevy_player_data::{
    PlayerId,
    store::{
        Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Lease, Leases, LockId,
        MemoryStore, NewReceipt, Notice, PurchaseId, Record, ServerId, Store, StoreError, StoredReceipt,
        Wish, Wishes,
    },
};
use tokio::time::sleep;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Op {
    Lease,
    Acquire,
    Commit,
    Wish,
    Withdraw,
    Wishes,
    Other,
}

/// What happens to one call on its way to the store and back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Pass,
    /// It never arrives.
    Fail,
    /// It takes effect, and the reply is lost.
    LoseReply,
    /// It is given up, and takes effect this much later.
    Late(Duration),
    /// It takes effect after this long, and is answered then.
    Slow(Duration),
    Hang,
    Reject,
    /// Nothing happens, and the store says that it is damaged.
    Damage,
    Panic,
}

/// A connection to a store over a network that does as it is told.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) state: Arc<WireState>,
}

pub(crate) struct WireState {
    store: Mutex<Option<MemoryStore>>,
    /// Opened before the connection can be cut.
    rows: MemoryStore,
    down: Mutex<bool>,
    script: Mutex<HashMap<Op, VecDeque<Fault>>>,
    calls: Mutex<HashMap<Op, usize>>,
    landed_late: Mutex<usize>,
    refusals: Mutex<usize>,
    documents_sent: Mutex<usize>,
    predecessor: Mutex<Option<Wire>>,
}

impl Wire {
    pub(crate) fn new(store: MemoryStore) -> Self {
        Self {
            state: Arc::new(WireState {
                rows: store.connect(),
                store: Mutex::new(Some(store)),
                down: Mutex::default(),
                script: Mutex::default(),
                calls: Mutex::default(),
                landed_late: Mutex::default(),
                refusals: Mutex::default(),
                documents_sent: Mutex::default(),
                predecessor: Mutex::default(),
            }),
        }
    }

    /// Another connection to the same rows.
    pub(crate) fn rows(&self) -> MemoryStore {
        self.state.rows.connect()
    }

    pub(crate) fn script(&self, op: Op, faults: impl IntoIterator<Item = Fault>) {
        self.state
            .script
            .lock()
            .unwrap()
            .insert(op, faults.into_iter().collect());
    }

    pub(crate) fn down(&self, down: bool) {
        *self.state.down.lock().unwrap() = down;
    }

    /// The process is dead: nothing of it reaches the store, and what it held is proven dead.
    pub(crate) fn cut(&self) {
        self.state.store.lock().unwrap().take();
    }

    /// The store is like a database: that the one behind `other`, who has our name, is dead it believes once their
    /// lease was seen to lapse.
    pub(crate) fn succeeds(&self, other: &Wire) {
        *self.state.predecessor.lock().unwrap() = Some(other.clone());
    }

    pub(crate) fn calls(&self, op: Op) -> usize {
        self.state.calls.lock().unwrap().get(&op).copied().unwrap_or(0)
    }

    pub(crate) fn landed_late(&self) -> usize {
        *self.state.landed_late.lock().unwrap()
    }

    /// How often an acquire met somebody's lock.
    pub(crate) fn refusals(&self) -> usize {
        *self.state.refusals.lock().unwrap()
    }

    pub(crate) fn documents_sent(&self) -> usize {
        *self.state.documents_sent.lock().unwrap()
    }

    fn send<T: Send + 'static>(
        &self,
        op: Op,
        call: impl FnOnce(MemoryStore) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        *self.state.calls.lock().unwrap().entry(op).or_default() += 1;
        let fault = self
            .state
            .script
            .lock()
            .unwrap()
            .get_mut(&op)
            .and_then(VecDeque::pop_front);
        Box::pin(async move {
            let lost = || Err(StoreError::unavailable("a scripted fault"));
            match fault.unwrap_or(Fault::Pass) {
                Fault::Pass => self.arrive(call).await,
                Fault::Fail => lost(),
                Fault::LoseReply => {
                    self.arrive(call).await?;
                    lost()
                }
                Fault::Late(delay) => {
                    let wire = self.clone();
                    tokio::spawn(async move {
                        sleep(delay).await;
                        drop(wire.arrive(call).await);
                        *wire.state.landed_late.lock().unwrap() += 1;
                    });
                    lost()
                }
                Fault::Slow(delay) => {
                    sleep(delay).await;
                    self.arrive(call).await
                }
                Fault::Hang => pending().await,
                Fault::Reject => Err(StoreError::rejected("too large")),
                Fault::Damage => Err(StoreError::corrupt("a bad page")),
                Fault::Panic => panic!("a bug"),
            }
        })
    }

    async fn arrive<T>(
        &self,
        call: impl FnOnce(MemoryStore) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let store = self.state.store.lock().unwrap().clone();
        match store {
            Some(store) if !*self.state.down.lock().unwrap() => {
                let answer = call(store).await;
                if matches!(answer, Err(StoreError::SessionLocked { .. })) {
                    *self.state.refusals.lock().unwrap() += 1;
                }
                answer
            }
            _ => Err(StoreError::unavailable("a scripted outage")),
        }
    }
}

impl Store for Wire {
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        let predecessor = self.state.predecessor.lock().unwrap().clone();
        self.send(Op::Lease, move |store| {
            Box::pin(async move {
                if let (Some(predecessor), false) = (predecessor, lease.lapsed.is_empty()) {
                    predecessor.cut();
                }
                store.lease(lease).await
            })
        })
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.leases().await })
        })
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.retire(server).await })
        })
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        self.send(Op::Acquire, move |store| {
            Box::pin(async move { store.acquire(acquire).await })
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        let documents = commit
            .writes
            .iter()
            .filter(|write| write.document.is_some())
            .count();
        *self.state.documents_sent.lock().unwrap() += documents;
        self.send(Op::Commit, move |store| {
            Box::pin(async move { store.commit(commit).await })
        })
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.peek(player).await })
        })
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.list(after, limit).await })
        })
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.erase(player).await })
        })
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.enqueue(receipt, notice).await })
        })
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.receipt(purchase).await })
        })
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.open_receipts(player).await })
        })
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.receipts_of(player, before, limit).await })
        })
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        self.send(Op::Other, move |store| {
            Box::pin(async move { store.arrivals(since).await })
        })
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.send(Op::Wish, move |store| {
            Box::pin(async move { store.wish(wish).await })
        })
    }

    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.send(Op::Withdraw, move |store| {
            Box::pin(async move { store.withdraw(player, lock).await })
        })
    }

    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>> {
        self.send(Op::Wishes, move |store| {
            Box::pin(async move { store.wishes(server).await })
        })
    }
}
