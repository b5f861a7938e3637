//! What a session writes, and what the store's answers mean for it.
//!
//! The module owns [`Hold`], the one place that builds a [`Write`], and [`Core`], what a session knows about its
//! record. It promises that a document equal to the last acknowledged one is not written again, that nothing reaches
//! the store after the lock was lost or a commit that later ones rest on was refused, and that a close gives its lock
//! back even if its document is refused. Order and slots are the queue's; what became of a write that was not answered,
//! [`fate`]'s.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tracing::warn;

use super::{
    SaveError, Saved, Sessions,
    fate::{self, Answer, Sending},
    queue::Turn,
    registry::InUse,
    retry::RetryPolicy,
    settle,
};
use crate::{
    document::Document,
    id::PlayerId,
    store::{Commit, LockId, Settlement, StoreError, Then, Write},
};

/// What a session saves: a player's document, and the receipts whose awards it contains.
///
/// The two belong together: a store takes both, or neither.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The player's data.
    pub document: Document,
    /// The receipts that the document settles, in the order of their awards.
    pub settle: Vec<Settlement>,
}

impl From<Document> for Snapshot {
    /// A document without any award in it that isn't settled yet.
    fn from(document: Document) -> Self {
        Self {
            document,
            settle: Vec::new(),
        }
    }
}

/// What every write of a session has to name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) player: PlayerId,
    pub(super) lock: LockId,
    pub(super) fence: u64,
}

impl Hold {
    /// The only place where a [`Write`] is built.
    pub(super) fn write(
        self,
        seq: u64,
        document: Option<Bytes>,
        settle: Vec<Settlement>,
        then: Then,
    ) -> Write {
        let Self { player, lock, fence } = self;
        Write {
            player,
            lock,
            fence,
            seq,
            document,
            settle,
            then,
        }
    }

    /// Gives the lock back and changes nothing else.
    pub(super) fn release(self, seq: u64) -> Write {
        self.write(seq, None, Vec::new(), Then::Release)
    }
}

/// What a session and its queued requests share. While it lives, its lock is in use.
pub(super) struct Core {
    hold: Hold,
    known: Mutex<Known>,
    /// Requests of this session that have not been answered.
    pending: AtomicUsize,
    _in_use: InUse,
}

/// What is known about the stored record.
struct Known {
    standing: Standing,
    /// The document that the store last acknowledged; `None` when there is none.
    document: Option<Document>,
    version: u64,
    /// Whether a write was sent and not acknowledged since, so that the record may hold another document.
    uncertain: bool,
}

/// Whether a session may still save.
#[derive(Clone, PartialEq, Eq)]
enum Standing {
    Good,
    /// The store refused something that all later documents contain: a trade, an award. It ends at its last commit.
    Forfeited(String),
    /// Another server has the lock.
    Lost,
}

impl Core {
    pub(super) fn new(hold: Hold, document: Option<Document>, version: u64, in_use: InUse) -> Arc<Self> {
        Arc::new(Self {
            hold,
            known: Mutex::new(Known {
                standing: Standing::Good,
                document,
                version,
                uncertain: false,
            }),
            pending: AtomicUsize::new(0),
            _in_use: in_use,
        })
    }

    pub(super) fn hold(&self) -> Hold {
        self.hold
    }

    pub(super) fn is_over(&self) -> bool {
        self.known().standing != Standing::Good
    }

    pub(super) fn has_lost_its_lock(&self) -> bool {
        self.known().standing == Standing::Lost
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

    /// # Errors
    /// Why nothing can be saved any more.
    pub(super) fn check_standing(&self) -> Result<(), SaveError> {
        let player = self.hold.player;
        match &self.known().standing {
            Standing::Good => Ok(()),
            Standing::Forfeited(message) => Err(SaveError::Forfeited {
                player,
                message: message.clone(),
            }),
            Standing::Lost => Err(SaveError::LockLost { player }),
        }
    }

    /// Ends the session at its last commit, unless its lock is lost anyway.
    pub(super) fn forfeit(&self, message: &str) {
        let mut known = self.known();
        if known.standing == Standing::Good {
            warn!(
                "the session of player {} ends at its last commit: {message}",
                self.hold.player
            );
            known.standing = Standing::Forfeited(message.to_owned());
        }
    }

    fn lose(&self, error: &StoreError) {
        let mut known = self.known();
        if known.standing != Standing::Lost {
            warn!("{error}; what was not committed is lost");
            known.standing = Standing::Lost;
        }
    }

    /// Takes in that nobody can tell whether a commit has landed, now that a lock is lost.
    pub(super) fn is_unconfirmed(&self, error: &StoreError) -> SaveError {
        let player = self.hold.player;
        if matches!(error, StoreError::LockLost { player: whose } if *whose == player) {
            warn!("{error}; what was sent last before that may be stored, since its answer was lost");
            self.known().standing = Standing::Lost;
        }
        SaveError::Unconfirmed { player }
    }

    /// A save's slot.
    pub(super) async fn save(
        &self,
        sessions: &Sessions,
        seq: u64,
        snapshot: Snapshot,
        turn: &mut Turn,
    ) -> Result<Saved, SaveError> {
        self.check_standing()?;
        let snapshot = self.without_what_is_stored(snapshot);
        if let (None, []) = (&snapshot.0, &snapshot.1[..]) {
            return Ok(Saved {
                version: self.known().version,
                written: false,
            });
        }
        let policy = &sessions.settings().retry;
        self.send(sessions, seq, snapshot, Then::Keep, policy, turn).await
    }

    /// A close's slot: the final save, if there is one, and the lock's release in one write.
    pub(super) async fn close(
        &self,
        sessions: &Sessions,
        seq: u64,
        snapshot: Option<Snapshot>,
        turn: &mut Turn,
    ) -> Result<Saved, SaveError> {
        let standing = self.check_standing();
        if let Err(SaveError::Forfeited { .. }) = &standing {
            settle::release(sessions, self.hold, seq, turn).await;
        }
        standing?;
        let snapshot = snapshot.map(|snapshot| self.without_what_is_stored(snapshot));
        let policy = sessions.settings().retry.unlimited();
        let closed = self
            .send(
                sessions,
                seq,
                snapshot.unwrap_or_default(),
                Then::Release,
                &policy,
                turn,
            )
            .await;
        if let Err(error @ (SaveError::Rejected { .. } | SaveError::Forfeited { .. })) = &closed {
            warn!("{error}; the final save is lost");
            // A close is a session's last request, so the next number is free.
            settle::release(sessions, self.hold, seq.saturating_add(1), turn).await;
        }
        closed
    }

    /// A document that the record holds already is not written again; its receipts are settled all the same.
    fn without_what_is_stored(&self, snapshot: Snapshot) -> (Option<Document>, Vec<Settlement>) {
        let Snapshot { document, settle } = snapshot;
        ((!self.is_stored(&document)).then_some(document), settle)
    }

    async fn send(
        &self,
        sessions: &Sessions,
        seq: u64,
        (document, settle): (Option<Document>, Vec<Settlement>),
        then: Then,
        policy: &RetryPolicy,
        turn: &mut Turn,
    ) -> Result<Saved, SaveError> {
        let bytes = document
            .as_ref()
            .map(|document| self.encode(sessions, document))
            .transpose()?;
        let is_bare = bytes.is_none() && settle.is_empty();
        let commit = Commit::from(self.hold.write(seq, bytes, settle, then));
        let known = self.is_sent();
        match Sending::new(sessions, commit, vec![known])
            .send(policy, turn)
            .await
        {
            // A store answers with one version per write.
            Answer::Committed(committed) => {
                Ok(self.is_acknowledged(committed.versions.first().copied(), document))
            }
            Answer::Landed(error) => {
                if then == Then::Keep {
                    self.lose(&error);
                }
                Ok(self.is_acknowledged(None, document))
            }
            Answer::Refused(error) => Err(self.is_refused(error)),
            // It was to give the lock back, which is gone, and everything was stored before.
            Answer::Unknown(_) if is_bare && known.is_all => Ok(self.is_acknowledged(None, None)),
            Answer::Unknown(error) => Err(self.is_unconfirmed(&error)),
        }
    }

    /// From here on until an acknowledgement, nobody knows what the record holds. Returns what was known until now.
    pub(super) fn is_sent(&self) -> fate::Known {
        let mut known = self.known();
        let is_all = !std::mem::replace(&mut known.uncertain, true);
        fate::Known {
            version: known.version,
            is_all,
        }
    }

    /// Takes in that a write is stored. Where the store has not said with which version, it is one more, at least, and
    /// what the record holds stays uncertain.
    pub(super) fn is_acknowledged(&self, version: Option<u64>, document: Option<Document>) -> Saved {
        let mut known = self.known();
        let written = document.is_some();
        let Some(version) = version else {
            let version = known.version.saturating_add(1);
            return Saved { version, written };
        };
        known.uncertain = false;
        known.version = version;
        if written {
            known.document = document;
        }
        Saved { version, written }
    }

    /// Takes in why a write of this session, or one that it shares with another, did not land.
    pub(super) fn is_refused(&self, error: StoreError) -> SaveError {
        match &error {
            StoreError::LockLost { player } if *player == self.hold.player => self.lose(&error),
            StoreError::NotSettled { .. } => self.forfeit(&error.to_string()),
            _ => {}
        }
        SaveError::from_store(self.hold.player, error)
    }

    pub(super) fn encode(&self, sessions: &Sessions, document: &Document) -> Result<Bytes, SaveError> {
        document
            .encode(sessions.settings().compression)
            .map_err(|error| SaveError::Rejected {
                player: self.hold.player,
                message: error.to_string(),
            })
    }
}
