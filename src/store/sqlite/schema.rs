//! Whose file it is, and its tables.
//!
//! The schema is the sum of numbered migrations; `PRAGMA user_version` says how many a file has seen. Tools outside the
//! crate read these tables: a column keeps its name and its meaning.

use rusqlite::{Connection, TransactionBehavior};

use super::error::Failure;

/// Marks a file as this crate's, in a field of the file's header that exists for that ("bpd1" in ASCII).
const APPLICATION_ID: i32 = 0x6270_6431;

/// One step of the schema each. Never change one that was released: add another.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE players (
        player_id  BLOB NOT NULL UNIQUE CHECK (length(player_id) = 16),
        version    INTEGER NOT NULL,  -- one more per commit
        fence      INTEGER NOT NULL,  -- one more per granted lock, never lowered
        last_seq   INTEGER NOT NULL,  -- of the session's last accepted write
        lock_id    BLOB NOT NULL CHECK (length(lock_id) = 16),  -- zeros when free
        server     BLOB NOT NULL CHECK (length(server) = 16),   -- servers.boot_id, zeros when free
        created_at INTEGER NOT NULL,  -- milliseconds since the Unix epoch, like every time here
        saved_at   INTEGER,
        -- Last, so that a change of the fixed-width columns above leaves its pages alone.
        document   BLOB
    );
    CREATE TABLE servers (
        boot_id    BLOB NOT NULL PRIMARY KEY CHECK (length(boot_id) = 16),
        name       TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        beat       INTEGER NOT NULL
    );
    CREATE TABLE receipts (
        purchase_id      TEXT NOT NULL PRIMARY KEY,
        -- Null once the player is erased: the bare id stays, so that it is still known when it is delivered again.
        player_id        BLOB CHECK (length(player_id) = 16),
        product_id       TEXT,
        state            TEXT NOT NULL CHECK (state IN ('pending', 'granted', 'refused', 'refunded')),
        refund_requested INTEGER NOT NULL DEFAULT 0 CHECK (refund_requested IN (0, 1)),
        settled_fence    INTEGER,
        payload          BLOB,
        received_at      INTEGER NOT NULL,
        settled_at       INTEGER
    );
    CREATE INDEX pending_receipts ON receipts (player_id) WHERE state = 'pending';
", "
    ALTER TABLE receipts ADD COLUMN note TEXT;  -- for support: why it was refused, what could not be taken back
    -- One more for each new receipt and each mark for a refund: what servers look from.
    ALTER TABLE receipts ADD COLUMN arrival INTEGER;
    UPDATE receipts SET arrival = rowid;
    CREATE UNIQUE INDEX receipts_by_arrival ON receipts (arrival);
    -- Triggers, so that it is so for whatever program hands a receipt in.
    CREATE TRIGGER receipt_arrives AFTER INSERT ON receipts BEGIN
        UPDATE receipts SET arrival = (SELECT coalesce(max(arrival), 0) + 1 FROM receipts)
        WHERE rowid = NEW.rowid;
    END;
    CREATE TRIGGER refund_arrives AFTER UPDATE OF refund_requested ON receipts
    WHEN NEW.refund_requested <> OLD.refund_requested BEGIN
        UPDATE receipts SET arrival = (SELECT max(arrival) + 1 FROM receipts) WHERE rowid = NEW.rowid;
    END;
    CREATE INDEX receipts_by_player ON receipts (player_id);
    DROP INDEX pending_receipts;
    CREATE INDEX open_receipts ON receipts (player_id)
        WHERE state = 'pending' OR (state = 'granted' AND refund_requested = 1);
", "
    -- Who would like to have a player whom another server has. A table of its own, since columns that are added come behind
    -- the document, where each change of them would have to go through all of it; and because it is all that a look for
    -- wishes has to read, it needs no index, and is empty but for those who wait.
    CREATE TABLE wishes (
        player_id  BLOB NOT NULL CHECK (length(player_id) = 16),
        lock_id    BLOB NOT NULL CHECK (length(lock_id) = 16),    -- the lock that is going to be asked for
        held       BLOB NOT NULL CHECK (length(held) = 16),       -- stands while it is players.lock_id
        server     BLOB NOT NULL CHECK (length(server) = 16),     -- whose wish it is: servers.boot_id
        until_beat INTEGER NOT NULL,                              -- stands while servers.beat is not past it
        PRIMARY KEY (player_id, lock_id)
    ) WITHOUT ROWID;
    -- A lock that is granted, to whomever, clears the wishes for its player.
    CREATE TRIGGER lock_is_granted AFTER UPDATE OF fence ON players WHEN NEW.fence <> OLD.fence BEGIN
        DELETE FROM wishes WHERE player_id = NEW.player_id;
    END;
    CREATE TRIGGER player_is_erased AFTER DELETE ON players BEGIN
        DELETE FROM wishes WHERE player_id = OLD.player_id;
    END;
    CREATE TRIGGER server_is_gone AFTER DELETE ON servers BEGIN
        DELETE FROM wishes WHERE server = OLD.boot_id;
    END;
"];

/// The schema version that this crate writes.
const LATEST: usize = MIGRATIONS.len();

/// A statement per table that names the columns in use: a file that lacks one is damaged.
const PROBES: &[&str] = &[
    "SELECT player_id, version, fence, last_seq, lock_id, server, created_at, saved_at, document FROM players",
    "SELECT boot_id, name, started_at, beat FROM servers",
    "SELECT purchase_id, player_id, product_id, state, refund_requested, settled_fence, payload, received_at,
         settled_at, note, arrival FROM receipts",
    "SELECT player_id, lock_id, held, server, until_beat FROM wishes",
];

/// Whose file a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody's: it has no tables.
    Nobody,
    /// This crate's, with so many migrations applied.
    Us { version: usize },
    /// A newer version's of this crate.
    Newer { version: i64 },
    /// Another application's.
    Others,
}

/// Looks whose file it is, without changing anything.
pub(super) fn owner(connection: &Connection) -> rusqlite::Result<Owner> {
    // One transaction, or a file that another process is just creating would be seen half before, half afterwards.
    let _snapshot = if connection.is_autocommit() {
        Some(connection.unchecked_transaction()?)
    } else {
        None
    };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application_id = pragma("application_id")?;
    let version = pragma("user_version")?;
    if application_id == i64::from(APPLICATION_ID) {
        return Ok(match usize::try_from(version) {
            Ok(version) if version <= LATEST => Owner::Us { version },
            _ => Owner::Newer { version },
        });
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(if application_id == 0 && version == 0 && tables == 0 {
        Owner::Nobody
    } else {
        Owner::Others
    })
}

/// Brings a file that is ours or nobody's up to date.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    if owner(connection)? == (Owner::Us { version: LATEST }) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let applied = match owner(&transaction)? {
        Owner::Us { version } => version,
        Owner::Nobody => 0,
        Owner::Newer { .. } | Owner::Others => {
            return Err(Failure::Malformed(
                "the schema has just been changed by another program".to_owned(),
            ));
        }
    };
    for migration in MIGRATIONS.get(applied..).unwrap_or_default() {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", LATEST as i64)?;
    transaction.commit()?;
    Ok(())
}

/// Checks that the tables of an up-to-date file are all there, without changing anything.
pub(super) fn check(connection: &Connection) -> Result<(), Failure> {
    if owner(connection)? != (Owner::Us { version: LATEST }) {
        return Ok(());
    }
    for probe in PROBES {
        connection.prepare(probe).map_err(|error| match error {
            rusqlite::Error::SqlInputError { msg, .. } => {
                Failure::Malformed(format!("the schema is damaged ({msg}): restore it from a backup"))
            }
            error => error.into(),
        })?;
    }
    Ok(())
}
