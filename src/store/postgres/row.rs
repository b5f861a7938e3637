//! Reading columns without trusting them: the tables may have been written by anybody.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

use super::{
    super::{
        LockId, ReceiptState, ServerId, ServerLease, StoredReceipt,
        rules::{Held, LockState},
    },
    error::Failure,
};
use crate::id::{PlayerId, ProductId, PurchaseId};

/// The columns of [`Columns::lock_state`], in the order in which it reads them.
macro_rules! lock_columns {
    () => {
        "version, fence, last_seq, lock_id, server"
    };
}
pub(super) use lock_columns;

/// The number of columns that [`Columns::lock_state`] reads.
pub(super) const LOCK_COLUMNS: usize = 5;

/// The columns of [`Columns::receipt`], in the order in which it reads them.
macro_rules! receipt_columns {
    () => {
        "number, purchase_id, player_id, product_id, state, refund_requested, settled_fence, note, payload, \
         received_at, settled_at"
    };
}
pub(super) use receipt_columns;

/// What makes a receipt open, as the index `open_receipts` spells it.
macro_rules! is_open {
    () => {
        "(state = 'pending' OR (state = 'granted' AND refund_requested))"
    };
}
pub(super) use is_open;

/// Reading the columns of a row.
pub(super) trait Columns {
    /// Reads a column, or says which one of whose row is malformed.
    fn column<T: for<'a> FromSql<'a>>(&self, index: usize, whose: impl fmt::Display) -> Result<T, Failure>;

    fn malformed(&self, index: usize, whose: impl fmt::Display, why: impl fmt::Display) -> Failure;

    /// Reads a number that this crate counts up from zero.
    fn count(&self, index: usize, whose: impl fmt::Display) -> Result<u64, Failure> {
        let number: i64 = self.column(index, &whose)?;
        u64::try_from(number).map_err(|error| self.malformed(index, whose, error))
    }

    fn player(&self, index: usize) -> Result<PlayerId, Failure> {
        Ok(PlayerId::from_uuid(self.column(index, "a player")?))
    }

    /// Reads bytes that may not be there.
    fn bytes(&self, index: usize, whose: impl fmt::Display) -> Result<Option<Bytes>, Failure> {
        Ok(self.column::<Option<Vec<u8>>>(index, whose)?.map(Bytes::from))
    }

    /// Reads the columns that locks and writes are judged by; the first of them has the index `first`.
    fn lock_state(&self, first: usize, whose: impl fmt::Display) -> Result<LockState, Failure> {
        let lock: Uuid = self.column(first + 3, &whose)?;
        let server: Uuid = self.column(first + 4, &whose)?;
        Ok(LockState {
            version: self.count(first, &whose)?,
            fence: self.count(first + 1, &whose)?,
            last_seq: self.count(first + 2, &whose)?,
            held: (!lock.is_nil()).then(|| Held {
                lock: LockId::from_bytes(lock.into_bytes()),
                server: ServerId::from_bytes(server.into_bytes()),
            }),
        })
    }

    /// Reads `boot_id, name, beat`.
    fn server_lease(&self) -> Result<ServerLease, Failure> {
        let whose = "a row of `servers`";
        let name: String = self.column(1, whose)?;
        Ok(ServerLease {
            server: ServerId::from_bytes(self.column::<Uuid>(0, whose)?.into_bytes()),
            name: from_text(&name),
            beat: self.count(2, whose)?,
        })
    }

    fn receipt(&self) -> Result<StoredReceipt, Failure> {
        let id: String = self.column(1, "a receipt")?;
        let whose = format_args!("purchase `{id}`");
        let player: Option<Uuid> = self.column(2, whose)?;
        let product: Option<String> = self.column(3, whose)?;
        let state: String = self.column(4, whose)?;
        let settled_fence: Option<i64> = self.column(6, whose)?;
        let note: Option<String> = self.column(7, whose)?;
        Ok(StoredReceipt {
            number: self.count(0, whose)?,
            purchase: PurchaseId::new(&id).map_err(|error| self.malformed(1, whose, error))?,
            player: player.map(PlayerId::from_uuid),
            product: product
                .map(ProductId::new)
                .transpose()
                .map_err(|error| self.malformed(3, whose, error))?,
            state: ReceiptState::from_name(&state)
                .ok_or_else(|| self.malformed(4, whose, format_args!("there is no state `{state}`")))?,
            refund_requested: self.column(5, whose)?,
            settled_fence: settled_fence
                .map(u64::try_from)
                .transpose()
                .map_err(|error| self.malformed(6, whose, error))?,
            note: note.map(|note| from_text(&note)),
            payload: self.bytes(8, whose)?,
            received_at: self.column(9, whose)?,
            settled_at: self.column(10, whose)?,
        })
    }
}

impl Columns for Row {
    fn column<T: for<'a> FromSql<'a>>(&self, index: usize, whose: impl fmt::Display) -> Result<T, Failure> {
        self.try_get(index)
            .map_err(|error| self.malformed(index, whose, error))
    }

    fn malformed(&self, index: usize, whose: impl fmt::Display, why: impl fmt::Display) -> Failure {
        let column = self.columns().get(index).map_or("?", |column| column.name());
        Failure::Malformed(format!(
            "the column `{column}` of {whose} cannot be read ({why}): restore it from a backup"
        ))
    }
}

/// The reverse of what [`Columns::lock_state`] does with `lock_id` and `server`.
pub(super) fn lock_and_server(held: Option<Held>) -> (Uuid, Uuid) {
    held.map_or((Uuid::nil(), Uuid::nil()), |held| {
        (id(held.lock.into_bytes()), id(held.server.into_bytes()))
    })
}

pub(super) const fn id(bytes: [u8; 16]) -> Uuid {
    Uuid::from_bytes(bytes)
}

/// A number as SQL stores it.
pub(super) fn sql(number: u64) -> Result<i64, Failure> {
    i64::try_from(number)
        .map_err(|_| Failure::Malformed(format!("the number {number} does not fit a column")))
}

/// Stands in for the one character that PostgreSQL's texts can't hold.
const NUL: char = '␀';

/// A text as PostgreSQL can hold it: without NUL, and never the same for two texts.
pub(super) fn to_text(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', NUL]) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => stored.extend([NUL, '0']),
            NUL => stored.extend([NUL, NUL]),
            other => stored.push(other),
        }
    }
    Cow::Owned(stored)
}

/// The reverse of [`to_text`].
pub(super) fn from_text(stored: &str) -> String {
    let mut text = String::with_capacity(stored.len());
    let mut characters = stored.chars();
    while let Some(character) = characters.next() {
        if character != NUL {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('0') => text.push('\0'),
            other => text.extend(other.or(Some(NUL))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_none_is_stored_with_a_nul() {
        let texts = ["", "plain", "nul\0byte", "␀", "␀0", "\0\0", "␀\0", "\0␀", "a␀␀0b"];
        let mut stored = std::collections::HashSet::new();
        for text in texts {
            let as_stored = to_text(text).into_owned();
            assert!(!as_stored.contains('\0'));
            assert_eq!(from_text(&as_stored), text);
            assert!(stored.insert(as_stored), "two texts are stored as one");
        }
    }
}
