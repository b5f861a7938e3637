//! Leaving: the last capture, the final save, and what becomes of the entity.

use std::time::Duration;

use bevy::{
    ecs::{lifecycle::HookContext, world::DeferredWorld},
    prelude::*,
};
use tracing::error;

use super::{
    Closing, OnSessionLost, Player, Server, hand_off, purchases::answer, report::Report, save, types,
    wait::Waiters,
};
use crate::{
    id::PlayerId,
    player::{
        DisconnectKind, LoadError, OwnPurchases, PersistentPlayer, PlayerClient, PlayerFallback, PlayerSaved,
        PlayerSession, PlayerSessionEnded, SaveBlocked, SaveError, SaveUnderWay, SessionEnd, States,
    },
    replication,
};

/// Registers the hooks that notice the end (and the exact beginning) of a session.
pub(super) fn register_hooks(world: &mut World) {
    // The state is the first component of the load's insertion, so this hook runs before any other code can touch the
    // data: everything written after it is newer than what was loaded, observers of `On<Add, _>` included.
    world
        .register_component_hooks::<PlayerSession>()
        .on_add(begin_watching)
        .on_remove(on_session_removed);
    // Remove hooks run after all `Despawn` and `Remove` observers: what these change is still saved. (What the remove
    // hook of a game's own component changes may come too late.)
    world
        .register_component_hooks::<PersistentPlayer>()
        .on_remove(on_player_removed);
}

fn begin_watching(mut world: DeferredWorld, context: HookContext) {
    let loaded_at = world.as_unsafe_world_cell().increment_change_tick();
    if let Some(live) = world.resource_mut::<Server>().live_mut(context.entity) {
        live.captured = loaded_at;
    }
}

fn on_session_removed(mut world: DeferredWorld, context: HookContext) {
    let entity = context.entity;
    // The crate itself takes the player out of the table before it removes the component.
    if leave(&mut world, entity, SessionEnd::Left) {
        world.commands().entity(entity).try_remove::<PersistentPlayer>();
    }
}

fn on_player_removed(mut world: DeferredWorld, context: HookContext) {
    let entity = context.entity;
    leave(&mut world, entity, SessionEnd::Left);
    // Also of a load that was not even asked for yet.
    world
        .resource_mut::<Waiters>()
        .resolve(entity, &Err(LoadError::Left));
    world.commands().queue(move |world: &mut World| {
        if let Ok(mut entity) = world.get_entity_mut(entity) {
            be_nobody(&mut entity);
        }
    });
}

/// Takes off an entity what it was as the player who has left. An observer of that may despawn it.
pub(super) fn be_nobody(entity: &mut EntityWorldMut<'_>) {
    entity.remove::<States>();
    if !entity.is_despawned()
        && let Some(mut purchases) = entity.get_mut::<OwnPurchases>()
    {
        *purchases = OwnPurchases::default();
    }
}

/// Ends a player's load or session and tells the game.
///
/// Returns whether there was anything to end.
pub(super) fn leave(world: &mut DeferredWorld, entity: Entity, reason: SessionEnd) -> bool {
    let Some(player) = world.resource_mut::<Server>().take(entity) else {
        return false;
    };
    let reason = match &player {
        Player::Live(live) => live.ending.unwrap_or(reason),
        _ => reason,
    };
    if let Some(ended) = depart(world, entity, player, reason) {
        world.trigger(ended);
    }
    true
}

/// Ends the load or session of a player who was taken out of the table: captures, queues the final save, and answers
/// everybody who waits for the load.
///
/// Returns what the game has to be told.
pub(super) fn depart(
    world: &mut DeferredWorld,
    entity: Entity,
    player: Player,
    reason: SessionEnd,
) -> Option<PlayerSessionEnded> {
    match player {
        Player::Loading { player, .. } => {
            world
                .resource_mut::<Waiters>()
                .resolve(entity, &Err(LoadError::Left));
            answer::forsake(world, player, &[]);
            None
        }
        Player::Fallback { .. } => None,
        Player::Live(live) => {
            let player = live.player;
            close(world, entity, *live, reason);
            Some(PlayerSessionEnded {
                entity,
                player,
                reason,
            })
        }
    }
}

fn close(world: &mut DeferredWorld, entity: Entity, mut live: save::LiveSession, reason: SessionEnd) {
    let player = live.player;
    if reason == SessionEnd::LockLost {
        // There is nothing to save to and no lock to give back; dropping the session knows that.
        return answer::forsake(world, player, &[]);
    }
    let now = world.change_tick();
    let types = types(world);
    let server = world.resource::<Server>();
    let limit = server.settings.document_limit;
    let captured = match world.get_entity(entity) {
        // In the middle of an award or a trade, the player leaves with what was so before.
        Ok(entity) if server.deferred.is_none() => save::capture(&types, &mut live, entity, now, limit),
        // It went without a despawn (`World::clear_all`): what was captured last is what there is.
        _ => save::within_limit(&live.document, limit),
    };
    let (snapshot, refused) = match captured {
        Ok(()) => (Some(live.snapshot()), None),
        // The lock is given back all the same, and what was saved last stays.
        Err(error) => (None, Some(error)),
    };
    let (carried, departure) = (live.ledger.into_unsettled(), live.departure);
    answer::forsake(world, player, &carried);
    let mut server = world.resource_mut::<Server>();
    let ticket = server.ticket();
    server.closing.insert(
        ticket,
        Closing {
            player,
            entity,
            carried,
            departure,
        },
    );
    let reporter = server.reporter.clone();
    let asked = server.runtime.now();
    live.session.close(snapshot, move |result| {
        let result = match refused {
            Some(error) => Err(error),
            None => result.map(|_| ()).map_err(SaveError::from),
        };
        // Nobody is left to hear it after the app is gone.
        let took = asked.elapsed();
        let _ = reporter.send(Report::Closed { ticket, result, took });
    });
}

/// Takes in the answer to a final save.
pub(super) fn apply_closed(world: &mut World, ticket: u64, result: Result<(), SaveError>, took: Duration) {
    let closing = world.resource_mut::<Server>().closing.remove(&ticket);
    let Some(Closing {
        player,
        entity,
        carried,
        departure,
    }) = closing
    else {
        return;
    };
    save::note(world, player, &result, took);
    match &result {
        Ok(()) => {}
        Err(error @ SaveError::Unconfirmed) => {
            error!("player {player} has left, and the final save: {error}");
        }
        Err(error) => {
            error!("player {player} has left, and what changed since the last save is lost: {error}");
        }
    }
    world.trigger(PlayerSaved {
        entity,
        player,
        is_final: true,
        result: result.clone(),
    });
    world.flush();
    answer::announce_all(world, entity, player, carried, &result);
    if let Some(departure) = departure {
        hand_off::conclude(world, entity, player, departure, &result);
    }
}

/// Ends the session of an entity that is still there, for another reason than its own leaving, and does with it what
/// the settings say.
pub(super) fn end(world: &mut World, entity: Entity, reason: SessionEnd) {
    let server = world.resource::<Server>();
    let policy = server.settings.on_session_lost;
    let on_defaults = match reason {
        SessionEnd::Replaced => LoadError::SessionLocked {
            server: server.settings.name.clone(),
        },
        SessionEnd::CommitRefused => LoadError::Unavailable {
            message: reason.to_string(),
        },
        _ => LoadError::SessionLocked {
            server: "another server".to_owned(),
        },
    };
    // Who was still loading has nothing to play on.
    let loaded = server
        .players
        .get(&entity)
        .filter(|player| !matches!(player, Player::Loading { .. }));
    let player = loaded.map(Player::id);
    if reason == SessionEnd::Replaced && policy == OnSessionLost::Disconnect && player.is_some() {
        let kind = DisconnectKind::SessionEnded(reason);
        return despawn_because(world, entity, reason, |world| {
            disconnect_and_despawn(world, entity, kind, &reason.to_string());
        });
    }
    leave(&mut world.into(), entity, reason);
    world.flush();
    match (policy, player) {
        (OnSessionLost::KeepAsFallback, Some(player)) => keep_as_fallback(world, entity, player, on_defaults),
        _ => {
            let kind = DisconnectKind::SessionEnded(reason);
            disconnect_and_despawn(world, entity, kind, &reason.to_string());
        }
    }
}

pub(super) fn keep_as_fallback(world: &mut World, entity: Entity, player: PlayerId, reason: LoadError) {
    let Ok(mut entity_mut) = world.get_entity_mut(entity) else {
        return;
    };
    entity_mut.remove::<(PlayerSession, SaveBlocked, SaveUnderWay)>();
    // An observer of the session's end may have taken the player off, or have begun another load.
    let is_still_theirs =
        !entity_mut.is_despawned() && entity_mut.get::<PersistentPlayer>() == Some(&PersistentPlayer(player));
    if !is_still_theirs || world.resource::<Server>().waiting.contains(&entity) {
        return;
    }
    world.entity_mut(entity).insert(PlayerFallback::new(reason));
    world
        .resource_mut::<Server>()
        .players
        .insert(entity, Player::Fallback { player });
}

/// Has `despawn` end the session with this reason: like one that the player has ended, after all observers of the
/// despawn, so that what these change is saved.
pub(super) fn despawn_because(
    world: &mut World,
    entity: Entity,
    reason: SessionEnd,
    despawn: impl FnOnce(&mut World),
) {
    if let Some(live) = world.resource_mut::<Server>().into_inner().live_mut(entity) {
        live.ending = Some(reason);
    }
    despawn(world);
    // One whose entity was gone already ends here.
    leave(&mut world.into(), entity, reason);
    world.flush();
}

/// Tells the player's client why, disconnects it once that is on its way, and despawns the entity.
pub(super) fn disconnect_and_despawn(world: &mut World, entity: Entity, kind: DisconnectKind, reason: &str) {
    if let Some(&PlayerClient(client)) = world.get::<PlayerClient>(entity) {
        replication::disconnect_after_send(world, client, kind, reason);
    }
    if let Ok(entity) = world.get_entity_mut(entity) {
        entity.despawn();
    }
}
