//! What can become of a load or a save, in words for the game and for its log.

use std::fmt;

use super::queue::NotRun;
use crate::{id::PlayerId, store::StoreError};

/// Why a player has no session.
///
/// Its `Debug` form is the same sentence as its `Display` form, since that is what a `main() -> Result` prints.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The player is in a session elsewhere, and was so until the load timed out. Let them try again later.
    #[error("player {player} is still in a session on server `{server}`: try again in a moment")]
    SessionLocked {
        /// Whose lock.
        player: PlayerId,
        /// The name of the server that holds it; our own when the game still holds an older session.
        server: String,
    },
    /// The store could not be reached until the load timed out. Let them try again later.
    #[error("the data of player {player} could not be loaded: {message}")]
    Unavailable {
        /// Whose data.
        player: PlayerId,
        /// The last thing that went wrong.
        message: String,
    },
    /// What is stored cannot be read. The bytes are left as they are, and nobody holds the lock: somebody has to look.
    #[error("the stored data of player {player} is corrupt and was left as it is: {message}")]
    Corrupt {
        /// Whose data.
        player: PlayerId,
        /// What is wrong with it.
        message: String,
    },
    /// The document has a form that only newer code knows. The bytes are left as they are, and nobody holds the lock:
    /// update the server.
    #[error("the stored data of player {player} is newer than this server: {message}")]
    Newer {
        /// Whose data.
        player: PlayerId,
        /// What is newer about it.
        message: String,
    },
    /// The load was cancelled: the player left, or the server is shutting down.
    #[error("the load of player {player} was cancelled")]
    Cancelled {
        /// Whose load.
        player: PlayerId,
    },
    /// Another running server has our name, so this one can hold no locks at all. Restart it under another name.
    #[error(
        "player {player} cannot be loaded: another running server is already named `{name}`; restart this one under \
         a name of its own"
    )]
    Refused {
        /// Whose load.
        player: PlayerId,
        /// The name.
        name: String,
    },
}

/// Why a save did not land.
///
/// Its `Debug` form is the same sentence as its `Display` form, since that is what a `main() -> Result` prints.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// Another server has taken the player over, so the session is over: nothing of it can be saved any more, and what
    /// was not committed, this save included, is lost.
    #[error("player {player} could not be saved: another server has taken the session over")]
    LockLost {
        /// Whose session.
        player: PlayerId,
    },
    /// Nobody can tell whether this save has landed: its answer was lost, and by the time it was asked for again
    /// another server had taken the player over, as it may do once a close has landed, and had saved them (or what is
    /// stored could not be read any more). The session is over: of everything behind this save nothing is stored.
    #[error(
        "player {player} may be saved or not: the answer was lost, and another server has gone on with the player since"
    )]
    Unconfirmed {
        /// Whose session.
        player: PlayerId,
    },
    /// The store could not be reached in all the attempts that a save has. It may still have landed. The session goes
    /// on; save again.
    #[error("player {player} could not be saved: {message}")]
    Unavailable {
        /// Whose data.
        player: PlayerId,
        /// The last thing that went wrong.
        message: String,
    },
    /// The document can't be stored as it is (too large, for instance, or onto a record that is damaged). An open
    /// session goes on; save something else, or once the record is mended. After a close the lock has been released,
    /// and this document is lost; of damage a close says so only when there is no time left to send it again.
    #[error("the data of player {player} was rejected and not saved: {message}")]
    Rejected {
        /// Whose data.
        player: PlayerId,
        /// Why, and what to do about it.
        message: String,
    },
    /// The store refused something that every later document of the session contains (a trade, or the award of a receipt
    /// that somebody else has settled), so the session is over, and ended at its last commit.
    #[error("the session of player {player} ended at its last commit: {message}")]
    Forfeited {
        /// Whose session.
        player: PlayerId,
        /// What was refused, and why.
        message: String,
    },
    /// A later save of the same session took this one's place, see
    /// [`Sessions::skip_all_to_last`](super::Sessions::skip_all_to_last).
    #[error("this save of player {player} was skipped: a later one takes its place")]
    Skipped {
        /// Whose save.
        player: PlayerId,
    },
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl OpenError {
    /// What a load says that gives up after `error`.
    pub(super) fn from_store(player: PlayerId, error: StoreError) -> Self {
        match error {
            StoreError::SessionLocked { holder, .. } => Self::SessionLocked {
                player,
                server: holder.name.unwrap_or_else(|| "unknown".to_owned()),
            },
            StoreError::Corrupt { message } => Self::Corrupt { player, message },
            StoreError::NameTaken { name } => Self::Refused { player, name },
            StoreError::Unavailable { message } => Self::Unavailable { player, message },
            other => Self::Unavailable {
                player,
                message: other.to_string(),
            },
        }
    }

    pub(super) fn not_run(player: PlayerId, reason: NotRun) -> Self {
        match reason {
            NotRun::Skipped | NotRun::Cancelled => Self::Cancelled { player },
            NotRun::Panicked(message) => Self::Unavailable {
                player,
                message: format!("the load panicked: {message}"),
            },
        }
    }
}

impl SaveError {
    /// What a save says that the store answered with `error`.
    pub(super) fn from_store(player: PlayerId, error: StoreError) -> Self {
        match error {
            StoreError::LockLost { player: whose } if whose == player => Self::LockLost { player },
            error @ (StoreError::LockLost { .. } | StoreError::NotSettled { .. }) => Self::Forfeited {
                player,
                message: error.to_string(),
            },
            StoreError::Unavailable { message } => Self::Unavailable { player, message },
            StoreError::Rejected { message } => Self::Rejected { player, message },
            other => Self::Rejected {
                player,
                message: other.to_string(),
            },
        }
    }

    pub(super) fn not_run(player: PlayerId, reason: NotRun) -> Self {
        match reason {
            NotRun::Skipped | NotRun::Cancelled => Self::Skipped { player },
            NotRun::Panicked(message) => Self::Unavailable {
                player,
                message: format!("the save panicked: {message}"),
            },
        }
    }
}
