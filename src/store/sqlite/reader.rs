//! The thread that owns the read connection: looking at rows without ever holding the writer up.

use std::{iter, path::Path, sync::mpsc};

use rusqlite::{Connection, OptionalExtension};

use super::{
    super::{Arrivals, Record, ServerId, StoreError, Wishes},
    error::Failure,
    receipts::LastLook,
    row::{LOCK_COLUMNS, column, document, lock_columns, lock_state},
    wishes::LastWishes,
    worker::Worker,
};
use crate::id::PlayerId;

/// How many reads share a snapshot at most (taking one costs more than most reads), beside the first. While one is
/// held, the log can't start over.
const MOST: usize = 255;

/// What the thread takes on: a request that answers by itself.
type Read = Box<dyn FnOnce(&Eyes, &Path) + Send>;

/// What the thread owns.
struct Eyes {
    connection: Connection,
    last_look: LastLook,
    last_wishes: LastWishes,
}

/// The handle to the thread.
pub(super) struct Reader(Worker<Read>);

impl Reader {
    pub(super) fn start(connection: Connection, path: &Path) -> Result<Self, StoreError> {
        let owned = path.to_owned();
        let serve = move |queue: mpsc::Receiver<Read>| {
            let eyes = Eyes {
                connection,
                last_look: LastLook::default(),
                last_wishes: LastWishes::default(),
            };
            while let Ok(first) = queue.recv() {
                // Gathered before the snapshot is taken: each read sees all that was committed before it was asked.
                let group: Vec<Read> = iter::once(first).chain(queue.try_iter().take(MOST)).collect();
                let snapshot = (group.len() > 1).then(|| eyes.connection.unchecked_transaction());
                for read in group {
                    read(&eyes, &owned);
                }
                drop(snapshot);
            }
        };
        Worker::start("player data reader", path, serve).map(Self)
    }

    /// Answers with what `read` finds.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask_eyes(|eyes| read(&eyes.connection)).await
    }

    /// Looks for receipts that have arrived.
    pub(super) async fn look(&self, since: Option<u64>) -> Result<Arrivals, StoreError> {
        self.ask_eyes(move |eyes| eyes.last_look.arrivals(&eyes.connection, since))
            .await
    }

    /// Looks for the wishes that concern a server.
    pub(super) async fn look_for_wishes(&self, server: ServerId) -> Result<Wishes, StoreError> {
        self.ask_eyes(move |eyes| eyes.last_wishes.wishes(&eyes.connection, server))
            .await
    }

    async fn ask_eyes<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Eyes) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0
            .ask(|reply| {
                Box::new(move |eyes: &Eyes, path: &Path| {
                    // Whoever asked may have gone.
                    let _ = reply.send(read(eyes).map_err(|failure| failure.explain(path)));
                }) as Read
            })
            .await
    }
}

/// A player's row with the name of the server that holds its lock, as one statement (so one snapshot) sees them.
pub(super) fn peek(connection: &Connection, player: PlayerId) -> Result<Option<Record>, Failure> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        lock_columns!(),
        ", (SELECT name FROM servers WHERE boot_id = server), created_at, saved_at, document
         FROM players WHERE player_id = ?1"
    ))?;
    let read = |row: &rusqlite::Row<'_>| {
        let whose = format_args!("player {player}");
        let state = lock_state(row, 0, whose)?;
        let name: Option<String> = column(row, LOCK_COLUMNS, whose)?;
        Ok(Record {
            player,
            version: state.version,
            fence: state.fence,
            last_seq: state.last_seq,
            lock: state.held.map(|held| held.holder(name)),
            created_at: column(row, LOCK_COLUMNS + 1, whose)?,
            saved_at: column(row, LOCK_COLUMNS + 2, whose)?,
            document: document(row, LOCK_COLUMNS + 3, whose)?,
        })
    };
    statement
        .query_row([player.into_bytes()], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// Up to `limit` ids after `after`, ascending (SQLite compares blobs byte by byte, as ids are compared).
pub(super) fn list(
    connection: &Connection,
    after: Option<PlayerId>,
    limit: usize,
) -> Result<Vec<PlayerId>, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT player_id FROM players WHERE player_id > ?1 ORDER BY player_id LIMIT ?2")?;
    // The empty blob comes before all others.
    let after = after.map_or_else(Vec::new, |player| player.into_bytes().to_vec());
    let mut rows = statement.query((after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut players = Vec::new();
    while let Some(row) = rows.next()? {
        players.push(PlayerId::from_bytes(column(row, 0, "a player")?));
    }
    Ok(players)
}
