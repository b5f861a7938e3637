//! The rules by which every store judges rows that are [taken in](super::Store::import) from another one.
//!
//! Like [`rules`](super::rules), pure functions over what the store's transaction has read.

use super::{
    Record, StoreError, StoredReceipt,
    rules::{LockState, check_erase},
};

/// What taking in a row of another store does to the one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// There is none.
    Insert,
    /// It is older, and to be replaced.
    Replace,
    /// It is the same.
    Again,
}

/// Judges a player's row that is taken in on the one that is there; `name` is that of the server which holds its lock.
///
/// One that was played on here is refused if that shows in its fence or its version. Where the other store has gone on
/// at least as far, neither says so, and the row that is taken in replaces it.
pub(super) fn judge_record(
    known: Option<(LockState, Option<&[u8]>)>,
    name: Option<String>,
    record: &Record,
) -> Result<Taking, StoreError> {
    let Some((state, document)) = known else {
        return Ok(Taking::Insert);
    };
    check_erase(record.player, state.held, name)?;
    if state.fence > record.fence || state.version > record.version {
        return Err(StoreError::rejected(format_args!(
            "player {} has been played on here since (version {}, and {} would replace it): erase them here first, if that \
             is meant",
            record.player, state.version, record.version
        )));
    }
    let is_same = state == taken_in(record) && document == record.document.as_deref();
    Ok(if is_same { Taking::Again } else { Taking::Replace })
}

/// What a row that is taken in becomes: free.
pub(super) fn taken_in(record: &Record) -> LockState {
    LockState {
        version: record.version,
        fence: record.fence,
        last_seq: record.last_seq,
        held: None,
    }
}

/// Judges a receipt that is taken in on the one that is there under its id.
pub(super) fn judge_receipt(
    known: Option<&StoredReceipt>,
    receipt: &StoredReceipt,
) -> Result<Taking, StoreError> {
    let Some(known) = known else {
        return Ok(Taking::Insert);
    };
    if known == receipt {
        return Ok(Taking::Again);
    }
    let is_newer_here = known.settled_fence > receipt.settled_fence
        || (known.refund_requested && !receipt.refund_requested)
        || (known.player.is_none() && receipt.player.is_some());
    if known.number == receipt.number && is_newer_here {
        return Err(StoreError::rejected(format_args!(
            "purchase `{}` has gone on here since it was copied (it was settled, marked for a refund, or its player erased)",
            receipt.purchase
        )));
    }
    if known.number != receipt.number {
        return Err(StoreError::rejected(format_args!(
            "purchase `{}` is here already, and not from that store",
            receipt.purchase
        )));
    }
    Ok(Taking::Replace)
}

/// Refuses a new receipt whose number is another one's.
pub(super) fn number_taken(receipt: &StoredReceipt) -> StoreError {
    StoreError::rejected(format_args!(
        "purchase `{}` has the number {} there, which is another receipt's here: copy into a store without receipts of \
         its own",
        receipt.purchase, receipt.number
    ))
}
