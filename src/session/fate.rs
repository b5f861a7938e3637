//! What became of a commit whose answer was lost, when the lock is lost, or the record, by the time it is asked for
//! again.
//!
//! An attempt that was not answered may have landed: the final save and its release did, say, and another server, which
//! waits for just that, took the free lock before the next attempt arrived. The store then says "lock lost" to
//! something that is stored. [`Sending`] repeats a commit and, in that case, looks at the records for what they prove;
//! nothing is called saved, and nothing lost, that they don't. What follows from it for a session is
//! [`Core`](super::commit::Core)'s matter.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Sessions, queue::Turn, retry::RetryPolicy};
use crate::store::{Commit, Committed, Record, StoreError, Then, Write};

/// What a session knew about its record when it sent a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The record's version, as of the last write that was acknowledged.
    pub(super) version: u64,
    /// Whether none of the session's writes since then may have landed.
    pub(super) is_all: bool,
}

/// What was learnt of a commit in the end.
pub(super) enum Answer {
    Committed(Committed),
    /// It was never acknowledged, but it is stored. Since then the lock of one of its players was lost, or their record.
    Landed(StoreError),
    /// Nothing of it is stored, unless the error is an outage.
    Refused(StoreError),
    /// A lock or a record is lost, and nobody can tell any more whether an attempt landed before.
    Unknown(StoreError),
}

/// What a record says about a write that belongs to an earlier session, or to the one it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Landed,
    NotLanded,
    Unknown,
}

/// A commit that is being sent.
pub(super) struct Sending<'a> {
    sessions: &'a Sessions,
    commit: Commit,
    /// Of each of its writes.
    known: Vec<Known>,
    /// Whether an attempt was not answered, and may have landed, or may yet.
    is_uncertain: AtomicBool,
}

impl<'a> Sending<'a> {
    pub(super) fn new(sessions: &'a Sessions, commit: Commit, known: Vec<Known>) -> Self {
        Self {
            sessions,
            commit,
            known,
            is_uncertain: AtomicBool::new(false),
        }
    }

    /// Sends the commit as often as `policy` says. It may be called again after an outage.
    pub(super) async fn send(&self, policy: &RetryPolicy, turn: &mut Turn) -> Answer {
        let sent = policy.retry(turn, || self.attempt()).await;
        let is_uncertain = self.is_uncertain.load(Ordering::Relaxed);
        match sent {
            Ok(committed) => Answer::Committed(committed),
            Err(error @ StoreError::LockLost { .. }) if is_uncertain => match self.look(turn).await {
                Fate::Landed => Answer::Landed(error),
                Fate::NotLanded => Answer::Refused(error),
                Fate::Unknown => Answer::Unknown(error),
            },
            // The lock is still ours, so that what has not landed yet may do so.
            Err(error @ StoreError::Corrupt { .. }) if is_uncertain && !self.goes_on() => {
                match self.look(turn).await {
                    Fate::Landed => Answer::Landed(error),
                    Fate::NotLanded | Fate::Unknown => Answer::Unknown(error),
                }
            }
            Err(error) => Answer::Refused(error),
        }
    }

    async fn attempt(&self) -> Result<Committed, StoreError> {
        // So it stays if this is dropped because it takes too long.
        let before = self.is_uncertain.swap(true, Ordering::Relaxed);
        let answer = self.sessions.inner.store.commit(self.commit.clone()).await;
        if !matches!(answer, Err(StoreError::Unavailable { .. })) {
            self.is_uncertain.store(before, Ordering::Relaxed);
        }
        self.sessions.endure(&self.commit, answer)
    }

    /// Whether the session has its data and goes on, whatever becomes of this.
    fn goes_on(&self) -> bool {
        matches!(&self.commit.writes[..], [write] if write.then == Then::Keep)
    }

    /// All writes of a commit share one fate, so the first record that proves anything says it all. (None of them can
    /// land any more, once a lock is lost.)
    async fn look(&self, turn: &mut Turn) -> Fate {
        let policy = self.sessions.settings().retry.unlimited();
        let is_alone = self.commit.writes.len() == 1;
        for (write, known) in self.commit.writes.iter().zip(&self.known) {
            let peek = || self.sessions.inner.store.peek(write.player);
            let Ok(record) = policy.retry(turn, peek).await else {
                continue;
            };
            match fate(write, *known, is_alone, record.as_ref()) {
                Fate::Unknown => {}
                proven => return proven,
            }
        }
        Fate::Unknown
    }
}

/// What a player's record proves about a write that can't land any more, and behind which its session has sent none.
/// `is_alone` says whether it is all of its commit.
fn fate(write: &Write, known: Known, is_alone: bool, record: Option<&Record>) -> Fate {
    let Some(record) = record else {
        return Fate::Unknown; // Somebody has erased the player.
    };
    if record.fence == write.fence {
        let holder = record.lock.as_ref().map(|holder| holder.lock);
        if holder.is_some_and(|lock| lock != write.lock) {
            return Fate::Unknown; // The player was erased, and has begun anew.
        }
        return if record.last_seq >= write.seq {
            Fate::Landed
        } else {
            Fate::NotLanded
        };
    }
    if record.version == known.version {
        // Nobody at all has written since.
        return Fate::NotLanded;
    }
    // A grant changes neither the document nor the version, and sets the sequence number to zero: the next session has
    // written nothing, so this is what ours has left.
    if record.fence != write.fence.saturating_add(1) || record.last_seq != 0 {
        return Fate::Unknown;
    }
    let is_next = known.is_all && record.version == known.version.saturating_add(1);
    match &write.document {
        Some(document) if record.document.as_ref() != Some(document) => Fate::NotLanded,
        _ if is_next => Fate::Landed,
        // An earlier write of the same document may have landed instead, which is as good; but none that settles the
        // same as well, or that has another player's side.
        Some(_) if is_alone && write.settle.is_empty() => Fate::Landed,
        _ => Fate::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        id::PlayerId,
        store::{LockHolder, LockId, Outcome, ServerId, Settlement, Then},
    };

    const FENCE: u64 = 5;
    const VERSION: u64 = 40;
    const SEQ: u64 = 3;
    const OURS: &[u8] = b"ours";

    fn write(document: Option<&'static [u8]>, settles: bool) -> Write {
        let settlement = Settlement {
            purchase: "pi_1".parse().expect("an id"),
            outcome: Outcome::Granted,
        };
        Write {
            player: PlayerId::from_name("ada"),
            lock: LockId::random(),
            fence: FENCE,
            seq: SEQ,
            document: document.map(Bytes::from_static),
            settle: settles.then_some(settlement).into_iter().collect(),
            then: Then::Release,
        }
    }

    fn record(fence: u64, last_seq: u64, version: u64, document: &'static [u8]) -> Record {
        Record {
            version,
            fence,
            last_seq,
            document: Some(Bytes::from_static(document)),
            ..Record::blank(PlayerId::from_name("ada"))
        }
    }

    fn judge(write: &Write, is_all: bool, record: &Record) -> Fate {
        let known = Known {
            version: VERSION,
            is_all,
        };
        fate(write, known, true, Some(record))
    }

    #[test]
    fn under_our_own_fence_the_sequence_number_tells() {
        for is_all in [true, false] {
            let of = |last_seq| {
                let record = record(FENCE, last_seq, VERSION + 1, OURS);
                judge(&write(Some(OURS), true), is_all, &record)
            };
            assert_eq!((of(SEQ), of(SEQ - 1)), (Fate::Landed, Fate::NotLanded));
        }
    }

    #[test]
    fn where_nobody_has_written_since_nothing_has_landed() {
        for (fence, last_seq) in [(FENCE + 1, 0), (FENCE + 7, 0)] {
            for is_all in [true, false] {
                let record = record(fence, last_seq, VERSION, OURS);
                assert_eq!(judge(&write(Some(OURS), true), is_all, &record), Fate::NotLanded);
            }
        }
    }

    #[test]
    fn before_the_next_session_has_written_the_record_is_what_ours_has_left() {
        let left = |document| record(FENCE + 1, 0, VERSION + 1, document);
        for settles in [true, false] {
            assert_eq!(
                judge(&write(Some(OURS), settles), true, &left(OURS)),
                Fate::Landed
            );
            assert_eq!(judge(&write(None, settles), true, &left(b"")), Fate::Landed);
        }
        assert_eq!(
            judge(&write(Some(OURS), false), true, &left(b"other")),
            Fate::NotLanded
        );
    }

    #[test]
    fn an_earlier_write_that_may_have_landed_is_not_taken_for_this_one() {
        let left = |document| record(FENCE + 1, 0, VERSION + 1, document);
        let of = |document, settles, left: &Record| judge(&write(document, settles), false, left);
        assert_eq!(of(Some(OURS), true, &left(OURS)), Fate::Unknown);
        assert_eq!(of(None, true, &left(OURS)), Fate::Unknown);
        assert_eq!(of(Some(OURS), false, &left(OURS)), Fate::Landed);
        assert_eq!(of(Some(OURS), false, &left(b"earlier")), Fate::NotLanded);
    }

    #[test]
    fn once_others_have_written_nothing_is_proven() {
        for (fence, last_seq) in [(FENCE + 1, 1), (FENCE + 2, 0), (FENCE - 1, SEQ)] {
            for document in [OURS, b"theirs"] {
                let record = record(fence, last_seq, VERSION + 1, document);
                assert_eq!(judge(&write(Some(OURS), false), true, &record), Fate::Unknown);
            }
        }
        let known = Known {
            version: VERSION,
            is_all: true,
        };
        assert_eq!(fate(&write(Some(OURS), false), known, true, None), Fate::Unknown);
    }
    #[test]
    fn an_equal_document_proves_nothing_about_the_other_side_of_a_trade() {
        let left = record(FENCE + 1, 0, VERSION + 1, OURS);
        let of = |is_all| {
            let known = Known {
                version: VERSION,
                is_all,
            };
            fate(&write(Some(OURS), false), known, false, Some(&left))
        };
        assert_eq!((of(true), of(false)), (Fate::Landed, Fate::Unknown));
    }

    #[test]
    fn a_fence_that_has_begun_anew_is_not_taken_for_ours() {
        let mut anew = record(FENCE, SEQ, VERSION + 1, OURS);
        anew.lock = Some(LockHolder {
            lock: LockId::random(),
            server: ServerId::random(),
            name: None,
        });
        assert_eq!(judge(&write(Some(OURS), false), true, &anew), Fate::Unknown);
    }
}
