//! What the tests of purchases share: a product, and short ways to buy it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::task::{Context, Poll, Waker};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    server::WaitForPurchase,
    store::{Notice, ReceiptState, Store, StoreError, StoredReceipt},
};

use super::support::*;

/// What the game was told about purchases, in order.
#[derive(Resource, Default, Debug)]
pub struct Processed(pub Vec<(String, PurchaseDecision)>);

/// Adds `coins_100`, with a handler for refunds that takes what is left.
pub fn with_coins(app: &mut App) {
    app.init_resource::<Processed>()
        .add_product(Product::new("coins_100", grant_coins).on_refund(revoke_coins))
        .add_observer(|on: On<PurchaseProcessed>, mut processed: ResMut<Processed>| {
            processed.0.push((on.purchase.to_string(), on.decision.clone()));
        });
}

pub fn grant_coins(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
    coins.get_mut(receipt.entity)?.0 += 100;
    Ok(())
}

pub fn revoke_coins(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result<Revoked> {
    let mut coins = coins.get_mut(receipt.entity)?;
    let missing = 100_u64.saturating_sub(coins.0);
    coins.0 = coins.0.saturating_sub(100);
    Ok(match missing {
        0 => Revoked::Fully,
        _ => Revoked::Short(format!("{missing} of 100 coins were spent")),
    })
}

pub fn receipt(purchase: &str, name: &str, product: &str) -> NewReceipt {
    NewReceipt::new(
        purchase.parse().expect("a purchase id"),
        id(name),
        product.parse().expect("a product id"),
    )
}

/// Hands a receipt in as another process would.
pub fn pay(store: &dyn Store, purchase: &str, name: &str, product: &str) {
    wait(store.enqueue(receipt(purchase, name, product), Notice::Paid)).expect("the store takes it");
}

pub fn refund(store: &dyn Store, purchase: &str, name: &str, product: &str) {
    wait(store.enqueue(receipt(purchase, name, product), Notice::Refund)).expect("the store takes it");
}

/// A receipt's row.
pub fn stored_receipt(store: &dyn Store, purchase: &str) -> StoredReceipt {
    let purchase = purchase.parse().expect("a purchase id");
    wait(store.receipt(purchase))
        .expect("the store answers")
        .expect("it is known")
}

pub fn state(store: &dyn Store, purchase: &str) -> ReceiptState {
    stored_receipt(store, purchase).state
}

pub fn inbox(app: &mut App) -> ReceiptInbox {
    app.world_mut()
        .run_system_cached(|server: PlayerDataServer| server.inbox())
        .expect("the plugin is there")
}

pub fn submit(app: &mut App, receipt: NewReceipt) -> Asked {
    let submit = |In(receipt): In<NewReceipt>, server: PlayerDataServer| server.submit_receipt(receipt);
    let future = app
        .world_mut()
        .run_system_cached_with(submit, receipt)
        .expect("the plugin is there");
    Asked(Box::pin(future))
}

/// A purchase that was submitted.
pub struct Asked(std::pin::Pin<Box<WaitForPurchase>>);

impl Asked {
    pub fn poll(&mut self) -> Option<Result<PurchaseDecision, StoreError>> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }
}

/// Updates until a submitted purchase is answered.
#[track_caller]
pub fn answer(app: &mut App, mut asked: Asked) -> Result<PurchaseDecision, StoreError> {
    let mut answer = None;
    app.until("the purchase is answered", |_| {
        answer = asked.poll();
        answer.is_some()
    });
    answer.expect("the condition held")
}

#[track_caller]
pub fn buy(app: &mut App, purchase: &str, name: &str, product: &str) -> PurchaseDecision {
    let asked = submit(app, receipt(purchase, name, product));
    answer(app, asked).expect("a sound receipt")
}

/// Updates until the game was told this about a purchase.
#[track_caller]
pub fn until_processed(app: &mut App, purchase: &str, decision: &PurchaseDecision) {
    app.until(&format!("`{purchase}` is {decision}"), |world| {
        let processed = &world.resource::<Processed>().0;
        processed
            .iter()
            .any(|(told, what)| told == purchase && what == decision)
    });
}
