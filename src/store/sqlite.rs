//! The store in one SQLite file: durable on one host, shared by any number of server processes there.
//!
//! The module owns [`SqliteStore`] and its threads: one that writes (`writer`, with the statements in `tables`), one
//! that reads (`reader`) and one that folds the log into the database (`checkpointer`). It promises that nobody is
//! answered before what they asked for is on disk, and that a file which is not ours is never touched (`file`,
//! `schema`). The rules themselves are the parent module's; ordering and retries are the session's.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Import, Lease, Leases, LockId,
    NewReceipt, Notice, Record, ServerId, Store, StoreError, StoredReceipt, Wish, Wishes,
};
use crate::id::{PlayerId, PurchaseId};

mod checkpointer;
mod error;
mod fairness;
mod file;
mod import;
mod names;
mod reader;
mod receipts;
mod row;
mod schema;
mod tables;
mod wishes;
mod worker;
mod writer;

use writer::{Changes, Size};

/// A [`Store`] in an SQLite file (SQLite is compiled in).
///
/// - **Durable.** The file is in write-ahead-log mode with `synchronous=FULL`: what was acknowledged survives `kill -9`
///   and a power cut.
/// - **Fast.** What is asked for while one transaction is being written to disk shares the next one.
/// - **Shared.** Several server processes on one host may open one file. Never put it on a network file system.
/// - **Names.** A server holds its name by a lock on the file `<database>-server-<name>`, which the operating system
///   gives back when the process ends, however it ends. These files stay; they may be deleted while no server runs.
///
/// A clone is another handle to the same threads. Dropping the last handle finishes what is queued, closes the file and
/// gives the servers' names back before it returns, which takes as long as the disk does; dropping it without
/// [`Store::retire`] is what a crash is to other servers, except that nothing is lost.
///
/// A request is sent when its future is first polled; dropping the future afterwards doesn't take it back.
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

/// The threads. Fields are dropped in order: the writer is the last to close the file, and tidies its log up.
struct Shared {
    reader: reader::Reader,
    writer: writer::Writer,
    path: PathBuf,
}

/// How a [`SqliteStore`] behaves.
///
/// ```no_run
/// # use std::time::Duration;
/// # use bevy_player_data::store::{SqliteSettings, SqliteStore};
/// let settings = SqliteSettings { busy_timeout: Duration::from_secs(2), ..SqliteSettings::default() };
/// let store = SqliteStore::open_with("players.db", settings);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteSettings {
    /// How long a request waits while another process is writing to the file, before it is answered with
    /// [`StoreError::Unavailable`]. Default: 5 seconds.
    pub busy_timeout: Duration,
    /// The size in bytes that the database may grow to (its log, a few dozen MiB, not counted); beyond it saves that need
    /// more room are answered with [`StoreError::Unavailable`], as on a full disk. Default: `None`, no limit.
    pub max_bytes: Option<u64>,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            max_bytes: None,
        }
    }
}

impl SqliteStore {
    /// Opens the database at `path`, creating it when there is no such file (its folder must exist).
    ///
    /// Blocks for as long as the disk takes: call it before the game loop starts.
    ///
    /// # Errors
    /// One sentence that names the path and what to do. [`StoreError::Rejected`] when the path cannot be a database of
    /// this version of the crate (a folder, another kind of file, another application's database, a newer schema);
    /// [`StoreError::Corrupt`] when the file is damaged; [`StoreError::Unavailable`] when it cannot be opened or written
    /// now (permissions, a full disk, another process that keeps it locked). The file is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, SqliteSettings::default())
    }

    /// [`open`](Self::open) with settings of your own.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, settings: SqliteSettings) -> Result<Self, StoreError> {
        let database = file::open(path.as_ref(), settings)?;
        let path = database.path.clone();
        let folding = file::open_for_folding(&path, settings)?;
        let checkpointer = checkpointer::Checkpointer::start(folding, &path)?;
        let writer = writer::Writer::start(database, checkpointer)?;
        let reader = reader::Reader::start(file::open_for_reading(&path, settings)?, &path)?;
        tracing::info!("opened player data store `{}`", path.display());
        Ok(Self {
            shared: Arc::new(Shared { reader, writer, path }),
        })
    }

    /// The database's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl Store for SqliteStore {
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(
            self.shared
                .writer
                .ask(Size::of(Changes::Several), move |tables| tables.lease(&lease)),
        )
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(self.shared.reader.ask(tables::leases))
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(
            self.shared
                .writer
                .ask(Size::of(Changes::Single), move |tables| tables.retire(server)),
        )
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        Box::pin(
            self.shared
                .writer
                .ask(Size::of(Changes::Single), move |tables| tables.acquire(&acquire)),
        )
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        let documents = commit.writes.iter().filter_map(|write| write.document.as_ref());
        let size = Size {
            bytes: documents.map(bytes::Bytes::len).sum(),
            changes: match &commit.writes[..] {
                [write] if write.settle.is_empty() => Changes::Single,
                _ => Changes::Several,
            },
        };
        Box::pin(self.shared.writer.ask(size, move |tables| tables.commit(&commit)))
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(
            self.shared
                .reader
                .ask(move |connection| reader::peek(connection, player)),
        )
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        Box::pin(
            self.shared
                .reader
                .ask(move |connection| reader::list(connection, after, limit)),
        )
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(
            self.shared
                .writer
                .ask(Size::of(Changes::Several), move |tables| tables.erase(player)),
        )
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        let size = Size {
            bytes: receipts::weight(&receipt),
            changes: Changes::Single,
        };
        Box::pin(
            self.shared
                .writer
                .ask(size, move |tables| tables.enqueue(&receipt, notice)),
        )
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        Box::pin(
            self.shared
                .reader
                .ask(move |connection| receipts::receipt(connection, &purchase)),
        )
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(
            self.shared
                .reader
                .ask(move |connection| receipts::open_receipts(connection, player)),
        )
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(
            self.shared
                .reader
                .ask(move |connection| receipts::receipts_of(connection, player, before, limit)),
        )
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        Box::pin(self.shared.reader.look(since))
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(
            self.shared
                .writer
                .ask(Size::of(Changes::Single), move |tables| tables.wish(&wish)),
        )
    }

    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.shared.writer.ask(Size::of(Changes::Single), move |tables| {
            tables.withdraw(player, lock)
        }))
    }

    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>> {
        Box::pin(self.shared.reader.look_for_wishes(server))
    }

    fn all_receipts(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(
            self.shared
                .reader
                .ask(move |connection| receipts::all_receipts(connection, after, limit)),
        )
    }

    fn import(&self, rows: Import) -> BoxFuture<'_, Result<(), StoreError>> {
        let documents = rows.records.iter().filter_map(|record| record.document.as_ref());
        let payloads = rows
            .receipts
            .iter()
            .filter_map(|receipt| receipt.payload.as_ref());
        let size = Size {
            bytes: documents.chain(payloads).map(bytes::Bytes::len).sum(),
            changes: Changes::Several,
        };
        Box::pin(self.shared.writer.ask(size, move |tables| tables.import(&rows)))
    }
}
