//! The way in: one plugin for a server, one for a client.

#[cfg(feature = "client")]
use crate::client::PlayerDataClientPlugin;
#[cfg(feature = "server")]
use crate::{server::PlayerDataServerPlugin, store::Store};

/// Makes the plugin for this side of the game.
///
/// An app that plays and serves at once (a listen server, offline single player) uses [`server`](Self::server) alone:
/// put [`OwnPlayer`](crate::player::OwnPlayer) on the host's player entity.
pub struct PlayerDataPlugin;

impl PlayerDataPlugin {
    /// The plugin that loads, saves and replicates players' data, kept in `store`.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn server(store: impl Store) -> PlayerDataServerPlugin {
        PlayerDataServerPlugin::new(store)
    }

    /// The plugin that shows a client its own player's data.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn client() -> PlayerDataClientPlugin {
        PlayerDataClientPlugin::default()
    }
}
