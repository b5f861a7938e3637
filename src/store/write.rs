//! What a session writes.

use bytes::Bytes;

use super::{LockId, Settlement};
#[cfg(doc)]
use super::{Outcome, Store, StoreError};
use crate::id::PlayerId;

/// Writes that happen together or not at all, see [`Store::commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// At most one write per player.
    pub writes: Vec<Write>,
}

impl From<Write> for Commit {
    fn from(write: Write) -> Self {
        Self { writes: vec![write] }
    }
}

/// One player's part of a [`Commit`].
///
/// A store judges it in this order:
/// 1. no row, or another fence → [`LockLost`](StoreError::LockLost);
/// 2. the row's lock is another session's → [`LockLost`](StoreError::LockLost);
/// 3. `seq` equals the row's → this very write has already landed: success, nothing changes (also when it was the
///    write that released the lock);
/// 4. `seq` is lower than the row's → [`Superseded`](StoreError::Superseded);
/// 5. the lock is free → [`LockLost`](StoreError::LockLost);
/// 6. a receipt that cannot be settled as asked → [`NotSettled`](StoreError::NotSettled), see [`Outcome`];
/// 7. otherwise it is accepted: the document (if any) replaces the stored one, the receipts are settled, `version` goes
///    up by one, `last_seq` becomes `seq`, and the lock is kept or released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose record.
    pub player: PlayerId,
    /// The session's lock.
    pub lock: LockId,
    /// The session's fence.
    pub fence: u64,
    /// Counts the session's writes from 1; the same in every attempt of one write.
    pub seq: u64,
    /// The new document, or `None` to leave the stored one as it is.
    pub document: Option<Bytes>,
    /// The receipts whose awards (or whose revocations) the document contains, in the order in which they happened.
    pub settle: Vec<Settlement>,
    /// What becomes of the lock.
    pub then: Then,
}

/// What becomes of the lock after a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The session goes on.
    Keep,
    /// The session is over: the lock is free afterwards.
    Release,
}

/// A commit that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The records' versions after the commit, in the order of [`Commit::writes`]; for a write that had landed before,
    /// the version that its record has by now.
    pub versions: Vec<u64>,
}
