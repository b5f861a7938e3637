//! One of the two that are compared: a server, its clients, and what they cost.

use std::{
    any::Any,
    marker::PhantomData,
    sync::mpsc::{Sender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_renet::{RenetClient, RenetServer, renet::ConnectionConfig};

use crate::{
    figures::on_one_thread,
    workload::{Coins, Data, Inventory, Level, Settings, Stats},
};

/// How a library is used.
pub trait Library: 'static {
    fn server() -> App;
    fn client() -> App;
    fn config(app: &App) -> ConnectionConfig;
    /// What has to be there before the data.
    fn spawn(server: &mut App, id: u64) -> Entity;
    /// The player's data is there from now on.
    fn load(server: &mut App, player: Entity, data: Data);
    /// How many bytes of messages clients were sent so far, without what renet adds.
    fn message_bytes(side: &Side<Self>) -> u64
    where
        Self: Sized;
    /// The entity that shows a client its data.
    fn mirror(client: &mut App) -> Entity;
}

pub struct Side<L> {
    pub server: App,
    pub clients: Clients,
    pub players: Vec<Entity>,
    /// All bytes of packets to clients.
    pub packet_bytes: u64,
    library: PhantomData<L>,
}

/// All packets for a client, or of one.
type Packets = Vec<Vec<u8>>;

/// Client apps, on a thread of their own: a server doesn't share its core and its caches with its clients.
pub struct Clients(Sender<Order>);

type Order = Box<dyn FnOnce(&mut Vec<App>) + Send>;

impl Clients {
    fn new<L: Library>(count: usize) -> Self {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            let mut clients = (0..count).map(|_| connected_client::<L>()).collect();
            for order in inbox {
                order(&mut clients);
            }
        });
        Self(orders)
    }

    /// Has something done with the clients, and waits for it.
    pub fn with<T: Any + Send>(&self, work: impl FnOnce(&mut Vec<App>) -> T + Send + 'static) -> T {
        let (answer, result) = sync_channel(1);
        let order = Box::new(move |clients: &mut Vec<App>| {
            // Whoever asked is waiting.
            let _ = answer.send(work(clients));
        });
        self.0.send(order).expect("the clients live as long as this");
        result.recv().expect("no client panics")
    }
}

fn connected_client<L: Library>() -> App {
    let mut client = L::client();
    on_one_thread(&mut client);
    let mut renet = RenetClient::new(L::config(&client));
    renet.set_connected();
    client.insert_resource(renet);
    client
}

/// What the server has to say to a client, and what the client answers.
fn converse(client: &mut App, packets: Packets) -> Packets {
    let mut renet = client.world_mut().resource_mut::<RenetClient>();
    for packet in &packets {
        renet.process_packet(packet);
    }
    client.update();
    let mut renet = client.world_mut().resource_mut::<RenetClient>();
    renet.get_packets_to_send()
}

impl<L: Library> Side<L> {
    /// Everybody is connected, and nobody has any data.
    pub fn new(players: usize) -> Self {
        let clients = Clients::new::<L>(players);
        let mut server = L::server();
        on_one_thread(&mut server);
        let mut renet = server.world_mut().resource_mut::<RenetServer>();
        for id in 1..=players as u64 {
            renet.add_connection(id);
        }
        let players = (1..=players as u64).map(|id| L::spawn(&mut server, id)).collect();
        let mut side = Self {
            server,
            clients,
            players,
            packet_bytes: 0,
            library: PhantomData,
        };
        for _ in 0..10 {
            side.update();
            side.deliver(true);
        }
        side
    }

    /// One tick of everybody. Only the server's update is timed; the clients' answers reach it in the next.
    pub fn tick(&mut self) -> Duration {
        let took = self.update();
        self.deliver(false);
        took
    }

    /// An update of the server alone.
    pub fn update(&mut self) -> Duration {
        let began = Instant::now();
        self.server.update();
        began.elapsed()
    }

    /// Hands over what there is for clients, and what those who got something (or all of them) answer.
    fn deliver(&mut self, to_all: bool) {
        let mut renet = self.server.world_mut().resource_mut::<RenetServer>();
        let mut letters = Vec::new();
        for number in 0..self.players.len() {
            let packets = renet
                .get_packets_to_send(number as u64 + 1)
                .expect("everybody is connected");
            self.packet_bytes += packets.iter().map(|packet| packet.len() as u64).sum::<u64>();
            if to_all || !packets.is_empty() {
                letters.push((number, packets));
            }
        }
        if letters.is_empty() {
            return;
        }
        let answers: Vec<(usize, Packets)> = self.clients.with(|clients| {
            let answer =
                |(number, packets): (usize, Packets)| (number, converse(&mut clients[number], packets));
            letters.into_iter().map(answer).collect()
        });
        for (number, packets) in answers {
            for packet in packets {
                renet
                    .process_packet_from(&packet, number as u64 + 1)
                    .expect("everybody is connected");
            }
        }
    }

    /// Every client has what its server has.
    pub fn check(&self) {
        let mirrors: Vec<Option<Data>> = self.clients.with(|clients| {
            let mirror = |client: &mut App| {
                let entity = L::mirror(client);
                data_of(client.world(), entity)
            };
            clients.iter_mut().map(mirror).collect()
        });
        for (mirror, &player) in mirrors.iter().zip(&self.players) {
            let data = data_of(self.server.world(), player);
            assert!(data.is_some(), "a player has lost something");
            assert_eq!(*mirror, data, "a client has other data than its server");
        }
    }
}

fn data_of(world: &World, entity: Entity) -> Option<Data> {
    Some((
        world.get::<Coins>(entity)?.clone(),
        world.get::<Level>(entity)?.clone(),
        world.get::<Settings>(entity)?.clone(),
        world.get::<Inventory>(entity)?.clone(),
        world.get::<Stats>(entity)?.clone(),
    ))
}
