//! A store in memory, for tests and for games that need nothing to outlive the process.
//!
//! The module owns [`MemoryStore`]. It promises the same rules and the same refusals as every other store, and, like
//! an operating system's file lock, that a server's name is given back when the last handle of its connection is
//! dropped. Nothing survives the last handle of all.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Import, Lease, Leases, LockId,
    NewReceipt, Notice, PurchaseId, ReceiptState, Record, ServerId, ServerLease, Store, StoreError,
    StoredReceipt, Wish, Wished, Wishes, Write, now,
    rules::{self, Arrival, Grant, Held, LockState, Settling, Verdict},
};
use crate::id::PlayerId;

mod import;

/// A [`Store`] whose rows live in memory.
///
/// A clone is another handle of the same *connection*; [`connect`](Self::connect) opens another connection to the same
/// rows, as another server process would. Dropping a connection's last handle without [`Store::retire`] is what a
/// crash is to a database: the rows stay as they are, and the names that its servers held can be proven dead.
///
/// ```
/// use bevy_player_data::store::{Lease, MemoryStore, ServerId, Store, StoreError};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let boot = || Lease { server: ServerId::random(), name: "arena".to_owned(), lapsed: Vec::new() };
///
/// let rows = MemoryStore::default();          // stays with the test, to look at the rows
/// let server = rows.connect();                // goes into the app
/// server.lease(boot()).await.unwrap();
///
/// let successor = rows.connect();
/// let refused = successor.lease(boot()).await.unwrap_err();
/// assert_eq!(refused, StoreError::NameTaken { name: "arena".to_owned() });
///
/// drop(server);                               // the crash
/// assert_eq!(successor.lease(boot()).await.unwrap().servers.len(), 1);
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    connection: Arc<Connection>,
}

/// What a process is to a database: the owner of its servers' names.
#[derive(Default)]
struct Connection {
    id: u64,
    tables: Arc<Mutex<Tables>>,
}

#[derive(Default)]
struct Tables {
    players: BTreeMap<PlayerId, Row>,
    servers: BTreeMap<ServerId, Beat>,
    /// Which boot has which name, and on which connection. The equivalent of a file lock: not a row.
    names: HashMap<String, NameHold>,
    /// The id of the newest connection.
    connections: u64,
    receipts: HashMap<PurchaseId, StoredReceipt>,
    /// The number of the newest receipt.
    last_number: u64,
    /// Whose receipts were handed in or marked for a refund, in that order.
    arrivals: Vec<PlayerId>,
    /// By player and by the lock that is wished for. One that doesn't stand any more may be among them.
    wishes: BTreeMap<(PlayerId, LockId), Wish>,
}

struct Row {
    state: LockState,
    created_at: i64,
    saved_at: Option<i64>,
    document: Option<Bytes>,
}

struct Beat {
    name: String,
    beat: u64,
}

#[derive(PartialEq, Eq)]
struct NameHold {
    server: ServerId,
    connection: u64,
}

impl MemoryStore {
    /// Another connection to the same rows, as another server process would have it.
    #[must_use]
    pub fn connect(&self) -> Self {
        let id = {
            let mut tables = self.connection.tables();
            tables.connections += 1;
            tables.connections
        };
        Self {
            connection: Arc::new(Connection {
                id,
                tables: Arc::clone(&self.connection.tables),
            }),
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("connection", &self.connection.id)
            .finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(async move { self.connection.tables().lease(self.connection.id, lease) })
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        Box::pin(async move { Ok(self.connection.tables().leases()) })
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let hold = NameHold {
                server,
                connection: self.connection.id,
            };
            let mut tables = self.connection.tables();
            tables.servers.remove(&server);
            tables.wishes.retain(|_, wish| wish.server != server);
            tables.names.retain(|_, held| *held != hold);
            Ok(())
        })
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        Box::pin(async move { self.connection.tables().acquire(&acquire) })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move { self.connection.tables().commit(commit) })
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move { Ok(self.connection.tables().peek(player)) })
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        Box::pin(async move {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let tables = self.connection.tables();
            Ok(tables
                .players
                .range((start, Bound::Unbounded))
                .take(limit)
                .map(|(&player, _)| player)
                .collect())
        })
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { self.connection.tables().erase(player) })
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        Box::pin(async move { self.connection.tables().enqueue(receipt, notice) })
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        Box::pin(async move { Ok(self.connection.tables().receipts.get(&purchase).cloned()) })
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(async move {
            let mut receipts = self
                .connection
                .tables()
                .receipts_where(|receipt| receipt.player == Some(player) && receipt.is_open());
            receipts.sort_by_key(|receipt| receipt.number);
            Ok(receipts)
        })
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(async move {
            let mut receipts = self.connection.tables().receipts_where(|receipt| {
                receipt.player == Some(player) && before.is_none_or(|before| receipt.number < before)
            });
            receipts.sort_by_key(|receipt| Reverse(receipt.number));
            receipts.truncate(limit);
            Ok(receipts)
        })
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        Box::pin(async move { Ok(self.connection.tables().arrivals(since)) })
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { Ok(self.connection.tables().wish(wish)) })
    }

    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.connection.tables().wishes.remove(&(player, lock));
            Ok(())
        })
    }

    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>> {
        Box::pin(async move { Ok(self.connection.tables().wishes(server)) })
    }

    fn all_receipts(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        Box::pin(async move {
            let mut receipts = self
                .connection
                .tables()
                .receipts_where(|receipt| after.is_none_or(|after| receipt.number > after));
            receipts.sort_by_key(|receipt| receipt.number);
            receipts.truncate(limit);
            Ok(receipts)
        })
    }

    fn import(&self, rows: Import) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.connection.tables().import(rows) })
    }
}

impl Connection {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every request judges first and changes afterwards, so a panic in between leaves nothing half done.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tables().names.retain(|_, held| held.connection != self.id);
    }
}

impl Tables {
    fn lease(&mut self, connection: u64, Lease { server, name, .. }: Lease) -> Result<Leases, StoreError> {
        rules::check_name(
            server,
            self.servers.get(&server).map(|row| row.name.as_str()),
            &name,
        )?;
        let hold = NameHold { server, connection };
        if self.names.get(&name).is_some_and(|held| *held != hold) {
            return Err(StoreError::NameTaken { name });
        }
        self.names.insert(name.clone(), hold);
        // The name was free, or ours: whoever else has a row with it is dead.
        self.servers
            .retain(|&other, row| other == server || row.name != name);
        self.wishes
            .retain(|_, wish| self.servers.contains_key(&wish.server));
        self.servers.entry(server).or_insert(Beat { name, beat: 0 }).beat += 1;
        Ok(self.leases())
    }

    fn leases(&self) -> Leases {
        Leases {
            servers: self
                .servers
                .keys()
                .filter_map(|&server| self.lease_of(server))
                .collect(),
        }
    }

    fn lease_of(&self, server: ServerId) -> Option<ServerLease> {
        let row = self.servers.get(&server)?;
        Some(ServerLease {
            server,
            name: row.name.clone(),
            beat: row.beat,
        })
    }

    fn acquire(&mut self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        rules::check_acquire(acquire)?;
        let state = self
            .players
            .get(&acquire.player)
            .map(|row| row.state)
            .unwrap_or_default();
        let own = self.lease_of(acquire.server);
        let lease = state.held.and_then(|held| self.lease_of(held.server));
        let grant = rules::judge_acquire(state, own, lease, acquire)?;

        let row = self.players.entry(acquire.player).or_insert_with(|| Row {
            state,
            created_at: now(),
            saved_at: None,
            document: None,
        });
        let taken_from = match grant {
            Grant::Again => None,
            Grant::Anew { state, taken_from } => {
                row.state = state;
                self.wishes.retain(|&(player, _), _| player != acquire.player);
                taken_from
            }
        };
        Ok(Acquired {
            fence: row.state.fence,
            version: row.state.version,
            document: row.document.clone(),
            taken_from,
        })
    }

    fn wish(&mut self, wish: Wish) -> bool {
        let stands = self.held_if_it_stands(&wish).is_some();
        if stands {
            self.wishes.insert((wish.player, wish.lock), wish);
        }
        stands
    }

    fn held_if_it_stands(&self, wish: &Wish) -> Option<Held> {
        let held = self.players.get(&wish.player)?.state.held;
        let own = self.lease_of(wish.server);
        held.filter(|_| rules::stands(wish, held, own.as_ref()))
    }

    fn wishes(&self, server: ServerId) -> Wishes {
        let mut wishes = Wishes::default();
        for (&(_, lock), &wish) in &self.wishes {
            let (Some(held), Some(own)) = (self.held_if_it_stands(&wish), self.servers.get(&wish.server))
            else {
                continue;
            };
            if wish.server == server {
                wishes.ours.push(lock);
            } else if held.server == server {
                let name = own.name.clone();
                wishes.for_us.push(Wished { wish, name });
            }
        }
        wishes.ours.sort_unstable();
        wishes
    }

    fn commit(&mut self, commit: Commit) -> Result<Committed, StoreError> {
        rules::check_commit(&commit)?;
        let verdicts = commit
            .writes
            .iter()
            .map(|write| rules::judge_write(self.players.get(&write.player).map(|row| row.state), write))
            .collect::<Result<Vec<_>, _>>()?;
        let settled = self.settle(&commit.writes, &verdicts)?;

        let mut versions = Vec::with_capacity(verdicts.len());
        for (write, verdict) in commit.writes.into_iter().zip(verdicts) {
            let row = self
                .players
                .get_mut(&write.player)
                .expect("a write without a row was refused above");
            if let Verdict::Accepted(state) = verdict {
                row.state = state;
                if let Some(document) = write.document {
                    row.document = Some(document);
                    row.saved_at = Some(now());
                }
            }
            versions.push(row.state.version);
        }
        self.receipts.extend(settled);
        Ok(Committed { versions })
    }

    /// What the settlements of all accepted writes make of their receipts. Changes nothing yet.
    fn settle(
        &self,
        writes: &[Write],
        verdicts: &[Verdict],
    ) -> Result<HashMap<PurchaseId, StoredReceipt>, StoreError> {
        let mut settled = HashMap::new();
        let accepted = writes
            .iter()
            .zip(verdicts)
            .filter(|(_, verdict)| **verdict != Verdict::Landed);
        for (write, settlement) in
            accepted.flat_map(|(write, _)| write.settle.iter().map(move |s| (write, s)))
        {
            let id = &settlement.purchase;
            let receipt = settled.get(id).or_else(|| self.receipts.get(id));
            if rules::judge_settlement(receipt, write, settlement)? == Settling::Anew
                && let Some(mut receipt) = receipt.cloned()
            {
                receipt.state = settlement.outcome.state();
                receipt.note = settlement.outcome.note().map(str::to_owned);
                receipt.settled_fence = Some(write.fence);
                receipt.settled_at = Some(now());
                settled.insert(id.clone(), receipt);
            }
        }
        Ok(settled)
    }

    fn enqueue(&mut self, new: NewReceipt, notice: Notice) -> Result<Enqueued, StoreError> {
        let arrival = rules::judge_arrival(self.receipts.get(&new.purchase), &new, notice)?;
        let (player, number) = (new.player, self.last_number + 1);
        let receipt = self
            .receipts
            .entry(new.purchase)
            .or_insert_with_key(|purchase| StoredReceipt {
                number,
                purchase: purchase.clone(),
                player: Some(player),
                product: Some(new.product),
                state: ReceiptState::Pending,
                refund_requested: false,
                settled_fence: None,
                note: None,
                payload: new.payload,
                received_at: now(),
                settled_at: None,
            });
        receipt.refund_requested |= match arrival {
            Arrival::Insert { refund_requested } => refund_requested,
            Arrival::MarkForRefund => true,
            Arrival::Again => false,
        };
        self.last_number = self.last_number.max(receipt.number);
        let is_new = arrival != Arrival::Again;
        if is_new {
            self.arrivals.push(player);
        }
        Ok(Enqueued {
            receipt: receipt.clone(),
            is_new,
        })
    }

    fn receipts_where(&self, wanted: impl Fn(&StoredReceipt) -> bool) -> Vec<StoredReceipt> {
        self.receipts
            .values()
            .filter(|receipt| wanted(receipt))
            .cloned()
            .collect()
    }

    fn arrivals(&self, since: Option<u64>) -> Arrivals {
        let newest = self.arrivals.len() as u64;
        let since = since.and_then(|since| usize::try_from(since).ok());
        let new = since
            .and_then(|since| self.arrivals.get(since..))
            .unwrap_or_default();
        let players: BTreeSet<_> = new.iter().copied().collect();
        Arrivals {
            players: players.into_iter().collect(),
            newest,
        }
    }

    fn peek(&self, player: PlayerId) -> Option<Record> {
        let row = self.players.get(&player)?;
        let name = |server| self.servers.get(&server).map(|row| row.name.clone());
        Some(Record {
            player,
            version: row.state.version,
            fence: row.state.fence,
            last_seq: row.state.last_seq,
            lock: row.state.held.map(|held| held.holder(name(held.server))),
            document: row.document.clone(),
            created_at: row.created_at,
            saved_at: row.saved_at,
        })
    }

    fn erase(&mut self, player: PlayerId) -> Result<bool, StoreError> {
        let held = self.players.get(&player).and_then(|row| row.state.held);
        let name = held
            .and_then(|held| self.servers.get(&held.server))
            .map(|row| row.name.clone());
        rules::check_erase(player, held, name)?;
        for receipt in self
            .receipts
            .values_mut()
            .filter(|receipt| receipt.player == Some(player))
        {
            (receipt.player, receipt.product, receipt.payload, receipt.note) = (None, None, None, None);
        }
        self.wishes.retain(|&(whose, _), _| whose != player);
        Ok(self.players.remove(&player).is_some())
    }
}
