//! Asking for a player's lock, and wishing for one that somebody else has.

use bytes::Bytes;

#[cfg(doc)]
use super::Store;
use super::{LapsedLease, LockId, ServerId};
use crate::id::PlayerId;

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
