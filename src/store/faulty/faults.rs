//! When and how a faulty store fails: modes, scripts and chances, and what came of them.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::chance::SplitMix64;

/// The kinds of request that a [`Store`](crate::store::Store) serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Store::lease`](crate::store::Store::lease)
    Lease,
    /// [`Store::leases`](crate::store::Store::leases)
    Leases,
    /// [`Store::retire`](crate::store::Store::retire)
    Retire,
    /// [`Store::acquire`](crate::store::Store::acquire)
    Acquire,
    /// [`Store::commit`](crate::store::Store::commit)
    Commit,
    /// [`Store::peek`](crate::store::Store::peek)
    Peek,
    /// [`Store::list`](crate::store::Store::list)
    List,
    /// [`Store::erase`](crate::store::Store::erase)
    Erase,
    /// [`Store::enqueue`](crate::store::Store::enqueue)
    Enqueue,
    /// [`Store::receipt`](crate::store::Store::receipt), [`Store::open_receipts`](crate::store::Store::open_receipts)
    /// and [`Store::receipts_of`](crate::store::Store::receipts_of)
    Receipts,
    /// [`Store::arrivals`](crate::store::Store::arrivals)
    Arrivals,
    /// [`Store::wish`](crate::store::Store::wish)
    Wish,
    /// [`Store::withdraw`](crate::store::Store::withdraw)
    Withdraw,
    /// [`Store::wishes`](crate::store::Store::wishes)
    Wishes,
}

/// What can happen to a request. Whoever asked gets [`StoreError::Unavailable`](crate::store::StoreError::Unavailable),
/// sooner or later, and cannot tell which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never reaches the store.
    Before,
    /// It takes effect, but the reply is lost.
    After,
    /// The caller hears of an error at once; the request takes effect this much later.
    Late(Duration),
    /// Nothing happens until [`Faults::resume`], then the request is served as if nothing had been. It takes effect even
    /// if its caller has given up in the meantime.
    Hang,
}

/// How often requests of all kinds fail at random, and how long they take.
///
/// ```
/// # use std::time::Duration;
/// # use bevy_player_data::store::{FaultRates, FaultyStore, MemoryStore};
/// # let store = FaultyStore::new(MemoryStore::default(), 42);
/// let latency = Duration::from_millis(5)..=Duration::from_millis(50);
/// store.faults().set_rates(FaultRates { before: 0.05, after: 0.05, latency, ..FaultRates::default() });
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRates {
    /// The share of requests, from 0 to 1, that meet [`Fault::Before`].
    pub before: f64,
    /// The share that meets [`Fault::After`].
    pub after: f64,
    /// The share that meets [`Fault::Late`].
    pub late: f64,
    /// How late those are.
    pub late_by: RangeInclusive<Duration>,
    /// How long each request takes before anything else happens to it. A request whose future is dropped meanwhile
    /// never reaches the store.
    pub latency: RangeInclusive<Duration>,
}

impl Default for FaultRates {
    /// No faults and no latency; what is late is so by 1 to 5 seconds.
    fn default() -> Self {
        Self {
            before: 0.0,
            after: 0.0,
            late: 0.0,
            late_by: Duration::from_secs(1)..=Duration::from_secs(5),
            latency: Duration::ZERO..=Duration::ZERO,
        }
    }
}

/// Says when and how a [`FaultyStore`](super::FaultyStore) fails. A clone is another handle to the same.
///
/// What was asked for with [`fail_next`](Self::fail_next) comes first, then [`hang`](Self::hang), then
/// [`down`](Self::down), then chance. What chance has in store for the *n*-th request of a kind depends on the seed, the
/// kind and *n* alone, not on how requests of several kinds interleave.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    state: Mutex<State>,
    hanging: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    hang: bool,
    rates: FaultRates,
    scripts: HashMap<Op, VecDeque<(usize, Fault)>>,
    counts: HashMap<Op, Counts>,
    /// The requests that hang, in their order.
    hanging: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u64,
    injected: u64,
}

/// What will happen to one request.
pub(super) struct Plan {
    pub(super) latency: Duration,
    pub(super) fault: Option<Fault>,
}

/// Counts something for as long as it goes on.
pub(super) struct UnderWay(Arc<AtomicUsize>);

/// A request that hangs.
pub(super) struct Hanging {
    resumed: oneshot::Receiver<()>,
    _count: UnderWay,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                seed,
                state: Mutex::default(),
                hanging: Arc::default(),
                late: Arc::default(),
            }),
        }
    }

    /// From now on no request reaches the store: each meets [`Fault::Before`].
    pub fn down(&self) {
        self.state().down = true;
    }

    /// Ends [`down`](Self::down).
    pub fn up(&self) {
        self.state().down = false;
    }

    /// From now on each request meets [`Fault::Hang`].
    pub fn hang(&self) {
        self.state().hang = true;
    }

    /// Ends [`hang`](Self::hang) and lets every request that hangs go on.
    pub fn resume(&self) {
        let hanging = {
            let mut state = self.state();
            state.hang = false;
            std::mem::take(&mut state.hanging)
        };
        for request in hanging {
            // The runtime that it was made on may be gone.
            let _ = request.send(());
        }
    }

    /// How often requests fail at random from now on, and how long they take.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// The next `times` requests of this kind meet `fault`; what was asked for earlier comes first.
    pub fn fail_next(&self, op: Op, times: usize, fault: Fault) {
        if times > 0 {
            self.state()
                .scripts
                .entry(op)
                .or_default()
                .push_back((times, fault));
        }
    }

    /// No faults any more: [`up`](Self::up), [`resume`](Self::resume), no rates, nothing left of
    /// [`fail_next`](Self::fail_next). The counters go on.
    pub fn clear(&self) {
        let mut state = self.state();
        let before = std::mem::take(&mut *state);
        *state = State {
            counts: before.counts,
            hanging: before.hanging,
            ..State::default()
        };
        drop(state);
        self.resume();
    }

    /// How many requests of this kind there were.
    #[must_use]
    pub fn calls(&self, op: Op) -> u64 {
        self.state().counts.get(&op).copied().unwrap_or_default().calls
    }

    /// How many of them met a fault.
    #[must_use]
    pub fn injected(&self, op: Op) -> u64 {
        self.state().counts.get(&op).copied().unwrap_or_default().injected
    }

    /// How many requests hang at the moment.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.shared.hanging.load(Ordering::SeqCst)
    }

    /// How many requests have been answered with an error and will yet take effect.
    #[must_use]
    pub fn late(&self) -> usize {
        self.shared.late.load(Ordering::SeqCst)
    }

    /// Counts a request and decides what happens to it.
    pub(super) fn plan(&self, op: Op) -> Plan {
        let mut state = self.state();
        let counts = state.counts.entry(op).or_default();
        counts.calls += 1;
        let mut dice = Dice::new(self.shared.seed, op, counts.calls);

        // Thrown each time, so that a mode or a script doesn't change what later requests meet.
        let latency = dice.between(&state.rates.latency);
        let by_chance = state.rates.throw(&mut dice);
        let fault = state.next_in_script(op).or_else(|| state.mode()).or(by_chance);
        if fault.is_some() {
            state.counts.entry(op).or_default().injected += 1;
        }
        Plan { latency, fault }
    }

    pub(super) fn late_begins(&self) -> UnderWay {
        UnderWay::new(&self.shared.late)
    }

    pub(super) fn hang_begins(&self) -> Hanging {
        let (resume, resumed) = oneshot::channel();
        let mut state = self.state();
        state.hanging.retain(|request| !request.is_closed());
        state.hanging.push(resume);
        drop(state);
        Hanging {
            resumed,
            _count: UnderWay::new(&self.shared.hanging),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("seed", &self.shared.seed)
            .field("state", &*self.state())
            .finish()
    }
}

impl State {
    fn next_in_script(&mut self, op: Op) -> Option<Fault> {
        let script = self.scripts.get_mut(&op)?;
        let (times, fault) = script.front_mut()?;
        let fault = *fault;
        *times -= 1;
        if *times == 0 {
            script.pop_front();
        }
        Some(fault)
    }

    fn mode(&self) -> Option<Fault> {
        match (self.hang, self.down) {
            (true, _) => Some(Fault::Hang),
            (false, true) => Some(Fault::Before),
            (false, false) => None,
        }
    }
}

impl FaultRates {
    fn throw(&self, dice: &mut Dice) -> Option<Fault> {
        let (chance, delay) = (dice.fraction(), dice.between(&self.late_by));
        if chance < self.before {
            Some(Fault::Before)
        } else if chance < self.before + self.after {
            Some(Fault::After)
        } else if chance < self.before + self.after + self.late {
            Some(Fault::Late(delay))
        } else {
            None
        }
    }
}

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hanging {
    /// Returns after the next [`Faults::resume`], or when nobody is left who could call it.
    pub(super) async fn wait(self) {
        let _ = self.resumed.await;
    }
}

/// What chance has in store for one request.
struct Dice(SplitMix64);

impl Dice {
    fn new(seed: u64, op: Op, call: u64) -> Self {
        // Each part is mixed in by a throw, so that neighbouring calls have nothing in common.
        let mixed = SplitMix64(seed).next() ^ op as u64;
        Self(SplitMix64(SplitMix64(mixed).next() ^ call))
    }

    /// From 0 to just below 1.
    fn fraction(&mut self) -> f64 {
        // The upper 53 bits are what an `f64` can tell apart.
        (self.0.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let width = range.end().saturating_sub(*range.start());
        *range.start() + width.mul_f64(self.fraction())
    }
}
