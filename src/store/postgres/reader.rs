//! Looking at players without ever holding anybody up.

use super::{
    super::Record,
    connection::Connection,
    error::Failure,
    row::{Columns as _, LOCK_COLUMNS, from_text, lock_columns},
};
use crate::id::PlayerId;

/// A player's row with the name of the server that holds its lock, as one statement (so one snapshot) sees them.
pub(super) async fn peek(connection: &Connection, player: PlayerId) -> Result<Option<Record>, Failure> {
    let query = concat!(
        "SELECT ",
        lock_columns!(),
        ", (SELECT name FROM servers WHERE boot_id = server), created_at, saved_at, document
         FROM players WHERE player_id = $1"
    );
    let statement = connection.prepare_cached(query).await?;
    let Some(row) = connection.query_opt(&statement, &[&player.uuid()]).await? else {
        return Ok(None);
    };
    let whose = format_args!("player {player}");
    let state = row.lock_state(0, whose)?;
    let name: Option<String> = row.column(LOCK_COLUMNS, whose)?;
    Ok(Some(Record {
        player,
        version: state.version,
        fence: state.fence,
        last_seq: state.last_seq,
        lock: state
            .held
            .map(|held| held.holder(name.map(|name| from_text(&name)))),
        created_at: row.column(LOCK_COLUMNS + 1, whose)?,
        saved_at: row.column(LOCK_COLUMNS + 2, whose)?,
        document: row.bytes(LOCK_COLUMNS + 3, whose)?,
    }))
}

/// Up to `limit` ids after `after`, ascending (PostgreSQL compares UUIDs byte by byte, as ids are compared).
pub(super) async fn list(
    connection: &Connection,
    after: Option<PlayerId>,
    limit: usize,
) -> Result<Vec<PlayerId>, Failure> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = match after.map(PlayerId::uuid) {
        None => {
            let query = "SELECT player_id FROM players ORDER BY player_id LIMIT $1";
            let statement = connection.prepare_cached(query).await?;
            connection.query(&statement, &[&limit]).await?
        }
        Some(after) => {
            let query = "SELECT player_id FROM players WHERE player_id > $1 ORDER BY player_id LIMIT $2";
            let statement = connection.prepare_cached(query).await?;
            connection.query(&statement, &[&after, &limit]).await?
        }
    };
    rows.iter().map(|row| row.player(0)).collect()
}
