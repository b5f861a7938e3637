//! What the whole server plugin costs a game's main thread, and how much memory it takes.
//!
//! Timed is `App::update` of an app that has nothing but the players, with all systems on the main thread: once without
//! the plugin, once with it, and once with autosave at its default interval. They take turns in the same run, and play
//! the same game with the same seed between the updates; each update is a tick at 60 Hz for them. The plugin saves to a
//! real file. A tick comes every 4 ms, so that the store's threads do their work meanwhile; the main thread waits for it
//! without sleeping, and makes room for whoever else wants its core. Nobody is connected; `replication` tells what
//! clients cost.
//!
//! Memory is what a process with twice the players needs beyond one with half of them, less the same for entities that
//! have the components and nothing else.
//!
//! `cargo bench --bench tick`, or with `-- --quick` to see only that it runs. Nothing is asserted about time.

#[path = "support/figures.rs"]
mod figures;
#[path = "replication/workload.rs"]
#[allow(dead_code, reason = "it also measures patches, for the bench of replication")]
mod workload;

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_player_data::{
    prelude::*,
    store::Store,
    testing::{headless_app, update_until},
};
use figures::{TICK, median, microseconds, on_one_thread, quantile, quick};
use workload::{Coins, Inventory, Level, Play, Settings, Stats, fresh};

/// How often an app does a tick: a quarter of what it takes the tick to be, to be done sooner.
const PACE: Duration = Duration::from_millis(4);

struct Scale {
    rounds: usize,
    ticks: usize,
    players: &'static [usize],
    /// Of how many players the memory is measured, and how often.
    memory: (usize, usize),
}

fn main() {
    if let Some(what) =
        std::env::args().find_map(|argument| argument.strip_prefix("--memory-of=").map(String::from))
    {
        return tell_memory(&what);
    }
    let scale = if quick() {
        Scale {
            rounds: 1,
            ticks: 10,
            players: &[0, 50],
            memory: (100, 1),
        }
    } else {
        Scale {
            rounds: 7,
            ticks: 100,
            players: &[0, 1_000, 10_000],
            memory: (10_000, 3),
        }
    };
    println!(
        "{} alternating rounds of {} ticks; microseconds\n",
        scale.rounds, scale.ticks
    );
    println!("| players | game | app | median | p99 | worst | worst undisturbed |");
    println!("|---|---|---|---|---|---|---|");
    for &players in scale.players {
        for game in [Game::Idle, Game::Busy] {
            if players > 0 || game == Game::Idle {
                compare(&scale, players, game);
            }
        }
    }
    println!("\ngoals: idle with 10,000 players at most 30 µs; worst with autosave at most 2 × the median\n");
    memory(scale.memory.0, scale.memory.1);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Game {
    Idle,
    /// 10 % of the players change their coins in each tick, 5 % their level, 2 % an item, 1 % a setting, 5 % a stat.
    Busy,
}

/// One of the apps that are compared, and what its updates took.
struct Subject {
    name: &'static str,
    app: App,
    players: Vec<Entity>,
    play: Play,
    times: Vec<Duration>,
    /// Of the updates in which the machine gave the main thread's core to nobody else.
    undisturbed: Vec<Duration>,
}

fn compare(scale: &Scale, players: usize, game: Game) {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let mut bare = headless_app();
    let entities = (0..players)
        .map(|number| bare.world_mut().spawn(fresh(number)).id())
        .collect();
    let mut subjects = [
        Subject::new("no plugin", bare, entities),
        Subject::with_plugin("plugin", &folder.path().join("once.db"), players, None),
        Subject::with_plugin(
            "plugin, autosave",
            &folder.path().join("often.db"),
            players,
            ServerSettings::default().autosave,
        ),
    ];
    for _ in 0..scale.rounds {
        for subject in &mut subjects {
            subject.run(scale.ticks, game);
        }
    }
    for Subject {
        name,
        times,
        undisturbed,
        ..
    } in &subjects
    {
        println!(
            "| {players} | {game:?} | {name} | {} | {} | {} | {} |",
            microseconds(median(times)),
            microseconds(quantile(times, 0.99)),
            microseconds(times.iter().max().copied()),
            microseconds(undisturbed.iter().max().copied()),
        );
    }
}

impl Subject {
    fn new(name: &'static str, mut app: App, players: Vec<Entity>) -> Self {
        app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK));
        on_one_thread(&mut app);
        Self {
            name,
            app,
            players,
            play: Play::new(1),
            times: Vec::new(),
            undisturbed: Vec::new(),
        }
    }

    /// Everybody is loaded and was saved once.
    fn with_plugin(name: &'static str, path: &Path, players: usize, autosave: Option<Duration>) -> Self {
        let mut app = server(path, autosave);
        let entities = join(&mut app, 0..players);
        give_and_save(&mut app, &entities);
        Self::new(name, app, entities)
    }

    fn run(&mut self, ticks: usize, game: Game) {
        // What the other apps have put out of the caches, and what a change of schedules costs, is nobody's tick.
        for _ in 0..5 {
            self.tick(game);
        }
        for _ in 0..ticks {
            let began = Instant::now();
            let (took, was_disturbed) = self.tick(game);
            self.times.push(took);
            if !was_disturbed {
                self.undisturbed.push(took);
            }
            while began.elapsed() < PACE {
                thread::yield_now();
            }
        }
    }

    fn tick(&mut self, game: Game) -> (Duration, bool) {
        if game == Game::Busy {
            self.play
                .tick(self.app.world_mut(), &self.players, &mut |_, _| ());
        }
        let before = interruptions();
        let began = Instant::now();
        self.app.update();
        (began.elapsed(), interruptions() != before)
    }
}

fn server(path: &Path, autosave: Option<Duration>) -> App {
    let store = SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}"));
    let settings = ServerSettings {
        autosave,
        handle_signals: false,
        ..default()
    };
    let mut app = headless_app();
    app.add_plugins(PlayerDataPlugin::server(store).with_settings(settings))
        .persist::<Coins>()
        .persist::<Level>()
        .persist::<Settings>()
        .persist::<Inventory>()
        .persist::<Stats>();
    app
}

fn player_id(number: usize) -> PlayerId {
    PlayerId::from_name(&number.to_string())
}

fn join(app: &mut App, numbers: std::ops::Range<usize>) -> Vec<Entity> {
    let world = app.world_mut();
    let players: Vec<Entity> = numbers
        .map(|number| world.spawn(PersistentPlayer(player_id(number))).id())
        .collect();
    update_until(app, "everybody is loaded", |world| {
        players
            .iter()
            .all(|&player| world.entity(player).contains::<PlayerSession>())
    });
    players
}

fn give_and_save(app: &mut App, players: &[Entity]) {
    let world = app.world_mut();
    let before = world.resource::<ServerStats>().saves;
    for (number, &player) in players.iter().enumerate() {
        world.entity_mut(player).insert(fresh(number));
        world.trigger(SavePlayer { entity: player });
    }
    world.flush();
    update_until(app, "everybody is saved", |world| {
        world.resource::<ServerStats>().saves - before >= players.len() as u64
    });
}

/// How often this thread had to make room for another one; `None` where the system doesn't say.
fn interruptions() -> Option<u64> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

/// Prints what a loaded player needs beyond its components, from processes that do nothing else.
fn memory(players: usize, rounds: usize) {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let path = folder.path().join("players.db");
    let mut app = server(&path, None);
    let entities = join(&mut app, 0..2 * players);
    give_and_save(&mut app, &entities);
    app.world_mut().write_message(AppExit::Success);
    app.update();
    drop(app);
    let encoded = encoded_size(&path);

    let measure = |what: &str| -> Option<i64> {
        let mut sizes: Vec<i64> = (0..rounds)
            .filter_map(|_| memory_of(&format!("{what}:{players}:{}", path.display())))
            .collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied()
    };
    println!("| bytes for each of {players} more players | |");
    println!("|---|---|");
    let (Some(bare), Some(loaded)) = (measure("bare"), measure("loaded")) else {
        return println!("| (only where there is a `/proc/self/statm`) | |");
    };
    println!("| an entity with the components alone | {bare} |");
    println!("| a loaded player | {loaded} |");
    println!("| beyond the components | {} |", loaded - bare);
    println!(
        "| goal: 2 × its document of {encoded} bytes + 1 KiB | {} |",
        2 * encoded + 1024
    );
}

fn encoded_size(path: &Path) -> usize {
    let store = SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime for one future");
    let row = runtime
        .block_on(store.peek(player_id(0)))
        .unwrap_or_else(|error| panic!("{error}"));
    row.and_then(|row| row.document)
        .map_or(0, |document| document.len())
}

/// Has a process of its own measure.
fn memory_of(what: &str) -> Option<i64> {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .arg(format!("--memory-of={what}"))
        .output()
        .expect("it can be started again");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// The other process: prints how many bytes each player of the second half needs.
fn tell_memory(what: &str) {
    let mut parts = what.splitn(3, ':');
    let mut part = || parts.next().expect("what, how many, and where");
    let (what, players, path) = (part(), part().parse::<usize>().expect("a number"), part());
    let mut app = match what {
        "bare" => headless_app(),
        _ => server(Path::new(path), None),
    };
    let mut add = |numbers: std::ops::Range<usize>| {
        if what == "bare" {
            numbers.for_each(|number| {
                app.world_mut().spawn(fresh(number));
            });
        } else {
            join(&mut app, numbers);
        }
        for _ in 0..10 {
            app.update();
        }
        resident()
    };
    if let (Some(half), Some(all)) = (add(0..players), add(players..2 * players)) {
        println!("{}", (all - half) / players as i64);
    }
}

/// The bytes of memory that this process takes up.
fn resident() -> Option<i64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
