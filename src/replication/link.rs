//! What the server knows about one connection: how far the conversation has come, and what its client was told last.

use std::collections::{BTreeSet, VecDeque};

use bevy::{platform::time::Instant, prelude::*};
use bevy_renet::renet::ClientId;
use bytes::Bytes;

use super::{
    flow::Flow,
    protocol::{self, FromClient, PurchaseNews, ToClient},
    public_types::PublicTypes,
};
use crate::{
    id::PlayerId,
    player::{LoadError, SaveError, SessionEnd},
};

/// One connection.
pub(super) struct Link {
    /// Tells it from earlier and later connections of a client with the same id.
    pub(super) number: u64,
    pub(super) flow: Flow,
    pub(super) handshake: Handshake,
    /// The player that the client was told about.
    pub(super) watched: Option<Watched>,
    /// How many sessions the client was told about on this connection.
    pub(super) epoch: u32,
    pub(super) transfer: Option<Transfer>,
    pub(super) farewell: Option<Farewell>,
    /// How many more messages that make no sense are put up with.
    pub(super) patience: u32,
    /// Whether it is in the list of links with something to send.
    pub(super) is_pending: bool,
    /// In how many updates it is this client's turn to be listened to.
    turn: u8,
    /// Whether it may have said more than was read last time.
    pub(super) has_more: bool,
}

/// A client for whose words nothing waits is listened to once in so many updates, each in its turn. To listen to
/// everybody in every update would be most of what they cost to whom nothing happens, and what is heard of those who
/// were sent something is read faster at once.
const TURNS: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    /// The client has not said hello.
    Awaited,
    /// It fits; the client has not been told so.
    Accepted,
    /// The client knows, and is told about its player.
    Agreed,
    /// It doesn't fit. Nothing but the reason is sent.
    Refused,
}

/// A frame that is sent in parts.
pub(super) struct Transfer {
    pub(super) bytes: Bytes,
    /// The public type it is about, if it carries a single value.
    pub(super) value: Option<u16>,
}

/// The last message before the server disconnects.
pub(super) struct Farewell {
    pub(super) message: ToClient,
    /// The number of the frame with it, once it is sent.
    pub(super) frame: Option<u64>,
    /// When to disconnect, read or not.
    pub(super) until: Instant,
    /// Whether the client is no longer listened to.
    pub(super) is_muted: bool,
    /// Whether the client stays connected all the same, because the whole server is about to go.
    pub(super) stays: bool,
}

/// A player as its client was told about it.
pub(super) struct Watched {
    pub(super) entity: Entity,
    /// Who the client was told it is.
    pub(super) player: Option<PlayerId>,
    /// Where the client thinks the player is; `None` before the first word about it.
    pub(super) told: Option<Stage>,
    /// Public types to look at again.
    pub(super) dirty: BTreeSet<u16>,
    /// What the client has, or will have when everything that was sent is applied: what patches are made against.
    pub(super) sent: Vec<Option<Bytes>>,
    pub(super) blocked: Option<SaveError>,
    pub(super) delayed: Option<LoadError>,
    pub(super) is_saving: bool,
    pub(super) news: News,
}

/// How much news of purchases waits for a slow client; beyond, the oldest is left out.
const MOST_PURCHASES: usize = 64;

/// What has happened and was not told yet. Of each kind only the newest counts, apart from purchases.
#[derive(Default)]
pub(super) struct News {
    pub(super) saved: Option<(bool, Result<(), SaveError>)>,
    pub(super) load_failed: Option<LoadError>,
    pub(super) ended: Option<SessionEnd>,
    pub(super) purchases: VecDeque<PurchaseNews>,
}

impl News {
    pub(super) fn add_purchase(&mut self, news: PurchaseNews) {
        if self.purchases.len() >= MOST_PURCHASES {
            self.purchases.pop_front();
        }
        self.purchases.push_back(news);
    }
}

/// Where a player is between joining and leaving, as its client may know it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    Loading,
    Session { first_join: bool },
    Fallback { reason: LoadError },
}

impl Watched {
    pub(super) fn new(entity: Entity, types: &PublicTypes) -> Self {
        Self {
            entity,
            player: None,
            told: None,
            dirty: BTreeSet::new(),
            sent: vec![None; types.len()],
            blocked: None,
            delayed: None,
            is_saving: false,
            news: News::default(),
        }
    }

    /// Whether it is this player, as far as the client was told.
    pub(super) fn is_about(&self, player: PlayerId) -> bool {
        self.player.is_none_or(|told| told == player)
    }

    pub(super) fn has_values(&self) -> bool {
        matches!(self.told, Some(Stage::Session { .. } | Stage::Fallback { .. }))
    }
}

/// What came of a message from the client.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// It said hello, which is to be judged.
    Hello {
        protocol: u16,
        types: u64,
        game_version: String,
    },
    /// It has applied more.
    Progress,
    /// An honest client doesn't say that.
    Nonsense,
}

impl Link {
    pub(super) fn new(client: ClientId, flow: Flow, patience: u32) -> Self {
        Self {
            number: 0,
            flow,
            handshake: Handshake::Awaited,
            watched: None,
            epoch: 0,
            transfer: None,
            farewell: None,
            patience,
            is_pending: false,
            turn: (client % u64::from(TURNS)) as u8,
            has_more: false,
        }
    }

    /// Takes in a message, which may be anything.
    pub(super) fn hear(&mut self, message: &[u8]) -> Heard {
        match protocol::decode_from_client(message) {
            Some(FromClient::Hello {
                protocol,
                types,
                game_version,
            }) if self.handshake == Handshake::Awaited
                && game_version.len() <= protocol::GAME_VERSION_LIMIT =>
            {
                Heard::Hello {
                    protocol,
                    types,
                    game_version,
                }
            }
            Some(FromClient::Ack { epoch, frame }) if epoch <= self.epoch && self.flow.acknowledge(frame) => {
                Heard::Progress
            }
            _ => Heard::Nonsense,
        }
    }

    /// Whether the client is listened to in this update: because it is its turn, because its hello or its last word is
    /// awaited, because it said more than was read, or because what it has applied makes room that will be needed.
    pub(super) fn listens(&mut self) -> bool {
        let is_turn = self.turn == 0;
        self.turn = if is_turn { TURNS - 1 } else { self.turn - 1 };
        let is_awaited = self.handshake == Handshake::Awaited || self.farewell.is_some();
        is_turn || is_awaited || self.has_more || !self.flow.has_plenty()
    }

    /// Whether it is time to disconnect.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let stays = self.farewell.as_ref().is_some_and(|farewell| farewell.stays);
        !stays && self.has_taken_leave(now)
    }

    /// Whether the client has read the last message, or has had its time to.
    pub(super) fn has_taken_leave(&self, now: Instant) -> bool {
        self.farewell.as_ref().is_some_and(|farewell| {
            farewell.until <= now
                || farewell
                    .frame
                    .is_some_and(|frame| self.flow.is_acknowledged(frame))
        })
    }

    pub(super) fn is_muted(&self) -> bool {
        self.farewell.as_ref().is_some_and(|farewell| farewell.is_muted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link::new(1, Flow::new(1024 * 1024, 1024 * 1024), 8)
    }

    #[test]
    fn a_second_hello_is_nonsense() {
        let mut link = link();
        let hello = protocol::encode(&FromClient::Hello {
            protocol: 1,
            types: 2,
            game_version: String::new(),
        });
        assert!(matches!(link.hear(&hello), Heard::Hello { .. }));
        link.handshake = Handshake::Agreed;
        assert_eq!(link.hear(&hello), Heard::Nonsense);
    }

    #[test]
    fn an_acknowledgement_from_the_future_is_nonsense() {
        let mut link = link();
        let ack = |epoch, frame| protocol::encode(&FromClient::Ack { epoch, frame });
        assert_eq!(link.hear(&ack(0, 1)), Heard::Nonsense, "nothing was sent");
        link.flow.record(10);
        assert_eq!(link.hear(&ack(1, 1)), Heard::Nonsense, "there was no session yet");
        assert_eq!(link.hear(&ack(0, 1)), Heard::Progress);
    }

    /// In which of the first so many updates it is listened to.
    fn listening(link: &mut Link, updates: u8) -> Vec<u8> {
        (0..updates).filter(|_| link.listens()).collect()
    }

    #[test]
    fn whoever_is_not_waited_for_is_heard_in_turn_and_others_at_once() {
        let mut link = link();
        let always: Vec<u8> = (0..40).collect();
        assert_eq!(listening(&mut link, 40), always, "its hello is awaited");
        link.handshake = Handshake::Agreed;
        link.flow.record(10);
        assert_eq!(
            listening(&mut link, 32).len(),
            2,
            "a turn comes once in 16 updates"
        );
        link.has_more = true;
        assert_eq!(listening(&mut link, 40), always, "not all was read");
        link.has_more = false;
        link.flow.record(128 * 1024);
        assert_eq!(listening(&mut link, 40), always, "much is on its way");
        assert!(link.flow.acknowledge(2));
        assert_eq!(listening(&mut link, 32).len(), 2);
    }

    #[test]
    fn clients_take_turns() {
        let mut turns: Vec<Vec<u8>> = (1..17)
            .map(|client| {
                let mut link = Link::new(client, Flow::new(1024 * 1024, 1024 * 1024), 8);
                link.handshake = Handshake::Agreed;
                listening(&mut link, 16)
            })
            .collect();
        turns.sort_unstable();
        assert_eq!(turns, (0..16).map(|turn| vec![turn]).collect::<Vec<_>>());
    }
}
