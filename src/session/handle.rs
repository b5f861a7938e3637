//! The game's end of a session: a few verbs that put requests into the player's queue.

use std::{fmt, sync::Arc};

use tracing::{Instrument, info_span};

use super::{
    SaveError, Sessions,
    commit::{Core, Snapshot},
    opening,
    queue::{NotRun, Request, Skip},
    settle::FIRST_SEQ,
    together,
};
use crate::{id::PlayerId, store::LockId};

/// The right to save one player's data. Created by a load and by nothing else; consumed by [`close`](Self::close).
///
/// Dropping it unclosed gives the lock back without saving.
///
/// Saves land in the order in which they were asked for. Each `done` is called exactly once, as described at
/// [`Sessions`].
#[must_use = "dropping it ends the session"]
pub struct Session {
    pub(super) sessions: Sessions,
    pub(super) core: Arc<Core>,
    /// Tells this session's requests from others' in the queue.
    series: u64,
    next_seq: u64,
    closed: bool,
}

/// A save that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// How many commits the player's record has seen, this one included.
    pub version: u64,
    /// Whether a document was written; `false` when the stored one is already equal to it, or when there was none to
    /// write.
    pub written: bool,
}

impl Session {
    pub(super) fn new(sessions: Sessions, core: Arc<Core>) -> Self {
        let series = sessions.next_series();
        Self {
            sessions,
            core,
            series,
            next_seq: FIRST_SEQ,
            closed: false,
        }
    }

    /// Whose session it is.
    #[must_use]
    pub fn player(&self) -> PlayerId {
        self.core.hold().player
    }

    /// The session's fence: higher than that of every session of this player before, lower than every later one's.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.core.hold().fence
    }

    /// The session's lock, by which a [wish](crate::store::Wish) of another server names it.
    #[must_use]
    pub fn lock(&self) -> LockId {
        self.core.hold().lock
    }

    /// How many saves of this session have not been answered yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.core.pending()
    }

    /// Whether nothing of this session can be saved any more: another server has taken the player over, or the store
    /// refused something that all later documents contain. Close it, so that a lock which is still ours is given back.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.core.is_over()
    }

    /// Whether it is over because somebody else has the lock.
    pub(crate) fn has_lost_its_lock(&self) -> bool {
        self.core.has_lost_its_lock()
    }

    /// Asks for a save of this snapshot. It takes its place in the player's queue at once, and is encoded when its turn
    /// comes. A document equal to the one that was last acknowledged is not written again.
    ///
    /// # Errors
    /// `done` gets a [`SaveError`]; after [`SaveError::LockLost`], [`SaveError::Unconfirmed`] and
    /// [`SaveError::Forfeited`] the session [is over](Self::is_over).
    pub fn save(
        &mut self,
        snapshot: impl Into<Snapshot>,
        done: impl FnOnce(Result<Saved, SaveError>) + Send + 'static,
    ) {
        let snapshot = snapshot.into();
        let seq = self.take_seq();
        let (core, sessions) = (Arc::clone(&self.core), self.sessions.clone());
        let span = info_span!("save", player = %self.player(), seq);
        let job = move |mut turn| {
            async move { core.save(&sessions, seq, snapshot, &mut turn).await }.instrument(span)
        };
        let request = Request::of(self.player())
            .series(self.series)
            .skip(Skip::IfFollowed);
        self.sessions.inner.queue.enqueue(request, job, self.waiter(done));
    }

    /// Asks for one commit of two sessions' snapshots, so that what was moved from one to the other is in both documents
    /// or in neither. It takes its place in both players' queues at once, and later saves of either, a close
    /// included, wait until it has landed or was refused.
    ///
    /// `trouble` is called, at most once, if the store can't be reached in all the attempts that a save has; the request
    /// goes on. `done` is called once.
    ///
    /// # Errors
    /// `done` gets a [`SaveError`] for each when the commit was refused; then both sessions [are over](Self::is_over).
    pub fn save_together(
        sides: [(&mut Self, Snapshot); 2],
        trouble: impl FnOnce(SaveError) + Send + 'static,
        done: impl FnOnce(Result<[Saved; 2], [SaveError; 2]>) + Send + 'static,
    ) {
        together::save_together(sides, trouble, done);
    }

    /// Ends the session: saves the snapshot, if there is one, and gives the lock back, both in one transaction. It is
    /// retried until it landed or the lock was found lost.
    ///
    /// # Errors
    /// `done` gets a [`SaveError`]. After [`SaveError::Rejected`] and [`SaveError::Forfeited`] the lock has been given
    /// back all the same.
    pub fn close(
        mut self,
        snapshot: Option<Snapshot>,
        done: impl FnOnce(Result<Saved, SaveError>) + Send + 'static,
    ) {
        self.end(snapshot, done);
    }

    fn end(
        &mut self,
        snapshot: Option<Snapshot>,
        done: impl FnOnce(Result<Saved, SaveError>) + Send + 'static,
    ) {
        self.closed = true;
        let (player, seq) = (self.player(), self.take_seq());
        let (core, sessions) = (Arc::clone(&self.core), self.sessions.clone());
        let span = info_span!("close", %player, seq);
        let job = move |mut turn| {
            async move { core.close(&sessions, seq, snapshot, &mut turn).await }.instrument(span)
        };
        let request = Request::of(player).series(self.series).skip(Skip::Never);
        self.sessions.inner.queue.enqueue(request, job, self.waiter(done));
        // In this order: a load that finds the player without a session must find the close ahead of it in the queue.
        let waiting = self.sessions.inner.registry.unseat(player, self.core.hold().lock);
        for load in waiting {
            opening::enqueue(&self.sessions, &load);
        }
    }

    pub(super) fn take_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Flattens what the queue says and what the store says into one answer.
    fn waiter(
        &self,
        done: impl FnOnce(Result<Saved, SaveError>) + Send + 'static,
    ) -> impl FnOnce(Result<Result<Saved, SaveError>, NotRun>) + Send + 'static {
        let core = Arc::clone(&self.core);
        core.asked();
        move |answer| {
            core.answered();
            let player = core.hold().player;
            // The lock is no longer in use when the last holder of the core is gone: before anybody reacts.
            drop(core);
            done(answer.unwrap_or_else(|reason| Err(SaveError::not_run(player, reason))));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.closed {
            self.end(None, |_| {});
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("player", &self.player())
            .field("fence", &self.fence())
            .field("pending", &self.pending())
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}
