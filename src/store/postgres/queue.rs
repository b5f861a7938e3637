//! What waits for a transaction, and group commit.
//!
//! Requests that queue up while all lanes are busy share the next transaction. One that is refused takes nothing of its
//! neighbours with it: it is judged before anything is written. One that has to wait for somebody else's lock, or that
//! the database doesn't take, is [set aside](Lane::Alone) into a transaction of its own.
//! Nobody is answered, refusals included, before the transaction is committed: a refusal, too, may rest on what a
//! neighbour has just written.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::{
    super::{Acquire, Acquired, Commit, Committed, Enqueued, NewReceipt, Notice, StoreError},
    connection::Connections,
    error::Consequence,
    transaction::{self, Locking},
};
use crate::{chance::random, id::PlayerId};

/// How many requests share a transaction at most.
const GROUP_REQUESTS: usize = 500;
/// How many bytes of documents the requests of a transaction may have together, unless it is only one. It bounds how long
/// the first waits for the last, and nobody is refused for the size of a neighbour.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// What a load is taken to weigh while there was none to learn from.
const LIKELY_LOAD: usize = 64 * 1024;
/// How often a transaction that met another one is run again.
const ATTEMPTS: u32 = 8;

/// Where the answer to one request goes.
type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is asked for in a transaction.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Acquire(Acquire),
    Commit(Commit),
    Enqueue(NewReceipt, Notice),
    Erase(PlayerId),
}

/// The answer to it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Acquired(Acquired),
    Committed(Committed),
    Enqueued(Enqueued),
    Erased(bool),
}

/// An [`Ask`] and whoever waits.
pub(super) struct Request {
    pub(super) ask: Ask,
    reply: Reply<Answer>,
}

impl Request {
    /// The weight of what it writes, in bytes, or is likely to read.
    fn weight(&self, typical: usize) -> usize {
        match &self.ask {
            Ask::Commit(commit) => transaction::size(commit),
            Ask::Enqueue(receipt, _) => receipt.payload.as_ref().map_or(0, bytes::Bytes::len),
            Ask::Acquire(_) => typical,
            Ask::Erase(_) => 0,
        }
    }

    fn answer(self, answer: Result<Answer, StoreError>) {
        // Whoever asked may have gone: what was done stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// What has become of a request in a transaction.
pub(super) enum Fate {
    Answered(Result<Answer, StoreError>),
    /// It has to wait for somebody else, in a transaction of its own. Nothing of it has happened.
    SetAside,
}

/// Which requests wait together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Locks and saves of players.
    Players,
    /// Receipts that are handed in. They all take the row of `counters`, which must keep nobody's save waiting.
    Inbox,
    /// One request a transaction, which waits for others' locks.
    Alone,
}

/// The queues.
pub(super) struct Queues {
    players: mpsc::UnboundedSender<Request>,
    inbox: mpsc::UnboundedSender<Request>,
    alone: mpsc::UnboundedSender<Request>,
}

impl Queues {
    /// Queues a request and waits for its answer.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, StoreError> {
        let queue = match &ask {
            Ask::Acquire(_) | Ask::Commit(_) => &self.players,
            Ask::Enqueue(..) => &self.inbox,
            Ask::Erase(_) => &self.alone,
        };
        let (reply, answer) = oneshot::channel();
        if queue.send(Request { ask, reply }).is_err() {
            return Err(gone());
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> StoreError {
    StoreError::unavailable(
        "the thread that talks to PostgreSQL has dropped a request, see the log for its panic: restart this server",
    )
}

/// Starts the lanes on the runtime that this is called on. They end when the queues are gone and empty.
pub(super) fn start(
    connections: &Arc<Connections>,
    size: usize,
) -> (Queues, Vec<tokio::task::JoinHandle<()>>) {
    let mut tasks = Vec::new();
    let (players, waiting) = queue();
    let (inbox, waiting_inbox) = queue();
    let (alone, waiting_alone) = queue();
    let typical = Arc::new(AtomicUsize::new(LIKELY_LOAD));
    let mut lane = |lane, waiting: &Waiting, aside: Option<mpsc::UnboundedSender<Request>>| {
        let lane = Worker {
            lane,
            waiting: Arc::clone(waiting),
            aside: aside.map(Mutex::new),
            connections: Arc::clone(connections),
            typical: Arc::clone(&typical),
        };
        tasks.push(tokio::spawn(lane.serve()));
    };
    // Few, so that many requests share a transaction: on half of the connections it was up to a third less. But one
    // that is stuck must not hold everybody up, and half are left for beats, looks and what waits by itself.
    for _ in 0..(size / 4).max(2).min(size.div_ceil(2)) {
        lane(Lane::Players, &waiting, Some(alone.clone()));
    }
    lane(Lane::Inbox, &waiting_inbox, Some(alone.clone()));
    for _ in 0..(size / 4).max(1) {
        lane(Lane::Alone, &waiting_alone, None);
    }
    let queues = Queues {
        players,
        inbox,
        alone,
    };
    (queues, tasks)
}

type Waiting = Arc<AsyncMutex<mpsc::UnboundedReceiver<Request>>>;

fn queue() -> (mpsc::UnboundedSender<Request>, Waiting) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Arc::new(AsyncMutex::new(receiver)))
}

/// What one lane owns.
struct Worker {
    lane: Lane,
    waiting: Waiting,
    aside: Option<Mutex<mpsc::UnboundedSender<Request>>>,
    connections: Arc<Connections>,
    /// The size of the documents that were loaded, on the average of the last ones.
    typical: Arc<AtomicUsize>,
}

impl Worker {
    async fn serve(self) {
        let mut next = None;
        loop {
            let (group, left) = match next.take() {
                // Where another lane waits for requests there are none.
                Some(first) => match self.waiting.try_lock() {
                    Ok(mut waiting) => self.gather(first, &mut waiting),
                    Err(_) => (vec![first], None),
                },
                None => {
                    let mut waiting = self.waiting.lock().await;
                    let Some(first) = waiting.recv().await else {
                        return;
                    };
                    self.gather(first, &mut waiting)
                }
            };
            next = left;
            self.run(group).await;
        }
    }

    /// `first` and what is queued behind it, as far as a group may go, and the one that is too much for it. Whom nobody
    /// waits for any more is left out: nothing of it was sent yet, and who asked has given it up.
    fn gather(
        &self,
        first: Request,
        waiting: &mut mpsc::UnboundedReceiver<Request>,
    ) -> (Vec<Request>, Option<Request>) {
        let typical = self.typical.load(Ordering::Relaxed);
        let most = match self.lane {
            Lane::Players | Lane::Inbox => GROUP_REQUESTS,
            Lane::Alone => 1,
        };
        let mut bytes = first.weight(typical);
        let mut group = vec![first];
        let mut too_much = None;
        while group.len() < most && bytes < GROUP_BYTES {
            let Ok(request) = waiting.try_recv() else { break };
            bytes = bytes.saturating_add(request.weight(typical));
            if bytes > GROUP_BYTES {
                too_much = Some(request);
                break;
            }
            group.push(request);
        }
        group.retain(|request| !request.reply.is_closed());
        (group, too_much)
    }

    /// Learns from an answer how much the next ones are likely to weigh.
    fn weigh(&self, answer: &Result<Answer, StoreError>) {
        if let Ok(Answer::Acquired(acquired)) = answer {
            let size = acquired.document.as_ref().map_or(0, bytes::Bytes::len);
            let typical = self.typical.load(Ordering::Relaxed);
            // Another lane that learns at the same time may be passed over.
            self.typical
                .store(typical - typical / 8 + size / 8, Ordering::Relaxed);
        }
    }

    async fn run(&self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        let asks: Arc<[Ask]> = group.iter().map(|request| request.ask.clone()).collect();
        let locking = match self.lane {
            Lane::Alone => Locking::Wait,
            Lane::Players | Lane::Inbox => Locking::SkipLocked,
        };
        let mut attempts = 0;
        let failure = loop {
            attempts += 1;
            let asks = Arc::clone(&asks);
            let outcome = self
                .connections
                .with(move |connection| Box::pin(transaction::run(connection, asks, locking)))
                .await;
            match outcome {
                Ok(fates) if self.lane == Lane::Alone && attempts < ATTEMPTS && is_set_aside(&fates) => {
                    tracing::debug!("a row was just created by somebody else");
                }
                Ok(fates) => {
                    tracing::trace!(requests = group.len(), "a transaction has ended");
                    for (request, fate) in group.into_iter().zip(fates) {
                        match fate {
                            Fate::Answered(answer) => {
                                self.weigh(&answer);
                                request.answer(answer);
                            }
                            Fate::SetAside => self.set_aside(request),
                        }
                    }
                    return;
                }
                Err(failure) if failure.consequence() == Consequence::RunAgain && attempts < ATTEMPTS => {
                    tracing::debug!("a transaction met another one and is run again");
                    tokio::time::sleep(Duration::from_millis(10).mul_f64(random() * f64::from(attempts)))
                        .await;
                }
                Err(failure) => break failure,
            }
        };
        if group.len() > 1 && failure.consequence() == Consequence::OneByOne {
            // Undone, whoever's fault it was.
            for request in group {
                self.set_aside(request);
            }
            return;
        }
        let error = failure.explain(&self.connections.target);
        // Not the failure itself: the database quotes rows in it.
        tracing::debug!("a transaction of {} requests failed: {error}", group.len());
        let error = match error {
            StoreError::Unavailable { .. } => error,
            // Not each one's own fault.
            other if group.len() > 1 => {
                StoreError::unavailable(format_args!("a transaction was lost ({other})"))
            }
            own => own,
        };
        for request in group {
            request.answer(Err(error.clone()));
        }
    }

    fn set_aside(&self, request: Request) {
        let Some(aside) = &self.aside else {
            request.answer(Err(StoreError::unavailable(
                "a row is created and deleted again and again by somebody else: look for them in the database",
            )));
            return;
        };
        // Fails only when that lane is gone, and dropping the request says so to whoever asked.
        let _ = aside.lock().unwrap_or_else(PoisonError::into_inner).send(request);
    }
}

fn is_set_aside(fates: &[Fate]) -> bool {
    matches!(fates, [Fate::SetAside])
}
