//! A player's entity as the game sees it: which state it is in and what is told about it.
//!
//! The module owns the state components ([`PlayerLoading`], [`PlayerSession`], [`PlayerFallback`]), the entity events
//! and their errors. The same vocabulary serves the server, where it speaks of the real data, and the client, where it
//! speaks of the mirror. It promises that a state component can be constructed by this crate only, so that a query for
//! it is proof; who moves a player from state to state is left to `server` and `client`.

use bevy::prelude::*;

use crate::id::PlayerId;

mod deal;
mod error;
#[cfg(feature = "server")]
mod transfer;

pub use deal::{PurchaseDecision, PurchaseProcessed};
#[cfg(feature = "server")]
pub use deal::{TradeError, TradeSettled};
pub use error::{ErrorKind, LoadError, SaveError};
#[cfg(feature = "server")]
pub use transfer::{HandOffRequested, PlayerTransferred, TransferPlayer};

/// Spawn this on the server to load a player's data; despawn the entity to save it and let it go.
///
/// ```no_run
/// # use bevy::prelude::*;
/// # use bevy_player_data::prelude::*;
/// fn edit_offline_player(mut commands: Commands) {
///     commands.spawn(PersistentPlayer(PlayerId::from_name("ada")));
/// }
/// ```
///
/// Clients that connect get such an entity by themselves, unless auto-join is turned off. Entities that are still there
/// when the app exits are saved then; that takes an [`AppExit`], which an app that merely stops being updated (such as
/// one run with `ScheduleRunnerPlugin::run_once`) never gets.
///
/// Removing this component is leaving as well: the data is saved and unlocked, and what stays on the entity is
/// no longer persisted. It is immutable; to change the player, spawn another entity. A clone of the entity is no player:
/// neither this nor any other component of this module but [`OwnPlayer`] is cloned.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable, clone_behavior = Ignore)]
#[require(PlayerLoading = PlayerLoading::new())]
pub struct PersistentPlayer(pub PlayerId);

/// On the server, the connection to which a player's public data is replicated.
///
/// Auto-join inserts it. A player entity without it works the same, only nobody watches: offline edits, bots, a server
/// without any network.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[component(immutable, clone_behavior = Ignore)]
pub struct PlayerClient(pub bevy_renet::renet::ClientId);

/// Marks the entity that carries the local player's own data.
///
/// On a client the crate spawns it as the mirror of what the server has. On a listen server, or in offline single
/// player, insert it yourself on the entity with the host's [`PersistentPlayer`]: the host then needs no mirror.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnPlayer;

/// The player's data is being loaded; no persisted component is on the entity yet.
#[derive(Component, Clone, Copy, Debug)]
#[component(immutable, clone_behavior = Ignore)]
pub struct PlayerLoading(());

/// The player's data is loaded. On the server: the session lock is held and the data will be saved.
///
/// Code that moves value between players must query `With<PlayerSession>` on both sides, or one side of the deal may
/// be a [`PlayerFallback`] that is never saved.
#[derive(Component, Clone, Copy, Debug)]
#[component(immutable, clone_behavior = Ignore)]
pub struct PlayerSession {
    first_join: bool,
}

/// Loading failed: the player plays on default values, which are never saved.
#[derive(Component, Clone, Debug)]
#[component(immutable, clone_behavior = Ignore)]
pub struct PlayerFallback {
    reason: LoadError,
}

/// The store refuses this player's data (see [`reason`](Self::reason)); what has changed since the last save is in
/// memory only. It goes away once the data, as it is by then, is saved.
#[derive(Component, Clone, Debug)]
#[component(immutable, clone_behavior = Ignore)]
pub struct SaveBlocked {
    reason: SaveError,
}

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

/// The player's data is on the entity, and a session is held. Never triggered for a [`PlayerFallback`].
#[derive(EntityEvent, Clone, Debug)]
pub struct PlayerLoaded {
    /// The player's entity.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// Whether nothing was ever saved for this player before: the moment for a welcome gift.
    pub first_join: bool,
}

/// The player's data could not be loaded. The entity is a [`PlayerFallback`], or is about to be disconnected if the
/// settings say so.
#[derive(EntityEvent, Clone, Debug)]
pub struct PlayerLoadFailed {
    /// The player's entity.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// Why.
    pub error: LoadError,
}

/// Trigger this on the server to save a player now. [`PlayerSaved`] answers.
#[derive(EntityEvent, Clone, Copy, Debug)]
pub struct SavePlayer {
    /// The player's entity.
    pub entity: Entity,
}

/// A save has ended, well or not. After a save that [`is_final`](Self::is_final) the entity may be gone already.
#[derive(EntityEvent, Clone, Debug)]
pub struct PlayerSaved {
    /// The player's entity.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// Whether it was the save that ends the session.
    pub is_final: bool,
    /// `Ok` once the data is durable.
    pub result: Result<(), SaveError>,
}

/// The session is over, and nothing that happens to the data from here on will be saved.
#[derive(EntityEvent, Clone, Debug)]
pub struct PlayerSessionEnded {
    /// The player's entity, which may be gone already.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// Why.
    pub reason: SessionEnd,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The player left: the entity was despawned, or lost its [`PersistentPlayer`].
    Left,
    /// The same player joined again; the newer entity loads what this one saved last.
    Replaced,
    /// Another server has taken the player over, after this one's lease had lapsed. What was not saved by then is
    /// lost.
    LockLost,
    /// The server is shutting down.
    ServerExit,
    /// The store refused a trade, or the award of a purchase, on which everything later rests: the data is what was
    /// saved last before it.
    CommitRefused,
    /// The player went on to another server, which asked for them or to which the game has sent them. Everything is saved.
    HandedOff,
}

impl std::fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Left => "the player left",
            Self::Replaced => "the player joined again from elsewhere",
            Self::LockLost => "another server has taken the player over",
            Self::ServerExit => "the server is shutting down",
            Self::CommitRefused => "a trade or a purchase could not be saved",
            Self::HandedOff => "the player went on to another server",
        })
    }
}
