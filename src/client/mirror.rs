//! The entity that shows the player's data: what each message from the server does to it.

use std::{collections::BTreeMap, time::Duration};

use bevy::{ecs::component::ComponentId, prelude::*};
use bytes::Bytes;
use tracing::error;

use super::{LastSaveFailed, connection::Mirror};
use crate::{
    player::{
        LoadDelayed, OwnPlayer, PlayerFallback, PlayerLoadFailed, PlayerLoaded, PlayerLoading, PlayerSaved,
        PlayerSession, PlayerSessionEnded, PurchaseProcessed, SaveBlocked, SaveError, SaveUnderWay,
    },
    registry::{ComponentValue, insert_together},
    replication::{
        PublicTypes,
        protocol::{Outcome, PurchaseNews, ToClient},
    },
};

/// Tells our mirrors from entities to which the game itself gave an [`OwnPlayer`].
#[derive(Component)]
pub(super) struct Mirrored;

/// The local player's entity that is not a mirror: there is one where the game is played on its own server.
pub(super) type Foreign = (With<OwnPlayer>, Without<Mirrored>);

pub(super) fn spawn(commands: &mut Commands) -> Entity {
    commands.spawn((OwnPlayer, Mirrored, PlayerLoading::new())).id()
}

/// Despawns the mirror, if the game has not done so.
pub(super) fn despawn(commands: &mut Commands, mirror: Entity) {
    commands.entity(mirror).try_despawn();
}

/// Does to the mirror what `message` says. `is_first` notes a type whose bytes could not be read, and returns whether
/// that is news.
pub(super) fn update(
    commands: &mut Commands,
    mirror: Mirror,
    types: &PublicTypes,
    is_first: &mut dyn FnMut(u16) -> bool,
    message: ToClient,
) {
    let Mirror { entity, player } = mirror;
    match message {
        ToClient::Loaded { outcome, values } => {
            let read = values
                .into_iter()
                .filter_map(|(index, bytes)| Some((index, read(types, is_first, index, &bytes)?)));
            load(commands, mirror, outcome, read.collect());
        }
        ToClient::LoadFailed { error } => commands.trigger(PlayerLoadFailed {
            entity,
            player,
            error,
        }),
        ToClient::LoadDelayed { reason, gives_up_in } => {
            let delayed = LoadDelayed::new(reason, Duration::from_millis(gives_up_in.into()));
            commands
                .entity(entity)
                .queue_silenced(move |mut entity: EntityWorldMut<'_>| {
                    if entity.contains::<PlayerLoading>() {
                        entity.insert(delayed);
                    }
                });
        }
        ToClient::Saving => {
            commands.entity(entity).try_insert(SaveUnderWay::new());
        }
        ToClient::Saved {
            is_final,
            result,
            is_saving,
        } => {
            note_save(commands, entity, &result);
            if is_saving {
                commands.entity(entity).try_insert(SaveUnderWay::new());
            } else {
                commands.entity(entity).try_remove::<SaveUnderWay>();
            }
            commands.trigger(PlayerSaved {
                entity,
                player,
                is_final,
                result,
            });
        }
        ToClient::Blocked { reason: Some(reason) } => {
            commands.entity(entity).try_insert(SaveBlocked::new(reason));
        }
        ToClient::Blocked { reason: None } => {
            commands.entity(entity).try_remove::<SaveBlocked>();
        }
        ToClient::Purchase(PurchaseNews {
            purchase,
            product,
            decision,
        }) => commands.trigger(PurchaseProcessed {
            entity,
            player,
            purchase,
            product,
            decision,
        }),
        ToClient::Ended { reason } => {
            if let Some(reason) = reason {
                commands.trigger(PlayerSessionEnded {
                    entity,
                    player,
                    reason,
                });
            }
            despawn(commands, entity);
        }
        ToClient::Refused { .. }
        | ToClient::Welcome
        | ToClient::Goodbye { .. }
        | ToClient::GoTo { .. }
        | ToClient::Loading { .. } => {
            unreachable!("not about a mirror that is there")
        }
    }
}

/// By the number of a public type. Should a message speak of one twice, its last word counts: Bevy panics when a
/// component is inserted, or removed, twice at once.
type ByType<T> = BTreeMap<u16, T>;

/// Reads a value. One that can't be read leaves the last good one in place.
fn read(
    types: &PublicTypes,
    is_first: &mut dyn FnMut(u16) -> bool,
    index: u16,
    bytes: &[u8],
) -> Option<Box<dyn ComponentValue>> {
    let data_type = types.get(index)?;
    data_type
        .codec
        .read_wire(bytes)
        .inspect_err(|problem| {
            if is_first(index) {
                let (key, name) = (data_type.key, data_type.type_name);
                error!(
                    "the server's value of `{key}` (`{name}`) can't be read, so the last one that could stays: \
                     {problem}; does the server have another `{name}` with the same `VERSION`?"
                );
            }
        })
        .ok()
}

fn load(commands: &mut Commands, mirror: Mirror, outcome: Outcome, values: ByType<Box<dyn ComponentValue>>) {
    let Mirror { entity, player } = mirror;
    let state: Box<dyn ComponentValue> = match &outcome {
        Outcome::Session { first_join } => Box::new(PlayerSession::new(*first_join)),
        Outcome::Fallback { reason } => Box::new(PlayerFallback::new(reason.clone())),
    };
    commands.queue(move |world: &mut World| {
        let Ok(mut entity) = world.get_entity_mut(entity) else {
            return;
        };
        // All of them: whatever a server says, and however often, a player is in one state.
        entity.remove::<(PlayerLoading, LoadDelayed, PlayerSession, PlayerFallback)>();
        if !entity.is_despawned() {
            insert_together(&mut entity, std::iter::once(state).chain(values.into_values()));
        }
    });
    match outcome {
        Outcome::Session { first_join } => commands.trigger(PlayerLoaded {
            entity,
            player,
            first_join,
        }),
        Outcome::Fallback { reason: error } => commands.trigger(PlayerLoadFailed {
            entity,
            player,
            error,
        }),
    }
}

/// Gives the mirror the values that have changed.
pub(super) fn change(
    commands: &mut Commands,
    mirror: Entity,
    types: &PublicTypes,
    is_first: &mut dyn FnMut(u16) -> bool,
    values: Vec<(u16, Option<Bytes>)>,
) {
    let mut changes = ByType::new();
    for (index, bytes) in values {
        match bytes {
            Some(bytes) => {
                if let Some(value) = read(types, is_first, index, &bytes) {
                    changes.insert(index, Some(value));
                }
            }
            None => {
                changes.insert(index, None);
            }
        }
    }
    let mut new = Vec::new();
    let mut gone: Vec<ComponentId> = Vec::new();
    for (index, value) in changes {
        match value {
            Some(value) => new.push(value),
            None => gone.extend(types.get(index).map(|data_type| data_type.component)),
        }
    }
    commands.queue(move |world: &mut World| {
        let Ok(mut entity) = world.get_entity_mut(mirror) else {
            return;
        };
        entity.remove_by_ids(&gone);
        if !entity.is_despawned() {
            insert_together(&mut entity, new);
        }
    });
}

/// Keeps the mark of a failed save. Saves that were not needed are neither failed nor done.
fn note_save(commands: &mut Commands, mirror: Entity, result: &Result<(), SaveError>) {
    match result {
        Ok(()) => commands.entity(mirror).try_remove::<LastSaveFailed>(),
        Err(SaveError::Skipped | SaveError::NoSession) => return,
        Err(reason) => commands.entity(mirror).try_insert(LastSaveFailed {
            reason: reason.clone(),
        }),
    };
}
