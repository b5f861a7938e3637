//! One player's client: a real app with the mirror, and a recorder that reads every packet that reaches it.

use bevy::{
    prelude::*,
    time::{TimePlugin, TimeUpdateStrategy},
};
use bevy_player_data::{
    prelude::*,
    testing::{LocalConnection, Way},
};
use bevy_renet::{
    RenetClientPlugin, RenetServer,
    renet::{ClientId, ConnectionConfig},
};

use crate::{
    driven::run_on_one_thread,
    game::{self, Build, Journal, badge_of, diary_of, pet_of},
    server::{Server, TICK},
    wire::{Sabotage, Wire},
};

pub struct Client {
    player: PlayerId,
    app: App,
    /// To which server, as which client.
    connection: Option<(usize, LocalConnection)>,
    wire: Wire,
}

impl Client {
    pub fn new(player: PlayerId, wire: &Wire) -> Self {
        let mut app = App::new();
        app.add_plugins(TimePlugin)
            .insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
            .add_plugins((RenetClientPlugin, PlayerDataPlugin::client()));
        game::public_data(&mut app, Build::New);
        if wire.sabotage() == Some(Sabotage::OpenDiary) {
            app.persist::<game::OpenDiary>();
        }
        run_on_one_thread(&mut app);
        Self {
            player,
            app,
            connection: None,
            wire: wire.clone(),
        }
    }

    /// Connects to a server, after leaving another one.
    pub fn connect(&mut self, number: usize, server: &mut Server, id: ClientId) {
        let config = ConnectionConfig::default().with_player_data();
        let connection = LocalConnection::open(&mut server.app, &mut self.app, id, config);
        self.connection = Some((number, connection));
    }

    pub fn server(&self) -> Option<usize> {
        self.connection.map(|(server, _)| server)
    }

    /// Ends the connection; `server` is the one that it was to, if that still runs.
    pub fn disconnect(&mut self, server: Option<&mut Server>) {
        if let (Some((_, connection)), Some(server)) = (self.connection, server)
            && let Some(mut renet) = server.app.world_mut().get_resource_mut::<RenetServer>()
        {
            renet.disconnect(connection.client());
        }
        self.connection = None;
        self.app.world_mut().remove_resource::<bevy_renet::RenetClient>();
    }

    /// Hands over what both sides have to say, and looks into it.
    pub fn tick(&mut self, server: Option<&mut Server>, everybody: &[PlayerId]) {
        if let (Some((_, connection)), Some(server)) = (self.connection, server) {
            let (wire, reader) = (&self.wire, self.reader(everybody));
            connection.deliver_watched(&mut server.app, &mut self.app, |way, packet| {
                if way == Way::ToClient {
                    read(wire, reader, packet);
                }
            });
        }
        self.app.update();
    }

    /// Whose packets these are taken for.
    fn reader(&self, everybody: &[PlayerId]) -> PlayerId {
        if self.wire.sabotage() != Some(Sabotage::WrongClient) {
            return self.player;
        }
        let others = everybody.iter().copied();
        others
            .into_iter()
            .find(|&other| other != self.player)
            .unwrap_or(self.player)
    }

    /// What the mirror shows, if it shows a player's data.
    pub fn journal(&mut self) -> Option<Vec<u32>> {
        let world = self.app.world_mut();
        let mut mirror = world.query_filtered::<&Journal, (With<OwnPlayer>, With<PlayerSession>)>();
        mirror.iter(world).next().map(|journal| journal.0.clone())
    }
}

/// Looks for words in a packet that its reader must not see.
fn read(wire: &Wire, reader: PlayerId, packet: &[u8]) {
    let (badge, pet) = (badge_of(reader), pet_of(reader));
    wire.oracle(|oracle| {
        oracle.tally.count("packets", "to clients");
        for word in words(packet) {
            let word = String::from_utf8_lossy(word);
            if word == badge || word == pet {
                oracle.tally.count("packets", "with the reader's own words");
            } else {
                oracle.judge(Err(format!("I10: {reader} was sent `{word}`")));
            }
        }
    });
}

/// The secret words in some bytes: `badge/…`, `diary/…`, `pet/…`, each with the 32 digits of a player's id.
fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = (0..bytes.len()).filter(|&at| bytes[at] == b'/');
    slashes.filter_map(|slash| {
        let start = [&b"badge"[..], b"diary", b"pet"]
            .iter()
            .find(|name| bytes[..slash].ends_with(name))
            .map(|name| slash - name.len())?;
        bytes.get(start..(slash + 33).min(bytes.len()))
    })
}

#[test]
fn words_are_found_wherever_they_are() {
    let player = PlayerId::from_name("ada");
    let bytes = [
        b"x/",
        badge_of(player).as_bytes(),
        b"diary",
        diary_of(player).as_bytes(),
        b"pet/1",
    ]
    .concat();
    let found: Vec<_> = words(&bytes).collect();
    assert_eq!(
        found,
        [badge_of(player).as_bytes(), diary_of(player).as_bytes(), b"pet/1"]
    );
}
