//! Rows of any store that have answered as soon as they are asked, as memory does: whoever asks waits with the whole
//! thread.
//!
//! That is what a simulation needs whose servers share a thread and whose clocks stand still: every request has taken
//! effect before anything else happens, so that a history is one sequence on every store, and its seed still decides
//! everything.

use std::time::Duration;

use bevy_player_data::{
    PlayerId, PurchaseId,
    store::{
        Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Lease, Leases, LockId,
        NewReceipt, Notice, Record, ServerId, Store, StoreError, StoredReceipt, Wish, Wishes,
    },
};

use crate::{
    rows::{Rows, kind},
    stored::look,
};

/// How long a database may take, so that no answer of a busy machine is one of an outage.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A handle of one connection; a clone is another handle of the same. [`connect`](Self::connect) opens another
/// connection, as another server process would.
#[derive(Clone)]
pub struct AtOnce(Rows);

impl AtOnce {
    /// New rows of this kind.
    pub fn of(kind: &str) -> Self {
        Self(Rows::of(kind, TIMEOUT))
    }

    pub fn connect(&self) -> Self {
        Self(self.0.connect())
    }
}

impl Default for AtOnce {
    fn default() -> Self {
        Self::of(&kind())
    }
}

macro_rules! ask {
    ($($method:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $method(&self, $($name: $kind),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            Box::pin(async move { look(self.0.$method($($name),*)) })
        })*
    };
}

impl Store for AtOnce {
    ask! {
        lease(lease: Lease) -> Leases;
        leases() -> Leases;
        retire(server: ServerId) -> ();
        acquire(acquire: Acquire) -> Acquired;
        commit(commit: Commit) -> Committed;
        peek(player: PlayerId) -> Option<Record>;
        list(after: Option<PlayerId>, limit: usize) -> Vec<PlayerId>;
        erase(player: PlayerId) -> bool;
        enqueue(receipt: NewReceipt, notice: Notice) -> Enqueued;
        receipt(purchase: PurchaseId) -> Option<StoredReceipt>;
        open_receipts(player: PlayerId) -> Vec<StoredReceipt>;
        receipts_of(player: PlayerId, before: Option<u64>, limit: usize) -> Vec<StoredReceipt>;
        arrivals(since: Option<u64>) -> Arrivals;
        wish(wish: Wish) -> bool;
        withdraw(player: PlayerId, lock: LockId) -> ();
        wishes(server: ServerId) -> Wishes;
    }
}
