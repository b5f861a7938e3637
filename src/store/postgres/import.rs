//! Taking in rows of another store: rare, and in a transaction of its own, of which the number of round trips doesn't
//! grow with that of the rows.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;
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
use crate::id::{PlayerId, ProductId};

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
    let (new, known): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|(_, taking)| *taking == Taking::Insert);
    put_records(connection, REPLACE_PLAYERS, rows_of(known)).await?;
    put_records(connection, INSERT_PLAYERS, rows_of(new)).await?;
    let (new, known): (Vec<_>, Vec<_>) = receipts
        .into_iter()
        .partition(|(_, taking)| *taking == Taking::Insert);
    put_receipts(connection, REPLACE_RECEIPTS, &rows_of(known)).await?;
    put_receipts(connection, INSERT_RECEIPTS, &rows_of(new)).await?;
    connection.commit().await
}

fn rows_of<T>(judged: Vec<(&T, Taking)>) -> Vec<&T> {
    judged.into_iter().map(|(row, _)| row).collect()
}

/// Where there was no row, somebody may have made one since: that one was not judged, and stays.
fn all_came_to_be(rows: u64, expected: usize) -> Result<(), Failure> {
    if rows == expected as u64 {
        return Ok(());
    }
    Err(StoreError::unavailable(
        "somebody plays, or hands in receipts, where the copy goes, or another copy runs: stop that, and copy again",
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
        " FROM receipts WHERE purchase_id = ANY(ARRAY(
              SELECT purchase_id FROM receipts WHERE purchase_id = ANY($1)
              UNION SELECT purchase_id FROM receipts WHERE number = ANY($2)
          )) ORDER BY purchase_id FOR UPDATE"
    );
    let statement = connection.prepare_cached(query).await?;
    let mut known = BTreeMap::new();
    for row in connection.query(&statement, &[&ids, &numbers]).await? {
        let receipt = row.receipt()?;
        known.insert(receipt.number, receipt);
    }
    Ok(known)
}

/// Writes the rows of players, all of them in one statement: `INSERT_PLAYERS` or `REPLACE_PLAYERS`.
async fn put_records(
    connection: &Connection,
    statement: &str,
    mut records: Vec<&Record>,
) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    records.sort_by_key(|record| record.player);
    let states: Vec<LockState> = records.iter().map(|record| taking::taken_in(record)).collect();
    let numbers = |number: fn(&LockState) -> u64| -> Result<Vec<i64>, Failure> {
        states.iter().map(|state| sql(number(state))).collect()
    };
    let players: Vec<Uuid> = records.iter().map(|record| record.player.uuid()).collect();
    let versions = numbers(|state| state.version)?;
    let fences = numbers(|state| state.fence)?;
    let last_seqs = numbers(|state| state.last_seq)?;
    let created: Vec<i64> = records.iter().map(|record| record.created_at).collect();
    let saved: Vec<Option<i64>> = records.iter().map(|record| record.saved_at).collect();
    let documents: Vec<Option<&[u8]>> = records.iter().map(|record| record.document.as_deref()).collect();
    let statement = connection.prepare_cached(statement).await?;
    let params: [&(dyn ToSql + Sync); 8] = [
        &players,
        &versions,
        &fences,
        &last_seqs,
        &created,
        &saved,
        &documents,
        &Uuid::nil(),
    ];
    all_came_to_be(connection.execute(&statement, &params).await?, players.len())
}

const INSERT_PLAYERS: &str = "
    INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at, saved_at, document)
    SELECT player_id, version, fence, last_seq, $8::uuid, $8::uuid, created_at, saved_at, document
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])
        AS new (player_id, version, fence, last_seq, created_at, saved_at, document)
    ORDER BY player_id
    ON CONFLICT (player_id) DO NOTHING";

/// It names its keys twice, as the statements of `write_back` do.
const REPLACE_PLAYERS: &str = "
    UPDATE players SET version = new.version, fence = new.fence, last_seq = new.last_seq, lock_id = $8::uuid,
        server = $8::uuid, created_at = new.created_at, saved_at = new.saved_at, document = new.document
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])
        AS new (player_id, version, fence, last_seq, created_at, saved_at, document)
    WHERE players.player_id = new.player_id AND players.player_id = ANY($1)";

/// Writes the rows of receipts, all of them in one statement: `INSERT_RECEIPTS` or `REPLACE_RECEIPTS`.
async fn put_receipts(
    connection: &Connection,
    statement: &str,
    receipts: &[&StoredReceipt],
) -> Result<(), Failure> {
    if receipts.is_empty() {
        return Ok(());
    }
    let numbers = receipts.iter().map(|receipt| sql(receipt.number));
    let numbers: Vec<i64> = numbers.collect::<Result<_, _>>()?;
    let fences = receipts
        .iter()
        .map(|receipt| receipt.settled_fence.map(sql).transpose());
    let fences: Vec<Option<i64>> = fences.collect::<Result<_, _>>()?;
    let purchases: Vec<&str> = receipts.iter().map(|receipt| receipt.purchase.as_str()).collect();
    let players: Vec<Option<Uuid>> = receipts
        .iter()
        .map(|receipt| receipt.player.map(PlayerId::uuid))
        .collect();
    let products: Vec<Option<&str>> = receipts
        .iter()
        .map(|receipt| receipt.product.as_ref().map(ProductId::as_str))
        .collect();
    let states: Vec<&str> = receipts.iter().map(|receipt| receipt.state.name()).collect();
    let refunds: Vec<bool> = receipts.iter().map(|receipt| receipt.refund_requested).collect();
    let notes: Vec<Option<String>> = receipts
        .iter()
        .map(|receipt| receipt.note.as_deref().map(|note| to_text(note).into_owned()))
        .collect();
    let payloads: Vec<Option<&[u8]>> = receipts
        .iter()
        .map(|receipt| receipt.payload.as_deref())
        .collect();
    let received: Vec<i64> = receipts.iter().map(|receipt| receipt.received_at).collect();
    let settled: Vec<Option<i64>> = receipts.iter().map(|receipt| receipt.settled_at).collect();
    let statement = connection.prepare_cached(statement).await?;
    let params: [&(dyn ToSql + Sync); 11] = [
        &purchases, &numbers, &players, &products, &states, &refunds, &fences, &notes, &payloads, &received,
        &settled,
    ];
    all_came_to_be(connection.execute(&statement, &params).await?, purchases.len())
}

macro_rules! new_receipts {
    () => {
        "unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::boolean[], $7::bigint[], $8::text[],
            $9::bytea[], $10::bigint[], $11::bigint[]) WITH ORDINALITY AS new (purchase_id, number, player_id,
            product_id, state, refund_requested, settled_fence, note, payload, received_at, settled_at, place)"
    };
}

/// A new receipt arrives, like any other. The number of the next one is higher.
const INSERT_RECEIPTS: &str = concat!(
    "WITH taken AS (
         UPDATE counters SET receipts = greatest(receipts, (SELECT max(number) FROM unnest($2::bigint[]) AS number)),
             arrivals = arrivals + cardinality($1::text[])
         WHERE id = 1
         RETURNING arrivals - cardinality($1::text[]) AS arrivals
     )
     INSERT INTO receipts (purchase_id, number, player_id, product_id, state, refund_requested, settled_fence, note,
         payload, received_at, settled_at, arrival)
     SELECT new.purchase_id, new.number, new.player_id, new.product_id, new.state, new.refund_requested,
         new.settled_fence, new.note, new.payload, new.received_at, new.settled_at, taken.arrivals + new.place
     FROM taken, ",
    new_receipts!(),
    " ORDER BY new.place
     ON CONFLICT (purchase_id) DO NOTHING"
);

/// Likewise.
const REPLACE_RECEIPTS: &str = concat!(
    "UPDATE receipts SET player_id = new.player_id, product_id = new.product_id, state = new.state,
         refund_requested = new.refund_requested, settled_fence = new.settled_fence, note = new.note,
         payload = new.payload, received_at = new.received_at, settled_at = new.settled_at
     FROM ",
    new_receipts!(),
    " WHERE receipts.purchase_id = new.purchase_id AND receipts.number = new.number AND receipts.purchase_id = ANY($1)"
);
