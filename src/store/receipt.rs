//! Receipts: what somebody paid for, from the payment provider's callback to the commit that settles it.
//!
//! The module owns a receipt's states and the requests about it. Who may move it from state to state is judged
//! by [`rules`](super::rules): anybody may hand a receipt in or ask for its refund; its state changes only in a
//! [`Commit`](super::Commit) of the server that holds the player's lock.

use std::fmt;

use bytes::Bytes;

use crate::id::{PlayerId, ProductId, PurchaseId};

/// A purchase as it is handed in, see [`Store::enqueue`](super::Store::enqueue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceipt {
    /// Which purchase. Handing it in again changes nothing.
    pub purchase: PurchaseId,
    /// Who gets what was bought. They need not have played yet.
    pub player: PlayerId,
    /// What was bought.
    pub product: ProductId,
    /// Anything that the product's handler may want to know, up to [`PAYLOAD_LIMIT`](Self::PAYLOAD_LIMIT); kept with the
    /// receipt. A repetition with another payload is no conflict: the first one stays.
    pub payload: Option<Bytes>,
}

impl NewReceipt {
    /// The longest payload, in bytes.
    pub const PAYLOAD_LIMIT: usize = 16 * 1024;

    /// A receipt without a payload.
    #[must_use]
    pub const fn new(purchase: PurchaseId, player: PlayerId, product: ProductId) -> Self {
        Self {
            purchase,
            player,
            product,
            payload: None,
        }
    }
}

/// What is handed in about a purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It was paid.
    Paid,
    /// The money went back, or is about to. Of a purchase that is not known yet this is remembered as well: once the
    /// late callback says that it was paid, nothing is granted.
    Refund,
}

/// What has become of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiptState {
    /// Not settled: the player has not been here since, or the handler said "not now".
    Pending,
    /// What was bought is in the player's saved data.
    Granted,
    /// It will never be granted; [`StoredReceipt::note`] says why. For support to refund.
    Refused,
    /// The money went back. It was never granted, or it was taken back; [`StoredReceipt::note`] says what could not be.
    Refunded,
}

impl ReceiptState {
    /// The state's name, as stores spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Refunded => "refunded",
        }
    }

    /// The reverse of [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Granted, Self::Refused, Self::Refunded]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

impl fmt::Display for ReceiptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A receipt as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The receipt's place among all that were ever handed in, counted from 1. Of one player's receipts, the one handed
    /// in first has the lowest.
    pub number: u64,
    /// Which purchase.
    pub purchase: PurchaseId,
    /// Whose; `None` once the player was erased.
    pub player: Option<PlayerId>,
    /// Of what; `None` once the player was erased.
    pub product: Option<ProductId>,
    /// What has become of it.
    pub state: ReceiptState,
    /// Whether a refund was asked for.
    pub refund_requested: bool,
    /// The fence of the session that settled it last.
    pub settled_fence: Option<u64>,
    /// Why it was refused, or what could not be taken back. For support.
    pub note: Option<String>,
    /// What was handed in with it.
    pub payload: Option<Bytes>,
    /// When it was handed in: milliseconds since the Unix epoch. For people; nothing is decided by it.
    pub received_at: i64,
    /// When it was settled last, likewise.
    pub settled_at: Option<i64>,
}

impl StoredReceipt {
    /// Whether a session has something to do about it: grant it, or take it back.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(
            (self.state, self.refund_requested),
            (ReceiptState::Pending, _) | (ReceiptState::Granted, true)
        )
    }
}

/// The answer to a receipt that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The receipt as it is stored now.
    pub receipt: StoredReceipt,
    /// Whether this changed anything; `false` for a repetition.
    pub is_new: bool,
}

/// A receipt's new state, as part of a [`Write`](super::Write).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Which purchase.
    pub purchase: PurchaseId,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// How a receipt is settled.
///
/// | from | to | when |
/// |---|---|---|
/// | pending | granted, refused | |
/// | pending, granted | refunded | a refund was asked for |
///
/// Settling it once more in the same way, in the same session, changes nothing. Anything else is refused with
/// [`StoreError::NotSettled`](super::StoreError::NotSettled), and the whole commit with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The document of the same write contains the award.
    Granted,
    /// It will never be granted.
    Refused {
        /// Why. For support.
        reason: String,
    },
    /// The document of the same write no longer contains the award, or never did.
    Refunded {
        /// What could not be taken back. For support.
        shortfall: Option<String>,
    },
}

impl Outcome {
    /// The state that it leads to.
    #[must_use]
    pub const fn state(&self) -> ReceiptState {
        match self {
            Self::Granted => ReceiptState::Granted,
            Self::Refused { .. } => ReceiptState::Refused,
            Self::Refunded { .. } => ReceiptState::Refunded,
        }
    }

    /// What is noted for support.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        match self {
            Self::Granted => None,
            Self::Refused { reason } => Some(reason),
            Self::Refunded { shortfall } => shortfall.as_deref(),
        }
    }
}

/// What has arrived since somebody last looked, see [`Store::arrivals`](super::Store::arrivals).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Whose receipts: each player once.
    pub players: Vec<PlayerId>,
    /// Where to look from next time.
    pub newest: u64,
}
