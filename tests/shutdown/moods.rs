//! What a store can be like while everybody is saved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bevy_player_data::store::{BoxFuture, Commit, Committed, Store, StoreError};

use super::forward::forward;

/// What a store is like from a certain moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Each commit takes 50 to 200 ms.
    Slow,
    /// No commit is ever answered.
    Hanging,
    /// After so many commits the store is gone.
    DiesAfter(usize),
    /// Each commit takes so long that not everybody can be saved in time: some 400 ms to 1.6 s.
    TooSlow,
    /// Somebody else keeps the file locked, so that the store's own thread stands still.
    Locked,
}

impl Mood {
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some(("dies", after)) => after.parse().ok().map(Self::DiesAfter),
            _ => match text {
                "slow" => Some(Self::Slow),
                "hanging" => Some(Self::Hanging),
                "too-slow" => Some(Self::TooSlow),
                "locked" => Some(Self::Locked),
                _ => None,
            },
        }
    }
}

impl std::fmt::Display for Mood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slow => f.write_str("slow"),
            Self::Hanging => f.write_str("hanging"),
            Self::DiesAfter(commits) => write!(f, "dies {commits}"),
            Self::TooSlow => f.write_str("too-slow"),
            Self::Locked => f.write_str("locked"),
        }
    }
}

/// Everything but [`commit`](Store::commit) is the other store's.
#[derive(Clone)]
pub struct Moody {
    store: Arc<dyn Store>,
    mood: Mood,
    /// How many commits were asked for.
    commits: Arc<AtomicUsize>,
    /// Whether a commit is answered before it is made.
    answers_early: bool,
}

impl Moody {
    pub fn new(store: Arc<dyn Store>, mood: Mood, answers_early: bool) -> Self {
        Self {
            store,
            mood,
            commits: Arc::default(),
            answers_early,
        }
    }

    async fn in_its_mood(&self, commit: Commit) -> Result<Committed, StoreError> {
        let number = self.commits.fetch_add(1, SeqCst);
        // Spread evenly, and the same each time.
        let share = |from: u64, to: u64| Duration::from_millis(from + (number as u64 * 37) % (to - from));
        match self.mood {
            Mood::Slow => tokio::time::sleep(share(50, 200)).await,
            Mood::TooSlow => tokio::time::sleep(share(400, 1600)).await,
            Mood::Hanging => std::future::pending().await,
            Mood::DiesAfter(most) if number >= most => {
                return Err(StoreError::unavailable("the store is gone"));
            }
            Mood::DiesAfter(_) | Mood::Locked => {}
        }
        self.store.commit(commit).await
    }
}

impl Store for Moody {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            if !self.answers_early {
                return self.in_its_mood(commit).await;
            }
            let versions = vec![0; commit.writes.len()];
            let late = self.clone();
            tokio::spawn(async move { late.in_its_mood(commit).await });
            Ok(Committed { versions })
        })
    }

    forward! {
        store: lease, leases, retire, acquire, peek, list, erase, enqueue, receipt, open_receipts,
        receipts_of, arrivals, wish, withdraw, wishes
    }
}
