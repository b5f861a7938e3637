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
pub(super) struct Autosave {
    agenda: Agenda,
    /// Up to when it was looked who is due.
    looked: Duration,
}

/// By how much more than its share of the interval an update may save: what chance has put into one update is spread
/// over the next ones, and those who wait don't become more and more.
const HASTE: f64 = 1.25;

impl Autosave {
    /// How many players may be saved now.
    fn share(&mut self, now: Duration, interval: Duration) -> usize {
        let passed = now.saturating_sub(self.looked);
        self.looked = now;
        let turns = passed.as_secs_f64() / interval.as_secs_f64();
        (self.agenda.len() as f64 * turns * HASTE).ceil() as usize
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
        .agenda
        .add(Due { at, entity, ticket });
}

/// Saves the players whose turn it is, but no more of them than an update's share, the others a few updates later.
pub(super) fn autosave(world: &mut World) {
    let Some(interval) = world.resource::<Server>().settings.autosave else {
        return;
    };
    let now = elapsed(world);
    for _ in 0..world.resource_mut::<Autosave>().share(now, interval) {
        let Some(due) = world.resource_mut::<Autosave>().agenda.next_due(now) else {
            return;
        };
        if world.resource::<Server>().is_live(due.entity, due.ticket) {
            save(world, due.entity, Occasion::Autosave);
            let at = next_turn(due, interval, now);
            world.resource_mut::<Autosave>().agenda.add(Due { at, ..due });
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
    fn an_update_saves_little_more_than_its_share_and_everybody_has_a_turn_in_an_interval() {
        let mut world = World::new();
        let mut autosave = Autosave::default();
        for _ in 0..1000 {
            let entity = world.spawn_empty().id();
            autosave.agenda.add(Due {
                at: Duration::ZERO,
                entity,
                ticket: 0,
            });
        }
        let interval = Duration::from_secs(1);
        let shares: Vec<usize> = (1..=100)
            .map(|update| autosave.share(interval * update / 100, interval))
            .collect();
        assert!(
            shares.iter().all(|&share| (10..=13).contains(&share)),
            "{shares:?}"
        );
        assert_eq!(
            autosave.share(interval * 3, interval),
            2500,
            "an update that took long"
        );
    }

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
