//! What can go wrong with a player's data, as games and players are told.

use std::fmt;

use bevy::reflect::Reflect;
use serde::{Deserialize, Serialize};

/// The two kinds of trouble that a player can be told about.
#[derive(Reflect, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[type_path = "bevy_player_data::player"]
pub enum ErrorKind {
    /// The data could not be read or written. Trying again later may help.
    DataStoreError,
    /// The data is in use by a session on another server, which has to end first.
    SessionLocked,
}

/// Why a player's data could not be loaded.
///
/// Its `Debug` form is the same sentence as its `Display` form.
#[derive(Reflect, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[type_path = "bevy_player_data::player"]
#[non_exhaustive]
pub enum LoadError {
    /// Another session held the player's lock until the load timed out.
    #[error("the data is still in use by a session on server `{server}`")]
    SessionLocked {
        /// The name of the server that holds the lock.
        server: String,
    },
    /// The store could not be reached before the load timed out.
    #[error("the data store could not be reached: {message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// The stored bytes cannot be read. They are left as they are, for somebody to look at.
    #[error("the stored data cannot be read: {message}")]
    Corrupt {
        /// What is wrong, and where.
        message: String,
    },
    /// The stored data was written by a newer version of the game. It is left as it is.
    #[error("the stored data is newer than this version of the game: {message}")]
    Newer {
        /// Which part, and how much newer.
        message: String,
    },
    /// The player left before the load ended.
    #[error("the player left before the data was loaded")]
    Left,
}

/// Why a player's data could not be saved.
///
/// Its `Debug` form is the same sentence as its `Display` form.
#[derive(Reflect, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[type_path = "bevy_player_data::player"]
#[non_exhaustive]
pub enum SaveError {
    /// The store could not be reached. The data is still in memory, and the next save carries it.
    #[error("the data store could not be reached: {message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// The data is larger than the limit. It is still in memory; make it smaller and it will be saved.
    #[error(
        "the data takes {bytes} bytes, which is above the limit of {limit}; key `{heaviest}` weighs most ({heaviest_bytes} bytes)"
    )]
    TooLarge {
        /// The whole document's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
        /// The key that weighs most.
        heaviest: String,
        /// That key's size in bytes.
        heaviest_bytes: usize,
    },
    /// A component could not be encoded. It is still in memory.
    #[error("key `{key}` cannot be encoded: {message}")]
    Encode {
        /// The component's key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// The store refused the data for good.
    #[error("the data store refused the data: {message}")]
    Rejected {
        /// Why.
        message: String,
    },
    /// Another server has taken the player over. The session is over; what was not saved is lost.
    #[error("another server has taken the player over")]
    LockLost,
    /// The store refused a trade, or the award of a purchase, that this save contains. The session ended at its last
    /// commit.
    #[error("the session ended at its last commit: {message}")]
    Forfeited {
        /// What was refused, and why.
        message: String,
    },
    /// This save was dropped because a later one, which carries the same data and more, is on its way.
    #[error("skipped in favour of a later save")]
    Skipped,
    /// There is nothing to save: the player is still loading or plays on defaults.
    #[error("the player holds no session, so nothing can be saved")]
    NoSession,
    /// The server's deadline for shutting down passed first.
    #[error("the save was not done before the deadline for shutting down")]
    Deadline,
    /// Nobody can tell whether this save has landed: its answer was lost, and another server has gone on with the
    /// player since (as it may do once a final save has landed), or what is stored can't be read. The session is over;
    /// nothing behind this save is stored.
    #[error(
        "it may be saved or not: the answer was lost, and another server has gone on with the player since"
    )]
    Unconfirmed,
}

impl LoadError {
    /// The kind that a player is told.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::SessionLocked { .. } => ErrorKind::SessionLocked,
            Self::Unavailable { .. } | Self::Corrupt { .. } | Self::Newer { .. } | Self::Left => {
                ErrorKind::DataStoreError
            }
        }
    }

    /// The same error without the details that only an operator should see: keys (which may be private), paths, hosts.
    #[must_use]
    pub fn for_player(&self) -> Self {
        match self {
            Self::SessionLocked { .. } | Self::Left => self.clone(),
            Self::Unavailable { .. } => Self::Unavailable {
                message: "try again later".to_owned(),
            },
            Self::Corrupt { .. } => Self::Corrupt {
                message: "please contact support".to_owned(),
            },
            Self::Newer { .. } => Self::Newer {
                message: "join an updated server".to_owned(),
            },
        }
    }
}

impl SaveError {
    /// The kind that a player is told.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::LockLost | Self::Unconfirmed => ErrorKind::SessionLocked,
            _ => ErrorKind::DataStoreError,
        }
    }

    /// Whether the data itself is in the way, so that saving it as it is can never succeed.
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. } | Self::Encode { .. } | Self::Rejected { .. }
        )
    }

    /// The same error without the details that only an operator should see: keys (which may be private), paths, hosts.
    #[must_use]
    pub fn for_player(&self) -> Self {
        match self {
            Self::Unavailable { .. } => Self::Unavailable {
                message: "it will be tried again".to_owned(),
            },
            Self::TooLarge { .. } | Self::Encode { .. } | Self::Rejected { .. } => Self::Rejected {
                message: "please contact support".to_owned(),
            },
            Self::Forfeited { .. } => Self::Forfeited {
                message: "please join again".to_owned(),
            },
            Self::LockLost | Self::Skipped | Self::NoSession | Self::Deadline | Self::Unconfirmed => {
                self.clone()
            }
        }
    }
}

impl fmt::Debug for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
