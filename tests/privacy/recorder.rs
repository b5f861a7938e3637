//! Everything that somebody was sent, at each level at which a secret could be seen whole.

use bevy_player_data::replication::PlayerDataChannels;
use bevy_renet::renet::{ConnectionConfig, RenetClient};

use crate::secret::{Found, Index};

/// Where a secret was seen whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// In one packet, as it goes out before it is encrypted.
    Packet,
    /// In one message that renet put together from slices.
    Message,
    /// In what follows each other in several messages of the player data channel.
    Stream,
}

/// What one person was sent, on all their devices.
#[derive(Default)]
pub struct Recorder {
    packets: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    streams: Vec<Vec<u8>>,
}

impl Recorder {
    pub fn packets(&self) -> usize {
        self.packets.len()
    }

    pub fn bytes(&self) -> usize {
        self.packets.iter().map(Vec::len).sum()
    }

    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Messages that were cut by the protocol.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Everything that is in there, each at the lowest level at which it can be seen.
    pub fn search(&self, index: &Index<'_>, mut found: impl FnMut(Level, Found)) {
        let levels = [
            (Level::Packet, &self.packets),
            (Level::Message, &self.messages),
            (Level::Stream, &self.streams),
        ];
        for (level, buffers) in levels {
            for bytes in buffers {
                index.search(bytes, |secret| found(level, secret));
            }
        }
    }
}

/// The ear on one connection: a renet client of its own, which reads along on all channels.
pub struct Ear {
    renet: RenetClient,
    channels: Vec<u8>,
    /// The payload of all whole frames, one after the other; then that of all parts.
    streams: [Vec<u8>; 2],
}

/// What the upper bits of a frame's first byte say of one that is a piece of another.
const PARTS: [u8; 2] = [1, 2];

impl Ear {
    pub fn new(config: ConnectionConfig) -> Self {
        let channels = config.server_channels_config.iter();
        let channels = channels.map(|channel| channel.channel_id).collect();
        let mut renet = RenetClient::new(config);
        renet.set_connected();
        Self {
            renet,
            channels,
            streams: [Vec::new(), Vec::new()],
        }
    }

    /// Takes in a packet that was sent, whether it arrives or not.
    pub fn hear(&mut self, packet: &[u8], recorder: &mut Recorder) {
        recorder.packets.push(packet.to_vec());
        self.renet.process_packet(packet);
        assert!(!self.renet.is_disconnected(), "the recorder follows");
        // It has to stay as silent as it is.
        drop(self.renet.get_packets_to_send());
        for channel in self.channels.clone() {
            while let Some(message) = self.renet.receive_message(channel) {
                if channel == PlayerDataChannels::default().to_client {
                    self.hear_frame(&message);
                }
                recorder.messages.push(message.into());
            }
        }
    }

    fn hear_frame(&mut self, message: &[u8]) {
        let (first, rest) = message
            .split_first()
            .expect("the recorder knows the protocol's frames");
        self.streams[usize::from(PARTS.contains(&(first >> 5)))].extend(rest);
    }

    /// The connection is over.
    pub fn hang_up(self, recorder: &mut Recorder) {
        let heard = self.streams.into_iter().filter(|stream| !stream.is_empty());
        recorder.streams.extend(heard);
    }
}
