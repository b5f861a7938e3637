//! The ordered queue: everything that is done about a key happens one after the other, in the order it was asked for.
//!
//! [`OrderedQueue`] owns the order and nothing else: it starts a request when it is at the head of the queues of *all*
//! its keys, so a request that names two keys takes its place in both at once and no two requests can wait for
//! each other. It promises that a request which failed, or even panicked, gives its place up, and that idle
//! keys cost nothing. What a request does, retries included, is the request's own business; it happens inside its slot.

mod order;

use std::{
    fmt::{self, Debug},
    future::{Future, poll_fn},
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, time::sleep};
use tracing::error;

use crate::watched::Watched;
use order::Order;

/// Per key first in, first out, one at a time. A cheap handle: clones share the queues.
///
/// ```
/// use bevy_player_data::session::{OrderedQueue, Request};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// let queue = OrderedQueue::new(runtime.handle().clone());
/// let (answer, answered) = std::sync::mpsc::channel();
/// for n in 1..=2 {
///     let answer = answer.clone();
///     queue.enqueue(Request::of("ada"), move |_turn| async move { n }, move |n| answer.send(n).unwrap());
/// }
/// runtime.block_on(queue.drained());
/// assert_eq!(answered.try_iter().collect::<Vec<_>>(), [Ok(1), Ok(2)]);
/// ```
pub struct OrderedQueue<K> {
    shared: Arc<Shared<K>>,
}

/// What a request is about, and whether it may be dropped when the server is about to exit.
#[derive(Clone, Debug)]
pub struct Request<K> {
    keys: Vec<K>,
    series: Option<u64>,
    skip: Skip,
}

/// What [`OrderedQueue::skip_all_to_last`] may do to a request that has one key and has not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It runs all the same: a close, a release.
    Never,
    /// It is dropped if another request of the same [series](Request::series) waits behind it: a save.
    IfFollowed,
    /// It is dropped: a load that nobody will use.
    Always,
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// A later request of the same series takes its place, see [`OrderedQueue::skip_all_to_last`].
    Skipped,
    /// It was cancelled before it started.
    Cancelled,
    /// Its job panicked with this message. What it had done until then stands.
    Panicked(String),
}

/// A request's place in the queue. Dropping it changes nothing.
pub struct Ticket<K> {
    shared: Arc<Shared<K>>,
    id: u64,
}

/// What a running job knows about its slot.
#[derive(Clone)]
pub struct Turn {
    hurries: Arc<Watched<u64>>,
    /// How many of them have cut a pause short, or came before.
    met: u64,
}

struct Shared<K> {
    runtime: Handle,
    // A std mutex and not tokio's: it is never held across an await, and game threads lock it as well.
    order: Mutex<Order<K, Box<dyn Job>>>,
    /// How often somebody was in a hurry.
    hurries: Arc<Watched<u64>>,
    emptied: Notify,
}

/// A request's job together with its waiter.
trait Job: Send {
    fn run(self: Box<Self>, turn: Turn) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    fn refuse(self: Box<Self>, reason: NotRun);
}

struct JobAndWaiter<J, D> {
    job: J,
    done: D,
}

impl<K> Request<K> {
    /// A request about one key. It always runs.
    #[must_use]
    pub fn of(key: K) -> Self {
        Self {
            keys: vec![key],
            series: None,
            skip: Skip::Never,
        }
    }

    /// A request about several keys: it waits for all of them and holds all of them up. It always runs.
    #[must_use]
    pub fn of_all(keys: impl IntoIterator<Item = K>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            series: None,
            skip: Skip::Never,
        }
    }

    /// Names the series that the request belongs to: all saves of one session, say.
    #[must_use]
    pub fn series(mut self, series: u64) -> Self {
        self.series = Some(series);
        self
    }

    /// Says what [`OrderedQueue::skip_all_to_last`] may do to it. A request about several keys always runs.
    #[must_use]
    pub fn skip(mut self, skip: Skip) -> Self {
        self.skip = skip;
        self
    }
}

impl<K: Eq + Hash + Clone + Debug + Send + 'static> OrderedQueue<K> {
    /// An empty queue, whose jobs will run on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self {
            shared: Arc::new(Shared {
                runtime,
                order: Mutex::new(Order::new()),
                hurries: Arc::new(Watched::new(0)),
                emptied: Notify::new(),
            }),
        }
    }

    /// Puts a request at the end of the queues of all its keys. Its place is fixed when this returns.
    ///
    /// `job` runs on the runtime when its turn has come. `done` then gets its result, before the next request of any of
    /// these keys starts; or it hears at once, on the thread that dropped the request, that it will not
    /// run. If the runtime is shut down first, both are dropped.
    pub fn enqueue<T, J, F, D>(&self, request: Request<K>, job: J, done: D) -> Ticket<K>
    where
        J: FnOnce(Turn) -> F + Send + 'static,
        F: Future<Output = T> + Send,
        D: FnOnce(Result<T, NotRun>) + Send + 'static,
        T: Send,
    {
        let (id, ready) = self
            .shared
            .lock()
            .push(request, Box::new(JobAndWaiter { job, done }));
        if ready {
            Shared::start(&self.shared, id);
        }
        Ticket {
            shared: Arc::clone(&self.shared),
            id,
        }
    }

    /// How many requests about this key are waiting or running.
    #[must_use]
    pub fn len(&self, key: &K) -> usize {
        self.shared.lock().len(key)
    }

    /// Whether no request at all is waiting or running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total_len() == 0
    }

    /// How many requests are waiting or running; one that names two keys counts once.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.shared.lock().total_len()
    }

    /// Waits until no request is waiting or running.
    pub async fn drained(&self) {
        loop {
            // Registered before looking, so that the last request cannot end unnoticed in between.
            let emptied = self.shared.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Drops what need not run, see [`Skip`], and cuts running backoffs short.
    ///
    /// Only requests about one key that have not started are dropped; their waiters hear [`NotRun::Skipped`] or
    /// [`NotRun::Cancelled`] before this returns. A job that is backing off makes its next attempt at once.
    pub fn skip_all_to_last(&self) {
        let dropped = self.shared.lock().skippable();
        for (id, reason) in dropped {
            Shared::refuse(&self.shared, id, reason);
        }
        self.shared.hurries.change(|hurries| {
            *hurries += 1;
            true
        });
    }

    /// Whether that was said: there is no more time.
    pub(super) fn is_hurried(&self) -> bool {
        self.shared.hurries.get() > 0
    }
}

impl<K: Eq + Hash + Clone + Debug + Send + 'static> Ticket<K> {
    /// Takes the request out of the queue if it has not started: its waiter hears [`NotRun::Cancelled`] before this
    /// returns. `false` if it has started (or ended), in which case nothing changes.
    pub fn cancel(&self) -> bool {
        Shared::refuse(&self.shared, self.id, NotRun::Cancelled)
    }
}

impl Turn {
    /// Waits for `pause`, or until somebody is in a hurry ([`OrderedQueue::skip_all_to_last`]). Each hurry cuts one pause
    /// short: the running one, or the next one if an attempt was under way.
    pub async fn backoff(&mut self, pause: Duration) {
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            hurries = self.hurries.wait_for(|hurries| hurries > self.met) => self.met = hurries,
        }
    }
}

impl<K: Eq + Hash + Clone + Debug + Send + 'static> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Order<K, Box<dyn Job>>> {
        // Nothing that can panic half-way happens under this lock, so a poisoned order is still a whole one.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(this: &Arc<Self>, id: u64) {
        let slot = Slot {
            shared: Arc::clone(this),
            id,
            ended: false,
        };
        this.runtime.spawn(slot.run());
    }

    /// Ends a request, whether it ran or not, and starts those that waited for nothing else.
    fn end(this: &Arc<Self>, id: u64) {
        let (ready, empty) = {
            let mut order = this.lock();
            (order.remove(id), order.total_len() == 0)
        };
        for id in ready {
            Self::start(this, id);
        }
        if empty {
            this.emptied.notify_waiters();
        }
    }

    /// Drops a request that has not started. `false` if it has.
    fn refuse(this: &Arc<Self>, id: u64, reason: NotRun) -> bool {
        let Some(job) = this.lock().take_job(id) else {
            return false;
        };
        job.refuse(reason);
        Self::end(this, id);
        true
    }
}

/// A request whose turn has come. Its task ends with [`Shared::end`], or it is dropped because the runtime shuts down.
struct Slot<K: Eq + Hash + Clone + Debug + Send + 'static> {
    shared: Arc<Shared<K>>,
    id: u64,
    ended: bool,
}

impl<K: Eq + Hash + Clone + Debug + Send + 'static> Slot<K> {
    async fn run(mut self) {
        // Looked at before it counts as started: whoever finds that it is too late to drop it can still hurry it.
        let turn = Turn {
            hurries: Arc::clone(&self.shared.hurries),
            met: self.shared.hurries.get(),
        };
        // It may have been dropped between its turn and now; whoever did that has ended it.
        let job = self.shared.lock().take_job(self.id);
        if let Some(job) = job {
            job.run(turn).await;
            self.ended = true;
            Shared::end(&self.shared, self.id);
        }
        self.ended = true;
    }
}

impl<K: Eq + Hash + Clone + Debug + Send + 'static> Drop for Slot<K> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The runtime is gone, and with it every chance to run. Let go of what the jobs hold, among it whatever holds
        // this queue; outside the lock, since dropping a waiter may run anybody's code.
        let forsaken = self.shared.lock().clear();
        drop(forsaken);
        self.shared.emptied.notify_waiters();
    }
}

impl<T, J, F, D> Job for JobAndWaiter<J, D>
where
    J: FnOnce(Turn) -> F + Send + 'static,
    F: Future<Output = T> + Send,
    D: FnOnce(Result<T, NotRun>) + Send + 'static,
    T: Send,
{
    fn run(self: Box<Self>, turn: Turn) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let Self { job, done } = *self;
        Box::pin(async move {
            let result = catch_panic(async move { job(turn).await }).await;
            tell(done, result.map_err(NotRun::Panicked));
        })
    }

    fn refuse(self: Box<Self>, reason: NotRun) {
        tell(self.done, Err(reason));
    }
}

/// Calls a waiter. One that panics must wedge neither its key nor the game thread that happens to drop the request.
fn tell<T>(done: impl FnOnce(T), answer: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| done(answer))) {
        error!(
            "a waiter panicked when it was told its result: {}",
            panic_message(&*panic)
        );
    }
}

/// Awaits a future; a panic inside it becomes an error with its message.
pub(super) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic_message(&*panic))),
        },
    )
    .await
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

impl<K> Clone for OrderedQueue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K> Debug for OrderedQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedQueue").finish_non_exhaustive()
    }
}

impl<K> Debug for Ticket<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("met", &self.met)
            .finish_non_exhaustive()
    }
}
