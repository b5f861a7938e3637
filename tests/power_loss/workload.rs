//! What two servers do with one file: they open it, ask for things together, and close it.
//!
//! Requests go out in rounds. The first of a round, a server's beat, is held up at the tape's gate until all the others
//! are queued behind it, so these share one transaction, and which requests share one follows from the seed alone. What
//! is asked for is chosen in [`wishes`](super::wishes).

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bevy_player_data::{
    PlayerId,
    store::{Lease, LockId, ServerId, SqliteStore, Store, StoreError},
};

use super::{
    books::{Books, Request},
    disk_io::{DATABASE, random_bytes, wait},
    sabotage::Sabotage,
    tally::Tally,
    tape::{Event, Phase, Tape},
};

const NAMES: [&str; 2] = ["east", "west"];

/// A session, as its server knows it.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    pub(crate) server: usize,
    pub(crate) lock: LockId,
    pub(crate) fence: u64,
    pub(crate) seq: u64,
}

/// One stretch of the servers' life.
pub(crate) struct Workload<'a> {
    folder: &'a Path,
    tape: &'a Arc<Tape>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) tally: &'a mut Tally,
    pub(crate) sessions: BTreeMap<PlayerId, Session>,
    stores: [Option<Arc<dyn Store>>; 2],
    pub(crate) servers: [ServerId; 2],
    /// The books after each number of requests.
    history: Vec<Arc<Books>>,
    answered: usize,
}

type Asking = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<'a> Workload<'a> {
    pub(crate) fn new(
        folder: &'a Path,
        tape: &'a Arc<Tape>,
        books: Arc<Books>,
        sabotage: Option<Sabotage>,
        rng: fastrand::Rng,
        tally: &'a mut Tally,
    ) -> Self {
        Self {
            folder,
            tape,
            sabotage,
            rng,
            tally,
            sessions: BTreeMap::new(),
            stores: [None, None],
            servers: [ServerId::from_bytes([0; 16]); 2],
            history: vec![books],
            answered: 0,
        }
    }

    /// Runs so many rounds, closes the file, and returns the books after each number of requests.
    pub(crate) fn run(mut self, rounds: usize) -> Vec<Arc<Books>> {
        self.open(&[0, 1]);
        for _ in 0..rounds {
            match self.rng.u8(..80) {
                0 => self.reopen(&[0, 1]),
                1 => self.reopen(&[0]),
                2 => self.reopen(&[1]),
                _ => {
                    let server = self.rng.usize(..2);
                    self.round(server);
                }
            }
        }
        self.close(&[0, 1]);
        self.history
    }

    fn open(&mut self, which: &[usize]) {
        self.tape.push(Event::Phase(Phase::Opening));
        for &server in which {
            let store: Arc<dyn Store> = match SqliteStore::open(self.folder.join(DATABASE)) {
                Ok(store) => Arc::new(store),
                Err(error) => panic!("a store that has survived its last cut does not open: {error}"),
            };
            self.stores[server] = Some(match self.sabotage {
                Some(sabotage) => sabotage.of(store),
                None => store,
            });
            self.servers[server] = ServerId::from_bytes(random_bytes(&mut self.rng));
        }
        self.tape.push(Event::Phase(Phase::Running));
        for &server in which {
            self.together(server, Vec::new());
        }
    }

    fn close(&mut self, which: &[usize]) {
        for &server in which {
            if self.rng.bool() {
                self.tally.deed("retire");
                let retire = Request::Retire(self.servers[server]);
                self.one(server, retire);
            }
            self.sessions.retain(|_, session| session.server != server);
        }
        self.tape.push(Event::Phase(Phase::Closing));
        for &server in which {
            self.stores[server] = None;
        }
        self.tape.push(Event::Phase(Phase::Running));
    }

    fn reopen(&mut self, which: &[usize]) {
        self.tally.deed("close and open");
        self.close(which);
        self.open(which);
    }

    pub(crate) fn books(&self) -> &Books {
        self.history.last().expect("there are always books")
    }

    /// A beat, and what is asked for at the same time.
    fn round(&mut self, server: usize) {
        // A store that does a commit in two steps lets others in between.
        let requests = match self.sabotage {
            Some(Sabotage::SplitTrades | Sabotage::SplitPurchases) => 1,
            _ => self.rng.usize(1..=16),
        };
        let wishes = (0..requests).map(|_| self.rng.u32(..)).collect();
        self.together(server, wishes);
    }

    fn together(&mut self, server: usize, wishes: Vec<u32>) {
        let beat = Request::Lease(Lease {
            server: self.servers[server],
            name: NAMES[server].to_owned(),
            lapsed: Vec::new(),
        });
        self.tally.deed("beat");
        self.tape.close_gate();
        let mut asking = vec![self.ask(server, beat)];
        self.tape.wait_for_writer();
        for wish in wishes {
            let request = self.request(server, wish);
            asking.push(self.ask(server, request));
        }
        if self.sabotage == Some(Sabotage::Hasty) {
            let requests = self.history.len() - 1;
            self.tape.push(Event::Answered { requests });
        }
        self.tape.open_gate();
        self.hear(asking);
    }

    fn one(&mut self, server: usize, request: Request) {
        let asking = self.ask(server, request);
        self.hear(vec![asking]);
    }

    /// Hands a request in.
    fn ask(&mut self, server: usize, request: Request) -> Asking {
        let after = Arc::new(self.books().after(&request));
        self.history.push(Arc::clone(&after));
        let requests = self.history.len() - 1;
        self.tape.push(Event::Asked { requests });
        let store = Arc::clone(self.stores[server].as_ref().expect("the store is open"));
        let mut asking: Asking = Box::pin(ask(store, request, after));
        // A store takes a request on when its future is polled first.
        match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => asking,
            Poll::Ready(()) => Box::pin(async {}),
        }
    }

    /// Waits for the answers. They go on the tape when all are there and the writer is idle again, so at the same place
    /// each time.
    fn hear(&mut self, asking: Vec<Asking>) {
        self.answered += asking.len();
        wait(async {
            for answer in asking {
                answer.await;
            }
        });
        self.tape.push(Event::Answered {
            requests: self.answered,
        });
    }
}

/// Asks, and compares the answer with the books.
async fn ask(store: Arc<dyn Store>, request: Request, after: Arc<Books>) {
    let wrong = |error: StoreError| panic!("without any fault, the store answered `{error}`");
    match request {
        Request::Lease(lease) => drop(store.lease(lease).await.unwrap_or_else(wrong)),
        Request::Retire(server) => store
            .retire(server)
            .await
            .unwrap_or_else(|error| panic!("{error}")),
        Request::Acquire(acquire) => {
            let player = acquire.player;
            let acquired = store.acquire(acquire).await;
            let acquired = acquired.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(acquired.fence, after.players[&player].fence);
        }
        Request::Commit(commit) => {
            let committed = store.commit(commit).await;
            committed.unwrap_or_else(|error| panic!("{error}"));
        }
        Request::Stale(commit) => {
            let refused = store.commit(commit).await;
            assert!(matches!(refused, Err(StoreError::LockLost { .. })), "{refused:?}");
        }
        Request::Enqueue(new, notice) => {
            let enqueued = store.enqueue(new, notice).await;
            enqueued.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
