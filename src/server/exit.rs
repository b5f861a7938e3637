//! Exiting: everybody is saved in parallel, within a deadline, and whoever was not is named.

use std::{
    sync::{Arc, PoisonError, mpsc},
    time::Duration,
};

use bevy::{
    app::MainScheduleOrder,
    ecs::{message::Messages, schedule::ScheduleLabel},
    platform::collections::HashMap,
    prelude::*,
};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    Closing, Server, leave,
    report::{self, Report},
};
use crate::{
    id::PlayerId,
    player::{PlayerSessionEnded, SaveError, SessionEnd},
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
    app.world_mut()
        .resource_mut::<MainScheduleOrder>()
        .insert_after(Last, FlushPlayerData);
    app.add_systems(FlushPlayerData, flush.run_if(exit_was_requested));
}

fn exit_was_requested(exit: Option<Res<Messages<AppExit>>>, server: Res<Server>) -> bool {
    !server.exiting && exit.is_some_and(|exit| !exit.is_empty())
}

/// Everything is durable, and the locks and the lease are given back, before any of the game's observers runs: one that
/// panics takes nobody's data with it.
fn flush(world: &mut World) {
    let server = world.resource::<Server>();
    let started = server.runtime.now();
    let deadline = started + server.settings.exit_deadline;
    let ended = end_everybody(world);
    let server = world.resource::<Server>();
    let total = server.closing.len();
    server.sessions.skip_all_to_last();

    let answers = await_answers(server, started, deadline, total);
    if server
        .runtime
        .recv(&retire(server), remaining(server, deadline))
        .is_none()
    {
        warn!("the store was not told that this server is gone: its lease is left to lapse");
        // A store that is silent by now may be so for good, and whoever drops its last handle would wait for it.
        server.runtime.drop_elsewhere(Arc::clone(&server.store));
    }
    let unsaved = unsaved(server, &answers);
    let flushed = PlayerDataFlushed {
        total,
        unsaved,
        elapsed: server.runtime.now() - started,
    };
    conclude(world, &flushed);
    tell(world, ended, answers);
    world.trigger(flushed);
    world.flush();
}

/// Captures everybody and queues the final saves. Returns what the game has to be told.
fn end_everybody(world: &mut World) -> Vec<PlayerSessionEnded> {
    let mut server = world.resource_mut::<Server>();
    server.exiting = true;
    server.entity_of.clear();
    let players: Vec<_> = server.players.drain().collect();
    players
        .into_iter()
        .filter_map(|(entity, player)| {
            leave::depart(&mut world.into(), entity, player, SessionEnd::ServerExit)
        })
        .collect()
}

/// Collects answers until everything that was asked for has one, or the deadline has passed.
fn await_answers(server: &Server, started: Instant, deadline: Instant, total: usize) -> Vec<Report> {
    announce_drained(server);
    let mut answers = Vec::new();
    let mut left = total;
    let mut next_progress = started + FIRST_PROGRESS;
    loop {
        let now = server.runtime.now();
        if now >= deadline {
            return answers;
        }
        if now >= next_progress {
            info!(
                "saving players: {} of {total} done, {:.0?} left",
                total - left,
                deadline - now
            );
            next_progress = now + PROGRESS_EVERY;
        }
        // The game loop lives, though it stands here: nobody may take over who is still being saved.
        server.sessions.tick();
        let wait = remaining(server, deadline.min(next_progress)).min(server.settings.beat);
        let reports = server.reports.lock().unwrap_or_else(PoisonError::into_inner);
        match server.runtime.recv(&reports, wait) {
            Some(Report::Drained) => return answers,
            // It came too late to be applied. Dropping it gives the lock back.
            Some(Report::Loaded { .. }) | None => {}
            Some(report) => {
                left -= usize::from(matches!(report, Report::Closed { .. }));
                answers.push(report);
            }
        }
    }
}

/// Lets a report tell when nothing is queued any more. Answers are reported while their requests are in the queue, so
/// it comes after all of them.
fn announce_drained(server: &Server) {
    let (sessions, reporter) = (server.sessions.clone(), server.reporter.clone());
    server.spawn(async move {
        sessions.drained().await;
        // Nobody is left to hear it after the deadline.
        let _ = reporter.send(Report::Drained);
    });
}

/// Gives the lease back once nothing is queued any more.
fn retire(server: &Server) -> mpsc::Receiver<()> {
    let (done, retired) = mpsc::channel();
    let sessions = server.sessions.clone();
    server.spawn(async move {
        match sessions.shutdown().await {
            Ok(()) => drop(done.send(())),
            Err(error) => warn!("the lease could not be given back: {error}"),
        }
    });
    retired
}

/// Names those whose final save failed, or has no answer now that the deadline has passed.
fn unsaved(server: &Server, answers: &[Report]) -> Vec<UnsavedPlayer> {
    let mut results: HashMap<u64, &Result<(), SaveError>> = HashMap::default();
    for answer in answers {
        if let Report::Closed { ticket, result, .. } = answer {
            results.insert(*ticket, result);
        }
    }
    let of = |(ticket, closing): (&u64, &Closing)| {
        let error = match results.get(ticket) {
            Some(Ok(())) => return None,
            Some(Err(error)) => error.clone(),
            None => SaveError::Deadline,
        };
        Some(UnsavedPlayer {
            player: closing.player,
            error,
        })
    };
    server.closing.iter().filter_map(of).collect()
}

/// Says how it went, in the log and in the exit code.
fn conclude(world: &mut World, flushed: &PlayerDataFlushed) {
    for UnsavedPlayer { player, error } in &flushed.unsaved {
        error!("player {player} was NOT saved on exit: {error}");
    }
    info!(
        "saved {} of {} players in {:.0?}",
        flushed.saved(),
        flushed.total,
        flushed.elapsed
    );
    if !flushed.unsaved.is_empty() {
        world.write_message(AppExit::error());
    }
}

/// Tells the game what has happened meanwhile.
fn tell(world: &mut World, ended: Vec<PlayerSessionEnded>, answers: Vec<Report>) {
    for ended in ended {
        world.trigger(ended);
    }
    for answer in answers {
        report::apply(world, answer);
    }
    let late: Vec<u64> = world.resource::<Server>().closing.keys().copied().collect();
    for ticket in late {
        leave::apply_closed(world, ticket, Err(SaveError::Deadline), Duration::ZERO);
    }
}

fn remaining(server: &Server, until: Instant) -> Duration {
    until.saturating_duration_since(server.runtime.now())
}
