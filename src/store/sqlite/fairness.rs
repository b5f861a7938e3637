//! Giving way to other processes that write to the same file.
//!
//! SQLite's write lock has no queue. Whoever wants it asks again every few milliseconds, while a writer with work to do
//! takes it back within microseconds: without this, whoever has it keeps it, and others wait for a tenth of a second
//! and more.

use std::{
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

/// For how long a writer gives way after it last noticed somebody.
const REMEMBERED: Duration = Duration::from_millis(100);
/// How long it leaves the lock alone after a transaction: somewhat longer than the others sleep before they ask again.
/// What is asked for meanwhile shares the next transaction.
const PAUSE: Duration = Duration::from_micros(1500);
/// A transaction that took so long to begin had to wait for somebody.
const WAITED: Duration = Duration::from_micros(500);

/// What one writer has noticed of others.
#[derive(Default)]
pub(super) struct Fairness {
    noticed: Option<Instant>,
    /// What SQLite calls the file's state; it changes when others commit, and not when this connection does.
    version: Option<i64>,
}

impl Fairness {
    /// Begins a transaction, and notices whether it had to wait.
    pub(super) fn begin<T>(&mut self, begin: impl FnOnce() -> T) -> T {
        let asked = Instant::now();
        let begun = begin();
        if asked.elapsed() >= WAITED {
            self.noticed = Some(Instant::now());
        }
        begun
    }

    /// Leaves the lock alone for a moment after a transaction, if somebody may be waiting for it.
    pub(super) fn give_way(&mut self, connection: &Connection) {
        let version = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        // When it can't be told, nobody gives way.
        let Ok(version) = version else { return };
        if self
            .version
            .replace(version)
            .is_some_and(|before| before != version)
        {
            self.noticed = Some(Instant::now());
        }
        if self.noticed.is_some_and(|noticed| noticed.elapsed() < REMEMBERED) {
            thread::sleep(PAUSE);
        }
    }
}
