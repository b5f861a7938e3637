//! Joining: from a connection to an entity, and from an entity to a load.

use bevy::{platform::collections::HashMap, prelude::*};
use bevy_renet::{
    RenetServer, RenetServerEvent,
    renet::{ClientId, ServerEvent},
};
use tracing::debug;

use super::{Player, Server, leave, load, types};
use crate::player::{PersistentPlayer, PlayerClient, PlayerLoading, SessionEnd};

/// Queues a load for each entity that becomes a player.
pub(super) fn start_loading(
    insert: On<Insert, PersistentPlayer>,
    persistent: Query<&PersistentPlayer>,
    mut server: ResMut<Server>,
    mut commands: Commands,
) {
    let entity = insert.entity;
    let Ok(&PersistentPlayer(player)) = persistent.get(entity) else {
        return;
    };
    match server.players.get(&entity) {
        None => server.waiting.push(entity),
        Some(Player::Loading { player: same, .. }) if *same == player => {}
        // Nothing changes; the insertion has brought the loading state along.
        Some(tracked) if tracked.id() == player => {
            commands.entity(entity).try_remove::<PlayerLoading>();
        }
        Some(_) => commands.queue(move |world: &mut World| become_another_player(world, entity)),
    }
}

/// The game replaced an entity's [`PersistentPlayer`]: the old player leaves, and nothing of theirs stays behind.
fn become_another_player(world: &mut World, entity: Entity) {
    leave::leave(&mut world.into(), entity, SessionEnd::Left);
    let types = types(world);
    let Ok(mut entity_mut) = world.get_entity_mut(entity) else {
        return;
    };
    leave::be_nobody(&mut entity_mut);
    load::take_data_off(&mut entity_mut, &types);
    // Observers of all this may have sent the new player away.
    if !entity_mut.is_despawned() && entity_mut.contains::<PersistentPlayer>() {
        entity_mut.insert(PlayerLoading::new());
        world.resource_mut::<Server>().waiting.push(entity);
    }
}

/// The entities that auto-join has spawned for the connected clients.
#[derive(Resource, Default)]
struct JoinedClients(HashMap<ClientId, Entity>);

pub(super) fn install_auto_join(app: &mut App) {
    app.init_resource::<JoinedClients>().add_observer(auto_join);
}

fn auto_join(event: On<RenetServerEvent>, mut commands: Commands) {
    match **event {
        ServerEvent::ClientConnected { client_id } => {
            commands.queue(move |world: &mut World| join(world, client_id));
        }
        ServerEvent::ClientDisconnected { client_id, reason } => {
            debug!("client {client_id} disconnected: {reason}");
            commands.queue(move |world: &mut World| {
                let entity = world.resource_mut::<JoinedClients>().0.remove(&client_id);
                // It may be gone already, for instance because the same player has joined from elsewhere.
                if let Some(Ok(entity)) = entity.map(|entity| world.get_entity_mut(entity)) {
                    entity.despawn();
                }
            });
        }
    }
}

fn join(world: &mut World, client: ClientId) {
    let identify = world.resource::<Server>().settings.identify.clone();
    if let Some(player) = identify.ask(client, world) {
        debug!("client {client} is player {player}");
        let entity = world.spawn((PlayerClient(client), PersistentPlayer(player))).id();
        world.resource_mut::<JoinedClients>().0.insert(client, entity);
    } else {
        debug!("client {client} can't be matched with a player: disconnecting it");
        if let Some(mut server) = world.get_resource_mut::<RenetServer>() {
            server.disconnect(client);
        }
    }
}
