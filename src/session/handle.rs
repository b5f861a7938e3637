//! The game's end of a session: a few verbs that put requests into the player's queue.

use std::{fmt, sync::Arc};

use tracing::{Instrument, info_span};

use super::{
    SaveError, Sessions,
    commit::Core,
    opening,
    queue::{NotRun, Request, Skip},
    settle::FIRST_SEQ,
};
use crate::{document::Document, id::PlayerId};

/// The right to save one player's data. Created by a load and by nothing else; consumed by [`close`](Self::close).
///
/// Dropping it unclosed gives the lock back without saving.
///
/// Saves land in the order in which they were asked for. Each `done` is called exactly once, as described at
/// [`Sessions`].
#[must_use = "dropping it ends the session"]
pub struct Session {
    sessions: Sessions,
    core: Arc<Core>,
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

    /// How many saves of this session have not been answered yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.core.pending()
    }

    /// Whether another server has taken the player over, so that nothing of this session can be saved any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.core.is_lost()
    }

    /// Asks for a save of this document. It takes its place in the player's queue at once, and is encoded when its turn
    /// comes. A document equal to the one that was last acknowledged is not written again.
    ///
    /// # Errors
    /// `done` gets a [`SaveError`]; after [`SaveError::LockLost`] the session is [lost](Self::is_lost).
    pub fn save(&mut self, document: Document, done: impl FnOnce(Result<Saved, SaveError>) + Send + 'static) {
        let seq = self.take_seq();
        let (core, sessions) = (Arc::clone(&self.core), self.sessions.clone());
        let span = info_span!("save", player = %self.player(), seq);
        let job = move |mut turn| {
            async move { core.save(&sessions, seq, document, &mut turn).await }.instrument(span)
        };
        let request = Request::of(self.player())
            .series(self.series)
            .skip(Skip::IfFollowed);
        self.sessions.inner.queue.enqueue(request, job, self.waiter(done));
    }

    /// Ends the session: saves the document, if there is one, and gives the lock back, both in one transaction. It is
    /// retried until it landed or the lock was found lost.
    ///
    /// # Errors
    /// `done` gets a [`SaveError`]. After [`SaveError::Rejected`] the lock has been given back all the same.
    pub fn close(
        mut self,
        document: Option<Document>,
        done: impl FnOnce(Result<Saved, SaveError>) + Send + 'static,
    ) {
        self.end(document, done);
    }

    fn end(
        &mut self,
        document: Option<Document>,
        done: impl FnOnce(Result<Saved, SaveError>) + Send + 'static,
    ) {
        self.closed = true;
        let (player, seq) = (self.player(), self.take_seq());
        let (core, sessions) = (Arc::clone(&self.core), self.sessions.clone());
        let span = info_span!("close", %player, seq);
        let job = move |mut turn| {
            async move { core.close(&sessions, seq, document, &mut turn).await }.instrument(span)
        };
        let request = Request::of(player).series(self.series).skip(Skip::Never);
        self.sessions.inner.queue.enqueue(request, job, self.waiter(done));
        // In this order: a load that finds the player without a session must find the close ahead of it in the queue.
        let waiting = self.sessions.inner.registry.unseat(player, self.core.hold().lock);
        for load in waiting {
            opening::enqueue(&self.sessions, &load);
        }
    }

    fn take_seq(&mut self) -> u64 {
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
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}
