//! Durable, transactional rows: what a session needs from a database, and nothing more.
//!
//! The module owns the [`Store`] trait, its requests and replies, and its few errors. It promises that
//! [`Store::commit`] is the only way in which a locked record changes, and that every store judges a write by the
//! same rules (see [`Write`]). It leaves locks' lifetimes, ordering and retries to [`session`](crate::session), and
//! what is inside a document to [`document`](crate::document).

use std::{
    future::Future,
    pin::Pin,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::id::PlayerId;
pub use crate::id::{ProductId, PurchaseId};

mod arc;
mod copy;
mod error;
#[cfg(feature = "testing")]
mod faulty;
mod id;
mod lease;
mod lock;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod receipt;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;
mod taking;
mod write;

pub use copy::{CopyError, CopyProgress, CopySettings, CopySide, copy_store};
pub use error::StoreError;
#[cfg(feature = "testing")]
pub use faulty::{Fault, FaultRates, Faults, FaultyStore, Op};
pub use id::{LockId, ServerId};
pub use lease::{LapsedLease, Lease, Leases, ServerLease};
pub use lock::{Acquire, Acquired, LockHolder, Wish, Wished, Wishes};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresSettings, PostgresStore};
pub use receipt::{Arrivals, Enqueued, NewReceipt, Notice, Outcome, ReceiptState, Settlement, StoredReceipt};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteSettings, SqliteStore};
pub use write::{Commit, Committed, Then, Write};

/// A boxed future that can be sent to the runtime's worker threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where players' records live.
///
/// Every method is one transaction: all of it happens, or none of it. A reply of `Ok` means that the effect is
/// *durable*; a refusal means that nothing changed; [`StoreError::Unavailable`] means that nobody knows.
/// Requests may be repeated with the same arguments: [`acquire`](Self::acquire) is idempotent by lock id and
/// [`commit`](Self::commit) by sequence number, so a reply that was lost on its way never doubles an effect.
pub trait Store: Send + Sync + 'static {
    /// Raises this server's beat (registering the server when it has no row yet) and reads everybody's.
    ///
    /// The first call of a boot also settles the name. A predecessor of the same name that the store can *prove* dead
    /// loses its row, and with it its locks; in a store that has no such proof (no operating system's lock), one that
    /// [`Lease::lapsed`] names *with its current beat* does. From then on the name is this boot's, until
    /// [`retire`](Self::retire) or until the store's last handle is gone. The reply has to contain this server's own
    /// lease, too: its [acquires](Acquire::until_beat) count from that beat.
    ///
    /// A call that takes effect after [`retire`](Self::retire), because it was late, leaves a row that nobody raises
    /// again. It is found to have lapsed like that of a crash, and goes with the next boot of the name.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] while another live server has the name, [`StoreError::Unavailable`], and
    /// [`StoreError::Rejected`] when this boot is already registered under another name.
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>>;

    /// Reads every server's lease and raises none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>>;

    /// Deletes this server's row and gives its name back: the orderly end of a server. Locks that still hang on it
    /// are free from now on. Retiring a server that has no row succeeds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Locks a player's record for one server and reads it, creating the row of a player who has none.
    ///
    /// The lock is granted when it is free, when it is this very lock (the reply of an earlier attempt was lost), when
    /// the server it hangs on has no row, when [`Acquire::lapsed`] names that server *and its current beat*, or when
    /// it is [`Acquire::orphan`]; but not once the asking server's own beat is past [`Acquire::until_beat`]. Granting
    /// raises the fence by one and resets the sequence number to zero, except for this very lock (the same id *and*
    /// server), which is answered again unchanged.
    ///
    /// # Errors
    /// [`StoreError::SessionLocked`], [`StoreError::Unavailable`] (also while [`Acquire::server`] has no row, which its
    /// next beat mends, and after [`Acquire::until_beat`]), [`StoreError::Corrupt`], and [`StoreError::Rejected`] for a
    /// lock id of all zeros.
    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>>;

    /// Applies all writes in one transaction, or none of them.
    ///
    /// # Errors
    /// That of the first write that is refused: [`StoreError::LockLost`], [`StoreError::Superseded`]. Further
    /// [`StoreError::NotSettled`], [`StoreError::Rejected`] (a player named twice, a sequence number of zero, a document
    /// too big to store), [`StoreError::Unavailable`], [`StoreError::Corrupt`] (after which a session's last
    /// write is sent again, until somebody has mended the store or there is no time left).
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>>;

    /// Reads a player's last saved record without taking or changing any lock.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// The ids of up to `limit` players, in ascending order, beginning after `after`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn list(&self, after: Option<PlayerId>, limit: usize)
    -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>>;

    /// Deletes a player's record for good; `false` when there was none. Of the player's receipts the bare purchase ids
    /// stay, so that a callback which is repeated later is still known.
    ///
    /// # Errors
    /// [`StoreError::SessionLocked`] while a server that has a row holds the player's lock,
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Hands in that a purchase was paid, or is refunded. Any process may do so, at any time and as often as it likes.
    ///
    /// It never changes a receipt's state: a paid one waits as [`Pending`](ReceiptState::Pending), a refund is a mark on
    /// it. What changed is an [arrival](Self::arrivals).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the purchase is known with another player or product; [`StoreError::Rejected`] for
    /// a payload above [`NewReceipt::PAYLOAD_LIMIT`]; [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>>;

    /// One receipt.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>>;

    /// A player's [open](StoredReceipt::is_open) receipts, in the order in which they were handed in.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>>;

    /// Up to `limit` of a player's receipts, the newest first, beginning below the number `before`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>>;

    /// Whose receipts were handed in, or marked for a refund, since a look that ended at `since`; `None` reports nobody
    /// and only says where to look from. Meant to be asked every few seconds, so a look that finds nothing new costs next
    /// to nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>>;

    /// Leaves a wish for a player whose lock another server has: the one thing that is written about a player without
    /// having the lock. It changes nothing about the player, and whether it is heeded is the holder's affair.
    ///
    /// Says whether the wish stands (see [`Wish`]). If it can't, because the lock is not that one any more, nothing is
    /// left: [`acquire`](Self::acquire) again. A wish with the same [`Wish::lock`] takes the place of an earlier one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes back the wish of whoever would have asked for `lock`. Succeeds also when there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The wishes that stand and concern this server: others' for its players, and its own. Meant to be asked many
    /// times a second, so a look that finds what the last one has found costs next to nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>>;

    /// A number that changes when something may have [arrived](Self::arrivals). A hint: it may change for nothing, and it
    /// may stay as it is although something has arrived. It costs nothing to ask.
    fn hints(&self) -> u64 {
        0
    }

    /// Up to `limit` of everybody's receipts, those of the erased included, in ascending order of their numbers,
    /// beginning after the number `after`. For [`copy_store`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`], and [`StoreError::Rejected`] by a store that can't be copied
    /// from, as which every store begins.
    fn all_receipts(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        let _ = (after, limit);
        Box::pin(async { Err(StoreError::rejected("this kind of store can't be copied from")) })
    }

    /// Takes in rows of another store as they are, except for locks, which are free afterwards. A row that is there
    /// already is replaced, unless it has gone on from what is taken in. For [`copy_store`].
    ///
    /// # Errors
    /// [`StoreError::SessionLocked`] for a player in a session, [`StoreError::Rejected`] for a row that can't replace the
    /// one that is there, or by a store that can't be copied to, as which every store begins;
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn import(&self, rows: Import) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = rows;
        Box::pin(async { Err(StoreError::rejected("this kind of store can't be copied to")) })
    }
}

/// Rows of another store, see [`Store::import`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Players' rows. Their locks are ignored.
    pub records: Vec<Record>,
    /// Receipts.
    pub receipts: Vec<StoredReceipt>,
}

/// A player's row, as [`Store::peek`] saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose record.
    pub player: PlayerId,
    /// How many commits the record has seen.
    pub version: u64,
    /// How many locks were ever granted on it.
    pub fence: u64,
    /// The sequence number of the last accepted write of the current (or last) session.
    pub last_seq: u64,
    /// Who holds the lock, if anybody does.
    pub lock: Option<LockHolder>,
    /// The stored document; `None` when none was ever saved.
    pub document: Option<Bytes>,
    /// When the row was created: milliseconds since the Unix epoch. For people; nothing is decided by it.
    pub created_at: i64,
    /// When a document was last saved, likewise.
    pub saved_at: Option<i64>,
}

#[cfg(test)]
impl Record {
    /// A record that nothing was done to.
    pub(crate) fn blank(player: PlayerId) -> Self {
        Self {
            player,
            version: 0,
            fence: 0,
            last_seq: 0,
            lock: None,
            document: None,
            created_at: 0,
            saved_at: None,
        }
    }
}

/// Milliseconds since the Unix epoch, for the columns that people read. The clock may be wrong; nothing is decided by it.
fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
