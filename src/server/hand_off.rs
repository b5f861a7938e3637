//! Hand-off: a player goes on on another server, because that one asks for them or because the game says so.
//!
//! It ends like leaving does, with a last capture and one commit of the final save and the lock's release, behind
//! whatever is queued. The module owns what comes before: who is asked how often, what has to be finished first, that
//! nobody goes whose data can't be saved; and what comes after: that the client is told once everything is durable, and
//! not before.

mod settings;
mod wish_log;

use std::time::Duration;

use bevy::{platform::collections::HashMap, prelude::*};
use tracing::{debug, info, warn};

pub use settings::HandOffSettings;
use wish_log::{LATELY, MANY_WISHES, WishLog};

use super::{
    Closing, OnSessionLost, Player, Server, ServerStats,
    agenda::elapsed,
    leave,
    purchases::answer,
    save::{self, TradeState},
};
use crate::{
    id::PlayerId,
    player::{
        DisconnectKind, HandOffRequested, LoadError, PersistentPlayer, PlayerClient, PlayerTransferred,
        SaveError, SessionEnd, TransferPlayer,
    },
    replication::{self, Connection, LastWord},
    store::{LockId, Wish, Wished},
};

/// Who is to go where.
#[derive(Resource, Default)]
pub(super) struct HandOffs {
    /// Others' wishes that stand, as of the last look.
    wished: Vec<Wished>,
    /// What the game has asked for and is not done.
    transfers: Vec<Transfer>,
    log: WishLog,
    /// How many saves of a session, by its lock, have to be answered before it is given up: those that were asked for
    /// when a wish for it was first seen of which one has stood ever since.
    behind: HashMap<LockId, u64>,
}

/// A player whom the game sends to another server.
struct Transfer {
    entity: Entity,
    player: PlayerId,
    to: String,
    /// The session, by its ticket, and how many of its saves have to be answered first; once it was looked at.
    behind: Option<(u64, u64)>,
}

/// How often a session's game is asked for its player.
pub(super) struct Pace {
    /// When the session began.
    since: Duration,
    /// When the game may be asked again.
    next: Duration,
}

impl Pace {
    pub(super) const fn new(since: Duration) -> Self {
        Self {
            since,
            next: Duration::ZERO,
        }
    }

    fn may_ask(&self, now: Duration, settings: &HandOffSettings) -> bool {
        now.saturating_sub(self.since) >= settings.min_session && now >= self.next
    }

    /// The game is asked now, and not again for a while.
    fn ask(&mut self, now: Duration, settings: &HandOffSettings) {
        self.next = now.saturating_add(settings.ask_again);
    }
}

/// What has to be done once a player who was handed off is saved and released.
#[derive(Default)]
pub(super) struct Departure {
    client: Option<Connection>,
    /// Where the game has sent them.
    to: Option<String>,
}

/// Takes in whose wishes stand now.
pub(super) fn apply_wished(world: &mut World, wished: Vec<Wished>) {
    let mut hand_offs = world.resource_mut::<HandOffs>();
    hand_offs
        .behind
        .retain(|held, _| wished.iter().any(|wished| wished.wish.held == *held));
    hand_offs.wished = wished;
}

/// Takes in a [`TransferPlayer`]. From here on it is answered once, unless the server exits.
pub(super) fn transfer_on_request(
    request: On<TransferPlayer>,
    server: Res<Server>,
    spawned: Query<&PersistentPlayer>,
    mut hand_offs: ResMut<HandOffs>,
) {
    let TransferPlayer { entity, to } = &*request;
    let tracked = || server.players.get(entity).map(Player::id);
    // One who was spawned in this very update, or is on their way already.
    let spawned = || spawned.get(*entity).ok().map(|&PersistentPlayer(player)| player);
    let left = || {
        let of_entity = |closing: &&Closing| closing.entity == *entity;
        server
            .closing
            .values()
            .find(of_entity)
            .map(|closing| closing.player)
    };
    let Some(player) = tracked().or_else(spawned).or_else(left) else {
        return debug!("`TransferPlayer` for {entity}, which is no player");
    };
    hand_offs.transfers.push(Transfer {
        entity: *entity,
        player,
        to: to.clone(),
        behind: None,
    });
}

/// Lets those go who can go now. Others are looked at again in the next update.
pub(super) fn hand_off(world: &mut World) {
    let HandOffs {
        wished, transfers, ..
    } = &mut *world.resource_mut::<HandOffs>();
    if wished.is_empty() && transfers.is_empty() {
        return;
    }
    let (wished, transfers) = (wished.clone(), std::mem::take(transfers));
    for transfer in transfers {
        send_on(world, transfer);
    }
    for wished in wished {
        consider(world, &wished);
    }
}

fn send_on(world: &mut World, mut transfer: Transfer) {
    let Transfer { entity, player, .. } = transfer;
    let result = match world.resource::<Server>().players.get(&entity) {
        Some(Player::Live(live)) if live.player == player && !live.session.is_over() => {
            let (ticket, saves) = *transfer.behind.get_or_insert((live.ticket, live.queued));
            if live.ticket != ticket {
                Err(SaveError::NoSession)
            } else if live.blocked.is_none() && (is_dealing(world, entity) || !live.has_answered(saves)) {
                return world.resource_mut::<HandOffs>().transfers.push(transfer);
            } else {
                // Of one whose data is refused no purchase may ever be finished.
                save::bring_up_to_date_and_check(world, entity)
            }
        }
        _ => Err(SaveError::NoSession),
    };
    let to = transfer.to;
    match result {
        Ok(()) => {
            let client = client_of(world, entity);
            let to = Some(to);
            depart(world, entity, Departure { client, to });
        }
        Err(error) => {
            warn!("player {player} can't go on to server `{to}`: {error}");
            world.trigger(PlayerTransferred {
                entity,
                player,
                to,
                result: Err(error),
            });
            world.flush();
        }
    }
}

fn consider(world: &mut World, wished: &Wished) {
    let now = elapsed(world);
    let (player, name) = (wished.wish.player, &wished.name);
    let Some((entity, ticket)) = session_of(world.resource::<Server>(), &wished.wish) else {
        return;
    };
    note(world, wished, now);
    if is_dealing(world, entity) {
        return;
    }
    let server = world.resource_mut::<Server>().into_inner();
    let settings = server.settings.hand_off;
    let Some(live) = server.live_mut(entity) else {
        return;
    };
    if !live.pace.may_ask(now, &settings) {
        return;
    }
    // A save that is under way may be refused, and then the player stays: what can't be saved would be lost. (One that
    // observers of the request ask for has nothing that the final save behind it doesn't have.)
    let (queued, held) = (live.queued, wished.wish.held);
    let saves = *world
        .resource_mut::<HandOffs>()
        .behind
        .entry(held)
        .or_insert(queued);
    match world.resource_mut::<Server>().into_inner().live_mut(entity) {
        Some(live) if live.has_answered(saves) => live.pace.ask(now, &settings),
        _ => return,
    }
    world.resource_mut::<HandOffs>().behind.remove(&held);
    let mut request = HandOffRequested::new(entity, player, name.clone());
    world.trigger_ref(&mut request);
    world.flush();
    if !world.resource::<Server>().is_live(entity, ticket) {
        return; // An observer sent the player away.
    }
    if is_dealing(world, entity) {
        return; // An observer began something.
    }
    let refusal = match request.refusal() {
        Some(why) => Some(why.to_owned()),
        // What can't be saved would be lost.
        None => save::bring_up_to_date_and_check(world, entity)
            .err()
            .map(|error| error.to_string()),
    };
    if let Some(why) = refusal {
        world.resource_mut::<ServerStats>().hand_offs_refused += 1;
        return info!("player {player} stays, though server `{name}` asks for them: {why}");
    }
    info!("player {player} is handed off to server `{name}`, which has asked for them");
    let keeps = world.resource::<Server>().settings.on_session_lost == OnSessionLost::KeepAsFallback;
    if keeps {
        let_go(world, entity);
        let server = name.clone();
        leave::keep_as_fallback(world, entity, player, LoadError::SessionLocked { server });
    } else {
        let client = client_of(world, entity);
        depart(world, entity, Departure { client, to: None });
    }
}

/// The session that a wish is about, by its entity and ticket, unless it is over already.
fn session_of(server: &Server, wish: &Wish) -> Option<(Entity, u64)> {
    let &entity = server.entity_of.get(&wish.player)?;
    match server.players.get(&entity) {
        Some(Player::Live(live)) if live.session.lock() == wish.held && !live.session.is_over() => {
            Some((entity, live.ticket))
        }
        _ => None,
    }
}

/// Takes a wish down for the log.
fn note(world: &mut World, Wished { wish, name }: &Wished, now: Duration) {
    let player = wish.player;
    let count = world.resource_mut::<HandOffs>().log.note(player, wish.lock, now);
    match count {
        None => {}
        Some(MANY_WISHES) => warn!(
            "player {player} was asked for {MANY_WISHES} times within {LATELY:?}, now by server `{name}`: somebody logs in as \
             them over and over"
        ),
        Some(_) => debug!("server `{name}` asks for player {player}"),
    }
}

/// Whether a trade or a purchase of the player is on its way.
fn is_dealing(world: &World, entity: Entity) -> bool {
    let server = world.resource::<Server>();
    let Some(Player::Live(live)) = server.players.get(&entity) else {
        return false;
    };
    live.trade != TradeState::No
        || live.ledger.is_busy()
        || world.resource::<answer::Waiters>().is_waited_for(live.player)
}

/// Ends the session and despawns the entity: from here on the player is on their way.
fn depart(world: &mut World, entity: Entity, departure: Departure) {
    prepare(world, entity, departure);
    leave::despawn_because(world, entity, SessionEnd::HandedOff, |world| {
        despawn(world, entity);
    });
}

/// Ends the session of an entity that stays, with its client.
fn let_go(world: &mut World, entity: Entity) {
    prepare(world, entity, Departure::default());
    leave::leave(&mut world.into(), entity, SessionEnd::HandedOff);
    world.flush();
}

fn prepare(world: &mut World, entity: Entity, departure: Departure) {
    if let Some(live) = world.resource_mut::<Server>().into_inner().live_mut(entity) {
        live.departure = Some(departure);
    }
}

fn client_of(world: &World, entity: Entity) -> Option<Connection> {
    world
        .get::<PlayerClient>(entity)
        .map(|&PlayerClient(client)| replication::connection_of(world, client))
}

fn despawn(world: &mut World, entity: Entity) {
    if let Ok(entity) = world.get_entity_mut(entity) {
        entity.despawn();
    }
}

/// The final save has ended: whoever stayed until then may go.
pub(super) fn conclude(
    world: &mut World,
    entity: Entity,
    player: PlayerId,
    Departure { client, to }: Departure,
    result: &Result<(), SaveError>,
) {
    if result.is_ok() {
        world.resource_mut::<ServerStats>().hand_offs += 1;
    }
    if let Some(client) = client {
        let kind = DisconnectKind::SessionEnded(SessionEnd::HandedOff);
        let word = match (result, &to) {
            (Ok(()), Some(server)) => LastWord::GoTo(server),
            (Ok(()), None) => LastWord::Goodbye(kind, &SessionEnd::HandedOff.to_string()),
            (Err(error), _) => LastWord::Goodbye(kind, &error.for_player().to_string()),
        };
        replication::disconnect_unless_back(world, client, word);
    }
    if let Some(to) = to {
        world.trigger(PlayerTransferred {
            entity,
            player,
            to,
            result: result.clone(),
        });
        world.flush();
    }
}
