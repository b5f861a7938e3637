//! Where this crate's systems run, for games that order their own before or after them, and run conditions for games
//! that wait for their own player's data.

use bevy::prelude::*;
use bevy_renet::{RenetReceive, RenetSend};

use crate::player::{OwnPlayer, PlayerFallback, PlayerLoading, PlayerSession};

/// The crate's system sets.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlayerDataSystems {
    /// In [`PreUpdate`], after `RenetReceive`: reads messages from the network.
    Receive,
    /// In [`PreUpdate`], after [`Receive`](Self::Receive): starts loads and puts loaded data onto entities.
    Load,
    /// In [`PostUpdate`]: notes what changed and hands it to saves that are due.
    Capture,
    /// In [`PostUpdate`], after [`Capture`](Self::Capture) and before `RenetSend`: sends what changed to its owner.
    Send,
}

/// Puts the sets in their order. May be called more than once.
pub(crate) fn configure(app: &mut App) {
    app.configure_sets(
        PreUpdate,
        (
            PlayerDataSystems::Receive.after(RenetReceive),
            PlayerDataSystems::Load,
        )
            .chain(),
    )
    .configure_sets(
        PostUpdate,
        (
            PlayerDataSystems::Capture,
            PlayerDataSystems::Send.before(RenetSend),
        )
            .chain(),
    );
}

/// Run condition: the local player's data is being loaded.
///
/// Like the other conditions here it looks at the entity with [`OwnPlayer`], which is the mirror on a client and the
/// host's own entity on a listen server.
///
/// ```
/// # use bevy::prelude::*;
/// # use bevy_player_data::{prelude::*, systems::{own_player_loaded, own_player_loading}};
/// # #[derive(States, Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
/// # enum Screen { #[default] Connecting, Loading, Playing }
/// fn screens(app: &mut App) {
///     app.add_systems(
///         Update,
///         (
///             (|mut next: ResMut<NextState<Screen>>| next.set(Screen::Loading)).run_if(own_player_loading),
///             (|mut next: ResMut<NextState<Screen>>| next.set(Screen::Playing)).run_if(own_player_loaded),
///         ),
///     );
/// }
/// ```
pub fn own_player_loading(players: Query<(), (With<OwnPlayer>, With<PlayerLoading>)>) -> bool {
    !players.is_empty()
}

/// Run condition: the local player's data is loaded, with a session.
pub fn own_player_loaded(players: Query<(), (With<OwnPlayer>, With<PlayerSession>)>) -> bool {
    !players.is_empty()
}

/// Run condition: the local player's data could not be loaded, and they play on defaults that are never saved.
pub fn own_player_on_fallback(players: Query<(), (With<OwnPlayer>, With<PlayerFallback>)>) -> bool {
    !players.is_empty()
}
