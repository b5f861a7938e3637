//! What the game is told about trades.

use std::fmt;

use bevy::prelude::*;

use crate::id::PlayerId;

/// A trade between two players has ended. Triggered for each of the two, and each time that one was asked for.
#[derive(EntityEvent, Clone, Debug)]
pub struct TradeSettled {
    /// The player's entity, which may be gone already.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// With whom.
    pub partner: PlayerId,
    /// `Ok` once the trade is durable in both players' data. Otherwise neither has any of it.
    pub result: Result<(), TradeError>,
}

/// Why a trade did not come about. Neither player's data has any of it.
///
/// Its `Debug` form is the same sentence as its `Display` form.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TradeError {
    /// A player can't trade with themselves.
    #[error("a player can't trade with themselves")]
    SamePlayer,
    /// One of the two is not in a session: still loading, on defaults, or gone.
    #[error("{entity} is not a player in a session")]
    NoSession {
        /// Which entity.
        entity: Entity,
    },
    /// The store refuses one player's data as it is, so nothing new may rest on it.
    #[error("the data of player {player} can't be saved as it is")]
    SaveBlocked {
        /// Whose data.
        player: PlayerId,
    },
    /// One of the two has traded, and that trade is not durable yet. Ask again in a moment.
    #[error("an earlier trade of player {player} is still being saved")]
    Busy {
        /// Who.
        player: PlayerId,
    },
    /// The game's own system failed, and what it had changed was put back.
    #[error("the trade failed: {message}")]
    Failed {
        /// Why.
        message: String,
    },
    /// The store refused it, for instance because another server has taken one of the players over. Both sessions ended
    /// at their last commit. (When both players were taken over, and saved, before a lost answer could be asked for
    /// again, or what is stored could not be read any more, nobody can say whether both have it or neither.)
    #[error("the trade could not be committed: {message}")]
    CommitRefused {
        /// Why.
        message: String,
    },
}

impl fmt::Debug for TradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
