//! Finding out which receipts wait for the players who are here, and seeing to it that they are processed.
//!
//! Whatever happens (a player was loaded, a receipt arrived, a pause is over, the slow poll found something), the answer is
//! the same: read the player's open receipts once more, and process those that the ledger has something to do about. Only
//! rows that were read while the session was held are acted upon, so a row that says "pending" is pending.

use std::time::Duration;

use bevy::prelude::*;
use tracing::{debug, warn};

use super::{
    answer::{self, Waiters},
    award::{Award, Case},
    ledger::Fetching,
};
use crate::{
    player::PurchaseDecision,
    server::{
        Player, Server,
        agenda::{Agenda, Due, elapsed},
        report::Report,
        save::{Occasion, save},
    },
    session::random,
    steps,
    store::{Arrivals, StoreError, StoredReceipt},
};

/// Whose receipts are to be looked at again when, and how far the slow poll has got.
#[derive(Resource, Default)]
pub(in crate::server) struct Deliveries {
    agenda: Agenda,
    next_poll: Duration,
    is_polling: bool,
    /// Up to where arrivals are known; `None` before the first look.
    cursor: Option<u64>,
}

/// A player's receipts, as they were read during the session.
pub(in crate::server) struct Fetched {
    open: Vec<StoredReceipt>,
    /// Receipts that somebody waits for, and that are not open any more.
    others: Vec<StoredReceipt>,
}

/// Reads a player's open receipts and processes them. Does nothing for an entity that is no player in a session.
pub(in crate::server) fn fetch(world: &mut World, entity: Entity) {
    let Some(live) = world.resource_mut::<Server>().into_inner().live_mut(entity) else {
        return;
    };
    let (player, ticket) = (live.player, live.ticket);
    if live.ledger.fetching != Fetching::No {
        live.ledger.fetching = Fetching::YesAndAgain;
        return;
    }
    live.ledger.fetching = Fetching::Yes;
    let waited_for = world.resource::<Waiters>().purchases_of(player);
    let server = world.resource::<Server>();
    let (store, reporter) = (server.store.clone(), server.reporter.clone());
    let retry = server.settings.retry.clone();
    server.spawn(async move {
        let read = async {
            let open = store.open_receipts(player).await?;
            let mut others = Vec::new();
            for purchase in waited_for {
                if !open.iter().any(|receipt| receipt.purchase == purchase) {
                    others.extend(store.receipt(purchase).await?);
                }
            }
            Ok(Fetched { open, others })
        };
        let result = retry.attempt(read).await;
        // Nobody is left to hear it after the app is gone.
        let _ = reporter.send(Report::Fetched {
            entity,
            ticket,
            result,
        });
    });
}

/// Takes in what [`fetch`] has read.
pub(in crate::server) fn apply_fetched(
    world: &mut World,
    entity: Entity,
    ticket: u64,
    result: Result<Fetched, StoreError>,
) {
    steps::reached("receipt.fetched");
    if !world.resource::<Server>().is_live(entity, ticket) {
        return;
    }
    let mut server = world.resource_mut::<Server>();
    let Some(live) = server.live_mut(entity) else {
        return;
    };
    let again = std::mem::take(&mut live.ledger.fetching) == Fetching::YesAndAgain;
    let player = live.player;
    match result {
        Ok(Fetched { open, others }) => {
            live.ledger.fetch_failures = 0;
            for receipt in &others {
                answer::tell_what_is_stored(world, receipt);
            }
            process(world, entity, ticket, &open);
        }
        Err(error) => {
            live.ledger.fetch_failures += 1;
            let failures = live.ledger.fetch_failures;
            warn!("the receipts of player {player} could not be read, and will be later: {error}");
            answer::forsake(&mut world.into(), player, &[]);
            look_again(world, entity, ticket, failures);
        }
    }
    if again {
        fetch(world, entity);
    }
}

/// Processes a player's open receipts and saves what was awarded.
fn process(world: &mut World, entity: Entity, ticket: u64, receipts: &[StoredReceipt]) {
    for receipt in receipts {
        if !world.resource::<Server>().is_live(entity, ticket) {
            return;
        }
        process_one(world, entity, ticket, receipt);
    }
    if let Some(live) = world.resource_mut::<Server>().live_mut(entity)
        && live.ticket == ticket
        && !live.ledger.unsettled().is_empty()
        && (live.unsaved || live.in_flight == 0)
    {
        save(world, entity, Occasion::Settlement);
    }
}

fn process_one(world: &mut World, entity: Entity, ticket: u64, receipt: &StoredReceipt) {
    // Of an erased player nothing is left.
    let Some(product) = &receipt.product else { return };
    let now = elapsed(world);
    let is_urgent = world.resource::<Waiters>().waits_for(&receipt.purchase);
    let mut server = world.resource_mut::<Server>();
    let grace = server.settings.purchases.unknown_product_grace;
    let Some(live) = server.live_mut(entity) else {
        return;
    };
    let Some(to_do) = live.ledger.decide(receipt, now, is_urgent) else {
        if let Some(decision) = live.ledger.decision(&receipt.purchase) {
            world
                .resource_mut::<Waiters>()
                .answer(&receipt.purchase, &Ok(decision));
        }
        return;
    };
    let case = Case {
        entity,
        product,
        receipt,
    };
    let mut award = case.process(world, to_do);
    if matches!(award, Award::UnknownProduct) {
        let mut server = world.resource_mut::<Server>();
        let Some(live) = server.live_mut(entity) else {
            return;
        };
        let since = live.ledger.unknown_since(receipt, product, now);
        if now.saturating_sub(since) >= grace {
            award = case.give_up(world, to_do);
        } else if since == now {
            warn!(
                "purchase `{}` is for product `{product}`, which this server doesn't know; it is refused if that is \
                 still so in {grace:.0?}",
                receipt.purchase
            );
        }
    }
    if !matches!(award, Award::Done) {
        postpone(world, entity, ticket, receipt, now);
    }
}

/// The handler said "not now".
fn postpone(world: &mut World, entity: Entity, ticket: u64, receipt: &StoredReceipt, now: Duration) {
    let (Some(player), Some(product)) = (receipt.player, &receipt.product) else {
        return;
    };
    if world.resource::<Server>().is_live(entity, ticket)
        && let Some(live) = world.resource_mut::<Server>().live_mut(entity)
    {
        let failures = live.ledger.not_now(receipt, product);
        let at = look_again(world, entity, ticket, failures);
        if let Some(live) = world.resource_mut::<Server>().live_mut(entity) {
            live.ledger.try_again(&receipt.purchase, at.max(now));
        }
    }
    answer::announce(
        world,
        entity,
        player,
        &receipt.purchase,
        product,
        PurchaseDecision::NotProcessedYet,
    );
}

/// Looks at a player's receipts once more after a pause that grows with how often something has failed; says when.
pub(super) fn look_again(world: &mut World, entity: Entity, ticket: u64, failures: u32) -> Duration {
    let pause = world.resource::<Server>().settings.purchases.pause(failures);
    // Players who failed together don't come back together.
    let at = elapsed(world) + pause.mul_f64(1.0 - 0.5 * random());
    world
        .resource_mut::<Deliveries>()
        .agenda
        .add(Due { at, entity, ticket });
    at
}

/// Looks at what is due, and polls the store for what other processes have handed in.
pub(in crate::server) fn deliver(world: &mut World) {
    let now = elapsed(world);
    while let Some(due) = world.resource_mut::<Deliveries>().agenda.next_due(now) {
        if world.resource::<Server>().is_live(due.entity, due.ticket) {
            fetch(world, due.entity);
        }
    }
    let mut deliveries = world.resource_mut::<Deliveries>();
    if deliveries.is_polling || now < deliveries.next_poll {
        return;
    }
    deliveries.is_polling = true;
    let since = deliveries.cursor;
    let server = world.resource::<Server>();
    let (store, reporter) = (server.store.clone(), server.reporter.clone());
    let retry = server.settings.retry.clone();
    server.spawn(async move {
        let result = retry.attempt(store.arrivals(since)).await;
        // Nobody is left to hear it after the app is gone.
        let _ = reporter.send(Report::Arrivals(result));
    });
}

/// Takes in what the poll has found.
pub(in crate::server) fn apply_arrivals(world: &mut World, result: Result<Arrivals, StoreError>) {
    let now = elapsed(world);
    let poll = world.resource::<Server>().settings.purchases.poll;
    let mut deliveries = world.resource_mut::<Deliveries>();
    deliveries.is_polling = false;
    deliveries.next_poll = now + poll;
    let arrivals = match result {
        Ok(arrivals) => arrivals,
        Err(error) => return debug!("could not look for receipts: {error}"),
    };
    let is_first_look = deliveries.cursor.replace(arrivals.newest).is_none();
    if !arrivals.players.is_empty() {
        // There may be more than one look reports.
        deliveries.next_poll = now;
    }
    let server = world.resource::<Server>();
    let entities: Vec<Entity> = if is_first_look {
        // What arrived between a player's own look and this one is reported by nobody.
        server.players.keys().copied().collect()
    } else {
        let here = arrivals.players.iter();
        here.filter_map(|player| server.entity_of.get(player).copied())
            .collect()
    };
    for entity in entities {
        fetch(world, entity);
    }
}

/// A receipt of this player has arrived in this process.
pub(in crate::server) fn apply_arrived(world: &mut World, player: crate::PlayerId) {
    // Who is not in a session yet gets it when they are.
    if let Some(&entity) = world.resource::<Server>().entity_of.get(&player)
        && matches!(
            world.resource::<Server>().players.get(&entity),
            Some(Player::Live(_))
        )
    {
        fetch(world, entity);
    }
}
