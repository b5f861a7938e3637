//! The messages between server and client.
//!
//! Everything is spelled by [`wire`], and every message from a client is bounded before it is decoded. How messages to a
//! client travel is [`frame`](super::frame)'s business, and what becomes of a value [`change`](super::change)'s.
//! [`FromClient::Hello`] and [`ToClient::Refused`] keep their form in every version, so that two versions can tell each
//! other what is wrong.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    id::{PlayerId, ProductId, PurchaseId},
    player::{DisconnectKind, LoadError, PurchaseDecision, SaveError, SessionEnd},
    registry::wire,
};

/// The version of the protocol. Raise it with every change to a message.
pub(crate) const VERSION: u16 = 6;

/// The longest string with which a game can tell its versions apart, in bytes.
pub(crate) const GAME_VERSION_LIMIT: usize = 128;

/// The largest message that is read from a client, in bytes, encoded and decoded.
#[cfg(feature = "server")]
pub(crate) const FROM_CLIENT_LIMIT: usize = 256;

/// The largest message to a client, in bytes, however many frames it takes.
pub(crate) const TO_CLIENT_LIMIT: usize = wire::LIMIT / 2;

/// What a client says.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum FromClient {
    /// The first message of a connection: what the client was built with.
    Hello {
        protocol: u16,
        types: u64,
        game_version: String,
    },
    /// Everything up to the frame with this number (the connection's first is 1) has been applied; `epoch` is that of
    /// the newest session the client has heard of.
    Ack { epoch: u32, frame: u64 },
}

/// What the server says, beside what has become of single values.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum ToClient {
    /// The handshake failed, and the server disconnects. `types` are the keys and versions of the server's public types.
    Refused {
        reason: String,
        types: Vec<(String, u32)>,
    },
    /// The handshake succeeded.
    Welcome,
    /// The server disconnects.
    Goodbye { kind: DisconnectKind, reason: String },
    /// A player is being loaded: the beginning of session `epoch` of this connection, counted from 1.
    Loading { player: PlayerId, epoch: u32 },
    /// The load has ended. The values are all that the player has, each with the number of its public type.
    Loaded {
        outcome: Outcome,
        values: Vec<(u16, Bytes)>,
    },
    /// The load has failed, and the player doesn't play on defaults.
    LoadFailed { error: LoadError },
    /// A save has ended; whether another one is on its way.
    Saved {
        is_final: bool,
        result: Result<(), SaveError>,
        is_saving: bool,
    },
    /// The store refuses the data from now on, or doesn't any more.
    Blocked { reason: Option<SaveError> },
    /// The end of the session; with a reason if there was a session.
    Ended { reason: Option<SessionEnd> },
    /// A purchase was processed, or could not be.
    Purchase(PurchaseNews),
    /// The load takes its time because of this. It is given up after so many milliseconds from now.
    LoadDelayed { reason: LoadError, gives_up_in: u32 },
    /// A save is on its way. [`Saved`](Self::Saved) says when none is any more.
    Saving,
    /// The player goes on on another server. Everything is saved, and the server disconnects.
    GoTo { server: String },
}

/// What has become of a purchase.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct PurchaseNews {
    pub(crate) purchase: PurchaseId,
    pub(crate) product: ProductId,
    pub(crate) decision: PurchaseDecision,
}

/// How a load ended for a player who now plays.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Session { first_join: bool },
    Fallback { reason: LoadError },
}

/// Spells one of this module's messages.
#[cfg(any(feature = "client", test))]
pub(crate) fn encode(message: &impl Serialize) -> Bytes {
    let mut bytes = Vec::new();
    write(message, &mut bytes);
    bytes.into()
}

/// Appends one of this module's messages, or a part of one, to `out`.
pub(crate) fn write(message: &impl Serialize, out: &mut Vec<u8>) {
    wire::write(message, out).expect("messages have lengths, and memory takes whatever is written");
}

/// Reads what a client sent, which may be anything.
#[cfg(feature = "server")]
pub(crate) fn decode_from_client(bytes: &[u8]) -> Option<FromClient> {
    wire::read_within::<FROM_CLIENT_LIMIT, _>(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::frame;

    #[test]
    fn the_messages_that_two_versions_must_understand_keep_their_form() {
        // Builds of other versions are out there: these bytes may never change.
        let hello = FromClient::Hello {
            protocol: 1,
            types: 0x0102_0304,
            game_version: "a".to_owned(),
        };
        assert_eq!(encode(&hello)[..], [0, 1, 252, 4, 3, 2, 1, 1, b'a']);
        let refused = ToClient::Refused {
            reason: "b".to_owned(),
            types: vec![("c".to_owned(), 2)],
        };
        assert_eq!(frame::message(0, &refused), [0, 0, 1, b'b', 1, 1, b'c', 2]);
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_length_that_lies_allocates_nothing() {
        // A `Hello` whose string claims 2^60 bytes.
        let mut bytes = vec![0, 1, 0, 253];
        bytes.extend((1_u64 << 60).to_le_bytes());
        assert_eq!(decode_from_client(&bytes), None);
    }

    #[cfg(feature = "server")]
    #[test]
    fn the_longest_hello_fits() {
        let game_version = "v".repeat(GAME_VERSION_LIMIT);
        let hello = FromClient::Hello {
            protocol: u16::MAX,
            types: u64::MAX,
            game_version,
        };
        assert_eq!(decode_from_client(&encode(&hello)), Some(hello));
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_message_with_every_field_comes_back() {
        let messages = [
            ToClient::Loading {
                player: PlayerId::from_name("ada"),
                epoch: 7,
            },
            ToClient::Loaded {
                outcome: Outcome::Fallback {
                    reason: LoadError::SessionLocked {
                        server: "b".to_owned(),
                    },
                },
                values: vec![(0, Bytes::from_static(&[1, 2])), (7, Bytes::new())],
            },
            ToClient::Saved {
                is_final: true,
                result: Err(SaveError::LockLost),
                is_saving: true,
            },
            ToClient::LoadDelayed {
                reason: LoadError::SessionLocked {
                    server: "b".to_owned(),
                },
                gives_up_in: 40_000,
            },
            ToClient::Saving,
            ToClient::Goodbye {
                kind: DisconnectKind::SessionEnded(SessionEnd::LockLost),
                reason: "taken over".to_owned(),
            },
            ToClient::Blocked {
                reason: Some(SaveError::Deadline),
            },
            ToClient::Ended {
                reason: Some(SessionEnd::Replaced),
            },
            ToClient::Purchase(PurchaseNews {
                purchase: "pi_1".parse().expect("an id"),
                product: "coins_100".parse().expect("an id"),
                decision: PurchaseDecision::Refused {
                    reason: "wallet full".to_owned(),
                },
            }),
            ToClient::GoTo {
                server: "arena-2".to_owned(),
            },
        ];
        for message in messages {
            assert_eq!(
                wire::read::<ToClient>(&encode(&message)).expect("it was encoded"),
                message
            );
        }
    }
}
