//! What the storefront and its customers say to each other over HTTP.
//!
//! A real game sends its players to the payment provider's own pages, or to a platform's overlay, which come back with
//! the purchase's id just the same.

use serde::{Deserialize, Serialize};

/// Where the offers are: `GET` answers with a list of [`Offer`]s.
pub const OFFERS: &str = "/products";
/// Where one buys: `POST` with an [`Order`] answers with a [`Sold`].
pub const BUY: &str = "/buy";

/// Something that is for sale.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub id: String,
    /// For people.
    pub title: String,
    /// For people as well.
    pub price: String,
}

/// Somebody wants to buy something.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Who gets it.
    pub name: String,
    /// The id of an [`Offer`].
    pub product: String,
}

/// It is paid for. Whether the buyer gets it is up to the game.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Sold {
    pub purchase_id: String,
}

/// The answer to everybody else.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct NotSold {
    pub error: String,
}
