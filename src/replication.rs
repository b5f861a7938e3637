//! What crosses the wire: each player's public data, sent to the one client that the player plays on.
//!
//! The module owns the renet channels, the protocol and the server's half of the work. It promises that only public
//! types leave the server, that they go to the client named by the entity's
//! [`PlayerClient`](crate::player::PlayerClient) and to nobody else, that the cost follows what changed, and that a slow
//! client loses freshness but neither its connection nor any of the server's memory. Bytes from clients are taken for
//! hostile. What a player's data is and when it is loaded is left to the server's own systems; what is done with the
//! messages on the other side, to `client`.
//!
//! # Channels
//!
//! Add them to the [`ConnectionConfig`](bevy_renet::renet::ConnectionConfig) on both sides, and nothing else is needed:
//!
//! ```
//! use bevy_player_data::replication::ConnectionConfigExt;
//! use bevy_renet::{RenetServer, renet::ConnectionConfig};
//!
//! let server = RenetServer::new(ConnectionConfig::default().with_player_data());
//! ```
//!
//! # Conversation
//!
//! The client says hello with what it was built with: this crate's protocol version, a hash over the keys and versions
//! of the public types, and the game's version. The server welcomes it, or says in words what doesn't match and
//! disconnects it. From then on the server sends, in order: that a player is loading; all public values at once when
//! that is done; what changed, once a tick, as a patch where that is shorter; what a load waits for, saves on their
//! way, load and save errors, all as a player may see them; purchases; the session's end; why it disconnects, or where
//! to go on. The client acknowledges what it has applied.

use std::time::Duration;

pub(crate) mod change;
mod channel;
#[cfg(feature = "server")]
mod flow;
pub(crate) mod frame;
#[cfg(feature = "server")]
mod link;
mod plugins;
pub(crate) mod protocol;
mod public_types;
#[cfg(feature = "server")]
mod receive;
#[cfg(feature = "server")]
mod send;
#[cfg(feature = "server")]
mod stats;
#[cfg(feature = "server")]
mod watch;

pub use channel::{ConnectionConfigExt, PlayerDataChannels};
#[cfg(feature = "server")]
pub use stats::{ClientStats, ReplicationStats};

#[cfg(feature = "client")]
pub(crate) use channel::{ChannelCheck, client_channels, warn_about_channels};
#[cfg(feature = "client")]
pub(crate) use plugins::NeedsPlugin;
#[cfg(feature = "client")]
pub(crate) use public_types::PublicTypes;
#[cfg(feature = "server")]
pub(crate) use watch::{
    Connection, LastWord, ReplicationServer, connection_of, disconnect_after_send, disconnect_unless_back,
    install_server,
};

/// The settings of the connection between server and client.
///
/// Give both sides the same [`channels`](Self::channels) and [`game_version`](Self::game_version); the other fields
/// matter to the server only.
#[derive(Clone, Debug)]
pub struct ReplicationSettings {
    /// The renet channels. The [`ConnectionConfig`](bevy_renet::renet::ConnectionConfig) needs the same, see
    /// [`ConnectionConfigExt`].
    pub channels: PlayerDataChannels,
    /// Compared in the handshake: a client with another one is told so and disconnected. Raise it when the form of a
    /// component changes without a change of its key or `VERSION`. At most 128 bytes. Default: empty.
    pub game_version: String,
    /// The most that may be on its way to one client, in bytes, counted until the client says that it has applied it.
    /// However large, it is never more than half of what the channel holds. At least 16 KiB. Default: 1 MiB.
    pub max_outstanding: usize,
    /// How many messages of one client are read per tick, at least 1; the others wait in the channel, which disconnects
    /// the client when it is full. Default: 64.
    pub messages_per_tick: u32,
    /// After how many messages that make no sense a client is disconnected. Default: 8.
    pub strikes: u32,
    /// How long a client that is to be disconnected may take to say that it has read why, and how long
    /// [shutting down](crate::server::ShutDown) waits for that. At most a minute. Default: 1 s.
    pub farewell_timeout: Duration,
}

impl Default for ReplicationSettings {
    fn default() -> Self {
        Self {
            channels: PlayerDataChannels::default(),
            game_version: String::new(),
            max_outstanding: 1024 * 1024,
            messages_per_tick: 64,
            strikes: 8,
            farewell_timeout: Duration::from_secs(1),
        }
    }
}

impl ReplicationSettings {
    /// # Panics
    /// When the settings can't work, saying why.
    pub(crate) fn assert_sound(&self) {
        let length = self.game_version.len();
        let limit = protocol::GAME_VERSION_LIMIT;
        assert!(
            length <= limit,
            "the `game_version` has {length} bytes, and the handshake has room for {limit}"
        );
        let outstanding = self.max_outstanding;
        assert!(
            outstanding >= 16 * 1024,
            "`max_outstanding` is {outstanding}, and must be at least 16 KiB"
        );
        let farewell = self.farewell_timeout;
        assert!(
            farewell <= Duration::from_secs(60),
            "`farewell_timeout` is {farewell:?}, and must be at most a minute: a client that doesn't listen holds an exit up \
             for that long"
        );
        assert!(
            self.messages_per_tick > 0,
            "`messages_per_tick` is 0: no client would ever be heard"
        );
    }
}
