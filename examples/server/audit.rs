//! The books, checked: everything that was saved, read by somebody who had no part in saving it.
//!
//! A relic exists once, and what a player has of each product is what their receipts say. One transaction reads all of
//! it, so the sums hold at any time, also while servers write to the file.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
};

use bevy_player_data::{
    PlayerData, PlayerId, PurchaseId,
    document::{Document, Entry},
    store::ReceiptState,
};
use rusqlite::{Connection, OpenFlags, Row};
use serde::de::DeserializeOwned;

use crate::{
    catalogue::{Catalogue, Kind},
    database::Database,
    game::data::{Bought, Relic, Relics},
    relics::{bought_relic, relics_of_newcomer},
};

/// How many findings are told.
const FINDINGS_TOLD: usize = 20;

/// What an audit came to.
#[derive(Debug, Default)]
pub struct Audit {
    /// How many relics there are.
    relics: usize,
    /// How many purchases are granted.
    purchases: u64,
    /// What is wrong.
    findings: Vec<String>,
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("`{database}` can't be read as a player database: {reason}")]
    Database { database: String, reason: String },
    #[error("the data of player {player} can't be read: {reason}")]
    Document { player: PlayerId, reason: String },
}

impl Audit {
    /// Reads the whole file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of(database: &Database, catalogue: &Catalogue) -> Result<Self, AuditError> {
        let unreadable = |reason| AuditError::Database {
            database: database.to_string(),
            reason,
        };
        let rows = database
            .read(|path| Rows::read(path).map_err(|error| error.to_string()))
            .and_then(|rows| rows)
            .map_err(unreadable)?;
        let mut world = World::default();
        for (player, document) in rows.players {
            world.count_player(player, document)?;
        }
        for receipt in rows.receipts {
            world.count_receipt(receipt, catalogue);
        }
        Ok(world.compare())
    }

    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One line when all is well, and one more for each finding.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relics,
            purchases,
            findings,
        } = self;
        if findings.is_empty() {
            return write!(
                f,
                "audit: {relics} relics, each once; {purchases} purchases granted, each once"
            );
        }
        write!(
            f,
            "audit: {relics} relics, {purchases} purchases granted; NOT AS IT SHOULD BE: {} findings",
            findings.len()
        )?;
        findings
            .iter()
            .take(FINDINGS_TOLD)
            .try_for_each(|finding| write!(f, "\naudit: {finding}"))
    }
}

/// What is in the file, as one transaction saw it.
struct Rows {
    players: Vec<(PlayerId, Vec<u8>)>,
    receipts: Vec<Receipt>,
}

/// A receipt of a player who was not erased.
struct Receipt {
    purchase: String,
    player: PlayerId,
    product: String,
    state: String,
    has_note: bool,
}

impl Rows {
    fn read(path: &Path) -> rusqlite::Result<Self> {
        // To read the log of a server that is running, SQLite has to be able to write.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut database = Connection::open_with_flags(path, flags)?;
        let snapshot = database.transaction()?;
        let players = "SELECT player_id, document FROM players WHERE document IS NOT NULL";
        let receipts = "SELECT purchase_id, player_id, product_id, state, note IS NOT NULL FROM receipts
            WHERE player_id IS NOT NULL AND product_id IS NOT NULL";
        Ok(Self {
            players: rows(&snapshot, players, |row| {
                Ok((PlayerId::from_bytes(row.get(0)?), row.get(1)?))
            })?,
            receipts: rows(&snapshot, receipts, |row| {
                Ok(Receipt {
                    purchase: row.get(0)?,
                    player: PlayerId::from_bytes(row.get(1)?),
                    product: row.get(2)?,
                    state: row.get(3)?,
                    has_note: row.get(4)?,
                })
            })?,
        })
    }
}

fn rows<T>(
    database: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    database.prepare(sql)?.query_map([], read)?.collect()
}

/// What there is, and what there should be.
#[derive(Default)]
struct World {
    /// Who has each relic; more than one owner is one too many.
    owners: HashMap<Relic, Vec<PlayerId>>,
    /// Where each relic comes from.
    origins: HashMap<Relic, String>,
    /// What each player has of each product, and how much of it was granted.
    purchases: BTreeMap<(PlayerId, String), (u64, u64)>,
}

impl World {
    fn count_player(&mut self, player: PlayerId, document: Vec<u8>) -> Result<(), AuditError> {
        let unreadable = |reason: String| AuditError::Document { player, reason };
        let document = Document::decode(&document.into()).map_err(|reason| unreadable(reason.to_string()))?;
        if let Some(Relics(relics)) = value(&document).map_err(unreadable)? {
            for relic in relics {
                self.owners.entry(relic).or_default().push(player);
            }
            for relic in relics_of_newcomer(player) {
                self.origins.insert(relic, format!("given to player {player}"));
            }
        }
        let bought: Option<Bought> = value(&document).map_err(unreadable)?;
        for (product, count) in bought.unwrap_or_default().0 {
            let (has, _) = self.purchases.entry((player, product.into())).or_default();
            *has = count.into();
        }
        Ok(())
    }

    fn count_receipt(&mut self, receipt: Receipt, catalogue: &Catalogue) {
        let is_granted = receipt.state == ReceiptState::Granted.name();
        // With a note, a refund says what could not be taken back.
        let is_kept = receipt.state == ReceiptState::Refunded.name() && receipt.has_note;
        let kind = catalogue.get(&receipt.product).map(|entry| &entry.kind);
        if (is_granted || is_kept)
            && kind == Some(&Kind::Relic)
            && let Ok(purchase) = PurchaseId::new(&receipt.purchase)
        {
            self.origins.insert(
                bought_relic(&purchase),
                format!("bought with purchase `{purchase}`"),
            );
        }
        if is_granted {
            let key = (receipt.player, receipt.product);
            let (_, granted) = self.purchases.entry(key).or_default();
            *granted += 1;
        }
    }

    fn compare(self) -> Audit {
        let mut findings = Vec::new();
        for (relic, origin) in &self.origins {
            match self.owners.get(relic).map(Vec::as_slice) {
                None => findings.push(format!("relic {relic} is lost ({origin})")),
                Some([_]) => {}
                Some(owners) => findings.push(format!(
                    "relic {relic} is there {} times ({origin}): {owners:?}",
                    owners.len()
                )),
            }
        }
        for (relic, owners) in &self.owners {
            if !self.origins.contains_key(relic) {
                findings.push(format!("relic {relic} comes from nowhere: {owners:?}"));
            }
        }
        for ((player, product), (has, granted)) in &self.purchases {
            if has != granted {
                findings.push(format!(
                    "player {player} has {has} `{product}` and was granted {granted}"
                ));
            }
        }
        findings.sort();
        Audit {
            relics: self.owners.len(),
            purchases: self.purchases.values().map(|(_, granted)| granted).sum(),
            findings,
        }
    }
}

/// A component in a document; `None` when it was never stored, or removed.
fn value<T: PlayerData + DeserializeOwned>(document: &Document) -> Result<Option<T>, String> {
    match document.get(T::KEY) {
        Some(Entry::Value { value, .. }) => value.decode().map(Some).map_err(|reason| reason.to_string()),
        Some(Entry::Tombstone) | None => Ok(None),
    }
}
