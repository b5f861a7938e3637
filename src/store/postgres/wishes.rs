//! Wishes for players whom other servers have.
//!
//! They are cleared where a lock is granted, a player is erased or a server's row goes, by the transaction that does it.

use uuid::Uuid;

use super::{
    super::{LockId, ServerId, Wish, Wished, Wishes, rules},
    connection::Connection,
    error::Failure,
    row::{Columns as _, from_text, id, lock_columns, sql},
};
use crate::id::PlayerId;

/// Leaves a wish, if it stands.
pub(super) async fn wish(connection: &Connection, wish: &Wish) -> Result<bool, Failure> {
    let (player, server) = (wish.player.uuid(), id(wish.server.into_bytes()));
    connection.begin().await?;
    // Shared: the lock stays as it is, and our row where it is, until the wish is there to be cleared. The beat goes on:
    // a wish that it has overtaken doesn't stand.
    let find = concat!(
        "SELECT ",
        lock_columns!(),
        " FROM players WHERE player_id = $1 FOR SHARE"
    );
    let find = connection.prepare_cached(find).await?;
    let row = connection.query_opt(&find, &[&player]).await?;
    let state = row
        .map(|row| row.lock_state(0, format_args!("player {}", wish.player)))
        .transpose()?;
    let lease = "SELECT boot_id, name, beat FROM servers WHERE boot_id = $1 FOR KEY SHARE";
    let lease = connection.prepare_cached(lease).await?;
    let own = connection.query_opt(&lease, &[&server]).await?;
    let own = own.map(|row| row.server_lease()).transpose()?;
    let stands = rules::stands(wish, state.and_then(|state| state.held), own.as_ref());
    if stands {
        let put = connection
            .prepare_cached(
                "INSERT INTO wishes (player_id, lock_id, held, server, until_beat) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (player_id, lock_id)
                 DO UPDATE SET held = excluded.held, server = excluded.server, until_beat = excluded.until_beat",
            )
            .await?;
        let (lock, held) = (id(wish.lock.into_bytes()), id(wish.held.into_bytes()));
        // "Until ever" is as good as the largest number that fits a column.
        let until_beat = sql(wish.until_beat.min(rules::LARGEST))?;
        connection
            .execute(&put, &[&player, &lock, &held, &server, &until_beat])
            .await?;
    }
    connection.commit().await?;
    Ok(stands)
}

pub(super) async fn withdraw(connection: &Connection, player: PlayerId, lock: LockId) -> Result<(), Failure> {
    let statement = connection
        .prepare_cached("DELETE FROM wishes WHERE player_id = $1 AND lock_id = $2")
        .await?;
    connection
        .execute(&statement, &[&player.uuid(), &id(lock.into_bytes())])
        .await?;
    Ok(())
}

/// The wishes that stand, as [`rules::stands`] judges them, and concern this server. The table holds those who wait.
pub(super) async fn wishes(connection: &Connection, server: ServerId) -> Result<Wishes, Failure> {
    let statement = connection
        .prepare_cached(
            // `OFFSET 0` keeps the database to this order: what is in the table of wishes, and only then whose it is.
            "SELECT wish.player_id, wish.held, wish.lock_id, wish.server, wish.until_beat, own.name
             FROM wishes AS wish
             CROSS JOIN LATERAL (
                 SELECT lock_id, server FROM players WHERE player_id = wish.player_id OFFSET 0
             ) AS player
             JOIN servers AS own ON own.boot_id = wish.server
             WHERE player.lock_id = wish.held AND player.server <> wish.server AND own.beat <= wish.until_beat
                 AND $1 IN (player.server, wish.server)
             ORDER BY wish.player_id, wish.lock_id",
        )
        .await?;
    let mut wishes = Wishes::default();
    for row in connection.query(&statement, &[&id(server.into_bytes())]).await? {
        let whose = "a wish";
        let wish = Wish {
            player: row.player(0)?,
            held: LockId::from_bytes(row.column::<Uuid>(1, whose)?.into_bytes()),
            lock: LockId::from_bytes(row.column::<Uuid>(2, whose)?.into_bytes()),
            server: ServerId::from_bytes(row.column::<Uuid>(3, whose)?.into_bytes()),
            until_beat: row.count(4, whose)?,
        };
        if wish.server == server {
            wishes.ours.push(wish.lock);
        } else {
            let name: String = row.column(5, whose)?;
            let name = from_text(&name);
            wishes.for_us.push(Wished { wish, name });
        }
    }
    wishes.ours.sort_unstable();
    Ok(wishes)
}
