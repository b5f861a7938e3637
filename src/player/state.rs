//! The states that a player's entity is in, as components that only this crate can construct.

use std::time::Duration;

use bevy::{platform::time::Instant, prelude::*};

use super::{LoadError, SaveError};

/// The player's data is being loaded; no persisted component is on the entity yet.
#[derive(Component, Reflect, Clone, Copy, Debug)]
#[type_path = "bevy_player_data::player"]
#[component(immutable, clone_behavior = Ignore)]
#[reflect(from_reflect = false)]
pub struct PlayerLoading(());

/// The player's data is loaded. On the server: the session lock is held and the data will be saved.
///
/// Code that moves value between players must query `With<PlayerSession>` on both sides, or one side of the deal may
/// be a [`PlayerFallback`] that is never saved.
#[derive(Component, Reflect, Clone, Copy, Debug)]
#[type_path = "bevy_player_data::player"]
#[component(immutable, clone_behavior = Ignore)]
#[reflect(from_reflect = false)]
pub struct PlayerSession {
    first_join: bool,
}

/// Loading failed: the player plays on default values, which are never saved.
#[derive(Component, Reflect, Clone, Debug)]
#[type_path = "bevy_player_data::player"]
#[component(immutable, clone_behavior = Ignore)]
#[reflect(from_reflect = false)]
pub struct PlayerFallback {
    reason: LoadError,
}

/// The store refuses this player's data (see [`reason`](Self::reason)); what has changed since the last save is in
/// memory only. It goes away once the data, as it is by then, is saved.
#[derive(Component, Reflect, Clone, Debug)]
#[type_path = "bevy_player_data::player"]
#[component(immutable, clone_behavior = Ignore)]
#[reflect(from_reflect = false)]
pub struct SaveBlocked {
    reason: SaveError,
}

/// While a player [is loading](PlayerLoading): something stands in the way, and the load goes on being tried.
///
/// It is inserted anew whenever the [reason](Self::reason) changes, and goes with [`PlayerLoading`].
#[derive(Component, Reflect, Clone, Debug)]
#[type_path = "bevy_player_data::player"]
#[component(immutable, storage = "SparseSet", clone_behavior = Ignore)]
#[reflect(from_reflect = false)]
pub struct LoadDelayed {
    reason: LoadError,
    gives_up_in: Duration,
    #[reflect(ignore)]
    since: Instant,
}

/// A save of the player is on its way to the store. It goes when no save is any more, whatever became of them; then
/// [`PlayerSaved`](super::PlayerSaved) tells.
///
/// On the server it is kept only where there is somebody to show it to: on entities with a
/// [`PlayerClient`](super::PlayerClient) or [`OwnPlayer`](super::OwnPlayer).
#[derive(Component, Reflect, Clone, Copy, Debug)]
#[type_path = "bevy_player_data::player"]
#[component(immutable, storage = "SparseSet", clone_behavior = Ignore)]
#[reflect(from_reflect = false)]
pub struct SaveUnderWay(());

impl PlayerLoading {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

impl PlayerSession {
    pub(crate) const fn new(first_join: bool) -> Self {
        Self { first_join }
    }

    /// Whether nothing was ever saved for this player before this session.
    #[must_use]
    pub const fn first_join(&self) -> bool {
        self.first_join
    }
}

impl PlayerFallback {
    pub(crate) const fn new(reason: LoadError) -> Self {
        Self { reason }
    }

    /// Why the data could not be loaded.
    #[must_use]
    pub const fn reason(&self) -> &LoadError {
        &self.reason
    }
}

impl SaveBlocked {
    pub(crate) const fn new(reason: SaveError) -> Self {
        Self { reason }
    }

    /// Why the data is refused.
    #[must_use]
    pub const fn reason(&self) -> &SaveError {
        &self.reason
    }
}

impl LoadDelayed {
    pub(crate) fn new(reason: LoadError, gives_up_in: Duration) -> Self {
        Self {
            reason,
            gives_up_in,
            since: Instant::now(),
        }
    }

    /// What stands in the way: another server's session ([`LoadError::SessionLocked`]), or a store that can't be reached
    /// ([`LoadError::Unavailable`]).
    #[must_use]
    pub const fn reason(&self) -> &LoadError {
        &self.reason
    }

    /// How much longer the load is tried, counted from when this component was inserted. Then it fails with the reason.
    #[must_use]
    pub const fn gives_up_in(&self) -> Duration {
        self.gives_up_in
    }

    /// What is left of [`gives_up_in`](Self::gives_up_in) by now.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.gives_up_in.saturating_sub(self.since.elapsed())
    }
}

impl SaveUnderWay {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}
