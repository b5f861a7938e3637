//! Players that the server brings along: real clients, over HTTP and UDP, that know what they left with.
//!
//! They share the process with the server, and nothing else. With `--play-at` there is no server: they play on others,
//! and go to any of these each time that they come back; or they hop from one to the next without leaving.

use std::{
    fmt, io,
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_player_data::ProductId;

use crate::{
    account::player_named,
    game::login::LoginService,
    payments::{provider::Provider, secret::Secret},
};

mod belongings;
mod bot;
mod purse;
mod till;

use bot::Bot;
use purse::Purse;
use till::Till;

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
    /// How often a bot bought something.
    pub purchases: u64,
    /// How often one had something refunded.
    pub refunds: u64,
    /// How often one has gone from one server to another without leaving first.
    pub hops: u64,
    /// How often something was not what it should be.
    pub mismatches: u64,
}

/// Where bots go, and what they do there.
#[derive(Clone)]
pub struct Destination {
    /// The HTTP addresses of the servers, like `http://127.0.0.1:8080`.
    pub servers: Vec<String>,
    /// What their payment provider signs with.
    pub secret: Secret,
    /// What they buy.
    pub products: Vec<ProductId>,
}

impl Bots {
    /// Sends `bot-1` to `bot-N` there.
    ///
    /// # Errors
    /// When the system refuses to start a thread.
    pub fn start(number: u16, destination: &Destination) -> io::Result<Self> {
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
            let (destination, stop) = (destination.clone(), Arc::clone(&bots.stop));
            // Callbacks may reach another server than the one that the player is on.
            let server = &destination.servers[thread % destination.servers.len()];
            let provider = Provider::new(server, destination.secret.clone()).map_err(io::Error::other)?;
            let till = Till::open(provider)?;
            let run = move || run(names, &destination, &till, &stop);
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

fn run(names: Vec<String>, destination: &Destination, till: &Till, stop: &AtomicBool) -> Tally {
    let logins: Vec<LoginService> = destination
        .servers
        .iter()
        .map(|server| LoginService::new(server))
        .collect();
    let make = |name: String| {
        let player = player_named(&name).expect("bots have good names");
        let purse = Purse::new(&name, player, destination.products.clone(), till.clone());
        // An `App` stays on its thread, so it is made here.
        Bot::new(name, purse)
    };
    let mut bots: Vec<Bot> = names.into_iter().map(make).collect();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        for bot in &mut bots {
            bot.live(&logins);
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
        self.purchases += other.purchases;
        self.refunds += other.refunds;
        self.hops += other.hops;
        self.mismatches += other.mismatches;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            visits,
            returns,
            purchases,
            refunds,
            hops,
            mismatches,
        } = self;
        write!(
            f,
            "bots came {visits} times, bought {purchases} things, gave {refunds} back, compared their data on {returns} \
             returns, and found {mismatches} mismatches"
        )?;
        match hops {
            0 => Ok(()),
            _ => write!(f, "; {hops} times one hopped to another server without leaving"),
        }
    }
}
