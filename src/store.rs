//! Durable, transactional rows: what a session needs from a database, and nothing more.
//!
//! The module owns the [`Store`] trait, its requests and replies, and its few errors. It promises that
//! [`Store::commit`] is the only way in which a locked record changes, and that every store judges a write by the
//! same rules (see [`Write`]). It leaves locks' lifetimes, ordering and retries to [`session`](crate::session), and
//! what is inside a document to [`document`](crate::document).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use uuid::Uuid;

pub use crate::id::{ProductId, PurchaseId};
use crate::{chance, id::PlayerId};

mod arc;
mod copy;
#[cfg(feature = "testing")]
mod faulty;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod receipt;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;
mod taking;

pub use copy::{CopyError, CopyProgress, CopySettings, CopySide, copy_store};
#[cfg(feature = "testing")]
pub use faulty::{Fault, FaultRates, Faults, FaultyStore, Op};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresSettings, PostgresStore};
pub use receipt::{Arrivals, Enqueued, NewReceipt, Notice, Outcome, ReceiptState, Settlement, StoredReceipt};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteSettings, SqliteStore};

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
    /// [`Lease::lapsed`] names *with its current beat* does. From then on the name is this boot's, until [`retire`](Self::retire) or
    /// until the store's last handle is gone. The reply has to contain this server's own lease, too: its
    /// [acquires](Acquire::until_beat) count from that beat.
    ///
    /// A call that takes effect after [`retire`](Self::retire), because it was late, leaves a row that nobody raises again.
    /// It is found to have lapsed like that of a crash, and goes with the next boot of the name.
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
    /// next beat mends, and after [`Acquire::until_beat`]), [`StoreError::Corrupt`], and [`StoreError::Rejected`] for a lock id of all zeros.
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
    /// Says whether the wish stands (see [`Wish`]). If it can't, because the lock is not that one any more, nothing is left:
    /// [`acquire`](Self::acquire) again. A wish with the same [`Wish::lock`] takes the place of an earlier one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes back the wish of whoever would have asked for `lock`. Succeeds also when there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The wishes that stand and concern this server: others' for its players, and its own. Meant to be asked many times a
    /// second, so a look that finds what the last one has found costs next to nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>>;

    /// A number that changes when something may have [arrived](Self::arrivals). A hint: it may change for nothing, and it
    /// may stay as it is although something has arrived. It costs nothing to ask.
    fn hints(&self) -> u64 {
        0
    }

    /// Up to `limit` of everybody's receipts, those of the erased included, in ascending order of their numbers, beginning
    /// after the number `after`. For [`copy_store`].
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

/// Identifies one *boot* of a server: a restart under the same name gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(Uuid);

/// Identifies one session's lock. Never all zeros, which is how a store spells "free".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockId(Uuid);

macro_rules! random_id {
    ($name:ident) => {
        impl $name {
            /// A new random id (UUID version 4).
            #[must_use]
            pub fn random() -> Self {
                Self(chance::uuid())
            }

            /// The id's 16 bytes, as stored.
            #[must_use]
            pub const fn into_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// The reverse of [`into_bytes`](Self::into_bytes).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}
random_id!(ServerId);
random_id!(LockId);

/// A server's request to be seen alive, see [`Store::lease`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// This boot of the server.
    pub server: ServerId,
    /// The server's name, which outlives its boots.
    pub name: String,
    /// Leases known to have lapsed: one that a predecessor left under this name is no hindrance.
    pub lapsed: Vec<LapsedLease>,
}

/// Every server's lease, as one transaction saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// One row per server that is running, or that crashed and was not cleaned up after; ours included.
    pub servers: Vec<ServerLease>,
}

/// One row of the `servers` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLease {
    /// The boot that the lease belongs to.
    pub server: ServerId,
    /// That server's name.
    pub name: String,
    /// Raised by one each time that the server calls [`Store::lease`].
    pub beat: u64,
}

/// A lease that an observer has watched standing still for a whole TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LapsedLease {
    /// Whose lease.
    pub server: ServerId,
    /// The beat at which it stood still. The store checks that it still does.
    pub beat: u64,
}

/// A request for a player's lock, see [`Store::acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquire {
    /// Whose record.
    pub player: PlayerId,
    /// The id that the lock will have; the same in every attempt of one request.
    pub lock: LockId,
    /// The lease that the lock will hang on. It must have a row ([`Store::lease`] comes first).
    pub server: ServerId,
    /// Leases known to have lapsed: locks that hang on them may be taken over.
    pub lapsed: Vec<LapsedLease>,
    /// A lock of this same server that no session owns any more and that may be taken over.
    pub orphan: Option<LockId>,
    /// The last beat of this server's own lease at which a lock may be granted. An attempt that was held up on its way, and
    /// whose server has gone on, comes to nothing instead of locking a player for nobody.
    pub until_beat: u64,
}

/// A granted lock and the record under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// What every write of this session has to name. Raised by each grant and lowered by nothing.
    pub fence: u64,
    /// How many commits this record has seen.
    pub version: u64,
    /// The stored document; `None` when none was ever saved.
    pub document: Option<Bytes>,
    /// The name of the server that held the lock until now, if it was taken over rather than free. (`None` as well
    /// when an earlier attempt of this request took it over.)
    pub taken_from: Option<String>,
}

/// That a server would like to have a player whom another one has, see [`Store::wish`].
///
/// It stands while all of this is so, and is as good as gone otherwise, so that it can't outlive its occasion:
/// - the player's lock is [`held`](Self::held): not once that session has ended, however it did, since the next one has
///   another lock (and the next fence);
/// - the one who wishes has a row, and its beat is not past [`until_beat`](Self::until_beat): not for a server that has
///   gone on without taking it back;
/// - the lock hangs on another server than that.
///
/// Granting a lock clears all wishes for its player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose record.
    pub player: PlayerId,
    /// The lock that is in the way, as the refusal has named it.
    pub held: LockId,
    /// The lock that is going to be asked for: it tells wishes for one player apart.
    pub lock: LockId,
    /// The server that wishes.
    pub server: ServerId,
    /// The last beat of that server's lease at which the wish stands. One who goes on waiting repeats it in time.
    pub until_beat: u64,
}

/// A wish for a player of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wished {
    /// The wish.
    pub wish: Wish,
    /// The name of the server that wishes.
    pub name: String,
}

/// The wishes that concern one server, see [`Store::wishes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Others' wishes for players whose locks hang on this server, in the order of the players' ids.
    pub for_us: Vec<Wished>,
    /// Which of this server's own wishes stand, by [`Wish::lock`], in ascending order. One that doesn't any more has come
    /// true, or was somebody else's luck: it is time to [acquire](Store::acquire).
    pub ours: Vec<LockId>,
}

/// Writes that happen together or not at all, see [`Store::commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// At most one write per player.
    pub writes: Vec<Write>,
}

impl From<Write> for Commit {
    fn from(write: Write) -> Self {
        Self { writes: vec![write] }
    }
}

/// One player's part of a [`Commit`].
///
/// A store judges it in this order:
/// 1. no row, or another fence → [`LockLost`](StoreError::LockLost);
/// 2. the row's lock is another session's → [`LockLost`](StoreError::LockLost);
/// 3. `seq` equals the row's → this very write has already landed: success, nothing changes (also when it was the
///    write that released the lock);
/// 4. `seq` is lower than the row's → [`Superseded`](StoreError::Superseded);
/// 5. the lock is free → [`LockLost`](StoreError::LockLost);
/// 6. a receipt that cannot be settled as asked → [`NotSettled`](StoreError::NotSettled), see [`Outcome`];
/// 7. otherwise it is accepted: the document (if any) replaces the stored one, the receipts are settled, `version` goes
///    up by one, `last_seq` becomes `seq`, and the lock is kept or released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose record.
    pub player: PlayerId,
    /// The session's lock.
    pub lock: LockId,
    /// The session's fence.
    pub fence: u64,
    /// Counts the session's writes from 1; the same in every attempt of one write.
    pub seq: u64,
    /// The new document, or `None` to leave the stored one as it is.
    pub document: Option<Bytes>,
    /// The receipts whose awards (or whose revocations) the document contains, in the order in which they happened.
    pub settle: Vec<Settlement>,
    /// What becomes of the lock.
    pub then: Then,
}

/// What becomes of the lock after a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The session goes on.
    Keep,
    /// The session is over: the lock is free afterwards.
    Release,
}

/// A commit that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The records' versions after the commit, in the order of [`Commit::writes`]; for a write that had landed before,
    /// the version that its record has by now.
    pub versions: Vec<u64>,
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

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// The lock's id.
    pub lock: LockId,
    /// The lease that it hangs on.
    pub server: ServerId,
    /// That server's name; `None` when it has no row any more, in which case the lock is as good as free.
    pub name: Option<String>,
}

/// Why a store did not do what it was asked.
///
/// Its `Debug` form is the same sentence as its `Display` form, since that is what a `main() -> Result` prints.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another session holds the player's lock. Nothing changed. Ask again later.
    #[error("player {player} is in a session on server `{}`", holder.name.as_deref().unwrap_or("unknown"))]
    SessionLocked {
        /// Whose lock.
        player: PlayerId,
        /// Who holds it.
        holder: LockHolder,
    },
    /// The write's lock or fence is not the record's: another server has taken the player over. Nothing changed, and no
    /// later write of this session can succeed: end it.
    #[error("the session lock of player {player} was lost: another server has taken it over")]
    LockLost {
        /// Whose lock.
        player: PlayerId,
    },
    /// A newer write of the same session has already landed. Nothing changed; forget this one.
    #[error("a newer save of player {player} has already landed")]
    Superseded {
        /// Whose record.
        player: PlayerId,
    },
    /// The store could not be reached or gave no answer. The request may or may not have taken effect. Repeat it as it
    /// is: a repetition never doubles an effect.
    #[error("the player data store is unavailable: {message}")]
    Unavailable {
        /// What happened, and what to do about it.
        message: String,
    },
    /// What is stored cannot be read. Nothing changed. Repeating it won't help; the bytes are left as they are for
    /// somebody to look at.
    #[error("stored player data is corrupt: {message}")]
    Corrupt {
        /// What is wrong, and where.
        message: String,
    },
    /// The request can never succeed as it is. Nothing changed; don't repeat it.
    #[error("the player data store rejected the request: {message}")]
    Rejected {
        /// Why, and what to do about it.
        message: String,
    },
    /// A write would settle a receipt in a way that its state does not allow (it was settled by somebody else, is another
    /// player's, or is unknown). Nothing changed. The session knows something that isn't so: end it without saving.
    #[error("purchase `{purchase}` of player {player} cannot be settled: {message}")]
    NotSettled {
        /// Whose write.
        player: PlayerId,
        /// Which purchase.
        purchase: PurchaseId,
        /// What is in the way.
        message: String,
    },
    /// The purchase is known with another player or product. Nothing changed: the first one stands. Look at what the
    /// payment provider sends.
    #[error("purchase `{purchase}` is known already, with another player or product")]
    Conflict {
        /// Which purchase.
        purchase: PurchaseId,
    },
    /// Another live server has this server's name. Give each server a name of its own.
    #[error("another running server is already named `{name}`: give each server a name of its own")]
    NameTaken {
        /// The name.
        name: String,
    },
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StoreError {
    /// Shorthand for [`StoreError::Unavailable`].
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::Unavailable {
            message: message.to_string(),
        }
    }

    /// Shorthand for [`StoreError::Corrupt`].
    pub fn corrupt(message: impl fmt::Display) -> Self {
        Self::Corrupt {
            message: message.to_string(),
        }
    }

    /// Shorthand for [`StoreError::Rejected`].
    pub fn rejected(message: impl fmt::Display) -> Self {
        Self::Rejected {
            message: message.to_string(),
        }
    }

    /// Whether repeating the request as it is may succeed.
    #[must_use]
    pub const fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Milliseconds since the Unix epoch, for the columns that people read. The clock may be wrong; nothing is decided by it.
fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
