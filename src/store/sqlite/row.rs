//! Reading columns without trusting them: the file may have been written by anybody.

use std::fmt;

use bytes::Bytes;
use rusqlite::{Row, types::FromSql};

use super::{
    super::{
        LockId, ServerId,
        rules::{Held, LockState},
    },
    error::Failure,
};

/// How the columns spell "nobody".
pub(super) const FREE: [u8; 16] = [0; 16];

/// The columns of [`lock_state`], in the order in which it reads them.
macro_rules! lock_columns {
    () => {
        "version, fence, last_seq, lock_id, server"
    };
}
pub(super) use lock_columns;

/// The number of columns that [`lock_state`] reads.
pub(super) const LOCK_COLUMNS: usize = 5;

/// Reads a column, or says which one of whose row is malformed.
pub(super) fn column<T: FromSql>(
    row: &Row<'_>,
    index: usize,
    whose: impl fmt::Display,
) -> Result<T, Failure> {
    row.get(index)
        .map_err(|error| malformed(row, index, whose, error))
}

/// Reads a number that this crate counts up from zero.
pub(super) fn count(row: &Row<'_>, index: usize, whose: impl fmt::Display) -> Result<u64, Failure> {
    let number: i64 = column(row, index, &whose)?;
    u64::try_from(number).map_err(|error| malformed(row, index, whose, error))
}

/// Reads a document that may never have been saved.
pub(super) fn document(
    row: &Row<'_>,
    index: usize,
    whose: impl fmt::Display,
) -> Result<Option<Bytes>, Failure> {
    Ok(column::<Option<Vec<u8>>>(row, index, whose)?.map(Bytes::from))
}

/// Reads the columns that locks and writes are judged by; the first of them has the index `first`.
pub(super) fn lock_state(
    row: &Row<'_>,
    first: usize,
    whose: impl fmt::Display,
) -> Result<LockState, Failure> {
    let lock: [u8; 16] = column(row, first + 3, &whose)?;
    let server: [u8; 16] = column(row, first + 4, &whose)?;
    Ok(LockState {
        version: count(row, first, &whose)?,
        fence: count(row, first + 1, &whose)?,
        last_seq: count(row, first + 2, &whose)?,
        held: (lock != FREE).then(|| Held {
            lock: LockId::from_bytes(lock),
            server: ServerId::from_bytes(server),
        }),
    })
}

/// The reverse of what [`lock_state`] does with `lock_id` and `server`.
pub(super) fn lock_and_server(held: Option<Held>) -> ([u8; 16], [u8; 16]) {
    held.map_or((FREE, FREE), |held| {
        (held.lock.into_bytes(), held.server.into_bytes())
    })
}

pub(super) fn malformed(
    row: &Row<'_>,
    index: usize,
    whose: impl fmt::Display,
    why: impl fmt::Display,
) -> Failure {
    let column = row.as_ref().column_name(index).unwrap_or("?");
    Failure::Malformed(format!(
        "the column `{column}` of {whose} cannot be read ({why}): restore it from a backup"
    ))
}
