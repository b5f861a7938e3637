//! What SQLite's errors mean to whoever asked, in one sentence with the path and what to do next.

use std::path::Path;

use rusqlite::{Error, ErrorCode};

use super::super::StoreError;

/// Why a request did not happen: the rules refused it, or SQLite failed.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(StoreError),
    Sqlite(Error),
    /// A column holds what this crate never writes: which, of whose row, and what is wrong with it.
    Malformed(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    /// The answer to whoever asked.
    pub(super) fn explain(self, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Sqlite(error) => explain(path, &error),
            Self::Malformed(what) => StoreError::corrupt(format_args!("in `{}`, {what}", path.display())),
        }
    }
}

/// The answer to whoever's request met this error.
pub(super) fn explain(path: &Path, error: &Error) -> StoreError {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::unavailable(format_args!(
            "`{path}` cannot grow: the disk is full, or the database has reached its size limit; make room"
        )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::unavailable(format_args!(
            "another process holds the write lock on `{path}`; if it keeps it, find that process and end it"
        )),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::unavailable(format_args!(
            "`{path}` cannot be written: give this user write permission on the file and on its folder"
        )),
        Some(ErrorCode::CannotOpen) => StoreError::unavailable(format_args!(
            "`{path}` cannot be opened for writing: check the permissions of the file and of its folder"
        )),
        Some(ErrorCode::SystemIoFailure) => StoreError::unavailable(format_args!(
            "reading or writing `{path}` failed ({error}): check the disk, and that it is not a network one"
        )),
        Some(ErrorCode::DatabaseCorrupt) => StoreError::corrupt(format_args!(
            "`{path}` is damaged or truncated ({error}): restore it from a backup, or rescue what is left with \
             `sqlite3 {path} .recover`"
        )),
        Some(ErrorCode::NotADatabase) => StoreError::corrupt(format_args!(
            "`{path}` is not an SQLite database any more: restore it from a backup"
        )),
        Some(ErrorCode::TooBig) => StoreError::rejected(format_args!(
            "a document is larger than what one row of `{path}` can hold: make it smaller"
        )),
        Some(ErrorCode::ConstraintViolation) => {
            StoreError::rejected(format_args!("a row violates a constraint of `{path}` ({error})"))
        }
        _ => StoreError::unavailable(format_args!("a statement on `{path}` failed ({error})")),
    }
}
