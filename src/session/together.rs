//! Two players' sessions saved in one commit: a trade is in both documents or in neither.
//!
//! The request takes its place in both players' queues at once, so whatever is asked for later, a close included, waits
//! behind it; and it is repeated until it landed or was refused. Hence no later save of one player can land without it.
//! When it is refused, everything that either session would save from then on contains half of a trade: both
//! end at their last commit. So they do when nobody can tell, see [`fate`](super::fate), and then they may have had it.

use std::sync::Arc;

use tracing::{Instrument, info_span};

use super::{
    SaveError, Saved, Session, Sessions, Snapshot,
    commit::Core,
    fate::{Answer, Sending},
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
    let is_unconfirmed = matches!(error, SaveError::Unconfirmed { .. });
    let message = if is_unconfirmed {
        format!("nobody can tell whether a commit of two players has landed ({error})")
    } else {
        format!("a commit of two players was refused ({error})")
    };
    let ends = |core: &Arc<Core>| {
        core.forfeit(&message);
        if is_unconfirmed {
            let player = core.hold().player;
            return SaveError::Unconfirmed { player };
        }
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
    let known = sides.iter().map(|side| side.core.is_sent()).collect();
    let sending = Sending::new(sessions, Commit { writes }, known);
    let policy = &sessions.settings().retry;
    let mut answer = sending.send(policy, turn).await;
    if let Answer::Refused(error @ StoreError::Unavailable { .. }) = &answer {
        trouble(SaveError::from_store(sides[0].core.hold().player, error.clone()));
        answer = sending.send(&policy.unlimited(), turn).await;
    }
    match answer {
        Answer::Committed(committed) => {
            let mut versions = committed.versions.into_iter();
            Ok(sides.map(|side| {
                side.core
                    .is_acknowledged(versions.next(), Some(side.snapshot.document))
            }))
        }
        // Since then somebody has taken one of the two over, and found it there.
        Answer::Landed(error) => Ok(sides.map(|side| {
            let saved = side.core.is_acknowledged(None, Some(side.snapshot.document));
            side.core.is_refused(error.clone());
            saved
        })),
        // Both take in whose lock was lost, if that is it.
        Answer::Refused(error) => {
            let [first, _] = sides.map(|side| side.core.is_refused(error.clone()));
            Err(first)
        }
        Answer::Unknown(error) => {
            let [first, _] = sides.map(|side| side.core.is_unconfirmed(&error));
            Err(first)
        }
    }
}
