//! Receipts: handing them in, and what is read of them.

use tokio_postgres::types::ToSql;

use super::{
    super::{
        Arrivals, Enqueued, NewReceipt, Notice, PurchaseId, ReceiptState, StoreError, StoredReceipt, now,
        rules::{self, Arrival},
    },
    connection::Connection,
    error::Failure,
    row::{Columns as _, is_open, receipt_columns},
    transaction::{ReceiptChange, ReceiptRow, Rows},
};
use crate::id::PlayerId;

/// How many arrivals one look reports.
const ARRIVALS: i64 = 1000;

impl Rows {
    /// Takes in what is handed in. A new receipt gets a provisional number, which keeps the order.
    pub(super) fn enqueue(&mut self, new: &NewReceipt, notice: Notice) -> Result<Enqueued, StoreError> {
        let known = self.receipts.get(&new.purchase);
        let arrival = rules::judge_arrival(known.map(|row| &row.receipt), new, notice)?;
        let provisional = self.receipts.len() as u64;
        let row = self
            .receipts
            .entry(new.purchase.clone())
            .or_insert_with(|| ReceiptRow {
                receipt: StoredReceipt {
                    number: provisional,
                    purchase: new.purchase.clone(),
                    player: Some(new.player),
                    product: Some(new.product.clone()),
                    state: ReceiptState::Pending,
                    refund_requested: false,
                    settled_fence: None,
                    note: None,
                    payload: new.payload.clone(),
                    received_at: now(),
                    settled_at: None,
                },
                change: ReceiptChange::Nothing,
            });
        match arrival {
            Arrival::Again => {}
            Arrival::Insert { refund_requested } => {
                row.receipt.refund_requested = refund_requested;
                row.change = ReceiptChange::Insert;
            }
            Arrival::MarkForRefund => {
                row.receipt.refund_requested = true;
                if row.change == ReceiptChange::Nothing {
                    row.change = ReceiptChange::Mark;
                }
            }
        }
        Ok(Enqueued {
            receipt: row.receipt.clone(),
            is_new: arrival != Arrival::Again,
        })
    }
}

/// One receipt.
pub(super) async fn receipt(
    connection: &Connection,
    purchase: &PurchaseId,
) -> Result<Option<StoredReceipt>, Failure> {
    let query = concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE purchase_id = $1"
    );
    let statement = connection.prepare_cached(query).await?;
    let row = connection.query_opt(&statement, &[&purchase.as_str()]).await?;
    row.map(|row| row.receipt()).transpose()
}

/// A player's open receipts, in the order in which they were handed in.
pub(super) async fn open_receipts(
    connection: &Connection,
    player: PlayerId,
) -> Result<Vec<StoredReceipt>, Failure> {
    let query = concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE player_id = $1 AND ",
        is_open!(),
        " ORDER BY number"
    );
    all(connection, query, &[&player.uuid()]).await
}

/// Up to `limit` of a player's receipts, the newest first, beginning below the number `before`.
pub(super) async fn receipts_of(
    connection: &Connection,
    player: PlayerId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<StoredReceipt>, Failure> {
    let query = concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE player_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3"
    );
    let before = before
        .and_then(|before| i64::try_from(before).ok())
        .unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(connection, query, &[&player.uuid(), &before, &limit]).await
}

/// Up to `limit` of everybody's receipts, beginning after the number `after`. One that can't be read is an error: a
/// copy must leave nothing out.
pub(super) async fn all_receipts(
    connection: &Connection,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<StoredReceipt>, Failure> {
    let query = concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE number > $1 ORDER BY number LIMIT $2"
    );
    let after = after.map_or(0, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let statement = connection.prepare_cached(query).await?;
    let rows = connection.query(&statement, &[&after, &limit]).await?;
    rows.iter().map(|row| row.receipt()).collect()
}

async fn all(
    connection: &Connection,
    query: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<StoredReceipt>, Failure> {
    let statement = connection.prepare_cached(query).await?;
    let mut receipts = Vec::new();
    for row in connection.query(&statement, params).await? {
        receipts.extend(readable(row.receipt())?);
    }
    Ok(receipts)
}

/// A row that makes no sense, which only another program can have written, must not stand in the way of all others.
fn readable<T>(read: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(Failure::Malformed(problem)) => {
            tracing::error!("a receipt is left out: {problem}");
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// Whose receipts have arrived since.
pub(super) async fn arrivals(connection: &Connection, since: Option<u64>) -> Result<Arrivals, Failure> {
    let Some(since) = since else {
        let query = "SELECT coalesce(max(arrival), 0) FROM receipts";
        let statement = connection.prepare_cached(query).await?;
        let row = connection.query_one(&statement, &[]).await?;
        return Ok(Arrivals {
            players: Vec::new(),
            newest: row.count(0, "the receipts")?,
        });
    };
    let query = "SELECT arrival, player_id FROM receipts WHERE arrival > $1 ORDER BY arrival LIMIT $2";
    let statement = connection.prepare_cached(query).await?;
    let mut arrivals = Arrivals {
        players: Vec::new(),
        newest: since,
    };
    let from = i64::try_from(since).unwrap_or(i64::MAX);
    for row in connection.query(&statement, &[&from, &ARRIVALS]).await? {
        arrivals.newest = row.count(0, "a receipt")?;
        let player: Option<uuid::Uuid> = row.column(1, "a receipt")?;
        arrivals.players.extend(player.map(PlayerId::from_uuid));
    }
    if arrivals.newest == since {
        // A failover, or a backup, may have taken the last arrivals away: their numbers are given out again.
        let statement = connection
            .prepare_cached("SELECT arrivals FROM counters WHERE id = 1")
            .await?;
        let row = connection.query_one(&statement, &[]).await?;
        arrivals.newest = since.min(row.count(0, "the counters")?);
    }
    arrivals.players.sort_unstable();
    arrivals.players.dedup();
    Ok(arrivals)
}
