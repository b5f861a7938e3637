//! What each request does inside the writer's transaction.
//!
//! Every method reads the rows it needs, lets [`rules`](super::super::rules) judge, and writes what was granted. None
//! begins or ends a transaction: when one fails, the writer undoes what it has done.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row, named_params, params};

use super::{
    super::{
        Acquire, Acquired, Commit, Committed, Lease, Leases, ServerId, ServerLease, StoreError, Write, now,
        rules::{self, Grant, LockState, Verdict},
    },
    error::Failure,
    names::Names,
    row::{LOCK_COLUMNS, column, count, document, lock_and_server, lock_columns, lock_state},
    writer::lost_with_its_group,
};
use crate::id::PlayerId;

/// The tables, for the length of a transaction.
pub(super) struct Tables<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a mut Names,
    pub(super) path: &'a Path,
    lease_of: Prepared<'a>,
    find: Prepared<'a>,
    find_with_document: Prepared<'a>,
    set_state: Prepared<'a>,
    save: Prepared<'a>,
    save_and_release: Prepared<'a>,
}

/// A statement that a transaction runs for many players, looked up once.
struct Prepared<'a> {
    sql: &'static str,
    statement: Option<CachedStatement<'a>>,
}

impl<'a> Prepared<'a> {
    const fn new(sql: &'static str) -> Self {
        Self { sql, statement: None }
    }

    fn get(&mut self, connection: &'a Connection) -> rusqlite::Result<&mut CachedStatement<'a>> {
        let statement = match self.statement.take() {
            Some(statement) => statement,
            None => connection.prepare_cached(self.sql)?,
        };
        Ok(self.statement.insert(statement))
    }
}

/// A player's row: where it is, and what it is judged by.
#[derive(Clone, Copy)]
pub(super) struct Found {
    rowid: i64,
    pub(super) state: LockState,
}

impl<'a> Tables<'a> {
    pub(super) const fn new(connection: &'a Connection, names: &'a mut Names, path: &'a Path) -> Self {
        Self {
            connection,
            names,
            path,
            lease_of: Prepared::new("SELECT boot_id, name, beat FROM servers WHERE boot_id = ?1"),
            find_with_document: Prepared::new(concat!(
                "SELECT rowid, ",
                lock_columns!(),
                ", document FROM players WHERE player_id = ?1"
            )),
            set_state: Prepared::new(
                "UPDATE players SET version = ?2, fence = ?3, last_seq = ?4, lock_id = ?5, server = ?6
                 WHERE rowid = ?1",
            ),
            find: Prepared::new(concat!(
                "SELECT rowid, ",
                lock_columns!(),
                " FROM players WHERE player_id = ?1"
            )),
            save: Prepared::new(
                "UPDATE players SET version = ?2, last_seq = ?3, saved_at = ?4, document = ?5 WHERE rowid = ?1",
            ),
            save_and_release: Prepared::new(
                "UPDATE players SET version = ?2, last_seq = ?3, saved_at = ?4, document = ?5,
                     lock_id = zeroblob(16), server = zeroblob(16)
                 WHERE rowid = ?1",
            ),
        }
    }

    /// Runs a statement that begins or ends something. Its failure is never a verdict on one request.
    pub(super) fn control(&self, sql: &str) -> Result<(), StoreError> {
        self.execute(sql, [])
            .map_err(|failure| lost_with_its_group(failure.explain(self.path)))
    }

    pub(super) fn lease(&mut self, Lease { server, name, .. }: &Lease) -> Result<Leases, Failure> {
        let registered = self.lease_of(*server)?;
        rules::check_name(
            *server,
            registered.as_ref().map(|lease| lease.name.as_str()),
            name,
        )?;
        self.names.take(name, *server)?;
        let boot_id = server.into_bytes();
        // Nobody else holds the name's lock, so whoever else has a row with this name is dead.
        self.execute(
            "DELETE FROM servers WHERE name = ?1 AND boot_id <> ?2",
            (name, boot_id),
        )?;
        self.execute(
            "INSERT INTO servers (boot_id, name, started_at, beat) VALUES (?1, ?2, ?3, 1)
             ON CONFLICT (boot_id) DO UPDATE SET beat = beat + 1",
            (boot_id, name, now()),
        )?;
        leases(self.connection)
    }

    pub(super) fn retire(&mut self, server: ServerId) -> Result<(), Failure> {
        self.execute("DELETE FROM servers WHERE boot_id = ?1", [server.into_bytes()])?;
        self.names.give_back(server);
        Ok(())
    }

    pub(super) fn acquire(&mut self, acquire: &Acquire) -> Result<Acquired, Failure> {
        rules::check_acquire(acquire)?;
        let own = self.lease_of(acquire.server)?;
        // Before anything is changed: who can't be read is not locked either.
        let (found, document) = self.find_with_document(acquire.player)?.unzip();
        let state = found.map(|found| found.state).unwrap_or_default();
        let lease = match state.held {
            Some(held) => self.lease_of(held.server)?,
            None => None,
        };
        let (state, taken_from) = match rules::judge_acquire(state, own, lease, acquire)? {
            Grant::Again => (state, None),
            Grant::Anew { state, taken_from } => {
                match found {
                    Some(found) => self.set_state(found.rowid, state)?,
                    None => self.insert(acquire.player, state)?,
                }
                (state, taken_from)
            }
        };
        Ok(Acquired {
            fence: state.fence,
            version: state.version,
            document: document.flatten(),
            taken_from,
        })
    }

    pub(super) fn commit(&mut self, commit: &Commit) -> Result<Committed, Failure> {
        rules::check_commit(commit)?;
        let mut versions = Vec::with_capacity(commit.writes.len());
        for write in &commit.writes {
            versions.push(self.write(write)?);
        }
        Ok(Committed { versions })
    }

    pub(super) fn erase(&mut self, player: PlayerId) -> Result<bool, Failure> {
        let Some(found) = self.find(player)? else {
            self.forget_buyer(player)?;
            return Ok(false);
        };
        let lease = match found.state.held {
            Some(held) => self.lease_of(held.server)?,
            None => None,
        };
        rules::check_erase(player, found.state.held, lease.map(|lease| lease.name))?;
        self.execute("DELETE FROM players WHERE rowid = ?1", [found.rowid])?;
        self.forget_buyer(player)?;
        Ok(true)
    }

    /// Applies one write; an error undoes the writes before it together with it.
    fn write(&mut self, write: &Write) -> Result<u64, Failure> {
        let found = self.find(write.player)?;
        let verdict = rules::judge_write(found.map(|found| found.state), write)?;
        let Some(Found { rowid, state }) = found else {
            unreachable!("a write without a row is refused");
        };
        let Verdict::Accepted(state) = verdict else {
            return Ok(state.version);
        };
        self.settle(write)?;
        match &write.document {
            Some(document) => self.save(rowid, state, document)?,
            None => self.set_state(rowid, state)?,
        }
        Ok(state.version)
    }

    pub(super) fn find(&mut self, player: PlayerId) -> Result<Option<Found>, Failure> {
        first(self.find.get(self.connection)?, [player.into_bytes()], |row| {
            found(row, player)
        })
    }

    fn find_with_document(&mut self, player: PlayerId) -> Result<Option<(Found, Option<Bytes>)>, Failure> {
        let statement = self.find_with_document.get(self.connection)?;
        first(statement, [player.into_bytes()], |row| {
            let document = document(row, 1 + LOCK_COLUMNS, format_args!("player {player}"))?;
            Ok((found(row, player)?, document))
        })
    }

    /// What a row that is taken in is judged by.
    pub(super) fn state_and_document(
        &mut self,
        player: PlayerId,
    ) -> Result<Option<(LockState, Option<Bytes>)>, Failure> {
        let found = self.find_with_document(player)?;
        Ok(found.map(|(found, document)| (found.state, document)))
    }

    fn insert(&self, player: PlayerId, state: LockState) -> Result<(), Failure> {
        let (lock_id, server) = lock_and_server(state.held);
        self.execute(
            "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at)
             VALUES (:player_id, :version, :fence, :last_seq, :lock_id, :server, :created_at)",
            named_params! {
                ":player_id": player.into_bytes(),
                ":version": sql(state.version)?,
                ":fence": sql(state.fence)?,
                ":last_seq": sql(state.last_seq)?,
                ":lock_id": lock_id,
                ":server": server,
                ":created_at": now(),
            },
        )
    }

    fn set_state(&mut self, rowid: i64, state: LockState) -> Result<(), Failure> {
        let (lock_id, server) = lock_and_server(state.held);
        self.set_state.get(self.connection)?.execute(params![
            rowid,
            sql(state.version)?,
            sql(state.fence)?,
            sql(state.last_seq)?,
            lock_id,
            server,
        ])?;
        Ok(())
    }

    /// Stores the document of an accepted write, which keeps its fence and keeps or releases its lock.
    fn save(&mut self, rowid: i64, state: LockState, document: &Bytes) -> Result<(), Failure> {
        let save = match state.held {
            Some(_) => &mut self.save,
            None => &mut self.save_and_release,
        };
        save.get(self.connection)?.execute(params![
            rowid,
            sql(state.version)?,
            sql(state.last_seq)?,
            now(),
            document.as_ref(),
        ])?;
        Ok(())
    }

    pub(super) fn lease_of(&mut self, server: ServerId) -> Result<Option<ServerLease>, Failure> {
        let statement = self.lease_of.get(self.connection)?;
        first(statement, [server.into_bytes()], server_lease)
    }

    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<(), Failure> {
        self.connection.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }
}

/// Reads the one row that a query finds, if any.
fn first<T>(
    statement: &mut CachedStatement<'_>,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    statement
        .query_row(params, |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// A row that begins with its rowid and the lock's columns.
fn found(row: &Row<'_>, player: PlayerId) -> Result<Found, Failure> {
    let whose = format_args!("player {player}");
    Ok(Found {
        rowid: column(row, 0, whose)?,
        state: lock_state(row, 1, whose)?,
    })
}

/// Every server's lease.
pub(super) fn leases(connection: &Connection) -> Result<Leases, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT boot_id, name, beat FROM servers ORDER BY boot_id")?;
    let mut rows = statement.query([])?;
    let mut servers = Vec::new();
    while let Some(row) = rows.next()? {
        servers.push(server_lease(row)?);
    }
    Ok(Leases { servers })
}

fn server_lease(row: &Row<'_>) -> Result<ServerLease, Failure> {
    let whose = "a row of `servers`";
    Ok(ServerLease {
        server: ServerId::from_bytes(column(row, 0, whose)?),
        name: column(row, 1, whose)?,
        beat: count(row, 2, whose)?,
    })
}

/// A number as SQL stores it.
pub(super) fn sql(number: u64) -> Result<i64, Failure> {
    i64::try_from(number)
        .map_err(|_| Failure::Malformed(format!("the number {number} does not fit a column")))
}
