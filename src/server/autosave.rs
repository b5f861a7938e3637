//! Autosave: every player once per interval, spread so that no frame pays for everybody.

use std::{
    hash::{BuildHasher, Hash},
    time::Duration,
};

use bevy::{platform::hash::FixedHasher, prelude::*};

use super::{
    Server,
    agenda::{Agenda, Due, elapsed},
    save::{Occasion, save},
};

/// Who is to be saved when.
#[derive(Resource, Default)]
pub(super) struct Autosave(Agenda);

/// Schedules a player's first autosave.
pub(super) fn begin(world: &mut World, entity: Entity, ticket: u64) {
    let Some(interval) = world.resource::<Server>().settings.autosave else {
        return;
    };
    // Players who were loaded together are not saved together.
    let at = elapsed(world) + interval.mul_f64(fraction(entity));
    world.resource_mut::<Autosave>().0.add(Due { at, entity, ticket });
}

/// Saves the players whose turn it is.
pub(super) fn autosave(world: &mut World) {
    let Some(interval) = world.resource::<Server>().settings.autosave else {
        return;
    };
    let now = elapsed(world);
    while let Some(due) = world.resource_mut::<Autosave>().0.next_due(now) {
        if world.resource::<Server>().is_live(due.entity, due.ticket) {
            save(world, due.entity, Occasion::Autosave);
            let at = next_turn(due, interval, now);
            world.resource_mut::<Autosave>().0.add(Due { at, ..due });
        }
    }
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
