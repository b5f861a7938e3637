//! All or nothing: a system of the game changes players' data, or it has changed nothing.
//!
//! [`attempt`] runs a product's handler or a trade, and judges what it did once its commands are applied. While it runs,
//! whatever would be saved of any player is what was so before: a player whom it despawns leaves with that, and saves
//! that it asks for wait for the verdict. If it fails, panics, changes somebody else's data, or leaves data that can't be
//! saved, every persisted component of every player is put back.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bevy::{
    ecs::{
        change_detection::Tick,
        entity::EntityHashMap,
        system::{BoxedSystem, RunSystemError},
    },
    prelude::*,
};
use tracing::error;

use super::{
    Player, Server, leave,
    save::{self, LiveSession},
    types,
};
use crate::{
    document::{Document, Entry},
    id::PlayerId,
    player::{SaveError, SessionEnd},
    registry::{ComponentValue, DataType, DataTypes, DecodeError, insert_together},
    session::panic_message,
};

/// Why nothing has changed.
pub(super) enum Failure {
    /// Bevy skipped the system: a `Single` without a match, say.
    Skipped(String),
    /// The system returned an error.
    Failed(BevyError),
    /// The system, or one of its commands, panicked.
    Panicked(String),
    /// A player was despawned, or left in another way.
    Left,
    /// A player's data could not be saved any more, or can't be as it is.
    Unsavable(SaveError),
    /// It changed the data of a player whom it had no business with.
    OthersChanged(PlayerId),
    /// It sent players away whom it had no business with, and who knows what it had done to them before.
    OthersLeft,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped(why) => write!(f, "Bevy skipped the system: {why}"),
            Self::Failed(error) => f.write_str(without_backtrace(&error.to_string())),
            Self::Panicked(message) => write!(f, "it panicked: {message}"),
            Self::Left => f.write_str("the player left meanwhile"),
            Self::Unsavable(error) => write!(f, "the data could not be saved afterwards: {error}"),
            Self::OthersChanged(player) => write!(
                f,
                "it changed the data of player {player} as well, who has no part in it"
            ),
            Self::OthersLeft => f.write_str("it sent players away who have no part in it"),
        }
    }
}

/// What Bevy says of an error ends with a backtrace if `RUST_BACKTRACE` is set. That is of no use to those who read this.
fn without_backtrace(error: &str) -> &str {
    let is_frame = |line: &str| {
        let number = line.trim_start().split(": ").next();
        line.starts_with("  ") && number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    let mut end = 0;
    for line in error.split_inclusive('\n') {
        if is_frame(line) {
            break;
        }
        end += line.len();
    }
    error[..end].trim_end()
}

/// What was so before.
struct Before {
    since: Tick,
    /// How many players were in a session.
    online: usize,
    parties: Vec<(Entity, u64, Document)>,
}

/// What waits for the verdict, and is told it.
pub(super) type Deferred = Box<dyn FnOnce(&mut World, bool) + Send + Sync>;

/// Lets `run` change the data of `parties`, all of which must be in a session, and calls `note` when that stands, before
/// anything can be saved.
pub(super) fn attempt<T>(
    world: &mut World,
    parties: &[Entity],
    run: impl FnOnce(&mut World) -> Result<T, Failure>,
    note: impl FnOnce(&mut World, &T),
) -> Result<T, Failure> {
    let types = types(world);
    let before = Before::take_down(world, &types, parties)?;
    world.resource_mut::<Server>().deferred = Some(Vec::new());
    let outcome = guarded(world, run).and_then(|value| {
        before.judge(world, &types)?;
        Ok(value)
    });
    match &outcome {
        Ok(value) => note(world, value),
        Err(_) => before.put_back(world, &types),
    }
    let deferred = world.resource_mut::<Server>().deferred.take();
    for deferred in deferred.into_iter().flatten() {
        deferred(world, outcome.is_ok());
    }
    outcome
}

/// Runs a system that the game wrote.
pub(super) fn run_system<I: 'static, T: 'static>(
    system: &mut BoxedSystem<In<I>, Result<T>>,
    input: I,
    world: &mut World,
) -> Result<T, Failure> {
    match system.run(input, world) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) | Err(RunSystemError::Failed(error)) => Err(Failure::Failed(error)),
        Err(RunSystemError::Skipped(why)) => Err(Failure::Skipped(why.to_string())),
    }
}

/// How many commands that panic are put up with after a panic.
const MOST_PANICS: usize = 1000;

/// Runs somebody's code with its commands. When this returns, none of these is left to be applied.
fn guarded<T>(world: &mut World, run: impl FnOnce(&mut World) -> Result<T, Failure>) -> Result<T, Failure> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let ran = run(world);
        world.flush();
        ran
    }));
    ran.unwrap_or_else(|panic| {
        // The commands behind the one that panicked are still queued, and must not come into effect later.
        for _ in 0..MOST_PANICS {
            if catch_unwind(AssertUnwindSafe(|| world.flush())).is_ok() {
                break;
            }
        }
        Err(Failure::Panicked(panic_message(&*panic)))
    })
}

impl Before {
    /// Brings every player's document up to date, so that it says what was so before.
    fn take_down(world: &mut World, types: &DataTypes, parties: &[Entity]) -> Result<Self, Failure> {
        let since = world.increment_change_tick();
        let limit = world.resource::<Server>().settings.document_limit;
        with_players(world, |world, players| {
            let mut documents = Vec::with_capacity(parties.len());
            for &entity in parties {
                let Some(Player::Live(live)) = players.get_mut(&entity) else {
                    return Err(Failure::Left);
                };
                let entity_ref = world.get_entity(entity).map_err(|_| Failure::Left)?;
                save::capture(types, live, entity_ref, since, limit).map_err(Failure::Unsavable)?;
                documents.push((entity, live.ticket, live.document.clone()));
            }
            for (entity, live) in live_players(players) {
                if let Ok(entity_ref) = world.get_entity(entity) {
                    // One that can't be encoded can't be watched either.
                    let _ = save::bring_up_to_date(types, live, entity_ref, since);
                }
            }
            Ok(Self {
                since,
                online: live_players(players).count(),
                parties: documents,
            })
        })
    }

    /// Looks at what has become of everybody, and brings the parties' documents up to date.
    fn judge(&self, world: &mut World, types: &DataTypes) -> Result<(), Failure> {
        let now = world.increment_change_tick();
        let limit = world.resource::<Server>().settings.document_limit;
        with_players(world, |world, players| {
            let mut changed = self.changed(world, types, players, 0).into_iter();
            if let Some((_, other)) = changed.find(|&(entity, _)| !self.is_party(entity)) {
                return Err(Failure::OthersChanged(other));
            }
            for &(entity, ticket, _) in &self.parties {
                let live = match players.get_mut(&entity) {
                    Some(Player::Live(live)) if live.ticket == ticket => live,
                    _ => return Err(Failure::Left),
                };
                let entity_ref = world.get_entity(entity).map_err(|_| Failure::Left)?;
                save::capture(types, live, entity_ref, now, limit).map_err(Failure::Unsavable)?;
            }
            // Nobody can have come meanwhile.
            if live_players(players).count() < self.online {
                return Err(Failure::OthersLeft);
            }
            Ok(())
        })
    }

    fn is_party(&self, entity: Entity) -> bool {
        self.parties.iter().any(|&(party, ..)| party == entity)
    }

    /// Who has other data than before, after so many rounds of putting it back.
    fn changed(
        &self,
        world: &World,
        types: &DataTypes,
        players: &EntityHashMap<Player>,
        round: usize,
    ) -> Vec<(Entity, PlayerId)> {
        let now = world.read_change_tick();
        let changed = |(&entity, player): (&Entity, &Player)| match player {
            // Whose document could not be brought up to date can't be judged.
            Player::Live(live) if live.captured == self.since => {
                let entity_ref = world.get_entity(entity).ok()?;
                let mut differences = differences(types, live, entity_ref, now, round);
                differences.next().map(|_| (entity, live.player))
            }
            _ => None,
        };
        players.iter().filter_map(changed).collect()
    }

    /// Puts everybody's data back. Who can't be put back leaves, with the data from before.
    fn put_back(&self, world: &mut World, types: &DataTypes) {
        with_players(world, |_, players| {
            for (entity, ticket, document) in &self.parties {
                if let Some(Player::Live(live)) = players.get_mut(entity)
                    && live.ticket == *ticket
                {
                    live.document = document.clone();
                    live.captured = self.since;
                }
            }
        });
        let mut hopeless: Vec<(Entity, PlayerId, String)> = Vec::new();
        // Observers of what is put back may change something else again.
        for round in 0..=MOST_ROUNDS {
            let changed = with_players(world, |world, players| self.changed(world, types, players, round));
            for (entity, player) in changed {
                if hopeless.iter().any(|&(given_up, ..)| given_up == entity) {
                    continue;
                }
                let done = match round {
                    MOST_ROUNDS => Err("the game's observers change it each time".to_owned()),
                    _ => catch_unwind(AssertUnwindSafe(|| put_back(world, types, entity, round)))
                        .map_err(|panic| panic_message(&*panic))
                        .and_then(|done| done.map_err(|error| error.to_string())),
                };
                if let Err(problem) = done {
                    hopeless.push((entity, player, problem));
                }
            }
        }
        self.all_is_as_before(world, &hopeless);
        for (entity, player, problem) in hopeless {
            error!("the data of player {player} can't be put back as it was, so the session ends: {problem}");
            let end = || leave::end(world, entity, SessionEnd::CommitRefused);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(end)) {
                error!("an observer of that panicked: {}", panic_message(&*panic));
            }
        }
    }

    /// The documents say what is so: what was put back is no change.
    fn all_is_as_before(&self, world: &mut World, hopeless: &[(Entity, PlayerId, String)]) {
        let now = world.increment_change_tick();
        with_players(world, |_, players| {
            for (entity, live) in live_players(players) {
                if live.captured == self.since && hopeless.iter().all(|&(given_up, ..)| given_up != entity) {
                    live.captured = now;
                }
            }
        });
    }
}

/// How often data is put back that observers change again and again.
const MOST_ROUNDS: usize = 8;

/// The types of which an entity has other data than its player's document, after so many rounds of putting it back.
///
/// What was put back may look different once it is encoded again (a map without order, data of a newer version), though
/// it says the same.
fn differences<'a>(
    types: &'a DataTypes,
    live: &'a LiveSession,
    entity: EntityRef<'a>,
    now: Tick,
    round: usize,
) -> impl Iterator<Item = &'a DataType> {
    let says_the_same = move |data_type: &DataType| {
        let Some(Entry::Value {
            version,
            oldest_reader,
            value,
        }) = live.document.get(data_type.key)
        else {
            return false;
        };
        let codec = &data_type.codec;
        let before = codec.store_again(*version, *oldest_reader, value.clone());
        match (before, codec.store(entity)) {
            (Ok(before), Some(Ok(now))) => before.is_equivalent(&now),
            _ => false,
        }
    };
    save::differences(types, live, entity, now)
        .filter(move |data_type| round == 0 || !says_the_same(data_type))
}

/// Makes an entity's components those of its player's document.
fn put_back(world: &mut World, types: &DataTypes, entity: Entity, round: usize) -> Result<(), DecodeError> {
    let now = world.increment_change_tick();
    let (Some(Player::Live(live)), Ok(entity_ref)) = (
        world.resource::<Server>().players.get(&entity),
        world.get_entity(entity),
    ) else {
        return Ok(());
    };
    let mut values: Vec<Box<dyn ComponentValue>> = Vec::new();
    let mut added = Vec::new();
    for data_type in differences(types, live, entity_ref, now, round) {
        match live.document.get(data_type.key) {
            Some(Entry::Value {
                version,
                oldest_reader,
                value,
            }) => {
                values.push(data_type.codec.load(*version, *oldest_reader, value.clone())?);
            }
            Some(Entry::Tombstone) | None => added.push(data_type.component),
        }
    }
    let mut entity_mut = world.entity_mut(entity);
    insert_together(&mut entity_mut, values);
    for component in added {
        // An observer may have despawned it.
        if entity_mut.is_despawned() {
            break;
        }
        entity_mut.remove_by_id(component);
    }
    world.flush();
    Ok(())
}

/// Takes the table of players out while `look` needs the world as well. No code of the game may run in it.
fn with_players<T>(world: &mut World, look: impl FnOnce(&World, &mut EntityHashMap<Player>) -> T) -> T {
    let mut players = std::mem::take(&mut world.resource_mut::<Server>().players);
    let looked = look(world, &mut players);
    world.resource_mut::<Server>().players = players;
    looked
}

fn live_players(players: &mut EntityHashMap<Player>) -> impl Iterator<Item = (Entity, &mut LiveSession)> {
    players.iter_mut().filter_map(|(&entity, player)| match player {
        Player::Live(live) => Some((entity, &mut **live)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::without_backtrace;

    #[test]
    fn an_error_is_told_without_its_backtrace() {
        let error = "no room:\n  2 too many\n   0: game::give\n             at ./game.rs:7:5\n   1: main\n\nnote: Some";
        assert_eq!(without_backtrace(error), "no room:\n  2 too many");
        assert_eq!(without_backtrace("no room\n"), "no room");
    }
}
