//! A load in its slot: the wait for the lease, the attempts to get the lock, and the hand-over.

use std::{sync::Arc, time::Duration};

use tracing::{debug, info};

use super::{Load, Opened};
use crate::{
    chance::random,
    document::{Document, DocumentError},
    session::{
        OpenError, Session, Sessions,
        commit::{Core, Hold},
        heartbeat::LeaseState,
        queue::Turn,
        registry::InUse,
        retry::{Attempts, RetryPolicy},
        settle,
        wishes::Wishing,
    },
    store::{Acquire, Acquired, LockId, StoreError},
};

/// Why a load in its slot ended without a lock.
enum NoLock {
    /// It has been answered meanwhile.
    Abandoned,
    /// An older session of ours has it, whose close is behind us in the queue.
    IsOurs,
    /// Trying again is of no use.
    Failed(StoreError),
}

/// Runs a load whose turn has come.
pub(super) async fn run(sessions: &Sessions, load: &Arc<Load>, turn: &mut Turn) {
    if load.is_abandoned() {
        return;
    }
    // The session's own saves and its close have to go first, so the load gives its place up. It gets one right
    // behind the close.
    if load.park(sessions) {
        return;
    }
    if !lease_is_held(sessions, load).await {
        return;
    }
    // The same in all attempts of this turn; in another turn an attempt of this one might yet take effect.
    let lock = LockId::random();
    let in_use = InUse::mark(sessions, lock);
    let mut wishing = Wishing::new(sessions, load.player, lock);
    let acquired = acquire(sessions, load, lock, &mut wishing, turn).await;
    match acquired {
        Ok(acquired) => {
            drop(wishing);
            finish(sessions, load, turn, (lock, acquired), in_use).await;
        }
        Err(no_lock) => {
            wishing.withdraw();
            let is_ours = matches!(no_lock, NoLock::IsOurs);
            if let NoLock::Failed(error) = no_lock {
                load.abandon(OpenError::from_store(load.player, error));
            }
            settle::release_if_granted(sessions, load.player, lock, turn).await;
            // As above: behind the close.
            if is_ours && !load.park(sessions) {
                super::enqueue(sessions, load);
            }
        }
    }
}

/// Waits for the lease that the lock will hang on. `false` if the load has been answered.
async fn lease_is_held(sessions: &Sessions, load: &Load) -> bool {
    let heartbeat = &sessions.inner.heartbeat;
    load.trouble(OpenError::Unavailable {
        player: load.player,
        message: "this server has no lease to hang the session lock on yet".to_owned(),
    });
    tokio::select! {
        biased;
        () = load.until_abandoned() => false,
        phase = heartbeat.decided() => match phase {
            LeaseState::Held => {
                load.trouble(OpenError::Unavailable {
                    player: load.player,
                    message: "it has not answered yet".to_owned(),
                });
                true
            }
            LeaseState::Refused => {
                let name = sessions.settings().name.clone();
                load.abandon(OpenError::Refused { player: load.player, name });
                false
            }
            _ => {
                load.abandon(OpenError::Cancelled { player: load.player });
                false
            }
        },
    }
}

/// Asks for the lock until it is granted, the load has been answered, or asking again is of no use; and has whoever has
/// the player told so meanwhile.
async fn acquire(
    sessions: &Sessions,
    load: &Load,
    lock: LockId,
    wishing: &mut Wishing<'_>,
    turn: &mut Turn,
) -> Result<Acquired, NoLock> {
    let inner = &sessions.inner;
    let retry = &inner.settings.retry;
    let mut orphan = None;
    let (mut refusals, mut failures) = (0, 0);
    while !load.is_abandoned() {
        let request = Acquire {
            player: load.player,
            lock,
            server: inner.server,
            lapsed: inner.heartbeat.lapsed(),
            orphan,
            until_beat: inner.heartbeat.until_beat(),
        };
        // An attempt that was sent is not dropped when the load is abandoned: its answer says what is left to settle.
        let error = match settle::attempt(sessions, request).await {
            Ok(acquired) => return Ok(acquired),
            Err(error) => error,
        };
        debug!("the session lock was not granted: {error}");
        let mut in_the_way = None;
        let mut pause = match &error {
            StoreError::SessionLocked { holder, .. } => {
                let known = orphan;
                let is_ours = holder.server == inner.server;
                if is_ours && inner.registry.is_in_use(holder.lock) {
                    load.is_delayed_by(OpenError::from_store(load.player, error));
                    turn.backoff(lock_pause(1)).await;
                    return Err(NoLock::IsOurs);
                }
                orphan = is_ours.then_some(holder.lock);
                refusals += 1;
                failures = 0;
                in_the_way = (inner.settings.ask && !is_ours).then_some(holder.lock);
                if orphan.is_some() && orphan != known {
                    Duration::ZERO
                } else {
                    lock_pause(refusals)
                }
            }
            error if error.is_worth_a_retry() => {
                failures += 1;
                retry.pause(failures, random())
            }
            _ => return Err(NoLock::Failed(error)),
        };
        load.is_delayed_by(OpenError::from_store(load.player, error));
        if let Some(held) = in_the_way
            && !load.is_abandoned()
            && wishing.leave(held).await
        {
            pause = Duration::ZERO;
        }
        tokio::select! {
            biased;
            () = load.until_abandoned() => {}
            () = wishing.came_true() => {}
            () = turn.backoff(pause) => {}
        }
    }
    Err(NoLock::Abandoned)
}

/// The pause after the lock was found taken: short, since a player is waiting and the holder is usually about to
/// give it back.
fn lock_pause(refusals: u32) -> Duration {
    let policy = RetryPolicy {
        first: Duration::from_millis(30),
        factor: 2.0,
        max: Duration::from_secs(1),
        jitter: 0.5,
        attempts: Attempts::Unlimited,
        ..RetryPolicy::default()
    };
    policy.pause(refusals, random())
}

/// Hands the session over, or gives the lock back if there is nobody or nothing to hand over.
async fn finish(
    sessions: &Sessions,
    load: &Load,
    turn: &mut Turn,
    (lock, acquired): (LockId, Acquired),
    in_use: InUse,
) {
    let player = load.player;
    let hold = Hold {
        player,
        lock,
        fence: acquired.fence,
    };
    let stored = acquired.document.as_ref();
    match stored.map(Document::decode).transpose() {
        Ok(document) => {
            let Some(done) = load.take_done() else {
                return settle::release(sessions, hold, settle::FIRST_SEQ, turn).await;
            };
            if let Some(server) = &acquired.taken_from {
                info!("the session of player {player} was taken over from server `{server}`");
            }
            let core = Core::new(hold, document.clone(), acquired.version, in_use);
            sessions.inner.registry.seat(player, lock);
            done(Ok(Opened {
                session: Session::new(sessions.clone(), core),
                first_join: document.is_none(),
                document: document.unwrap_or_default(),
                taken_from: acquired.taken_from,
                fence: acquired.fence,
                version: acquired.version,
            }));
        }
        Err(error) => {
            // Answered once the lock is free again, or when the time is up.
            let message = error.to_string();
            let unreadable = match error {
                DocumentError::Newer { .. } => OpenError::Newer { player, message },
                _ => OpenError::Corrupt { player, message },
            };
            load.trouble(unreadable.clone());
            settle::release(sessions, hold, settle::FIRST_SEQ, turn).await;
            load.abandon(unreadable);
        }
    }
}
