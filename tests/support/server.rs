//! What the tests of the server's flows share: a small game, and short ways to drive it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::{Duration, Instant};

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_player_data::{
    document::{Document, Entry, StoredValue},
    prelude::*,
    session::RetryPolicy,
    store::{Acquire, Lease, LockId, Record, ServerId, Store, Then, Write},
    testing::{headless_app, update_until},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

mod game;
pub mod rows;
pub use game::{Coins, Guild, Inventory};
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use rows::Rows;

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct CheatScore(pub f32);
impl PlayerData for CheatScore {
    const KEY: &'static str = "cheat_score";
    const PRIVATE: bool = true;
}

pub fn shared_data(app: &mut App) {
    app.persist::<Coins>()
        .persist::<Inventory>()
        .persist_optional::<Guild>()
        .persist::<CheatScore>();
}

pub fn id(name: &str) -> PlayerId {
    PlayerId::from_name(name)
}

/// Settings with which a test needs to wait for nothing: autosave only when a test asks, quick retries.
pub fn quick(name: &str) -> ServerSettings {
    ServerSettings {
        name: name.to_owned(),
        autosave: None,
        handle_signals: false,
        retry: RetryPolicy {
            first: Duration::from_millis(1),
            max: Duration::from_millis(20),
            ..RetryPolicy::default()
        },
        ..rows::times()
    }
}

/// What the game was told, in order.
#[derive(Resource, Default, Debug)]
pub struct Heard(pub Vec<Told>);

#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Loaded {
        player: PlayerId,
        first_join: bool,
    },
    LoadFailed {
        player: PlayerId,
        error: LoadError,
    },
    Saved {
        player: PlayerId,
        is_final: bool,
        result: Result<(), SaveError>,
    },
    Ended {
        player: PlayerId,
        reason: SessionEnd,
    },
}

/// A server with the small game.
pub fn server(store: impl Store, settings: ServerSettings) -> App {
    let mut app = bare_server(store, settings);
    app.add_plugins(shared_data);
    app
}

/// A server that persists nothing yet.
pub fn bare_server(store: impl Store, settings: ServerSettings) -> App {
    let mut app = headless_app();
    app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_millis(16)))
        .add_plugins(PlayerDataPlugin::server(store).with_settings(settings));
    observe(&mut app);
    app
}

/// Writes down what the game is told.
pub fn observe(app: &mut App) {
    app.init_resource::<Heard>()
        .add_observer(|on: On<PlayerLoaded>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Loaded {
                player: on.player,
                first_join: on.first_join,
            });
        })
        .add_observer(|on: On<PlayerLoadFailed>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::LoadFailed {
                player: on.player,
                error: on.error.clone(),
            });
        })
        .add_observer(|on: On<PlayerSaved>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Saved {
                player: on.player,
                is_final: on.is_final,
                result: on.result.clone(),
            });
        })
        .add_observer(|on: On<PlayerSessionEnded>, mut heard: ResMut<Heard>| {
            heard.0.push(Told::Ended {
                player: on.player,
                reason: on.reason,
            });
        });
}

/// Short ways to drive a server app.
pub trait Drive {
    fn join(&mut self, name: &str) -> Entity;
    fn join_and_load(&mut self, name: &str) -> Entity;
    fn until(&mut self, what: &str, condition: impl FnMut(&mut World) -> bool);
    fn until_heard(&mut self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told;
    /// Waits, without an update, until the store has answered everything.
    fn until_answered(&mut self);
    fn queue_len(&mut self) -> usize;
    fn leave(&mut self, entity: Entity);
    fn leave_and_save(&mut self, entity: Entity, name: &str) -> Result<(), SaveError>;
    fn save(&mut self, entity: Entity, name: &str) -> Result<(), SaveError>;
    fn component<T: Component + Clone>(&self, entity: Entity) -> Option<T>;
    fn set<T: Component>(&mut self, entity: Entity, value: T);
    fn heard(&self) -> Vec<Told>;
    fn forget(&mut self);
    /// Exits as `App::run` would: one update with an `AppExit` in it.
    fn exit(&mut self) -> AppExit;
}

impl Drive for App {
    fn join(&mut self, name: &str) -> Entity {
        self.world_mut().spawn(PersistentPlayer(id(name))).id()
    }

    #[track_caller]
    fn join_and_load(&mut self, name: &str) -> Entity {
        let entity = self.join(name);
        self.until(&format!("{name} is loaded"), |world| {
            world.entity(entity).contains::<PlayerSession>()
        });
        entity
    }

    #[track_caller]
    fn until(&mut self, what: &str, condition: impl FnMut(&mut World) -> bool) {
        update_until(self, what, condition);
    }

    #[track_caller]
    fn until_heard(&mut self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        let mut found = None;
        self.until(what, |world| {
            found = world
                .resource::<Heard>()
                .0
                .iter()
                .find(|told| wanted(told))
                .cloned();
            found.is_some()
        });
        found.expect("the condition held")
    }

    #[track_caller]
    fn until_answered(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.queue_len() > 0 {
            assert!(Instant::now() < deadline, "the store has not answered");
            std::thread::yield_now();
        }
    }

    fn queue_len(&mut self) -> usize {
        let len = self
            .world_mut()
            .run_system_cached(|server: PlayerDataServer| server.queue_len());
        len.expect("the plugin is there")
    }

    fn leave(&mut self, entity: Entity) {
        self.world_mut().despawn(entity);
    }

    #[track_caller]
    fn leave_and_save(&mut self, entity: Entity, name: &str) -> Result<(), SaveError> {
        self.forget();
        self.leave(entity);
        let told = self.until_heard(
            &format!("{name}'s final save ends"),
            |told| matches!(told, Told::Saved { player, is_final: true, .. } if *player == id(name)),
        );
        let Told::Saved { result, .. } = told else {
            unreachable!("only a save was asked for")
        };
        result
    }

    #[track_caller]
    fn save(&mut self, entity: Entity, name: &str) -> Result<(), SaveError> {
        self.forget();
        self.world_mut().trigger(SavePlayer { entity });
        self.world_mut().flush();
        let told = self.until_heard(
            &format!("{name}'s save ends"),
            |told| matches!(told, Told::Saved { player, is_final: false, .. } if *player == id(name)),
        );
        let Told::Saved { result, .. } = told else {
            unreachable!("only a save was asked for")
        };
        result
    }

    fn component<T: Component + Clone>(&self, entity: Entity) -> Option<T> {
        self.world().get::<T>(entity).cloned()
    }

    fn set<T: Component>(&mut self, entity: Entity, value: T) {
        self.world_mut().entity_mut(entity).insert(value);
    }

    fn heard(&self) -> Vec<Told> {
        self.world().resource::<Heard>().0.clone()
    }

    fn forget(&mut self) {
        self.world_mut().resource_mut::<Heard>().0.clear();
    }

    fn exit(&mut self) -> AppExit {
        self.world_mut().write_message(AppExit::Success);
        self.update();
        self.should_exit().expect("an exit was requested")
    }
}

/// Runs one request to a store to its end.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for one future")
        .block_on(future)
}

/// A player's row.
pub fn row(store: &dyn Store, name: &str) -> Option<Record> {
    wait(store.peek(id(name))).expect("the store answers")
}

/// A player's stored document.
pub fn stored(store: &dyn Store, name: &str) -> Document {
    let bytes = row(store, name)
        .and_then(|row| row.document)
        .expect("something was saved");
    Document::decode(&bytes).expect("what was saved can be read")
}

/// One stored component.
pub fn stored_value<T: PlayerData>(store: &dyn Store, name: &str) -> Option<T> {
    match stored(store, name).get(T::KEY)? {
        Entry::Value { value, .. } => Some(value.decode().expect("what was saved can be read")),
        Entry::Tombstone => None,
    }
}

pub fn is_locked(store: &dyn Store, name: &str) -> bool {
    row(store, name).is_some_and(|row| row.lock.is_some())
}

/// Puts a document under a player's name as another server would have.
pub fn put(store: &dyn Store, name: &str, document: &Document) {
    let bytes = document.encode(Default::default()).expect("a sound document");
    put_bytes(store, name, bytes.to_vec());
}

pub fn put_bytes(store: &dyn Store, name: &str, bytes: Vec<u8>) {
    let other = OtherServer::start(store, "somebody else");
    other.write(store, name, bytes);
    other.stop(store);
}

/// A document with one value.
pub fn with_value(key: &str, version: u32, value: &impl Serialize) -> Document {
    let mut document = Document::new();
    let value = StoredValue::encode(value).expect("a storable value");
    document.set(
        key,
        Entry::Value {
            version,
            oldest_reader: version,
            value,
        },
    );
    document
}

pub fn decoded<T: DeserializeOwned>(document: &Document, key: &str) -> (u32, T) {
    match document.get(key) {
        Some(Entry::Value { version, value, .. }) => (*version, value.decode().expect("a sound value")),
        other => panic!("no value under `{key}`, but {other:?}"),
    }
}

/// Another server takes a player over, as if this one's lease had lapsed.
pub fn steal(store: &dyn Store, name: &str) {
    let server = row(store, name).and_then(|row| row.lock).expect("a lock").server;
    wait(store.retire(server)).expect("the store answers");
    OtherServer::start(store, "b").lock(store, name);
}

/// A server that is played by the test itself, at the level of the store.
pub struct OtherServer {
    pub server: ServerId,
    name: String,
}

impl OtherServer {
    pub fn start(store: &dyn Store, name: &str) -> Self {
        let this = Self {
            server: ServerId::random(),
            name: name.to_owned(),
        };
        this.beat(store);
        this
    }

    pub fn beat(&self, store: &dyn Store) {
        wait(store.lease(Lease {
            server: self.server,
            name: self.name.clone(),
            lapsed: Vec::new(),
        }))
        .expect("the store answers");
    }

    pub fn lock(&self, store: &dyn Store, name: &str) -> (LockId, u64) {
        let lock = LockId::random();
        let acquired = wait(store.acquire(Acquire {
            player: id(name),
            lock,
            server: self.server,
            lapsed: Vec::new(),
            orphan: None,
            until_beat: u64::MAX,
        }));
        (lock, acquired.expect("the lock is free").fence)
    }

    pub fn write(&self, store: &dyn Store, name: &str, bytes: Vec<u8>) {
        let (lock, fence) = self.lock(store, name);
        let document = Some(bytes.into());
        let write = Write {
            player: id(name),
            lock,
            fence,
            seq: 1,
            document,
            settle: Vec::new(),
            then: Then::Release,
        };
        wait(store.commit(write.into())).expect("the lock is ours");
    }

    pub fn stop(&self, store: &dyn Store) {
        wait(store.retire(self.server)).expect("the store answers");
    }
}
