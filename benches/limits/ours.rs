//! A server with players whose data is one blob.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bevy::{ecs::entity::EntityHashMap, prelude::*};
use bevy_player_data::{
    prelude::*,
    testing::{headless_app, update_until},
};
use serde::{Deserialize, Serialize};

use crate::{bare::player_id, figures::on_one_thread};

/// A component of any size.
#[derive(Component, Serialize, Deserialize, Default)]
struct Blob(String);

impl PlayerData for Blob {
    const KEY: &'static str = "blob";
}

/// What the game was told.
#[derive(Resource, Default)]
struct Told {
    /// Whose last save was acknowledged.
    at_rest: Vec<Entity>,
    asked: EntityHashMap<Instant>,
    /// How long each save took that was acknowledged.
    waits: Vec<Duration>,
    loaded: Vec<Instant>,
}

pub struct Ours {
    app: App,
    bytes: usize,
    /// How many of these are other ones after a change.
    changing: usize,
    round: usize,
}

impl Ours {
    /// A server of this name, with nobody on it.
    pub fn new(path: &Path, name: &str, bytes: usize) -> Self {
        let store = SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}"));
        let settings = ServerSettings {
            autosave: None,
            handle_signals: false,
            name: name.to_owned(),
            ..default()
        };
        let mut app = headless_app();
        app.add_plugins(PlayerDataPlugin::server(store).with_settings(settings))
            .persist::<Blob>()
            .init_resource::<Told>()
            .add_observer(|_: On<PlayerLoaded>, mut told: ResMut<Told>| told.loaded.push(Instant::now()))
            .add_observer(|saved: On<PlayerSaved>, mut told: ResMut<Told>| {
                assert_eq!(saved.result, Ok(()), "a save failed");
                if let Some(asked) = told.asked.remove(&saved.entity) {
                    told.at_rest.push(saved.entity);
                    told.waits.push(asked.elapsed());
                }
            });
        on_one_thread(&mut app);
        // Nobody is asked of a server that has only just been built.
        app.update();
        Self {
            app,
            bytes,
            changing: bytes,
            round: 0,
        }
    }

    /// A server with these players.
    pub fn with_players(path: &Path, name: &str, players: std::ops::Range<usize>, bytes: usize) -> Self {
        let mut ours = Self::new(path, name, bytes);
        ours.join(players);
        ours
    }

    /// Lets players join all at once, and says how long each of them waited.
    pub fn join(&mut self, players: std::ops::Range<usize>) -> Vec<Duration> {
        let began = Instant::now();
        let count = players.len();
        self.told().loaded.clear();
        let world = self.app.world_mut();
        let entities: Vec<Entity> = players
            .map(|player| world.spawn(PersistentPlayer(player_id(player))).id())
            .collect();
        self.update_until(|told| told.loaded.len() >= count);
        self.told().at_rest = entities;
        self.told().loaded.iter().map(|&loaded| loaded - began).collect()
    }

    /// Lets everybody leave.
    pub fn leave(&mut self) {
        let players = std::mem::take(&mut self.told().at_rest);
        for player in players {
            self.app.world_mut().despawn(player);
        }
        update_until(&mut self.app, "everybody is unlocked", |world| {
            let queued = world.run_system_cached(|server: PlayerDataServer| server.queue_len());
            queued.expect("the plugin is there") == 0
        });
    }

    /// Saves players who change as soon as their last save is acknowledged, until this many saves are, or for so long.
    /// Says how long each took.
    pub fn save_in_a_closed_loop(&mut self, most: usize, time: Duration) -> Vec<Duration> {
        let began = Instant::now();
        let mut asked = 0;
        loop {
            let at_rest = std::mem::take(&mut self.told().at_rest);
            let allowed = if began.elapsed() < time { most - asked } else { 0 };
            let (now, later) = at_rest.split_at(at_rest.len().min(allowed));
            asked += now.len();
            for &player in now {
                self.change(player);
                self.told().asked.insert(player, Instant::now());
                self.app.world_mut().trigger(SavePlayer { entity: player });
            }
            self.app.world_mut().flush();
            self.told().at_rest.extend(later);
            self.update();
            if allowed == 0 && self.told().asked.is_empty() {
                return std::mem::take(&mut self.told().waits);
            }
        }
    }

    /// Lets time pass until what a join brings along (a look for open receipts) is over.
    pub fn settle(&mut self) {
        for _ in 0..300 {
            self.update();
        }
    }

    /// Changes everybody's blob, so that no page is equal to what the file has already.
    pub fn change_everybody(&mut self) {
        for player in self.told().at_rest.clone() {
            self.change(player);
        }
    }

    /// From now on a change leaves all but so many bytes in the middle as they are.
    pub fn change_only(&mut self, bytes: usize) {
        self.changing = bytes;
    }

    /// What everybody's blob is filled with next.
    pub fn start_from(&mut self, round: usize) {
        self.round = round;
    }

    /// Exits, which saves and unlocks everybody.
    pub fn exit(mut self) -> Duration {
        self.app.world_mut().write_message(AppExit::Success);
        let began = Instant::now();
        self.app.update();
        let took = began.elapsed();
        let exit = self.app.should_exit();
        assert_eq!(exit, Some(AppExit::Success), "somebody was not saved");
        took
    }

    fn change(&mut self, player: Entity) {
        let changing = self.changing.min(self.bytes);
        let filling = filling(changing, self.round);
        self.round += 1;
        if let Some(mut blob) = self.app.world_mut().get_mut::<Blob>(player) {
            // A new player's is empty.
            if blob.0.len() < self.bytes {
                blob.0 = "-".repeat(self.bytes);
            }
            let at = (self.bytes - changing) / 2;
            blob.0.replace_range(at..at + changing, &filling);
        }
    }

    fn told(&mut self) -> Mut<'_, Told> {
        self.app.world_mut().resource_mut::<Told>()
    }

    fn update_until(&mut self, is_done: impl Fn(&Told) -> bool) {
        while !is_done(self.app.world().resource::<Told>()) {
            self.update();
        }
    }

    /// As in a game that updates somewhat less than a thousand times a second. (One that never rests would take the other
    /// threads' place.)
    fn update(&mut self) {
        self.app.update();
        thread::sleep(Duration::from_millis(1));
    }
}

/// Different each time.
pub fn filling(bytes: usize, round: usize) -> String {
    char::from(b'a' + (round % 26) as u8).to_string().repeat(bytes)
}
