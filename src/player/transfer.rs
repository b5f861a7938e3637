//! Players who go on on another server, as the game is asked and told.

use bevy::prelude::*;

use super::SaveError;
use crate::id::PlayerId;

/// Another server has a client who is this player, and asks for them. Unless an observer [refuses](Self::refuse), the
/// player is saved and released, the session ends with [`SessionEnd::HandedOff`](super::SessionEnd::HandedOff), and the
/// other server loads what was saved.
///
/// It is triggered once the session has lived for [`min_session`](crate::server::HandOffSettings::min_session), and not
/// while a trade, a purchase or a save of the player is on its way, which is finished first. While the other server
/// goes on waiting, it is triggered again after [`ask_again`](crate::server::HandOffSettings::ask_again).
///
/// ```
/// # use bevy::prelude::*;
/// # use bevy_player_data::prelude::*;
/// # #[derive(Component)] struct InCombat;
/// fn nobody_flees(mut request: On<HandOffRequested>, fighting: Query<(), With<InCombat>>) {
///     if fighting.contains(request.entity) {
///         request.refuse("in combat");
///     }
/// }
/// # App::new().add_observer(nobody_flees);
/// ```
#[derive(EntityEvent, Clone, Debug)]
pub struct HandOffRequested {
    /// The player's entity.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// The name of the server that asks.
    pub to: String,
    refusal: Option<String>,
}

impl HandOffRequested {
    pub(crate) const fn new(entity: Entity, player: PlayerId, to: String) -> Self {
        Self {
            entity,
            player,
            to,
            refusal: None,
        }
    }

    /// Keeps the player here. `why` is for the log; of several, the first counts.
    pub fn refuse(&mut self, why: impl Into<String>) {
        self.refusal.get_or_insert_with(|| why.into());
    }

    /// Why the player stays, if an observer has refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }
}

/// Trigger this on the server to send a player to another one: they are saved and released, and only then is their client
/// told where to go and disconnected. [`PlayerTransferred`] answers, once.
///
/// A trade, a purchase or a save of the player that is on its way is finished first. (A server that exits meanwhile saves
/// everybody, and answers nothing; neither does an entity that is no player.)
#[derive(EntityEvent, Clone, Debug)]
pub struct TransferPlayer {
    /// The player's entity.
    pub entity: Entity,
    /// Where to, in whatever words the game's clients understand: the other server's name, or its address.
    pub to: String,
}

/// A player whom [`TransferPlayer`] was about is saved and released, or stays. The entity may be gone already.
#[derive(EntityEvent, Clone, Debug)]
pub struct PlayerTransferred {
    /// The player's entity.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// Where to.
    pub to: String,
    /// `Ok` once the other server can load everything. After an error nobody was sent anywhere. Either nothing has
    /// changed, because the data [can't be saved](SaveError::is_rejection) or there is
    /// [no session](SaveError::NoSession); or, if the entity is gone, the final save has failed, the session has ended,
    /// and the client was disconnected.
    pub result: Result<(), SaveError>,
}
