//! The thread that folds the log back into the database, so that nobody who asks for something waits for it.
//!
//! SQLite would do it within whichever commit finds the log long. Here that is left for a log that has become much longer
//! than the thread should ever let it: SQLite starts a log over only when no part of it is left to fold, which a writer
//! that never rests doesn't let happen by itself. Either way the log's file keeps its size and is written over from its
//! beginning: that is faster than letting a file grow.

use std::{path::Path, sync::mpsc, time::Duration};

use rusqlite::Connection;

use super::{super::StoreError, error::explain, worker::Worker};

/// After how many pages the thread folds the log, as often as SQLite would by itself.
const PAGES: usize = 1000;

/// The length at which the writer folds what the thread has left, in pages: four turns of the thread.
pub(super) const MOST_PAGES: i64 = 4 * PAGES as i64;

/// How long the thread may hold others up to start a log over that has become too long.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// The handle to the thread.
pub(super) struct Checkpointer {
    worker: Worker<()>,
    /// What was written to the log since the thread was last told, roughly.
    pages: usize,
}

impl Checkpointer {
    pub(super) fn start(connection: Connection, path: &Path) -> Result<Self, StoreError> {
        let owned = path.to_owned();
        let serve = move |nudges: mpsc::Receiver<()>| {
            while nudges.recv().is_ok() {
                // One turn does for all who have asked for it meanwhile.
                while nudges.try_recv().is_ok() {}
                if let Err(error) = fold(&connection) {
                    let why = explain(&owned, &error);
                    tracing::warn!("the log could not be folded into the database, and grows: {why}");
                }
            }
        };
        let worker = Worker::start("player data checkpoints", path, serve)?;
        Ok(Self { worker, pages: 0 })
    }

    /// Hears of a transaction that changed about so many pages.
    pub(super) fn note(&mut self, pages: usize) {
        self.pages += pages;
        if self.pages >= PAGES {
            self.pages = 0;
            self.worker.tell(());
        }
    }
}

/// Folds as much of the log as can be without waiting for anybody. A log that has become too long all the same, because
/// somebody is always reading some part of it that others have not folded yet, is folded with everybody held up for a
/// moment.
fn fold(connection: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = connection
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
        .query_row([], |row| row.get(1))?;
    if pages > 2 * MOST_PAGES {
        // From here on new readers need nothing of the log, so this comes to an end even if they never rest.
        connection
            .prepare_cached("PRAGMA wal_checkpoint(RESTART)")?
            .query_row([], |_| Ok(()))?;
    }
    Ok(())
}
