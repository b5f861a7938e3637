//! Between the servers and the rows: the way on which requests get lost in time, and the place where they take effect.
//!
//! A request that the [`Wire`] holds back is answered with an error at once and takes effect later, even if the server
//! that sent it is dead by then. Whatever takes effect is shown to the oracle, with what may be wrong with the store
//! ([`Sabotage`]) already in it.

use std::{
    fmt::Write as _,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bevy_player_data::{
    PlayerData as _,
    document::Document,
    store::{
        Acquire, Acquired, BoxFuture, Commit, Committed, Enqueued, LapsedLease, Lease, Leases, NewReceipt,
        Notice, ServerId, Store, StoreError, Then, Wish,
    },
};

use crate::{at_once::AtOnce, game::Pet, oracle::Oracle, split_store::forward::forward, stored::look};

/// What is wrong with the store, or with the world, when a run has to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A write is accepted whoever it is from.
    NoFence,
    /// A lock is granted whoever holds it.
    HastyLocks,
    /// A write is accepted however late it comes.
    NoSeq,
    /// A write is acknowledged before it takes effect.
    EarlyReply,
    /// A lock is not given back.
    KeptLocks,
    /// What this version doesn't know is dropped.
    ForgottenKeys,
    /// Each side of a trade is saved alone.
    SplitTrades,
    /// An award is saved first, and its receipt is settled afterwards.
    SplitPurchases,
    /// What is done on defaults counts as done.
    SavedFallbacks,
    /// A private component is registered as a public one.
    OpenDiary,
    /// Packets go to another client than the one they are for.
    WrongClient,
    /// The exit names nobody who was not saved.
    SilentExit,
}

/// All that the servers share.
#[derive(Clone)]
pub struct Wire {
    shared: Arc<Mutex<Shared>>,
    rows: AtOnce,
    sabotage: Option<Sabotage>,
}

struct Shared {
    oracle: Oracle,
    /// The time by which late requests go, in ticks.
    now: u64,
    /// How late each of the next commits and acquires is; `None` for one that isn't.
    delays: Vec<Option<u64>>,
    late: Vec<(u64, Late)>,
}

/// A request that takes effect later.
type Late = Box<dyn FnOnce(&Wire) + Send>;

impl Wire {
    pub fn new(store: &str, sabotage: Option<Sabotage>) -> Self {
        let rows = AtOnce::of(store);
        Self {
            shared: Arc::new(Mutex::new(Shared {
                oracle: Oracle::new(rows.clone()),
                now: 0,
                delays: Vec::new(),
                late: Vec::new(),
            })),
            rows,
            sabotage,
        }
    }

    pub fn rows(&self) -> &AtOnce {
        &self.rows
    }

    pub fn sabotage(&self) -> Option<Sabotage> {
        self.sabotage
    }

    pub fn oracle<T>(&self, ask: impl FnOnce(&mut Oracle) -> T) -> T {
        ask(&mut self.lock().oracle)
    }

    pub fn tell(&self, line: &str) {
        self.oracle(|oracle| oracle.tell(line));
    }

    /// A handle for one server process.
    pub fn connect(&self) -> Connection {
        Connection {
            wire: self.clone(),
            rows: self.rows.connect(),
        }
    }

    /// Holds back one of the next commits or acquires, after `others` that are not.
    pub fn hold_back(&self, others: usize, ticks: u64) {
        let mut shared = self.lock();
        shared.delays.extend((0..others).map(|_| None));
        shared.delays.push(Some(ticks));
        shared
            .oracle
            .tally
            .count("faults", "wire: late, whoever asked may be dead");
    }

    /// Lets time pass, and what is due by then take effect.
    pub fn tick(&self) {
        let due = {
            let mut shared = self.lock();
            shared.now += 1;
            shared.oracle.leases.tick();
            let now = shared.now;
            let (due, late) = mem::take(&mut shared.late)
                .into_iter()
                .partition(|(at, _)| *at <= now);
            shared.late = late;
            due
        };
        self.take_effect(due);
    }

    /// Nothing is held back any more.
    pub fn heal(&self) {
        let late = {
            let mut shared = self.lock();
            shared.delays.clear();
            mem::take(&mut shared.late)
        };
        self.take_effect(late);
    }

    fn take_effect(&self, requests: Vec<(u64, Late)>) {
        for (_, request) in requests {
            self.tell("late:");
            request(self);
        }
    }

    fn delay(&self) -> Option<u64> {
        let mut shared = self.lock();
        if shared.delays.is_empty() {
            return None;
        }
        shared.delays.remove(0)
    }

    fn later(&self, ticks: u64, request: impl FnOnce(&Self) + Send + 'static) {
        let mut shared = self.lock();
        let at = shared.now + ticks;
        shared.late.push((at, Box::new(request)));
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acquire(&self, acquire: Acquire) -> Result<Acquired, StoreError> {
        let line = format!("{acquire:?}");
        let answer = look(self.rows.acquire(self.hasty(acquire.clone())));
        self.oracle(|oracle| {
            oracle.tell(&match &answer {
                Ok(acquired) => format!("{line} -> fence {}", acquired.fence),
                Err(error) => format!("{line} -> {error}"),
            });
            oracle.tally.count(
                "effects",
                match &answer {
                    Ok(_) => "lock granted",
                    Err(StoreError::SessionLocked { .. }) => "lock refused",
                    Err(_) => "lock not to be had",
                },
            );
            let granted = answer
                .as_ref()
                .map(|acquired| (acquired.fence, acquired.document.clone()));
            oracle.acquired(&acquire, granted);
        });
        answer
    }

    fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let mut line = String::new();
        for write in &commit.writes {
            let document = write.document.as_ref().map(Document::decode);
            let document = document.map(|document| document.map_err(|error| error.to_string()));
            let _ = write!(
                line,
                "Write {} {} fence {} seq {} {:?} {:?} {:?}; ",
                write.player, write.lock, write.fence, write.seq, write.then, write.settle, document
            );
        }
        let answer = look(self.rows.commit(self.sabotaged(commit.clone())));
        self.oracle(|oracle| {
            match &answer {
                Ok(committed) => oracle.tell(&format!("{line}-> {committed:?}")),
                Err(error) => {
                    oracle.tell(&format!("{line}-> {error}"));
                    let name = match error {
                        StoreError::LockLost { .. } => "commit refused: lock lost",
                        StoreError::Superseded { .. } => "commit refused: superseded",
                        StoreError::NotSettled { .. } => "commit refused: not settled",
                        _ => "commit refused",
                    };
                    oracle.tally.count("effects", name);
                }
            }
            oracle.committed(&commit, answer.as_ref().map(|_| ()));
        });
        answer
    }

    /// What a broken store makes of an acquire.
    fn hasty(&self, mut acquire: Acquire) -> Acquire {
        if self.sabotage == Some(Sabotage::HastyLocks) {
            let leases = look(self.rows.leases()).expect("the rows can be read");
            let lapsed = leases.servers.into_iter().map(|lease| LapsedLease {
                server: lease.server,
                beat: lease.beat,
            });
            acquire.lapsed = lapsed.collect();
        }
        acquire
    }

    /// What a broken store makes of a commit.
    fn sabotaged(&self, mut commit: Commit) -> Commit {
        for write in &mut commit.writes {
            let Ok(Some(record)) = look(self.rows.peek(write.player)) else {
                continue;
            };
            match self.sabotage {
                Some(Sabotage::NoFence) => {
                    if let Some(holder) = record.lock {
                        (write.lock, write.fence) = (holder.lock, record.fence);
                        write.seq = write.seq.max(record.last_seq + 1);
                    }
                }
                Some(Sabotage::NoSeq) => write.seq = write.seq.max(record.last_seq + 1),
                Some(Sabotage::KeptLocks) => write.then = Then::Keep,
                Some(Sabotage::ForgottenKeys) => {
                    let document = write
                        .document
                        .as_ref()
                        .and_then(|bytes| Document::decode(bytes).ok());
                    if let Some(mut document) = document
                        && record.version > 3
                    {
                        document.remove(Pet::KEY);
                        write.document = document.encode(Default::default()).ok();
                    }
                }
                _ => {}
            }
        }
        commit
    }
}

/// One server process's way to the rows.
#[derive(Clone)]
pub struct Connection {
    wire: Wire,
    /// Its own: what hangs on it, a server's name above all, goes with it.
    rows: AtOnce,
}

impl Connection {
    fn note(&self, line: &str) {
        self.wire.tell(line);
    }
}

impl Store for Connection {
    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        Box::pin(async move {
            let Some(ticks) = self.wire.delay() else {
                return self.wire.acquire(acquire);
            };
            self.wire.later(ticks, move |wire| drop(wire.acquire(acquire)));
            Err(StoreError::unavailable("the wire is slow"))
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            let delay = self.wire.delay();
            if self.wire.sabotage == Some(Sabotage::EarlyReply) {
                let versions = vec![0; commit.writes.len()];
                self.wire.later(1, move |wire| drop(wire.commit(commit)));
                return Ok(Committed { versions });
            }
            let Some(ticks) = delay else {
                return self.wire.commit(commit);
            };
            self.wire.later(ticks, move |wire| drop(wire.commit(commit)));
            Err(StoreError::unavailable("the wire is slow"))
        })
    }

    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(async move {
            let line = format!("{lease:?}");
            let answer = self.rows.lease(lease).await;
            self.note(&format!("{line} -> {answer:?}"));
            if let Ok(leases) = &answer {
                self.wire.oracle(|oracle| oracle.leases.read(leases));
            }
            answer
        })
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.note(&format!("retire {server}"));
            self.wire.oracle(|oracle| oracle.leases.retired(server));
            self.rows.retire(server).await
        })
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        Box::pin(async move {
            let line = format!("{receipt:?} {notice:?}");
            let answer = self.rows.enqueue(receipt, notice).await;
            let said = answer.as_ref().map(|enqueued| enqueued.is_new);
            self.note(&format!("{line} -> {said:?}"));
            answer
        })
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let Some(ticks) = self.wire.delay() else {
                self.note(&format!("{wish:?}"));
                return self.rows.wish(wish).await;
            };
            // Whoever wished may be dead by then, or wish no more.
            self.wire
                .later(ticks, move |wire| drop(look(wire.rows.wish(wish))));
            Err(StoreError::unavailable("the wire is slow"))
        })
    }

    forward! {
        rows: leases, peek, list, erase, receipt, open_receipts, receipts_of, arrivals, withdraw, wishes
    }
}
