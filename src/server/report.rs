//! What the runtime's threads tell the main thread.

use bevy::prelude::*;

use super::{Server, leave, load, save};
use crate::{
    id::PlayerId,
    player::{LoadError, SaveError},
};

/// One answer on its way to the main thread.
pub(super) enum Report {
    /// A load has ended.
    Loaded {
        entity: Entity,
        ticket: u64,
        result: Result<load::Loaded, LoadError>,
    },
    /// A save of a session that goes on has ended.
    Saved {
        entity: Entity,
        player: PlayerId,
        result: Result<(), SaveError>,
    },
    /// A final save has ended, and the lock is given back.
    Closed {
        ticket: u64,
        result: Result<(), SaveError>,
    },
    /// On exit: everything that was asked for has been answered, in reports before this one.
    Drained,
}

/// Takes in everything that was reported since the last update.
pub(super) fn apply_reports(world: &mut World) {
    while let Some(report) = world.resource::<Server>().next_report() {
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
        Report::Saved {
            entity,
            player,
            result,
        } => save::apply(world, entity, player, result),
        Report::Closed { ticket, result } => leave::apply_closed(world, ticket, result),
        Report::Drained => {}
    }
}
