//! Autosave: every player once per interval, spread so that no frame pays for everybody.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{BuildHasher, Hash},
    time::Duration,
};

use bevy::{
    platform::{hash::FixedHasher, time::Instant},
    prelude::*,
};

use super::{
    Player, Server,
    save::{Occasion, save},
};

/// Who is due when, on the clock of `Time<Real>`. Entries of sessions that have ended are dropped when their turn comes.
#[derive(Resource)]
pub(super) struct Autosave {
    due: BinaryHeap<Reverse<Due>>,
    started: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Duration,
    entity: Entity,
    /// Which session of the entity: it may have had others.
    ticket: u64,
}

impl Default for Autosave {
    fn default() -> Self {
        Self {
            due: BinaryHeap::new(),
            started: Instant::now(),
        }
    }
}

/// Schedules a player's first autosave.
pub(super) fn begin(world: &mut World, entity: Entity, ticket: u64) {
    let Some(interval) = world.resource::<Server>().settings.autosave else {
        return;
    };
    // Players who were loaded together are not saved together.
    let at = elapsed(world) + interval.mul_f64(fraction(entity));
    world
        .resource_mut::<Autosave>()
        .due
        .push(Reverse(Due { at, entity, ticket }));
}

/// Saves the players whose turn it is.
pub(super) fn autosave(world: &mut World) {
    let Some(interval) = world.resource::<Server>().settings.autosave else {
        return;
    };
    let now = elapsed(world);
    while let Some(due) = next_due(&mut world.resource_mut::<Autosave>(), now) {
        let players = &world.resource::<Server>().players;
        if matches!(players.get(&due.entity), Some(Player::Live(live)) if live.ticket == due.ticket) {
            save(world, due.entity, Occasion::Autosave);
            let at = next_turn(due, interval, now);
            world
                .resource_mut::<Autosave>()
                .due
                .push(Reverse(Due { at, ..due }));
        }
    }
}

fn next_due(autosave: &mut Autosave, now: Duration) -> Option<Due> {
    let &Reverse(due) = autosave.due.peek()?;
    (due.at <= now).then(|| {
        autosave.due.pop();
        due
    })
}

/// One interval later. Whoever missed a whole turn in an update that took long is spread anew, or everybody would be due
/// in one update from then on.
fn next_turn(due: Due, interval: Duration, now: Duration) -> Duration {
    let next = due.at + interval;
    if next > now {
        next
    } else {
        now + interval.mul_f64(fraction(due.entity))
    }
}

/// An app without time has a clock all the same.
fn elapsed(world: &World) -> Duration {
    match world.get_resource::<Time<Real>>() {
        Some(time) => time.elapsed(),
        None => world.resource::<Autosave>().started.elapsed(),
    }
}

/// A number above 0 and up to 1 that differs from entity to entity.
fn fraction(entity: Entity) -> f64 {
    let mut hasher = FixedHasher.build_hasher();
    entity.hash(&mut hasher);
    let hash = std::hash::Hasher::finish(&hasher) >> 32;
    (hash + 1) as f64 / (1_u64 << 32) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_loaded_together_are_spread_over_the_interval() {
        let mut world = World::new();
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let fraction = fraction(world.spawn_empty().id());
            assert!(fraction > 0.0 && fraction <= 1.0);
            tenths[((fraction * 10.0) as usize).min(9)] += 1;
        }
        assert!(
            tenths.iter().all(|&count| count > 50),
            "a tenth of the interval is nearly empty: {tenths:?}"
        );
    }
}
