//! Telling what has become of purchases: to the game, to the client, and to whoever waits.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bevy::{ecs::world::DeferredWorld, platform::collections::HashMap, prelude::*};
use tokio::sync::oneshot;
use tracing::info;

use super::{
    deliver,
    ledger::{Ledger, decision_of},
};
use crate::{
    id::{PlayerId, ProductId, PurchaseId},
    player::{PurchaseDecision, PurchaseProcessed, SaveError},
    server::{Player, Server, ServerStats, report::Report},
    steps,
    store::{Enqueued, NewReceipt, Notice, Settlement, Store, StoreError, StoredReceipt},
};

type Answer = Result<PurchaseDecision, StoreError>;

/// The future of [`PlayerDataServer::submit_receipt`](crate::server::PlayerDataServer::submit_receipt).
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct WaitForPurchase(oneshot::Receiver<Answer>);

impl Future for WaitForPurchase {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The other end is dropped unanswered only with the whole app.
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Ok(PurchaseDecision::NotProcessedYet)))
    }
}

/// Who waits for which purchase.
#[derive(Resource, Default)]
pub(in crate::server) struct Waiters(HashMap<PurchaseId, (PlayerId, Vec<oneshot::Sender<Answer>>)>);

impl Waiters {
    fn add(&mut self, purchase: PurchaseId, player: PlayerId, waiter: oneshot::Sender<Answer>) {
        self.0
            .entry(purchase)
            .or_insert((player, Vec::new()))
            .1
            .push(waiter);
    }

    pub(super) fn waits_for(&self, purchase: &PurchaseId) -> bool {
        self.0.contains_key(purchase)
    }

    pub(super) fn purchases_of(&self, player: PlayerId) -> Vec<PurchaseId> {
        let waiting = self.0.iter().filter(|(_, (whose, _))| *whose == player);
        waiting.map(|(purchase, _)| purchase.clone()).collect()
    }

    /// Whether anybody waits for a purchase of this player.
    pub(in crate::server) fn is_waited_for(&self, player: PlayerId) -> bool {
        self.0.values().any(|(whose, _)| *whose == player)
    }

    pub(super) fn answer(&mut self, purchase: &PurchaseId, answer: &Answer) {
        let waiters = self.0.remove(purchase).map(|(_, waiters)| waiters);
        for waiter in waiters.into_iter().flatten() {
            // Somebody who stopped waiting needs no answer.
            let _ = waiter.send(answer.clone());
        }
    }
}

/// Stores a receipt and processes it.
pub(in crate::server) fn submit(server: &Server, receipt: NewReceipt) -> WaitForPurchase {
    let (waiter, answer) = oneshot::channel();
    let session = live_session_of(server, receipt.player);
    let enqueue = async move |store: Arc<dyn Store>| store.enqueue(receipt, Notice::Paid).await;
    server.ask(enqueue, move |result| Report::Submitted {
        result,
        session,
        waiter,
    });
    WaitForPurchase(answer)
}

/// The entity of a player who is in a session now, and that session's number.
fn live_session_of(server: &Server, player: PlayerId) -> Option<(Entity, u64)> {
    let entity = *server.entity_of.get(&player)?;
    match server.players.get(&entity)? {
        Player::Live(live) => Some((entity, live.ticket)),
        _ => None,
    }
}

/// Takes in that a submitted receipt is stored, or isn't; `session` is the one that the player was in before.
pub(in crate::server) fn apply_submitted(
    world: &mut World,
    result: Result<Enqueued, StoreError>,
    session: Option<(Entity, u64)>,
    waiter: oneshot::Sender<Answer>,
) {
    let answer = match result {
        Ok(Enqueued { receipt, .. }) => match (decision_of(&receipt), receipt.player) {
            (Some(decision), _) => Ok(decision),
            (None, Some(player)) => match entity_in_session(world, player) {
                Some(entity) => {
                    let purchase = receipt.purchase.clone();
                    world.resource_mut::<Waiters>().add(purchase, player, waiter);
                    return match session {
                        Some((entity, ticket)) if world.resource::<Server>().is_live(entity, ticket) => {
                            deliver::process_read(world, entity, ticket, receipt);
                        }
                        // Does nothing for a player who is still loading, whose receipts are read right after that.
                        _ => deliver::fetch(world, entity),
                    };
                }
                None => Ok(PurchaseDecision::NotProcessedYet),
            },
            (None, None) => Ok(PurchaseDecision::NotProcessedYet),
        },
        // Whether it is stored or not: nothing is awarded before it is known to be.
        Err(error) if error.is_worth_a_retry() => Ok(PurchaseDecision::NotProcessedYet),
        Err(error) => Err(error),
    };
    // Somebody who stopped waiting needs no answer.
    let _ = waiter.send(answer);
}

/// The entity of a player who is in a session, or on the way into one.
fn entity_in_session(world: &World, player: PlayerId) -> Option<Entity> {
    let server = world.resource::<Server>();
    let entity = server.entity_of.get(&player).copied()?;
    matches!(
        server.players.get(&entity),
        Some(Player::Live(_) | Player::Loading { .. })
    )
    .then_some(entity)
}

/// Answers those who wait for a receipt that is settled already.
pub(super) fn tell_what_is_stored(world: &mut World, receipt: &StoredReceipt) {
    if let Some(decision) = decision_of(receipt) {
        world
            .resource_mut::<Waiters>()
            .answer(&receipt.purchase, &Ok(decision));
    }
}

/// The player leaves, or can't be asked for: whoever waits hears so, apart from those whose purchases are `carried` by a
/// save that is on its way.
pub(in crate::server) fn forsake(
    world: &mut DeferredWorld,
    player: PlayerId,
    carried: &[(ProductId, Settlement)],
) {
    let mut waiters = world.resource_mut::<Waiters>();
    for purchase in waiters.purchases_of(player) {
        if !carried
            .iter()
            .any(|(_, settlement)| settlement.purchase == purchase)
        {
            waiters.answer(&purchase, &Ok(PurchaseDecision::NotProcessedYet));
        }
    }
}

/// Takes in the answer to a save of a session that goes on, which carried these settlements.
pub(in crate::server) fn apply_saved(
    world: &mut World,
    entity: Entity,
    ticket: u64,
    carried: Vec<Settlement>,
    result: &Result<(), SaveError>,
) {
    let mut server = world.resource_mut::<Server>();
    let Some(live) = server.session_mut(entity, ticket) else {
        return;
    };
    if carried.is_empty() {
        return;
    }
    let player = live.player;
    if result.is_ok() {
        steps::reached("award.settled");
        live.ledger.save_failures = 0;
        let (news, refund_waits) = live.ledger.acknowledge(carried);
        announce_all(world, entity, player, news, &Ok(()));
        if refund_waits {
            deliver::fetch(world, entity);
        }
    } else if *result != Err(SaveError::Skipped) {
        let unsettled = products_of(&live.ledger, carried);
        live.ledger.save_failures += 1;
        let failures = live.ledger.save_failures;
        deliver::look_again(world, entity, ticket, failures);
        announce_all(world, entity, player, unsettled, result);
    }
}

fn products_of(ledger: &Ledger, carried: Vec<Settlement>) -> Vec<(ProductId, Settlement)> {
    let of = |settlement: Settlement| Some((ledger.product_of(&settlement.purchase)?.clone(), settlement));
    carried.into_iter().filter_map(of).collect()
}

/// Takes in the answer to a save that carried these settlements.
pub(in crate::server) fn announce_all(
    world: &mut World,
    entity: Entity,
    player: PlayerId,
    carried: Vec<(ProductId, Settlement)>,
    result: &Result<(), SaveError>,
) {
    for (product, Settlement { purchase, outcome }) in carried {
        let decision = match result {
            Ok(()) => outcome.into(),
            Err(_) => PurchaseDecision::NotProcessedYet,
        };
        announce(world, entity, player, &purchase, &product, decision);
    }
}

/// Tells everybody what has become of a purchase.
pub(super) fn announce(
    world: &mut World,
    entity: Entity,
    player: PlayerId,
    purchase: &PurchaseId,
    product: &ProductId,
    decision: PurchaseDecision,
) {
    let mut stats = world.resource_mut::<ServerStats>();
    match decision {
        PurchaseDecision::PurchaseGranted => stats.purchases_granted += 1,
        PurchaseDecision::Refused { .. } => stats.purchases_refused += 1,
        PurchaseDecision::Refunded { .. } => stats.purchases_refunded += 1,
        PurchaseDecision::NotProcessedYet => {}
    }
    if decision.is_final() {
        info!("purchase `{purchase}` (`{product}`) of player {player}: {decision}");
    }
    world
        .resource_mut::<Waiters>()
        .answer(purchase, &Ok(decision.clone()));
    world.trigger(PurchaseProcessed {
        entity,
        player,
        purchase: purchase.clone(),
        product: product.clone(),
        decision,
    });
    world.flush();
}
