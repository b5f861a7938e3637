//! What it costs to show players their own data, beside `bevy_replicon` with each entity visible to its owner only.
//!
//! Both run on real renet connections, over which packets are handed in memory, and play the same game with the same
//! seed; what clients acknowledge reaches the server in the next tick. Timed is the server's whole `App::update`, with
//! renet's own work in it, which is printed beside it. Both take turns in the same run; the table shows medians. In the
//! end every client is compared with its server. Nothing else is asserted.
//!
//! `cargo bench --bench replication`, or with `-- --quick` to see only that it runs.

mod ours;
mod replicon;
mod side;
mod workload;

use std::time::Duration;

use bevy::prelude::*;
use ours::Ours;
use replicon::Replicon;
use side::{Library, Side};
use workload::{Coins, Inventory, Level, Play, Settings, Stats, bare_patch, fresh};

struct Scale {
    rounds: usize,
    ticks: usize,
    players: &'static [usize],
}

fn main() {
    // Cargo itself passes `--bench`.
    let quick = std::env::args().any(|argument| argument == "--quick");
    let scale = if quick {
        Scale {
            rounds: 1,
            ticks: 5,
            players: &[20],
        }
    } else {
        Scale {
            rounds: 7,
            ticks: 30,
            players: &[50, 200, 500],
        }
    };
    println!(
        "{} alternating rounds of {} ticks; medians\n",
        scale.rounds, scale.ticks
    );
    println!("| players | what | crate | bevy_replicon | ratio | renet alone |");
    println!("|---|---|---|---|---|---|");
    for &players in scale.players {
        compare(&scale, players);
    }
}

/// What a side has cost so far.
struct Costs {
    side: Side,
    play: Play,
    join: Vec<Duration>,
    join_bytes: u64,
    busy: Vec<Duration>,
    idle: Vec<Duration>,
    bytes: u64,
    bare_bytes: u64,
    packet_bytes: u64,
}

fn compare(scale: &Scale, players: usize) {
    let mut ours = Costs::join::<Ours>(players);
    let mut theirs = Costs::join::<Replicon>(players);
    let mut renet = bare_renet(players);
    let mut renet_alone = Vec::new();
    for _ in 0..scale.rounds {
        ours.play::<Ours>(scale.ticks);
        theirs.play::<Replicon>(scale.ticks);
        renet_alone.extend((0..scale.ticks).map(|_| timed(&mut renet)));
    }
    ours.check::<Ours>();
    theirs.check::<Replicon>();

    let renet_alone = median(&renet_alone);
    let time = |what: &str, ours: &[Duration], theirs: &[Duration]| {
        let (ours, theirs) = (median(ours), median(theirs));
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        println!("| {players} | {what} | {ours:.1?} | {theirs:.1?} | 1/{ratio:.0} | {renet_alone:.1?} |");
    };
    time("server's tick", &ours.busy, &theirs.busy);
    time("idle tick", &ours.idle, &theirs.idle);
    time("tick in which all join", &ours.join, &theirs.join);
    let bytes = |what: &str, ours: u64, theirs: u64, ticks: usize| {
        let (ours, theirs) = (ours as f64 / ticks as f64, theirs as f64 / ticks as f64);
        println!(
            "| {players} | {what} | {ours:.0} | {theirs:.0} | 1/{:.1} | |",
            theirs / ours
        );
    };
    let ticks = scale.rounds * scale.ticks;
    bytes("message bytes a tick", ours.bytes, theirs.bytes, ticks);
    bytes(
        "bare patches of the same",
        ours.bare_bytes,
        theirs.bare_bytes,
        ticks,
    );
    bytes(
        "packet bytes a tick",
        ours.packet_bytes,
        theirs.packet_bytes,
        ticks,
    );
    bytes(
        "message bytes when all join",
        ours.join_bytes,
        theirs.join_bytes,
        1,
    );
}

impl Costs {
    fn join<L: Library>(players: usize) -> Self {
        let mut side = Side::new::<L>(players);
        let before = L::message_bytes(&mut side);
        for (number, &player) in side.players.iter().enumerate() {
            L::load(&mut side.server, player, fresh(number));
        }
        let join = vec![side.tick()];
        for _ in 0..10 {
            side.tick();
        }
        let join_bytes = L::message_bytes(&mut side) - before;
        Self {
            side,
            play: Play::new(1),
            join,
            join_bytes,
            busy: Vec::new(),
            idle: Vec::new(),
            bytes: 0,
            bare_bytes: 0,
            packet_bytes: 0,
        }
    }

    fn play<L: Library>(&mut self, ticks: usize) {
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
    }

    /// Every client has what its server has.
    fn check<L: Library>(&mut self) {
        for ((client, _), &player) in self.side.clients.iter_mut().zip(&self.side.players) {
            let mirror = L::mirror(client);
            let (server, client) = (self.side.server.world(), client.world());
            assert_eq!(server.get::<Coins>(player), client.get::<Coins>(mirror));
            assert_eq!(server.get::<Level>(player), client.get::<Level>(mirror));
            assert_eq!(server.get::<Settings>(player), client.get::<Settings>(mirror));
            assert_eq!(server.get::<Inventory>(player), client.get::<Inventory>(mirror));
            assert_eq!(server.get::<Stats>(player), client.get::<Stats>(mirror));
        }
    }
}

/// A server with as many connections, and nothing to say.
fn bare_renet(players: usize) -> App {
    let mut server = ours::bare_server();
    let mut renet = server.world_mut().resource_mut::<bevy_renet::RenetServer>();
    for id in 1..=players as u64 {
        renet.add_connection(id);
    }
    for _ in 0..10 {
        server.update();
    }
    server
}

fn timed(app: &mut App) -> Duration {
    let began = std::time::Instant::now();
    app.update();
    began.elapsed()
}

fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
