//! A store that answers what it is told to, so that its errors' texts are known.

#[path = "../support/forward.rs"]
mod forward;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bevy_player_data::{
    PlayerId,
    store::{Acquire, Acquired, BoxFuture, Commit, Committed, MemoryStore, Store, StoreError, StoredReceipt},
};
use forward::forward;

/// What is asked about one player.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Acquire,
    Commit,
    Receipts,
}

/// Passes on to its rows what it has nothing else to say to.
#[derive(Clone, Default)]
pub struct TalkingStore {
    pub rows: MemoryStore,
    answers: Arc<Mutex<Answers>>,
}

#[derive(Default)]
struct Answers {
    next: HashMap<(PlayerId, Op), (usize, StoreError)>,
    given: HashMap<Op, u64>,
}

impl TalkingStore {
    /// The answer to the next requests of this kind; none of them takes effect.
    pub fn answer(&self, player: PlayerId, op: Op, times: usize, error: StoreError) {
        self.answers(|answers| answers.next.insert((player, op), (times, error)));
    }

    /// Nothing but the truth from now on.
    pub fn clear(&self) {
        self.answers(|answers| answers.next.clear());
    }

    /// How often it answered so.
    pub fn given(&self, op: Op) -> u64 {
        self.answers(|answers| answers.given.get(&op).copied().unwrap_or_default())
    }

    fn answers<T>(&self, ask: impl FnOnce(&mut Answers) -> T) -> T {
        ask(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn check(&self, op: Op, mut players: impl Iterator<Item = PlayerId>) -> Result<(), StoreError> {
        self.answers(|answers| {
            let Some(player) = players.find(|&player| answers.next.contains_key(&(player, op))) else {
                return Ok(());
            };
            let (left, error) = answers.next.remove(&(player, op)).expect("it is there");
            if left > 1 {
                answers.next.insert((player, op), (left - 1, error.clone()));
            }
            *answers.given.entry(op).or_default() += 1;
            Err(error)
        })
    }
}

impl Store for TalkingStore {
    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        Box::pin(async move {
            self.check(Op::Acquire, [acquire.player].into_iter())?;
            self.rows.acquire(acquire).await
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            self.check(Op::Commit, commit.writes.iter().map(|write| write.player))?;
            self.rows.commit(commit).await
        })
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(async move {
            self.check(Op::Receipts, [player].into_iter())?;
            self.rows.open_receipts(player).await
        })
    }

    forward! {
        rows: lease, leases, retire, peek, list, erase, enqueue, receipt, receipts_of, arrivals, wish,
        withdraw, wishes
    }
}
