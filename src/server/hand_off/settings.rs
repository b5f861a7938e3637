//! How hand-offs are set up.

use std::time::Duration;

#[cfg(doc)]
use crate::player::{HandOffRequested, PersistentPlayer};

/// When players are given up to servers that ask for them, and whether to ask others.
///
/// ```
/// # use bevy_player_data::prelude::*;
/// # use std::time::Duration;
/// // A server that gives nobody up: whoever wants to go on elsewhere has to leave first.
/// let keep = HandOffSettings { min_session: Duration::MAX, ..Default::default() };
/// let settings = ServerSettings { hand_off: keep, ..Default::default() };
///
/// // One that loads players who play elsewhere, to show them in a lobby, say, and takes nobody away from there: it
/// // waits until they have left.
/// let wait = HandOffSettings { ask: false, ..Default::default() };
/// let settings = ServerSettings { hand_off: wait, ..Default::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOffSettings {
    /// Whether a load that finds its player on another server asks that server to give them up. Any spawn of a
    /// [`PersistentPlayer`] does. A load that doesn't ask waits until the player has left there, which it finds out
    /// within a second, or until the [`load_timeout`](crate::server::ServerSettings::load_timeout). Default: yes.
    pub ask: bool,
    /// How often to look who wishes for a player of whom. With each hand-off, both servers wait for half of it on
    /// average; a look that finds nothing new takes less than 0.1 ms of processor time on SQLite, and is one small
    /// query on PostgreSQL. Default: 10 ms.
    pub poll: Duration,
    /// How long a session has to have lived before it is given up: how often a player can be taken from server to
    /// server by whoever asks. [`Duration::MAX`]: never. Default: 5 s.
    pub min_session: Duration,
    /// How long the game is left alone after it was [asked](HandOffRequested) for a player and has refused. The wish is
    /// looked at again for as long as it stands. Default: 1 s.
    pub ask_again: Duration,
}

impl Default for HandOffSettings {
    fn default() -> Self {
        Self {
            ask: true,
            poll: Duration::from_millis(10),
            min_session: Duration::from_secs(5),
            ask_again: Duration::from_secs(1),
        }
    }
}

impl HandOffSettings {
    /// Says what cannot work about these settings.
    pub(in crate::server) fn validate(&self) -> Result<(), String> {
        if self.poll.is_zero() {
            return Err("`hand_off.poll` is zero: it must be a positive time".to_owned());
        }
        Ok(())
    }
}
