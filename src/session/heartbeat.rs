//! Our own lease: when to refresh it, and what to say while that doesn't work.
//!
//! [`Heartbeat`] owns the state of this boot's lease. It promises one call to the store at a time, each started by a
//! tick of the game loop, and to go on trying for as long as the store is down. Whose lease has lapsed is
//! [`LeaseWatch`]'s business; locks left by late acquires are looked after by [`settle`](super::settle) at each beat.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tracing::{debug, error, info, warn};

use super::{SessionSettings, Sessions, lease::LeaseWatch, settle};
use crate::{
    store::{LapsedLease, Lease, Leases, ServerId, StoreError},
    watched::Watched,
};

/// How often a server that holds no lease yet asks for it, if its beat is not faster than that anyway.
const EAGER_BEAT: Duration = Duration::from_millis(500);

/// How our lease is doing, see [`Sessions::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Whether we may hold locks.
    pub state: LeaseState,
    /// How long ago the lease was last refreshed; `None` before it was for the first time.
    pub since_refresh: Option<Duration>,
}

/// Whether a server may hold locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseState {
    /// The store has not answered yet. Loads wait.
    Starting,
    /// Another boot of the same name is running: a predecessor, most likely, that is still flushing. Loads wait.
    WaitingForName,
    /// The lease was granted. (Whether it is fresh is [`LeaseStatus::since_refresh`]'s matter.)
    Held,
    /// Another running server has our name. This is final: no load will ever succeed.
    Refused,
    /// The lease was given back: the server is shut down.
    Retired,
}

pub(super) struct Heartbeat {
    lease: Lease,
    beat: Duration,
    ttl: Duration,
    state: Mutex<State>,
    phase: Watched<LeaseState>,
    /// Held during a call to the store, so that retiring cannot be overtaken by a beat that was already under way.
    calling: AsyncMutex<()>,
}

struct State {
    due: Option<Instant>,
    in_flight: bool,
    /// When the last refresh that succeeded was asked for.
    refreshed: Option<Instant>,
    /// What our beat was by then.
    own_beat: u64,
    /// How many beats were asked for since then and not answered well. Each may have raised ours by one.
    unanswered: u64,
    /// Since when the lease could have been refreshed: the first tick.
    started: Option<Instant>,
    /// Since when our name is taken, as far as that could be seen without a gap.
    name_taken_since: Option<Instant>,
    warned: bool,
    trouble: String,
    watch: LeaseWatch,
}

impl State {
    /// What was seen to stand still before may have moved meanwhile.
    fn could_not_look(&mut self) {
        self.watch.failed();
        self.name_taken_since = None;
    }
}

impl Heartbeat {
    pub(super) fn new(server: ServerId, settings: &SessionSettings) -> Self {
        Self {
            lease: Lease {
                server,
                name: settings.name.clone(),
                lapsed: Vec::new(),
            },
            beat: settings.beat,
            ttl: settings.lease_ttl,
            state: Mutex::new(State {
                due: None,
                in_flight: false,
                refreshed: None,
                own_beat: 0,
                unanswered: 0,
                started: None,
                name_taken_since: None,
                warned: false,
                trouble: "the store has not answered yet".to_owned(),
                watch: LeaseWatch::new(settings.lease_ttl),
            }),
            phase: Watched::new(LeaseState::Starting),
            calling: AsyncMutex::new(()),
        }
    }

    pub(super) fn status(&self) -> LeaseStatus {
        let state = self.lock();
        LeaseStatus {
            state: self.phase(),
            since_refresh: state.refreshed.map(|refreshed| refreshed.elapsed()),
        }
    }

    pub(super) fn phase(&self) -> LeaseState {
        self.phase.get()
    }

    /// Waits until it is decided whether we may hold locks.
    pub(super) async fn decided(&self) -> LeaseState {
        let undecided = |phase| matches!(phase, LeaseState::Starting | LeaseState::WaitingForName);
        self.phase.wait_for(|phase| !undecided(phase)).await
    }

    /// What went wrong at the last beat that failed.
    pub(super) fn trouble(&self) -> String {
        self.lock().trouble.clone()
    }

    pub(super) fn lapsed(&self) -> Vec<LapsedLease> {
        self.lock().watch.lapsed()
    }

    /// Servers to which nobody should be given up, see [`LeaseWatch::silent`].
    pub(super) fn silent(&self) -> Vec<ServerId> {
        self.lock().watch.silent()
    }

    /// What our beat was when the lease was last refreshed.
    pub(super) fn own_beat(&self) -> u64 {
        self.lock().own_beat
    }

    /// Until which beat of ours an attempt that is sent now may lock a player: two beats are time enough for a slow
    /// store, and then nothing can come of it any more.
    pub(super) fn until_beat(&self) -> u64 {
        let state = self.lock();
        state.own_beat.saturating_add(state.unanswered).saturating_add(2)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a beat is to be started now; if so, it counts as started.
    fn begin(&self, now: Instant) -> bool {
        let phase = self.phase();
        if matches!(phase, LeaseState::Refused | LeaseState::Retired) {
            return false;
        }
        let mut state = self.lock();
        let last = *state.started.get_or_insert(now);
        let stale = now.saturating_duration_since(state.refreshed.unwrap_or(last));
        if stale > self.ttl / 2 && !state.warned && phase != LeaseState::WaitingForName {
            state.warned = true;
            warn!(
                "the lease of server `{}` was not refreshed for {stale:.1?}; after {:?} other servers may take its \
                 players over: {}",
                self.lease.name, self.ttl, state.trouble
            );
        }
        if state.in_flight || state.due.is_some_and(|due| now < due) {
            return false;
        }
        let pause = if phase == LeaseState::Held {
            self.beat
        } else {
            self.beat.min(EAGER_BEAT)
        };
        state.due = Some(now + pause);
        state.in_flight = true;
        true
    }

    fn end(&self, asked: Instant, answer: Result<Leases, StoreError>) {
        let mut state = self.lock();
        state.in_flight = false;
        match answer {
            Ok(leases) => {
                state.watch.read(asked, Instant::now(), &leases);
                state.name_taken_since = None;
                if std::mem::take(&mut state.warned) {
                    info!("the lease of server `{}` is refreshed again", self.lease.name);
                }
                state.refreshed = Some(asked);
                let own = leases
                    .servers
                    .iter()
                    .find(|lease| lease.server == self.lease.server);
                state.own_beat = own.map_or(state.own_beat, |own| own.beat);
                state.unanswered = 0;
                self.enter(LeaseState::Held);
            }
            Err(error) => {
                debug!(
                    "the lease of server `{}` could not be refreshed: {error}",
                    self.lease.name
                );
                state.trouble = error.to_string();
                state.unanswered += 1;
                if matches!(error, StoreError::NameTaken { .. }) {
                    self.name_taken(&mut state, asked);
                } else {
                    state.could_not_look();
                }
            }
        }
    }

    /// Looks at the lease of the other boot of our name: once it has lapsed that boot is dead, which not every store
    /// can find out by itself.
    fn observe_namesake(&self, asked: Instant, leases: Result<Leases, StoreError>) {
        let mut state = self.lock();
        match leases {
            Ok(leases) => {
                if !state.watch.read(asked, Instant::now(), &leases) {
                    state.name_taken_since = None;
                }
            }
            Err(_) => state.could_not_look(),
        }
    }

    /// A predecessor beats while it flushes, as a second server of our name does. Only that it comes to an end tells
    /// them apart: within less than a TTL, or its own lease would lapse; and if it crashes then, that takes a TTL more,
    /// and the beat after it.
    fn name_taken(&self, state: &mut State, now: Instant) {
        let timeout = self.ttl.saturating_mul(2).saturating_add(self.beat);
        let since = *state.name_taken_since.get_or_insert(now);
        if now.saturating_duration_since(since) < timeout {
            if self.enter(LeaseState::WaitingForName) {
                warn!(
                    "another running server is named `{}`: it has {timeout:?} to end, in case that it is this one's \
                     predecessor; if it isn't, give this one a name of its own",
                    self.lease.name
                );
            }
        } else if self.enter(LeaseState::Refused) {
            error!(
                "{}",
                StoreError::NameTaken {
                    name: self.lease.name.clone()
                }
            );
        }
    }

    /// Changes the state, unless it is retired, which is final. `true` if it is a change.
    fn enter(&self, next: LeaseState) -> bool {
        self.phase.change(|phase| {
            let changes = *phase != next && *phase != LeaseState::Retired;
            if changes {
                *phase = next;
            }
            changes
        })
    }
}

/// Starts a beat when one is due.
pub(super) fn tick(sessions: &Sessions) {
    let inner = &sessions.inner;
    // The clock is the runtime's, wherever this is called from.
    let _context = inner.runtime.enter();
    if inner.heartbeat.begin(Instant::now()) {
        let sessions = sessions.clone();
        inner.runtime.spawn(async move { beat(&sessions).await });
    }
}

async fn beat(sessions: &Sessions) {
    let inner = &sessions.inner;
    let heartbeat = &inner.heartbeat;
    let asked = Instant::now();
    let answer = {
        let _calling = heartbeat.calling.lock().await;
        if heartbeat.phase() == LeaseState::Retired {
            return;
        }
        let lease = Lease {
            lapsed: heartbeat.lapsed(),
            ..heartbeat.lease.clone()
        };
        let call = async { inner.store.lease(lease).await };
        inner.settings.retry.careful_attempt(call).await
    };
    if matches!(answer, Err(StoreError::NameTaken { .. })) {
        let looked = Instant::now();
        let call = async { inner.store.leases().await };
        let leases = inner.settings.retry.careful_attempt(call).await;
        heartbeat.observe_namesake(looked, leases);
    }
    let reached = answer.is_ok();
    heartbeat.end(asked, answer);
    if reached {
        settle::look_for_late_locks(sessions).await;
    }
}

/// Gives the lease back. No beat follows.
pub(super) async fn retire(sessions: &Sessions) -> Result<(), StoreError> {
    let inner = &sessions.inner;
    let heartbeat = &inner.heartbeat;
    heartbeat.enter(LeaseState::Retired);
    let _calling = heartbeat.calling.lock().await;
    inner
        .settings
        .retry
        .attempt(inner.store.retire(inner.server))
        .await
}
