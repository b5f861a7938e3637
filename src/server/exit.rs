//! Exiting: everybody is saved in parallel, within a deadline, and whoever was not is named.

use std::{
    sync::{PoisonError, mpsc},
    time::{Duration, Instant},
};

use bevy::{
    app::MainScheduleOrder,
    ecs::{message::Messages, schedule::ScheduleLabel},
    prelude::*,
};
use tracing::{error, info, warn};

use super::{
    Closing, Server, leave,
    report::{self, Report},
};
use crate::{
    id::PlayerId,
    player::{PlayerSaved, SaveError, SessionEnd},
};

/// The schedule that saves everybody when the app exits. It runs after [`Last`], where windows and transports write and
/// react to [`AppExit`], and does nothing in any update without one.
#[derive(ScheduleLabel, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlushPlayerData;

/// Triggered once, when everybody was saved on exit or the deadline has passed.
#[derive(Event, Clone, Debug)]
pub struct PlayerDataFlushed {
    /// How many players had something to end: those in a session, and those whose final save was still on its way.
    pub total: usize,
    /// Who of them was not saved, and why. When it isn't empty, the app's exit code is not 0.
    pub unsaved: Vec<UnsavedPlayer>,
    /// How long it took.
    pub elapsed: Duration,
}

/// A player whose final save failed on exit.
#[derive(Clone, Debug)]
pub struct UnsavedPlayer {
    /// Who it is.
    pub player: PlayerId,
    /// Why.
    pub error: SaveError,
}

impl PlayerDataFlushed {
    /// How many players' data is durable.
    #[must_use]
    pub fn saved(&self) -> usize {
        self.total - self.unsaved.len()
    }
}

/// When to say for the first time that saving takes its time, and how often from then on.
const FIRST_PROGRESS: Duration = Duration::from_millis(250);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

pub(super) fn install(app: &mut App) {
    app.init_schedule(FlushPlayerData);
    app.world_mut().resource_mut::<MainScheduleOrder>().insert_after(Last, FlushPlayerData);
    app.add_systems(FlushPlayerData, flush.run_if(exit_was_requested));
}

fn exit_was_requested(exit: Option<Res<Messages<AppExit>>>, server: Res<Server>) -> bool {
    !server.exiting && exit.is_some_and(|exit| !exit.is_empty())
}

fn flush(world: &mut World) {
    let started = Instant::now();
    let mut server = world.resource_mut::<Server>();
    server.exiting = true;
    let deadline = started + server.settings.exit_deadline;
    let players: Vec<Entity> = server.players.keys().copied().collect();
    for entity in players {
        leave::leave(&mut world.into(), entity, SessionEnd::ServerExit);
    }
    world.flush();

    let server = world.resource::<Server>();
    let total = server.closing.len();
    server.sessions.skip_all_to_last();
    let retired = retire(server);

    let mut unsaved = await_closes(world, started, deadline, total);
    unsaved.extend(give_up(world));
    if unsaved.is_empty() && retired.recv_timeout(remaining(deadline)).is_err() {
        warn!("the store was not told that this server is gone: its lease is left to lapse");
    }
    finish(world, PlayerDataFlushed { total, unsaved, elapsed: started.elapsed() });
}

/// Gives the lease back once nothing is queued any more.
fn retire(server: &Server) -> mpsc::Receiver<()> {
    let (done, retired) = mpsc::channel();
    let sessions = server.sessions.clone();
    if let Some(runtime) = &server.runtime {
        runtime.spawn(async move {
            match sessions.shutdown().await {
                Ok(()) => drop(done.send(())),
                Err(error) => warn!("the lease could not be given back: {error}"),
            }
        });
    }
    retired
}

/// Takes in answers until every final save has one. Returns those that failed.
fn await_closes(world: &mut World, started: Instant, deadline: Instant, total: usize) -> Vec<UnsavedPlayer> {
    let mut unsaved = Vec::new();
    let mut next_progress = started + FIRST_PROGRESS;
    loop {
        let server = world.resource::<Server>();
        let left = server.closing.len();
        let now = Instant::now();
        if left == 0 || now >= deadline {
            return unsaved;
        }
        if now >= next_progress {
            info!("saving players: {} of {total} done, {:.0?} left", total - left, deadline - now);
            next_progress = now + PROGRESS_EVERY;
        }
        let wait = remaining(deadline.min(next_progress));
        let report = server.reports.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(wait);
        let Ok(report) = report else { continue };
        if let Report::Closed { ticket, result: Err(error) } = &report
            && let Some(&Closing { player, .. }) = server.closing.get(ticket)
        {
            unsaved.push(UnsavedPlayer { player, error: error.clone() });
        }
        report::apply(world, report);
    }
}

/// The deadline has passed: names those whose final save has no answer.
fn give_up(world: &mut World) -> Vec<UnsavedPlayer> {
    let late: Vec<Closing> = world.resource_mut::<Server>().closing.drain().map(|(_, closing)| closing).collect();
    late.into_iter()
        .map(|Closing { player, entity }| {
            let error = SaveError::Deadline;
            world.trigger(PlayerSaved { entity, player, is_final: true, result: Err(error.clone()) });
            UnsavedPlayer { player, error }
        })
        .collect()
}

fn finish(world: &mut World, flushed: PlayerDataFlushed) {
    for UnsavedPlayer { player, error } in &flushed.unsaved {
        error!("player {player} was NOT saved on exit: {error}");
    }
    info!("saved {} of {} players in {:.0?}", flushed.saved(), flushed.total, flushed.elapsed);
    if !flushed.unsaved.is_empty() {
        world.write_message(AppExit::error());
    }
    world.trigger(flushed);
    world.flush();
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
