//! What is due when, for players in a session.
//!
//! [`Agenda`] is a heap of times on the clock of `Time<Real>`. It is never told that a session has ended: an entry names
//! the session that it is about, and is dropped when its turn comes.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use bevy::prelude::*;

use super::{Player, Server, save::LiveSession};

/// The sessions that something is due for.
#[derive(Default)]
pub(super) struct Agenda(BinaryHeap<Reverse<Due>>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: Duration,
    pub(super) entity: Entity,
    /// Which session of the entity: it may have had others.
    pub(super) ticket: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, due: Due) {
        self.0.push(Reverse(due));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes out the next entry whose time has come.
    pub(super) fn next_due(&mut self, now: Duration) -> Option<Due> {
        let &Reverse(due) = self.0.peek()?;
        (due.at <= now).then(|| {
            self.0.pop();
            due
        })
    }
}

impl Server {
    /// Whether this very session still goes on.
    pub(super) fn is_live(&self, entity: Entity, ticket: u64) -> bool {
        matches!(self.players.get(&entity), Some(Player::Live(live)) if live.ticket == ticket)
    }

    /// This very session, if it still goes on.
    pub(super) fn session_mut(&mut self, entity: Entity, ticket: u64) -> Option<&mut LiveSession> {
        self.live_mut(entity).filter(|live| live.ticket == ticket)
    }
}

/// The time since the app began. An app without time has a clock all the same.
pub(super) fn elapsed(world: &World) -> Duration {
    match world.get_resource::<Time<Real>>() {
        Some(time) => time.elapsed(),
        None => world.resource::<Server>().started.elapsed(),
    }
}
