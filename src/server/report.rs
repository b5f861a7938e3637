//! What the runtime's threads tell the main thread.

use std::time::Duration;

use bevy::prelude::*;
use tokio::sync::oneshot;

use super::{
    Server, hand_off, leave, load,
    purchases::{answer, deliver},
    save, trade,
};
use crate::{
    id::PlayerId,
    player::{LoadDelayed, LoadError, PurchaseDecision, SaveError},
    store::{Arrivals, Enqueued, Settlement, StoreError, Wished},
};

/// One answer on its way to the main thread.
pub(super) enum Report {
    /// A load has ended.
    Loaded {
        entity: Entity,
        ticket: u64,
        result: Result<load::Loaded, LoadError>,
    },
    /// A load takes long.
    LoadDelayed {
        entity: Entity,
        ticket: u64,
        delayed: LoadDelayed,
    },
    /// A save of a session that goes on has ended, so long after it was asked for.
    Saved {
        entity: Entity,
        player: PlayerId,
        ticket: u64,
        carried: Vec<Settlement>,
        result: Result<(), SaveError>,
        took: Duration,
    },
    /// A save was refused before it was queued.
    NotSaved {
        entity: Entity,
        player: PlayerId,
        ticket: u64,
        error: SaveError,
    },
    /// A trade can't be committed for now, and goes on being tried.
    TradeDelayed {
        parties: [trade::Party; 2],
        error: SaveError,
    },
    /// The commit of a trade has ended, so long after it was asked for.
    Traded {
        parties: [trade::Party; 2],
        result: Result<(), [SaveError; 2]>,
        took: Duration,
    },
    /// A final save has ended, so long after it was asked for, and the lock is given back.
    Closed {
        ticket: u64,
        result: Result<(), SaveError>,
        took: Duration,
    },
    /// A player's open receipts were read, or could not be.
    Fetched {
        entity: Entity,
        ticket: u64,
        result: Result<deliver::Fetched, StoreError>,
    },
    /// The slow poll has ended.
    Arrivals(Result<Arrivals, StoreError>),
    /// A receipt of this player was handed in within this process.
    Arrived(PlayerId),
    /// A receipt that somebody waits for is stored, or could not be.
    Submitted {
        result: Result<Enqueued, StoreError>,
        /// The session that the player was in when it was submitted, if any.
        session: Option<(Entity, u64)>,
        waiter: oneshot::Sender<Result<PurchaseDecision, StoreError>>,
    },
    /// These wishes of other servers for players of this one stand now.
    Wished(Vec<Wished>),
    /// On exit: everything that was asked for has been answered, in reports before this one.
    Drained,
}

/// Takes in everything that was reported since the last update. What comes of that is reported in the next one.
pub(super) fn apply_reports(world: &mut World) {
    for report in world.resource::<Server>().new_reports() {
        apply(world, report);
    }
}

pub(super) fn apply(world: &mut World, report: Report) {
    match report {
        Report::Loaded {
            entity,
            ticket,
            result,
        } => load::apply(world, entity, ticket, result),
        Report::LoadDelayed {
            entity,
            ticket,
            delayed,
        } => load::apply_delayed(world, entity, ticket, delayed),
        Report::Saved {
            entity,
            player,
            ticket,
            carried,
            result,
            took,
        } => save::apply(world, entity, player, ticket, carried, result, took),
        Report::NotSaved {
            entity,
            player,
            ticket,
            error,
        } => save::answer(world, entity, player, ticket, Err(error), Duration::ZERO),
        Report::TradeDelayed { parties, error } => trade::apply_delayed(world, parties, error),
        Report::Traded {
            parties,
            result,
            took,
        } => trade::apply(world, parties, result, took),
        Report::Closed { ticket, result, took } => leave::apply_closed(world, ticket, result, took),
        Report::Fetched {
            entity,
            ticket,
            result,
        } => deliver::apply_fetched(world, entity, ticket, result),
        Report::Arrivals(result) => deliver::apply_arrivals(world, result),
        Report::Arrived(player) => deliver::apply_arrived(world, player),
        Report::Submitted {
            result,
            session,
            waiter,
        } => answer::apply_submitted(world, result, session, waiter),
        Report::Wished(wished) => hand_off::apply_wished(world, wished),
        Report::Drained => {}
    }
}
