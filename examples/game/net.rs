//! What server and client say to each other about the game itself, on renet's default channels.
//!
//! A player's own data needs nothing of this: `bevy_player_data` carries it on channels of its own.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, SystemTime},
};

use bevy_player_data::{PlayerId, replication::ConnectionConfigExt};
use bevy_renet::{
    RenetClient,
    netcode::{ClientAuthentication, ConnectToken, NetcodeClientTransport},
    renet::{ConnectionConfig, DefaultChannel},
};
use bincode::config;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::data::{Cell, Paint};

/// The size of the field, in cells.
pub const FIELD: Cell = Cell { x: 60, y: 20 };
/// Carries a [`Wish`] to the server.
pub const WISHES: DefaultChannel = DefaultChannel::ReliableOrdered;
/// Carries a [`FieldView`] to every client. What gets lost is soon out of date anyway.
pub const VIEWS: DefaultChannel = DefaultChannel::Unreliable;

/// Carries an [`Introduction`] to the client that asked for it.
pub const INTRODUCTIONS: DefaultChannel = DefaultChannel::ReliableOrdered;

/// The longest message of this game, in bytes.
const MESSAGE_LIMIT: usize = 64 * 1024;

/// What a client asks for.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub enum Wish {
    /// One step in this direction.
    Step(Direction),
    /// To be shown in this color.
    Wear(Paint),
    /// To swap a relic with somebody else on the field, whoever that may be.
    Trade,
    /// To leave the field in good order: nothing happens to the player's data after that.
    Retire,
    /// To hear what the player with this tag is called. An [`Introduction`] answers.
    WhoIs(u32),
}

/// Which way to go.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
    Left,
    Right,
}

/// What everybody sees.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct FieldView {
    pub players: Vec<PlayerView>,
    /// Where something lies.
    pub finds: Vec<Cell>,
}

/// What everybody sees of a player.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct PlayerView {
    pub tag: u32,
    pub cell: Cell,
    pub color: Paint,
}

/// What a player is called, which a view has no room for.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Introduction {
    pub tag: u32,
    pub name: String,
}

/// A short form of the id, with which a client finds itself in a [`FieldView`].
pub fn tag(player: PlayerId) -> u32 {
    let [a, b, c, d, ..] = player.into_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The channels that both sides need.
pub fn connection_config() -> ConnectionConfig {
    ConnectionConfig::default().with_player_data()
}

/// Begins to connect with a token that the login service gave.
///
/// # Errors
/// When this machine lets nobody open a UDP socket, or the token is no good.
pub fn connect(token: ConnectToken) -> io::Result<(RenetClient, NetcodeClientTransport)> {
    let any: SocketAddr = match token.server_addresses.first() {
        Some(Some(SocketAddr::V6(_))) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let authentication = ClientAuthentication::Secure { connect_token: token };
    let transport = NetcodeClientTransport::new(since_1970(), authentication, UdpSocket::bind(any)?)
        .map_err(io::Error::other)?;
    Ok((RenetClient::new(connection_config()), transport))
}

/// The clock that netcode's tokens are judged by.
pub fn since_1970() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(message, config::standard())
        .expect("the messages above have no form that can't be sent")
}

/// Reads a message; `None` when it is not exactly one, since the other side may send anything.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let limited = config::standard().with_limit::<MESSAGE_LIMIT>();
    let (message, length) = bincode::serde::decode_from_slice(bytes, limited).ok()?;
    (length == bytes.len()).then_some(message)
}
