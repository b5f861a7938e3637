//! A player's entity as the game sees it: which state it is in and what is told about it.
//!
//! The module owns the state components ([`PlayerLoading`], [`PlayerSession`], [`PlayerFallback`], and the markers
//! beside them), the entity events and their errors. The same vocabulary serves the server, where it speaks of the real
//! data, and the client, where it speaks of the mirror. It promises that a state component can be constructed by this
//! crate only, so that a query for it is proof; who moves a player from state to state is left to `server` and
//! `client`.

use bevy::prelude::*;

use crate::id::PlayerId;

mod error;
mod purchase;
mod state;
#[cfg(feature = "server")]
mod trade;
#[cfg(feature = "server")]
mod transfer;

pub use error::{ErrorKind, LoadError, SaveError};
pub(crate) use purchase::remember_own_purchase;
pub use purchase::{OwnPurchases, PurchaseDecision, PurchaseProcessed};
pub use state::{LoadDelayed, PlayerFallback, PlayerLoading, PlayerSession, SaveBlocked, SaveUnderWay};
#[cfg(feature = "server")]
pub use trade::{TradeError, TradeSettled};
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
/// A player who is in a session on another server is asked for there, and by default handed off to here: whoever edits
/// players that may be online should do so on the server that they are on.
///
/// Clients that connect get such an entity by themselves, unless auto-join is turned off. Entities that are still there
/// when the app exits are saved then; that takes an [`AppExit`], which an app that merely stops being updated (such as
/// one run with `ScheduleRunnerPlugin::run_once`) never gets.
///
/// Removing this component is leaving as well: the data is saved and unlocked, and what stays on the entity is
/// no longer persisted. It is immutable; to change the player, spawn another entity. A clone of the entity is no player:
/// neither this nor any other component of this module but [`OwnPlayer`] is cloned.
#[derive(Component, Reflect, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable, clone_behavior = Ignore)]
#[require(PlayerLoading = PlayerLoading::new())]
pub struct PersistentPlayer(pub PlayerId);

/// On the server, the connection to which a player's public data is replicated.
///
/// Auto-join inserts it. A player entity without it works the same, only nobody watches: offline edits, bots, a server
/// without any network.
#[derive(Component, Reflect, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[component(immutable, clone_behavior = Ignore)]
pub struct PlayerClient(pub bevy_renet::renet::ClientId);

/// Marks the entity that carries the local player's own data.
///
/// On a client the crate spawns it as the mirror of what the server has. On a listen server, or in offline single
/// player, insert it yourself on the entity with the host's [`PersistentPlayer`]: the host then needs no mirror.
#[derive(Component, Reflect, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[reflect(Component, Default)]
#[require(OwnPurchases)]
pub struct OwnPlayer;

/// What an entity that is no player any more has to lose, and what its client is told of.
#[cfg(feature = "server")]
pub(crate) type States = (
    PlayerLoading,
    LoadDelayed,
    PlayerSession,
    PlayerFallback,
    SaveBlocked,
    SaveUnderWay,
);

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

/// Why the server disconnects a client, for a game that tells its players each in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum DisconnectKind {
    /// The server is shutting down. The player is saved on its way out; they can come back later, or go elsewhere.
    ServerExit,
    /// The player's session is over though the player is still here.
    SessionEnded(SessionEnd),
    /// The player's data could not be loaded, and this server has nobody play on defaults.
    LoadFailed(ErrorKind),
    /// Anything else, such as a client whose messages make no sense.
    Other,
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
    /// The player went on to another server, which asked for them or to which the game has sent them. Everything is
    /// saved.
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
