//! Loading: from a player entity to its data, or to defaults.

use std::sync::Arc;

use bevy::{ecs::change_detection::Tick, prelude::*};
use tracing::warn;

use super::{
    OnLoadFailure, Player, Server, ServerStats, leave,
    report::Report,
    save::LiveSession,
    types,
    wait::Waiters,
};
use crate::{
    document::{Document, Entry},
    id::PlayerId,
    player::{
        LoadError, PersistentPlayer, PlayerFallback, PlayerLoadFailed, PlayerLoaded, PlayerLoading, PlayerSession,
        SessionEnd,
    },
    registry::{ComponentValue, DataType, DataTypes, DecodeError, insert_together},
    session::{OpenError, Opened, Session},
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
    }
    let types = types(world);
    let mut server = world.resource_mut::<Server>();
    let ticket = server.ticket();
    let reporter = server.reporter.clone();
    let opening = server.sessions.open(player, move |result| {
        let result = result.map_err(LoadError::from).and_then(|opened| decode(&types, opened));
        // Nobody is left to hear it after the app is gone; dropping the session then gives the lock back.
        let _ = reporter.send(Report::Loaded { entity, ticket, result });
    });
    server.players.insert(entity, Player::Loading { player, ticket, _opening: opening });
    server.entity_of.insert(player, entity);
}

/// Turns a document into components, off the main thread. Gives the lock back when that fails.
fn decode(types: &DataTypes, opened: Opened) -> Result<Loaded, LoadError> {
    let Opened { session, document, first_join, .. } = opened;
    match decode_values(types, &document) {
        Ok(values) => Ok(Loaded { session, document, values, first_join }),
        Err(error) => {
            session.close(None, |_| ());
            Err(error)
        }
    }
}

fn decode_values(types: &DataTypes, document: &Document) -> Result<Vec<Box<dyn ComponentValue>>, LoadError> {
    types
        .iter()
        .filter_map(|data_type| match document.get(data_type.key) {
            Some(Entry::Value { version, oldest_reader, value }) => {
                let loaded = data_type.codec.load(*version, *oldest_reader, value.clone());
                Some(loaded.map_err(|error| load_error(data_type, &error)))
            }
            Some(Entry::Tombstone) | None => data_type.codec.default_value().map(Ok),
        })
        .collect()
}

fn load_error(data_type: &DataType, error: &DecodeError) -> LoadError {
    let message = format!("key `{}` (`{}`): {error}", data_type.key, data_type.type_name);
    match error {
        DecodeError::NewerVersion { .. } | DecodeError::UnknownField(_) => LoadError::Newer { message },
        DecodeError::Value(_) | DecodeError::Migrate { .. } => LoadError::Corrupt { message },
    }
}

/// Puts the outcome of a load onto its entity, if that still waits for it.
pub(super) fn apply(world: &mut World, entity: Entity, ticket: u64, result: Result<Loaded, LoadError>) {
    let mut server = world.resource_mut::<Server>();
    let Some(&Player::Loading { player, ticket: awaited, .. }) = server.players.get(&entity) else {
        return; // Left meanwhile: dropping the session gives the lock back.
    };
    if awaited != ticket {
        return;
    }
    match result {
        Ok(loaded) => {
            let Loaded { session, document, values, first_join } = loaded;
            let live = LiveSession::new(player, session, document, Tick::new(0));
            server.players.insert(entity, Player::Live(Box::new(live)));
            put_on(world, entity, Box::new(PlayerSession::new(first_join)), values);
            if world.resource_mut::<Server>().live_mut(entity).is_none() {
                return; // An observer of the new components sent the player away.
            }
            world.resource_mut::<ServerStats>().loads += 1;
            super::autosave::begin(world, entity);
            let event = PlayerLoaded { entity, player, first_join };
            world.resource_mut::<Waiters>().resolve(entity, &Ok(event.clone()));
            world.trigger(event);
        }
        Err(error) => fail(world, entity, player, error),
    }
    world.flush();
}

fn fail(world: &mut World, entity: Entity, player: PlayerId, error: LoadError) {
    warn!("player {player} could not be loaded: {error}");
    let mut server = world.resource_mut::<Server>();
    let reaction = (server.settings.on_load_failure)(&error);
    server.players.insert(entity, Player::Fallback { player });
    world.resource_mut::<ServerStats>().load_failures += 1;
    if reaction == OnLoadFailure::Fallback {
        become_fallback(world, entity, error.clone());
    }
    world.resource_mut::<Waiters>().resolve(entity, &Err(error.clone()));
    world.trigger(PlayerLoadFailed { entity, player, error: error.clone() });
    if reaction == OnLoadFailure::Disconnect {
        leave::disconnect_and_despawn(world, entity, &error.for_player().to_string());
    }
}

/// Puts defaults onto the entity.
fn become_fallback(world: &mut World, entity: Entity, reason: LoadError) {
    let defaults = types(world).iter().filter_map(|data_type| data_type.codec.default_value()).collect();
    put_on(world, entity, Box::new(PlayerFallback::new(reason)), defaults);
}

/// Gives the entity its state and exactly these data components, all at once.
fn put_on(
    world: &mut World,
    entity: Entity,
    state: Box<dyn ComponentValue>,
    values: Vec<Box<dyn ComponentValue>>,
) {
    let types: Arc<DataTypes> = types(world);
    let Ok(mut entity) = world.get_entity_mut(entity) else { return };
    entity.remove::<PlayerLoading>();
    for data_type in types.iter() {
        if entity.is_despawned() {
            return; // An observer of one of these removals did it.
        }
        // What the game put there before the load was never the player's.
        entity.remove_by_id(data_type.component);
    }
    if entity.is_despawned() {
        return;
    }
    // The state goes first: its hook has to run before those of the game's components, see `leave::register_hooks`.
    insert_together(&mut entity, std::iter::once(state).chain(values));
}

impl From<OpenError> for LoadError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::SessionLocked { server, .. } => Self::SessionLocked { server },
            OpenError::Corrupt { message, .. } => Self::Corrupt { message },
            OpenError::Newer { message, .. } => Self::Newer { message },
            OpenError::Cancelled { .. } => Self::Left,
            other => Self::Unavailable { message: other.to_string() },
        }
    }
}
