//! What can be wrong with a store, on purpose.

use std::sync::Arc;

use bevy_player_data::store::Store;

use super::split_store::{Split, SplitStore};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Each side of a trade is saved alone.
    SplitTrades,
    /// An award is saved first, and its receipt is settled afterwards. (Each write counts twice.)
    SplitPurchases,
    /// Whoever asks is told "done" at once, and the store does it in its own time.
    Hasty,
}

impl Sabotage {
    /// The store with that fault, as far as the fault is one of a store.
    pub(crate) fn of(self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match self {
            Self::SplitTrades => Arc::new(SplitStore::new(store, Split::Trades, || {})),
            Self::SplitPurchases => Arc::new(SplitStore::new(store, Split::Purchases, || {})),
            Self::Hasty => store,
        }
    }
}
