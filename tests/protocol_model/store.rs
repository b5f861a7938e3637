//! The store of both models: small rows, judged by the crate's own rules.
//!
//! `src/store/rules.rs` is compiled into this test as it is, so what the models explore is what every real store
//! decides; changing a rule there changes the models. Only the few lines that put a verdict into effect are told again
//! here ([`Rows::acquire`], [`Rows::commit`]); that real stores do the same is what `tests/store_conformance/`
//! checks. A control takes a mechanism out by showing the rules something else than what the rows say.

// What the rules import from the module above them.
use bevy_player_data::{
    PlayerId, PurchaseId,
    store::{
        Acquire, Commit, LapsedLease, LockHolder, LockId, NewReceipt, Notice, Outcome, ReceiptState,
        ServerId, ServerLease, Settlement, StoreError, StoredReceipt, Then, Wish, Write,
    },
};

#[allow(
    dead_code,
    reason = "the models don't erase players, name servers, hand in receipts or leave wishes"
)]
#[path = "../../src/store/rules.rs"]
mod rules;

use rules::{Grant, Held, LockState, Settling, Verdict};

use crate::Mechanism;

pub const PLAYERS: usize = 2;
pub const SERVERS: usize = 3;

/// One boot of one server; `number` counts from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Boot {
    pub server: u8,
    pub number: u8,
}

/// What a player owns, as far as the protocol can lose or double it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Document {
    /// Which of the player's operations it contains, a bit for each.
    pub ops: u8,
    /// How often the player's purchase was awarded.
    pub awards: u8,
    /// Whether the trade took place.
    pub traded: bool,
}

/// A player's row. The lock ids of each player are numbered for themselves, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub fence: u8,
    pub last_seq: u8,
    pub held: Option<(u8, Boot)>,
    pub document: Document,
}

/// A server name's row: the boot that is registered under it, if one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseRow {
    pub boot: Option<u8>,
    pub beat: u8,
}

/// All that is durable. Each player has one purchase, which was paid before the model begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rows {
    pub players: [Row; PLAYERS],
    /// The fence of the session that settled it, once it is granted.
    pub granted: [Option<u8>; PLAYERS],
    pub leases: [LeaseRow; SERVERS],
}

/// A request for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AcquireRow {
    pub player: u8,
    pub lock: u8,
    pub boot: Boot,
    /// At which beat the lease of a boot was seen standing still for a whole TTL.
    pub lapsed: [Option<(Boot, u8)>; SERVERS],
    pub orphan: Option<u8>,
    pub until_beat: u8,
}

/// One player's part of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteRow {
    pub player: u8,
    pub lock: u8,
    pub fence: u8,
    pub seq: u8,
    pub document: Option<Document>,
    pub settle: bool,
    pub release: bool,
}

/// How an acquire was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    Again,
    Free,
    TakenOver,
}

/// What became of a commit that was not refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Landed {
    /// Which players' writes changed their rows; the others had landed before.
    pub accepted: [bool; PLAYERS],
    /// Whether a receipt had been settled by an earlier write of the same session.
    pub settled_again: bool,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    Locked { lock: u8, boot: Boot },
    LockLost { player: u8 },
    Superseded,
    NotSettled,
    Unavailable,
}

impl Rows {
    pub fn is_registered(&self, boot: Boot) -> bool {
        self.leases[usize::from(boot.server)].boot == Some(boot.number)
    }

    /// Registers a boot. Its predecessor of the same name is dead, so that one's row goes.
    pub fn register(&mut self, boot: Boot) {
        self.leases[usize::from(boot.server)] = LeaseRow {
            boot: Some(boot.number),
            beat: 1,
        };
    }

    fn lease(&self, boot: Boot) -> Option<ServerLease> {
        let row = self.leases[usize::from(boot.server)];
        (row.boot == Some(boot.number)).then(|| ServerLease {
            server: server_id(boot),
            name: String::new(),
            beat: row.beat.into(),
        })
    }

    pub fn acquire(&mut self, request: &AcquireRow, without: Option<Mechanism>) -> Result<Granted, Refusal> {
        let player = usize::from(request.player);
        let row = self.players[player];
        let lease = row.held.and_then(|(_, boot)| self.lease(boot));
        let mut lapsed: Vec<_> = request.lapsed.iter().flatten().copied().collect();
        if without == Some(Mechanism::BeatNamedByClaim) {
            // The store takes the observer's word, although the server may have beaten since.
            for claim in &mut lapsed {
                claim.1 = self.leases[usize::from(claim.0.server)].beat;
            }
        }
        let lapsed = lapsed.into_iter().map(|(boot, beat)| LapsedLease {
            server: server_id(boot),
            beat: beat.into(),
        });
        let until_beat = match without {
            Some(Mechanism::EndOfAcquire) => u64::MAX,
            _ => request.until_beat.into(),
        };
        let acquire = Acquire {
            player: player_id(request.player),
            lock: lock_id(request.lock),
            server: server_id(request.boot),
            lapsed: lapsed.collect(),
            orphan: request.orphan.map(lock_id),
            until_beat,
        };
        rules::check_acquire(&acquire).map_err(|error| refusal(&error))?;
        let grant = rules::judge_acquire(row.state(), self.lease(request.boot), lease, &acquire);
        match grant.map_err(|error| refusal(&error))? {
            Grant::Again => Ok(Granted::Again),
            Grant::Anew { state, taken_from } => {
                self.players[player].set(state);
                Ok(taken_from.map_or(Granted::Free, |_| Granted::TakenOver))
            }
        }
    }

    pub fn commit(&mut self, writes: &[WriteRow], without: Option<Mechanism>) -> Result<Landed, Refusal> {
        let commit = Commit {
            writes: writes.iter().map(|write| self.shown(write, without)).collect(),
        };
        rules::check_commit(&commit).map_err(|error| refusal(&error))?;
        let mut after = *self;
        let mut landed = Landed::default();
        for (row, write) in writes.iter().zip(&commit.writes) {
            let player = usize::from(row.player);
            let mut state = self.players[player].state();
            if without == Some(Mechanism::Sequence) {
                state.last_seq = write.seq - 1;
            }
            let verdict = rules::judge_write(Some(state), write).map_err(|error| refusal(&error))?;
            let Verdict::Accepted(state) = verdict else {
                continue;
            };
            landed.accepted[player] = true;
            after.players[player].set(state);
            if let Some(document) = row.document {
                after.players[player].document = document;
            }
            for settlement in &write.settle {
                let settling = rules::judge_settlement(Some(&after.receipt(row.player)), write, settlement);
                match settling.map_err(|error| refusal(&error))? {
                    Settling::Again => landed.settled_again = true,
                    Settling::Anew => after.granted[player] = Some(row.fence),
                }
            }
        }
        *self = after;
        Ok(landed)
    }

    /// A write as the rules get to see it.
    fn shown(&self, write: &WriteRow, without: Option<Mechanism>) -> Write {
        let row = self.players[usize::from(write.player)];
        let fence = match without {
            Some(Mechanism::Fence) => row.fence,
            _ => write.fence,
        };
        let outcome = Settlement {
            purchase: purchase_id(write.player),
            outcome: Outcome::Granted,
        };
        Write {
            player: player_id(write.player),
            lock: lock_id(write.lock),
            fence: fence.into(),
            seq: write.seq.into(),
            document: None,
            settle: if write.settle { vec![outcome] } else { Vec::new() },
            then: if write.release { Then::Release } else { Then::Keep },
        }
    }

    fn receipt(&self, player: u8) -> StoredReceipt {
        let granted = self.granted[usize::from(player)];
        StoredReceipt {
            number: 1,
            purchase: purchase_id(player),
            player: Some(player_id(player)),
            product: None,
            state: granted.map_or(ReceiptState::Pending, |_| ReceiptState::Granted),
            refund_requested: false,
            settled_fence: granted.map(u64::from),
            note: None,
            payload: None,
            received_at: 0,
            settled_at: None,
        }
    }
}

impl Row {
    fn state(&self) -> LockState {
        LockState {
            version: 0,
            fence: self.fence.into(),
            last_seq: self.last_seq.into(),
            held: self.held.map(|(lock, boot)| Held {
                lock: lock_id(lock),
                server: server_id(boot),
            }),
        }
    }

    fn set(&mut self, state: LockState) {
        self.fence = small(state.fence);
        self.last_seq = small(state.last_seq);
        self.held = state
            .held
            .map(|held| (held.lock.into_bytes()[0], boot(held.server)));
    }
}

impl std::fmt::Debug for WriteRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            player,
            lock,
            fence,
            seq,
            ..
        } = self;
        write!(f, "p{player} (lock {lock}, fence {fence}, seq {seq}")?;
        if let Some(Document { ops, awards, traded }) = self.document {
            write!(f, ", ops {ops:b}, awards {awards}, traded {traded}")?;
        }
        write!(f, "{}", if self.settle { ", settles" } else { "" })?;
        write!(f, "{})", if self.release { ", releases" } else { "" })
    }
}

impl std::fmt::Debug for AcquireRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            player,
            lock,
            boot,
            until_beat,
            ..
        } = self;
        write!(
            f,
            "{boot:?} acquires p{player} (lock {lock}, until beat {until_beat}"
        )?;
        for (boot, beat) in self.lapsed.iter().flatten() {
            write!(f, ", {boot:?} lapsed at beat {beat}")?;
        }
        if let Some(orphan) = self.orphan {
            write!(f, ", orphan {orphan}")?;
        }
        f.write_str(")")
    }
}

impl std::fmt::Debug for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", (b'A' + self.server) as char, self.number)
    }
}

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("the bounds keep every counter small")
}

fn player_id(player: u8) -> PlayerId {
    PlayerId::from_bytes([player + 1; 16])
}

fn lock_id(lock: u8) -> LockId {
    LockId::from_bytes([lock; 16])
}

fn server_id(Boot { server, number }: Boot) -> ServerId {
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (server, number);
    ServerId::from_bytes(bytes)
}

fn boot(server: ServerId) -> Boot {
    let [server, number, ..] = server.into_bytes();
    Boot { server, number }
}

fn purchase_id(player: u8) -> PurchaseId {
    thread_local! {
        static IDS: [PurchaseId; PLAYERS] =
            ["purchase 1", "purchase 2"].map(|id| PurchaseId::new(id).expect("a short id"));
    }
    IDS.with(|ids| ids[usize::from(player)].clone())
}

fn refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::SessionLocked { holder, .. } => Refusal::Locked {
            lock: holder.lock.into_bytes()[0],
            boot: boot(holder.server),
        },
        StoreError::LockLost { player } => Refusal::LockLost {
            player: player.into_bytes()[0] - 1,
        },
        StoreError::Superseded { .. } => Refusal::Superseded,
        StoreError::NotSettled { .. } => Refusal::NotSettled,
        StoreError::Unavailable { .. } => Refusal::Unavailable,
        _ => panic!("no request of the models is refused so: {error}"),
    }
}
