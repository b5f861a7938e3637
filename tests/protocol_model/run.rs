//! How a model is run: what is counted, what is printed, and how a violation is told.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use stateright::{Checker, HasDiscoveries, Model};

macro_rules! events {
    ($($event:ident: $label:literal,)*) => {
        /// What is counted, over all transitions that were explored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($event),* }

        impl Event {
            pub const ALL: &[Self] = &[$(Self::$event),*];

            pub const fn label(self) -> &'static str {
                match self { $(Self::$event => $label),* }
            }
        }
    };
}
events! {
    Load: "loads begun",
    FailedLoad: "loads given up",
    Opened: "sessions opened",
    Granted: "locks granted",
    GrantedAgain: "granted again to a repeated attempt",
    TakenOver: "taken over from a lapsed lease",
    Locked: "refused, locked",
    NoLease: "refused, no lease",
    Award: "awards",
    Save: "saves",
    Close: "closes",
    Trade: "trades",
    Accepted: "writes accepted",
    JointCommit: "joint commits landed",
    LandedBefore: "writes that had landed before",
    Settled: "receipts settled",
    SettledAgain: "receipts settled again by their session",
    LockLost: "refused, lock lost",
    Superseded: "refused, superseded",
    NotSettled: "refused, not settled",
    Acknowledged: "writes acknowledged",
    FoundLanded: "trades found landed after their lock was lost",
    SessionLost: "sessions ended by a lost lock",
    Forfeited: "sessions ended at their last commit",
    Retry: "attempts repeated",
    AnswerLost: "answers lost",
    GiveUp: "saves given up with an unknown outcome",
    Lost: "requests lost",
    Doubled: "requests doubled",
    Crash: "crashes",
    Restart: "restarts",
    PowerCut: "power cuts",
    Tick: "units of time",
    Beat: "beats",
    FailedBeat: "beats, answers and looks that failed",
    Pause: "pauses",
    Resume: "resumes",
    TooLate: "refused, too late or no lease",
    Orphan: "orphans taken over by their own server",
    LateLock: "late locks found and given back",
    GivenBack: "abandoned locks given back",
}

/// Counts events. Clones share their counts.
#[derive(Clone)]
pub struct Tally {
    /// `None` counts nothing.
    counts: Option<Arc<[AtomicU64]>>,
}

impl Default for Tally {
    fn default() -> Self {
        let counts = Event::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self { counts: Some(counts) }
    }
}

impl Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tally")
    }
}

impl Tally {
    pub const fn silent() -> Self {
        Self { counts: None }
    }

    pub fn count(&self, event: Event) {
        if let Some(counts) = &self.counts {
            counts[event as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prints the counts and asserts that each of `expected` took place.
    pub fn tell(&self, expected: &[Event]) {
        for &event in Event::ALL {
            if self.of(event) > 0 {
                println!("  {:>12}  {}", self.of(event), event.label());
            }
        }
        for &event in expected {
            assert!(
                self.of(event) > 0,
                "none in the whole exploration: {}",
                event.label()
            );
        }
    }

    fn of(&self, event: Event) -> u64 {
        let counts = self.counts.as_ref();
        counts.map_or(0, |counts| counts[event as usize].load(Ordering::Relaxed))
    }
}

/// Explores every state, and asserts that every property holds in all of them.
pub fn holds<M>(name: &str, model: M, symmetry: fn(&M::State) -> M::State)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = model
        .checker()
        .threads(threads.min(4))
        .symmetry_fn(symmetry)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    println!(
        "{name}: {} states, {} transitions, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    let found = checker.discoveries();
    if !found.is_empty() {
        for (property, path) in found {
            tell(property, path.into_actions());
        }
        let scope = std::env::var("PROTOCOL_MODEL_SCOPE").unwrap_or_else(|_| "small".to_owned());
        panic!(
            "{name}: a property does not hold, see above; to see it again: \
             PROTOCOL_MODEL_SCOPE={scope} cargo test --profile model --test protocol_model no_ -- --nocapture"
        );
    }
}

/// Explores, the nearest states first, until `property` is found not to hold; fails if it holds everywhere.
pub fn is_found_out<M>(mechanism: impl Debug, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyOf([property].into()))
        .spawn_bfs()
        .join();
    let Some(path) = checker.discoveries().remove(property) else {
        panic!("nobody noticed that {mechanism:?} was missing: {property}");
    };
    println!("without {mechanism:?}: {} states", checker.unique_state_count());
    tell(property, path.into_actions());
}

fn tell<A: Debug>(property: &str, actions: Vec<A>) {
    println!("  violated: {property}");
    for (number, action) in actions.iter().enumerate() {
        println!("    {:>2}. {action:?}", number + 1);
    }
}
