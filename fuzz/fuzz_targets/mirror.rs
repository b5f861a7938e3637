//! Values on their way from a real server to a real client: in one message or in parts, over packets that are lost,
//! repeated and late. The client only ever shows a value that the server had, whole, and never an older one after a
//! newer one; in the end it shows what is so.
//!
//! (A value always goes whole; if there are patches one day, this is where applying them belongs.)
//!
//! An input is a list of steps, two bytes each.
#![no_main]

use std::{cell::RefCell, collections::VecDeque};

use bevy::prelude::*;
use bevy_player_data::{prelude::*, replication::ReplicationStats, testing::ScriptPlayer};
use bevy_player_data_fuzz::{
    game::{self, Coins, Drawing, Guild, config},
    start,
};
use bevy_renet::{RenetClient, RenetServer, renet::ClientId};
use libfuzzer_sys::fuzz_target;

/// How many steps of an input are taken.
const STEPS: usize = 100;
/// How many updates it may take until the client has everything. renet repeats a lost packet after 18 of them.
const PATIENCE: usize = 2000;

fuzz_target!(init: start(seeds), |input: &[u8]| {
    thread_local! {
        static STAGE: RefCell<Stage> = RefCell::new(Stage::new());
    }
    STAGE.with_borrow_mut(|stage| stage.play(input));
});

struct Stage {
    server: App,
    client: App,
    id: ClientId,
    player: Entity,
    /// Packets that are late, to the client and to the server.
    late: [VecDeque<Vec<u8>>; 2],
    /// Counts the drawings, and is in each.
    drawings: u64,
    /// The newest that the client has shown, of this session.
    shown: u64,
}

impl Stage {
    fn new() -> Self {
        let replication = ReplicationSettings {
            max_outstanding: 32 * 1024,
            ..default()
        };
        Self {
            server: game::server(replication),
            client: game::client(),
            id: 0,
            player: Entity::PLACEHOLDER,
            late: default(),
            drawings: 0,
            shown: 0,
        }
    }

    fn play(&mut self, input: &[u8]) {
        self.id += 1;
        self.drawings = 0;
        self.shown = 0;
        self.late = default();
        let mut client = RenetClient::new(config());
        client.set_connected();
        self.client.insert_resource(client);
        self.client.update(); // The mirror of the last connection goes.
        self.server
            .world_mut()
            .resource_mut::<RenetServer>()
            .add_connection(self.id);
        self.player = game::spawn(&mut self.server, self.id, "ada");
        self.load(1);
        for step in input.chunks_exact(2).take(STEPS) {
            self.step(step[0], step[1]);
            self.look();
        }
        self.settle();
        game::part(&mut self.server, self.id, self.player);
    }

    fn step(&mut self, what: u8, n: u8) {
        let player = self.player;
        let world = self.server.world_mut();
        match what % 14 {
            0 => self.draw(usize::from(n) * 700),
            1 => self.draw(n.into()),
            2 => drop(world.entity_mut(player).insert(Coins(n.into()))),
            3 => drop(world.entity_mut(player).insert(Guild("owls".repeat(n.into())))),
            4 => drop(world.entity_mut(player).remove::<Guild>()),
            5 => {
                world.despawn(player);
                self.player = game::spawn(&mut self.server, self.id, "ada");
                if n.is_multiple_of(2) {
                    self.load(n);
                }
            }
            6 => world.end_session(player, SessionEnd::LockLost),
            7 => self.load(n),
            8 => self.server.update(),
            9 => self.client.update(),
            10 => self.carry(0, n),
            11 => self.carry(1, n),
            12 => world.finish_save(player, Ok(())),
            _ => {
                self.server.update();
                self.carry(0, 0);
                self.client.update();
                self.carry(1, 0);
            }
        }
    }

    fn load(&mut self, n: u8) {
        let world = self.server.world_mut();
        if world.entity(self.player).contains::<PlayerLoading>() {
            self.drawings += 1;
            let values = (Coins(3), drawing(self.drawings, usize::from(n) * 300));
            world.finish_load(self.player, n.is_multiple_of(4), values);
        }
    }

    fn draw(&mut self, length: usize) {
        self.drawings += 1;
        let drawing = drawing(self.drawings, length);
        self.server.world_mut().entity_mut(self.player).insert(drawing);
    }

    /// Carries the packets of one way, the bits of `how` telling which are lost, come twice, or come late.
    fn carry(&mut self, way: usize, how: u8) {
        let mut server = self.server.world_mut().resource_mut::<RenetServer>();
        let mut client = self.client.world_mut().resource_mut::<RenetClient>();
        let packets = if way == 0 {
            server.get_packets_to_send(self.id).unwrap_or_default()
        } else {
            client.get_packets_to_send()
        };
        let mut arriving: Vec<Vec<u8>> = self.late[way].drain(..).collect();
        for (n, packet) in packets.into_iter().enumerate() {
            match how.rotate_right(n as u32 % 8) & 3 {
                1 => {}
                2 => self.late[way].push_back(packet),
                3 => arriving.extend([packet.clone(), packet]),
                _ => arriving.push(packet),
            }
        }
        for packet in arriving {
            if way == 0 {
                client.process_packet(&packet);
            } else {
                server
                    .process_packet_from(&packet, self.id)
                    .expect("it is connected");
            }
        }
    }

    /// What the client shows is whole, and not older than what it has shown.
    fn look(&mut self) {
        let Some(mirror) = game::mirror(&mut self.client) else {
            return;
        };
        let Some(Drawing(text)) = self.client.world().get(mirror) else {
            return;
        };
        let (number, length, rest) = parse(text).expect("a drawing says what it is");
        assert_eq!(rest.len(), length, "drawing {number} is torn");
        assert!(
            rest.bytes().all(|byte| byte == fill(number)),
            "drawing {number} is mixed with another"
        );
        assert!(
            number >= self.shown,
            "drawing {number} comes after {}",
            self.shown
        );
        assert!(number <= self.drawings);
        self.shown = number;
    }

    /// From now on nothing gets lost.
    fn settle(&mut self) {
        self.load(1);
        if self
            .server
            .world()
            .entity(self.player)
            .contains::<PlayerSession>()
        {
            self.draw(10);
        }
        for _ in 0..PATIENCE {
            self.step(13, 0);
            self.look();
            if self.is_settled() {
                return;
            }
        }
        panic!("the client never gets to know what is so");
    }

    fn is_settled(&mut self) -> bool {
        let server = self.server.world();
        let stats = server
            .resource::<ReplicationStats>()
            .client(self.id)
            .unwrap_or_default();
        assert_eq!(stats.nonsense, 0, "an honest client is understood");
        let mirror = game::mirror(&mut self.client);
        let theirs = mirror.map(|mirror| self.client.world().entity(mirror));
        let ours = server.entity(self.player);
        if !ours.contains::<PlayerSession>() {
            return theirs.is_none();
        }
        theirs.is_some_and(|theirs| {
            theirs.get::<Drawing>() == ours.get::<Drawing>()
                && theirs.get::<Coins>() == ours.get::<Coins>()
                && theirs.get::<Guild>() == ours.get::<Guild>()
        })
    }
}

/// A drawing that says which it is, how long, and looks like no other.
fn drawing(number: u64, length: usize) -> Drawing {
    let fill = char::from(fill(number)).to_string();
    Drawing(format!("{number} {length} {}", fill.repeat(length)))
}

fn fill(number: u64) -> u8 {
    b'a' + (number % 26) as u8
}

fn parse(text: &str) -> Option<(u64, usize, &str)> {
    let mut words = text.splitn(3, ' ');
    Some((
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next()?,
    ))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        &[13, 0, 2, 9, 13, 0][..],
        // A large value, another one while it is on its way, and the end of the session in the middle.
        &[13, 0, 0, 200, 13, 0, 1, 9, 13, 0, 13, 0],
        &[13, 0, 0, 200, 13, 0, 0, 100, 13, 0, 13, 0],
        &[13, 0, 0, 255, 13, 0, 5, 0, 13, 0, 13, 0],
        &[13, 0, 0, 255, 8, 0, 10, 0x55, 9, 0, 11, 0xaa, 13, 0],
        &[13, 0, 6, 0, 13, 0, 13, 0],
        &[13, 0, 3, 3, 13, 0, 4, 0, 13, 0, 3, 250, 10, 2, 13, 0],
        &[13, 0, 0, 255, 8, 0, 10, 0xff, 9, 0, 10, 2, 8, 0, 10, 0, 9, 0],
        &[5, 0, 13, 0, 5, 0, 8, 0, 5, 0, 13, 0, 12, 0],
    ]
    .map(Vec::from)
    .into();
    for seed in 1..8_u32 {
        let noise = |n: u32| ((n.wrapping_mul(2_654_435_761).wrapping_add(seed * 97)) >> 11) as u8;
        seeds.push((0..60).map(noise).collect());
    }
    seeds
}
