//! What is found when the power is back: the real store opens what the disk holds, and its books are read.

use std::{fmt, path::Path, sync::Arc};

use bevy_player_data::store::{
    Acquire, Lease, LockId, ReceiptState, ServerId, SqliteStore, Store, StoreError, Then, Write,
};
use rusqlite::Connection;

use super::{
    books::{Books, Document, PLAYERS, RELICS},
    disk_io::{DATABASE, random_bytes, wait},
};

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The store doesn't open.
    Refused(StoreError),
    /// SQLite finds the file damaged.
    Damaged(String),
    /// An award without its receipt, or the reverse.
    HalfPurchase(String),
    /// A relic that is there twice, or not at all.
    HalfTrade(String),
    /// The books are whole, and older than what was acknowledged.
    Lost { answered: usize, survived: usize },
    /// The books are as they never were.
    NeverWas(String),
    /// The books are right, but the store cannot be used.
    Unusable(String),
}

impl Found {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Damaged(_) => "damaged",
            Self::HalfPurchase(_) => "half a purchase",
            Self::HalfTrade(_) => "half a trade",
            Self::Lost { .. } => "lost",
            Self::NeverWas(_) => "never was",
            Self::Unusable(_) => "unusable",
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "the store does not open: {error}"),
            Self::Damaged(what) => write!(f, "the file is damaged: {what}"),
            Self::HalfPurchase(what) => write!(f, "half a purchase (I4): {what}"),
            Self::HalfTrade(what) => write!(f, "half a trade (I9): {what}"),
            Self::Lost { answered, survived } => write!(
                f,
                "acknowledged commits are lost (I6): {answered} requests were answered, {survived} survived"
            ),
            Self::NeverWas(what) => write!(f, "the books are as they never were: {what}"),
            Self::Unusable(error) => write!(f, "the store cannot be used: {error}"),
        }
    }
}

/// What the books may be.
pub(crate) struct Expected<'a> {
    /// The books after each number of requests.
    pub(crate) history: &'a [Arc<Books>],
    /// So many had been answered.
    pub(crate) answered: usize,
    /// So many had been handed in.
    pub(crate) asked: usize,
    /// Whether versions and sequence numbers have to agree.
    pub(crate) numbers_count: bool,
}

/// Looks at the database in `folder`, and says how many requests have survived.
pub(crate) fn survey(
    folder: &Path,
    expected: &Expected<'_>,
    rng: &mut fastrand::Rng,
) -> Result<usize, Found> {
    let path = folder.join(DATABASE);
    let store = SqliteStore::open(&path).map_err(Found::Refused)?;
    check_integrity(&path)?;
    let books = wait(Books::read(&store)).map_err(|error| Found::Damaged(error.to_string()))?;
    check_purchases(&books)?;
    check_trades(&books)?;
    let survived = expected.find(&books)?;
    match wait(go_on(&store, &books, rng)) {
        Ok(None) => Ok(survived),
        Ok(Some(wrong)) => Err(Found::Unusable(wrong.to_owned())),
        Err(error) => Err(Found::Unusable(error.to_string())),
    }
}

fn check_integrity(path: &Path) -> Result<(), Found> {
    let said = Connection::open(path).and_then(|connection| {
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        lines.collect::<Result<Vec<_>, _>>()
    });
    match said {
        Ok(said) if said == ["ok"] => Ok(()),
        Ok(said) => Err(Found::Damaged(said.join("; "))),
        Err(error) => Err(Found::Damaged(error.to_string())),
    }
}

fn documents(books: &Books) -> impl Iterator<Item = (usize, Document)> {
    PLAYERS.iter().enumerate().filter_map(|(n, player)| {
        let document = books.players.get(player)?.document.as_ref()?;
        Some((n, Document::decode(document).unwrap_or_default()))
    })
}

/// I4: a receipt is granted if and only if its player's document has the award.
fn check_purchases(books: &Books) -> Result<(), Found> {
    for (n, document) in documents(books) {
        for award in &document.awards {
            let state = books.receipts.get(award).map(|receipt| receipt.state);
            if state != Some(ReceiptState::Granted) {
                let half = format!("player {n} has the award of `{award}`, which is {state:?}");
                return Err(Found::HalfPurchase(half));
            }
        }
    }
    for (purchase, receipt) in &books.receipts {
        let mut owner = documents(books).filter(|(n, _)| PLAYERS[*n] == receipt.player);
        let has_award = owner.any(|(_, document)| document.awards.contains(purchase));
        if receipt.state == ReceiptState::Granted && !has_award {
            let half = format!("`{purchase}` is granted, and nobody has its award");
            return Err(Found::HalfPurchase(half));
        }
    }
    Ok(())
}

/// I9: whoever has a document began with the same number of relics, and trades leave the sum as it is.
fn check_trades(books: &Books) -> Result<(), Found> {
    let players = i64::try_from(documents(books).count()).unwrap_or(i64::MAX);
    let relics: i64 = documents(books).map(|(_, document)| document.relics).sum();
    if relics != players * RELICS {
        let half = format!("{players} players have {relics} relics");
        return Err(Found::HalfTrade(half));
    }
    Ok(())
}

impl Expected<'_> {
    /// I6: the books are those after some number of requests, in their order: no fewer than were answered and no more
    /// than had been asked.
    fn find(&self, books: &Books) -> Result<usize, Found> {
        let Self { answered, asked, .. } = *self;
        // The last of equals: a refusal changes nothing.
        if let Some(survived) = (answered..=asked).rev().find(|&n| self.is(n, books)) {
            return Ok(survived);
        }
        if let Some(survived) = (0..answered).rev().find(|&n| self.is(n, books)) {
            return Err(Found::Lost { answered, survived });
        }
        Err(Found::NeverWas(difference(books, &self.history[answered])))
    }

    fn is(&self, n: usize, books: &Books) -> bool {
        if self.numbers_count {
            *self.history[n] == *books
        } else {
            self.history[n].without_numbers() == books.without_numbers()
        }
    }
}

/// What tells these books from what was acknowledged last, in short.
fn difference(books: &Books, acknowledged: &Books) -> String {
    let mut lines = Vec::new();
    for (n, player) in PLAYERS.iter().enumerate() {
        let (is, was) = (books.players.get(player), acknowledged.players.get(player));
        if is != was {
            let short = |row: Option<&super::books::Row>| {
                row.map(|row| {
                    (
                        row.version,
                        row.fence,
                        row.last_seq,
                        row.document.as_ref().map(bytes::Bytes::len),
                    )
                })
            };
            lines.push(format!(
                "player {n} (version, fence, seq, size): {:?}, acknowledged {:?}",
                short(is),
                short(was)
            ));
        }
    }
    if books.receipts != acknowledged.receipts {
        lines.push("receipts differ".to_owned());
    }
    if books.servers != acknowledged.servers {
        lines.push(format!(
            "servers {:?}, acknowledged {:?}",
            books.servers, acknowledged.servers
        ));
    }
    lines.join("; ")
}

/// A new server starts, loads a player and saves. Says what went wrong, if anything did.
async fn go_on(
    store: &dyn Store,
    books: &Books,
    rng: &mut fastrand::Rng,
) -> Result<Option<&'static str>, StoreError> {
    let server = ServerId::from_bytes(random_bytes(rng));
    for name in ["east", "west"] {
        // The servers of these names have lost power as well.
        let server = if name == "east" {
            server
        } else {
            ServerId::from_bytes(random_bytes(rng))
        };
        let name = name.to_owned();
        store
            .lease(Lease {
                server,
                name,
                lapsed: Vec::new(),
            })
            .await?;
    }
    let player = PLAYERS[rng.usize(..PLAYERS.len())];
    let lock = LockId::from_bytes(random_bytes(rng));
    let acquired = store
        .acquire(Acquire {
            player,
            lock,
            server,
            lapsed: Vec::new(),
            orphan: None,
            until_beat: u64::MAX,
        })
        .await?;
    let before = books.players.get(&player).cloned().unwrap_or_default();
    let loaded = (acquired.fence, acquired.version, acquired.document);
    if loaded != (before.fence + 1, before.version, before.document) {
        return Ok(Some("a player is loaded otherwise than the books say"));
    }
    let document = Document::first().encode(5000, rng);
    let write = Write {
        player,
        lock,
        fence: acquired.fence,
        seq: 1,
        document: Some(document.clone()),
        settle: Vec::new(),
        then: Then::Release,
    };
    store.commit(write.into()).await?;
    let saved = store.peek(player).await?.and_then(|record| record.document);
    Ok((saved != Some(document)).then_some("what was saved after the cut is not there"))
}
