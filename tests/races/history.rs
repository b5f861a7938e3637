//! What happened to the requests of one schedule, and what must hold of it.
//!
//! A [`Bench`] asks the queue and notes each step of each request. [`Bench::check`] then looks at the notes: each request
//! had one answer, its job ran once or never as the answer says, those about one key one at a time and in the order in
//! which they were asked for.

use real_std::sync::{Mutex as Notes, PoisonError};

use crate::{
    explore::{ON_PURPOSE, count},
    future::Future,
    runtime::Handle,
    session::queue::{NotRun, OrderedQueue, Request, Skip, Ticket, Turn},
    sync::Arc,
};

pub type Key = &'static str;

#[derive(Clone)]
pub struct Bench {
    pub queue: OrderedQueue<Key>,
    pub runtime: Handle,
    asked: Arc<Notes<Vec<Asked>>>,
    // The standard library's lock: nobody gets a turn while something is noted.
    clock: Arc<Notes<u32>>,
    /// Held by each job and each waiter until it is dropped.
    held: Arc<()>,
}

/// One request; the numbers say what happened before what.
#[derive(Clone, Debug, Default)]
struct Asked {
    keys: Vec<Key>,
    series: Option<u64>,
    asking: u32,
    asked: Option<u32>,
    started: Vec<u32>,
    ended: Vec<u32>,
    answered: Vec<(u32, Result<(), NotRun>)>,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Well,
    JobPanics,
    WaiterPanics,
}

pub struct Asking {
    pub id: usize,
    pub ticket: Ticket<Key>,
}

impl Bench {
    pub fn new() -> Self {
        let runtime = Handle::new();
        Self {
            queue: OrderedQueue::new(runtime.clone()),
            runtime,
            asked: Arc::default(),
            clock: Arc::default(),
            held: Arc::default(),
        }
    }

    /// A request that takes a few steps.
    pub fn ask(&self, keys: &[Key], ends: Ends) -> Asking {
        self.ask_for(keys, None, Skip::Never, ends, |_| shuttle::future::yield_now())
    }

    /// A save of this series.
    pub fn save(&self, key: Key, series: u64) -> Asking {
        self.ask_for(&[key], Some(series), Skip::IfFollowed, Ends::Well, |_| async {})
    }

    /// What ends this series.
    pub fn close(&self, key: Key, series: u64) -> Asking {
        self.ask_for(&[key], Some(series), Skip::Never, Ends::Well, |_| async {})
    }

    pub fn ask_for<F: Future<Output = ()> + Send>(
        &self,
        keys: &[Key],
        series: Option<u64>,
        skip: Skip,
        ends: Ends,
        work: impl FnOnce(Turn) -> F + Send + 'static,
    ) -> Asking {
        let id = self.open(keys, series);
        let mut request = Request::of_all(keys.iter().copied()).skip(skip);
        if let Some(series) = series {
            request = request.series(series);
        }
        let (job, waiter) = (self.clone(), self.clone());
        let ticket = self.queue.enqueue(
            request,
            move |turn| async move {
                job.start(id);
                work(turn).await;
                assert!(ends != Ends::JobPanics, "{ON_PURPOSE}");
                job.end(id);
            },
            move |answer| {
                waiter.answer(id, answer);
                assert!(ends != Ends::WaiterPanics, "{ON_PURPOSE}");
            },
        );
        self.note(id, |asked, now| asked.asked = Some(now));
        Asking { id, ticket }
    }

    /// Notes that something is about to be asked.
    pub fn open(&self, keys: &[Key], series: Option<u64>) -> usize {
        let asking = self.now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Asked {
            keys: keys.to_vec(),
            series,
            asking,
            ..Asked::default()
        });
        asked.len() - 1
    }

    pub fn start(&self, id: usize) {
        self.note(id, |asked, now| asked.started.push(now));
    }

    pub fn end(&self, id: usize) {
        self.note(id, |asked, now| asked.ended.push(now));
    }

    pub fn has_started(&self, id: usize) -> bool {
        !self.asked.lock().unwrap_or_else(PoisonError::into_inner)[id]
            .started
            .is_empty()
    }

    pub fn answer(&self, id: usize, answer: Result<(), NotRun>) {
        self.note(id, |asked, now| asked.answered.push((now, answer)));
    }

    /// What its waiter was told so far.
    pub fn answer_to(&self, id: usize) -> Option<Result<(), NotRun>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked[id].answered.first().map(|(_, answer)| answer.clone())
    }

    fn now(&self) -> u32 {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        *clock += 1;
        *clock
    }

    fn note(&self, id: usize, note: impl FnOnce(&mut Asked, u32)) {
        let now = self.now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut asked[id], now);
    }

    /// Waits until the queue is empty, which it then has to be.
    pub fn drain(&self) {
        shuttle::future::block_on(self.queue.drained());
    }

    /// How many of those asked for before this moment have not been answered; for a look after [`Bench::drain`].
    pub fn unanswered_of(&self, requests: usize) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked
            .iter()
            .take(requests)
            .filter(|asked| asked.answered.is_empty())
            .count()
    }

    /// How many requests have been asked for, all the way.
    pub fn requests(&self) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().take_while(|asked| asked.asked.is_some()).count()
    }

    /// Nothing is under way any more: each request has its one answer, and the order was kept.
    pub fn check(self) {
        self.check_answered(1);
    }

    /// The runtime is gone: a request may have been dropped instead of answered, and the order was kept.
    pub fn check_after_shutdown(self) {
        self.check_answered(0);
    }

    fn check_answered(self, at_least: usize) {
        assert!(self.queue.is_empty(), "requests are left in the queue");
        assert_eq!(
            Arc::strong_count(&self.held),
            1,
            "a job or a waiter was never let go"
        );
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, one) in asked.iter().enumerate() {
            let answers = one.answered.len();
            assert!(
                (at_least..=1).contains(&answers),
                "request {id} got {answers} answers: {one:?}"
            );
            assert!(one.started.len() <= 1, "request {id} was started twice: {one:?}");
            one.check(id);
            for (other, two) in asked.iter().enumerate() {
                if one.keys.iter().any(|key| two.keys.contains(key)) {
                    one.check_comes_first(two, id, other);
                }
            }
        }
        for one in asked.iter() {
            one.check_saved(&asked);
        }
    }
}

impl Asked {
    fn check(&self, id: usize) {
        let (ran, finished) = (!self.started.is_empty(), !self.ended.is_empty());
        let Some((_, answer)) = self.answered.first() else {
            count("dropped unanswered");
            return;
        };
        let fits = match answer {
            Ok(()) => ran && finished,
            Err(NotRun::Panicked(message)) => ran && !finished && message == ON_PURPOSE,
            Err(NotRun::Skipped | NotRun::Cancelled) => !ran,
        };
        assert!(
            fits,
            "request {id} was told {answer:?}, but its job says otherwise: {self:?}"
        );
        count(match answer {
            Ok(()) => "done",
            Err(NotRun::Panicked(_)) => "panicked",
            Err(NotRun::Skipped) => "skipped",
            Err(NotRun::Cancelled) => "cancelled",
        });
    }

    /// Of two requests about one key, that which was asked for first is answered before the other one starts.
    fn check_comes_first(&self, other: &Self, id: usize, other_id: usize) {
        let (Some(&start), Some(&other_start)) = (self.started.first(), other.started.first()) else {
            return;
        };
        if start < other_start {
            let answered = self.answered.first().map(|(when, _)| *when);
            assert!(
                answered.is_some_and(|when| when < other_start),
                "request {other_id} started before request {id} about the same key was answered"
            );
        }
        if self.asked.is_some_and(|asked| asked < other.asking) {
            assert!(
                start < other_start,
                "request {other_id} overtook request {id} about the same key"
            );
            if other
                .asked
                .is_some_and(|asked| self.answered.first().is_some_and(|(when, _)| *when > asked))
            {
                count("waited for another");
                if other.keys.len() > 1 {
                    count("waited with two keys");
                }
            }
        }
    }

    /// A save that was skipped has a later one of its series that landed.
    fn check_saved(&self, all: &[Self]) {
        if matches!(self.answered.first(), Some((_, Err(NotRun::Skipped)))) {
            let is_made_up_for = all.iter().any(|other| {
                other.series == self.series && other.asking > self.asking && !other.ended.is_empty()
            });
            assert!(
                is_made_up_for,
                "a save was skipped, and none of its series landed after it"
            );
        }
    }
}
