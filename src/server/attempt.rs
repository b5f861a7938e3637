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
    registry::{ComponentValue, DataTypes, DecodeError, insert_together},
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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped(why) => write!(f, "Bevy skipped the system: {why}"),
            // Without the backtrace that its own form may bring along.
            Self::Failed(error) => write!(f, "{}", error.to_string().trim_end()),
            Self::Panicked(message) => write!(f, "it panicked: {message}"),
            Self::Left => f.write_str("the player left meanwhile"),
            Self::Unsavable(error) => write!(f, "the data could not be saved afterwards: {error}"),
            Self::OthersChanged(player) => write!(
                f,
                "it changed the data of player {player} as well, who has no part in it"
            ),
        }
    }
}

/// What was so before.
struct Before {
    since: Tick,
    parties: Vec<(Entity, u64, Document)>,
}

/// What waits for the verdict.
pub(super) type Deferred = Box<dyn FnOnce(&mut World) + Send + Sync>;

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
        deferred(world);
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
                parties: documents,
            })
        })
    }

    /// Looks at what has become of everybody, and brings the parties' documents up to date.
    fn judge(&self, world: &mut World, types: &DataTypes) -> Result<(), Failure> {
        let now = world.increment_change_tick();
        let limit = world.resource::<Server>().settings.document_limit;
        with_players(world, |world, players| {
            if let Some(other) = self.changed_others(world, types, players, now).first() {
                return Err(Failure::OthersChanged(other.1));
            }
            for &(entity, ticket, _) in &self.parties {
                let live = match players.get_mut(&entity) {
                    Some(Player::Live(live)) if live.ticket == ticket => live,
                    _ => return Err(Failure::Left),
                };
                let entity_ref = world.get_entity(entity).map_err(|_| Failure::Left)?;
                save::capture(types, live, entity_ref, now, limit).map_err(Failure::Unsavable)?;
            }
            Ok(())
        })
    }

    /// Who is no party to it and has other data than before.
    fn changed_others(
        &self,
        world: &World,
        types: &DataTypes,
        players: &EntityHashMap<Player>,
        now: Tick,
    ) -> Vec<(Entity, PlayerId)> {
        let is_party = |entity| self.parties.iter().any(|&(party, ..)| party == entity);
        let others = players.iter().filter(|(entity, _)| !is_party(**entity));
        others
            .filter_map(|(&entity, player)| match player {
                // Whose document could not be brought up to date can't be judged.
                Player::Live(live) if live.captured == self.since => {
                    let entity_ref = world.get_entity(entity).ok()?;
                    save::differs(types, live, entity_ref, now).then_some((entity, live.player))
                }
                _ => None,
            })
            .collect()
    }

    /// Puts everybody's data back. Who can't be put back leaves, with the data from before.
    fn put_back(&self, world: &mut World, types: &DataTypes) {
        let now = world.change_tick();
        let mut changed: Vec<_> = with_players(world, |world, players| {
            for (entity, ticket, document) in &self.parties {
                if let Some(Player::Live(live)) = players.get_mut(entity)
                    && live.ticket == *ticket
                {
                    live.document = document.clone();
                    live.captured = self.since;
                }
            }
            self.changed_others(world, types, players, now)
        });
        let server = world.resource::<Server>();
        let parties = self
            .parties
            .iter()
            .filter(|(entity, ticket, _)| server.is_live(*entity, *ticket));
        changed.extend(parties.filter_map(|(entity, ..)| Some((*entity, server.players.get(entity)?.id()))));
        for (entity, player) in changed {
            let done = catch_unwind(AssertUnwindSafe(|| put_back(world, types, entity, self.since)));
            let problem = match done {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic_message(&*panic),
            };
            error!("the data of player {player} can't be put back as it was, so the session ends: {problem}");
            leave::end(world, entity, SessionEnd::CommitRefused);
        }
    }
}

/// Makes an entity's components those of the player's document, which is from `since`.
fn put_back(world: &mut World, types: &DataTypes, entity: Entity, since: Tick) -> Result<(), DecodeError> {
    let now = world.increment_change_tick();
    let (Some(Player::Live(live)), Ok(entity_ref)) = (
        world.resource::<Server>().players.get(&entity),
        world.get_entity(entity),
    ) else {
        return Ok(());
    };
    let mut values: Vec<Box<dyn ComponentValue>> = Vec::new();
    let mut added = Vec::new();
    for data_type in types.iter() {
        let ticks = entity_ref.get_change_ticks_by_id(data_type.component);
        match (live.document.get(data_type.key), ticks) {
            (Some(Entry::Value { .. }), Some(ticks)) if !save::may_have_changed(ticks, since, now) => {}
            (
                Some(Entry::Value {
                    version,
                    oldest_reader,
                    value,
                }),
                _,
            ) => values.push(data_type.codec.load(*version, *oldest_reader, value.clone())?),
            (Some(Entry::Tombstone) | None, Some(_)) => added.push(data_type.component),
            (Some(Entry::Tombstone) | None, None) => {}
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
