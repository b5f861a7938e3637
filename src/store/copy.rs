//! Moving data from one store to another.
//!
//! The module owns [`copy_store`], which works on any two stores: it reads pages of the one, lets the other
//! [take them in](Store::import), and compares the two afterwards. It promises that a copy which was interrupted can be
//! started again, and that one which succeeds has left nothing out. What may replace what is judged by
//! [`rules`](super::rules).

use std::fmt;

use super::{Import, LockHolder, Record, Store, StoreError, StoredReceipt};
use crate::id::PlayerId;

/// How many rows are read and taken in at once.
const PAGE: usize = 200;
/// The weight of documents, in bytes, from which on no more are taken in at once.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// How [`copy_store`] behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySettings {
    /// Copies players whose session is live as well, with what was last saved of them. What they save later is missing in
    /// the copy, and is found out if it happens before the end; copy once more when the servers have stopped. Default:
    /// `false`, such a player ends the copy.
    pub despite_live_locks: bool,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Players that are in the target.
    pub players: u64,
    /// Receipts that are in the target.
    pub receipts: u64,
    /// Players that were compared.
    pub players_verified: u64,
    /// Receipts that were compared.
    pub receipts_verified: u64,
}

/// Why a copy ended early. What it has copied stays; start it again when the cause is gone.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A player is in a session, in the store that is copied from.
    #[error(
        "player {player} is in a session on server `{}`: stop the servers first (one that crashed counts as well, until it \
         has been started and stopped again), or copy despite live locks",
        holder.name.as_deref().unwrap_or("unknown")
    )]
    InSession {
        /// Who.
        player: PlayerId,
        /// Who holds the lock.
        holder: LockHolder,
    },
    /// The two stores differ after the copy: something else has written to one of them.
    #[error("{what} differs in the copy: stop whatever else uses the stores, and copy again")]
    Differs {
        /// What differs.
        what: String,
    },
    /// A player is in the target and not in the source: erased there after an earlier copy, or new here. A copy erases
    /// nobody.
    #[error(
        "player {player} is only in the copy, and not in the store that is copied from: if they were erased there since, \
         erase them in the copy as well, and copy again"
    )]
    OnlyInCopy {
        /// Who.
        player: PlayerId,
    },
    /// A store did not do what it was asked.
    #[error("{side}: {error}")]
    Store {
        /// Which one.
        side: CopySide,
        /// Why.
        error: StoreError,
    },
}

impl fmt::Debug for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopySide {
    /// The one that is copied from.
    Source,
    /// The one that is copied to.
    Target,
}

impl fmt::Display for CopySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the store that is copied from",
            Self::Target => "the store that is copied to",
        })
    }
}

impl CopySide {
    fn failed(self) -> impl FnOnce(StoreError) -> CopyError {
        move |error| CopyError::Store { side: self, error }
    }
}

/// Copies every player and every receipt, those of the erased included, and compares the two stores afterwards.
///
/// Locks and leases are not copied: in the target everybody is free. Fences and versions go on from where they were, so
/// that a session of the old store can never write to the new one. A copy that was interrupted can be started again: what
/// is there already is left as it is, and what has changed in the source since is brought up to date. A player who has
/// been played on in the target alone since is never overwritten, and no refund, erasure or settlement of a receipt there
/// is undone. One who has been played on in both can't be told apart: let nobody play in the target before the last copy.
///
/// A copy erases nobody. Erase a player who was copied already in both stores: one who is erased in the source alone is
/// found out ([`CopyError::OnlyInCopy`]), and one who is erased in the target alone comes back with the next copy.
///
/// `progress` is called after each page.
///
/// ```
/// # use bevy_player_data::store::{CopySettings, MemoryStore, copy_store};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let (old, new) = (MemoryStore::default(), MemoryStore::default());
/// // For example an `SqliteStore` and a `PostgresStore`.
/// let copied = copy_store(&old, &new, CopySettings::default(), |progress| println!("{progress:?}")).await;
/// assert_eq!(copied.unwrap().players, 0);
/// # }
/// ```
///
/// # Errors
/// [`CopyError`], at the first problem.
pub async fn copy_store(
    from: &dyn Store,
    to: &dyn Store,
    settings: CopySettings,
    mut progress: impl FnMut(CopyProgress),
) -> Result<CopyProgress, CopyError> {
    let mut done = CopyProgress::default();
    copy_players(from, to, settings, &mut done, &mut progress).await?;
    copy_receipts(from, to, &mut done, &mut progress).await?;
    verify_players(from, to, &mut done, &mut progress).await?;
    verify_receipts(from, to, &mut done, &mut progress).await?;
    Ok(done)
}

async fn copy_players(
    from: &dyn Store,
    to: &dyn Store,
    settings: CopySettings,
    done: &mut CopyProgress,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<(), CopyError> {
    let mut after = None;
    loop {
        let page = from.list(after, PAGE).await.map_err(CopySide::Source.failed())?;
        let Some(&last) = page.last() else {
            return Ok(());
        };
        after = Some(last);
        let mut records = Vec::new();
        let mut bytes = 0;
        for player in page {
            // Whoever was erased since is not there to be copied.
            let Some(record) = peek(from, CopySide::Source, player).await? else {
                continue;
            };
            if let Some(holder) = record.lock.clone().filter(|holder| holder.name.is_some())
                && !settings.despite_live_locks
            {
                return Err(CopyError::InSession { player, holder });
            }
            bytes += record.document.as_ref().map_or(0, bytes::Bytes::len);
            records.push(record);
            if bytes >= PAGE_BYTES {
                take_in(to, std::mem::take(&mut records), Vec::new(), done, progress).await?;
                bytes = 0;
            }
        }
        take_in(to, records, Vec::new(), done, progress).await?;
    }
}

async fn copy_receipts(
    from: &dyn Store,
    to: &dyn Store,
    done: &mut CopyProgress,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<(), CopyError> {
    let mut after = None;
    loop {
        let page = receipts(from, CopySide::Source, after).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.number);
        take_in(to, Vec::new(), page, done, progress).await?;
    }
}

async fn take_in(
    to: &dyn Store,
    records: Vec<Record>,
    receipts: Vec<StoredReceipt>,
    done: &mut CopyProgress,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<(), CopyError> {
    let counts = (records.len() as u64, receipts.len() as u64);
    let import = Import { records, receipts };
    to.import(import).await.map_err(CopySide::Target.failed())?;
    done.players += counts.0;
    done.receipts += counts.1;
    progress(*done);
    Ok(())
}

async fn verify_players(
    from: &dyn Store,
    to: &dyn Store,
    done: &mut CopyProgress,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<(), CopyError> {
    let mut after = None;
    loop {
        let expected = from.list(after, PAGE).await.map_err(CopySide::Source.failed())?;
        let copied = to.list(after, PAGE).await.map_err(CopySide::Target.failed())?;
        if let Some(error) = find_difference(&expected, &copied) {
            return Err(error);
        }
        let Some(&last) = expected.last() else {
            return Ok(());
        };
        after = Some(last);
        for player in expected {
            let one = peek(from, CopySide::Source, player).await?;
            let other = peek(to, CopySide::Target, player).await?;
            if one.map(without_lock) != other.map(without_lock) {
                return Err(CopyError::Differs {
                    what: format!("player {player}"),
                });
            }
            done.players_verified += 1;
        }
        progress(*done);
    }
}

/// The first player of two pages, each ascending, who is in one of them alone.
fn find_difference(expected: &[PlayerId], copied: &[PlayerId]) -> Option<CopyError> {
    let longest = expected.len().max(copied.len());
    let mut pairs = (0..longest).map(|place| (expected.get(place), copied.get(place)));
    let (one, other) = pairs.find(|(one, other)| one != other)?;
    Some(match (one, other) {
        (one, Some(&player)) if one.is_none_or(|one| *one > player) => CopyError::OnlyInCopy { player },
        _ => CopyError::Differs {
            what: one.map_or_else(String::new, |player| format!("player {player}")),
        },
    })
}

async fn verify_receipts(
    from: &dyn Store,
    to: &dyn Store,
    done: &mut CopyProgress,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<(), CopyError> {
    let mut after = None;
    loop {
        let expected = receipts(from, CopySide::Source, after).await?;
        let copied = receipts(to, CopySide::Target, after).await?;
        if let Some((one, _)) = expected.iter().zip(&copied).find(|(one, other)| one != other) {
            return Err(CopyError::Differs {
                what: format!("purchase `{}`", one.purchase),
            });
        }
        if expected.len() != copied.len() {
            return Err(CopyError::Differs {
                what: "the number of receipts".to_owned(),
            });
        }
        let Some(last) = expected.last() else {
            return Ok(());
        };
        after = Some(last.number);
        done.receipts_verified += expected.len() as u64;
        progress(*done);
    }
}

async fn peek(store: &dyn Store, side: CopySide, player: PlayerId) -> Result<Option<Record>, CopyError> {
    store.peek(player).await.map_err(side.failed())
}

async fn receipts(
    store: &dyn Store,
    side: CopySide,
    after: Option<u64>,
) -> Result<Vec<StoredReceipt>, CopyError> {
    store.all_receipts(after, PAGE).await.map_err(side.failed())
}

fn without_lock(record: Record) -> Record {
    Record { lock: None, ..record }
}
