//! Hand-off: a player goes on on another server, because that one asks for them or because the game says so.
//!
//! It ends like leaving does, with a last capture and one commit of the final save and the lock's release, behind whatever
//! is queued. The module owns what comes before: who is asked how often, what has to be finished first, that nobody goes
//! whose data can't be saved; and what comes after: that the client is told once everything is durable, and not before.

use std::time::Duration;

use bevy::prelude::*;
use bevy_renet::renet::ClientId;
use tracing::{debug, info, warn};

use super::{
    OnSessionLost, Player, Server, ServerStats,
    agenda::elapsed,
    leave,
    purchases::answer,
    save::{self, TradeState},
};
use crate::{
    id::PlayerId,
    player::{
        DisconnectKind, HandOffRequested, LoadError, PlayerClient, PlayerTransferred, SaveError, SessionEnd,
        TransferPlayer,
    },
    replication::{self, LastWord},
    store::{LockId, Wished},
};

/// When players are given up to servers that ask for them.
///
/// ```
/// # use bevy_player_data::prelude::*;
/// # use std::time::Duration;
/// // A server that gives nobody up: whoever wants to go on elsewhere has to leave first.
/// let keep = HandOffSettings { min_session: Duration::MAX, ..Default::default() };
/// let settings = ServerSettings { hand_off: keep, ..Default::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOffSettings {
    /// How often to look who wishes for a player of whom. With each hand-off, both servers wait for half of it on average; a
    /// look that finds nothing new costs some microseconds. Default: 10 ms.
    pub poll: Duration,
    /// How long a session has to have lived before it is given up: how often a player can be taken from server to server by
    /// whoever asks. [`Duration::MAX`]: never. Default: 5 s.
    pub min_session: Duration,
    /// How long the game is left alone after it was [asked](HandOffRequested) for a player and has refused. The wish is looked
    /// at again for as long as it stands. Default: 1 s.
    pub ask_again: Duration,
}

impl Default for HandOffSettings {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(10),
            min_session: Duration::from_secs(5),
            ask_again: Duration::from_secs(1),
        }
    }
}

impl HandOffSettings {
    /// Says what cannot work about these settings.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.poll.is_zero() {
            return Err("`hand_off.poll` is zero: it must be a positive time".to_owned());
        }
        Ok(())
    }
}

/// Who is to go where.
#[derive(Resource, Default)]
pub(super) struct HandOffs {
    /// Others' wishes that stand, as of the last look.
    wished: Vec<Wished>,
    /// What the game has asked for and is not done.
    transfers: Vec<Transfer>,
}

/// A player whom the game sends to another server.
struct Transfer {
    entity: Entity,
    player: PlayerId,
    to: String,
}

/// What a session remembers of wishes for its player.
pub(super) struct Suitors {
    /// When the session began.
    since: Duration,
    /// When the game may be asked again.
    next: Duration,
    /// The wishes so far, by the locks that are wished for; not more than are worth a warning.
    seen: Vec<LockId>,
}

/// How many wishes for a player, in one session, are more than somebody who changes servers can account for.
const MANY_WISHES: usize = 10;

impl Suitors {
    pub(super) const fn new(since: Duration) -> Self {
        Self {
            since,
            next: Duration::ZERO,
            seen: Vec::new(),
        }
    }

    /// Takes a wish down.
    fn note(&mut self, player: PlayerId, Wished { wish, name }: &Wished) {
        if self.seen.len() == MANY_WISHES || self.seen.contains(&wish.lock) {
            return;
        }
        self.seen.push(wish.lock);
        debug!("server `{name}` asks for player {player}");
        if self.seen.len() == MANY_WISHES {
            warn!(
                "player {player} was asked for {MANY_WISHES} times in one session, now by server `{name}`: somebody logs \
                 in as them over and over"
            );
        }
    }

    /// Whether the game may be asked; if so, not again for a while.
    fn may_ask(&mut self, now: Duration, settings: &HandOffSettings) -> bool {
        let is_due = now.saturating_sub(self.since) >= settings.min_session && now >= self.next;
        if is_due {
            self.next = now.saturating_add(settings.ask_again);
        }
        is_due
    }
}

/// What has to be done once a player who was handed off is saved and released.
pub(super) struct Departure {
    client: Option<ClientId>,
    /// Where the game has sent them.
    to: Option<String>,
}

/// Takes in whose wishes stand now.
pub(super) fn apply_wished(world: &mut World, wished: Vec<Wished>) {
    world.resource_mut::<HandOffs>().wished = wished;
}

/// Answers [`TransferPlayer`].
pub(super) fn transfer_on_request(
    request: On<TransferPlayer>,
    server: Res<Server>,
    mut hand_offs: ResMut<HandOffs>,
) {
    let TransferPlayer { entity, to } = &*request;
    let Some(player) = server.players.get(entity).map(Player::id) else {
        return debug!("`TransferPlayer` for {entity}, which is no player");
    };
    hand_offs.transfers.push(Transfer {
        entity: *entity,
        player,
        to: to.clone(),
    });
}

/// Lets those go who can go now. Others are looked at again in the next update.
pub(super) fn hand_off(world: &mut World) {
    let HandOffs { wished, transfers } = &mut *world.resource_mut::<HandOffs>();
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

fn send_on(world: &mut World, transfer: Transfer) {
    let Transfer { entity, player, .. } = transfer;
    let is_here = matches!(
        world.resource::<Server>().players.get(&entity),
        Some(Player::Live(live)) if live.player == player && !live.session.is_over()
    );
    if is_here && is_dealing(world, entity) {
        return world.resource_mut::<HandOffs>().transfers.push(transfer);
    }
    let result = if is_here {
        save::bring_up_to_date_and_check(world, entity)
    } else {
        Err(SaveError::NoSession)
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
    let server = &mut *world.resource_mut::<Server>();
    let Some(&entity) = server.entity_of.get(&player) else {
        return;
    };
    let settings = server.settings.hand_off;
    let Some(live) = server.live_mut(entity) else {
        return;
    };
    // It may be about a session that is over already.
    if live.session.lock() != wished.wish.held || live.session.is_over() {
        return;
    }
    let ticket = live.ticket;
    live.suitors.note(player, wished);
    if is_dealing(world, entity) {
        return;
    }
    let mut server = world.resource_mut::<Server>();
    if !server
        .live_mut(entity)
        .is_some_and(|live| live.suitors.may_ask(now, &settings))
    {
        return;
    }
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
        let_go(
            world,
            entity,
            Departure {
                client: None,
                to: None,
            },
        );
        let server = name.clone();
        leave::keep_as_fallback(world, entity, player, LoadError::SessionLocked { server });
    } else {
        let client = client_of(world, entity);
        depart(world, entity, Departure { client, to: None });
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
    if let Some(live) = world.resource_mut::<Server>().into_inner().live_mut(entity) {
        live.departure = Some(departure);
    }
    leave::despawn_because(world, entity, SessionEnd::HandedOff, |world| {
        despawn(world, entity);
    });
}

/// Ends the session of an entity that stays.
fn let_go(world: &mut World, entity: Entity, departure: Departure) {
    if let Some(live) = world.resource_mut::<Server>().into_inner().live_mut(entity) {
        live.departure = Some(departure);
    }
    leave::leave(&mut world.into(), entity, SessionEnd::HandedOff);
    world.flush();
}

fn client_of(world: &World, entity: Entity) -> Option<ClientId> {
    world
        .get::<PlayerClient>(entity)
        .map(|&PlayerClient(client)| client)
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
