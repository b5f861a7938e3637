//! What a server may send to a client. Whatever it is, the client doesn't panic, has at most one mirror, changes nothing
//! for a frame that can't be read, and is as good as new on its next connection.
//!
//! An input is a list of frames ([`Chunks`]).
#![no_main]

use std::cell::RefCell;

use bevy::prelude::*;
use bevy_player_data::{client::LastSaveFailed, prelude::*, testing::ScriptPlayer};
use bevy_player_data_fuzz::{
    Chunks, chunks,
    game::{self, CHANNEL, Coins, Drawing, Guild, Inventory, config},
    start,
};
use bevy_renet::{RenetClient, renet::RenetServer};
use libfuzzer_sys::fuzz_target;

/// How many frames of an input are sent.
const FRAMES: usize = 32;

fuzz_target!(init: start(seeds), |input: &[u8]| {
    thread_local! {
        static STAGE: RefCell<Stage> = RefCell::new(Stage::new());
    }
    STAGE.with_borrow_mut(|stage| stage.play(input));
});

/// A client that is connected to one server after the other.
struct Stage {
    client: App,
    /// What an honest server says.
    honest: Vec<Vec<u8>>,
    entities: usize,
}

/// Everything that a client shows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shown {
    mirror: Option<Entity>,
    is_loading: bool,
    in_session: bool,
    on_fallback: Option<LoadError>,
    is_blocked: Option<SaveError>,
    last_save: Option<SaveError>,
    coins: Option<Coins>,
    drawing: Option<Drawing>,
    inventory: Option<Inventory>,
    guild: Option<Guild>,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self {
            client: game::client(),
            honest: honest(),
            entities: 0,
        };
        stage.connect();
        stage.client.world_mut().remove_resource::<RenetClient>();
        stage.client.update();
        stage.entities = stage.count();
        stage
    }

    fn play(&mut self, input: &[u8]) {
        let mut server = self.connect();
        for (kind, frame) in Chunks(input).take(FRAMES) {
            if kind % 2 == 0 {
                self.hear(&mut server, frame);
            } else {
                // No number begins like this, so no frame does.
                let before = self.look();
                self.hear(&mut server, &[&[0xff], frame].concat());
                assert_eq!(self.look(), before, "a frame that can't be read has an effect");
            }
        }
        self.look();
        // Whatever it was, it ends with the connection.
        self.client.world_mut().remove_resource::<RenetClient>();
        self.client.update();
        assert_eq!(
            self.look(),
            Shown::default(),
            "a mirror has outlived its connection"
        );
        assert_eq!(self.count(), self.entities, "something stays behind");
        self.be_as_good_as_new();
    }

    fn be_as_good_as_new(&mut self) {
        let mut server = self.connect();
        let frames: Vec<&[u8]> = self.honest.iter().map(Vec::as_slice).collect();
        hear(&mut self.client, &mut server, &frames);
        let shown = self.look();
        assert!(shown.in_session && shown.last_save.is_none(), "{shown:?}");
        assert_eq!(shown.coins, Some(Coins(5)));
        assert_eq!(shown.guild, Some(Guild("owls".to_owned())));
        assert_eq!(shown.drawing.map(|drawing| drawing.0.len()), Some(40_000));
    }

    fn connect(&mut self) -> RenetServer {
        let mut client = RenetClient::new(config());
        client.set_connected();
        self.client.insert_resource(client);
        self.client.update();
        let mut server = RenetServer::new(config());
        server.add_connection(1);
        server
    }

    fn hear(&mut self, server: &mut RenetServer, frame: &[u8]) {
        hear(&mut self.client, server, &[frame]);
    }

    fn look(&mut self) -> Shown {
        let Some(mirror) = game::mirror(&mut self.client) else {
            return Shown::default();
        };
        let mirror = self.client.world().entity(mirror);
        let shown = Shown {
            mirror: Some(mirror.id()),
            is_loading: mirror.contains::<PlayerLoading>(),
            in_session: mirror.contains::<PlayerSession>(),
            on_fallback: mirror.get::<PlayerFallback>().map(|state| state.reason().clone()),
            is_blocked: mirror.get::<SaveBlocked>().map(|state| state.reason().clone()),
            last_save: mirror.get::<LastSaveFailed>().map(|state| state.reason().clone()),
            coins: mirror.get().cloned(),
            drawing: mirror.get().cloned(),
            inventory: mirror.get().cloned(),
            guild: mirror.get().cloned(),
        };
        let states = [shown.is_loading, shown.in_session, shown.on_fallback.is_some()];
        let states = states.into_iter().filter(|state| *state).count();
        assert_eq!(states, 1, "a player is in exactly one state: {shown:?}");
        shown
    }

    fn count(&self) -> usize {
        self.client.world().entities().count_spawned() as usize
    }
}

/// Lets a client hear some frames in one update.
fn hear(client: &mut App, server: &mut RenetServer, frames: &[&[u8]]) {
    for frame in frames {
        server.send_message(1, CHANNEL, frame.to_vec());
    }
    let mut renet = client.world_mut().resource_mut::<RenetClient>();
    for packet in server.get_packets_to_send(1).unwrap_or_default() {
        renet.process_packet(&packet);
    }
    for packet in renet.get_packets_to_send() {
        let _ = server.process_packet_from(&packet, 1);
    }
    while server.receive_message(1, CHANNEL).is_some() {}
    client.update();
}

fn honest() -> Vec<Vec<u8>> {
    let (frames, _) = game::overhear(|server, step| {
        let player = game::spawn(server, 1, "ada");
        step(server);
        let values = (Coins(1), Guild("owls".to_owned()), Drawing("x".repeat(40_000)));
        server.world_mut().finish_load(player, true, values);
        step(server);
        server.world_mut().entity_mut(player).insert(Coins(5));
        step(server);
    });
    frames
}

fn seeds() -> Vec<Vec<u8>> {
    let ended = |tail: &dyn Fn(&mut App, Entity)| {
        game::overhear(|server, step| {
            let player = game::spawn(server, 1, "ada");
            step(server);
            let items = [("sword".to_owned(), vec![Some(3), None])].into();
            let values = (Coins(300), Guild("owls".to_owned()), Inventory(items));
            server.world_mut().finish_load(player, false, values);
            step(server);
            tail(server, player);
            step(server);
            server
                .world_mut()
                .entity_mut(player)
                .remove::<Guild>()
                .insert(Coins(70_000));
            step(server);
            server.world_mut().despawn(player);
            step(server);
        })
        .0
    };
    let unavailable = || SaveError::Unavailable {
        message: "down".to_owned(),
    };
    let locked = || LoadError::SessionLocked {
        server: "b".to_owned(),
    };
    let histories = [
        ended(&|_, _| ()),
        ended(&|server, player| server.world_mut().finish_save(player, Err(unavailable()))),
        ended(&|server, player| server.world_mut().finish_save(player, Ok(()))),
        ended(&|server, player| server.world_mut().block_saves(player, Some(unavailable()))),
        ended(&|server, player| server.world_mut().end_session(player, SessionEnd::LockLost)),
        ended(&|server, _| {
            server
                .world_mut()
                .disconnect_client(1, DisconnectKind::Other, "bye")
        }),
        ended(&|server, player| server.world_mut().start_save(player)),
        ended(&|server, player| {
            let id = |text: &str| text.parse().expect("an id");
            let purchase = "pi_1".parse().expect("an id");
            let decision = PurchaseDecision::Refused {
                reason: "full".to_owned(),
            };
            server
                .world_mut()
                .process_purchase(player, purchase, id("coins_100"), decision);
        }),
        game::overhear(|server, step| {
            let player = game::spawn(server, 1, "ada");
            step(server);
            server
                .world_mut()
                .fail_load(player, locked(), (Coins(1), Drawing("y".repeat(3000))));
            step(server);
        })
        .0,
    ];
    let mut seeds = Vec::new();
    for history in &histories {
        seeds.push(chunks(history.iter().map(|frame| (0, &frame[..]))));
        seeds.push(chunks(
            history
                .iter()
                .flat_map(|frame| [(0, &frame[..]), (1, &frame[..])]),
        ));
    }
    // In the protocol's spelling, in the session of the history: what is cut in two; a value twice in one frame and in a
    // load; patches that fit and that don't.
    if let [_, loading, loaded, ..] = &histories[0][..] {
        let frame = |kind: u8, rest: &[u8]| [&[kind << 5 | loading[0] & 31], rest].concat();
        let (a, b) = loaded.split_at(loaded.len() / 2);
        let in_parts = [frame(1, a), frame(2, b), frame(2, b)];
        let changes = [
            frame(3, &[2, 0, 1, 1, 5, 0, 1, 1, 6]),
            frame(0, &[4, 0, 0, 2, 0, 1, 5, 0, 1, 6]),
            frame(4, &[0, 9]),
            frame(5, &[0, 0, 7]),
            frame(6, &[0, 0, 1, 251, 1, 1]),
            frame(6, &[0, 9, 9, 1]),
            frame(3, &[2, 0, 2, 0, 1, 8, 0, 0]),
        ];
        let seed = |first: &[&Vec<u8>], rest: &[Vec<u8>]| {
            let frames = first
                .iter()
                .map(|frame| &frame[..])
                .chain(rest.iter().map(|frame| &frame[..]));
            chunks(frames.map(|frame| (0, frame)))
        };
        seeds.push(seed(&[loading], &in_parts));
        seeds.push(seed(&[loading, loaded], &changes));
        seeds.push(seed(&[loading], &changes[1..]));
        // A load that ends twice, in another way.
        if let Some(on_defaults) = histories.last().and_then(|history| history.get(2)) {
            seeds.push(seed(&[loading, loaded, on_defaults, loaded], &[]));
        }
    }
    seeds
}
