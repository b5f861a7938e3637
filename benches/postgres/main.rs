//! How close the crate comes to what PostgreSQL itself can do.
//!
//! Saves, loads and receipts a second through a `PostgresStore`, by 1, 2, 4 and 8 server processes on one database, beside
//! the same statements sent by bare `tokio-postgres` over as many connections: one request a transaction, each in two
//! round trips. All processes of a row run at the same time, the two sides in turns. Nothing is asserted about time.
//!
//! `cargo bench --features postgres --bench postgres`, or with `-- --quick` to see only that it runs. It starts a
//! PostgreSQL of its own, with its default durability, and needs the package `postgresql`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/postgres.rs"]
mod postgres;

use std::{
    env::{args, current_exe},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bevy_player_data::{
    PlayerId,
    store::{
        Acquire, Lease, LockId, NewReceipt, Notice, PostgresSettings, PostgresStore, ServerId, Store, Then,
        Write,
    },
};
use figures::quick;
use postgres::Cluster;
use tokio::{runtime::Runtime, task::JoinSet};
use uuid::Uuid;

/// What a child process is told: `--child`, the side, what to do, the URL, its number, and for how long.
const CHILD: &str = "--child";
/// How many connections each process has, on either side.
const CONNECTIONS: usize = 8;
/// How many players ask at once, in each process.
const PLAYERS: usize = 200;
const DOCUMENT: usize = 1024;

fn main() {
    let given: Vec<String> = args().skip_while(|argument| argument != CHILD).skip(1).collect();
    if let [side, deed, url, number, seconds] = &given[..] {
        let number = number.parse().unwrap();
        let time = Duration::from_secs_f64(seconds.parse().unwrap());
        let runtime = Runtime::new().unwrap();
        let per_second = match side.as_str() {
            "crate" => runtime.block_on(through_the_crate(deed, url, number, time)),
            _ => runtime.block_on(bare(deed, url, number, time)),
        };
        return println!("{per_second}");
    }
    let (seconds, rounds, processes): (f64, usize, &[usize]) = match quick() {
        true => (0.3, 1, &[1, 2]),
        false => (3.0, 3, &[1, 2, 4, 8]),
    };
    let cluster = Cluster::start(&["max_connections=200"]);
    println!("{rounds} alternating rounds of {seconds} s; medians; {CONNECTIONS} connections a process\n");
    println!("| what | processes | crate | bare `tokio-postgres` | ratio | goal |");
    println!("|---|---|---|---|---|---|");
    for deed in ["saves", "loads", "receipts"] {
        for &count in processes {
            let mut sides = [("crate", Vec::new()), ("bare", Vec::new())];
            for _ in 0..rounds {
                for (side, figures) in &mut sides {
                    // Tables of their own, so that neither inherits the other's dead rows.
                    let url = cluster.new_schema();
                    drop(PostgresStore::connect(&url).unwrap());
                    figures.push(run(side, deed, &url, count, seconds));
                }
            }
            let [crate_side, bare_side] = sides.map(|(_, figures)| median(figures));
            println!(
                "| {deed} a second | {count} | {crate_side:.0} | {bare_side:.0} | {:.2} | ≥ 0.8 |",
                crate_side / bare_side
            );
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Runs so many processes at the same time, and adds their figures up.
fn run(side: &str, deed: &str, url: &str, count: usize, seconds: f64) -> f64 {
    let children: Vec<_> = (0..count)
        .map(|number| {
            Command::new(current_exe().unwrap())
                .args([CHILD, side, deed, url, &number.to_string(), &seconds.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let figures = children.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "a process of the {side} side failed");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse::<f64>()
            .unwrap()
    });
    figures.sum()
}

fn player(process: usize, n: usize) -> PlayerId {
    PlayerId::from_name("bench").slot(u32::try_from(process * 100_000 + n).unwrap())
}

fn document(n: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(n);
    std::iter::repeat_with(|| random.u8(..)).take(DOCUMENT).collect()
}

/// Has `PLAYERS` tasks do something again and again, and says how often they did it in a second.
async fn count<F>(time: Duration, mut task: impl FnMut(usize, Instant, Arc<AtomicU64>) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..PLAYERS {
        tasks.spawn(task(n, began + time, Arc::clone(&done)));
    }
    tasks.join_all().await;
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

async fn through_the_crate(deed: &str, url: &str, process: usize, time: Duration) -> f64 {
    let settings = PostgresSettings {
        connections: CONNECTIONS,
        ..PostgresSettings::default()
    };
    let store = Arc::new(PostgresStore::connect_with(url, settings).unwrap());
    let server = ServerId::random();
    let name = format!("server {process}");
    let lapsed = Vec::new();
    store.lease(Lease { server, name, lapsed }).await.unwrap();
    let acquire = move |player| Acquire {
        player,
        lock: LockId::random(),
        server,
        lapsed: Vec::new(),
        orphan: None,
        until_beat: u64::MAX,
    };
    let mut held = Vec::new();
    if deed == "saves" {
        let mut tasks = JoinSet::new();
        for n in 0..PLAYERS {
            let (store, acquire) = (Arc::clone(&store), acquire(player(process, n)));
            tasks.spawn(async move { (n, acquire.lock, store.acquire(acquire).await.unwrap().fence) });
        }
        held = tasks.join_all().await;
        held.sort_unstable_by_key(|(n, ..)| *n);
    }
    let deed = deed.to_owned();
    count(time, move |n, end, done| {
        let (store, deed, held) = (Arc::clone(&store), deed.clone(), held.get(n).copied());
        async move {
            let mut seq = 0;
            while Instant::now() < end {
                seq += 1;
                match deed.as_str() {
                    "saves" => {
                        let (_, lock, fence) = held.unwrap();
                        let write = Write {
                            player: player(process, n),
                            lock,
                            fence,
                            seq,
                            document: Some(document(seq).into()),
                            settle: Vec::new(),
                            then: Then::Keep,
                        };
                        store.commit(write.into()).await.unwrap();
                    }
                    "loads" => {
                        let player = player(process, n + PLAYERS * usize::try_from(seq).unwrap());
                        store.acquire(acquire(player)).await.unwrap();
                    }
                    _ => {
                        let id = format!("{process}-{n}-{seq}").parse().unwrap();
                        let product = "hat".parse().unwrap();
                        let receipt = NewReceipt::new(id, player(process, n), product);
                        store.enqueue(receipt, Notice::Paid).await.unwrap();
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await
}

const FIND: &str =
    "SELECT version, fence, last_seq, lock_id, server, document FROM players WHERE player_id = $1 FOR UPDATE";
const FIND_SERVER: &str = "SELECT name, beat FROM servers WHERE boot_id = $1 FOR SHARE";
const SAVE: &str = "UPDATE players SET version = version + 1, last_seq = $2, document = $3, saved_at = 0 WHERE player_id = $1";
const INSERT: &str = "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at)
    VALUES ($1, 0, 1, 0, $2, $3, 0) ON CONFLICT (player_id) DO NOTHING RETURNING player_id";
const FIND_RECEIPT: &str =
    "SELECT number, player_id, product_id, state FROM receipts WHERE purchase_id = $1 FOR UPDATE";
const RECEIVE: &str = "
    WITH taken AS (
        UPDATE counters SET receipts = receipts + 1, arrivals = arrivals + 1 WHERE id = 1 RETURNING receipts, arrivals
    )
    INSERT INTO receipts (purchase_id, number, arrival, player_id, product_id, state, received_at)
    SELECT $1, taken.receipts, taken.arrivals, $2, 'hat', 'pending', 0 FROM taken
    ON CONFLICT (purchase_id) DO NOTHING RETURNING number";

type Param<'a> = &'a (dyn tokio_postgres::types::ToSql + Sync);

/// One task a connection, each of which sends one request a transaction, in as few round trips as the crate has.
async fn bare(deed: &str, url: &str, process: usize, time: Duration) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let server = Uuid::new_v4();
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        if number == 0 {
            let lease = "INSERT INTO servers (boot_id, name, started_at, beat) VALUES ($1, $2, 0, 1)";
            client
                .execute(lease, &[&server, &format!("server {process}")])
                .await
                .unwrap();
            for n in 0..PLAYERS {
                let player = player(process, n).uuid();
                client
                    .query(INSERT, &[&player, &Uuid::new_v4(), &server])
                    .await
                    .unwrap();
            }
        }
        clients.push(client);
    }
    let began = Instant::now();
    let end = began + time;
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let (deed, done) = (deed.to_owned(), Arc::clone(&done));
        tasks.spawn(async move {
            let find = client.prepare(FIND).await.unwrap();
            let find_server = client.prepare(FIND_SERVER).await.unwrap();
            let save = client.prepare(SAVE).await.unwrap();
            let insert = client.prepare(INSERT).await.unwrap();
            let find_receipt = client.prepare(FIND_RECEIPT).await.unwrap();
            let receive = client.prepare(RECEIVE).await.unwrap();
            let mut turn = 0u64;
            while Instant::now() < end {
                turn += 1;
                // Each connection has players of its own, as each lane has requests of its own.
                let n = number + CONNECTIONS * (usize::try_from(turn).unwrap() % (PLAYERS / CONNECTIONS));
                match deed.as_str() {
                    "saves" => {
                        let player = player(process, n).uuid();
                        let whom = [&player as Param<'_>];
                        let (begun, found) = tokio::join!(
                            biased;
                            client.batch_execute("BEGIN"),
                            client.query(&find, &whom),
                        );
                        begun.unwrap();
                        assert_eq!(found.unwrap().len(), 1);
                        let (seq, bytes) = (i64::try_from(turn).unwrap(), document(turn));
                        let params: [Param<'_>; 3] = [&player, &seq, &bytes];
                        let (saved, committed) = tokio::join!(
                            biased;
                            client.execute(&save, &params),
                            client.batch_execute("COMMIT"),
                        );
                        assert_eq!(saved.unwrap(), 1);
                        committed.unwrap();
                    }
                    "loads" => {
                        let n = number + CONNECTIONS * usize::try_from(turn).unwrap();
                        let player = player(process, n + PLAYERS).uuid();
                        let (whom, own) = ([&player as Param<'_>], [&server as Param<'_>]);
                        let (begun, found, servers) = tokio::join!(
                            biased;
                            client.batch_execute("BEGIN"),
                            client.query(&find, &whom),
                            client.query(&find_server, &own),
                        );
                        begun.unwrap();
                        assert_eq!((found.unwrap().len(), servers.unwrap().len()), (0, 1));
                        let lock = Uuid::new_v4();
                        let params: [Param<'_>; 3] = [&player, &lock, &server];
                        let (inserted, committed) = tokio::join!(
                            biased;
                            client.query(&insert, &params),
                            client.batch_execute("COMMIT"),
                        );
                        assert_eq!(inserted.unwrap().len(), 1);
                        committed.unwrap();
                    }
                    _ => {
                        let id = format!("{process}-{number}-{turn}");
                        let which = [&id as Param<'_>];
                        let (begun, found) = tokio::join!(
                            biased;
                            client.batch_execute("BEGIN"),
                            client.query(&find_receipt, &which),
                        );
                        begun.unwrap();
                        assert_eq!(found.unwrap().len(), 0);
                        let player = player(process, n).uuid();
                        let params: [Param<'_>; 2] = [&id, &player];
                        let (received, committed) = tokio::join!(
                            biased;
                            client.query(&receive, &params),
                            client.batch_execute("COMMIT"),
                        );
                        assert_eq!(received.unwrap().len(), 1);
                        committed.unwrap();
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}
