//! Writing a transaction's changed rows back, and committing: one round trip.
//!
//! Each kind of change is one statement with arrays, however many rows it is about. A statement that changes another
//! number of rows than were locked for it fails the transaction: it divides by zero. Each names its keys twice, in the join
//! and as an array: a join alone, planned while the table was small, may go through the whole index later on.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    super::{PurchaseId, ReceiptState, StoreError, StoredReceipt, now},
    connection::Connection,
    error::Failure,
    queue::{Answer, Ask, Fate},
    row::{Columns as _, id, lock_and_server, sql, to_text},
    transaction::{Change, ReceiptChange, Rows},
};
use crate::id::PlayerId;

/// Ends a statement that begins with `WITH done AS (UPDATE … RETURNING 1)`.
macro_rules! exactly {
    ($count:literal) => {
        concat!(
            " SELECT 1 / (CASE WHEN count(*) = ",
            $count,
            " THEN 1 ELSE 0 END) FROM done"
        )
    };
}

/// What was to be created, and turned out to be there already.
#[derive(Default)]
pub(super) struct Created {
    players: HashSet<PlayerId>,
    purchases: HashSet<PurchaseId>,
    /// The receipts that were created, with their numbers.
    numbered: HashMap<PurchaseId, u64>,
}

impl Created {
    /// Corrects what a request was told before its rows were written.
    pub(super) fn settle(&self, ask: &Ask, fate: &mut Fate) {
        let is_built_on_sand = match ask {
            Ask::Acquire(acquire) => self.players.contains(&acquire.player),
            Ask::Commit(commit) => commit
                .writes
                .iter()
                .any(|write| self.players.contains(&write.player)),
            Ask::Enqueue(receipt, _) => self.purchases.contains(&receipt.purchase),
            Ask::Erase(player) => self.players.contains(player),
        };
        if is_built_on_sand {
            *fate = Fate::SetAside;
        } else if let Fate::Answered(Ok(Answer::Enqueued(enqueued))) = fate
            && let Some(&number) = self.numbered.get(&enqueued.receipt.purchase)
        {
            enqueued.receipt.number = number;
        }
    }
}

/// Writes everything back that has changed, and commits.
pub(super) async fn run(connection: &Connection, rows: &Rows) -> Result<Created, Failure> {
    let states = States::of(rows)?;
    let saves = Saves::of(rows)?;
    let inserts = Inserts::of(rows)?;
    let settled = Settled::of(rows)?;
    let new = NewReceipts::of(rows);
    let marks = Marks::of(rows);
    let leases = JudgedLeases::of(rows)?;
    let statements = [
        (!states.players.is_empty(), SET_STATE),
        (!saves.0.players.is_empty(), SAVE),
        (!inserts.0.players.is_empty(), INSERT),
        (!settled.purchases.is_empty(), SETTLE),
        (!new.purchases.is_empty(), INSERT_RECEIPTS),
        (!marks.purchases.is_empty(), MARK),
        (!rows.granted.is_empty(), CLEAR_WISHES),
        (!leases.servers.is_empty(), HOLD_LEASES),
    ];
    let mut prepared = Vec::with_capacity(statements.len());
    for (is_needed, query) in statements {
        prepared.push(match is_needed {
            true => Some(connection.prepare_cached(query).await?),
            false => None,
        });
    }
    let send = async |index: usize, params: &[&(dyn ToSql + Sync)]| -> Result<Vec<_>, Failure> {
        match prepared.get(index) {
            Some(Some(statement)) => Ok(connection.query(statement, params).await?),
            _ => Ok(Vec::new()),
        }
    };
    let (of_states, of_saves, of_inserts) = (states.params(), saves.params(), inserts.params());
    let (of_settled, of_new, of_marks) = (settled.params(), new.params(), marks.params());
    let of_granted: Params<'_, 1> = [&rows.granted];
    let of_leases: Params<'_, 2> = [&leases.servers, &leases.beats];
    let has_arrivals = !new.purchases.is_empty() || !marks.purchases.is_empty();
    let notify = async {
        match has_arrivals {
            true => connection.notify().await,
            false => Ok(()),
        }
    };
    let _turn = match leases.servers.is_empty() {
        true => None,
        false => Some(connection.turns.read().await),
    };
    let (held, set, saved, inserted, settlements, received, marked, cleared, notified, committed) = tokio::join!(
        biased;
        send(7, &of_leases),
        send(0, &of_states),
        send(1, &of_saves),
        send(2, &of_inserts),
        send(3, &of_settled),
        send(4, &of_new),
        send(5, &of_marks),
        send(6, &of_granted),
        notify,
        connection.commit(),
    );
    // The first that failed is the one which knows why.
    held?;
    set?;
    saved?;
    let inserted = inserted?;
    settlements?;
    let received = received?;
    marked?;
    cleared?;
    notified?;
    committed?;

    let mut created = Created {
        players: inserts
            .0
            .players
            .iter()
            .copied()
            .map(PlayerId::from_uuid)
            .collect(),
        ..Created::default()
    };
    for row in inserted {
        created.players.remove(&row.player(0)?);
    }
    created.purchases = new.purchases.iter().copied().cloned().collect();
    for row in received {
        let id: String = row.column(0, "a receipt")?;
        let number = row.count(1, "a receipt")?;
        let purchase = PurchaseId::new(&id).map_err(StoreError::corrupt)?;
        created.purchases.remove(&purchase);
        created.numbered.insert(purchase, number);
    }
    Ok(created)
}

const SET_STATE: &str = concat!(
    "WITH done AS (
         UPDATE players SET version = new.version, fence = new.fence, last_seq = new.last_seq,
             lock_id = new.lock_id, server = new.server
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::uuid[])
             AS new (player_id, version, fence, last_seq, lock_id, server)
         WHERE players.player_id = new.player_id AND players.player_id = ANY($1)
         RETURNING 1
     )",
    exactly!("cardinality($1::uuid[])")
);

const SAVE: &str = concat!(
    "WITH done AS (
         UPDATE players SET version = new.version, fence = new.fence, last_seq = new.last_seq,
             lock_id = new.lock_id, server = new.server, document = new.document, saved_at = $8
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::uuid[], $7::bytea[])
             AS new (player_id, version, fence, last_seq, lock_id, server, document)
         WHERE players.player_id = new.player_id AND players.player_id = ANY($1)
         RETURNING 1
     )",
    exactly!("cardinality($1::uuid[])")
);

const INSERT: &str = "
    INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at)
    SELECT player_id, version, fence, last_seq, lock_id, server, $7::bigint
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::uuid[])
        AS new (player_id, version, fence, last_seq, lock_id, server)
    ORDER BY player_id
    ON CONFLICT (player_id) DO NOTHING
    RETURNING player_id";

const SETTLE: &str = concat!(
    "WITH done AS (
         UPDATE receipts SET state = new.state, note = new.note, settled_fence = new.fence, settled_at = $5
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS new (purchase_id, state, note, fence)
         WHERE receipts.purchase_id = new.purchase_id AND receipts.purchase_id = ANY($1)
         RETURNING 1
     )",
    exactly!("cardinality($1::text[])")
);

/// The numbers are taken and used in one statement, sent together with the commit: the row that gives them out is locked
/// until then, and never while the server waits for us.
const INSERT_RECEIPTS: &str = "
    WITH taken AS (
        UPDATE counters SET receipts = receipts + cardinality($1::text[]), arrivals = arrivals + cardinality($1::text[])
        WHERE id = 1
        RETURNING receipts - cardinality($1::text[]) AS receipts, arrivals - cardinality($1::text[]) AS arrivals
    )
    INSERT INTO receipts (purchase_id, number, arrival, player_id, product_id, state, refund_requested, payload,
        received_at)
    SELECT new.purchase_id, taken.receipts + new.place, taken.arrivals + new.place, new.player_id, new.product_id,
        $7::text, new.refund_requested, new.payload, new.received_at
    FROM taken, unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::boolean[], $6::bytea[], $8::bigint[])
        AS new (purchase_id, place, player_id, product_id, refund_requested, payload, received_at)
    ORDER BY new.place
    ON CONFLICT (purchase_id) DO NOTHING
    RETURNING purchase_id, number";

const MARK: &str = concat!(
    "WITH taken AS (
         UPDATE counters SET arrivals = arrivals + cardinality($1::text[]) WHERE id = 1
         RETURNING arrivals - cardinality($1::text[]) AS arrivals
     ), done AS (
         UPDATE receipts SET refund_requested = true, arrival = taken.arrivals + new.place
         FROM taken, unnest($1::text[], $2::bigint[]) AS new (purchase_id, place)
         WHERE receipts.purchase_id = new.purchase_id AND receipts.purchase_id = ANY($1)
         RETURNING 1
     )",
    exactly!("cardinality($1::text[])")
);

/// Makes sure of the beats that granted locks rest on, and keeps them where they are until the commit: who has seen a
/// beat has seen every lock that was granted before it, and nobody loses a lock to a lapse after a beat. Fails where
/// one has moved.
///
/// Shared, because they all are about the same row, that of the server that asks. In it they take turns with its beat
/// (see [`Connection::turns`]); the row of another server is in it only where a lock is taken from a lapsed one, of
/// which there are no more than it had.
const HOLD_LEASES: &str = "
    SELECT ln(CASE WHEN count(*) = cardinality($1::uuid[]) THEN 1.0 ELSE 0.0 END)
    FROM (
        SELECT 1 FROM servers
        JOIN unnest($1::uuid[], $2::bigint[]) AS judged (boot_id, beat)
            ON servers.boot_id = judged.boot_id AND servers.beat = judged.beat
        ORDER BY servers.boot_id
        FOR SHARE OF servers
    ) AS held";

/// A lock that is granted, to whomever, clears the wishes for its player.
const CLEAR_WISHES: &str = "DELETE FROM wishes WHERE player_id = ANY($1)";

type Params<'a, const N: usize> = [&'a (dyn ToSql + Sync); N];

/// Rows of which only the columns of fixed width change.
#[derive(Default)]
struct States {
    players: Vec<Uuid>,
    versions: Vec<i64>,
    fences: Vec<i64>,
    last_seqs: Vec<i64>,
    locks: Vec<Uuid>,
    servers: Vec<Uuid>,
}

impl States {
    fn where_changed(rows: &Rows, is_meant: impl Fn(&Change) -> bool) -> Result<Self, Failure> {
        let mut columns = Self::default();
        for (player, row) in rows.players.iter().filter(|(_, row)| is_meant(&row.change)) {
            let (lock, server) = lock_and_server(row.state.held);
            columns.players.push(player.uuid());
            columns.versions.push(sql(row.state.version)?);
            columns.fences.push(sql(row.state.fence)?);
            columns.last_seqs.push(sql(row.state.last_seq)?);
            columns.locks.push(lock);
            columns.servers.push(server);
        }
        Ok(columns)
    }

    fn of(rows: &Rows) -> Result<Self, Failure> {
        Self::where_changed(rows, |change| matches!(change, Change::State))
    }

    fn params(&self) -> Params<'_, 6> {
        [
            &self.players,
            &self.versions,
            &self.fences,
            &self.last_seqs,
            &self.locks,
            &self.servers,
        ]
    }
}

/// Rows with a new document, and when it was saved.
struct Saves<'a>(States, Vec<&'a [u8]>, i64);

impl<'a> Saves<'a> {
    fn of(rows: &'a Rows) -> Result<Self, Failure> {
        let states = States::where_changed(rows, |change| matches!(change, Change::Document(_)))?;
        let documents = rows.players.values().filter_map(|row| match &row.change {
            Change::Document(document) => Some(&document[..]),
            _ => None,
        });
        Ok(Self(states, documents.collect(), now()))
    }

    fn params(&self) -> Params<'_, 8> {
        let [players, versions, fences, last_seqs, locks, servers] = self.0.params();
        [
            players, versions, fences, last_seqs, locks, servers, &self.1, &self.2,
        ]
    }
}

/// Rows of players who had none, and when that was.
struct Inserts(States, i64);

impl Inserts {
    fn of(rows: &Rows) -> Result<Self, Failure> {
        let states = States::where_changed(rows, |change| matches!(change, Change::Insert))?;
        Ok(Self(states, now()))
    }

    fn params(&self) -> Params<'_, 7> {
        let [players, versions, fences, last_seqs, locks, servers] = self.0.params();
        [players, versions, fences, last_seqs, locks, servers, &self.1]
    }
}

#[derive(Default)]
struct JudgedLeases {
    servers: Vec<Uuid>,
    beats: Vec<i64>,
}

impl JudgedLeases {
    fn of(rows: &Rows) -> Result<Self, Failure> {
        let mut columns = Self::default();
        for (server, beat) in &rows.beats {
            columns.servers.push(id(server.into_bytes()));
            columns.beats.push(sql(*beat)?);
        }
        Ok(columns)
    }
}

fn receipts_with(rows: &Rows, change: ReceiptChange) -> impl Iterator<Item = &StoredReceipt> {
    rows.receipts
        .values()
        .filter(move |row| row.change == change)
        .map(|row| &row.receipt)
}

#[derive(Default)]
struct Settled<'a> {
    purchases: Vec<&'a str>,
    states: Vec<&'static str>,
    notes: Vec<Option<String>>,
    fences: Vec<Option<i64>>,
    at: i64,
}

impl<'a> Settled<'a> {
    fn of(rows: &'a Rows) -> Result<Self, Failure> {
        let mut columns = Self {
            at: now(),
            ..Self::default()
        };
        for receipt in receipts_with(rows, ReceiptChange::Settle) {
            columns.purchases.push(receipt.purchase.as_str());
            columns.states.push(receipt.state.name());
            let note = receipt.note.as_deref();
            columns.notes.push(note.map(|note| to_text(note).into_owned()));
            columns.fences.push(receipt.settled_fence.map(sql).transpose()?);
        }
        Ok(columns)
    }

    fn params(&self) -> Params<'_, 5> {
        [&self.purchases, &self.states, &self.notes, &self.fences, &self.at]
    }
}

#[derive(Default)]
struct NewReceipts<'a> {
    purchases: Vec<&'a PurchaseId>,
    ids: Vec<&'a str>,
    places: Vec<i64>,
    players: Vec<Option<Uuid>>,
    products: Vec<Option<&'a str>>,
    refunds: Vec<bool>,
    payloads: Vec<Option<&'a [u8]>>,
    state: &'static str,
    received_at: Vec<i64>,
}

impl<'a> NewReceipts<'a> {
    fn of(rows: &'a Rows) -> Self {
        let mut columns = Self {
            state: ReceiptState::Pending.name(),
            ..Self::default()
        };
        let mut new: Vec<_> = receipts_with(rows, ReceiptChange::Insert).collect();
        // In the order in which they were handed in, which their provisional numbers keep.
        new.sort_by_key(|receipt| receipt.number);
        for (place, receipt) in (1..).zip(new) {
            columns.purchases.push(&receipt.purchase);
            columns.ids.push(receipt.purchase.as_str());
            columns.places.push(place);
            columns.players.push(receipt.player.map(PlayerId::uuid));
            let product = receipt.product.as_ref();
            columns.products.push(product.map(crate::id::ProductId::as_str));
            columns.refunds.push(receipt.refund_requested);
            columns.payloads.push(receipt.payload.as_deref());
            columns.received_at.push(receipt.received_at);
        }
        columns
    }

    fn params(&self) -> Params<'_, 8> {
        [
            &self.ids,
            &self.places,
            &self.players,
            &self.products,
            &self.refunds,
            &self.payloads,
            &self.state,
            &self.received_at,
        ]
    }
}

#[derive(Default)]
struct Marks<'a> {
    purchases: Vec<&'a str>,
    places: Vec<i64>,
}

impl<'a> Marks<'a> {
    fn of(rows: &'a Rows) -> Self {
        let marked = receipts_with(rows, ReceiptChange::Mark);
        let purchases: Vec<_> = marked.map(|receipt| receipt.purchase.as_str()).collect();
        let places = (1..).take(purchases.len()).collect();
        Self { purchases, places }
    }

    fn params(&self) -> Params<'_, 2> {
        [&self.purchases, &self.places]
    }
}
