//! Shutting down: the clients are told before the app exits.
//!
//! An [`AppExit`] ends the update in which it is written, and the transport hangs up in it, so whoever is to read a last
//! word has to be given it before.

use bevy::prelude::*;
use tracing::info;

use crate::replication::ReplicationServer;

/// Trigger this to end the server in good order: every client is told that the server is shutting down
/// ([`DisconnectKind::ServerExit`](crate::player::DisconnectKind::ServerExit)), and the app exits as soon as they have
/// read it, at the latest after the [farewell timeout](crate::replication::ReplicationSettings::farewell_timeout);
/// without clients it does so at once. On exit everybody is saved.
///
/// Signals do the same, see [`ServerSettings::handle_signals`](super::ServerSettings::handle_signals). After an
/// [`AppExit`] that the game writes itself everybody is saved as well, only the clients see their connection end
/// without a word.
#[derive(Event, Clone, Copy, Debug, Default)]
pub struct ShutDown;

/// Set while the clients read the last word.
#[derive(Resource)]
struct ShuttingDown;

pub(super) fn install(app: &mut App) {
    app.add_observer(announce)
        .add_systems(First, exit_when_all_know.run_if(resource_exists::<ShuttingDown>));
}

fn announce(
    _: On<ShutDown>,
    already: Option<Res<ShuttingDown>>,
    mut replication: ResMut<ReplicationServer>,
    mut exit: MessageWriter<AppExit>,
    mut commands: Commands,
) {
    if already.is_some() {
        return;
    }
    replication.announce_exit();
    if replication.all_have_taken_leave() {
        exit.write(AppExit::Success);
    } else {
        info!("telling the clients that the server is shutting down");
        commands.insert_resource(ShuttingDown);
    }
}

fn exit_when_all_know(
    replication: Res<ReplicationServer>,
    mut exit: MessageWriter<AppExit>,
    mut commands: Commands,
) {
    if replication.all_have_taken_leave() {
        exit.write(AppExit::Success);
        commands.remove_resource::<ShuttingDown>();
    }
}
