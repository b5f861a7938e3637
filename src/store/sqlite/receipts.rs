//! The table of receipts: what is read of it, and what the writer does to it.
//!
//! A receipt's number is its rowid. Rows are never deleted, so there are no gaps that `VACUUM` could close.

use std::{cell::Cell, fmt};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, named_params, types::ValueRef};

use super::{
    super::{
        Arrivals, Enqueued, NewReceipt, Notice, ReceiptState, StoredReceipt, Write, now,
        rules::{self, Arrival, Settling},
    },
    error::Failure,
    row::{column, count, malformed},
    tables::{Tables, sql},
};
use crate::id::{PlayerId, ProductId, PurchaseId};

/// The columns of [`stored_receipt`], in the order in which it reads them.
macro_rules! receipt_columns {
    () => {
        "rowid, purchase_id, player_id, product_id, state, refund_requested, settled_fence, note, payload,
         received_at, settled_at"
    };
}

/// What makes a receipt open, as the index `open_receipts` spells it: SQLite uses that index only for this very text.
macro_rules! is_open {
    () => {
        "(state = 'pending' OR (state = 'granted' AND refund_requested = 1))"
    };
}

/// How many arrivals one look reports.
const ARRIVALS: i64 = 1000;

impl Tables<'_> {
    pub(super) fn enqueue(&self, new: &NewReceipt, notice: Notice) -> Result<Enqueued, Failure> {
        let known = receipt(self.connection, &new.purchase)?;
        let arrival = rules::judge_arrival(known.as_ref(), new, notice)?;
        let id = new.purchase.as_str();
        match arrival {
            Arrival::Again => {}
            Arrival::MarkForRefund => self.execute(
                "UPDATE receipts SET refund_requested = 1 WHERE purchase_id = ?1",
                [id],
            )?,
            Arrival::Insert { refund_requested } => self.execute(
                "INSERT INTO receipts (purchase_id, player_id, product_id, state, refund_requested, payload,
                     received_at)
                 VALUES (:purchase_id, :player_id, :product_id, :state, :refund_requested, :payload, :received_at)",
                named_params! {
                    ":purchase_id": id,
                    ":player_id": new.player.into_bytes(),
                    ":product_id": new.product.as_str(),
                    ":state": ReceiptState::Pending.name(),
                    ":refund_requested": refund_requested,
                    ":payload": new.payload.as_deref(),
                    ":received_at": now(),
                },
            )?,
        }
        let stored = match known.filter(|_| arrival == Arrival::Again) {
            Some(unchanged) => Some(unchanged),
            None => receipt(self.connection, &new.purchase)?,
        };
        Ok(Enqueued {
            receipt: stored.ok_or_else(|| Failure::Malformed(format!("purchase `{id}` was not stored")))?,
            is_new: arrival != Arrival::Again,
        })
    }

    /// Settles the receipts of an accepted write, in their order.
    pub(super) fn settle(&self, write: &Write) -> Result<(), Failure> {
        for settlement in &write.settle {
            let found = receipt(self.connection, &settlement.purchase)?;
            if rules::judge_settlement(found.as_ref(), write, settlement)? == Settling::Again {
                continue;
            }
            self.execute(
                "UPDATE receipts SET state = :state, note = :note, settled_fence = :fence, settled_at = :settled_at
                 WHERE purchase_id = :purchase_id",
                named_params! {
                    ":state": settlement.outcome.state().name(),
                    ":note": settlement.outcome.note(),
                    ":fence": sql(write.fence)?,
                    ":settled_at": now(),
                    ":purchase_id": settlement.purchase.as_str(),
                },
            )?;
        }
        Ok(())
    }

    /// Leaves of a player's receipts the bare purchase ids.
    pub(super) fn forget_buyer(&self, player: PlayerId) -> Result<(), Failure> {
        self.execute(
            "UPDATE receipts SET player_id = NULL, product_id = NULL, payload = NULL, note = NULL
             WHERE player_id = ?1",
            [player.into_bytes()],
        )
    }
}

/// One receipt.
pub(super) fn receipt(
    connection: &Connection,
    purchase: &PurchaseId,
) -> Result<Option<StoredReceipt>, Failure> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE purchase_id = ?1"
    ))?;
    statement
        .query_row([purchase.as_str()], |row| Ok(stored_receipt(row)))
        .optional()?
        .transpose()
}

/// A player's open receipts, in the order in which they were handed in.
pub(super) fn open_receipts(
    connection: &Connection,
    player: PlayerId,
) -> Result<Vec<StoredReceipt>, Failure> {
    let statement = concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts
         WHERE player_id = ?1 AND ",
        is_open!(),
        " ORDER BY rowid"
    );
    all(connection, statement, [player.into_bytes()])
}

/// Up to `limit` of a player's receipts, the newest first, beginning below the number `before`.
pub(super) fn receipts_of(
    connection: &Connection,
    player: PlayerId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<StoredReceipt>, Failure> {
    let statement = concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE player_id = ?1 AND rowid < ?2 ORDER BY rowid DESC LIMIT ?3"
    );
    let before = before
        .and_then(|before| i64::try_from(before).ok())
        .unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(connection, statement, (player.into_bytes(), before, limit))
}

/// Up to `limit` of everybody's receipts, beginning after the number `after`. One that can't be read is an error: a
/// copy must leave nothing out.
pub(super) fn all_receipts(
    connection: &Connection,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<StoredReceipt>, Failure> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        receipt_columns!(),
        " FROM receipts WHERE rowid > ?1 ORDER BY rowid LIMIT ?2"
    ))?;
    let after = after.map_or(0, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let mut rows = statement.query((after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut receipts = Vec::new();
    while let Some(row) = rows.next()? {
        receipts.push(stored_receipt(row)?);
    }
    Ok(receipts)
}

fn all(
    connection: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<StoredReceipt>, Failure> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query(params)?;
    let mut receipts = Vec::new();
    while let Some(row) = rows.next()? {
        receipts.extend(readable(stored_receipt(row))?);
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

fn stored_receipt(row: &Row<'_>) -> Result<StoredReceipt, Failure> {
    let whose = "a receipt";
    let number = count(row, 0, whose)?;
    let id: String = column(row, 1, whose)?;
    let whose = format_args!("purchase `{id}`");
    let player: Option<[u8; 16]> = column(row, 2, whose)?;
    let product: Option<String> = column(row, 3, whose)?;
    let state: String = column(row, 4, whose)?;
    let settled_fence: Option<i64> = column(row, 6, whose)?;
    Ok(StoredReceipt {
        number,
        purchase: PurchaseId::new(&id).map_err(|error| malformed(row, 1, whose, error))?,
        player: player.map(PlayerId::from_bytes),
        product: product
            .map(ProductId::new)
            .transpose()
            .map_err(|error| malformed(row, 3, whose, error))?,
        state: ReceiptState::from_name(&state)
            .ok_or_else(|| malformed(row, 4, whose, format_args!("there is no state `{state}`")))?,
        refund_requested: column(row, 5, whose)?,
        settled_fence: settled_fence
            .map(u64::try_from)
            .transpose()
            .map_err(|error| malformed(row, 6, whose, error))?,
        note: column(row, 7, whose)?,
        payload: payload(row, 8, whose)?,
        received_at: column(row, 9, whose)?,
        settled_at: column(row, 10, whose)?,
    })
}

/// Bytes that another program may have written as text.
fn payload(row: &Row<'_>, index: usize, whose: impl fmt::Display) -> Result<Option<Bytes>, Failure> {
    let bytes = match row.get_ref(index)? {
        ValueRef::Null => return Ok(None),
        value => value
            .as_bytes()
            .map_err(|error| malformed(row, index, whose, error))?,
    };
    Ok(Some(Bytes::copy_from_slice(bytes)))
}

/// What the last look for arrivals has seen, so that one at an unchanged file reads no table.
#[derive(Default)]
pub(super) struct LastLook(Cell<Option<(i64, u64)>>);

impl LastLook {
    /// Whose receipts have arrived since.
    pub(super) fn arrivals(&self, connection: &Connection, since: Option<u64>) -> Result<Arrivals, Failure> {
        // SQLite raises this number when another connection, of whichever process, has committed.
        let data_version: i64 = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if let (Some((seen, newest)), Some(since)) = (self.0.get(), since)
            && seen == data_version
            && since == newest
        {
            return Ok(Arrivals {
                players: Vec::new(),
                newest,
            });
        }
        let arrivals = arrivals(connection, since)?;
        // Not whether it has found players: a whole look may have seen nobody's, with more behind it.
        let is_all = since.is_none_or(|since| since == arrivals.newest);
        self.0.set(is_all.then_some((data_version, arrivals.newest)));
        Ok(arrivals)
    }
}

fn arrivals(connection: &Connection, since: Option<u64>) -> Result<Arrivals, Failure> {
    let Some(since) = since else {
        let newest: i64 =
            connection.query_row("SELECT coalesce(max(arrival), 0) FROM receipts", [], |row| {
                row.get(0)
            })?;
        return Ok(Arrivals {
            players: Vec::new(),
            newest: u64::try_from(newest).unwrap_or_default(),
        });
    };
    let mut statement = connection.prepare_cached(
        "SELECT arrival, player_id FROM receipts WHERE arrival > ?1 ORDER BY arrival LIMIT ?2",
    )?;
    let mut rows = statement.query((i64::try_from(since).unwrap_or(i64::MAX), ARRIVALS))?;
    let mut arrivals = Arrivals {
        players: Vec::new(),
        newest: since,
    };
    while let Some(row) = rows.next()? {
        arrivals.newest = count(row, 0, "a receipt")?;
        let player: Option<Option<[u8; 16]>> = readable(column(row, 1, "a receipt"))?;
        arrivals
            .players
            .extend(player.flatten().map(PlayerId::from_bytes));
    }
    arrivals.players.sort_unstable();
    arrivals.players.dedup();
    Ok(arrivals)
}

/// The weight of a receipt in a transaction, in bytes.
pub(super) fn weight(receipt: &NewReceipt) -> usize {
    receipt.payload.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{SqliteSettings, file},
        *,
    };

    #[test]
    fn a_look_at_a_file_that_nobody_has_changed_reads_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("players.db");
        let reader = file::open(&path, SqliteSettings::default()).unwrap().connection;
        let look = LastLook::default();
        let newest = look.arrivals(&reader, None).unwrap().newest;

        // What this very connection does is no change to it, and without the table it could read nothing.
        reader
            .execute_batch("ALTER TABLE receipts RENAME TO elsewhere")
            .unwrap();
        assert_eq!(look.arrivals(&reader, Some(newest)).unwrap().newest, newest);
        assert!(
            look.arrivals(&reader, Some(newest + 1)).is_err(),
            "another question"
        );
        reader
            .execute_batch("ALTER TABLE elsewhere RENAME TO receipts")
            .unwrap();

        // Anybody else's change is one.
        let other = file::open(&path, SqliteSettings::default()).unwrap().connection;
        let insert = "INSERT INTO receipts (purchase_id, player_id, product_id, state, received_at)
            VALUES ('p1', zeroblob(16), 'hat', 'pending', 0)";
        other.execute_batch(insert).unwrap();
        let arrivals = look.arrivals(&reader, Some(newest)).unwrap();
        assert_eq!((arrivals.players.len(), arrivals.newest), (1, newest + 1));
    }

    #[test]
    fn the_receipts_of_a_player_are_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("players.db");
        let connection = file::open(&path, SqliteSettings::default()).unwrap().connection;
        let plan = |query: &str| -> String {
            let mut statement = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
                .unwrap();
            let details = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
            details.map(Result::unwrap).collect::<Vec<_>>().join("; ")
        };
        let player = "player_id = zeroblob(16)";
        let open = plan(&format!(
            "SELECT * FROM receipts WHERE {player} AND {} ORDER BY rowid",
            is_open!()
        ));
        assert!(open.contains("USING INDEX open_receipts"), "{open}");
        assert!(!open.contains("TEMP B-TREE"), "{open}");
        let history = plan(&format!(
            "SELECT * FROM receipts WHERE {player} AND rowid < 7 ORDER BY rowid DESC"
        ));
        assert!(history.contains("USING INDEX receipts_by_player"), "{history}");
        let arrivals = plan("SELECT arrival, player_id FROM receipts WHERE arrival > 7 ORDER BY arrival");
        assert!(arrivals.contains("USING INDEX receipts_by_arrival"), "{arrivals}");
        let newest = plan("SELECT coalesce(max(arrival), 0) + 1 FROM receipts");
        assert!(newest.contains("receipts_by_arrival"), "{newest}");
    }
}
