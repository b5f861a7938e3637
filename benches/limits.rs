//! How close the crate comes to what SQLite itself can do.
//!
//! Each row compares the crate, from changed components to acknowledged commits, with bare `rusqlite` that writes the
//! same number of bytes to a file of the same schema and pragmas, one transaction for everything. Both take turns in the
//! same run, so that a busy machine slows down both; the table shows medians and their ratio. Nothing is asserted.
//!
//! `cargo bench --bench limits`, or with `-- --quick` to see only that it runs.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    testing::{headless_app, update_until},
};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

/// A component of any size.
#[derive(Component, Serialize, Deserialize, Default)]
struct Blob(String);

impl PlayerData for Blob {
    const KEY: &'static str = "blob";
}

#[derive(Resource, Default)]
struct Saved(usize);

struct Scale {
    rounds: usize,
    savers: usize,
    leavers: [usize; 2],
}

fn main() {
    // Cargo itself passes `--bench`.
    let quick = std::env::args().any(|argument| argument == "--quick");
    let scale = if quick {
        Scale {
            rounds: 1,
            savers: 100,
            leavers: [100, 200],
        }
    } else {
        Scale {
            rounds: 7,
            savers: 1_000,
            leavers: [1_000, 10_000],
        }
    };
    println!(
        "{} alternating rounds; medians; ratio = crate / bare rusqlite (1.00 is the limit)\n",
        scale.rounds
    );
    println!("| what | crate | bare | ratio |");
    println!("|---|---|---|---|");
    for bytes in [1024, 16 * 1024] {
        saves(&scale, bytes);
    }
    for players in scale.leavers {
        exits(scale.rounds.min(5), players, 4096);
    }
}

/// `savers` players change and are all saved: changed component → acknowledged commit.
fn saves(scale: &Scale, bytes: usize) {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let mut app = loaded_app(&folder.path().join("crate.db"), scale.savers);
    let mut bare = Bare::new(&folder.path().join("bare.db"), scale.savers);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        change_everybody(&mut app, bytes, round);
        let started = Instant::now();
        save_everybody(&mut app, scale.savers);
        let took = started.elapsed();
        let bare_took = bare.save_everybody(bytes, round);
        if round > 0 {
            // The first round warms both files up.
            ours.push(took);
            theirs.push(bare_took);
        }
    }
    let per_second = |took: Duration| scale.savers as f64 / took.as_secs_f64();
    let (ours, theirs) = (per_second(median(ours)), per_second(median(theirs)));
    println!(
        "| durable saves a second, {} players, {} KiB | {ours:.0} | {theirs:.0} | {:.2} |",
        scale.savers,
        bytes / 1024,
        ours / theirs
    );
}

/// `players` changed players are saved and unlocked by an `AppExit`.
fn exits(rounds: usize, players: usize, bytes: usize) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let folder = tempfile::tempdir().expect("a folder for the files");
    let mut bare = Bare::new(&folder.path().join("bare.db"), players);
    let path = folder.path().join("crate.db");
    for round in 0..=rounds {
        let mut app = loaded_app(&path, players);
        change_everybody(&mut app, bytes, round);
        app.world_mut().write_message(AppExit::Success);
        let started = Instant::now();
        app.update();
        let took = started.elapsed();
        assert_eq!(
            app.should_exit(),
            Some(AppExit::Success),
            "somebody was not saved"
        );
        let bare_took = bare.save_everybody(bytes, round);
        if round > 0 {
            ours.push(took);
            theirs.push(bare_took);
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "| exit flush of {} players of {} KiB (time) | {ours:.0?} | {theirs:.0?} | {:.2} |",
        players,
        bytes / 1024,
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
}

/// A server app with `players` loaded players.
fn loaded_app(path: &Path, players: usize) -> App {
    let store = SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}"));
    let settings = ServerSettings {
        autosave: None,
        handle_signals: false,
        ..default()
    };
    let mut app = headless_app();
    app.add_plugins(PlayerDataPlugin::server(store).with_settings(settings))
        .persist::<Blob>()
        .init_resource::<Saved>()
        .add_observer(|saved: On<PlayerSaved>, mut count: ResMut<Saved>| {
            assert_eq!(saved.result, Ok(()), "a save failed");
            count.0 += 1;
        });
    for player in 0..players {
        app.world_mut()
            .spawn(PersistentPlayer(PlayerId::from_name(&player.to_string())));
    }
    update_until(&mut app, "everybody is loaded", |world| {
        world
            .query_filtered::<(), With<PlayerSession>>()
            .iter(world)
            .count()
            == players
    });
    app
}

fn change_everybody(app: &mut App, bytes: usize, round: usize) {
    let world = app.world_mut();
    for mut blob in world.query::<&mut Blob>().iter_mut(world) {
        blob.0 = filling(bytes, round);
    }
}

fn save_everybody(app: &mut App, players: usize) {
    let world = app.world_mut();
    world.resource_mut::<Saved>().0 = 0;
    let entities: Vec<Entity> = world
        .query_filtered::<Entity, With<PlayerSession>>()
        .iter(world)
        .collect();
    for entity in entities {
        world.trigger(SavePlayer { entity });
    }
    world.flush();
    while app.world().resource::<Saved>().0 < players {
        app.update();
        std::thread::yield_now();
    }
}

/// Different in each round, so that no page is equal to what the file has already.
fn filling(bytes: usize, round: usize) -> String {
    char::from(b'a' + (round % 26) as u8).to_string().repeat(bytes)
}

/// The baseline: the same rows and bytes, and nothing else.
struct Bare {
    connection: Connection,
    players: usize,
}

impl Bare {
    fn new(path: &Path, players: usize) -> Self {
        // The crate's own file, so that schema and page size are the same.
        drop(SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}")));
        let connection = Connection::open(path).expect("the file was just made");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;",
            )
            .expect("the pragmas are known");
        connection
            .execute_batch("BEGIN IMMEDIATE")
            .expect("nobody else has the file");
        for player in 0..players {
            connection
                .prepare_cached(
                    "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at, document)
                     VALUES (?1, 0, 1, 0, zeroblob(16), zeroblob(16), 0, NULL)",
                )
                .and_then(|mut insert| insert.execute(params![player_id(player)]))
                .expect("the row is new");
        }
        connection
            .execute_batch("COMMIT")
            .expect("there is room on the disk");
        Self { connection, players }
    }

    fn save_everybody(&mut self, bytes: usize, round: usize) -> Duration {
        let document = filling(bytes, round);
        let started = Instant::now();
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .expect("nobody else has the file");
        for player in 0..self.players {
            self.connection
                .prepare_cached(
                    "UPDATE players SET version = version + 1, last_seq = ?2, saved_at = ?2, document = ?3
                     WHERE player_id = ?1",
                )
                .and_then(|mut update| {
                    update.execute(params![player_id(player), round as i64, document.as_bytes()])
                })
                .expect("the row is there");
        }
        self.connection
            .execute_batch("COMMIT")
            .expect("there is room on the disk");
        started.elapsed()
    }
}

fn player_id(player: usize) -> [u8; 16] {
    PlayerId::from_name(&player.to_string()).into_bytes()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
