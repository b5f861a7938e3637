//! One of the two that are compared: a server, its clients, and what they cost.

use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy_player_data::testing::{LocalConnection, Way};

use crate::workload::Data;

/// A tick at 60 Hz.
pub const TICK: Duration = Duration::from_micros(16_667);

/// How a library is used.
pub trait Library {
    fn server() -> App;
    fn client() -> App;
    fn connect(server: &mut App, client: &mut App, id: u64) -> LocalConnection;
    /// What has to be there before the data.
    fn spawn(server: &mut App, id: u64) -> Entity;
    /// The player's data is there from now on.
    fn load(server: &mut App, player: Entity, data: Data);
    /// How many bytes of messages clients were sent so far, without what renet adds.
    fn message_bytes(side: &mut Side) -> u64;
    /// The entity that shows a client its data.
    fn mirror(client: &mut App) -> Entity;
}

pub struct Side {
    pub server: App,
    pub clients: Vec<(App, LocalConnection)>,
    pub players: Vec<Entity>,
    /// All bytes of packets to clients.
    pub packet_bytes: u64,
}

impl Side {
    /// Everybody is connected, and nobody has any data.
    pub fn new<L: Library>(players: usize) -> Self {
        let mut server = L::server();
        let mut clients = Vec::new();
        for id in 1..=players as u64 {
            let mut client = L::client();
            let connection = L::connect(&mut server, &mut client, id);
            clients.push((client, connection));
        }
        let players = (1..=players as u64).map(|id| L::spawn(&mut server, id)).collect();
        let mut side = Self {
            server,
            clients,
            players,
            packet_bytes: 0,
        };
        for _ in 0..10 {
            side.tick();
        }
        side
    }

    /// One tick of everybody. Only the server's update is timed; the clients' answers reach it in the next.
    pub fn tick(&mut self) -> Duration {
        let began = Instant::now();
        self.server.update();
        let took = began.elapsed();
        for (client, connection) in &mut self.clients {
            let mut bytes = 0;
            let mut count = |way, packet: &[u8]| bytes += if way == Way::ToClient { packet.len() } else { 0 };
            connection.deliver_watched(&mut self.server, client, &mut count);
            client.update();
            connection.deliver_watched(&mut self.server, client, &mut count);
            self.packet_bytes += bytes as u64;
        }
        took
    }
}
