//! Erasing a player: rare, and in a transaction of its own.

use uuid::Uuid;

use super::{
    super::rules,
    connection::Connection,
    error::Failure,
    queue::{Answer, Fate},
    row::{Columns as _, id, lock_columns},
};
use crate::id::PlayerId;

/// Deletes the player's record, and leaves of their receipts the bare purchase ids.
pub(super) async fn run(connection: &Connection, player: PlayerId) -> Result<Vec<Fate>, Failure> {
    connection.begin().await?;
    let find = concat!(
        "SELECT ",
        lock_columns!(),
        " FROM players WHERE player_id = $1 FOR UPDATE"
    );
    let key = player.uuid();
    let found = connection.query_opt(find, &[&key]).await?;
    if let Some(row) = &found {
        let held = row.lock_state(0, format_args!("player {player}"))?.held;
        let server = held.map_or(Uuid::nil(), |held| id(held.server.into_bytes()));
        let lease = "SELECT boot_id, name, beat FROM servers WHERE boot_id = $1";
        let lease = connection.query_opt(lease, &[&server]).await?;
        let name = lease
            .map(|row| row.server_lease())
            .transpose()?
            .map(|lease| lease.name);
        rules::check_erase(player, held, name)?;
    }
    // In the order in which everybody locks them.
    let lock = "SELECT 1 FROM receipts WHERE player_id = $1 ORDER BY purchase_id FOR UPDATE";
    connection.query(lock, &[&key]).await?;
    let forget = "UPDATE receipts SET player_id = NULL, product_id = NULL, payload = NULL, note = NULL
                  WHERE player_id = $1";
    connection.execute(forget, &[&key]).await?;
    // One that has come into being since was not judged.
    if found.is_some() {
        connection
            .execute("DELETE FROM players WHERE player_id = $1", &[&key])
            .await?;
        connection
            .execute("DELETE FROM wishes WHERE player_id = $1", &[&key])
            .await?;
    }
    connection.commit().await?;
    Ok(vec![Fate::Answered(Ok(Answer::Erased(found.is_some())))])
}
