//! Finding out which receipts wait for the players who are here, and seeing to it that they are processed.
//!
//! Whatever happens (a player was loaded, a receipt arrived, a pause is over, the slow poll found something), the
//! answer is the same: read the player's open receipts once more, and process those that the ledger has something to do
//! about. Only rows that were read while the session was held are acted upon, so a row that says "pending" is pending.

use std::{sync::Arc, time::Duration};

use bevy::prelude::*;
use tracing::{debug, warn};

use super::{
    answer::{self, Waiters},
    award::{Award, Case},
    ledger::{Fetching, Next},
};
use crate::{
    id::PurchaseId,
    player::{PurchaseDecision, SaveError},
    server::{
        Server,
        agenda::{Agenda, Due, elapsed},
        report::Report,
        save::{Occasion, TradeState, save},
    },
    steps,
    store::{Arrivals, Store, StoreError, StoredReceipt},
};

/// Whose receipts are to be looked at again when, and how far the slow poll has got.
#[derive(Resource, Default)]
pub(in crate::server) struct Deliveries {
    agenda: Agenda,
    /// How many receipts were processed in this update.
    processed: u32,
    next_poll: Duration,
    is_polling: bool,
    /// What the store last hinted at.
    hints: u64,
    /// Up to where arrivals are known; `None` before the first look.
    cursor: Option<u64>,
}

/// How many receipts are processed per update; the others wait for the next one. Each of them costs a look at every
/// player who is online, and a game loop that stands still for long loses its lease.
const MOST_PER_UPDATE: u32 = 64;

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
    let read = async move |store: Arc<dyn Store>| {
        let open = store.open_receipts(player).await?;
        let mut others = Vec::new();
        for purchase in waited_for {
            if !open.iter().any(|receipt| receipt.purchase == purchase) {
                others.extend(store.receipt(purchase).await?);
            }
        }
        Ok(Fetched { open, others })
    };
    world
        .resource::<Server>()
        .ask(read, move |result| Report::Fetched {
            entity,
            ticket,
            result,
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
    let mut server = world.resource_mut::<Server>();
    let Some(live) = server.session_mut(entity, ticket) else {
        return;
    };
    let again = std::mem::take(&mut live.ledger.fetching) == Fetching::YesAndAgain;
    let player = live.player;
    match result {
        Ok(Fetched { open, others }) => {
            live.ledger.fetch_failures = 0;
            live.ledger.next_due = None;
            for receipt in &others {
                answer::tell_what_is_stored(world, receipt);
            }
            process(world, entity, ticket, open);
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

/// Processes one receipt as it was read during this very session.
pub(super) fn process_read(world: &mut World, entity: Entity, ticket: u64, receipt: StoredReceipt) {
    let mut server = world.resource_mut::<Server>();
    match server.session_mut(entity, ticket) {
        Some(live) if live.ledger.rest.is_empty() && live.ledger.fetching == Fetching::No => {
            steps::reached("receipt.fetched");
            process(world, entity, ticket, vec![receipt]);
        }
        // Behind others, which must not be forgotten over it, nor it over them.
        _ => fetch(world, entity),
    }
}

/// Processes a player's open receipts and saves what was awarded.
fn process(world: &mut World, entity: Entity, ticket: u64, receipts: Vec<StoredReceipt>) {
    let Some(live) = world.resource_mut::<Server>().into_inner().live_mut(entity) else {
        return;
    };
    // New ones first: any number of receipts that can't be granted now holds up no other.
    let is_new = |receipt: &StoredReceipt| live.ledger.product_of(&receipt.purchase).is_none();
    let (new, tried): (Vec<_>, Vec<_>) = receipts.into_iter().partition(is_new);
    let mut receipts = new.into_iter().chain(tried);
    let mut seen = Vec::new();
    while world.resource::<Deliveries>().processed < MOST_PER_UPDATE {
        if !world.resource::<Server>().is_live(entity, ticket) {
            return;
        }
        let Some(receipt) = receipts.next() else { break };
        process_one(world, entity, ticket, &receipt);
        seen.push(receipt.purchase);
    }
    arm(world, entity, ticket, &seen, receipts.collect());
    let mut server = world.resource_mut::<Server>();
    let Some(live) = server.session_mut(entity, ticket) else {
        return;
    };
    let unsettled = live.ledger.unsettled().to_vec();
    let is_delayed = live.trade == TradeState::Delayed;
    if !unsettled.is_empty() && (live.unsaved || live.in_flight == 0) {
        save(world, entity, Occasion::Settlement);
    }
    if is_delayed {
        // Behind a trade that the store can't be reached for, nobody knows when it lands.
        let message = "a trade is waiting for the data store".to_owned();
        answer::apply_saved(
            world,
            entity,
            ticket,
            unsettled,
            &Err(SaveError::Unavailable { message }),
        );
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
    let Some(next) = live.ledger.decide(receipt, now, is_urgent) else {
        if let Some(decision) = live.ledger.decision(&receipt.purchase) {
            world
                .resource_mut::<Waiters>()
                .answer(&receipt.purchase, &Ok(decision));
        }
        return;
    };
    let to_do = match next {
        Next::Process(to_do) => to_do,
        Next::ReadAgain => return fetch(world, entity),
    };
    world.resource_mut::<Deliveries>().processed += 1;
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
    if let Some(live) = world.resource_mut::<Server>().session_mut(entity, ticket) {
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
    let now = elapsed(world);
    let mut server = world.resource_mut::<Server>();
    let pause = server.settings.purchases.pause(failures);
    let Some(live) = server.session_mut(entity, ticket) else {
        return now;
    };
    // Players who failed together don't come back together, but what failed of one player does: in steps of a quarter.
    let step = (pause / 4).max(Duration::from_nanos(1));
    let steps = now
        .saturating_add(pause.mul_f64(0.75 - 0.25 * live.ledger.jitter))
        .as_nanos()
        / step.as_nanos()
        + 1;
    let at = step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
    set_alarm(world, entity, ticket, at);
    at
}

/// Sees to it that the `rest` goes on in the next update, or that the first of those that were `seen` is looked at again
/// when it is due.
fn arm(world: &mut World, entity: Entity, ticket: u64, seen: &[PurchaseId], rest: Vec<StoredReceipt>) {
    let now = elapsed(world);
    let mut server = world.resource_mut::<Server>();
    let Some(live) = server.session_mut(entity, ticket) else {
        return;
    };
    let dues = seen.iter().filter_map(|purchase| live.ledger.due(purchase));
    live.ledger.next_due = dues.chain(live.ledger.next_due).min();
    let next = if rest.is_empty() {
        live.ledger.next_due.take()
    } else {
        Some(now)
    };
    live.ledger.rest = rest;
    if let Some(at) = next {
        set_alarm(world, entity, ticket, at);
    }
}

/// Has a player's receipts looked at at this time, or earlier if that is planned already.
fn set_alarm(world: &mut World, entity: Entity, ticket: u64, at: Duration) {
    let mut server = world.resource_mut::<Server>();
    if let Some(live) = server.session_mut(entity, ticket)
        && live.ledger.alarm.is_none_or(|alarm| at < alarm)
    {
        live.ledger.alarm = Some(at);
        let due = Due { at, entity, ticket };
        world.resource_mut::<Deliveries>().agenda.add(due);
    }
}

/// An alarm goes off. One that an earlier one has replaced does nothing.
fn ring(world: &mut World, Due { at, entity, ticket }: Due) {
    let mut server = world.resource_mut::<Server>();
    if let Some(live) = server.session_mut(entity, ticket)
        && live.ledger.alarm.take_if(|alarm| *alarm == at).is_some()
    {
        match std::mem::take(&mut live.ledger.rest) {
            rest if rest.is_empty() => fetch(world, entity),
            rest => process(world, entity, ticket, rest),
        }
    }
}

/// Looks at what is due, and polls the store for what other processes have handed in.
pub(in crate::server) fn deliver(world: &mut World) {
    let now = elapsed(world);
    // All of them before the first rings, which may set the next alarm for right now.
    let agenda = &mut world.resource_mut::<Deliveries>().agenda;
    let due: Vec<Due> = std::iter::from_fn(|| agenda.next_due(now)).collect();
    for due in due {
        ring(world, due);
    }
    let hints = world.resource::<Server>().store.hints();
    let mut deliveries = world.resource_mut::<Deliveries>();
    deliveries.processed = 0;
    if deliveries.is_polling {
        return;
    }
    let is_hinted = std::mem::replace(&mut deliveries.hints, hints) != hints;
    if now < deliveries.next_poll && !is_hinted {
        return;
    }
    deliveries.is_polling = true;
    let since = deliveries.cursor;
    let look = async move |store: Arc<dyn Store>| store.arrivals(since).await;
    world.resource::<Server>().ask(look, Report::Arrivals);
}

/// Takes in what the poll has found.
pub(in crate::server) fn apply_arrivals(world: &mut World, result: Result<Arrivals, StoreError>) {
    let now = elapsed(world);
    let poll = world.resource::<Server>().settings.purchases.poll;
    let mut deliveries = world.resource_mut::<Deliveries>();
    deliveries.is_polling = false;
    deliveries.next_poll = now.saturating_add(poll);
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
    if let Some(&entity) = world.resource::<Server>().entity_of.get(&player) {
        fetch(world, entity);
    }
}
