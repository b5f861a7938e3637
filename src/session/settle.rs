//! No lock stays behind: what becomes of acquires that were abandoned, lost or late.
//!
//! An attempt that was not answered may have been granted, or may yet be. The module settles both: at once, inside the
//! slot of the load, by asking for the very same lock again ([`release_if_granted`]); and later, on stores that answer
//! over a network, by looking again at each beat until none of them may be granted any more ([`look_for_late_locks`]).
//! It releases only locks that nobody in this process answers for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Mutex as AsyncMutex;
use tracing::{debug, info, warn};

use super::{Sessions, commit::Hold, queue::Turn};
use crate::{
    id::PlayerId,
    store::{Acquire, Acquired, Commit, LockId, StoreError},
};

/// The number of a session's first write.
pub(super) const FIRST_SEQ: u64 = 1;

/// Locks that an unanswered attempt may still bring about.
#[derive(Default)]
pub(super) struct Suspects {
    locks: Mutex<BTreeMap<LockId, Suspect>>,
    /// Held while looking, so that a slow store is not asked twice at a time.
    looking: AsyncMutex<()>,
}

#[derive(Clone, Copy)]
struct Suspect {
    player: PlayerId,
    /// The last of our beats at which an attempt may come into effect. A look after that which finds nothing ends the
    /// suspicion.
    until_beat: u64,
}

impl Suspects {
    /// Whether a lock may turn up that nobody here answers for.
    pub(super) fn has_any(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LockId, Suspect>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one attempt to acquire. One that gets no answer makes its lock a suspect.
pub(super) async fn attempt(sessions: &Sessions, acquire: Acquire) -> Result<Acquired, StoreError> {
    let inner = &sessions.inner;
    let Acquire {
        player,
        lock,
        until_beat,
        ..
    } = acquire;
    let call = inner.store.acquire(acquire);
    let answer = inner.settings.retry.careful_attempt(call).await;
    if answer.as_ref().is_err_and(StoreError::is_worth_a_retry) {
        let mut suspects = inner.suspects.lock();
        let suspect = suspects.entry(lock).or_insert(Suspect { player, until_beat });
        suspect.until_beat = suspect.until_beat.max(until_beat);
    }
    answer
}

/// Settles a load that ends without a session. If one of its attempts was not answered, it asks for the same lock again,
/// which any store answers after the earlier attempts that reached it, and gives back what it gets.
///
/// Nothing that is queued behind runs before this is known, so a rejoin does not meet our own lock.
pub(super) async fn release_if_granted(sessions: &Sessions, player: PlayerId, lock: LockId, turn: &mut Turn) {
    let inner = &sessions.inner;
    if !inner.suspects.lock().contains_key(&lock) {
        return;
    }
    let request = || Acquire {
        player,
        lock,
        server: inner.server,
        lapsed: Vec::new(),
        orphan: None,
        until_beat: inner.heartbeat.until_beat(),
    };
    let policy = inner.settings.retry.unlimited();
    match policy.retry(turn, || attempt(sessions, request())).await {
        Ok(Acquired { fence, .. }) => {
            release(sessions, Hold { player, lock, fence }, FIRST_SEQ, turn).await;
        }
        Err(error) => debug!("the abandoned load holds no lock: {error}"),
    }
}

/// Gives a lock back, and tries until it is known to be free.
pub(super) async fn release(sessions: &Sessions, hold: Hold, seq: u64, turn: &mut Turn) {
    let inner = &sessions.inner;
    let commit = Commit::from(hold.release(seq));
    let policy = inner.settings.retry.unlimited();
    let send = || async { sessions.endure(&commit, inner.store.commit(commit.clone()).await) };
    match policy.retry(turn, send).await {
        Ok(_) | Err(StoreError::LockLost { .. }) => {}
        Err(error) => warn!(
            "the session lock of player {} could not be given back: {error}",
            hold.player
        ),
    }
}

/// Looks whether an attempt came into effect after it had been settled, and gives such a lock back.
///
/// It doesn't go through the queue: a lock that nobody answers for is in nobody's way but a load's, and a load that
/// meets it takes it over, after which releasing it is refused and changes nothing.
pub(super) async fn look_for_late_locks(sessions: &Sessions) {
    let inner = &sessions.inner;
    let Ok(_looking) = inner.suspects.looking.try_lock() else {
        return;
    };
    let beat = inner.heartbeat.own_beat();
    let suspects: Vec<_> = inner
        .suspects
        .lock()
        .iter()
        .map(|(&lock, &suspect)| (lock, suspect))
        .collect();
    for (lock, suspect) in suspects {
        if inner.registry.is_in_use(lock) {
            continue;
        }
        match look(sessions, suspect.player, lock).await {
            Ok(()) if beat > suspect.until_beat => forget(sessions, lock, suspect.until_beat),
            Ok(()) => {}
            Err(error) => {
                debug!("could not look for late session locks: {error}");
                // A record that is damaged is looked at again: once it is mended, the lock has to go.
                if error.is_worth_a_retry() {
                    return;
                }
            }
        }
    }
}

/// Ends a suspicion, unless another attempt has renewed it meanwhile.
fn forget(sessions: &Sessions, lock: LockId, until_beat: u64) {
    let mut suspects = sessions.inner.suspects.lock();
    if suspects
        .get(&lock)
        .is_some_and(|suspect| suspect.until_beat == until_beat)
    {
        suspects.remove(&lock);
    }
}

/// Gives a lock back that nobody in this process answers for, if the player has it.
pub(super) async fn look(sessions: &Sessions, player: PlayerId, lock: LockId) -> Result<(), StoreError> {
    let inner = &sessions.inner;
    let retry = &inner.settings.retry;
    let peek = async { inner.store.peek(player).await };
    let Some(record) = retry.careful_attempt(peek).await? else {
        return Ok(());
    };
    if record.lock.is_none_or(|holder| holder.lock != lock) {
        return Ok(());
    }
    info!("a lock of player {player} that was granted late is given back");
    let hold = Hold {
        player,
        lock,
        fence: record.fence,
    };
    let write = hold.release(record.last_seq.saturating_add(1));
    let commit = async { inner.store.commit(write.into()).await };
    match retry.careful_attempt(commit).await {
        Ok(_) | Err(StoreError::LockLost { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
