//! The client's UI without a window, on a real server in the same process.

use std::time::{Duration, Instant};

use bevy::{
    input_focus::{InputFocus, InputFocusVisible},
    prelude::*,
    text::Font,
    ui_widgets::Activate,
};
use bevy_player_data::{
    prelude::*,
    session::RetryPolicy,
    store::{Faults, FaultyStore, MemoryStore},
    testing::{LocalConnection, headless_app},
};
use bevy_renet::{RenetServer, RenetServerPlugin};

use crate::{
    game::{
        data::{Coins, shared_data},
        net,
    },
    window::{
        dialogs,
        link::{self, Account, Link},
        saves, shop, telling,
        theme::Theme,
    },
};

/// How long anything may take. Far longer than it does, so that a busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn ada() -> PlayerId {
    PlayerId::from_name("ada")
}

/// A server and ada's client.
pub struct Pair {
    pub server: App,
    pub client: App,
    connection: LocalConnection,
    pub faults: Faults,
    pub store: MemoryStore,
}

impl Pair {
    /// Connects them; `prepare` may do something to the server's store before.
    pub fn meet(prepare: impl FnOnce(&MemoryStore, &Faults)) -> Self {
        Self::meet_for(Duration::from_secs(40), prepare)
    }

    /// Connects them, and goes on until ada is in a session.
    #[track_caller]
    pub fn in_session() -> Self {
        let mut pair = Self::meet(|_, _| {});
        pair.until_in_session();
        pair
    }

    #[track_caller]
    pub fn until_in_session(&mut self) {
        self.until("ada is in a session", |pair| {
            let world = pair.client.world_mut();
            let mut sessions = world.query_filtered::<(), (With<OwnPlayer>, With<PlayerSession>)>();
            sessions.iter(world).next().is_some()
        });
    }

    /// As [`meet`](Self::meet), with a server that gives a load up after so long.
    pub fn meet_for(load_timeout: Duration, prepare: impl FnOnce(&MemoryStore, &Faults)) -> Self {
        let rows = MemoryStore::default();
        let store = FaultyStore::new(rows.connect(), 1);
        let faults = store.faults();
        prepare(&rows, &faults);
        let mut server = headless_app();
        server
            .add_plugins((
                RenetServerPlugin,
                PlayerDataPlugin::server(store).with_settings(settings(load_timeout)),
                shared_data,
            ))
            .insert_resource(RenetServer::new(net::connection_config()));
        let mut client = client();
        let connection = LocalConnection::open(&mut server, &mut client, 1, net::connection_config());
        Self {
            server,
            client,
            connection,
            faults,
            store: rows,
        }
    }

    pub fn step(&mut self) {
        self.connection.step(&mut self.server, &mut self.client);
    }

    /// Goes on until the client's UI shows `wanted` somewhere.
    #[track_caller]
    pub fn until_told(&mut self, wanted: &str) {
        self.until(&format!("`{wanted}` is on the screen"), |pair| {
            pair.texts().iter().any(|text| text.contains(wanted))
        });
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(
                began.elapsed() < PATIENCE,
                "{what}, within {PATIENCE:?}; on the screen is {:?}",
                self.texts()
            );
            self.step();
        }
    }

    /// Every text on the screen.
    pub fn texts(&mut self) -> Vec<String> {
        texts(&mut self.client)
    }

    /// Presses the button with these words.
    #[track_caller]
    pub fn press(&mut self, words: &str) {
        press(&mut self.client, words);
    }

    /// The player's entity on the server.
    pub fn player(&mut self) -> Entity {
        let world = self.server.world_mut();
        world
            .query_filtered::<Entity, With<PersistentPlayer>>()
            .single(world)
            .expect("one player")
    }

    /// Gives the player a coin, and saves that.
    pub fn save(&mut self) {
        let entity = self.player();
        let world = self.server.world_mut();
        world.get_mut::<Coins>(entity).expect("it is loaded").0 += 1;
        world.trigger(SavePlayer { entity });
    }
}

fn settings(load_timeout: Duration) -> ServerSettings {
    ServerSettings {
        name: "arena-1".to_owned(),
        identify: Identify::by(|_, _| Some(ada())),
        handle_signals: false,
        autosave: None,
        load_timeout,
        retry: RetryPolicy {
            first: Duration::from_millis(1),
            max: Duration::from_millis(10),
            ..RetryPolicy::default()
        },
        ..default()
    }
}

/// The client's dialogs and shop, as the window has them.
pub fn client() -> App {
    let mut app = headless_app();
    app.add_plugins(AssetPlugin::default())
        .init_asset::<Font>()
        .init_asset::<Image>()
        .init_resource::<Theme>()
        .init_resource::<InputFocus>()
        .init_resource::<InputFocusVisible>()
        .init_resource::<ButtonInput<KeyCode>>()
        .insert_resource(Account::new(
            "ada".to_owned(),
            // Nobody listens there.
            vec!["http://127.0.0.1:1".to_owned()],
        ))
        .insert_resource(Link::Up)
        .add_plugins((PlayerDataPlugin::client(), shared_data))
        .add_plugins((link::plugin, saves::plugin, dialogs::plugin, shop::plugin));
    app
}

pub fn texts(app: &mut App) -> Vec<String> {
    let world = app.world_mut();
    let mut texts = world.query::<&Text>();
    texts.iter(world).map(|text| text.0.clone()).collect()
}

#[track_caller]
pub fn press(app: &mut App, words: &str) {
    let world = app.world_mut();
    let mut texts = world.query::<(&Text, &ChildOf)>();
    let button = texts
        .iter(world)
        .find(|(text, _)| text.0 == words)
        .map(|(_, child_of)| child_of.parent());
    let entity = button.unwrap_or_else(|| panic!("there is a button `{words}`"));
    world.trigger(Activate { entity });
    world.flush();
}

/// What the dialog on the screen is about.
pub fn topic(app: &App) -> Option<telling::Topic> {
    let told = app.world().resource::<dialogs::Told>();
    told.open().map(|telling| telling.topic)
}
