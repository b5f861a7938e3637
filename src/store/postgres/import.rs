//! Taking in rows of another store: rare, and in a transaction of its own.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    super::{
        Import, Record, ServerId, StoreError, StoredReceipt,
        rules::LockState,
        taking::{self, Taking},
    },
    connection::Connection,
    error::Failure,
    row::{Columns as _, LOCK_COLUMNS, lock_columns, receipt_columns, sql, to_text},
};
use crate::id::{PlayerId, ProductId, PurchaseId};

/// A player's row that is there, by what it is judged by.
type Known = (LockState, Option<bytes::Bytes>);

pub(super) async fn run(connection: &Connection, rows: &Import) -> Result<(), Failure> {
    connection.begin().await?;
    let players = known_players(connection, &rows.records).await?;
    let names = names(connection).await?;
    let mut records: Vec<(&Record, Taking)> = Vec::new();
    for record in &rows.records {
        let known = players.get(&record.player);
        let held = known.and_then(|(state, _)| state.held);
        let name = held.and_then(|held| names.get(&held.server)).cloned();
        let known = known.map(|(state, document)| (*state, document.as_deref()));
        let taking = taking::judge_record(known, name, record)?;
        if taking != Taking::Again {
            records.push((record, taking));
        }
    }
    let known = known_receipts(connection, &rows.receipts).await?;
    let mut receipts = Vec::new();
    for receipt in &rows.receipts {
        let same = known.values().find(|known| known.purchase == receipt.purchase);
        match taking::judge_receipt(same, receipt)? {
            Taking::Again => {}
            Taking::Insert if known.contains_key(&receipt.number) => {
                return Err(taking::number_taken(receipt).into());
            }
            taking => receipts.push((receipt, taking)),
        }
    }
    records.sort_by_key(|(record, _)| record.player);
    for (record, taking) in records {
        came_to_be(put_record(connection, record, taking).await?)?;
    }
    for (receipt, taking) in receipts {
        came_to_be(put_receipt(connection, receipt, taking).await?)?;
    }
    connection.commit().await
}

/// Where there was no row, somebody may have made one since: that one was not judged, and stays.
fn came_to_be(rows: u64) -> Result<(), Failure> {
    if rows == 1 {
        return Ok(());
    }
    Err(StoreError::unavailable(
        "somebody plays, or hands in receipts, where the copy goes: stop that, and copy again",
    )
    .into())
}

async fn known_players(
    connection: &Connection,
    records: &[Record],
) -> Result<BTreeMap<PlayerId, Known>, Failure> {
    let ids: Vec<Uuid> = records.iter().map(|record| record.player.uuid()).collect();
    let query = concat!(
        "SELECT player_id, ",
        lock_columns!(),
        ", document FROM players WHERE player_id = ANY($1) ORDER BY player_id FOR UPDATE"
    );
    let statement = connection.prepare_cached(query).await?;
    let mut players = BTreeMap::new();
    for row in connection.query(&statement, &[&ids]).await? {
        let player = row.player(0)?;
        let whose = format_args!("player {player}");
        let known = (row.lock_state(1, whose)?, row.bytes(1 + LOCK_COLUMNS, whose)?);
        players.insert(player, known);
    }
    Ok(players)
}

async fn names(connection: &Connection) -> Result<BTreeMap<ServerId, String>, Failure> {
    let leases = super::leases::leases(connection).await?;
    Ok(leases
        .servers
        .into_iter()
        .map(|lease| (lease.server, lease.name))
        .collect())
}

/// The receipts that are there with one of these ids, or with one of these numbers, by their numbers.
async fn known_receipts(
    connection: &Connection,
    receipts: &[StoredReceipt],
) -> Result<BTreeMap<u64, StoredReceipt>, Failure> {
    let ids: Vec<&str> = receipts.iter().map(|receipt| receipt.purchase.as_str()).collect();
    let numbers = receipts.iter().map(|receipt| sql(receipt.number));
    let numbers: Vec<i64> = numbers.collect::<Result<_, _>>()?;
    let query = concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE purchase_id = ANY($1) OR number = ANY($2) ORDER BY purchase_id FOR UPDATE"
    );
    let statement = connection.prepare_cached(query).await?;
    let mut known = BTreeMap::new();
    for row in connection.query(&statement, &[&ids, &numbers]).await? {
        let receipt = row.receipt()?;
        known.insert(receipt.number, receipt);
    }
    Ok(known)
}

async fn put_record(connection: &Connection, record: &Record, taking: Taking) -> Result<u64, Failure> {
    let state = taking::taken_in(record);
    let put = connection
        .prepare_cached(
            "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at, saved_at, document)
             VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8)
             ON CONFLICT (player_id) DO UPDATE SET version = $2, fence = $3, last_seq = $4, lock_id = $5, server = $5,
                 created_at = $6, saved_at = $7, document = $8
             WHERE $9",
        )
        .await?;
    connection
        .execute(
            &put,
            &[
                &record.player.uuid(),
                &sql(state.version)?,
                &sql(state.fence)?,
                &sql(state.last_seq)?,
                &Uuid::nil(),
                &record.created_at,
                &record.saved_at,
                &record.document.as_deref(),
                &(taking == Taking::Replace),
            ],
        )
        .await
        .map_err(Failure::from)
}

/// A new receipt arrives, like any other. The number of the next one is higher.
async fn put_receipt(
    connection: &Connection,
    receipt: &StoredReceipt,
    taking: Taking,
) -> Result<u64, Failure> {
    let put = connection
        .prepare_cached(
            "WITH taken AS (
                 UPDATE counters SET receipts = greatest(receipts, $2), arrivals = arrivals + 1 WHERE id = 1
                 RETURNING arrivals
             )
             INSERT INTO receipts (purchase_id, number, player_id, product_id, state, refund_requested, settled_fence,
                 note, payload, received_at, settled_at, arrival)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, taken.arrivals FROM taken
             ON CONFLICT (purchase_id) DO UPDATE SET player_id = $3, product_id = $4, state = $5, refund_requested = $6,
                 settled_fence = $7, note = $8, payload = $9, received_at = $10, settled_at = $11
             WHERE $12",
        )
        .await?;
    connection
        .execute(
            &put,
            &[
                &PurchaseId::as_str(&receipt.purchase),
                &sql(receipt.number)?,
                &receipt.player.map(PlayerId::uuid),
                &receipt.product.as_ref().map(ProductId::as_str),
                &receipt.state.name(),
                &receipt.refund_requested,
                &receipt.settled_fence.map(sql).transpose()?,
                &receipt.note.as_deref().map(to_text),
                &receipt.payload.as_deref(),
                &receipt.received_at,
                &receipt.settled_at,
                &(taking == Taking::Replace),
            ],
        )
        .await
        .map_err(Failure::from)
}
