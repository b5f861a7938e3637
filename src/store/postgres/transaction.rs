//! One transaction for a group of requests.
//!
//! Two round trips, however many requests there are: lock and read all rows that they name; then, judged in memory,
//! write back what changed and commit. Requests are judged one after another by the parent module's
//! [`rules`](super::super::rules), each on what the ones before it have changed.
//!
//! Rows are locked in one order everywhere: players, receipts, servers, players who are new, the row of `counters`,
//! wishes; in each table by key (but wishes in any order: who meets another there is run again). Every answer rests on
//! a player's or a receipt's row that was locked here, so that the commit behind it waits for a synchronous standby
//! even if it changes nothing: what somebody else has written is answered for only once it is as durable as our own.
//!
//! Servers' rows are only looked at when requests are judged. A lock that is granted rests on the beats that were seen,
//! and `write_back` makes sure of them in the round trip that commits: a beat waits for no request that is still being
//! judged, nor for one that is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio_postgres::{Row, Statement, types::ToSql};
use uuid::Uuid;

use super::{
    super::{
        Acquire, Acquired, Commit, Committed, PurchaseId, ServerId, ServerLease, StoreError, StoredReceipt,
        now,
        rules::{self, Grant, LockState, Settling, Verdict},
    },
    connection::Connection,
    error::Failure,
    queue::{Answer, Ask, Fate},
    row::{Columns as _, LOCK_COLUMNS, lock_columns, receipt_columns},
    write_back,
};
use crate::{id::PlayerId, steps};

/// The most bytes that the documents of one commit have together: with those of its neighbours, well below what one of
/// PostgreSQL's messages holds.
const LARGEST_COMMIT: usize = 256 * 1024 * 1024;

/// What becomes of a row that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locking {
    /// It is waited for.
    Wait,
    /// It is left out, and with it whoever needs it.
    SkipLocked,
}

impl Locking {
    fn statement(self, query: &str) -> String {
        match self {
            Self::Wait => query.to_owned(),
            Self::SkipLocked => format!("{query} SKIP LOCKED"),
        }
    }
}

/// A player's row.
#[derive(Clone, Debug, Default)]
pub(super) struct PlayerRow {
    pub(super) state: LockState,
    pub(super) change: Change,
    document: Option<Bytes>,
}

/// What is to be written back of a player's row.
#[derive(Clone, Debug, Default)]
pub(super) enum Change {
    #[default]
    Nothing,
    /// A row that wasn't there.
    Insert,
    State,
    Document(Bytes),
}

/// A receipt's row.
#[derive(Clone, Debug)]
pub(super) struct ReceiptRow {
    pub(super) receipt: StoredReceipt,
    pub(super) change: ReceiptChange,
}

/// What is to be written back of a receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ReceiptChange {
    #[default]
    Nothing,
    Insert,
    Mark,
    Settle,
}

/// The rows that a transaction has locked, as they are by now.
pub(super) struct Rows {
    locking: Locking,
    /// Whose locks were granted.
    pub(super) granted: Vec<Uuid>,
    pub(super) players: BTreeMap<PlayerId, PlayerRow>,
    servers: BTreeMap<ServerId, ServerLease>,
    /// The beats that the granted locks rest on.
    pub(super) beats: BTreeMap<ServerId, u64>,
    pub(super) receipts: BTreeMap<PurchaseId, ReceiptRow>,
}

/// Runs the requests and says what has become of each.
///
/// # Errors
/// When nothing of any of them has happened, or when nobody knows.
pub(super) async fn run(
    connection: &Connection,
    asks: Arc<[Ask]>,
    locking: Locking,
) -> Result<Vec<Fate>, Failure> {
    if let [Ask::Erase(player)] = asks[..] {
        return super::erase::run(connection, player).await;
    }
    let mut rows = Rows::lock(connection, &asks, locking).await?;
    let mut fates: Vec<Fate> = asks.iter().map(|ask| rows.judge(ask)).collect();
    steps::reached("commit.before");
    let created = write_back::run(connection, &rows).await?;
    steps::reached("commit.done");
    for (ask, fate) in asks.iter().zip(&mut fates) {
        created.settle(ask, fate);
    }
    Ok(fates)
}

impl Rows {
    /// Begins the transaction, and locks and reads every row that the requests name.
    async fn lock(connection: &Connection, asks: &[Ask], locking: Locking) -> Result<Self, Failure> {
        let mut readers = BTreeSet::new();
        let mut writers = BTreeSet::new();
        let mut servers = BTreeSet::new();
        let mut purchases = BTreeSet::new();
        for ask in asks {
            match ask {
                Ask::Acquire(acquire) => {
                    readers.insert(acquire.player.uuid());
                    servers.insert(Uuid::from_bytes(acquire.server.into_bytes()));
                }
                Ask::Commit(commit) => {
                    for write in &commit.writes {
                        writers.insert(write.player.uuid());
                        purchases.extend(write.settle.iter().map(|settlement| settlement.purchase.as_str()));
                    }
                }
                Ask::Enqueue(receipt, _) => {
                    purchases.insert(receipt.purchase.as_str());
                }
                Ask::Erase(_) => unreachable!("it is always alone"),
            }
        }
        // Nobody is locked twice by one statement after another: that would be two orders.
        let writers: Vec<Uuid> = writers.difference(&readers).copied().collect();
        let readers: Vec<Uuid> = readers.into_iter().collect();
        let servers: Vec<Uuid> = servers.into_iter().collect();
        let purchases: Vec<&str> = purchases.into_iter().collect();

        let find = connection
            .prepare_cached(&locking.statement(concat!(
                "SELECT player_id, ",
                lock_columns!(),
                " FROM players WHERE player_id = ANY($1) ORDER BY player_id FOR UPDATE"
            )))
            .await?;
        let find_with_document = connection
            .prepare_cached(&locking.statement(concat!(
                "SELECT player_id, ",
                lock_columns!(),
                ", document FROM players WHERE player_id = ANY($1) ORDER BY player_id FOR UPDATE"
            )))
            .await?;
        let find_servers = connection
            .prepare_cached(
                "SELECT boot_id, name, beat FROM servers
                 WHERE boot_id = ANY($1)
                     OR boot_id IN (SELECT server FROM players WHERE player_id = ANY($2))",
            )
            .await?;
        let find_receipts = connection
            .prepare_cached(&locking.statement(concat!(
                "SELECT ",
                receipt_columns!(),
                " FROM receipts WHERE purchase_id = ANY($1) ORDER BY purchase_id FOR UPDATE"
            )))
            .await?;

        let (of_readers, of_writers) = ([&readers as Param<'_>], [&writers as Param<'_>]);
        let of_servers = [&servers as Param<'_>, &readers];
        let of_purchases = [&purchases as Param<'_>];
        let (begun, found_readers, found_writers, found_servers, found_receipts) = tokio::join!(
            biased;
            connection.begin(),
            some(connection, &find_with_document, &of_readers, readers.len()),
            some(connection, &find, &of_writers, writers.len()),
            some(connection, &find_servers, &of_servers, servers.len()),
            some(connection, &find_receipts, &of_purchases, purchases.len()),
        );
        begun?;
        let mut players = BTreeMap::new();
        for (rows, has_document) in [(found_readers?, true), (found_writers?, false)] {
            for row in rows {
                let player = row.player(0)?;
                let whose = format_args!("player {player}");
                let mut found = PlayerRow {
                    state: row.lock_state(1, whose)?,
                    ..PlayerRow::default()
                };
                if has_document {
                    found.document = row.bytes(1 + LOCK_COLUMNS, whose)?;
                }
                players.insert(player, found);
            }
        }
        let mut leases = BTreeMap::new();
        for row in found_servers? {
            let lease = row.server_lease()?;
            leases.insert(lease.server, lease);
        }
        let mut receipts = BTreeMap::new();
        for row in found_receipts? {
            let receipt = row.receipt()?;
            let change = ReceiptChange::Nothing;
            receipts.insert(receipt.purchase.clone(), ReceiptRow { receipt, change });
        }
        Ok(Self {
            locking,
            granted: Vec::new(),
            players,
            servers: leases,
            beats: BTreeMap::new(),
            receipts,
        })
    }

    /// Judges one request, and keeps in memory what it changes. A refused one changes nothing.
    fn judge(&mut self, ask: &Ask) -> Fate {
        let answer = match ask {
            Ask::Acquire(acquire) => self.acquire(acquire).map(|found| found.map(Answer::Acquired)),
            Ask::Commit(commit) => self.commit(commit).map(|found| found.map(Answer::Committed)),
            Ask::Enqueue(receipt, notice) => self
                .enqueue(receipt, *notice)
                .map(|enqueued| Some(Answer::Enqueued(enqueued))),
            Ask::Erase(_) => unreachable!("it is always alone"),
        };
        match answer {
            Ok(Some(answer)) => Fate::Answered(Ok(answer)),
            Ok(None) => Fate::SetAside,
            Err(error) => Fate::Answered(Err(error)),
        }
    }

    /// `None` when it takes a transaction that waits.
    fn acquire(&mut self, acquire: &Acquire) -> Result<Option<Acquired>, StoreError> {
        rules::check_acquire(acquire)?;
        let found = self.players.get(&acquire.player);
        let is_there = found.is_some();
        let mut row = found.cloned().unwrap_or_default();
        let own = self.servers.get(&acquire.server).cloned();
        let lease = row
            .state
            .held
            .and_then(|held| self.servers.get(&held.server))
            .cloned();
        let judged_on = [own.clone(), lease.clone()];
        let grant = match rules::judge_acquire(row.state, own, lease, acquire) {
            // The row may be there, and locked by somebody.
            Err(_) if !is_there && self.locking == Locking::SkipLocked => return Ok(None),
            grant => grant?,
        };
        let taken_from = match grant {
            Grant::Again => None,
            Grant::Anew { state, taken_from } => {
                if is_there {
                    // Without a row nobody can have wished for the player, and a row that was skipped may be held by whom
                    // the wish is for.
                    self.granted.push(acquire.player.uuid());
                }
                let judged_on = judged_on.into_iter().flatten();
                self.beats
                    .extend(judged_on.map(|lease| (lease.server, lease.beat)));
                row.state = state;
                row.change = match row.change {
                    Change::Nothing if is_there => Change::State,
                    Change::Nothing => Change::Insert,
                    more => more,
                };
                taken_from
            }
        };
        let acquired = Acquired {
            fence: row.state.fence,
            version: row.state.version,
            document: row.document.clone(),
            taken_from,
        };
        self.players.insert(acquire.player, row);
        Ok(Some(acquired))
    }

    /// `None` when it takes a transaction that waits.
    fn commit(&mut self, commit: &Commit) -> Result<Option<Committed>, StoreError> {
        rules::check_commit(commit)?;
        check_size(commit)?;
        if self.locking == Locking::SkipLocked && !self.has_all(commit) {
            return Ok(None);
        }
        let mut players = Vec::with_capacity(commit.writes.len());
        let mut receipts: BTreeMap<&PurchaseId, ReceiptRow> = BTreeMap::new();
        let mut versions = Vec::with_capacity(commit.writes.len());
        for write in &commit.writes {
            let row = self.players.get(&write.player);
            let verdict = rules::judge_write(row.map(|row| row.state), write)?;
            let Some(row) = row else {
                unreachable!("a write without a row is refused");
            };
            // What is judged on a row that may not come about is judged again, by itself.
            if matches!(row.change, Change::Insert) {
                return Ok(None);
            }
            let Verdict::Accepted(state) = verdict else {
                versions.push(row.state.version);
                continue;
            };
            versions.push(state.version);
            for settlement in &write.settle {
                let id = &settlement.purchase;
                let found = receipts.get(id).or_else(|| self.receipts.get(id));
                let receipt = found.map(|row| &row.receipt);
                if rules::judge_settlement(receipt, write, settlement)? == Settling::Anew
                    && let Some(mut row) = found.cloned()
                {
                    row.receipt.state = settlement.outcome.state();
                    row.receipt.note = settlement.outcome.note().map(str::to_owned);
                    row.receipt.settled_fence = Some(write.fence);
                    row.receipt.settled_at = Some(now());
                    row.change = ReceiptChange::Settle;
                    receipts.insert(id, row);
                }
            }
            let change = match (&write.document, &row.change) {
                (Some(document), _) => Change::Document(document.clone()),
                (None, Change::Nothing) => Change::State,
                (None, more) => more.clone(),
            };
            let document = write.document.clone().or_else(|| row.document.clone());
            players.push((
                write.player,
                PlayerRow {
                    state,
                    change,
                    document,
                },
            ));
        }
        self.players.extend(players);
        self.receipts
            .extend(receipts.into_iter().map(|(id, row)| (id.clone(), row)));
        Ok(Some(Committed { versions }))
    }

    fn has_all(&self, commit: &Commit) -> bool {
        commit.writes.iter().all(|write| {
            self.players.contains_key(&write.player)
                && write
                    .settle
                    .iter()
                    .all(|settlement| self.receipts.contains_key(&settlement.purchase))
        })
    }
}

/// How many bytes a commit's documents have together.
pub(super) fn size(commit: &Commit) -> usize {
    let documents = commit.writes.iter().filter_map(|write| write.document.as_ref());
    documents.map(Bytes::len).sum()
}

fn check_size(commit: &Commit) -> Result<(), StoreError> {
    let size = size(commit);
    if size <= LARGEST_COMMIT {
        return Ok(());
    }
    let players: Vec<String> = commit
        .writes
        .iter()
        .map(|write| write.player.to_string())
        .collect();
    Err(StoreError::rejected(format_args!(
        "the documents of one commit (player {}) have {size} bytes, and at most {LARGEST_COMMIT} are stored: make them smaller",
        players.join(", player ")
    )))
}

type Param<'a> = &'a (dyn ToSql + Sync);

/// Runs a query for so many rows, if there are any.
async fn some(
    connection: &Connection,
    statement: &Statement,
    params: &[Param<'_>],
    count: usize,
) -> Result<Vec<Row>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    Ok(connection.query(statement, params).await?)
}
