//! What a session writes, and what the store's answers mean for it.
//!
//! The module owns [`Hold`], the one place that builds a [`Write`], and [`Core`], what a session knows about its
//! record. It promises that a document equal to the last acknowledged one is not written again, that nothing reaches the
//! store after the lock was lost, and that a close gives its lock back even if its document is refused. Order and
//! slots are the queue's.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use tracing::warn;

use super::{SaveError, Saved, Sessions, queue::Turn, registry::InUse, retry::RetryPolicy, settle};
use crate::{
    document::Document,
    id::PlayerId,
    store::{Commit, LockId, StoreError, Then, Write},
};

/// What every write of a session has to name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) player: PlayerId,
    pub(super) lock: LockId,
    pub(super) fence: u64,
}

impl Hold {
    /// The only place where a [`Write`] is built.
    pub(super) fn write(self, seq: u64, document: Option<Bytes>, then: Then) -> Write {
        let Self { player, lock, fence } = self;
        Write {
            player,
            lock,
            fence,
            seq,
            document,
            then,
        }
    }
}

/// What a session and its queued requests share. While it lives, its lock is in use.
pub(super) struct Core {
    hold: Hold,
    known: Mutex<Known>,
    lost: AtomicBool,
    /// Requests of this session that have not been answered.
    pending: AtomicUsize,
    _in_use: InUse,
}

/// What is known about the stored record.
struct Known {
    /// The document that the store last acknowledged; `None` when there is none.
    document: Option<Document>,
    version: u64,
    /// Whether a write was sent and not acknowledged since, so that the record may hold another document.
    uncertain: bool,
}

impl Core {
    pub(super) fn new(hold: Hold, document: Option<Document>, version: u64, in_use: InUse) -> Arc<Self> {
        Arc::new(Self {
            hold,
            known: Mutex::new(Known {
                document,
                version,
                uncertain: false,
            }),
            lost: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            _in_use: in_use,
        })
    }

    pub(super) fn hold(&self) -> Hold {
        self.hold
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    pub(super) fn asked(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn answered(&self) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the record is known to hold this very document.
    fn is_stored(&self, document: &Document) -> bool {
        let known = self.known();
        !known.uncertain && known.document.as_ref() == Some(document)
    }

    fn check_not_lost(&self) -> Result<(), SaveError> {
        if self.is_lost() {
            Err(SaveError::LockLost {
                player: self.hold.player,
            })
        } else {
            Ok(())
        }
    }

    /// A save's slot.
    pub(super) async fn save(
        &self,
        sessions: &Sessions,
        seq: u64,
        document: Document,
        turn: &mut Turn,
    ) -> Result<Saved, SaveError> {
        self.check_not_lost()?;
        if self.is_stored(&document) {
            return Ok(Saved {
                version: self.known().version,
                written: false,
            });
        }
        let policy = &sessions.settings().retry;
        self.send(sessions, seq, Some(document), Then::Keep, policy, turn)
            .await
    }

    /// A close's slot: the final save, if there is one, and the lock's release in one write.
    pub(super) async fn close(
        &self,
        sessions: &Sessions,
        seq: u64,
        document: Option<Document>,
        turn: &mut Turn,
    ) -> Result<Saved, SaveError> {
        self.check_not_lost()?;
        let document = document.filter(|document| !self.is_stored(document));
        let policy = sessions.settings().retry.unlimited();
        let closed = self
            .send(sessions, seq, document, Then::Release, &policy, turn)
            .await;
        if let Err(SaveError::Rejected { message, .. }) = &closed {
            warn!(
                "the final save of player {} was rejected and is lost: {message}",
                self.hold.player
            );
            // A close is a session's last request, so the next number is free.
            settle::release(sessions, self.hold, seq.saturating_add(1), turn).await;
        }
        closed
    }

    async fn send(
        &self,
        sessions: &Sessions,
        seq: u64,
        document: Option<Document>,
        then: Then,
        policy: &RetryPolicy,
        turn: &mut Turn,
    ) -> Result<Saved, SaveError> {
        let bytes = document
            .as_ref()
            .map(|document| self.encode(sessions, document))
            .transpose()?;
        let commit = Commit::from(self.hold.write(seq, bytes, then));
        // From here on until an acknowledgement, nobody knows what the record holds.
        self.known().uncertain = true;
        let answer = policy
            .retry(turn, || sessions.inner.store.commit(commit.clone()))
            .await;
        let written = document.is_some();
        match answer {
            Ok(committed) => {
                let mut known = self.known();
                known.uncertain = false;
                // A store answers with one version per write.
                known.version = committed.versions.first().copied().unwrap_or(known.version);
                if written {
                    known.document = document;
                }
                Ok(Saved {
                    version: known.version,
                    written,
                })
            }
            Err(error) => {
                if matches!(error, StoreError::LockLost { .. }) && !self.lost.swap(true, Ordering::AcqRel) {
                    warn!("{error}; what was not committed is lost");
                }
                Err(SaveError::from_store(self.hold.player, error))
            }
        }
    }

    fn encode(&self, sessions: &Sessions, document: &Document) -> Result<Bytes, SaveError> {
        document
            .encode(sessions.settings().compression)
            .map_err(|error| SaveError::Rejected {
                player: self.hold.player,
                message: error.to_string(),
            })
    }
}
