//! Telling clients what is so.
//!
//! The server never keeps a queue of what it has yet to say. It keeps, per client, what the client was told last, and
//! says what differs when there is room: however slow a client is, it costs no more memory than one copy of its data.

use bevy::{ecs::resource::IsResource, platform::collections::HashMap, prelude::*};
use bevy_renet::{RenetServer, renet::ClientId};
use bytes::Bytes;

use super::{
    ReplicationStats, frame,
    link::{Farewell, Handshake, Link, Stage, Transfer, Watched},
    protocol::{Outcome, ToClient},
    public_types::PublicTypes,
    watch::ReplicationServer,
};
use crate::{
    id::PlayerId,
    player::{PersistentPlayer, PlayerClient, PlayerFallback, PlayerLoading, PlayerSession, SessionEnd},
    registry::ChangeLog,
};

mod news;
mod values;

use values::Encoded;
pub(super) use values::Encoder;

/// The players' entities. Resources are entities as well, and not for this system to look at.
type Players<'w, 's> = Query<'w, 's, EntityRef<'static>, (With<PlayerClient>, Without<IsResource>)>;

/// Run condition: something changed, or a client has yet to be told something.
pub(super) fn has_something_to_do(replication: Res<ReplicationServer>, log: Res<ChangeLog>) -> bool {
    !replication.pending.is_empty() || !log.0.is_empty()
}

/// Tells each client that has something to be told as much of it as there is room for.
pub(super) fn send(
    mut replication: ResMut<ReplicationServer>,
    server: Option<ResMut<RenetServer>>,
    players: Players,
    mut log: ResMut<ChangeLog>,
    mut stats: ResMut<ReplicationStats>,
) {
    let replication = &mut *replication;
    for (entity, index) in log.0.drain(..) {
        note_change(replication, entity, index);
    }
    let mut pending = std::mem::take(&mut replication.pending);
    let Some(mut server) = server else { return };
    if !replication.channel.is_usable() {
        return;
    }
    pending.retain(|&client| {
        let is_pending = tell(replication, client, &mut server, &players, &mut stats);
        if let Some(link) = replication.links.get_mut(&client) {
            link.is_pending = is_pending;
        }
        is_pending
    });
    replication.pending.append(&mut pending);
}

fn note_change(replication: &mut ReplicationServer, entity: Entity, index: u16) {
    let Some(&client) = replication.clients.get(&entity) else {
        return;
    };
    let watched = replication
        .links
        .get_mut(&client)
        .and_then(|link| link.watched.as_mut());
    // Before the first values were sent there is nothing to add to them.
    if let Some(watched) = watched.filter(|watched| watched.entity == entity && watched.has_values()) {
        watched.dirty.insert(index);
        replication.mark(client);
    }
}

/// Returns whether there is more to tell than there was room for.
fn tell(
    replication: &mut ReplicationServer,
    client: ClientId,
    server: &mut RenetServer,
    players: &Players,
    stats: &mut ReplicationStats,
) -> bool {
    let (Some(link), Some(types)) = (replication.links.get_mut(&client), &replication.types) else {
        return false;
    };
    let channel = replication.settings.channels.to_client;
    let mut teller = Teller {
        client,
        link,
        outlet: Outlet {
            client,
            channel,
            server,
            stats,
        },
        types,
        players,
        entities: &replication.players,
        encoder: &mut replication.encoder,
        ended: None,
    };
    let is_pending = !teller.tell();
    let ended = teller.ended.take();
    let outstanding = teller.link.flow.outstanding();
    stats.set_outstanding(client, outstanding);
    if let Some(entity) = ended {
        replication.forget_entity(client, entity);
    }
    is_pending
}

/// The way to one client through renet.
struct Outlet<'a> {
    client: ClientId,
    channel: u8,
    server: &'a mut RenetServer,
    stats: &'a mut ReplicationStats,
}

impl Outlet<'_> {
    /// Hands a frame to renet, if it can take it.
    fn send(&mut self, link: &mut Link, frame: impl Into<Bytes>) -> Option<u64> {
        let frame = frame.into();
        let size = frame.len();
        if !self.server.can_send_message(self.client, self.channel, size) {
            return None;
        }
        self.server.send_message(self.client, self.channel, frame);
        self.stats.count(self.client, |client| {
            client.sent_messages += 1;
            client.sent_bytes += size as u64;
        });
        Some(link.flow.record(size))
    }
}

/// Brings one client up to date. Methods that return `bool` say whether they are done; if not, there was no room.
struct Teller<'a> {
    client: ClientId,
    link: &'a mut Link,
    outlet: Outlet<'a>,
    types: &'a PublicTypes,
    players: &'a Players<'a, 'a>,
    /// The entity with each [`PlayerClient`].
    entities: &'a HashMap<ClientId, Entity>,
    encoder: &'a mut Encoder,
    /// An entity that the client has been told the end of.
    ended: Option<Entity>,
}

impl<'a> Teller<'a> {
    fn tell(&mut self) -> bool {
        if self
            .link
            .farewell
            .as_ref()
            .is_some_and(|farewell| farewell.frame.is_some() && !farewell.stays)
        {
            return true; // Everything has been said.
        }
        if self.link.handshake == Handshake::Accepted && self.say(&ToClient::Welcome) {
            self.link.handshake = Handshake::Agreed;
        }
        let is_told = match self.link.handshake {
            Handshake::Awaited | Handshake::Refused => true,
            Handshake::Accepted => false,
            Handshake::Agreed => self.tell_player(),
        };
        self.say_farewell() && is_told
    }

    /// Says the last word. That the budget is used up is no reason to leave without.
    fn say_farewell(&mut self) -> bool {
        let unsaid = |farewell: &&Farewell| farewell.frame.is_none();
        let Some(farewell) = self.link.farewell.as_ref().filter(unsaid) else {
            return true;
        };
        let frame = frame::message(self.link.epoch, &farewell.message);
        let frame = self.outlet.send(self.link, frame);
        if let Some(farewell) = &mut self.link.farewell {
            farewell.frame = frame;
        }
        frame.is_some()
    }

    fn tell_player(&mut self) -> bool {
        if !self.tell_stage() {
            return false;
        }
        self.continue_transfer();
        if self
            .link
            .transfer
            .as_ref()
            .is_some_and(|transfer| transfer.value.is_none())
        {
            return false; // The first values come before any news of them.
        }
        self.tell_news() && self.tell_changes() && self.tell_purchases()
    }

    /// Tells where the player is, one step after the other.
    fn tell_stage(&mut self) -> bool {
        loop {
            let current = self.entities.get(&self.client).copied();
            let Some(watched) = &self.link.watched else {
                let Some(entity) = current else { return true };
                self.link.watched = Some(Watched::new(entity, self.types));
                continue;
            };
            let entity = watched.entity;
            let player = self.player_on_show();
            let stage = player.and_then(stage_of);
            let is_done = match (&watched.told, player, stage) {
                (told, _, stage) if *told == stage && current == Some(entity) => return true,
                (None, Some(player), Some(_)) => self.tell_loading(player),
                (Some(Stage::Loading), Some(player), Some(stage)) => self.tell_loaded(player, stage),
                (Some(_), ..) => self.tell_end(),
                (None, ..) => {
                    self.link.watched = None;
                    self.ended = Some(entity);
                    true
                }
            };
            if !is_done {
                return false;
            }
        }
    }

    /// The player that the client was told about, if that is still so: not on another client, and not another player.
    fn player_on_show(&self) -> Option<EntityRef<'a>> {
        let players = self.players;
        let watched = self.link.watched.as_ref()?;
        let entity = players.get(watched.entity).ok()?;
        let is_shown = self.entities.get(&self.client) == Some(&watched.entity);
        let is_same = player_of(entity).is_none_or(|player| watched.is_about(player));
        (is_shown && is_same).then_some(entity)
    }

    fn tell_loading(&mut self, entity: EntityRef<'_>) -> bool {
        let Some(player) = player_of(entity) else {
            return true;
        };
        if !self.link.flow.has_room() {
            return false;
        }
        let before = self.link.epoch;
        let epoch = before.wrapping_add(1).max(1);
        self.link.epoch = epoch;
        self.link.transfer = None;
        let is_said = self.say(&ToClient::Loading { player, epoch });
        if !is_said {
            self.link.epoch = before;
        } else if let Some(watched) = &mut self.link.watched {
            watched.told = Some(Stage::Loading);
            watched.player = Some(player);
        }
        is_said
    }

    fn tell_loaded(&mut self, entity: EntityRef<'_>, stage: Stage) -> bool {
        if !self.link.flow.has_room() {
            return false;
        }
        let outcome = match &stage {
            Stage::Loading => return true,
            Stage::Session { first_join } => Outcome::Session {
                first_join: *first_join,
            },
            Stage::Fallback { reason } => Outcome::Fallback {
                reason: reason.clone(),
            },
        };
        let mut sent = vec![None; self.types.len()];
        let mut values = Vec::with_capacity(sent.len());
        for ((index, _), sent) in self.types.iter().zip(&mut sent) {
            if let Encoded::Value(bytes) = self.encoder.encode(self.types, index, entity) {
                *sent = Some(bytes.clone());
                values.push((index, bytes));
            }
        }
        let is_said = self.say(&ToClient::Loaded { outcome, values });
        if is_said && let Some(watched) = &mut self.link.watched {
            watched.sent = sent;
            watched.dirty.clear();
            watched.told = Some(stage);
            watched.news.load_failed = None; // The outcome says so.
        }
        is_said
    }

    /// Tells that what the client knows of is over, after the last news of it.
    fn tell_end(&mut self) -> bool {
        if !self.tell_news() || !self.tell_purchases() {
            return false;
        }
        let Some(watched) = &self.link.watched else {
            return true;
        };
        let entity = watched.entity;
        let reason = watched
            .news
            .ended
            .or_else(|| matches!(watched.told, Some(Stage::Session { .. })).then_some(SessionEnd::Left));
        let is_said = self.say(&ToClient::Ended { reason });
        if is_said {
            self.link.transfer = None;
            self.link.watched = Some(Watched::new(entity, self.types));
        }
        is_said
    }

    /// Sends a message if there is room: at once, or in parts, one message at a time, if it is large.
    fn say(&mut self, message: &ToClient) -> bool {
        if !self.link.flow.has_room() {
            return false;
        }
        let frame = frame::message(self.link.epoch, message);
        if frame.len() <= self.link.flow.part() {
            return self.outlet.send(self.link, frame).is_some();
        }
        if self.link.transfer.is_some() {
            return false;
        }
        self.link.transfer = Some(Transfer {
            bytes: frame.into(),
            value: None,
        });
        true
    }
}

fn player_of(entity: EntityRef<'_>) -> Option<PlayerId> {
    entity.get::<PersistentPlayer>().map(|player| player.0)
}

/// Where the player on `entity` is. An entity that is not a player, or not yet or no longer, is nowhere.
fn stage_of(entity: EntityRef<'_>) -> Option<Stage> {
    player_of(entity)?;
    if let Some(fallback) = entity.get::<PlayerFallback>() {
        Some(Stage::Fallback {
            reason: fallback.reason().for_player(),
        })
    } else if let Some(session) = entity.get::<PlayerSession>() {
        Some(Stage::Session {
            first_join: session.first_join(),
        })
    } else {
        entity.contains::<PlayerLoading>().then_some(Stage::Loading)
    }
}
