//! A load, from its request to its session or its error.
//!
//! The module owns [`Opening`], the game's end of a load, and [`Load`], the shared one. It promises that the game is
//! answered exactly once and in time, whatever the slot is still busy with, and that a load which ends without a session
//! has given back every lock that it got or may have got ([`settle`](super::settle)).

mod slot;

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};
use tracing::{Instrument, info_span};

use super::{
    Inner, OpenError, Session, Sessions,
    heartbeat::LeaseState,
    queue::{Request, Skip, Ticket},
};
use crate::{document::Document, id::PlayerId, watched::Watched};

/// A player's session and what was stored of them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The right to save the player. Dropping it gives it back.
    pub session: Session,
    /// What is stored; empty when nothing was ever saved.
    pub document: Document,
    /// Whether no document of this player was ever saved.
    pub first_join: bool,
    /// The name of the server that the lock was taken over from, if it was not free: that server crashed, or its lease
    /// lapsed, and what it had not committed is lost.
    pub taken_from: Option<String>,
    /// The session's fence: higher than that of every session before.
    pub fence: u64,
    /// How many commits the player's record has seen.
    pub version: u64,
}

/// A load under way, see [`Sessions::open`]. Dropping it cancels the load, unless it has been answered.
#[must_use = "dropping it cancels the load"]
#[derive(Debug)]
pub struct Opening {
    load: Arc<Load>,
}

impl Opening {
    /// Whose load it is.
    #[must_use]
    pub fn player(&self) -> PlayerId {
        self.load.player
    }

    /// Cancels the load, unless it has been answered: `done` hears [`OpenError::Cancelled`] before this returns.
    /// A lock that it already got is given back before anything else happens to this player.
    pub fn cancel(self) {
        drop(self);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.load.abandon(OpenError::Cancelled {
            player: self.load.player,
        });
    }
}

/// Why a load takes long, see [`Sessions::open_telling`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delay {
    /// What stands in the way: with what the load fails if nothing changes.
    pub reason: OpenError,
    /// How much longer it is tried.
    pub gives_up_in: Duration,
}

/// How long a load may wait for its turn, or for this server's first lease, before somebody is told.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) type Delayed = Box<dyn Fn(Delay) + Send + Sync>;
pub(super) type Done = Box<dyn FnOnce(Result<Opened, OpenError>) + Send>;

/// What the game, the timer and the slot share about a load.
pub(super) struct Load {
    /// Not the sessions themselves, which hold the loads.
    inner: Weak<Inner>,
    player: PlayerId,
    number: u64,
    /// When it is given up.
    deadline: Instant,
    delayed: Delayed,
    state: Mutex<LoadState>,
    abandoned: Watched<bool>,
}

struct LoadState {
    /// Taken by whoever answers.
    done: Option<Done>,
    ticket: Option<Ticket<PlayerId>>,
    timer: Option<AbortHandle>,
    /// What to say when the time is up.
    trouble: OpenError,
    /// Whether that was said as the reason for a delay.
    is_told: bool,
}

pub(super) fn open(sessions: &Sessions, player: PlayerId, delayed: Delayed, done: Done) -> Opening {
    let trouble = OpenError::Unavailable {
        player,
        message: "what was asked for about this player before has not come to its end yet".to_owned(),
    };
    let now = {
        let _context = sessions.inner.runtime.enter();
        Instant::now()
    };
    let load = Arc::new(Load {
        inner: Arc::downgrade(&sessions.inner),
        player,
        number: sessions.next_series(),
        deadline: now + sessions.settings().load_timeout,
        delayed,
        state: Mutex::new(LoadState {
            done: Some(done),
            ticket: None,
            timer: None,
            trouble,
            is_told: false,
        }),
        abandoned: Watched::new(false),
    });
    if sessions.inner.registry.admit(&load) {
        load.start_timer(sessions);
        if !load.park(sessions) {
            enqueue(sessions, &load);
        }
    } else {
        load.abandon(OpenError::Cancelled { player });
    }
    Opening { load }
}

/// Gives a load its place in the player's queue.
pub(super) fn enqueue(sessions: &Sessions, load: &Arc<Load>) {
    let span = info_span!("load", player = %load.player);
    let (slot, here) = (Arc::clone(load), sessions.clone());
    let job = move |mut turn| async move { slot::run(&here, &slot, &mut turn).await }.instrument(span);
    let waiter = Arc::clone(load);
    let done = move |ran: Result<(), _>| {
        if let Err(reason) = ran {
            waiter.abandon(OpenError::not_run(waiter.player, reason));
        }
    };
    let ticket = sessions
        .inner
        .queue
        .enqueue(Request::of(load.player).skip(Skip::Always), job, done);
    load.keep_ticket(ticket);
}

impl Load {
    pub(super) fn player(&self) -> PlayerId {
        self.player
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn state(&self) -> MutexGuard<'_, LoadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the game, unless that has been done, and stops whatever of the load has not started. What has started
    /// notices, and settles.
    pub(super) fn abandon(&self, error: OpenError) {
        let Some(done) = self.take_done() else { return };
        self.abandoned.change(|abandoned| !mem::replace(abandoned, true));
        let ticket = self.state().ticket.take();
        if let Some(ticket) = ticket {
            ticket.cancel();
        }
        done(Err(error));
    }

    /// The right, and the duty, to answer.
    fn take_done(&self) -> Option<Done> {
        let (done, timer) = {
            let mut state = self.state();
            (state.done.take()?, state.timer.take())
        };
        if let Some(timer) = timer {
            timer.abort();
        }
        if let Some(inner) = self.inner.upgrade() {
            inner.registry.forget(self);
        }
        Some(done)
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    async fn until_abandoned(&self) {
        self.abandoned.wait_for(|abandoned| abandoned).await;
    }

    /// Sets what to say when the time is up.
    fn trouble(&self, trouble: OpenError) {
        let mut state = self.state();
        state.is_told &= state.trouble == trouble;
        state.trouble = trouble;
    }

    /// Sets what to say when the time is up, and says so now.
    fn is_delayed_by(&self, trouble: OpenError) {
        self.trouble(trouble);
        self.tell_trouble();
    }

    /// Says what is in the way, unless that was said.
    fn tell_trouble(&self) {
        let news = {
            let mut state = self.state();
            let is_news = state.done.is_some() && !mem::replace(&mut state.is_told, true);
            is_news.then(|| state.trouble.clone())
        };
        if let Some(trouble) = news {
            let reason = self.explain(trouble);
            let gives_up_in = self.deadline.saturating_duration_since(Instant::now());
            (self.delayed)(Delay { reason, gives_up_in });
        }
    }

    /// Says what is behind a trouble that is not the player's own.
    fn explain(&self, mut trouble: OpenError) -> OpenError {
        if let (OpenError::Unavailable { message, .. }, Some(inner)) = (&mut trouble, self.inner.upgrade())
            && matches!(
                inner.heartbeat.phase(),
                LeaseState::Starting | LeaseState::WaitingForName
            )
        {
            *message = inner.heartbeat.trouble();
        }
        trouble
    }

    /// Waits outside the queue if the game holds a session of the player.
    fn park(self: &Arc<Self>, sessions: &Sessions) -> bool {
        let parked = sessions.inner.registry.park(self);
        if parked {
            let server = sessions.settings().name.clone();
            let _context = sessions.inner.runtime.enter();
            self.is_delayed_by(OpenError::SessionLocked {
                player: self.player,
                server,
            });
        }
        parked
    }

    fn keep_ticket(&self, ticket: Ticket<PlayerId>) {
        let mut state = self.state();
        if state.done.is_some() {
            state.ticket = Some(ticket);
            return;
        }
        drop(state);
        // Answered while it was being enqueued.
        ticket.cancel();
    }

    fn start_timer(self: &Arc<Self>, sessions: &Sessions) {
        let load = Arc::clone(self);
        let patience = PATIENCE.min(sessions.settings().load_timeout / 2);
        let timer = sessions.inner.runtime.spawn(async move {
            sleep(patience).await;
            load.tell_trouble();
            sleep_until(load.deadline).await;
            let trouble = load.state().trouble.clone();
            load.abandon(load.explain(trouble));
        });
        let mut state = self.state();
        if state.done.is_some() {
            state.timer = Some(timer.abort_handle());
        }
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("player", &self.player)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
