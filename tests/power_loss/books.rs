//! What the database has to say: every row, as the requests so far should have left it.
//!
//! The books are kept by rules of their own, written down again from what [`Store`] promises, and read back from a store
//! only through its public methods.

use std::collections::{BTreeMap, BTreeSet};

use bevy_player_data::{
    PlayerId,
    store::{
        Acquire, Commit, Lease, LockId, NewReceipt, Notice, ReceiptState, ServerId, Store, StoreError, Then,
    },
};
use bytes::Bytes;
use serde_json::{Value, json};

/// Who plays.
pub(crate) const PLAYERS: [PlayerId; 8] = {
    let mut players = [PlayerId::from_bytes(*b"player number a."); 8];
    let mut n = 0;
    while n < players.len() {
        let mut bytes = *b"player number a.";
        bytes[14] += n as u8;
        players[n] = PlayerId::from_bytes(bytes);
        n += 1;
    }
    players
};

/// How many relics a player begins with. They are only ever traded.
pub(crate) const RELICS: i64 = 3;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) players: BTreeMap<PlayerId, Row>,
    pub(crate) receipts: BTreeMap<String, Receipt>,
    pub(crate) servers: BTreeMap<ServerId, (String, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) version: u64,
    pub(crate) fence: u64,
    pub(crate) last_seq: u64,
    pub(crate) lock: Option<(LockId, ServerId)>,
    pub(crate) document: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) player: PlayerId,
    pub(crate) state: ReceiptState,
    pub(crate) refund_requested: bool,
    pub(crate) settled_fence: Option<u64>,
    pub(crate) payload: Option<Bytes>,
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Lease(Lease),
    Retire(ServerId),
    Acquire(Acquire),
    Commit(Commit),
    /// A commit that has to be refused.
    Stale(Commit),
    Enqueue(NewReceipt, Notice),
}

impl Books {
    /// The books after a request that is granted (or, if stale, refused).
    pub(crate) fn after(&self, request: &Request) -> Self {
        let mut books = self.clone();
        match request {
            Request::Lease(Lease { server, name, .. }) => {
                books
                    .servers
                    .retain(|other, (taken, _)| other == server || taken != name);
                books.servers.entry(*server).or_insert((name.clone(), 0)).1 += 1;
            }
            Request::Retire(server) => {
                books.servers.remove(server);
            }
            Request::Acquire(acquire) => {
                let row = books.players.entry(acquire.player).or_default();
                row.fence += 1;
                row.last_seq = 0;
                row.lock = Some((acquire.lock, acquire.server));
            }
            Request::Commit(commit) => books.commit(commit),
            Request::Stale(_) => {}
            Request::Enqueue(new, notice) => {
                let receipt = books.receipts.entry(new.purchase.as_str().to_owned());
                let receipt = receipt.or_insert_with(|| Receipt {
                    player: new.player,
                    state: ReceiptState::Pending,
                    refund_requested: false,
                    settled_fence: None,
                    payload: new.payload.clone(),
                });
                receipt.refund_requested |= *notice == Notice::Refund;
            }
        }
        books
    }

    fn commit(&mut self, commit: &Commit) {
        for write in &commit.writes {
            let row = self
                .players
                .get_mut(&write.player)
                .expect("whoever is in a session has a row");
            row.version += 1;
            row.last_seq = write.seq;
            if let Some(document) = &write.document {
                row.document = Some(document.clone());
            }
            if write.then == Then::Release {
                row.lock = None;
            }
            for settlement in &write.settle {
                let receipt = self.receipts.get_mut(settlement.purchase.as_str());
                let receipt = receipt.expect("only what was handed in is settled");
                receipt.state = settlement.outcome.state();
                receipt.settled_fence = Some(write.fence);
            }
        }
    }

    /// The same without the numbers that each commit raises.
    pub(crate) fn without_numbers(&self) -> Self {
        let mut books = self.clone();
        for row in books.players.values_mut() {
            (row.version, row.last_seq) = (0, 0);
        }
        books
    }

    /// What a store holds.
    pub(crate) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut books = Self::default();
        for player in store.list(None, usize::MAX).await? {
            let Some(record) = store.peek(player).await? else {
                continue;
            };
            books.players.insert(
                player,
                Row {
                    version: record.version,
                    fence: record.fence,
                    last_seq: record.last_seq,
                    lock: record.lock.map(|holder| (holder.lock, holder.server)),
                    document: record.document,
                },
            );
        }
        for player in PLAYERS {
            for receipt in store.receipts_of(player, None, usize::MAX).await? {
                books.receipts.insert(
                    receipt.purchase.as_str().to_owned(),
                    Receipt {
                        player,
                        state: receipt.state,
                        refund_requested: receipt.refund_requested,
                        settled_fence: receipt.settled_fence,
                        payload: receipt.payload,
                    },
                );
            }
        }
        let leases = store.leases().await?.servers.into_iter();
        books.servers = leases
            .map(|lease| (lease.server, (lease.name, lease.beat)))
            .collect();
        Ok(books)
    }
}

/// What a player's document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) coins: u64,
    pub(crate) relics: i64,
    /// The purchases whose awards are in it.
    pub(crate) awards: BTreeSet<String>,
}

impl Document {
    pub(crate) fn first() -> Self {
        Self {
            relics: RELICS,
            ..Self::default()
        }
    }

    /// A line that says everything, and then `filler` bytes that are never the same twice.
    pub(crate) fn encode(&self, filler: usize, rng: &mut fastrand::Rng) -> Bytes {
        let Self {
            coins,
            relics,
            awards,
        } = self;
        let mut bytes = json!({ "coins": coins, "relics": relics, "awards": awards })
            .to_string()
            .into_bytes();
        bytes.push(b'\n');
        let line = bytes.len();
        bytes.resize(line + filler, 0);
        rng.fill(&mut bytes[line..]);
        bytes.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let line = bytes.split(|&byte| byte == b'\n').next()?;
        let said: Value = serde_json::from_slice(line).ok()?;
        let awards = said["awards"].as_array()?.iter();
        Some(Self {
            coins: said["coins"].as_u64()?,
            relics: said["relics"].as_i64()?,
            awards: awards
                .map(|award| award.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
        })
    }
}
