//! What PostgreSQL's errors mean to whoever asked, in one sentence with what to do next.
//!
//! Nothing here quotes a password: the driver's own texts about connection strings are never passed on.

use std::{error::Error as _, fmt};

use tokio_postgres::{Error, error::SqlState};

use super::{super::StoreError, target::Target};

/// Why a request did not happen.
#[derive(Debug)]
pub(super) enum Failure {
    /// The rules refused it.
    Refused(StoreError),
    /// The database refused a statement, and undid the transaction.
    Database(Error),
    /// No connection could be had: why, for people. Nothing was sent.
    NoConnection(String),
    /// There was no answer, or none that can be relied upon. What was asked for may or may not have happened.
    Unknown(String),
    /// A column holds what this crate never writes: which, of whose row, and what is wrong with it.
    Malformed(String),
}

/// What follows from an error of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// The same transaction may well succeed when it is run once more: it met another one.
    RunAgain,
    /// It may be the fault of one request among several: they are to be tried one by one.
    OneByOne,
    /// It has nothing to do with what was asked for.
    Everybody,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.as_db_error() {
            // The database itself can't tell.
            Some(known) if *known.code() == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN => {
                Self::Unknown(known.message().to_owned())
            }
            Some(_) => Self::Database(error),
            None => Self::Unknown(with_causes(&error)),
        }
    }
}

impl Failure {
    pub(super) fn consequence(&self) -> Consequence {
        let error = match self {
            Self::Database(error) => error,
            // One row of theirs.
            Self::Malformed(_) => return Consequence::OneByOne,
            _ => return Consequence::Everybody,
        };
        match error.code() {
            Some(
                &(SqlState::T_R_SERIALIZATION_FAILURE
                | SqlState::T_R_DEADLOCK_DETECTED
                // A lease that has changed since it was judged, as `write_back` says it.
                | SqlState::INVALID_ARGUMENT_FOR_LOG),
            ) => Consequence::RunAgain,
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || is_about_the_data(code) => {
                Consequence::OneByOne
            }
            _ => Consequence::Everybody,
        }
    }

    /// Whether the connection may be used again, once its transaction is rolled back.
    pub(super) fn leaves_the_connection_usable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Malformed(_) => true,
            Self::Database(_) => self.consequence() != Consequence::Everybody,
            Self::NoConnection(_) | Self::Unknown(_) => false,
        }
    }

    /// Whether other connections to the same server are likely to be as bad.
    pub(super) fn is_about_the_server(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Database(error) => error.code().is_some_and(|code| {
                *code == SqlState::READ_ONLY_SQL_TRANSACTION
                    || *code == SqlState::FEATURE_NOT_SUPPORTED
                    || code.code().starts_with("57P")
            }),
            _ => false,
        }
    }

    /// The answer to whoever asked.
    pub(super) fn explain(self, target: &Target) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::NoConnection(why) => StoreError::unavailable(why),
            Self::Unknown(why) => StoreError::unavailable(format_args!(
                "{target} gave no answer that can be relied upon ({why})"
            )),
            Self::Malformed(what) => StoreError::corrupt(format_args!("in {target}, {what}")),
            Self::Database(error) => explain(&error, target),
        }
    }
}

/// Errors that the values of one row can cause: bad data, a violated constraint, a limit of the program, a damaged page.
fn is_about_the_data(code: &SqlState) -> bool {
    is_of(code, &["22", "23", "54", "XX"])
}

/// Whether it is of one of these classes: what the first two characters say.
fn is_of(code: &SqlState, classes: &[&str]) -> bool {
    classes.iter().any(|class| code.code().starts_with(class))
}

fn explain(error: &Error, target: &Target) -> StoreError {
    let (Some(code), text) = (error.code(), message(error)) else {
        return StoreError::unavailable(format_args!("{target} failed ({})", with_causes(error)));
    };
    match *code {
        SqlState::DIVISION_BY_ZERO => StoreError::unavailable(format_args!(
            "a statement on {target} changed another number of rows than it had locked: look for triggers, rules or \
             row-level security on the tables, and remove them"
        )),
        SqlState::INVALID_ARGUMENT_FOR_LOG => StoreError::unavailable(format_args!(
            "a server's lease on {target} changed each time that a lock was about to be granted on it"
        )),
        SqlState::LOCK_NOT_AVAILABLE => StoreError::unavailable(format_args!(
            "somebody else holds a lock on a row of {target}; if they keep it, look for them in `pg_locks` and end \
             their transaction"
        )),
        SqlState::INSUFFICIENT_PRIVILEGE => StoreError::unavailable(format_args!(
            "the user `{}` lacks a right on {target} ({text}): grant it, or make this user the tables' owner",
            target.user
        )),
        SqlState::READ_ONLY_SQL_TRANSACTION | SqlState::FEATURE_NOT_SUPPORTED => StoreError::unavailable(
            format_args!("{target} takes no writes now ({text}): a failover may be under way"),
        ),
        SqlState::DISK_FULL => {
            StoreError::unavailable(format_args!("the disk of {target} is full: make room"))
        }
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => StoreError::unavailable(format_args!(
            "a table of {target} is gone or was changed ({text}): restore it from a backup"
        )),
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => StoreError::corrupt(format_args!(
            "{target} is damaged ({text}): restore it from a backup"
        )),
        // The program's limits are the whole database's as well (transaction ids that run out, a queue that is full), and
        // pass: nothing may be given up for that.
        ref code if is_of(code, &["22", "23"]) => {
            StoreError::rejected(format_args!("{target} doesn't take these values ({text})"))
        }
        _ => StoreError::unavailable(format_args!(
            "a statement on {target} failed ({text}, {})",
            code.code()
        )),
    }
}

fn message(error: &Error) -> &str {
    error.as_db_error().map_or("", |known| known.message())
}

/// An error of the driver's, which keeps what happened in its causes.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Why a host will not do.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What is wrong, as the end of a sentence that begins with the host.
    pub(super) why: String,
    /// Whether it takes somebody to change something before it can get better.
    pub(super) is_lasting: bool,
}

impl Refusal {
    pub(super) fn lasting(why: impl fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            is_lasting: true,
        }
    }

    pub(super) fn passing(why: impl fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            is_lasting: false,
        }
    }

    /// What a failed attempt to connect means.
    pub(super) fn from_connecting(error: &Error, target: &Target) -> Self {
        let Target { user, database, .. } = target;
        let Some(code) = error.code() else {
            return Self::from_driver(error);
        };
        match *code {
            SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                Self::lasting(format_args!(
                    "does not let the user `{user}` in ({}): check user and password in the URL, or `PGUSER` and \
                     `PGPASSWORD`, and the server's `pg_hba.conf`",
                    message(error)
                ))
            }
            SqlState::INVALID_CATALOG_NAME => Self::lasting(format_args!(
                "has no database `{database}`: create it with `createdb {database}`"
            )),
            SqlState::INSUFFICIENT_PRIVILEGE => Self::lasting(format_args!(
                "does not let the user `{user}` use the database `{database}` ({}): grant them the right",
                message(error)
            )),
            SqlState::TOO_MANY_CONNECTIONS => Self::passing(
                "has no connection left: raise its `max_connections`, or lower `PostgresSettings::connections`",
            ),
            SqlState::CANNOT_CONNECT_NOW => Self::passing("is starting up or shutting down: wait for it"),
            _ => Self::passing(format_args!(
                "refused the connection ({}, {})",
                message(error),
                code.code()
            )),
        }
    }

    fn from_driver(error: &Error) -> Self {
        // The driver's kinds are private; its texts say which one it is, and none of these has a secret in it.
        let text = error.to_string();
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        if text.contains("TLS") {
            return Self::lasting(format_args!(
                "and this server can't agree on TLS ({cause}): check `sslmode`, and name the authority that signed \
                 its certificate with `sslrootcert`"
            ));
        }
        if text.contains("configuration") || text.contains("authentication") {
            return Self::lasting(format_args!(
                "asks for a password or a method that the URL doesn't have ({cause}): give the password in the URL, or \
                 in `PGPASSWORD`"
            ));
        }
        if cause.contains("does not allow writes") {
            return Self::passing("takes no writes: it is a standby, or set to be read-only");
        }
        Self::passing(format_args!(
            "can't be reached ({}): check that it runs there, and the firewalls in between",
            with_causes(error)
        ))
    }
}
