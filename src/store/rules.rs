//! The rules by which every store judges a request, as pure functions over what its transaction has read.
//!
//! The module owns the order of judgement that [`Write`] and [`Store::acquire`](super::Store::acquire) document, so
//! that no two stores can differ in it. It promises to change nothing; reading the row before and writing it
//! afterwards, in the same transaction, is left to the store.

use super::{
    Acquire, Commit, LapsedLease, LockHolder, LockId, NewReceipt, Notice, Outcome, ReceiptState, ServerId,
    ServerLease, Settlement, StoreError, StoredReceipt, Then, Wish, Write,
};
use crate::id::PlayerId;

/// The largest fence, version or sequence number: what fits into the signed 64-bit integers of SQL.
pub(super) const LARGEST: u64 = i64::MAX as u64;

/// The part of a player's row that locks and writes are judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LockState {
    pub(super) version: u64,
    pub(super) fence: u64,
    pub(super) last_seq: u64,
    pub(super) held: Option<Held>,
}

/// A lock that is not free, as the row spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) lock: LockId,
    pub(super) server: ServerId,
}

/// How a lock is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// It was this very lock already: nothing is to be changed.
    Again,
    /// The row is to become `state`.
    Anew {
        state: LockState,
        /// The name of the server that it was taken from.
        taken_from: Option<String>,
    },
}

/// What an acceptable write does to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has landed before: nothing is to be changed.
    Landed,
    /// The row is to become this state, with the write's document.
    Accepted(LockState),
}

impl Held {
    /// For people: with the name of the server, when that has a row.
    pub(super) fn holder(self, name: Option<String>) -> LockHolder {
        LockHolder {
            lock: self.lock,
            server: self.server,
            name,
        }
    }
}

/// Refuses an acquire that no state of the store could make valid.
pub(super) fn check_acquire(acquire: &Acquire) -> Result<(), StoreError> {
    if acquire.lock.into_bytes() == [0; 16] {
        return Err(StoreError::rejected(
            "a lock id of all zeros means `free`: use `LockId::random`",
        ));
    }
    Ok(())
}

/// The answer to an acquire whose own server has no row: a lock that hung on it would be free for everybody.
fn no_lease(server: ServerId) -> StoreError {
    StoreError::unavailable(format_args!(
        "server {server} has no lease; its next beat renews it"
    ))
}

fn too_late(acquire: &Acquire) -> StoreError {
    let Acquire {
        server, until_beat, ..
    } = acquire;
    StoreError::unavailable(format_args!(
        "the request was held up on its way: it was to be granted up to beat {until_beat} of server {server}"
    ))
}

/// Judges an acquire on a row in `state`; `own` is the row of the server that asks, and `lease` that of the server that
/// holds the lock, if they have one.
pub(super) fn judge_acquire(
    state: LockState,
    own: Option<ServerLease>,
    lease: Option<ServerLease>,
    acquire: &Acquire,
) -> Result<Grant, StoreError> {
    let Some(own) = own else {
        return Err(no_lease(acquire.server));
    };
    let taken_from = match (state.held, lease) {
        (Some(held), _) if held.lock == acquire.lock && held.server == acquire.server => {
            return Ok(Grant::Again);
        }
        _ if own.beat > acquire.until_beat => return Err(too_late(acquire)),
        (None, _) | (Some(_), None) => None,
        (Some(held), Some(lease)) if may_take_over(held, &lease, acquire) => Some(lease.name),
        (Some(held), Some(lease)) => {
            return Err(StoreError::SessionLocked {
                player: acquire.player,
                holder: held.holder(Some(lease.name)),
            });
        }
    };
    let state = LockState {
        version: state.version,
        fence: next(state.fence, "fence", acquire.player)?,
        last_seq: 0,
        held: Some(Held {
            lock: acquire.lock,
            server: acquire.server,
        }),
    };
    Ok(Grant::Anew { state, taken_from })
}

fn may_take_over(held: Held, lease: &ServerLease, acquire: &Acquire) -> bool {
    let orphaned = held.server == acquire.server && acquire.orphan == Some(held.lock);
    orphaned || has_lapsed(lease, &acquire.lapsed)
}

/// Whether a lease is among those that were seen to lapse, and its beat still stands where it stood then.
pub(super) fn has_lapsed(lease: &ServerLease, lapsed: &[LapsedLease]) -> bool {
    lapsed
        .iter()
        .any(|lapsed| lapsed.server == lease.server && lapsed.beat == lease.beat)
}

/// Whether a wish stands, given the player's lock and the row of the server that wishes.
pub(super) fn stands(wish: &Wish, held: Option<Held>, own: Option<&ServerLease>) -> bool {
    held.is_some_and(|held| held.lock == wish.held && held.server != wish.server)
        && own.is_some_and(|own| own.beat <= wish.until_beat)
}

/// Refuses a commit that no state of the store could make valid.
pub(super) fn check_commit(commit: &Commit) -> Result<(), StoreError> {
    for (place, write) in commit.writes.iter().enumerate() {
        let player = write.player;
        // There are one or two of them.
        if commit.writes[..place].iter().any(|other| other.player == player) {
            return Err(StoreError::rejected(format_args!(
                "player {player} is written twice in one commit: merge the two writes"
            )));
        }
        // The row counts from zero: a zero here would pass for a write that has already landed.
        if write.seq == 0 || write.seq > LARGEST {
            let seq = write.seq;
            return Err(StoreError::rejected(format_args!(
                "the sequence number {seq} of a write for player {player} is not between 1 and {LARGEST}"
            )));
        }
    }
    Ok(())
}

/// Judges a write on its player's row, in the order that [`Write`] documents.
pub(super) fn judge_write(row: Option<LockState>, write: &Write) -> Result<Verdict, StoreError> {
    let player = write.player;
    let lost = StoreError::LockLost { player };
    let Some(state) = row.filter(|state| state.fence == write.fence) else {
        return Err(lost);
    };
    if state.held.is_some_and(|held| held.lock != write.lock) {
        return Err(lost);
    }
    if write.seq == state.last_seq {
        return Ok(Verdict::Landed);
    }
    if write.seq < state.last_seq {
        return Err(StoreError::Superseded { player });
    }
    if state.held.is_none() {
        return Err(lost);
    }
    Ok(Verdict::Accepted(LockState {
        version: next(state.version, "version", player)?,
        fence: state.fence,
        last_seq: write.seq,
        held: match write.then {
            Then::Keep => state.held,
            Then::Release => None,
        },
    }))
}

/// Refuses to erase a player whose lock hangs on a server that has a row; `name` is that server's.
pub(super) fn check_erase(
    player: PlayerId,
    held: Option<Held>,
    name: Option<String>,
) -> Result<(), StoreError> {
    match (held, name) {
        (Some(held), Some(name)) => Err(StoreError::SessionLocked {
            player,
            holder: held.holder(Some(name)),
        }),
        _ => Ok(()),
    }
}

/// Refuses a lease under a name other than the one that the server's row already has.
pub(super) fn check_name(server: ServerId, registered: Option<&str>, name: &str) -> Result<(), StoreError> {
    match registered {
        Some(registered) if registered != name => Err(StoreError::rejected(format_args!(
            "server {server} is registered as `{registered}` and cannot become `{name}`: a name lasts for a whole boot"
        ))),
        _ => Ok(()),
    }
}

/// What settling a receipt does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settling {
    /// It has been settled so before, by this session: nothing is to be changed.
    Again,
    /// It is to get the outcome's state and note, and the write's fence.
    Anew,
}

/// Judges one settlement of an accepted `write` on its receipt, as [`Outcome`] documents.
pub(super) fn judge_settlement(
    receipt: Option<&StoredReceipt>,
    write: &Write,
    settlement: &Settlement,
) -> Result<Settling, StoreError> {
    let refuse = |message: String| {
        Err(StoreError::NotSettled {
            player: write.player,
            purchase: settlement.purchase.clone(),
            message,
        })
    };
    let Some(receipt) = receipt else {
        return refuse("there is no such receipt".to_owned());
    };
    if receipt.player != Some(write.player) {
        return refuse("it is not this player's".to_owned());
    }
    let ours = receipt.settled_fence == Some(write.fence);
    match (receipt.state, &settlement.outcome) {
        (ReceiptState::Pending, Outcome::Granted | Outcome::Refused { .. }) => Ok(Settling::Anew),
        (ReceiptState::Pending | ReceiptState::Granted, Outcome::Refunded { .. })
            if receipt.refund_requested =>
        {
            Ok(Settling::Anew)
        }
        // An earlier write of this session landed, and its answer was lost.
        (ReceiptState::Granted, Outcome::Granted)
        | (ReceiptState::Refused, Outcome::Refused { .. })
        | (ReceiptState::Refunded, Outcome::Refunded { .. })
            if ours =>
        {
            Ok(Settling::Again)
        }
        // That write had gone on to the refund, as this one does. Alone, it would award what was never granted.
        (ReceiptState::Refunded, Outcome::Granted) if ours && goes_on_to_refund(write, settlement) => {
            Ok(Settling::Again)
        }
        (state, Outcome::Refunded { .. }) if !receipt.refund_requested => {
            refuse(format!("it is {state}, and no refund was asked for"))
        }
        (state, outcome) => refuse(format!(
            "it is {state} already, and can't become {}",
            outcome.state()
        )),
    }
}

/// Whether the same write takes back what this settlement grants.
fn goes_on_to_refund(write: &Write, granted: &Settlement) -> bool {
    let later = write
        .settle
        .iter()
        .skip_while(|settlement| *settlement != granted);
    later
        .filter(|settlement| settlement.purchase == granted.purchase)
        .any(|settlement| matches!(settlement.outcome, Outcome::Refunded { .. }))
}

/// What handing in a receipt does to the one that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// There is none: it is to be inserted, with this mark for a refund.
    Insert { refund_requested: bool },
    /// It is to be marked for a refund.
    MarkForRefund,
    /// It is known: nothing is to be changed.
    Again,
}

/// Judges a receipt that is handed in on what is stored under its id.
pub(super) fn judge_arrival(
    known: Option<&StoredReceipt>,
    receipt: &NewReceipt,
    notice: Notice,
) -> Result<Arrival, StoreError> {
    let length = receipt.payload.as_ref().map_or(0, bytes::Bytes::len);
    if length > NewReceipt::PAYLOAD_LIMIT {
        return Err(StoreError::rejected(format_args!(
            "the payload of purchase `{}` has {length} bytes, and at most {} are kept",
            receipt.purchase,
            NewReceipt::PAYLOAD_LIMIT
        )));
    }
    let Some(known) = known else {
        return Ok(Arrival::Insert {
            refund_requested: notice == Notice::Refund,
        });
    };
    // Of an erased player only the purchase id is left, and nothing to disagree with.
    let Some(player) = known.player else {
        return Ok(Arrival::Again);
    };
    if player != receipt.player || known.product.as_ref() != Some(&receipt.product) {
        return Err(StoreError::Conflict {
            purchase: receipt.purchase.clone(),
        });
    }
    Ok(if notice == Notice::Refund && !known.refund_requested {
        Arrival::MarkForRefund
    } else {
        Arrival::Again
    })
}

/// One more, for a number that must never go back to a smaller one.
fn next(number: u64, what: &str, player: PlayerId) -> Result<u64, StoreError> {
    number
        .checked_add(1)
        .filter(|&next| next <= LARGEST)
        .ok_or_else(|| {
            StoreError::corrupt(format_args!(
                "the {what} of player {player} has reached {number}, the last one"
            ))
        })
}
