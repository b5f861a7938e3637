//! Loading: from a player entity to its data, or to defaults.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bevy::{ecs::change_detection::Tick, prelude::*};
use tracing::warn;

use super::{
    OnLoadFailure, Player, Server, ServerStats,
    agenda::elapsed,
    leave,
    purchases::{answer, deliver},
    report::Report,
    save::LiveSession,
    types,
    wait::Waiters,
};
use crate::{
    document::{Document, Entry},
    id::PlayerId,
    player::{
        DisconnectKind, LoadDelayed, LoadError, PersistentPlayer, PlayerFallback, PlayerLoadFailed,
        PlayerLoaded, PlayerLoading, PlayerSession, SessionEnd,
    },
    registry::{ComponentValue, DataType, DataTypes, DecodeError, insert_together},
    session::{Delay, OpenError, Opened, Session},
};

/// What a successful load brings to the main thread.
pub(super) struct Loaded {
    session: Session,
    document: Document,
    values: Vec<Box<dyn ComponentValue>>,
    first_join: bool,
}

/// Asks for the data of every player that was spawned since the last update.
pub(super) fn start_waiting_loads(world: &mut World) {
    let waiting = std::mem::take(&mut world.resource_mut::<Server>().waiting);
    for entity in waiting {
        if let Some(&PersistentPlayer(player)) = world.get::<PersistentPlayer>(entity) {
            start_load(world, entity, player);
        }
    }
}

fn start_load(world: &mut World, entity: Entity, player: PlayerId) {
    let server = world.resource::<Server>();
    if server.exiting || server.players.contains_key(&entity) {
        return;
    }
    if let Some(&older) = server.entity_of.get(&player) {
        // The final save is queued here, ahead of the load below: the newcomer gets what the older one leaves.
        leave::end(world, older, SessionEnd::Replaced);
        // The game was told, and may have sent the newcomer away. (One that became another player waits again.)
        if world.get(entity) != Some(&PersistentPlayer(player)) {
            return;
        }
    }
    let types = types(world);
    let mut server = world.resource_mut::<Server>();
    let ticket = server.ticket();
    let (delays, reporter) = (server.reporter.clone(), server.reporter.clone());
    let delayed = move |delay: Delay| {
        let delayed = LoadDelayed::new(delay.reason.into(), delay.gives_up_in);
        // Nobody is left to hear it after the app is gone.
        let _ = delays.send(Report::LoadDelayed {
            entity,
            ticket,
            delayed,
        });
    };
    let opening = server.sessions.open_telling(player, delayed, move |result| {
        let result = result
            .map_err(LoadError::from)
            .and_then(|opened| decode(&types, opened));
        // Nobody is left to hear it after the app is gone; dropping the session then gives the lock back.
        let _ = reporter.send(Report::Loaded {
            entity,
            ticket,
            result,
        });
    });
    server.players.insert(
        entity,
        Player::Loading {
            player,
            ticket,
            _opening: opening,
        },
    );
    server.entity_of.insert(player, entity);
}

/// Turns a document into components, off the main thread. Gives the lock back when that fails.
fn decode(types: &DataTypes, opened: Opened) -> Result<Loaded, LoadError> {
    let Opened {
        session,
        document,
        first_join,
        ..
    } = opened;
    match decode_values(types, &document) {
        Ok(values) => Ok(Loaded {
            session,
            document,
            values,
            first_join,
        }),
        Err(error) => {
            session.close(None, |_| ());
            Err(error)
        }
    }
}

fn decode_values(types: &DataTypes, document: &Document) -> Result<Vec<Box<dyn ComponentValue>>, LoadError> {
    types
        .iter()
        .filter_map(|data_type| {
            // A panic here would leave the load without an answer.
            catch_unwind(AssertUnwindSafe(|| decode_value(data_type, document)))
                .unwrap_or(Some(Err(DecodeError::Panicked)))
                .map(|decoded| decoded.map_err(|error| load_error(data_type, &error)))
        })
        .collect()
}

/// The component as it is stored, or its default; `None` for an optional one that the player doesn't have.
fn decode_value(
    data_type: &DataType,
    document: &Document,
) -> Option<Result<Box<dyn ComponentValue>, DecodeError>> {
    match document.get(data_type.key) {
        Some(Entry::Value {
            version,
            oldest_reader,
            value,
        }) => Some(data_type.codec.load(*version, *oldest_reader, value.clone())),
        Some(Entry::Tombstone) | None => data_type.codec.default_value().map(Ok),
    }
}

fn load_error(data_type: &DataType, error: &DecodeError) -> LoadError {
    let message = format!("key `{}` (`{}`): {error}", data_type.key, data_type.type_name);
    match error {
        DecodeError::NewerVersion { .. } | DecodeError::UnknownField(_) => LoadError::Newer { message },
        DecodeError::Value(_) | DecodeError::Migrate { .. } | DecodeError::Panicked => {
            LoadError::Corrupt { message }
        }
    }
}

/// Puts the outcome of a load onto its entity, if that still waits for it.
pub(super) fn apply(world: &mut World, entity: Entity, ticket: u64, result: Result<Loaded, LoadError>) {
    // Who has left meanwhile waits for nothing; dropping the session gives the lock back.
    if let Some(player) = awaiting(world, entity, ticket) {
        match result {
            Ok(loaded) => succeed(world, entity, player, ticket, loaded),
            Err(error) => fail(world, entity, player, ticket, error),
        }
        world.flush();
    }
}

/// Shows on the entity why its load takes long, if it still waits for it.
pub(super) fn apply_delayed(world: &mut World, entity: Entity, ticket: u64, delayed: LoadDelayed) {
    if awaiting(world, entity, ticket).is_some()
        && let Ok(mut entity) = world.get_entity_mut(entity)
    {
        entity.insert(delayed);
    }
}

/// The player of an entity that still waits for this very load.
fn awaiting(world: &World, entity: Entity, awaited: u64) -> Option<PlayerId> {
    match world.resource::<Server>().players.get(&entity) {
        Some(&Player::Loading { player, ticket, .. }) if ticket == awaited => Some(player),
        _ => None,
    }
}

fn succeed(world: &mut World, entity: Entity, player: PlayerId, ticket: u64, loaded: Loaded) {
    let Loaded {
        session,
        document,
        values,
        first_join,
    } = loaded;
    if !make_room(world, entity, ticket) {
        return;
    }
    // Only now: to whoever captured the player any earlier, all of the data would look removed.
    let live = LiveSession::new(player, ticket, session, document, Tick::new(0), elapsed(world));
    world
        .resource_mut::<Server>()
        .players
        .insert(entity, Player::Live(Box::new(live)));
    put_on(world, entity, Box::new(PlayerSession::new(first_join)), values);
    if world.resource_mut::<Server>().live_mut(entity).is_none() {
        return; // An observer of the new components sent the player away.
    }
    world.resource_mut::<ServerStats>().loads += 1;
    super::autosave::begin(world, entity, ticket);
    deliver::fetch(world, entity);
    let event = PlayerLoaded {
        entity,
        player,
        first_join,
    };
    world
        .resource_mut::<Waiters>()
        .resolve(entity, &Ok(event.clone()));
    world.trigger(event);
}

fn fail(world: &mut World, entity: Entity, player: PlayerId, ticket: u64, error: LoadError) {
    warn!("player {player} could not be loaded: {error}");
    let reaction = (world.resource::<Server>().settings.on_load_failure)(&error);
    world.resource_mut::<ServerStats>().load_failures += 1;
    if reaction == OnLoadFailure::Fallback && !make_room(world, entity, ticket) {
        return;
    }
    world
        .resource_mut::<Server>()
        .players
        .insert(entity, Player::Fallback { player });
    if reaction == OnLoadFailure::Fallback {
        let defaults = types(world)
            .iter()
            .filter_map(|data_type| data_type.codec.default_value())
            .collect();
        put_on(
            world,
            entity,
            Box::new(PlayerFallback::new(error.clone())),
            defaults,
        );
    }
    world
        .resource_mut::<Waiters>()
        .resolve(entity, &Err(error.clone()));
    answer::forsake(&mut world.into(), player, &[]);
    world.trigger(PlayerLoadFailed {
        entity,
        player,
        error: error.clone(),
    });
    if reaction == OnLoadFailure::Disconnect {
        let kind = DisconnectKind::LoadFailed(error.kind());
        leave::disconnect_and_despawn(world, entity, kind, &error.for_player().to_string());
    }
}

/// Ends the loading state, and takes off what the game put there before the load, which was never the player's.
///
/// Returns whether the entity still waits for the load: observers of these removals may have sent it away.
fn make_room(world: &mut World, entity: Entity, ticket: u64) -> bool {
    let types = types(world);
    if let Ok(mut entity) = world.get_entity_mut(entity) {
        entity.remove::<(PlayerLoading, LoadDelayed)>();
        take_data_off(&mut entity, &types);
    }
    awaiting(world, entity, ticket).is_some()
}

/// Removes all data components. An observer of a removal may despawn the entity.
pub(super) fn take_data_off(entity: &mut EntityWorldMut<'_>, types: &DataTypes) {
    for data_type in types.iter() {
        if entity.is_despawned() {
            return;
        }
        entity.remove_by_id(data_type.component);
    }
}

/// Gives the entity its state and its data components, all at once.
fn put_on(
    world: &mut World,
    entity: Entity,
    state: Box<dyn ComponentValue>,
    values: Vec<Box<dyn ComponentValue>>,
) {
    if let Ok(mut entity) = world.get_entity_mut(entity) {
        // The state goes first: its hook has to run before those of the game's components, see
        // `leave::register_hooks`.
        insert_together(&mut entity, std::iter::once(state).chain(values));
    }
}

impl From<OpenError> for LoadError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::SessionLocked { server, .. } => Self::SessionLocked { server },
            OpenError::Corrupt { message, .. } => Self::Corrupt { message },
            OpenError::Newer { message, .. } => Self::Newer { message },
            OpenError::Cancelled { .. } => Self::Left,
            other => Self::Unavailable {
                message: other.to_string(),
            },
        }
    }
}
