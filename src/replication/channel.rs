//! The two renet channels, and noticing when they, or renet's plugins, are missing.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use bevy_renet::renet::{ChannelConfig, ConnectionConfig, SendType};
use tracing::warn;

/// The renet channels that the crate uses: one each way, reliable and ordered.
///
/// Ids are high by default because other crates, `bevy_replicon_renet` among them, count theirs up from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayerDataChannels {
    /// The id of the channel from the server to clients. Default: 250.
    pub to_client: u8,
    /// The id of the channel from clients to the server; may equal the other one. Default: 250.
    ///
    /// Keep them equal for clients made with renet's `new_local_client`, which has the two directions swapped.
    pub to_server: u8,
    /// How much may wait in the channel to a client, in bytes, before renet disconnects it. The crate uses no more
    /// than half of it. At least 64 KiB. Default: 5 MiB.
    pub to_client_memory: usize,
    /// How much may wait in the channel to the server, in bytes, before renet disconnects the client. The crate needs
    /// little; a larger value only lets hostile clients take more of the server's memory. At least 4 KiB.
    /// Default: 64 KiB.
    ///
    /// Clients made with renet's `new_local_client` have this limit for what they *receive*.
    pub to_server_memory: usize,
    /// After what time without an answer a packet is sent again. Default: 300 ms.
    pub resend_time: Duration,
}

impl Default for PlayerDataChannels {
    fn default() -> Self {
        Self {
            to_client: 250,
            to_server: 250,
            to_client_memory: 5 * 1024 * 1024,
            to_server_memory: 64 * 1024,
            resend_time: Duration::from_millis(300),
        }
    }
}

/// Adds the crate's channels to a renet configuration.
pub trait ConnectionConfigExt {
    /// Appends the [default channels](PlayerDataChannels::default). Server and client both need them.
    ///
    /// They come last, so that renet serves the game's own channels first when a tick has more to send than
    /// [`available_bytes_per_tick`](ConnectionConfig::available_bytes_per_tick).
    ///
    /// # Panics
    /// When a channel with the id 250 is there already.
    #[must_use]
    fn with_player_data(self) -> Self;

    /// Appends the channels that `channels` describes; the plugins on both sides need the same
    /// [setting](super::ReplicationSettings::channels).
    ///
    /// # Panics
    /// When a channel with one of these ids is there already, or a memory limit is below its minimum.
    #[must_use]
    fn with_player_data_channels(self, channels: PlayerDataChannels) -> Self;
}

impl ConnectionConfigExt for ConnectionConfig {
    fn with_player_data(self) -> Self {
        self.with_player_data_channels(PlayerDataChannels::default())
    }

    fn with_player_data_channels(mut self, channels: PlayerDataChannels) -> Self {
        let PlayerDataChannels {
            to_client,
            to_server,
            to_client_memory,
            to_server_memory,
            resend_time,
        } = channels;
        assert!(
            to_client_memory >= MIN_TO_CLIENT_MEMORY,
            "`to_client_memory` is {to_client_memory}, and must be at least 64 KiB"
        );
        assert!(
            to_server_memory >= 4 * 1024,
            "`to_server_memory` is {to_server_memory}, and must be at least 4 KiB"
        );
        append(
            &mut self.server_channels_config,
            to_client,
            to_client_memory,
            resend_time,
        );
        append(
            &mut self.client_channels_config,
            to_server,
            to_server_memory,
            resend_time,
        );
        self
    }
}

fn append(configs: &mut Vec<ChannelConfig>, id: u8, memory: usize, resend_time: Duration) {
    assert!(
        configs.iter().all(|config| config.channel_id != id),
        "this `ConnectionConfig` already has a channel with the id {id}: choose other ids with \
         `with_player_data_channels`, and give the plugin the same"
    );
    configs.push(ChannelConfig {
        channel_id: id,
        max_memory_usage_bytes: memory,
        send_type: SendType::ReliableOrdered { resend_time },
    });
}

/// The least that the channel to a client has to hold, in bytes.
pub(super) const MIN_TO_CLIENT_MEMORY: usize = 64 * 1024;

/// What a look at a renet resource says about our channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelCheck {
    Present,
    Missing,
    /// It can't be told: they are used, since nearly everybody has them.
    Unknown,
}

impl ChannelCheck {
    pub(crate) fn is_usable(self) -> bool {
        self != Self::Missing
    }

    fn of(present: Option<bool>) -> Self {
        match present {
            Some(true) => Self::Present,
            Some(false) => Self::Missing,
            None => Self::Unknown,
        }
    }
}

/// Looks for our channels in a server's configuration.
///
/// renet keeps the configuration to itself and panics when a channel that isn't there is used, but its `Debug` form
/// shows everything.
#[cfg(feature = "server")]
pub(crate) fn server_channels(
    server: &bevy_renet::renet::RenetServer,
    channels: PlayerDataChannels,
) -> ChannelCheck {
    let shown = show(server);
    let has = |section: &str, id: u8| -> Option<bool> {
        let (_, rest) = shown.split_once(section)?;
        let (configs, _) = rest.split_once(']')?;
        let id = format!("channel_id: {id},");
        Some(
            configs
                .split("ChannelConfig")
                .any(|config| config.contains(&id) && config.contains("ReliableOrdered")),
        )
    };
    let to_client = has("server_channels_config: [", channels.to_client);
    let to_server = has("client_channels_config: [", channels.to_server);
    ChannelCheck::of(to_client.zip(to_server).map(|(a, b)| a && b))
}

/// Looks for our channels in a client. See [`server_channels`].
#[cfg(feature = "client")]
pub(crate) fn client_channels(
    client: &bevy_renet::renet::RenetClient,
    channels: PlayerDataChannels,
) -> ChannelCheck {
    let shown = show(client);
    let entry = |id: u8, channel: &str| -> Option<&str> {
        let name = format!("{id}: {channel} {{");
        let mut found = shown.match_indices(&name);
        // 50 is also at the end of 250.
        let (at, _) =
            found.find(|(at, _)| !shown[..*at].ends_with(|before: char| before.is_ascii_digit()))?;
        shown[at + name.len()..].split("ChannelReliable {").next()
    };
    let is_complete = shown.contains("send_reliable_channels: {") && shown.contains("connection_status: ");
    let to_server = entry(channels.to_server, "SendChannelReliable");
    let to_client = entry(channels.to_client, "ReceiveChannelReliable");
    let present =
        to_server.is_some() && to_client.is_some_and(|entry| entry.contains("reliable_order: Ordered"));
    ChannelCheck::of(is_complete.then_some(present))
}

/// The `Debug` form, or as much of it as a fresh resource needs: one that is in use shows all that is in its buffers.
fn show(value: &impl fmt::Debug) -> String {
    struct Bounded(String);

    impl Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if self.0.len() + text.len() > 256 * 1024 {
                return Err(fmt::Error);
            }
            self.0.push_str(text);
            Ok(())
        }
    }

    let mut shown = Bounded(String::new());
    // An error only says that there was more.
    let _ = write!(shown, "{value:?}");
    shown.0
}

/// Says which line to add for the channels. `resource` is renet's type.
pub(crate) fn warn_about_channels(resource: &str, channels: PlayerDataChannels) {
    let PlayerDataChannels {
        to_client, to_server, ..
    } = channels;
    let line = if channels == PlayerDataChannels::default() {
        format!("{resource}::new(ConnectionConfig::default().with_player_data())")
    } else {
        format!("{resource}::new(ConnectionConfig::default().with_player_data_channels(channels))")
    };
    warn!(
        "the `{resource}` has no reliable ordered channels for player data (id {to_client} to clients, {to_server} to \
         the server), so none is replicated: make it with `{line}`"
    );
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "client")]
    use bevy_renet::renet::RenetClient;
    #[cfg(feature = "server")]
    use bevy_renet::renet::RenetServer;

    use super::*;

    fn unrelated(id: u8) -> PlayerDataChannels {
        PlayerDataChannels {
            to_client: id,
            to_server: id,
            ..Default::default()
        }
    }

    // If these fail after an update of renet, its `Debug` form has changed, and the check has to learn the new one.
    #[cfg(feature = "server")]
    #[test]
    fn the_channels_of_a_server_are_found_and_missed() {
        let ours = PlayerDataChannels::default();
        let without = RenetServer::new(ConnectionConfig::default());
        assert_eq!(server_channels(&without, ours), ChannelCheck::Missing);
        let with = RenetServer::new(ConnectionConfig::default().with_player_data());
        assert_eq!(server_channels(&with, ours), ChannelCheck::Present);
        assert_eq!(
            server_channels(&with, unrelated(50)),
            ChannelCheck::Missing,
            "50 is not 250"
        );
        assert_eq!(
            server_channels(&with, unrelated(0)),
            ChannelCheck::Missing,
            "0 is there, but not reliable"
        );
        assert_eq!(
            server_channels(&with, unrelated(1)),
            ChannelCheck::Missing,
            "1 is there, but not ordered"
        );
    }

    #[cfg(feature = "server")]
    #[test]
    fn the_channels_of_a_server_are_found_while_somebody_is_connected() {
        let mut server = RenetServer::new(ConnectionConfig::default().with_player_data());
        server.add_connection(7);
        server.send_message(7, 250, vec![0; 1000]);
        assert_eq!(
            server_channels(&server, PlayerDataChannels::default()),
            ChannelCheck::Present
        );
        server.send_message(7, 250, vec![0; 1024 * 1024]);
        assert_eq!(
            server_channels(&server, PlayerDataChannels::default()),
            ChannelCheck::Unknown
        );
    }

    #[cfg(feature = "client")]
    #[test]
    fn the_channels_of_a_client_are_found_and_missed() {
        let ours = PlayerDataChannels::default();
        let without = RenetClient::new(ConnectionConfig::default());
        assert_eq!(client_channels(&without, ours), ChannelCheck::Missing);
        let with = RenetClient::new(ConnectionConfig::default().with_player_data());
        assert_eq!(client_channels(&with, ours), ChannelCheck::Present);
        assert_eq!(
            client_channels(&with, unrelated(50)),
            ChannelCheck::Missing,
            "50 is not 250"
        );
        assert_eq!(
            client_channels(&with, unrelated(0)),
            ChannelCheck::Missing,
            "0 is there, but not reliable"
        );
        assert_eq!(
            client_channels(&with, unrelated(1)),
            ChannelCheck::Missing,
            "1 is there, but not ordered"
        );
    }

    #[test]
    #[should_panic(expected = "already has a channel with the id 250")]
    fn channels_that_are_added_twice_are_named() {
        let _ = ConnectionConfig::default().with_player_data().with_player_data();
    }

    #[test]
    fn the_channels_come_last() {
        let config = ConnectionConfig::default().with_player_data();
        assert_eq!(
            config
                .server_channels_config
                .last()
                .map(|channel| channel.channel_id),
            Some(250)
        );
        assert_eq!(
            config
                .client_channels_config
                .last()
                .map(|channel| channel.channel_id),
            Some(250)
        );
    }
}
