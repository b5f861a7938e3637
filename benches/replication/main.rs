//! What it costs to show players their own data, beside `bevy_replicon` with each entity visible to its owner only.
//!
//! Both run on real renet connections, over which packets are handed in memory, and play the same game with the same
//! seed; what clients acknowledge reaches the server in the next tick. Timed is the server's whole `App::update`, with
//! all systems on the main thread: reading what clients have acknowledged, finding and encoding what changed, and
//! handing it to renet; not how renet makes packets of it. The same app with renet and its connections alone is printed
//! beside it, and subtracted from nothing. Clients live on another thread. In an idle tick nothing changes, but renet's
//! packets go on to be acknowledged, each with another packet; idle ticks in which nothing arrives either follow each
//! other at once, with everything in the caches, as they do for the app that is printed beside them. Both take turns in
//! the same run; the table shows medians of all ticks. In the end every client is compared with its server. Nothing
//! else is asserted.
//!
//! `cargo bench --bench replication`, or with `-- --quick` to see only that it runs. `draw.py` makes pictures of the
//! table.

#[path = "../support/figures.rs"]
mod figures;
mod ours;
mod replicon;
mod side;
mod workload;

use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy_renet::RenetServer;
use figures::{median, microseconds, on_one_thread, quick};
use ours::Ours;
use replicon::Replicon;
use side::{Library, Side};
use workload::{Play, bare_patch, fresh};

struct Scale {
    rounds: usize,
    ticks: usize,
    joins: usize,
    players: &'static [usize],
}

fn main() {
    let scale = if quick() {
        Scale {
            rounds: 1,
            ticks: 5,
            joins: 1,
            players: &[20],
        }
    } else {
        Scale {
            rounds: 7,
            ticks: 40,
            joins: 5,
            players: &[50, 200, 500],
        }
    };
    println!(
        "{} alternating rounds of {} ticks, {} joins; medians; times in microseconds\n",
        scale.rounds, scale.ticks, scale.joins
    );
    println!("| players | what | renet alone | crate | bevy_replicon | crate / bevy_replicon | goal |");
    println!("|---|---|---|---|---|---|---|");
    for &players in scale.players {
        compare(&scale, players);
    }
}

/// What a side has cost so far.
struct Costs<L> {
    side: Side<L>,
    play: Play,
    join: Vec<Duration>,
    join_with_load: Vec<Duration>,
    join_bytes: u64,
    busy: Vec<Duration>,
    idle: Vec<Duration>,
    silent: Vec<Duration>,
    bytes: u64,
    bare_bytes: u64,
    packet_bytes: u64,
}

fn compare(scale: &Scale, players: usize) {
    let mut ours = Costs::<Ours>::join(players);
    let mut theirs = Costs::<Replicon>::join(players);
    for _ in 1..scale.joins {
        ours.join_again(players);
        theirs.join_again(players);
    }
    let mut renet = bare_renet(players);
    let mut renet_alone = Vec::new();
    for _ in 0..scale.rounds {
        ours.play(scale.ticks);
        theirs.play(scale.ticks);
        renet_alone.extend((0..scale.ticks).map(|_| timed(&mut renet)));
    }
    ours.side.check();
    theirs.side.check();

    let renet_alone = microseconds(median(&renet_alone));
    let time = |what: &str, ours: &[Duration], theirs: &[Duration], goal: &str| {
        let ratio = match (median(ours), median(theirs)) {
            (Some(ours), Some(theirs)) => theirs.as_secs_f64() / ours.as_secs_f64(),
            _ => 0.0,
        };
        let (ours, theirs) = (microseconds(median(ours)), microseconds(median(theirs)));
        println!("| {players} | {what} | {renet_alone} | {ours} | {theirs} | 1/{ratio:.1} | {goal} |");
    };
    let is = |count: usize, goal: &'static str| if players == count { goal } else { "" };
    let tick_goal = [is(50, "1/25"), is(500, "1/200")].concat();
    time("server's tick", &ours.busy, &theirs.busy, &tick_goal);
    time("idle tick", &ours.idle, &theirs.idle, is(500, "1/2000"));
    time(
        "idle tick in which nothing arrives",
        &ours.silent,
        &theirs.silent,
        "",
    );
    time(
        "tick in which all join",
        &ours.join,
        &theirs.join,
        is(500, "1/20"),
    );
    let (ours_loaded, theirs_loaded) = (&ours.join_with_load, &theirs.join_with_load);
    time(
        "the same, with the components' insertion",
        ours_loaded,
        theirs_loaded,
        "",
    );
    let bytes = |what: &str, ours: u64, theirs: u64, ticks: usize, goal: &str| {
        let (ours, theirs) = (ours as f64 / ticks as f64, theirs as f64 / ticks as f64);
        let ratio = theirs / ours;
        println!("| {players} | {what} | – | {ours:.0} | {theirs:.0} | 1/{ratio:.1} | {goal} |");
    };
    let ticks = scale.rounds * scale.ticks;
    bytes("message bytes a tick", ours.bytes, theirs.bytes, ticks, "1/12");
    let bare = ours.bare_bytes as f64 / ticks as f64;
    println!(
        "| {players} | bare patches of the same: {bare:.0} bytes | – | × {:.2} | × {:.1} | – | × 1.3 |",
        ours.bytes as f64 / ours.bare_bytes as f64,
        theirs.bytes as f64 / theirs.bare_bytes as f64,
    );
    bytes(
        "packet bytes a tick",
        ours.packet_bytes,
        theirs.packet_bytes,
        ticks,
        "",
    );
    bytes(
        "message bytes when all join",
        ours.join_bytes,
        theirs.join_bytes,
        1,
        "1/1",
    );
}

impl<L: Library> Costs<L> {
    fn join(players: usize) -> Self {
        let mut side = Side::new(players);
        let before = L::message_bytes(&side);
        let began = Instant::now();
        for (number, &player) in side.players.iter().enumerate() {
            L::load(&mut side.server, player, fresh(number));
        }
        let loading = began.elapsed();
        let join = side.tick();
        for _ in 0..10 {
            side.tick();
        }
        let join_bytes = L::message_bytes(&side) - before;
        Self {
            side,
            play: Play::new(1),
            join: vec![join],
            join_with_load: vec![loading + join],
            join_bytes,
            busy: Vec::new(),
            idle: Vec::new(),
            silent: Vec::new(),
            bytes: 0,
            bare_bytes: 0,
            packet_bytes: 0,
        }
    }

    /// Starts over, and remembers how long it took.
    fn join_again(&mut self, players: usize) {
        let mut again = Self::join(players);
        again.join.append(&mut self.join);
        again.join_with_load.append(&mut self.join_with_load);
        *self = again;
    }

    fn play(&mut self, ticks: usize) {
        let Self { side, .. } = self;
        let (bytes, packet_bytes) = (L::message_bytes(side), side.packet_bytes);
        for _ in 0..ticks {
            let mut watch = |old: Vec<u8>, new: Vec<u8>| self.bare_bytes += bare_patch(&old, &new) as u64;
            self.play.tick(side.server.world_mut(), &side.players, &mut watch);
            self.busy.push(side.tick());
        }
        // What was acknowledged in the last tick is still to be read.
        side.tick();
        self.bytes += L::message_bytes(side) - bytes;
        self.packet_bytes += side.packet_bytes - packet_bytes;
        for _ in 0..5 {
            side.tick();
        }
        for _ in 0..ticks {
            self.idle.push(side.tick());
        }
        for _ in 0..ticks {
            self.silent.push(side.update());
        }
    }
}

/// A server with as many connections, and nothing to say.
fn bare_renet(players: usize) -> App {
    let mut server = ours::bare_server();
    on_one_thread(&mut server);
    let mut renet = server.world_mut().resource_mut::<RenetServer>();
    for id in 1..=players as u64 {
        renet.add_connection(id);
    }
    for _ in 0..10 {
        server.update();
    }
    server
}

fn timed(app: &mut App) -> Duration {
    let began = Instant::now();
    app.update();
    began.elapsed()
}
