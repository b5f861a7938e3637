//! How long a player waits: for a purchase, for a load, and for the lock to be free again.
//!
//! One player joins, buys something and leaves, over and over, on a server that runs at 60 ticks a second and stores its
//! players in a real file; first alone, then while a thousand others change in every tick and are saved again as soon as
//! their last save was acknowledged. Purchases are submitted at any moment, joins and leaves right before an update, as
//! the game's own systems would have them. *Durable* is when the store has acknowledged the commit, *told* is when the
//! game hears of it, which takes an update. Between two rounds a bare `rusqlite` commits one document to another file.
//!
//! `cargo bench --bench latency`, or with `-- --quick` to see only that it runs. Nothing is asserted about time.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/forward.rs"]
mod forward;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{BoxFuture, Commit, Committed, Store, StoreError, Then},
    testing::{headless_app, update_until},
};
use figures::{TICK, median, milliseconds, on_one_thread, quantile, quick};
use forward::forward;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

/// What a player has beside coins, in bytes.
const BELONGINGS: usize = 1024;

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

/// When the game was told what about the player who is watched.
#[derive(Resource, Default)]
struct Told {
    loaded: Option<Instant>,
    granted: Option<Instant>,
    left: Option<Instant>,
}

/// The others whose last save was acknowledged.
#[derive(Resource, Default)]
struct Others {
    at_rest: Vec<Entity>,
    saved: usize,
}

fn main() {
    let (rounds, others) = if quick() { (5, 20) } else { (200, 1_000) };
    println!(
        "{rounds} rounds; milliseconds; a tick is {} ms\n",
        milliseconds(Some(TICK))
    );
    println!("| what | others saving | p50 | p99 | p50 in bare commits |");
    println!("|---|---|---|---|---|");
    let alone = measure(rounds, 0);
    let Some(fsync) = median(&alone.bare) else { return };
    alone.print(0, fsync);
    measure(rounds, others).print(others, fsync);
    let goal = TICK + 2 * fsync;
    println!(
        "\ngoal of a purchase until it is durable: p50 at most a tick and two commits ({}), p99 with the others saving at \
         most three times that ({})",
        milliseconds(Some(goal)),
        milliseconds(Some(3 * goal))
    );
}

#[derive(Default)]
struct Waits {
    bare: Vec<Duration>,
    bought_durable: Vec<Duration>,
    bought_told: Vec<Duration>,
    joined: Vec<Duration>,
    left_unlocked: Vec<Duration>,
    left_told: Vec<Duration>,
    update: Vec<Duration>,
    /// Saves of others, a second.
    saves: f64,
}

impl Waits {
    fn print(&self, others: usize, fsync: Duration) {
        let rows = [
            ("purchase submitted → durable", &self.bought_durable),
            ("purchase submitted → told `PurchaseGranted`", &self.bought_told),
            ("joined → `PlayerLoaded`", &self.joined),
            ("left → unlocked", &self.left_unlocked),
            ("left → told the final `PlayerSaved`", &self.left_told),
            ("one bare commit with its fsync", &self.bare),
            ("an update of the app", &self.update),
        ];
        let others = match others {
            0 => "none".to_owned(),
            _ => format!("{others}, {:.0} saves a second", self.saves),
        };
        for (what, times) in rows {
            let p50 = median(times);
            let ratio = p50.map_or(0.0, |p50| p50.as_secs_f64() / fsync.as_secs_f64());
            println!(
                "| {what} | {others} | {} | {} | {ratio:.1} |",
                milliseconds(p50),
                milliseconds(quantile(times, 0.99)),
            );
        }
    }
}

fn measure(rounds: usize, others: usize) -> Waits {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let clock = StoreClock::default();
    let mut game = Game::new(&folder.path().join("crate.db"), clock.clone(), others);
    let bare = Bare::new(&folder.path().join("bare.db"));
    let mut random = fastrand::Rng::with_seed(1);
    let mut waits = Waits::default();
    let watched = PlayerId::from_name("watched");
    let mut elapsed = Duration::ZERO;
    for round in 0..=rounds {
        let (before, began) = (game.saves_of_others(), Instant::now());
        if round == 1 {
            // The first round has warmed everything up.
            (waits, elapsed) = (Waits::default(), Duration::ZERO);
        }
        clock.reset();
        game.app.insert_resource(Told::default());

        let joined = Instant::now();
        let player = game.app.world_mut().spawn(PersistentPlayer(watched)).id();
        let loaded = game.tick_until(|told| told.loaded);
        waits.joined.push(loaded - joined);

        game.pause(TICK.mul_f64(random.f64()));
        let submitted = Instant::now();
        game.buy(watched, round);
        game.pause(TICK);
        let granted = game.tick_until(|told| told.granted);
        waits.bought_told.push(granted - submitted);
        waits
            .bought_durable
            .extend(clock.settled().map(|settled| settled - submitted));

        let left = Instant::now();
        game.app.world_mut().despawn(player);
        let told = game.tick_until(|told| told.left);
        waits.left_told.push(told - left);
        waits
            .left_unlocked
            .extend(clock.released(watched).map(|released| released - left));

        waits.bare.push(bare.commit(round));
        waits.saves += (game.saves_of_others() - before) as f64;
        elapsed += began.elapsed();
    }
    waits.update = game.updates;
    waits.saves /= elapsed.as_secs_f64();
    waits
}

/// A server at 60 ticks a second.
struct Game {
    app: App,
    next_tick: Instant,
    updates: Vec<Duration>,
}

impl Game {
    fn new(path: &Path, clock: StoreClock, others: usize) -> Self {
        let store = SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}"));
        let settings = ServerSettings {
            autosave: None,
            handle_signals: false,
            ..default()
        };
        let mut app = headless_app();
        app.add_plugins(PlayerDataPlugin::server(Timed { store, clock }).with_settings(settings))
            .persist::<Coins>()
            .persist::<Belongings>()
            .add_product(Product::new("coin", grant))
            .init_resource::<Others>();
        on_one_thread(&mut app);
        let world = app.world_mut();
        let players: Vec<Entity> = (0..others)
            .map(|number| {
                world
                    .spawn(PersistentPlayer(PlayerId::from_name(&number.to_string())))
                    .id()
            })
            .collect();
        update_until(&mut app, "the others are loaded", |world| {
            players
                .iter()
                .all(|&player| world.entity(player).contains::<PlayerSession>())
        });
        app.world_mut().resource_mut::<Others>().at_rest = players;
        app.init_resource::<Told>()
            .add_systems(Update, save_others)
            .add_observer(|_: On<PlayerLoaded>, mut told: ResMut<Told>| told.loaded = Some(Instant::now()))
            .add_observer(|processed: On<PurchaseProcessed>, mut told: ResMut<Told>| {
                assert_eq!(processed.decision, PurchaseDecision::PurchaseGranted);
                told.granted = Some(Instant::now());
            })
            .add_observer(
                |saved: On<PlayerSaved>, mut told: ResMut<Told>, mut others: ResMut<Others>| {
                    assert_eq!(saved.result, Ok(()), "a save failed");
                    if saved.is_final {
                        told.left = Some(Instant::now());
                    } else {
                        others.at_rest.push(saved.entity);
                        others.saved += 1;
                    }
                },
            );
        Self {
            app,
            next_tick: Instant::now(),
            updates: Vec::new(),
        }
    }

    fn tick_until(&mut self, what: impl Fn(&Told) -> Option<Instant>) -> Instant {
        loop {
            let began = Instant::now();
            self.app.update();
            self.updates.push(began.elapsed());
            // A game that is late doesn't make up for it.
            self.next_tick = began + TICK;
            if let Some(told) = what(self.app.world().resource::<Told>()) {
                return told;
            }
            self.pause(TICK);
        }
    }

    /// Waits, but no longer than until the next tick.
    fn pause(&self, time: Duration) {
        let left = self.next_tick.saturating_duration_since(Instant::now());
        thread::sleep(left.min(time));
    }

    fn buy(&mut self, player: PlayerId, round: usize) {
        let receipt = NewReceipt::new(
            format!("purchase-{round}").parse().expect("a purchase id"),
            player,
            "coin".parse().expect("a product id"),
        );
        let submit = |In(receipt): In<NewReceipt>, server: PlayerDataServer| server.submit_receipt(receipt);
        let future = self.app.world_mut().run_system_cached_with(submit, receipt);
        // It is heard of by its event.
        drop(future.expect("the plugin is there"));
    }

    fn saves_of_others(&self) -> usize {
        self.app.world().resource::<Others>().saved
    }
}

fn grant(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
    coins.get_mut(receipt.entity)?.0 += 1;
    Ok(())
}

fn save_others(mut others: ResMut<Others>, mut players: Query<&mut Belongings>, mut commands: Commands) {
    for entity in others.at_rest.drain(..) {
        if let Ok(mut belongings) = players.get_mut(entity) {
            let next = if belongings.0.starts_with('b') { "c" } else { "b" };
            belongings.0 = next.repeat(BELONGINGS);
            commands.trigger(SavePlayer { entity });
        }
    }
}

/// When the store acknowledged what is waited for.
#[derive(Clone, Default)]
struct StoreClock(Arc<Mutex<Acknowledged>>);

#[derive(Default)]
struct Acknowledged {
    settled: Option<Instant>,
    released: Option<(PlayerId, Instant)>,
}

impl StoreClock {
    fn with<T>(&self, look: impl FnOnce(&mut Acknowledged) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reset(&self) {
        self.with(|acknowledged| *acknowledged = Acknowledged::default());
    }

    fn settled(&self) -> Option<Instant> {
        self.with(|acknowledged| acknowledged.settled)
    }

    fn released(&self, player: PlayerId) -> Option<Instant> {
        let released = self.with(|acknowledged| acknowledged.released);
        released.and_then(|(released, at)| (released == player).then_some(at))
    }
}

/// A file whose commits are timed.
struct Timed {
    store: SqliteStore,
    clock: StoreClock,
}

impl Store for Timed {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        let settles = commit.writes.iter().any(|write| !write.settle.is_empty());
        let mut writes = commit.writes.iter();
        let released = writes
            .find(|write| write.then == Then::Release)
            .map(|write| write.player);
        Box::pin(async move {
            let committed = self.store.commit(commit).await?;
            if settles || released.is_some() {
                let now = Instant::now();
                self.clock.with(|acknowledged| {
                    if settles {
                        acknowledged.settled = Some(now);
                    }
                    if let Some(player) = released {
                        acknowledged.released = Some((player, now));
                    }
                });
            }
            Ok(committed)
        })
    }

    forward! {
        store: lease, leases, retire, acquire, peek, list, erase, enqueue, receipt, open_receipts,
        receipts_of, arrivals, wish, withdraw, wishes
    }
}

/// The limit: one document in one transaction.
struct Bare(Connection);

impl Bare {
    fn new(path: &Path) -> Self {
        let connection = Connection::open(path).expect("a new file");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE documents (player INTEGER PRIMARY KEY, document BLOB);
                 INSERT INTO documents VALUES (1, NULL);",
            )
            .expect("there is room on the disk");
        Self(connection)
    }

    fn commit(&self, round: usize) -> Duration {
        let document = vec![round as u8; BELONGINGS];
        let began = Instant::now();
        self.0
            .prepare_cached("UPDATE documents SET document = ?1 WHERE player = 1")
            .and_then(|mut update| update.execute(params![document]))
            .expect("there is room on the disk");
        began.elapsed()
    }
}
