//! Autosave: every player once per interval, spread so that no frame pays for everybody.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{BuildHasher, Hash},
    time::Duration,
};

use bevy::{platform::hash::FixedHasher, prelude::*};

use super::{
    Player, Server,
    save::{Occasion, save},
};

/// Who is due when, on the clock of `Time<Real>`. Entries of players who have left are dropped when their turn comes.
#[derive(Resource, Default)]
pub(super) struct Autosave {
    due: BinaryHeap<Reverse<(Duration, Entity)>>,
}

/// Schedules a player's first autosave.
pub(super) fn begin(world: &mut World, entity: Entity) {
    let Some(interval) = world.resource::<Server>().settings.autosave else { return };
    let now = elapsed(world);
    // Players who were loaded together are not saved together.
    let first = interval.mul_f64(fraction(entity));
    world.resource_mut::<Autosave>().due.push(Reverse((now + first, entity)));
}

/// Saves the players whose turn it is.
pub(super) fn autosave(world: &mut World) {
    let Some(interval) = world.resource::<Server>().settings.autosave else { return };
    let now = elapsed(world);
    while let Some(entity) = next_due(&mut world.resource_mut::<Autosave>(), now) {
        if matches!(world.resource::<Server>().players.get(&entity), Some(Player::Live(_))) {
            save(world, entity, Occasion::Autosave);
            world.resource_mut::<Autosave>().due.push(Reverse((now + interval, entity)));
        }
    }
}

fn next_due(autosave: &mut Autosave, now: Duration) -> Option<Entity> {
    let &Reverse((due, entity)) = autosave.due.peek()?;
    (due <= now).then(|| {
        autosave.due.pop();
        entity
    })
}

fn elapsed(world: &World) -> Duration {
    world.get_resource::<Time<Real>>().map_or(Duration::ZERO, Time::elapsed)
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
        assert!(tenths.iter().all(|&count| count > 50), "a tenth of the interval is nearly empty: {tenths:?}");
    }
}
