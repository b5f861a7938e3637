//! The crate's side.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bevy_player_data::store::{
    Acquire, Lease, LockId, NewReceipt, Notice, PostgresSettings, PostgresStore, ServerId, Store, Then, Write,
};
use tokio::task::JoinSet;

use super::{CONNECTIONS, PLAYERS, document, player};

/// `PLAYERS` tasks, each of which asks again as soon as it was answered.
pub async fn run(deed: &str, url: &str, process: usize, time: Duration) -> f64 {
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
