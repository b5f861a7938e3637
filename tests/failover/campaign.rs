//! Failover after failover.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bevy_player_data::{
    PlayerId,
    document::Document,
    session::Sessions,
    store::{PostgresSettings, PostgresStore, Store},
};
use fastrand::Rng;

use super::{
    books::{Books, Diary, Found},
    pair::{Pair, Replication},
    players::{PLAYERS, World, beat, play, player, provide, settings},
};

const SERVERS: [&str; 3] = ["arena", "forest", "harbour"];
/// How long anything may take. Far longer than it does, so that a busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Campaign {
    pub(crate) cycles: u32,
    pub(crate) seed: u64,
    pub(crate) replication: Replication,
}

#[derive(Debug)]
pub(crate) struct Report {
    replication: Replication,
    pub(crate) cycles: u32,
    pub(crate) saves: u64,
    pub(crate) awards: u64,
    paid: u64,
    sessions: u64,
    pub(crate) went_on: u64,
    pub(crate) old_primaries: u32,
    longest_outage: Duration,
    took: Duration,
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    pub(crate) ended_badly: Vec<String>,
}

impl Campaign {
    pub(crate) fn run(&self) -> Report {
        let began = Instant::now();
        let mut random = Rng::with_seed(self.seed);
        let mut pair = Pair::new(self.replication);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let world = Arc::new(World {
            books: Books::default(),
            over: AtomicBool::new(false),
            failovers: AtomicU32::new(0),
        });
        let servers: Vec<(Arc<dyn Store>, Sessions)> = SERVERS
            .iter()
            .map(|name| {
                let store = connect(&pair);
                let sessions = Sessions::new(Arc::clone(&store), settings(name), runtime.handle().clone());
                (store, sessions)
            })
            .collect();
        let sessions = servers.iter().map(|(_, sessions)| sessions.clone()).collect();
        let heart = runtime.spawn(beat(sessions, Arc::clone(&world)));
        let provider = runtime.spawn(provide(connect(&pair), Arc::clone(&world)));
        let players: Vec<_> = (0..PLAYERS)
            .map(|n| runtime.spawn(play(n, servers.clone(), Arc::clone(&world))))
            .collect();

        let mut longest_outage = Duration::ZERO;
        let mut old_primaries = 0;
        for cycle in 1..=self.cycles {
            wait_for_saves(&world, 100);
            // At any moment of what they do.
            thread::sleep(Duration::from_millis(random.u64(100..800)));
            if random.bool() || cycle == 1 {
                pair.stall();
                thread::sleep(Duration::from_millis(random.u64(100..400)));
            }
            let cut = Instant::now();
            pair.kill_primary();
            // Answers that were on their way are here by now. Nothing can be committed anywhere.
            thread::sleep(Duration::from_millis(50));
            let found = runtime.block_on(look(&pair.standby_url()));
            world
                .books
                .open()
                .compare(&found, &format!("after failover {cycle}"));
            world.failovers.fetch_add(1, Ordering::SeqCst);
            if self.replication == Replication::Asynchronous && !world.books.open().lost.is_empty() {
                // What this test is for. A lost release may keep a player out for as long as its server lives.
                runtime.shutdown_background();
                return self.report(&world, began, longest_outage, old_primaries);
            }
            pair.promote();
            wait_for_saves(&world, 1);
            longest_outage = longest_outage.max(cut.elapsed());
            if self.replication == Replication::Synchronous && cycle % 3 == 1 {
                old_primaries += 1;
                let commits = "SELECT sum(version) FROM players";
                let [before, after] = pair.let_the_old_primary_come_back(commits);
                if before != after {
                    world.books.open().doubled.push(format!(
                        "the old primary of failover {cycle} took writes: {before:?}, then {after:?}"
                    ));
                }
                wait_for_saves(&world, 20);
            }
            pair.replace_standby();
        }
        wait_for_saves(&world, 50);
        world.over.store(true, Ordering::SeqCst);
        runtime.block_on(async {
            for task in players.into_iter().chain([provider, heart]) {
                let ended = tokio::time::timeout(PATIENCE, task).await;
                ended.expect("everybody comes to an end").expect("nobody panics");
            }
        });
        let found = runtime.block_on(look(&pair.url()));
        world.books.open().compare(&found, "in the end");
        self.report(&world, began, longest_outage, old_primaries)
    }

    fn report(&self, world: &World, began: Instant, longest_outage: Duration, old_primaries: u32) -> Report {
        let books = world.books.open();
        Report {
            replication: self.replication,
            cycles: world.failovers.load(Ordering::SeqCst),
            saves: books.saves,
            awards: books
                .accounts
                .values()
                .map(|account| account.saved.awarded.len() as u64)
                .sum(),
            paid: books
                .accounts
                .values()
                .map(|account| account.paid.len() as u64)
                .sum(),
            sessions: books.sessions,
            went_on: books.went_on,
            old_primaries,
            longest_outage,
            took: began.elapsed(),
            lost: books.lost.clone(),
            doubled: books.doubled.clone(),
            ended_badly: books.ended_badly.clone(),
        }
    }
}

fn connect(pair: &Pair) -> Arc<dyn Store> {
    let settings = PostgresSettings {
        connections: 4,
        timeout: Duration::from_secs(2),
    };
    Arc::new(PostgresStore::connect_with(&pair.url(), settings).unwrap())
}

/// Waits until so many more saves were acknowledged.
fn wait_for_saves(world: &World, count: u64) {
    let goal = world.books.open().saves + count;
    let start = Instant::now();
    loop {
        let books = world.books.open();
        if books.saves >= goal {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "nobody saves any more; badly ended: {:?}; lost: {:?}",
            books.ended_badly,
            books.lost
        );
        drop(books);
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a database has, a standby's too.
async fn look(url: &str) -> BTreeMap<PlayerId, Found> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut found: BTreeMap<PlayerId, Found> = BTreeMap::new();
    let players = "SELECT player_id, version, document FROM players";
    for row in client.query(players, &[]).await.unwrap() {
        let entry = found.entry(PlayerId::from_uuid(row.get(0))).or_default();
        entry.version = u64::try_from(row.get::<_, i64>(1)).unwrap();
        if let Some(document) = row.get::<_, Option<Vec<u8>>>(2) {
            entry.diary = Diary::read(&Document::decode(&document.into()).unwrap());
        }
    }
    let receipts = "SELECT player_id, purchase_id, state FROM receipts";
    for row in client.query(receipts, &[]).await.unwrap() {
        let id: String = row.get(1);
        let number = id.rsplit('-').next().unwrap().parse().unwrap();
        let is_granted = row.get::<_, String>(2) == "granted";
        let entry = found.entry(PlayerId::from_uuid(row.get(0))).or_default();
        entry.receipts.insert(number, is_granted);
    }
    assert!(
        (0..PLAYERS).all(|n| found.contains_key(&player(n))),
        "everybody has played"
    );
    found
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?} replication, {} failovers in {:.0?}: {} saves, {} purchases and {} awards were acknowledged; {} sessions, \
             {} went on through a failover, {} ended badly; {} old primaries came back; the longest outage was {:.1?}",
            self.replication,
            self.cycles,
            self.took,
            self.saves,
            self.paid,
            self.awards,
            self.sessions,
            self.went_on,
            self.ended_badly.len(),
            self.old_primaries,
            self.longest_outage,
        )?;
        for (what, entries) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("ended badly", &self.ended_badly),
        ] {
            writeln!(f, "{what}: {}", entries.len())?;
            for entry in entries.iter().take(5) {
                writeln!(f, "  {entry}")?;
            }
        }
        Ok(())
    }
}
