//! How fast receipts are drained, compared with bare `rusqlite` that writes the same rows.
//!
//! A thousand receipts for two hundred players who are online, each handed in three times, in any order: from the first
//! callback to the last player's event. The baseline has one transaction that inserts the receipts (and ignores the
//! repetitions), and one that settles them and saves the players' documents. Both take turns in the same run, so that
//! a busy machine slows down both; the table shows medians and their ratio. Nothing is asserted but that each receipt is
//! granted once.
//!
//! `cargo bench --bench purchases`, or with `-- --quick` to see only that it runs.

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

const PLAYERS: usize = 200;
const DELIVERIES: usize = 3;
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

#[derive(Resource, Default)]
struct Granted(usize);

fn main() {
    // Cargo itself passes `--bench`.
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, receipts) = if quick { (1, 200) } else { (7, 1000) };
    let folder = tempfile::tempdir().expect("a folder for the files");
    let mut app = shop(&folder.path().join("crate.db"));
    let mut bare = Bare::new(&folder.path().join("bare.db"));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let took = drain(&mut app, round, receipts);
        let bare_took = bare.drain(round, receipts);
        if round > 0 {
            // The first round warms both files up.
            ours.push(took);
            theirs.push(bare_took);
        }
    }
    let mut coins = app.world_mut().query::<&Coins>();
    let granted: u64 = coins.iter(app.world()).map(|coins| coins.0).sum();
    assert_eq!(
        granted,
        (receipts * (rounds + 1)) as u64,
        "each receipt is granted once"
    );
    let per_second = |took: Duration| receipts as f64 / took.as_secs_f64();
    let (ours, theirs) = (per_second(median(ours)), per_second(median(theirs)));
    println!("{rounds} alternating rounds; medians; ratio = crate / bare rusqlite (1.00 is the limit)\n");
    println!("| what | crate | bare | ratio |");
    println!("|---|---|---|---|");
    println!(
        "| receipts settled a second ({receipts}, {DELIVERIES} deliveries each, {PLAYERS} players) | {ours:.0} | \
         {theirs:.0} | {:.2} |",
        ours / theirs
    );
}

/// A server with everybody online.
fn shop(path: &Path) -> App {
    fn grant(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
        coins.get_mut(receipt.entity)?.0 += 1;
        Ok(())
    }
    let store = SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}"));
    let settings = ServerSettings {
        autosave: None,
        handle_signals: false,
        ..default()
    };
    let mut app = headless_app();
    app.add_plugins(PlayerDataPlugin::server(store).with_settings(settings))
        .persist::<Coins>()
        .persist::<Belongings>()
        .init_resource::<Granted>()
        .add_product(Product::new("coin", grant))
        .add_observer(|processed: On<PurchaseProcessed>, mut granted: ResMut<Granted>| {
            assert_eq!(processed.decision, PurchaseDecision::PurchaseGranted);
            granted.0 += 1;
        });
    for player in 0..PLAYERS {
        app.world_mut().spawn(PersistentPlayer(buyer(player)));
    }
    update_until(&mut app, "everybody is loaded", |world| {
        let mut players = world.query_filtered::<(), With<PlayerSession>>();
        players.iter(world).count() == PLAYERS
    });
    app
}

fn drain(app: &mut App, round: usize, receipts: usize) -> Duration {
    let inbox = app
        .world_mut()
        .run_system_cached(|server: PlayerDataServer| server.inbox())
        .expect("the plugin is there");
    let callbacks: Vec<NewReceipt> = (0..DELIVERIES)
        .flat_map(|_| (0..receipts).map(|n| receipt(round, n)))
        .collect();
    app.world_mut().resource_mut::<Granted>().0 = 0;
    let started = Instant::now();
    let provider = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime for the callbacks");
        runtime.block_on(async {
            let mut deliveries = tokio::task::JoinSet::new();
            for callback in callbacks {
                let inbox = inbox.clone();
                deliveries.spawn(async move { inbox.paid(callback).await.expect("the store works") });
            }
            while deliveries.join_next().await.is_some() {}
        });
    });
    while app.world().resource::<Granted>().0 < receipts || !provider.is_finished() {
        app.update();
        // A game loop that never rests would take the other threads' place.
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = started.elapsed();
    provider.join().expect("every callback was answered");
    took
}

fn receipt(round: usize, n: usize) -> NewReceipt {
    NewReceipt::new(
        purchase(round, n).parse().expect("a purchase id"),
        buyer(n % PLAYERS),
        "coin".parse().expect("a product id"),
    )
}

fn purchase(round: usize, n: usize) -> String {
    format!("purchase-{round}-{n}")
}

fn buyer(player: usize) -> PlayerId {
    PlayerId::from_name(&player.to_string())
}

/// The baseline: the same rows and bytes, and nothing else.
struct Bare {
    connection: Connection,
}

impl Bare {
    fn new(path: &Path) -> Self {
        // The crate's own file, so that schema and page size are the same.
        drop(SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}")));
        let connection = Connection::open(path).expect("the file was just made");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
                 BEGIN IMMEDIATE",
            )
            .expect("the pragmas are known");
        for player in 0..PLAYERS {
            connection
                .prepare_cached(
                    "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at, document)
                     VALUES (?1, 0, 1, 0, zeroblob(16), zeroblob(16), 0, NULL)",
                )
                .and_then(|mut insert| insert.execute([buyer(player).into_bytes()]))
                .expect("the row is new");
        }
        connection
            .execute_batch("COMMIT")
            .expect("there is room on the disk");
        Self { connection }
    }

    fn drain(&mut self, round: usize, receipts: usize) -> Duration {
        let document = "b".repeat(BELONGINGS + 100);
        let started = Instant::now();
        let run = |sql: &str, values: &dyn Fn(usize) -> rusqlite::Result<usize>, count: usize| {
            for n in 0..count {
                values(n).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        };
        let batch = |sql| {
            self.connection
                .execute_batch(sql)
                .expect("nobody else has the file");
        };
        batch("BEGIN IMMEDIATE");
        let insert = "INSERT OR IGNORE INTO receipts (purchase_id, player_id, product_id, state, received_at)
                      VALUES (?1, ?2, 'coin', 'pending', 0)";
        for _ in 0..DELIVERIES {
            run(
                insert,
                &|n| {
                    let mut insert = self.connection.prepare_cached(insert)?;
                    insert.execute(params![purchase(round, n), buyer(n % PLAYERS).into_bytes()])
                },
                receipts,
            );
        }
        batch("COMMIT");
        batch("BEGIN IMMEDIATE");
        let settle =
            "UPDATE receipts SET state = 'granted', settled_fence = 1, settled_at = 0 WHERE purchase_id = ?1";
        run(
            settle,
            &|n| {
                self.connection
                    .prepare_cached(settle)?
                    .execute([purchase(round, n)])
            },
            receipts,
        );
        let save = "UPDATE players SET version = version + 1, last_seq = ?2, saved_at = ?2, document = ?3
                    WHERE player_id = ?1";
        run(
            save,
            &|n| {
                let mut save = self.connection.prepare_cached(save)?;
                save.execute(params![buyer(n).into_bytes(), round as i64, document.as_bytes()])
            },
            PLAYERS,
        );
        batch("COMMIT");
        started.elapsed()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
