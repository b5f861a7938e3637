//! Opening a file that may be anything.
//!
//! It promises that a file which is not ours, is newer or is damaged keeps its bytes: everything is read before
//! anything is written, first without taking locks or looking at a log (so that not even a recovery happens), then as
//! SQLite sees it. The database file is only ever opened by SQLite: closing a descriptor of our own would drop the
//! POSIX locks that other handles of this process hold on it.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::{
    super::StoreError,
    SqliteSettings, checkpointer,
    error::{Failure, explain},
    schema::{self, Owner},
};

/// The size of the smallest SQLite database, in bytes. (SQLite takes anything smaller for an empty one.)
const SMALLEST: u64 = 512;
/// The page size of new files, in bytes.
const PAGE_SIZE: i64 = 4096;
/// The writer's page cache, in KiB.
const CACHE_KIB: i64 = 16 * 1024;
/// How many statements a connection keeps prepared: more than there are.
const STATEMENTS: usize = 64;
/// The size of a log's header, in bytes. A log that is no longer holds nothing; a file whose creation was cut short,
/// and whose rollback was as well, may be left with one.
const LOG_HEADER: u64 = 32;
/// More than a file that is being created ever has, in bytes: rolling its creation back empties it, which must not
/// happen to players' data that merely lie beside an old journal.
const LARGEST_NEW_FILE: u64 = 256 * 1024;
/// How a journal begins.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// The size that the log is cut back to when it is reset, in bytes.
const LOG_BYTES: i64 = 64 * 1024 * 1024;

/// A database that is ours, up to date and writable.
pub(super) struct Database {
    pub(super) connection: Connection,
    /// Absolute, without symbolic links.
    pub(super) path: PathBuf,
}

/// Opens the write connection, creating the file if there is none.
pub(super) fn open(path: &Path, settings: SqliteSettings) -> Result<Database, StoreError> {
    let path = resolve(path)?;
    let is_new = look(&path)?;
    if !is_new {
        if length(&path)? < SMALLEST {
            return Err(not_sqlite(&path));
        }
        match without_locks(&path).and_then(|connection| schema::owner(&connection)) {
            Err(error) if looks_torn(&error) && is_beside_its_remedy(&path)? => {}
            owner => refuse_strangers(&path, owner)?,
        }
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, is_new);
    let connection = connect(&path, flags, settings).map_err(|failure| failure.explain(&path))?;
    let connection = prepare(connection, &path, settings)?;
    Ok(Database { connection, path })
}

/// Opens another connection to a database that [`open`] has prepared, to read it.
pub(super) fn open_for_reading(path: &Path, settings: SqliteSettings) -> Result<Connection, StoreError> {
    let connection = open_again(path, settings)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(|error| explain(path, &error))?;
    Ok(connection)
}

/// Opens another connection to a database that [`open`] has prepared, to fold its log.
pub(super) fn open_for_folding(path: &Path, settings: SqliteSettings) -> Result<Connection, StoreError> {
    let mut connection = open_again(path, settings)?;
    connection
        .busy_handler(Some(patience(checkpointer::PATIENCE)))
        .map_err(|error| explain(path, &error))?;
    Ok(connection)
}

fn open_again(path: &Path, settings: SqliteSettings) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    connect(path, flags, settings).map_err(|failure| failure.explain(path))
}

/// The absolute path of a file that exists or could be created.
fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    // Absolute also keeps SQLite from taking `file:…` for a URI and `:memory:` for no file at all.
    let Ok(absolute) = std::path::absolute(path) else {
        return Err(StoreError::rejected(
            "the path of the database is empty: name a file, for example `players.db`",
        ));
    };
    let shown = absolute.display();
    match fs::metadata(&absolute) {
        Ok(metadata) if metadata.is_dir() => Err(StoreError::rejected(format_args!(
            "`{shown}` is a directory: name a file in it, for example `{}`",
            absolute.join("players.db").display()
        ))),
        Ok(metadata) if !metadata.is_file() => Err(StoreError::rejected(format_args!(
            "`{shown}` is not a regular file: give the path of an SQLite file or of one to create"
        ))),
        Ok(_) => fs::canonicalize(&absolute).map_err(|error| unreachable_path(&absolute, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => resolve_new(&absolute),
        Err(error) => Err(unreachable_path(&absolute, &error)),
    }
}

fn resolve_new(path: &Path) -> Result<PathBuf, StoreError> {
    let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(StoreError::rejected(format_args!(
            "`{}` does not name a file",
            path.display()
        )));
    };
    match fs::canonicalize(folder) {
        Ok(folder) => Ok(folder.join(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::rejected(format_args!(
            "`{}` cannot be created because its folder does not exist: create `{}` first",
            path.display(),
            folder.display()
        ))),
        Err(error) => Err(unreachable_path(path, &error)),
    }
}

fn unreachable_path(path: &Path, error: &io::Error) -> StoreError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotADirectory => StoreError::rejected(format_args!(
            "`{path}` leads through something that is not a folder: correct the path"
        )),
        _ => StoreError::unavailable(format_args!(
            "`{path}` cannot be reached ({error}): check its permissions"
        )),
    }
}

/// Whether there is nothing in the file yet.
fn look(path: &Path) -> Result<bool, StoreError> {
    if length(path)? > 0 {
        return Ok(false);
    }
    // SQLite would delete the log, which may be all that is left.
    if length(&log_of(path))? > LOG_HEADER {
        return Err(StoreError::corrupt(format_args!(
            "`{0}` is empty, but its log `{0}-wal` is not: restore both from a backup, or move the log away",
            path.display()
        )));
    }
    Ok(true)
}

/// Whether this is how a file that is being written looks without what belongs to it: damaged, or, when its first
/// sector is torn, like no database at all.
fn looks_torn(error: &rusqlite::Error) -> bool {
    is(error, ErrorCode::DatabaseCorrupt) || is(error, ErrorCode::NotADatabase)
}

/// Whether there is a log, which may have been about to be folded in, or the journal of a file that is being created
/// (the only one that this crate ever uses). Whether they mend the file is seen once SQLite has looked at them; it
/// would delete what merely has their names.
fn is_beside_its_remedy(path: &Path) -> Result<bool, StoreError> {
    let is_log = |head: &[u8; 20]| matches!(head, [0x37, 0x7f, 0x06, 0x82 | 0x83, ..]);
    // The last four bytes are the number of pages that the file had.
    let is_creation = |head: &[u8; 20]| head.starts_with(&JOURNAL_MAGIC) && head.ends_with(&[0; 4]);
    Ok(head(&log_of(path))?.is_some_and(|head| is_log(&head))
        || (length(path)? <= LARGEST_NEW_FILE
            && head(&journal_of(path))?.is_some_and(|head| is_creation(&head))))
}

/// The first bytes of a log or a journal, if there are so many. (Not of the database, see above.)
fn head(path: &Path) -> Result<Option<[u8; 20]>, StoreError> {
    let mut head = [0; 20];
    match fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => Ok(Some(head)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(unreachable_path(path, &error)),
    }
}

/// The file's size in bytes; zero when there is none.
fn length(path: &Path) -> Result<u64, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(unreachable_path(path, &error)),
    }
}

fn log_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn journal_of(path: &Path) -> PathBuf {
    beside(path, "-journal")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = OsString::from(path);
    beside.push(suffix);
    beside.into()
}

/// Opens the bare file, as if it were on a read-only medium: SQLite neither locks it nor recovers it.
fn without_locks(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(format!("file://{}?immutable=1", uri_path(path)), flags)
}

/// A path as a part of a URI.
fn uri_path(path: &Path) -> String {
    let mut escaped = String::new();
    if cfg!(windows) {
        escaped.push('/');
    }
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => escaped.push('/'),
            b'/' | b'.' | b'-' | b'_' | b':' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Refuses whatever is not ours to write.
fn refuse_strangers(path: &Path, owner: rusqlite::Result<Owner>) -> Result<(), StoreError> {
    let shown = path.display();
    match owner {
        Ok(Owner::Nobody | Owner::Us { .. }) => Ok(()),
        Ok(Owner::Newer { version }) => Err(StoreError::rejected(format_args!(
            "`{shown}` has schema version {version}, written by a newer version of this server; it was left as it is: \
             update this server"
        ))),
        Ok(Owner::Others) => Err(StoreError::rejected(format_args!(
            "`{shown}` is another application's database; it was left as it is: give another path"
        ))),
        Err(error) if is(&error, ErrorCode::NotADatabase) => Err(not_sqlite(path)),
        Err(error) => Err(explain(path, &error)),
    }
}

fn not_sqlite(path: &Path) -> StoreError {
    StoreError::rejected(format_args!(
        "`{}` is not an SQLite database; it was left as it is: give another path, or restore it from a backup",
        path.display()
    ))
}

/// A connection with every setting that doesn't change the file.
fn connect(path: &Path, flags: OpenFlags, settings: SqliteSettings) -> Result<Connection, Failure> {
    let mut connection = Connection::open_with_flags(path, flags)?;
    // First, because even reading (as some of the settings do) creates a log beside the file.
    if connection.is_readonly("main")? {
        return Err(StoreError::unavailable(format_args!(
            "`{}` cannot be written: give this user write permission on the file and on its folder",
            path.display()
        ))
        .into());
    }
    // Until it is known to be ours, closing it must not fold its log into it.
    keep_log_on_close(&connection, true)?;
    connection.busy_handler(Some(patience(settings.busy_timeout)))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // On macOS, an `fsync` alone leaves data in the drive's cache.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// A busy handler that sleeps a millisecond at a time and gives up after `limit`. SQLite's own sleeps up to 100 ms, in
/// which a lock can change hands many times.
fn patience(limit: Duration) -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    move |calls| {
        if calls == 0 {
            since = Instant::now();
        }
        if since.elapsed() >= limit {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
        true
    }
}

/// Whether the log stays as it is when the last connection to the file is closed.
fn keep_log_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    Ok(())
}

/// Looks at the file as SQLite sees it, log included, and only then changes what has to be changed.
fn prepare(
    mut connection: Connection,
    path: &Path,
    settings: SqliteSettings,
) -> Result<Connection, StoreError> {
    let outcome = inspect(&connection, path).and_then(|()| {
        configure(&connection, path, settings)
            .and_then(|()| schema::migrate(&mut connection))
            .map_err(|failure| failure.explain(path))
    });
    // An empty log may be folded in any case: nothing is written, and the files that looking has created go away.
    let keep = outcome.is_err() && length(&log_of(path)) != Ok(0);
    keep_log_on_close(&connection, keep).map_err(|error| explain(path, &error))?;
    outcome.map(|()| connection)
}

/// Refuses a file that we must not, cannot or should not write, without writing to it.
fn inspect(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |failure: Failure| failure.explain(path);
    refuse_strangers(path, schema::owner(connection))?;
    refuse_truncated(connection, path).map_err(failed)?;
    schema::check(connection).map_err(failed)?;
    Ok(())
}

/// Compares the size that the database should have with the sizes of its files.
fn refuse_truncated(connection: &Connection, path: &Path) -> Result<(), Failure> {
    // While a transaction is open, no other process can fold the log into the database and delete it.
    let transaction = connection.unchecked_transaction()?;
    schema::owner(&transaction)?;
    let pragma = |name| {
        let value: i64 = transaction.pragma_query_value(None, name, |row| row.get(0))?;
        Ok::<_, rusqlite::Error>(u64::try_from(value).unwrap_or(0))
    };
    let (pages, page_size) = (pragma("page_count")?, pragma("page_size")?.max(1));
    let (database, log) = (length(path)?, length(&log_of(path))?);
    // A crash while the log was folded in may have left the file short of pages that the log still has, or with a part
    // of one.
    let torn = log == 0 && database % page_size != 0;
    if torn || database / page_size + log / page_size < pages {
        return Err(Failure::Malformed(format!(
            "{pages} pages of {page_size} bytes are expected, but the file has {database} bytes: it was truncated; \
             restore it from a backup"
        )));
    }
    Ok(())
}

/// The settings that do change the file, or that only the writer needs.
fn configure(connection: &Connection, path: &Path, settings: SqliteSettings) -> Result<(), Failure> {
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    use_log(connection, path, settings.busy_timeout)?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", checkpointer::MOST_PAGES, |_| Ok(()))?;
    if let Some(bytes) = settings.max_bytes {
        let page_size: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page_size.max(1);
        connection.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))?;
    }
    Ok(())
}

/// Turns the write-ahead log on. It stays on for good, so most files have it already.
fn use_log(connection: &Connection, path: &Path, limit: Duration) -> Result<(), Failure> {
    let mut wait = patience(limit);
    let mut calls = 0;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                return Err(StoreError::unavailable(format_args!(
                    "the file system of `{}` allows no write-ahead log (the journal mode stays `{mode}`): put the \
                     database on a local disk",
                    path.display()
                ))
                .into());
            }
            // When two processes create the file at once, SQLite doesn't ask the busy handler: each would wait for the
            // other.
            Err(error) if is(&error, ErrorCode::DatabaseBusy) && wait(calls) => calls += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn is(error: &rusqlite::Error, code: ErrorCode) -> bool {
    error.sqlite_error_code() == Some(code)
}
