//! How long a player waits who moves from one server to another without leaving the first: from the second server's
//! request, which is the player entity's spawn there, to its `PlayerLoaded`.
//!
//! Two servers at 60 ticks a second, each with a store of its own on one file, hand a hundred players to and fro; with
//! the feature `postgres` they do so on one database as well. Each player stays for about a second, changes in every
//! tick and is saved once in that time; each arrival is compared with what the other server had last. Then what the
//! looks for wishes cost a server on which nobody hops.
//!
//! `cargo bench --bench hand_off`, or with `-- --quick` to see only that it runs. Nothing is asserted about time.

#[path = "support/figures.rs"]
mod figures;
#[cfg(feature = "postgres")]
#[path = "../tests/support/postgres.rs"]
mod postgres;
#[path = "support/resources.rs"]
mod resources;

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use bevy::{ecs::entity::EntityHashMap, prelude::*};
use bevy_player_data::{
    prelude::*,
    store::{ServerId, Store},
    testing::headless_app,
};
use figures::{TICK, milliseconds, on_one_thread, quantile, quick};
use resources::Used;
use serde::{Deserialize, Serialize};

/// What a player has beside coins, in bytes.
const BELONGINGS: usize = 1024;
/// How long a player stays at least, and how much longer at most.
const STAY: Duration = Duration::from_millis(600);
const LONGER: Duration = Duration::from_millis(800);

#[derive(Component, Serialize, Deserialize, Default)]
struct Coins(u64);
impl PlayerData for Coins {
    const KEY: &'static str = "coins";
}

#[derive(Component, Serialize, Deserialize)]
struct Belongings(String);
impl PlayerData for Belongings {
    const KEY: &'static str = "belongings";
}
impl Default for Belongings {
    fn default() -> Self {
        Self("b".repeat(BELONGINGS))
    }
}

/// A player on the way to a server, and what they had on the other one a moment ago.
struct Arrival {
    player: usize,
    coins: u64,
}

/// A player on a server.
struct Visitor {
    player: usize,
    asked: Instant,
    at_least: u64,
    /// Once loaded: when they go on.
    leaves: Option<Instant>,
}

/// Who is here, and how long each waited.
#[derive(Resource, Default)]
struct Visitors {
    here: EntityHashMap<Visitor>,
    waits: Vec<Duration>,
}

fn main() {
    let (players, seconds) = if quick() { (10, 2.0) } else { (100, 30.0) };
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("players.db");
    let time = Duration::from_secs_f64(seconds);
    println!(
        "{players} players hop between two servers: from being asked for to `PlayerLoaded`, in milliseconds\n"
    );
    println!("| on one | hand-offs | p50 | p99 | most | goal |");
    println!("|---|---|---|---|---|---|");
    tell("SQLite file", hop(&|| sqlite(&path), players, time));
    #[cfg(feature = "postgres")]
    {
        let cluster = postgres::Cluster::start(&[]);
        let url = cluster.new_schema();
        let open = || -> Arc<dyn Store> {
            let store = bevy_player_data::store::PostgresStore::connect(&url);
            Arc::new(store.unwrap_or_else(|error| panic!("{error}")))
        };
        tell("PostgreSQL database", hop(&open, players, time));
    }
    look(&path, if quick() { 100 } else { 20_000 });
}

fn tell(store: &str, mut waits: Vec<Duration>) {
    // The first tenth has warmed everything up.
    waits.drain(..waits.len() / 10);
    println!(
        "| {store} | {} | {} | {} | {} | p99 below 100 |",
        waits.len(),
        milliseconds(quantile(&waits, 0.5)),
        milliseconds(quantile(&waits, 0.99)),
        milliseconds(waits.iter().max().copied()),
    );
}

/// A connection to what both servers share.
type Open<'a> = &'a (dyn Fn() -> Arc<dyn Store> + Sync);

fn sqlite(path: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}")))
}

/// Both servers, each on a thread of its own.
fn hop(open: Open<'_>, players: usize, time: Duration) -> Vec<Duration> {
    let (to_a, at_a) = mpsc::channel();
    let (to_b, at_b) = mpsc::channel();
    for player in 0..players {
        let to = if player.is_multiple_of(2) { &to_a } else { &to_b };
        to.send(Arrival { player, coins: 0 })
            .expect("the other end is here");
    }
    let until = Instant::now() + time;
    thread::scope(|scope| {
        let a = scope.spawn(move || serve(open, "a", &at_a, &to_b, until));
        let b = scope.spawn(move || serve(open, "b", &at_b, &to_a, until));
        [a, b]
            .into_iter()
            .flat_map(|server| server.join().expect("no panics"))
            .collect()
    })
}

fn serve(
    open: Open<'_>,
    name: &str,
    arrivals: &Receiver<Arrival>,
    other: &Sender<Arrival>,
    until: Instant,
) -> Vec<Duration> {
    let mut app = server(open(), name);
    let mut random = fastrand::Rng::with_seed(1);
    let mut saved = Instant::now();
    while Instant::now() < until {
        let tick = Instant::now();
        for Arrival { player, coins } in arrivals.try_iter() {
            let id = PlayerId::from_name(&player.to_string());
            let entity = app.world_mut().spawn(PersistentPlayer(id)).id();
            let visitor = Visitor {
                player,
                asked: Instant::now(),
                at_least: coins,
                leaves: None,
            };
            app.world_mut()
                .resource_mut::<Visitors>()
                .here
                .insert(entity, visitor);
        }
        app.update();
        if saved.elapsed() >= Duration::from_secs(1) {
            saved = Instant::now();
            app.world_mut()
                .run_system_cached(save_all)
                .expect("a sound system");
        }
        send_on(app.world_mut(), other, &mut random);
        thread::sleep(TICK.saturating_sub(tick.elapsed()));
    }
    std::mem::take(&mut app.world_mut().resource_mut::<Visitors>().waits)
}

fn server(store: Arc<dyn Store>, name: &str) -> App {
    let settings = ServerSettings {
        name: name.to_owned(),
        autosave: None,
        handle_signals: false,
        hand_off: HandOffSettings {
            min_session: STAY / 2,
            ..default()
        },
        ..default()
    };
    let mut app = headless_app();
    app.add_plugins(PlayerDataPlugin::server(store).with_settings(settings))
        .persist::<Coins>()
        .persist::<Belongings>()
        .init_resource::<Visitors>()
        .add_systems(Update, |mut players: Query<&mut Coins>| {
            for mut coins in &mut players {
                coins.0 += 1;
            }
        })
        .add_observer(welcome)
        .add_observer(|ended: On<PlayerSessionEnded>, mut visitors: ResMut<Visitors>| {
            assert_eq!(ended.reason, SessionEnd::HandedOff);
            visitors.here.remove(&ended.entity);
        })
        .add_observer(|saved: On<PlayerSaved>| assert_eq!(saved.result, Ok(()), "a save failed"));
    on_one_thread(&mut app);
    app
}

fn welcome(loaded: On<PlayerLoaded>, mut visitors: ResMut<Visitors>, coins: Query<&Coins>) {
    let Visitors { here, waits } = &mut *visitors;
    let visitor = here.get_mut(&loaded.entity).expect("they were asked for here");
    let coins = coins.get(loaded.entity).expect("everybody has some").0;
    assert!(
        coins >= visitor.at_least,
        "player {} has lost something",
        visitor.player
    );
    waits.push(visitor.asked.elapsed());
    visitor.leaves = Some(Instant::now() + STAY);
}

fn save_all(players: Query<Entity, With<PlayerSession>>, mut commands: Commands) {
    for entity in players {
        commands.trigger(SavePlayer { entity });
    }
}

/// Has the other server ask for those whose time is up. Nobody leaves.
fn send_on(world: &mut World, other: &Sender<Arrival>, random: &mut fastrand::Rng) {
    let now = Instant::now();
    let mut gone = Vec::new();
    for (&entity, visitor) in &mut world.resource_mut::<Visitors>().here {
        if visitor.leaves.is_some_and(|leaves| leaves <= now) {
            // Only once, and not all at the same time.
            if random.f64() < TICK.as_secs_f64() / LONGER.as_secs_f64() * 2.0 {
                visitor.leaves = None;
                gone.push((entity, visitor.player));
            }
        }
    }
    for (entity, player) in gone {
        let coins = world.get::<Coins>(entity).map_or(0, |coins| coins.0);
        // Who is not taken in any more at the end stays here.
        let _ = other.send(Arrival { player, coins });
    }
}

/// What a look costs at a file that nobody changes, and at one that has changed. Processor time, of all threads: that
/// one of them has to be woken from an idle core takes longer, and costs nobody anything.
fn look(path: &Path, looks: u32) {
    let store = sqlite(path);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without threads");
    let every = HandOffSettings::default().poll;
    println!("\n| a look for wishes, every {every:?} | µs of processor time | of a core |");
    println!("|---|---|---|");
    let one = ServerId::random();
    for (what, has_changed) in [("nothing has changed", false), ("something has changed", true)] {
        let before = Used::now();
        for _ in 0..looks {
            // Another question each time can't be answered with the answer from before.
            let who = if has_changed { ServerId::random() } else { one };
            runtime.block_on(store.wishes(who)).expect("the file can be read");
        }
        let cost = Used::now().since(before).cpu / f64::from(looks);
        let share = 100.0 * cost / (every.as_secs_f64() * 1e6);
        println!("| {what} | {cost:.1} | {share:.2} % |");
    }
}
