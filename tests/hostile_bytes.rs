//! Whatever a client sends, the server and the other players don't notice; and a client survives its server.
#![cfg(all(feature = "client", feature = "server"))]

#[path = "support/net.rs"]
mod net;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    replication::{PlayerDataChannels, ReplicationStats},
    testing::{ScriptPlayer, ScriptedServerPlugin, Way, headless_app},
};
use bevy_renet::{
    RenetClient, RenetServer, RenetServerPlugin,
    renet::{self, ClientId, ConnectionConfig},
};
use net::*;

const CHANNEL: u8 = 250;

/// A client that is not the plugin's.
struct Mallory {
    renet: renet::RenetClient,
    id: ClientId,
}

impl Mallory {
    fn connect(server: &mut App, id: ClientId) -> Self {
        // Its own side of the channel has no limit to speak of.
        let channels = PlayerDataChannels {
            to_server_memory: 64 * 1024 * 1024,
            ..default()
        };
        let mut renet =
            renet::RenetClient::new(ConnectionConfig::default().with_player_data_channels(channels));
        renet.set_connected();
        server
            .world_mut()
            .resource_mut::<RenetServer>()
            .add_connection(id);
        Self { renet, id }
    }

    fn send(&mut self, message: &[u8]) {
        self.renet.send_message(CHANNEL, message.to_vec());
    }

    fn exchange(&mut self, server: &mut App) {
        let mut server = server.world_mut().resource_mut::<RenetServer>();
        for packet in self.renet.get_packets_to_send() {
            let _ = server.process_packet_from(&packet, self.id);
        }
        for packet in server.get_packets_to_send(self.id).unwrap_or_default() {
            self.renet.process_packet(&packet);
        }
        while self.renet.receive_message(CHANNEL).is_some() {}
        if !server.is_connected(self.id) {
            self.renet.disconnect_due_to_transport();
            server.remove_connection(self.id);
        }
    }

    fn is_connected(&self) -> bool {
        self.renet.is_connected()
    }
}

/// xorshift64 (Marsaglia, <https://www.jstatsoft.org/article/view/v008i14>): the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn mutated(&mut self, original: &[u8]) -> Vec<u8> {
        let mut bytes = original.to_vec();
        for _ in 0..=self.below(3) {
            match self.below(4) {
                0 if !bytes.is_empty() => {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
                1 => bytes.truncate(self.below(bytes.len() + 1)),
                2 => bytes.insert(self.below(bytes.len() + 1), self.next() as u8),
                _ => {
                    let tail = self.below(20);
                    bytes.extend(self.bytes(tail));
                }
            }
        }
        bytes
    }
}

/// The messages that the plugin's own client sends, as renet delivers them.
fn honest_messages() -> Vec<Vec<u8>> {
    let mut server = server();
    let (mut client, player) = Client::join(&mut server, 1, "ada");
    server.world_mut().finish_load(player, false, Coins(1));
    client.settle(&mut server);
    let mut tap = renet::RenetServer::new(config());
    tap.add_connection(1);
    for (way, packet) in &client.packets {
        if *way == Way::ToServer {
            tap.process_packet_from(packet, 1).expect("it is connected");
        }
    }
    let messages: Vec<Vec<u8>> =
        std::iter::from_fn(|| tap.receive_message(1, CHANNEL).map(Vec::from)).collect();
    assert!(messages.len() >= 2, "a hello and an acknowledgement");
    messages
}

fn stats(server: &App) -> ReplicationStats {
    server.world().resource::<ReplicationStats>().clone()
}

#[test]
fn ten_thousand_random_and_mutated_messages_have_no_effect() {
    let honest = honest_messages();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut server = server();
    let (mut ada, player) =
        Client::join_and_load(&mut server, 1, "ada", (Coins(412), Guild("owls".to_owned())));
    let before = (ada.get::<Coins>(), ada.get::<Guild>());

    let mut next_id = 1000;
    let mut mallory = Mallory::connect(&mut server, next_id);
    let mut her_player = spawn(&mut server, next_id, "mallory");
    for n in 0..10_000 {
        if !mallory.is_connected() {
            server.world_mut().despawn(her_player);
            next_id += 1;
            mallory = Mallory::connect(&mut server, next_id);
            her_player = spawn(&mut server, next_id, "mallory");
            server.world_mut().finish_load(her_player, false, Coins(0));
        }
        let message = if n % 2 == 0 {
            let length = random.below(300);
            random.bytes(length)
        } else {
            let original = &honest[random.below(honest.len())];
            random.mutated(original)
        };
        mallory.send(&message);
        mallory.exchange(&mut server);
        server.update();
        mallory.exchange(&mut server);
    }
    ada.settle(&mut server);

    let stats = stats(&server);
    // What arrives after the last strike is not read any more.
    assert!(
        stats.total.nonsense > 8_000,
        "{} were noticed",
        stats.total.nonsense
    );
    assert!(
        stats.disconnected_for_nonsense > 1_000,
        "{} times",
        stats.disconnected_for_nonsense
    );
    assert_eq!((ada.get::<Coins>(), ada.get::<Guild>()), before);
    assert_eq!(server.world().get(player), Some(&Coins(412)));
    assert_eq!(server.world().get(her_player), Some(&Coins(0)));
    assert!(ada.is_connected(&server));
    server
        .world_mut()
        .get_mut::<Coins>(player)
        .expect("she has some")
        .0 = 413;
    ada.settle(&mut server);
    assert_eq!(ada.get(), Some(Coins(413)), "the server goes on");
}

#[test]
fn a_client_that_keeps_sending_nonsense_is_disconnected_and_others_are_not() {
    let mut server = server();
    let (mut ada, _) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    let mut mallory = Mallory::connect(&mut server, 2);
    let strikes = ReplicationSettings::default().strikes;
    for n in 1..=strikes {
        assert!(
            mallory.is_connected(),
            "disconnected after {} of {strikes}",
            n - 1
        );
        mallory.send(&[9; 10]);
        mallory.exchange(&mut server);
        server.update();
        mallory.exchange(&mut server);
    }
    server.update();
    mallory.exchange(&mut server);
    assert!(!mallory.is_connected());
    ada.settle(&mut server);
    assert!(ada.is_connected(&server));
    assert_eq!(stats(&server).disconnected_for_nonsense, 1);
    assert_eq!(
        stats(&server).client(2),
        None,
        "nothing is kept of a client that is gone"
    );
}

#[test]
fn a_message_that_is_too_long_is_not_read() {
    let mut server = server();
    let mut mallory = Mallory::connect(&mut server, 2);
    mallory.send(&vec![0; 40 * 1024]);
    mallory.exchange(&mut server);
    server.update();
    let client = stats(&server).client(2).expect("it is connected");
    assert_eq!((client.received_messages, client.nonsense), (1, 1));
}

#[test]
fn a_flood_is_read_a_little_per_tick() {
    let replication = ReplicationSettings {
        strikes: 1000,
        ..default()
    };
    let mut server = headless_app();
    server
        .add_plugins((RenetServerPlugin, ScriptedServerPlugin { replication }))
        .insert_resource(RenetServer::new(config()));
    let mut mallory = Mallory::connect(&mut server, 2);
    for _ in 0..100 {
        mallory.send(&[9; 10]);
    }
    mallory.exchange(&mut server);
    let mut read = Vec::new();
    for _ in 0..3 {
        let before = stats(&server).total.received_messages;
        server.update();
        read.push(stats(&server).total.received_messages - before);
    }
    assert_eq!(read, [64, 36, 0]);
}

#[test]
fn a_flood_overflows_the_flooders_own_channel() {
    let mut server = server();
    let (mut ada, _) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    let mut mallory = Mallory::connect(&mut server, 3);
    for _ in 0..2000 {
        mallory.send(&[7; 100]);
    }
    for _ in 0..10 {
        mallory.exchange(&mut server);
    }
    server.update();
    mallory.exchange(&mut server);
    assert!(
        !mallory.is_connected(),
        "renet gives up on a channel that is full"
    );
    ada.settle(&mut server);
    assert_eq!(ada.get(), Some(Coins(1)));
    assert!(ada.is_connected(&server));
}

#[test]
fn a_client_that_acknowledges_what_it_was_never_sent_gains_nothing() {
    let mut server = server();
    let (mut ada, _) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    let mut mallory = Mallory::connect(&mut server, 2);
    // In the protocol's spelling: an acknowledgement of frame 200 in session 1.
    mallory.send(&[1, 1, 200]);
    mallory.exchange(&mut server);
    server.update();
    assert_eq!(stats(&server).client(2).map(|client| client.nonsense), Some(1));
    ada.settle(&mut server);
    assert!(ada.is_connected(&server));
}

/// A client that hears frames from a server of which nothing else is there.
struct Listener {
    app: App,
    server: renet::RenetServer,
}

impl Listener {
    fn new() -> Self {
        let mut app = bare_client(ReplicationSettings::default());
        app.add_plugins(shared_data);
        let mut renet = RenetClient::new(config());
        renet.set_connected();
        app.insert_resource(renet);
        let mut server = renet::RenetServer::new(config());
        server.add_connection(1);
        Self { app, server }
    }

    /// Takes in a frame, and returns the coins that are shown then.
    fn hear(&mut self, frame: Vec<u8>) -> Option<Coins> {
        self.server.send_message(1, CHANNEL, frame);
        let mut client = self.app.world_mut().resource_mut::<RenetClient>();
        for packet in self.server.get_packets_to_send(1).expect("it is connected") {
            client.process_packet(&packet);
        }
        self.app.update();
        let mut coins = self.app.world_mut().query::<&Coins>();
        coins.iter(self.app.world()).next().cloned()
    }

    fn count<F: bevy::ecs::query::QueryFilter>(&mut self) -> usize {
        self.app
            .world_mut()
            .query_filtered::<(), F>()
            .iter(self.app.world())
            .count()
    }
}

/// In the protocol's spelling, in session 1: loading a player, whose id is 7 all over.
fn loading() -> Vec<u8> {
    [&[1, 3, 16][..], &[7; 16], &[1]].concat()
}

#[test]
fn a_server_that_says_twice_how_a_load_ended_leaves_the_player_in_one_state() {
    let mut listener = Listener::new();
    listener.hear(loading());
    // In a session; on defaults, because server `b` has the player; in a session.
    let session = vec![1, 4, 0, 0, 1, 0, 1, 5];
    let on_defaults = vec![1, 4, 1, 0, 1, b'b', 1, 0, 1, 6];
    for (frame, in_session, coins) in [(&session, 1, 5), (&on_defaults, 0, 6), (&session, 1, 5)] {
        assert_eq!(listener.hear(frame.clone()), Some(Coins(coins)));
        let states = (
            listener.count::<With<PlayerSession>>(),
            listener.count::<With<PlayerFallback>>(),
        );
        assert_eq!(states, (in_session, 1 - in_session));
        assert_eq!(listener.count::<With<PlayerLoading>>(), 0);
    }
}

#[test]
fn a_patch_of_bytes_that_are_not_there_leaves_the_last_good_value() {
    let mut listener = Listener::new();
    listener.hear(loading());
    let coins = |coins| Some(Coins(coins));
    assert_eq!(listener.hear(vec![1, 4, 0, 0, 1, 0, 1, 5]), coins(5));
    let (whole, overwrite, splice) = (4 << 5 | 1, 5 << 5 | 1, 6 << 5 | 1);
    assert_eq!(listener.hear(vec![overwrite, 0, 0, 7]), coins(7));
    for misfit in [
        vec![overwrite, 0, 1, 8],
        vec![splice, 0, 0, 2, 8],
        vec![overwrite, 0, 0, 9],
    ] {
        assert_eq!(listener.hear(misfit), coins(7));
    }
    assert_eq!(listener.hear(vec![whole, 0, 8]), coins(8));
    assert_eq!(listener.hear(vec![splice, 0, 0, 1, 9]), coins(9));
}

#[test]
fn a_server_that_says_a_value_twice_in_a_message_is_taken_at_its_last_word() {
    // Coins (the first public type) twice: in a load, in a change, as gone, and as new and gone.
    let changes = 3 << 5 | 1;
    let loaded = vec![1, 4, 0, 0, 2, 0, 1, 5, 0, 1, 6];
    let changed = vec![changes, 1, 1, 7, 1, 1, 8];
    let gone = vec![changes, 0, 0];
    let both = vec![changes, 0, 1, 1, 9];
    let mut listener = Listener::new();
    let shown = [loading(), loaded, changed, gone, both].map(|frame| listener.hear(frame));
    let coins = |coins| Some(Coins(coins));
    assert_eq!(shown, [None, coins(6), coins(8), None, coins(9)]);
}
