//! Where receipts come in: from a payment provider's callback to the store, in any process.
//!
//! The module owns [`ReceiptInbox`]. It promises that a receipt is durable before handing it in is answered, and that
//! handing it in again changes nothing. When it is granted is left to the server that has, or next gets, the player's
//! session. It knows no Bevy, so a web backend can use it without a game.

use std::{fmt, sync::Arc};

use crate::{
    id::{PlayerId, PurchaseId},
    steps,
    store::{Enqueued, NewReceipt, Notice, Store, StoreError, StoredReceipt},
};

/// Hands receipts in, and looks them up. A cheap handle.
///
/// Inside a game server, get it from [`PlayerDataServer::inbox`](crate::server::PlayerDataServer::inbox): what is handed
/// in there is delivered at once. What other processes hand in is found by the servers' slow poll, see
/// [`PurchaseSettings::poll`](crate::server::PurchaseSettings::poll).
///
/// ```
/// use bevy_player_data::{PlayerId, inbox::ReceiptInbox, store::{MemoryStore, NewReceipt, ReceiptState}};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let inbox = ReceiptInbox::new(MemoryStore::default()); // in a web backend: `SqliteStore::open("players.db")?`
/// let ada = PlayerId::from_name("ada");
/// let receipt = NewReceipt::new("pi_3PqX".parse()?, ada, "coins_100".parse()?);
///
/// // The provider repeats its callback until it is answered: only the first one is new.
/// assert!(inbox.paid(receipt.clone()).await?.is_new);
/// assert!(!inbox.paid(receipt).await?.is_new);
///
/// // Support looks at what ada has bought.
/// let history = inbox.receipts_of(ada, None, 20).await?;
/// assert_eq!(history[0].state, ReceiptState::Pending);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReceiptInbox {
    store: Arc<dyn Store>,
    arrived: Option<Arc<dyn Fn(PlayerId) + Send + Sync>>,
}

impl ReceiptInbox {
    /// An inbox on a store that any number of game servers may be using.
    pub fn new(store: impl Store) -> Self {
        Self {
            store: Arc::new(store),
            arrived: None,
        }
    }

    /// An inbox within a game server, which hears of each arrival.
    pub(crate) fn within(store: Arc<dyn Store>, arrived: impl Fn(PlayerId) + Send + Sync + 'static) -> Self {
        Self {
            store,
            arrived: Some(Arc::new(arrived)),
        }
    }

    /// Hands in that a purchase was paid. Once this returns `Ok`, it is on disk, and the provider may be told so.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the purchase is known with another player or product;
    /// [`StoreError::Unavailable`] when the store could not be asked (the receipt may be stored all the same: hand it in
    /// again); [`StoreError::Rejected`] for a payload that is too large.
    pub async fn paid(&self, receipt: NewReceipt) -> Result<Enqueued, StoreError> {
        self.enqueue(receipt, Notice::Paid).await
    }

    /// Hands in that a purchase is refunded. One that is not granted yet never will be; one that is, is taken back by
    /// the product's refund handler, the next time that the player is in a session.
    ///
    /// # Errors
    /// Those of [`paid`](Self::paid).
    pub async fn refunded(&self, receipt: NewReceipt) -> Result<Enqueued, StoreError> {
        self.enqueue(receipt, Notice::Refund).await
    }

    /// [`paid`](Self::paid) or [`refunded`](Self::refunded).
    ///
    /// # Errors
    /// Those of [`paid`](Self::paid).
    pub async fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> Result<Enqueued, StoreError> {
        let player = receipt.player;
        steps::reached("receipt.arriving");
        let enqueued = self.store.enqueue(receipt, notice).await?;
        steps::reached("receipt.durable");
        if let Some(arrived) = self.arrived.as_ref().filter(|_| enqueued.receipt.is_open()) {
            arrived(player);
        }
        Ok(enqueued)
    }

    /// Looks one receipt up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn receipt(&self, purchase: PurchaseId) -> Result<Option<StoredReceipt>, StoreError> {
        self.store.receipt(purchase).await
    }

    /// A player's purchase history: up to `limit` receipts, the newest first. For the next page, pass the last one's
    /// [`number`](StoredReceipt::number) as `before`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredReceipt>, StoreError> {
        self.store.receipts_of(player, before, limit).await
    }
}

impl fmt::Debug for ReceiptInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptInbox").finish_non_exhaustive()
    }
}
