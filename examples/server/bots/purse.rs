//! What a bot has paid for, and what it has to have for that.
//!
//! A bot pays, pays once more by mistake, gets its money back, and keeps the accounts. Once all of its callbacks are
//! taken and the server has caught up, the two sides have to agree.

use std::collections::{BTreeMap, VecDeque};

use bevy_player_data::{PlayerId, ProductId, PurchaseId};

use super::till::{Order, Till};
use crate::{
    game::data::Bought,
    payments::callback::{Callback, PaymentEvent},
};

/// How many of its callbacks a bot remembers, to have them delivered once more.
const REMEMBERED: usize = 20;

/// One bot's accounts.
pub struct Purse {
    till: Till,
    player: PlayerId,
    products: Vec<ProductId>,
    /// Goes before the number of each purchase, so that no other run of the server has the same.
    run: String,
    /// What the server has to have granted; `None` while it isn't known what is left of earlier runs.
    owed: Option<BTreeMap<ProductId, u32>>,
    /// The first purchase of this visit while nothing is known. Receipts are granted in the order in which they came in,
    /// so once this one is, nothing is left over from an earlier run.
    first: Option<PurchaseId>,
    orders: Vec<(Order, Effect)>,
    /// Paid, and not refunded.
    kept: Vec<Callback>,
    /// What the server has taken lately.
    said: VecDeque<Callback>,
    /// Whether something is being given back.
    is_refunding: bool,
    /// How many purchases were made.
    pub purchases: u64,
    /// How many of them were refunded.
    pub refunds: u64,
}

/// What a callback changes about the accounts once it is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It is the [first](Purse::first) purchase, and counted with what was there before.
    First,
    Purchase,
    Refund,
    /// It was taken before.
    Nothing,
}

impl Purse {
    /// The purse of a player who pays at this till.
    pub fn new(name: &str, player: PlayerId, products: Vec<ProductId>, till: Till) -> Self {
        Self {
            till,
            player,
            products,
            run: format!("{name}-{:08x}", fastrand::u32(..)),
            owed: None,
            first: None,
            orders: Vec::new(),
            kept: Vec::new(),
            said: VecDeque::new(),
            purchases: 0,
            refunds: 0,
            is_refunding: false,
        }
    }

    /// The bot is let in.
    pub fn arrive(&mut self) {
        if self.owed.is_none() {
            self.first = self.buy(Effect::First);
        }
    }

    /// The server has granted a purchase, and this is what the bot has now.
    pub fn note_granted(&mut self, purchase: &PurchaseId, seen: &Bought) {
        if self.owed.is_none() && self.first.as_ref() == Some(purchase) {
            self.owed = Some(seen.0.clone());
        }
    }

    /// Buys something, or has something refunded, or has the provider repeat itself.
    ///
    /// What is bought while something else of the same kind is given back would look as if neither had happened. So
    /// there is a refund only when nothing is on its way, and nothing else before it is through.
    pub fn shop(&mut self, seen: &Bought) {
        if self.owed.is_none() {
            return;
        }
        let is_settled = self.agrees_with(seen);
        self.is_refunding &= !is_settled;
        match fastrand::u8(0..10) {
            0..6 if !self.is_refunding => drop(self.buy(Effect::Purchase)),
            6..8 if is_settled => self.refund(),
            0..8 => {}
            _ => {
                if let Some(callback) = fastrand::choice(&self.said).cloned() {
                    self.deliver(callback, Effect::Nothing);
                }
            }
        }
    }

    fn buy(&mut self, effect: Effect) -> Option<PurchaseId> {
        let product_id = fastrand::choice(&self.products)?.clone();
        self.purchases += 1;
        let purchase_id = PurchaseId::new(format!("{}-{}", self.run, self.purchases)).ok()?;
        let callback = Callback {
            event: PaymentEvent::Paid,
            purchase_id: purchase_id.clone(),
            player_id: self.player,
            product_id,
        };
        self.deliver(callback, effect);
        Some(purchase_id)
    }

    fn refund(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let paid = self.kept.swap_remove(fastrand::usize(..self.kept.len()));
        self.refunds += 1;
        self.is_refunding = true;
        let callback = Callback {
            event: PaymentEvent::Refunded,
            ..paid
        };
        self.deliver(callback, Effect::Refund);
    }

    fn deliver(&mut self, callback: Callback, effect: Effect) {
        self.orders.push((self.till.order(callback), effect));
    }

    /// Takes in what the server has taken.
    ///
    /// # Errors
    /// What the server refuses to take, and why.
    pub fn collect(&mut self) -> Result<(), String> {
        let mut refusal = Ok(());
        for (order, effect) in std::mem::take(&mut self.orders) {
            match order.outcome() {
                None => self.orders.push((order, effect)),
                Some(Ok(())) => self.account(order.callback, effect),
                Some(Err(reason)) => refusal = Err(format!("{:?}: {reason}", order.callback)),
            }
        }
        refusal
    }

    fn account(&mut self, callback: Callback, effect: Effect) {
        let product = callback.product_id.clone();
        match (effect, &mut self.owed) {
            (Effect::Purchase, Some(owed)) => *owed.entry(product).or_default() += 1,
            (Effect::Refund, Some(owed)) => {
                let count = owed.entry(product).or_default();
                *count = count.saturating_sub(1);
                owed.retain(|_, count| *count > 0);
            }
            _ => {}
        }
        if let Effect::First | Effect::Purchase = effect {
            self.kept.push(callback.clone());
        }
        self.said.push_back(callback);
        if self.said.len() > REMEMBERED {
            self.said.pop_front();
        }
    }

    /// Whether nothing is on its way, and the bot has what it has paid for: no less, and no more.
    pub fn agrees_with(&self, seen: &Bought) -> bool {
        self.orders.is_empty() && self.owed.as_ref() == Some(&seen.0)
    }

    /// What is not as it should be, in words.
    pub fn complaint(&self, seen: &Bought) -> String {
        let open = self.orders.len();
        match &self.owed {
            None => format!("hears nothing of its first purchase {:?}", self.first),
            Some(_) if open > 0 => format!("has {open} callbacks that the server doesn't take"),
            Some(owed) => format!("has paid for {owed:?} and has {seen:?}"),
        }
    }
}
