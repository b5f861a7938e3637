//! Why a store did not do what it was asked.

use std::fmt;

use super::LockHolder;
use crate::id::{PlayerId, PurchaseId};

/// Why a store did not do what it was asked.
///
/// Its `Debug` form is the same sentence as its `Display` form, since that is what a `main() -> Result` prints.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another session holds the player's lock. Nothing changed. Ask again later.
    #[error("player {player} is in a session on server `{}`", holder.name.as_deref().unwrap_or("unknown"))]
    SessionLocked {
        /// Whose lock.
        player: PlayerId,
        /// Who holds it.
        holder: LockHolder,
    },
    /// The write's lock or fence is not the record's: another server has taken the player over. Nothing changed, and no
    /// later write of this session can succeed: end it.
    #[error("the session lock of player {player} was lost: another server has taken it over")]
    LockLost {
        /// Whose lock.
        player: PlayerId,
    },
    /// A newer write of the same session has already landed. Nothing changed; forget this one.
    #[error("a newer save of player {player} has already landed")]
    Superseded {
        /// Whose record.
        player: PlayerId,
    },
    /// The store could not be reached or gave no answer. The request may or may not have taken effect. Repeat it as it
    /// is: a repetition never doubles an effect.
    #[error("the player data store is unavailable: {message}")]
    Unavailable {
        /// What happened, and what to do about it.
        message: String,
    },
    /// What is stored cannot be read. Nothing changed. Repeating it won't help; the bytes are left as they are for
    /// somebody to look at.
    #[error("stored player data is corrupt: {message}")]
    Corrupt {
        /// What is wrong, and where.
        message: String,
    },
    /// The request can never succeed as it is. Nothing changed; don't repeat it.
    #[error("the player data store rejected the request: {message}")]
    Rejected {
        /// Why, and what to do about it.
        message: String,
    },
    /// A write would settle a receipt in a way that its state does not allow (it was settled by somebody else, is another
    /// player's, or is unknown). Nothing changed. The session knows something that isn't so: end it without saving.
    #[error("purchase `{purchase}` of player {player} cannot be settled: {message}")]
    NotSettled {
        /// Whose write.
        player: PlayerId,
        /// Which purchase.
        purchase: PurchaseId,
        /// What is in the way.
        message: String,
    },
    /// The purchase is known with another player or product. Nothing changed: the first one stands. Look at what the
    /// payment provider sends.
    #[error("purchase `{purchase}` is known already, with another player or product")]
    Conflict {
        /// Which purchase.
        purchase: PurchaseId,
    },
    /// Another live server has this server's name. Give each server a name of its own.
    #[error("another running server is already named `{name}`: give each server a name of its own")]
    NameTaken {
        /// The name.
        name: String,
    },
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoreError {
    /// Shorthand for [`StoreError::Unavailable`].
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::Unavailable {
            message: message.to_string(),
        }
    }

    /// Shorthand for [`StoreError::Corrupt`].
    pub fn corrupt(message: impl fmt::Display) -> Self {
        Self::Corrupt {
            message: message.to_string(),
        }
    }

    /// Shorthand for [`StoreError::Rejected`].
    pub fn rejected(message: impl fmt::Display) -> Self {
        Self::Rejected {
            message: message.to_string(),
        }
    }

    /// Whether repeating the request as it is may succeed.
    #[must_use]
    pub const fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
