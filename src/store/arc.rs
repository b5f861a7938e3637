//! A shared store is a store: whoever takes `impl Store` also takes an `Arc<dyn Store>`.

use std::sync::Arc;

use super::{
    Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Import, Lease, Leases, LockId,
    NewReceipt, Notice, PurchaseId, Record, ServerId, Store, StoreError, StoredReceipt, Wish, Wishes,
};
use crate::id::PlayerId;

impl<S: Store + ?Sized> Store for Arc<S> {
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        (**self).lease(lease)
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        (**self).leases()
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        (**self).retire(server)
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        (**self).acquire(acquire)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        (**self).commit(commit)
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        (**self).peek(player)
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        (**self).list(after, limit)
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        (**self).erase(player)
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        (**self).enqueue(receipt, notice)
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        (**self).receipt(purchase)
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        (**self).open_receipts(player)
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        (**self).receipts_of(player, before, limit)
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        (**self).arrivals(since)
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        (**self).wish(wish)
    }

    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>> {
        (**self).withdraw(player, lock)
    }

    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>> {
        (**self).wishes(server)
    }

    fn hints(&self) -> u64 {
        (**self).hints()
    }

    fn all_receipts(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        (**self).all_receipts(after, limit)
    }

    fn import(&self, rows: Import) -> BoxFuture<'_, Result<(), StoreError>> {
        (**self).import(rows)
    }
}
