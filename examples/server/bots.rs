//! Players that the server brings along: real clients, over HTTP and UDP, that know what they left with.
//!
//! They share the process with the server, and nothing else.

use std::{
    fmt,
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bevy::prelude::*;

use crate::game::login::LoginService;

mod belongings;
mod bot;

use bot::Bot;

/// How often a bot looks around and acts.
const TICK: Duration = Duration::from_millis(50);
/// More threads than this would only take the server's place.
const MAX_THREADS: usize = 4;

/// The running bots.
#[derive(Resource, Default)]
pub struct Bots {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What the bots have lived through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// How often a bot was let in.
    pub visits: u64,
    /// How often one of them was back, and compared.
    pub returns: u64,
    /// How often it was not what it should be.
    pub mismatches: u64,
}

impl Bots {
    /// Sends `bot-1` to `bot-N` to the server at this login address.
    ///
    /// # Errors
    /// When the system refuses to start a thread.
    pub fn start(number: u16, server: &str) -> std::io::Result<Self> {
        let mut bots = Self::default();
        let threads = thread::available_parallelism()
            .map_or(1, usize::from)
            .clamp(1, MAX_THREADS);
        for thread in 0..threads {
            let names: Vec<String> = (1..=number)
                .skip(thread)
                .step_by(threads)
                .map(|number| format!("bot-{number}"))
                .collect();
            if names.is_empty() {
                break;
            }
            let (server, stop) = (server.to_owned(), Arc::clone(&bots.stop));
            let run = move || run(names, &LoginService::new(&server), &stop);
            bots.threads.push(
                thread::Builder::new()
                    .name(format!("bots {}", thread + 1))
                    .spawn(run)?,
            );
        }
        Ok(bots)
    }

    /// Sends them home, and says how it was.
    pub fn stop(&mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        for thread in self.threads.drain(..) {
            // A bot that panics has not found what it looked for.
            total += thread.join().unwrap_or(Tally {
                mismatches: 1,
                ..Tally::default()
            });
        }
        total
    }
}

fn run(names: Vec<String>, login: &LoginService, stop: &AtomicBool) -> Tally {
    // An `App` stays on its thread, so it is made here.
    let mut bots: Vec<Bot> = names.into_iter().map(Bot::new).collect();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        for bot in &mut bots {
            bot.live(login);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        thread::sleep(TICK.saturating_sub(began.elapsed()));
    }
    let mut total = Tally::default();
    bots.iter().for_each(|bot| total += bot.tally());
    total
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.visits += other.visits;
        self.returns += other.returns;
        self.mismatches += other.mismatches;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            visits,
            returns,
            mismatches,
        } = self;
        write!(
            f,
            "bots came {visits} times, compared their data on {returns} returns, and found {mismatches} mismatches"
        )
    }
}
