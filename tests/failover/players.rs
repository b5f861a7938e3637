//! Who plays: sessions that save and are awarded purchases, and the provider that hands them in.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bevy_player_data::{
    PlayerId, PurchaseId,
    session::{
        Attempts, OpenError, Opened, RetryPolicy, SaveError, Saved, Session, SessionSettings, Sessions,
        Snapshot,
    },
    store::{NewReceipt, Notice, Outcome, ReceiptState, Settlement, Store},
};
use tokio::sync::oneshot;

use super::books::{Books, Diary};

pub(crate) const PLAYERS: u32 = 12;
/// How many saves a session has before its player leaves and comes back on another server.
const SAVES: u32 = 60;

pub(crate) fn player(n: u32) -> PlayerId {
    PlayerId::from_name("failover").slot(n)
}

pub(crate) fn purchase(player: u32, number: u32) -> PurchaseId {
    format!("p{player}-{number}").parse().unwrap()
}

/// What they have in common.
pub(crate) struct World {
    pub(crate) books: Books,
    pub(crate) over: AtomicBool,
    /// How many failovers there were.
    pub(crate) failovers: AtomicU32,
}

impl World {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// A server's times: an outage of some seconds is shorter than its lease.
pub(crate) fn settings(name: &str) -> SessionSettings {
    SessionSettings {
        name: name.to_owned(),
        beat: Duration::from_millis(500),
        lease_ttl: Duration::from_secs(60),
        load_timeout: Duration::from_secs(90),
        retry: RetryPolicy {
            first: Duration::from_millis(20),
            max: Duration::from_millis(200),
            attempts: Attempts::Limited(20),
            attempt_timeout: Duration::from_secs(5),
            ..RetryPolicy::default()
        },
        ..SessionSettings::default()
    }
}

/// Plays one player until it is all over.
pub(crate) async fn play(n: u32, servers: Vec<(Arc<dyn Store>, Sessions)>, world: Arc<World>) {
    let player = player(n);
    let mut turn = n as usize;
    while !world.is_over() {
        let (store, sessions) = &servers[turn % servers.len()];
        turn += 1;
        let opened = match open(sessions, player).await {
            Ok(opened) => opened,
            Err(error) => {
                world
                    .books
                    .open()
                    .ended_badly
                    .push(format!("{player} could not join: {error}"));
                continue;
            }
        };
        world.books.open().sessions += 1;
        session(n, &**store, opened, &world).await;
    }
}

async fn open(sessions: &Sessions, player: PlayerId) -> Result<Opened, OpenError> {
    let (done, answer) = oneshot::channel();
    let _opening = sessions.open(player, move |answer| drop(done.send(answer)));
    answer.await.expect("every load is answered")
}

/// One session, from its load to its close.
async fn session(n: u32, store: &dyn Store, opened: Opened, world: &World) {
    let Opened {
        mut session,
        document,
        mut version,
        ..
    } = opened;
    let player = session.player();
    let mut diary = Diary::read(&document);
    let mut settled: BTreeSet<u32> = diary.awarded.iter().copied().collect();
    {
        let mut books = world.books.open();
        let account = books.accounts.entry(player).or_default();
        let (known, known_version) = (account.saved.clone(), account.version);
        if version < known_version || !known.awarded.iter().all(|number| settled.contains(number)) {
            books.lost.push(format!(
                "{player} was loaded with version {version} after {known_version}"
            ));
        }
    }
    let began_at = world.failovers.load(Ordering::SeqCst);
    let mut went_on = false;
    // Saves that nobody knows the end of may have landed.
    let mut unknown = 0;
    for _ in 0..SAVES {
        if world.is_over() {
            break;
        }
        if let Ok(open) = store.open_receipts(player).await {
            for receipt in open {
                let text = receipt.purchase.as_str();
                let number = text.rsplit('-').next().and_then(|number| number.parse().ok());
                let number: u32 = number.expect("our own purchase");
                assert_eq!(receipt.purchase, purchase(n, number));
                // What is in the document is settled with it, or was: never awarded twice by us.
                if receipt.state == ReceiptState::Pending && !diary.awarded.contains(&number) {
                    diary.awarded.push(number);
                }
            }
        }
        diary.saves += 1;
        match save(&mut session, snapshot(n, &diary, &settled)).await {
            Ok(saved) => {
                settled.extend(&diary.awarded);
                let mut books = world.books.open();
                if saved.version <= version {
                    books.lost.push(format!(
                        "{player} went from version {version} back to {}",
                        saved.version
                    ));
                }
                if saved.version > version + 1 + unknown {
                    books
                        .doubled
                        .push(format!("a save of {player}: {version}, {}", saved.version));
                }
                version = saved.version;
                unknown = 0;
                books.saves += 1;
                if !went_on && world.failovers.load(Ordering::SeqCst) > began_at {
                    went_on = true;
                    books.went_on += 1;
                }
                let account = books.accounts.entry(player).or_default();
                account.saved = diary.clone();
                account.version = version;
            }
            Err(error) => {
                unknown += 1;
                if session.is_over() {
                    world
                        .books
                        .open()
                        .ended_badly
                        .push(format!("a session of {player}: {error}"));
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (done, answer) = oneshot::channel();
    diary.saves += 1;
    session.close(Some(snapshot(n, &diary, &settled)), move |answer| {
        drop(done.send(answer));
    });
    match answer.await.expect("every close is answered") {
        Ok(saved) => {
            let mut books = world.books.open();
            books.saves += 1;
            let account = books.accounts.entry(player).or_default();
            account.saved = diary;
            account.version = saved.version;
        }
        Err(error) => world
            .books
            .open()
            .ended_badly
            .push(format!("the close of {player}: {error}")),
    }
}

fn snapshot(n: u32, diary: &Diary, settled: &BTreeSet<u32>) -> Snapshot {
    let new = diary.awarded.iter().filter(|number| !settled.contains(number));
    Snapshot {
        document: diary.document(),
        settle: new
            .map(|&number| Settlement {
                purchase: purchase(n, number),
                outcome: Outcome::Granted,
            })
            .collect(),
    }
}

async fn save(session: &mut Session, snapshot: Snapshot) -> Result<Saved, SaveError> {
    let (done, answer) = oneshot::channel();
    session.save(snapshot, move |answer| drop(done.send(answer)));
    answer.await.expect("every save is answered")
}

/// Hands purchases in, each until it is acknowledged.
pub(crate) async fn provide(store: Arc<dyn Store>, world: Arc<World>) {
    for number in 0.. {
        for n in 0..PLAYERS {
            let product = "hat".parse().unwrap();
            let receipt = NewReceipt::new(purchase(n, number), player(n), product);
            while store.enqueue(receipt.clone(), Notice::Paid).await.is_err() {
                if world.is_over() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut books = world.books.open();
            books.accounts.entry(player(n)).or_default().paid.insert(number);
        }
        if world.is_over() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Keeps the servers' leases alive.
pub(crate) async fn beat(servers: Vec<Sessions>, world: Arc<World>) {
    while !world.is_over() {
        servers.iter().for_each(Sessions::tick);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
