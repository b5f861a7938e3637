//! Two players' sessions saved in one commit: a trade is in both documents or in neither.
//!
//! The request takes its place in both players' queues at once, so whatever is asked for later, a close included, waits
//! behind it; and it is repeated until it landed or was refused. Hence no later save of one player can land without it.
//! When it is refused, everything that either session would save from then on contains half of a trade: both
//! end at their last commit.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tracing::{Instrument, info_span};

use super::{
    SaveError, Saved, Session, Sessions, Snapshot,
    commit::Core,
    queue::{Request, Turn},
};
use crate::store::{Commit, StoreError, Then};

/// One player's part of the request.
struct Side {
    core: Arc<Core>,
    seq: u64,
    snapshot: Snapshot,
}

/// See [`Session::save_together`].
pub(super) fn save_together(
    sides: [(&mut Session, Snapshot); 2],
    trouble: impl FnOnce(SaveError) + Send + 'static,
    done: impl FnOnce(Result<[Saved; 2], [SaveError; 2]>) + Send + 'static,
) {
    let sessions = sides[0].0.sessions.clone();
    let sides = sides.map(|(session, snapshot)| Side {
        seq: session.take_seq(),
        core: Arc::clone(&session.core),
        snapshot,
    });
    let cores = [Arc::clone(&sides[0].core), Arc::clone(&sides[1].core)];
    let players = [cores[0].hold().player, cores[1].hold().player];
    let span = info_span!("save together", first = %players[0], second = %players[1]);
    let queue = sessions.inner.queue.clone();
    for core in &cores {
        core.asked();
    }
    let job = move |mut turn| async move { run(&sessions, sides, trouble, &mut turn).await }.instrument(span);
    queue.enqueue(Request::of_all(players), job, move |answer| {
        // When it panicked, nobody knows how far it got.
        let result = answer.unwrap_or_else(|reason| Err(SaveError::not_run(players[0], reason)));
        let result = result.map_err(|error| end_both(&cores, error));
        for core in cores {
            core.answered();
        }
        done(result);
    });
}

/// Whatever either session would save from here on contains half of what was refused.
fn end_both(cores: &[Arc<Core>; 2], error: SaveError) -> [SaveError; 2] {
    let message = format!("a commit of two players was refused ({error})");
    let ends = |core: &Arc<Core>| {
        core.forfeit(&message);
        // Of whose lock is lost, it says so.
        core.check_standing().err().unwrap_or_else(|| error.clone())
    };
    [ends(&cores[0]), ends(&cores[1])]
}

async fn run(
    sessions: &Sessions,
    sides: [Side; 2],
    trouble: impl FnOnce(SaveError),
    turn: &mut Turn,
) -> Result<[Saved; 2], SaveError> {
    let mut writes = Vec::with_capacity(sides.len());
    for side in &sides {
        side.core.check_standing()?;
        let document = side.core.encode(sessions, &side.snapshot.document)?;
        let settle = side.snapshot.settle.clone();
        writes.push(
            side.core
                .hold()
                .write(side.seq, Some(document), settle, Then::Keep),
        );
    }
    let commit = Commit { writes };
    for side in &sides {
        side.core.is_sent();
    }
    let tries = AtomicU32::new(0);
    let send = || {
        tries.fetch_add(1, Ordering::Relaxed);
        sessions.inner.store.commit(commit.clone())
    };
    let policy = &sessions.settings().retry;
    let mut answer = policy.retry(turn, send).await;
    if let Err(error @ StoreError::Unavailable { .. }) = &answer {
        trouble(SaveError::from_store(sides[0].core.hold().player, error.clone()));
        answer = policy.unlimited().retry(turn, send).await;
    }
    match answer {
        Ok(committed) => {
            let mut versions = committed.versions.into_iter();
            Ok(sides.map(|side| {
                side.core
                    .is_acknowledged(versions.next(), Some(side.snapshot.document))
            }))
        }
        Err(error) => {
            let is_lost = matches!(error, StoreError::LockLost { .. });
            if is_lost && tries.into_inner() > 1 && has_landed(sessions, &sides, turn).await {
                // Since then somebody has taken one of the two over, and found it there.
                return Ok(sides.map(|side| {
                    let saved = side.core.is_acknowledged(None, Some(side.snapshot.document));
                    side.core.is_refused(error.clone());
                    saved
                }));
            }
            // Both take in whose lock was lost, if that is it.
            let [first, _] = sides.map(|side| side.core.is_refused(error.clone()));
            Err(first)
        }
    }
}

/// Whether an attempt that was not answered came into effect. The record that is still under our lock says so for both;
/// when both locks are lost, nobody can say.
async fn has_landed(sessions: &Sessions, sides: &[Side; 2], turn: &mut Turn) -> bool {
    let policy = sessions.settings().retry.unlimited();
    for side in sides {
        let hold = side.core.hold();
        let record = policy
            .retry(turn, || sessions.inner.store.peek(hold.player))
            .await;
        if let Ok(Some(record)) = record
            && record.fence == hold.fence
        {
            return record.last_seq >= side.seq;
        }
    }
    false
}
