//! A broken store, on purpose: it saves in two transactions what belongs in one.
//!
//! It is what a crash test is tried against: one that finds nothing wrong with this store would find nothing wrong with a
//! crate that has the same fault.

#[path = "forward.rs"]
pub mod forward;

use std::sync::Arc;

use bevy_player_data::store::{BoxFuture, Commit, Committed, Settlement, Store, StoreError, Then, Write};
use forward::forward;

/// What is torn apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Each side of a trade is saved alone.
    Trades,
    /// An award is saved first, and its receipt is settled afterwards.
    Purchases,
}

/// Everything but [`commit`](Store::commit) is the other store's.
pub struct SplitStore {
    store: Arc<dyn Store>,
    split: Split,
    between: fn(),
}

impl SplitStore {
    /// Calls `between` after the first transaction of two, on the thread that then begins the second.
    pub fn new(store: Arc<dyn Store>, split: Split, between: fn()) -> Self {
        Self {
            store,
            split,
            between,
        }
    }

    async fn commit_each(&self, commit: Commit) -> Result<Committed, StoreError> {
        let mut versions = Vec::new();
        for (n, write) in commit.writes.into_iter().enumerate() {
            if n > 0 {
                (self.between)();
            }
            versions.extend(self.store.commit(write.into()).await?.versions);
        }
        Ok(Committed { versions })
    }

    /// Each write gets two sequence numbers, so that the store takes either half for a write of its own.
    async fn commit_awards_first(&self, commit: Commit) -> Result<Committed, StoreError> {
        let settles = commit.writes.iter().any(|write| !write.settle.is_empty());
        let second: Vec<Write> = commit.writes.into_iter().map(doubled).collect();
        if !settles {
            return self.store.commit(Commit { writes: second }).await;
        }
        let first = second.iter().map(award_of).collect();
        match self.store.commit(Commit { writes: first }).await {
            // The second half has landed before, and its answer was lost.
            Ok(_) | Err(StoreError::Superseded { .. }) => {}
            Err(refused) => return Err(refused),
        }
        (self.between)();
        let second = second.into_iter().map(settlement_of).collect();
        self.store.commit(Commit { writes: second }).await
    }
}

fn doubled(write: Write) -> Write {
    Write {
        seq: write.seq.saturating_mul(2),
        ..write
    }
}

fn award_of(write: &Write) -> Write {
    Write {
        seq: write.seq.saturating_sub(1),
        settle: Vec::<Settlement>::new(),
        then: Then::Keep,
        ..write.clone()
    }
}

fn settlement_of(write: Write) -> Write {
    Write {
        document: None,
        ..write
    }
}

impl Store for SplitStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        match self.split {
            Split::Trades => Box::pin(self.commit_each(commit)),
            Split::Purchases => Box::pin(self.commit_awards_first(commit)),
        }
    }

    forward! {
        store: lease, leases, retire, acquire, peek, list, erase, enqueue, receipt, open_receipts,
        receipts_of, arrivals, wish, withdraw, wishes
    }
}
