//! Noticing which players' public components changed, so that replication costs what changed and nothing more.

use bevy::{ecs::schedule::Schedules, prelude::*};

use crate::{player::PlayerClient, systems::PlayerDataSystems};

/// What changed since the log was last drained: the player's entity and the number of the public type.
///
/// An entry says "look again", nothing more: the component may have changed twice or be gone by now.
#[derive(Resource, Default)]
pub(crate) struct ChangeLog(pub(crate) Vec<(Entity, u16)>);

/// Adds the system that notes changes of `T` on players with a client.
pub(super) fn add_tracker<T: Component>(schedules: &mut Schedules, index: u16) {
    let note_changes = move |changed: Query<Entity, (Changed<T>, With<PlayerClient>)>,
                             mut removed: RemovedComponents<T>,
                             players: Query<(), With<PlayerClient>>,
                             mut log: ResMut<ChangeLog>| {
        for entity in &changed {
            log.0.push((entity, index));
        }
        for entity in removed.read().filter(|&entity| players.contains(entity)) {
            log.0.push((entity, index));
        }
    };
    schedules.add_systems(PostUpdate, note_changes.in_set(PlayerDataSystems::Capture));
}
