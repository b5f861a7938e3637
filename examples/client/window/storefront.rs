//! The storefront, seen from a client. Each request blocks for up to 5 s: make it in the background.

use bevy_player_data::PurchaseId;
use serde::de::DeserializeOwned;

use crate::{
    game::web,
    offers::{BUY, NotSold, OFFERS, Offer, Order, Sold},
};

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: u64 = 256 * 1024;

/// The storefront at one address.
#[derive(Clone)]
pub struct Storefront {
    agent: ureq::Agent,
    address: String,
}

/// Why the storefront didn't do what it was asked, for the customer.
pub type NoSale = String;

impl Storefront {
    /// The storefront at an address like `http://127.0.0.1:8080`.
    pub fn new(address: &str) -> Self {
        Self {
            agent: web::agent(),
            address: address.trim_end_matches('/').to_owned(),
        }
    }

    /// What is for sale.
    pub fn offers(&self) -> Result<Vec<Offer>, NoSale> {
        let request = self.agent.get(format!("{}{OFFERS}", self.address));
        understand(request.call())
    }

    /// Pays for something. The game hears of it from the payment provider, and the player from the game.
    pub fn buy(&self, order: &Order) -> Result<PurchaseId, NoSale> {
        let request = self.agent.post(format!("{}{BUY}", self.address));
        let Sold { purchase_id } = understand(request.send_json(order))?;
        PurchaseId::new(purchase_id).map_err(|_| nonsense())
    }
}

fn understand<T: DeserializeOwned>(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, NoSale> {
    let mut answer = answer.map_err(|_| "the storefront doesn't answer".to_owned())?;
    let is_well = answer.status().is_success();
    let body = answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec();
    let body = body.map_err(|_| "the storefront broke off".to_owned())?;
    if is_well {
        return serde_json::from_slice(&body).map_err(|_| nonsense());
    }
    Err(serde_json::from_slice(&body).map_or_else(|_| nonsense(), |NotSold { error }| error))
}

fn nonsense() -> NoSale {
    "the storefront's answer makes no sense".to_owned()
}
