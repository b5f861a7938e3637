//! A payment provider, which calls back until it is heard, and sometimes once more.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bevy_player_data::PlayerId;
use serde_json::json;
use standardwebhooks::Webhook;

use super::process::ReceiptRow;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr";

/// One purchase, and how far its callbacks have come.
#[derive(Clone, Debug)]
pub struct Purchase {
    pub id: String,
    pub player: PlayerId,
    pub product: &'static str,
    /// Whether the server has said that it knows of the payment.
    pub is_paid: bool,
    /// Whether the money is to go back.
    pub wants_refund: bool,
    /// Whether the server has said that it knows of that.
    pub is_refunded: bool,
    /// Whether the money never goes back.
    is_final: bool,
}

pub struct Provider {
    agent: ureq::Agent,
    webhook: Webhook,
    run: String,
    pub purchases: Vec<Purchase>,
    pub delivered: u64,
    pub repeated: u64,
    random: fastrand::Rng,
}

impl Provider {
    pub fn new(lane: u32, seed: u64) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(2)))
            .proxy(None);
        Self {
            agent: config.build().into(),
            webhook: Webhook::new(SECRET).expect("a secret"),
            run: format!("lane-{lane}"),
            purchases: Vec::new(),
            delivered: 0,
            repeated: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Buys something, or repeats something that was said before.
    pub fn call(&mut self, url: &str) {
        let choice = self.random.u8(0..10);
        if choice < 5 || self.purchases.is_empty() {
            let bot = self.random.u8(1..=6);
            self.purchases.push(Purchase {
                id: format!("{}-{}", self.run, self.purchases.len()),
                player: PlayerId::from_name(&format!("bot-{bot}")),
                product: ["coins_100", "coins_1000"][self.random.usize(0..2)],
                is_paid: false,
                wants_refund: false,
                is_refunded: false,
                is_final: false,
            });
            self.pay(url, self.purchases.len() - 1);
            return;
        }
        let n = self.random.usize(0..self.purchases.len());
        if choice == 9 && !self.purchases[n].is_final {
            self.purchases[n].wants_refund = true;
            self.refund(url, n);
        } else {
            self.pay(url, n);
        }
    }

    /// Somebody buys something, for good. Returns the purchase's id; whether the server has heard of it, or ever will, is
    /// another matter.
    pub fn sell(&mut self, url: &str, player: PlayerId) -> String {
        let id = format!("{}-{}", self.run, self.purchases.len());
        self.purchases.push(Purchase {
            id: id.clone(),
            player,
            product: "coins_100",
            is_paid: false,
            wants_refund: false,
            is_refunded: false,
            is_final: true,
        });
        self.pay(url, self.purchases.len() - 1);
        id
    }

    /// Says once more that this was paid.
    pub fn repeat(&mut self, url: &str, id: &str) {
        if let Some(n) = self.purchases.iter().position(|purchase| purchase.id == id) {
            self.pay(url, n);
        }
    }

    /// What the server has acknowledged and the file doesn't have.
    pub fn missing(&self, stored: &[ReceiptRow]) -> Vec<String> {
        let rows: BTreeMap<&str, &ReceiptRow> =
            stored.iter().map(|row| (row.purchase.as_str(), row)).collect();
        let acknowledged = self
            .purchases
            .iter()
            .filter(|purchase| purchase.is_paid || purchase.is_refunded);
        let lost = acknowledged.filter(|purchase| match rows.get(purchase.id.as_str()) {
            None => true,
            Some(row) => purchase.is_refunded && !row.refund_requested && row.state != "refunded",
        });
        lost.map(|purchase| format!("the webhook has acknowledged {purchase:?}, and it is not in the file"))
            .collect()
    }

    /// Says everything that was not heard yet. `true` once there is nothing left.
    pub fn catch_up(&mut self, url: &str) -> bool {
        for n in 0..self.purchases.len() {
            if !self.purchases[n].is_paid {
                self.pay(url, n);
            }
            if self.purchases[n].wants_refund && !self.purchases[n].is_refunded {
                self.refund(url, n);
            }
        }
        self.purchases
            .iter()
            .all(|purchase| purchase.is_paid && purchase.is_refunded == purchase.wants_refund)
    }

    fn pay(&mut self, url: &str, n: usize) {
        self.repeated += u64::from(self.purchases[n].is_paid);
        self.purchases[n].is_paid |= self.deliver(url, "purchase.paid", n);
    }

    fn refund(&mut self, url: &str, n: usize) {
        self.purchases[n].is_refunded |= self.deliver(url, "purchase.refunded", n);
    }

    /// Whether the server has taken it.
    fn deliver(&mut self, url: &str, event: &str, n: usize) -> bool {
        let purchase = &self.purchases[n];
        let body = json!({
            "type": event,
            "purchase_id": purchase.id,
            "player_id": purchase.player,
            "product_id": purchase.product,
        })
        .to_string();
        self.delivered += 1;
        let id = format!("message-{}", self.delivered);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = now.as_secs().cast_signed();
        let signature = self
            .webhook
            .sign(&id, now, body.as_bytes())
            .expect("a text can be signed");
        let answer = self
            .agent
            .post(format!("{url}/webhooks/purchases"))
            .header("webhook-id", &id)
            .header("webhook-timestamp", &now.to_string())
            .header("webhook-signature", &signature)
            .send(body);
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(200) => true,
            // Killed, or about to be.
            Err(_) | Ok(503) => false,
            Ok(status) => panic!("a sound callback is answered with {status}"),
        }
    }
}
