//! The body of `POST /webhooks/purchases`.

use std::fmt;

use bevy_player_data::{PlayerId, ProductId, PurchaseId};
use serde::{Deserialize, Serialize};

/// Where a server takes callbacks.
pub const PATH: &str = "/webhooks/purchases";

/// What a payment provider has to say about a purchase.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Callback {
    #[serde(rename = "type")]
    pub event: PaymentEvent,
    pub purchase_id: PurchaseId,
    pub player_id: PlayerId,
    pub product_id: ProductId,
}

/// What happened to the money.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentEvent {
    #[serde(rename = "purchase.paid")]
    Paid,
    #[serde(rename = "purchase.refunded")]
    Refunded,
}

impl fmt::Display for PaymentEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paid => "paid",
            Self::Refunded => "refunded",
        })
    }
}

/// The answer to a callback that was taken.
#[derive(Serialize, Deserialize, Debug)]
pub struct Taken {
    /// Whether this callback is the first of its kind.
    pub is_new: bool,
    /// What has become of the purchase by now: `pending`, `granted`, `refused` or `refunded`.
    pub state: String,
}

/// The answer to every other callback.
#[derive(Serialize, Deserialize, Debug)]
pub struct NotTaken {
    pub error: String,
}
