//! Saving: from components to a document in the session's queue, and the answer back to the game.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bevy::{
    ecs::change_detection::{CheckChangeTicks, ComponentTicks, Tick},
    prelude::*,
};
use tracing::{debug, warn};

use super::{
    Player, Server, ServerStats,
    hand_off::{Departure, Pace},
    leave,
    purchases::{answer as purchases, ledger::Ledger},
    report::Report,
    types,
};
use crate::{
    document::{Document, Entry},
    id::PlayerId,
    player::{
        OwnPlayer, PlayerClient, PlayerSaved, SaveBlocked, SaveError, SavePlayer, SaveUnderWay, SessionEnd,
    },
    registry::{DataType, DataTypes},
    session::{self, Session, Snapshot},
    steps,
    store::Settlement,
};

/// A loaded player: the session and what is known of the saved state.
pub(super) struct LiveSession {
    pub(super) player: PlayerId,
    /// The number of its load, which tells it from other sessions of the same entity.
    pub(super) ticket: u64,
    pub(super) session: Session,
    /// What the last capture saw.
    pub(super) document: Document,
    /// Components that were changed after this tick have to be looked at by the next capture.
    pub(super) captured: Tick,
    /// Whether a capture has seen everything. From then on each component is in the document, in a version of this code
    /// or a newer one, until it changes or goes.
    pub(super) is_complete: bool,
    /// Whether `document` holds something that no save on its way has yet.
    pub(super) unsaved: bool,
    /// Saves that were queued and not yet answered.
    pub(super) in_flight: u32,
    /// Saves that were queued so far.
    pub(super) queued: u64,
    /// Why the store, as far as is known, refuses the data: what the entity's [`SaveBlocked`] shows.
    pub(super) blocked: Option<SaveError>,
    /// What is known of the player's receipts.
    pub(super) ledger: Ledger,
    pub(super) trade: TradeState,
    /// Why the session ends, where the entity is about to be despawned for another reason than the player's own leaving.
    pub(super) ending: Option<SessionEnd>,
    /// How often the game is asked to give the player up.
    pub(super) pace: Pace,
    /// Where the player goes on, once it is decided that they do.
    pub(super) departure: Option<Departure>,
}

/// Whether a trade of the player is on its way to the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TradeState {
    No,
    /// It was queued.
    Queued,
    /// And the store can't be reached for now.
    Delayed,
}

impl LiveSession {
    pub(super) fn new(
        player: PlayerId,
        ticket: u64,
        session: Session,
        document: Document,
        captured: Tick,
        since: Duration,
    ) -> Self {
        Self {
            player,
            ticket,
            session,
            document,
            captured,
            is_complete: false,
            unsaved: false,
            in_flight: 0,
            queued: 0,
            blocked: None,
            ledger: Ledger::default(),
            trade: TradeState::No,
            ending: None,
            pace: Pace::new(since),
            departure: None,
        }
    }

    /// Takes in that what was captured last is on its way.
    pub(super) fn is_queued(&mut self) {
        self.unsaved = false;
        self.in_flight += 1;
        self.queued += 1;
    }

    /// Whether the first so many saves of the session have been answered. (They are, in their order.)
    pub(super) fn has_answered(&self, saves: u64) -> bool {
        self.queued.saturating_sub(u64::from(self.in_flight)) >= saves
    }

    /// What is saved of a player, as of the last capture: the one place that builds it. An award is in the document from
    /// the moment on that its settlement is in the ledger, so each snapshot has both, or neither.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            document: self.document.clone(),
            settle: self.ledger.unsettled().to_vec(),
        }
    }
}

/// Brings `live.document` up to date with the entity, and says whether it may be saved.
///
/// # Errors
/// When a component can't be encoded, or the document is above `limit`: then it must not be saved.
pub(super) fn capture(
    types: &DataTypes,
    live: &mut LiveSession,
    entity: EntityRef<'_>,
    now: Tick,
    limit: usize,
) -> Result<(), SaveError> {
    bring_up_to_date(types, live, entity, now)?;
    within_limit(&live.document, limit)
}

/// Brings `live.document` up to date with the entity, or leaves it as it is.
///
/// Only components that changed since the last capture are encoded; keys that this code doesn't know stay as they are.
///
/// # Errors
/// When a component can't be encoded.
pub(super) fn bring_up_to_date(
    types: &DataTypes,
    live: &mut LiveSession,
    entity: EntityRef<'_>,
    now: Tick,
) -> Result<(), SaveError> {
    let mut new = Vec::new();
    for data_type in types.iter() {
        if let Some(entry) = new_entry(data_type, live, entity, now)? {
            new.push((data_type.key, entry));
        }
    }
    live.unsaved |= !new.is_empty();
    for (key, entry) in new {
        match entry {
            NewEntry::Set(entry) => live.document.set(key, entry),
            NewEntry::Remove => live.document.remove(key),
        };
    }
    live.captured = now;
    live.is_complete = true;
    Ok(())
}

/// The types of which the entity has other data than at the last capture.
pub(super) fn differences<'a>(
    types: &'a DataTypes,
    live: &LiveSession,
    entity: EntityRef<'_>,
    now: Tick,
) -> impl Iterator<Item = &'a DataType> {
    types
        .iter()
        .filter(move |data_type| !matches!(new_entry(data_type, live, entity, now), Ok(None)))
}

/// Captures a player in a session who is about to be saved for the last time, and says whether that can be done. If it
/// isn't known that a refusal of the store has passed, it is found out for the next time.
///
/// # Errors
/// When what the player has now can't be saved, or the entity is in no session.
pub(super) fn bring_up_to_date_and_check(world: &mut World, entity: Entity) -> Result<(), SaveError> {
    let now = world.increment_change_tick();
    let types = types(world);
    let mut server = world.resource_mut::<Server>();
    let limit = server.settings.document_limit;
    let Some(mut player) = server.players.remove(&entity) else {
        return Err(SaveError::NoSession);
    };
    let outcome = match (&mut player, world.get_entity(entity)) {
        (Player::Live(live), Ok(entity)) => {
            capture(&types, live, entity, now, limit).map(|()| live.blocked.clone())
        }
        _ => Err(SaveError::NoSession),
    };
    world.resource_mut::<Server>().players.insert(entity, player);
    match outcome? {
        None => Ok(()),
        Some(reason) => {
            save(world, entity, Occasion::Autosave);
            Err(reason)
        }
    }
}

enum NewEntry {
    Set(Entry),
    Remove,
}

/// What has to become of a type's entry; `None` when it is up to date.
fn new_entry(
    data_type: &DataType,
    live: &LiveSession,
    entity: EntityRef<'_>,
    now: Tick,
) -> Result<Option<NewEntry>, SaveError> {
    let ticks = entity.get_change_ticks_by_id(data_type.component);
    let is_untouched = |ticks| !may_have_changed(ticks, live.captured, now);
    if live.is_complete && ticks.is_some_and(is_untouched) {
        return Ok(None);
    }
    let old = live.document.get(data_type.key);
    let Some(ticks) = ticks else {
        // A tombstone says "removed on purpose"; a component that every player has simply starts over.
        return Ok(match old {
            Some(Entry::Value { .. }) if data_type.required => Some(NewEntry::Remove),
            Some(Entry::Value { .. }) => Some(NewEntry::Set(Entry::Tombstone)),
            Some(Entry::Tombstone) | None => None,
        });
    };
    let up_to_date = match old {
        // Data of a newer version that this code may read stays as it is until it changes.
        Some(Entry::Value { version, .. }) => *version >= data_type.version,
        Some(Entry::Tombstone) | None => false,
    };
    if up_to_date && is_untouched(ticks) {
        return Ok(None);
    }
    let encode_error = |message| SaveError::Encode {
        key: data_type.key.to_owned(),
        message,
    };
    let value = catch_unwind(AssertUnwindSafe(|| data_type.codec.store(entity)))
        .map_err(|_| encode_error(format!("the `Serialize` of `{}` panicked", data_type.type_name)))?
        .expect("the component has change ticks, so it is there")
        .map_err(|error| encode_error(error.to_string()))?;
    let entry = Entry::Value {
        version: data_type.version,
        oldest_reader: data_type.oldest_reader,
        value,
    };
    Ok((old != Some(&entry)).then_some(NewEntry::Set(entry)))
}

/// Whether a component was changed since `captured`, as far as can be told: where nobody was captured for days, Bevy
/// can't compare ticks any more and calls everything unchanged.
fn may_have_changed(ticks: ComponentTicks, captured: Tick, now: Tick) -> bool {
    let age = now.get().wrapping_sub(captured.get());
    age >= Tick::MAX.get() || ticks.is_changed(captured, now)
}

pub(super) fn within_limit(document: &Document, limit: usize) -> Result<(), SaveError> {
    let bytes = document.encoded_len();
    if bytes <= limit {
        return Ok(());
    }
    let (heaviest, heaviest_bytes) = document.heaviest().unwrap_or(("", 0));
    Err(SaveError::TooLarge {
        bytes,
        limit,
        heaviest: heaviest.to_owned(),
        heaviest_bytes,
    })
}

/// Answers [`SavePlayer`].
pub(super) fn save_on_request(request: On<SavePlayer>, mut commands: Commands) {
    let entity = request.entity;
    // As a command, so that what the same system queued before it is in the save.
    commands.queue(move |world: &mut World| save(world, entity, Occasion::Request));
}

/// Why a player is saved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The game asked, and waits for an answer.
    Request,
    /// It is time; what is saved already, or on its way, needs nothing.
    Autosave,
    /// Receipts are to be settled.
    Settlement,
}

/// Captures a player and queues the save.
pub(super) fn save(world: &mut World, entity: Entity, occasion: Occasion) {
    // What is written from here on is newer than this capture.
    let now = world.increment_change_tick();
    let mut server = world.resource_mut::<Server>();
    if let Some(deferred) = &mut server.deferred {
        // In the middle of an award or a trade, of which nobody knows yet whether it stands.
        deferred.push(Box::new(move |world, _| save(world, entity, occasion)));
        return;
    }
    let limit = server.settings.document_limit;
    let mut live = match server.players.remove(&entity) {
        Some(Player::Live(live)) => live,
        Some(other) => {
            let player = other.id();
            server.players.insert(entity, other);
            let reporter = server.reporter.clone();
            let error = SaveError::NoSession;
            return drop(reporter.send(Report::NotSaved {
                entity,
                player,
                ticket: 0,
                error,
            }));
        }
        None => return debug!("`SavePlayer` for {entity}, which is no player"),
    };
    let player = live.player;
    let outcome = match world.get_entity(entity) {
        Ok(entity) => capture(&types(world), &mut live, entity, now, limit),
        // It went without a despawn (`World::clear_all`): what was captured last is what there is.
        Err(_) => Ok(()),
    };
    let outcome = outcome.and_then(|()| match occasion {
        Occasion::Request if live.in_flight >= MOST_IN_FLIGHT => Err(SaveError::Unavailable {
            message: format!("{MOST_IN_FLIGHT} saves of this player are waiting for it already"),
        }),
        Occasion::Request => Ok(true),
        Occasion::Autosave => Ok(live.unsaved && live.in_flight == 0),
        Occasion::Settlement => Ok(live.in_flight < MOST_IN_FLIGHT),
    });
    let ticket = live.ticket;
    let postponed = match outcome {
        Ok(true) => Vec::new(),
        _ if occasion == Occasion::Settlement => live.ledger.unsettled().to_vec(),
        _ => Vec::new(),
    };
    let mut server = world.resource_mut::<Server>();
    let is_queued = outcome == Ok(true);
    if is_queued {
        queue(&server, entity, &mut live);
    }
    server.players.insert(entity, Player::Live(live));
    let not_saved = match outcome {
        Err(error) => {
            // Not at once: a game that answers with another save would never come to an end.
            let reporter = world.resource::<Server>().reporter.clone();
            let _ = reporter.send(Report::NotSaved {
                entity,
                player,
                ticket,
                error: error.clone(),
            });
            error
        }
        Ok(_) => SaveError::Unavailable {
            message: format!("{MOST_IN_FLIGHT} saves of this player are waiting for it already"),
        },
    };
    purchases::apply_saved(world, entity, ticket, postponed, &Err(not_saved));
    if is_queued {
        show_saving(world, entity);
    }
}

/// How many saves of one player may wait at once, so that a game that asks in every update fills no memory while the
/// store is down. What is refused is saved by the next autosave.
const MOST_IN_FLIGHT: u32 = 64;

/// Hands what was captured to the session's queue.
fn queue(server: &Server, entity: Entity, live: &mut LiveSession) {
    let (player, ticket, reporter) = (live.player, live.ticket, server.reporter.clone());
    let asked = server.runtime.now();
    live.is_queued();
    let snapshot = live.snapshot();
    let carried = snapshot.settle.clone();
    live.session.save(snapshot, move |result| {
        let result = result.map(|_| ()).map_err(SaveError::from);
        // Nobody is left to hear it after the app is gone.
        let _ = reporter.send(Report::Saved {
            entity,
            player,
            ticket,
            carried,
            result,
            took: asked.elapsed(),
        });
    });
    steps::reached("save.queued");
}

/// Takes in the answer to a save of a session that goes on, or has ended meanwhile.
pub(super) fn apply(
    world: &mut World,
    entity: Entity,
    player: PlayerId,
    ticket: u64,
    carried: Vec<Settlement>,
    result: Result<(), SaveError>,
    took: Duration,
) {
    let mut server = world.resource_mut::<Server>();
    if let Some(live) = server.session_mut(entity, ticket) {
        live.in_flight = live.in_flight.saturating_sub(1);
        // Whatever the outcome was, what is in memory has to be saved (again) by somebody.
        live.unsaved |= matches!(&result, Err(error) if *error != SaveError::Skipped);
    }
    show_saving(world, entity);
    answer(world, entity, player, ticket, result.clone(), took);
    purchases::apply_saved(world, entity, ticket, carried, &result);
    let end = match result {
        Err(SaveError::LockLost) => SessionEnd::LockLost,
        // It may be stored, and if it is, by the time that this was found out somebody else had the player. What of a
        // trade can't be told is the end of both sessions, whosever lock it was.
        Ok(()) | Err(SaveError::Unconfirmed) if has_lost_its_lock(world, entity) => SessionEnd::LockLost,
        Err(SaveError::Forfeited { .. } | SaveError::Unconfirmed) => SessionEnd::CommitRefused,
        _ => return,
    };
    if world.resource::<Server>().is_live(entity, ticket) {
        leave::end(world, entity, end);
    }
}

fn has_lost_its_lock(world: &World, entity: Entity) -> bool {
    let player = world.resource::<Server>().players.get(&entity);
    matches!(player, Some(Player::Live(live)) if live.session.has_lost_its_lock())
}

/// Tells the game how a save of this session ended, and keeps [`SaveBlocked`] in step with it.
pub(super) fn answer(
    world: &mut World,
    entity: Entity,
    player: PlayerId,
    ticket: u64,
    result: Result<(), SaveError>,
    took: Duration,
) {
    if world.resource::<Server>().is_live(entity, ticket) {
        block_or_unblock(world, entity, &result);
    }
    note(world, player, &result, took);
    world.trigger(PlayerSaved {
        entity,
        player,
        is_final: false,
        result,
    });
    world.flush();
}

fn block_or_unblock(world: &mut World, entity: Entity, result: &Result<(), SaveError>) {
    let blocked = match result {
        Ok(()) => None,
        Err(error) if error.is_rejection() => Some(error.clone()),
        Err(_) => return, // Says nothing about the data.
    };
    if let Some(live) = world.resource_mut::<Server>().live_mut(entity)
        // An older save that lands says nothing about data that no save has yet.
        && (blocked.is_some() || (live.blocked.is_some() && !live.unsaved))
    {
        live.blocked.clone_from(&blocked);
        match (world.get_entity_mut(entity), blocked) {
            (Ok(mut entity), Some(reason)) => drop(entity.insert(SaveBlocked::new(reason))),
            (Ok(mut entity), None) => drop(entity.remove::<SaveBlocked>()),
            (Err(_), _) => {}
        }
    }
}

/// Keeps [`SaveUnderWay`] in step with what is on its way, where there is somebody to show it to.
pub(super) fn show_saving(world: &mut World, entity: Entity) {
    let is_saving = matches!(
        world.resource::<Server>().players.get(&entity),
        Some(Player::Live(live)) if live.in_flight > 0
    );
    let Ok(mut entity) = world.get_entity_mut(entity) else {
        return;
    };
    if entity.contains::<SaveUnderWay>() == is_saving {
        return;
    }
    if !is_saving {
        entity.remove::<SaveUnderWay>();
    } else if entity.contains::<PlayerClient>() || entity.contains::<OwnPlayer>() {
        entity.insert(SaveUnderWay::new());
    }
}

/// Counts and logs how a save ended.
pub(super) fn note(world: &mut World, player: PlayerId, result: &Result<(), SaveError>, took: Duration) {
    let mut stats = world.resource_mut::<ServerStats>();
    match result {
        Ok(()) => {
            stats.saves += 1;
            stats.save_time += took;
        }
        Err(SaveError::Skipped) => {}
        Err(error) => {
            stats.save_failures += 1;
            warn!("player {player} was not saved: {error}");
        }
    }
}

/// Keeps remembered ticks comparable: Bevy's own are clamped from time to time, so that they never wrap around.
pub(super) fn keep_ticks_in_range(check: On<CheckChangeTicks>, mut server: ResMut<Server>) {
    for player in server.players.values_mut() {
        if let Player::Live(live) = player {
            live.captured.check_tick(*check);
        }
    }
}

impl From<session::SaveError> for SaveError {
    fn from(error: session::SaveError) -> Self {
        match error {
            session::SaveError::LockLost { .. } => Self::LockLost,
            session::SaveError::Unconfirmed { .. } => Self::Unconfirmed,
            session::SaveError::Unavailable { message, .. } => Self::Unavailable { message },
            session::SaveError::Rejected { message, .. } => Self::Rejected { message },
            session::SaveError::Skipped { .. } => Self::Skipped,
            session::SaveError::Forfeited { message, .. } => Self::Forfeited { message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_however_long_ago_the_last_capture_was() {
        let ticks = |changed| ComponentTicks {
            added: Tick::new(1),
            changed: Tick::new(changed),
        };
        let seen =
            |changed, captured, now| may_have_changed(ticks(changed), Tick::new(captured), Tick::new(now));
        assert!(seen(11, 10, 20));
        assert!(!seen(10, 10, 20));
        assert!(
            seen(3, u32::MAX - 5, 20),
            "the counter has wrapped around in between"
        );
        // Both are too old to be compared, and stay so when Bevy clamps them.
        let oldest = u32::MAX - Tick::MAX.get();
        assert!(seen(11, 10, u32::MAX));
        assert!(seen(oldest, oldest, u32::MAX));
    }
}
