//! What was acknowledged, and whether it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bevy_player_data::{
    PlayerId,
    document::{Document, Entry, StoredValue},
};
use serde::{Deserialize, Serialize};

const KEY: &str = "diary";

/// A player's document: how often it was saved, and which purchases were awarded, in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Diary {
    pub(crate) saves: u64,
    pub(crate) awarded: Vec<u32>,
}

impl Diary {
    pub(crate) fn read(document: &Document) -> Self {
        match document.get(KEY) {
            Some(Entry::Value { value, .. }) => value.decode().expect("our own diary"),
            _ => Self::default(),
        }
    }

    pub(crate) fn document(&self) -> Document {
        let mut document = Document::new();
        let value = StoredValue::encode(self).expect("a diary can be encoded");
        document.set(
            KEY,
            Entry::Value {
                version: 1,
                oldest_reader: 1,
                value,
            },
        );
        document
    }

    /// What is in here twice.
    pub(crate) fn doubles(&self) -> Vec<u32> {
        let mut seen = BTreeSet::new();
        self.awarded
            .iter()
            .copied()
            .filter(|&number| !seen.insert(number))
            .collect()
    }
}

/// What a player was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// The newest save that was acknowledged.
    pub(crate) saved: Diary,
    pub(crate) version: u64,
    /// The purchases whose callbacks were acknowledged.
    pub(crate) paid: BTreeSet<u32>,
}

/// What everybody was told.
#[derive(Default)]
pub(crate) struct Books(Mutex<Entries>);

#[derive(Clone, Default)]
pub(crate) struct Entries {
    pub(crate) accounts: BTreeMap<PlayerId, Account>,
    pub(crate) saves: u64,
    pub(crate) sessions: u64,
    /// Sessions that saved both before and after a failover.
    pub(crate) went_on: u64,
    pub(crate) ended_badly: Vec<String>,
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
}

impl Books {
    pub(crate) fn open(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a database has of a player.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) version: u64,
    pub(crate) diary: Diary,
    /// The purchases, and which of them are settled as granted.
    pub(crate) receipts: BTreeMap<u32, bool>,
}

impl Entries {
    /// What is missing in a database of what was acknowledged.
    pub(crate) fn compare(&mut self, found: &BTreeMap<PlayerId, Found>, when: &str) {
        let nothing = Found::default();
        for (player, account) in &self.accounts {
            let found = found.get(player).unwrap_or(&nothing);
            if found.version < account.version || found.diary.saves < account.saved.saves {
                self.lost.push(format!(
                    "{when}: save {} (version {}) of {player}: there is {} (version {})",
                    account.saved.saves, account.version, found.diary.saves, found.version
                ));
            }
            for number in &account.saved.awarded {
                if !found.diary.awarded.contains(number) {
                    self.lost
                        .push(format!("{when}: the award of purchase {number} of {player}"));
                }
                if found.receipts.get(number) != Some(&true) {
                    self.lost
                        .push(format!("{when}: that purchase {number} of {player} was granted"));
                }
            }
            for number in &account.paid {
                if !found.receipts.contains_key(number) {
                    self.lost.push(format!("{when}: purchase {number} of {player}"));
                }
            }
        }
        for (player, found) in found {
            for number in found.diary.doubles() {
                self.doubled
                    .push(format!("{when}: purchase {number} of {player}"));
            }
            for number in &found.diary.awarded {
                if found.receipts.get(number) != Some(&true) {
                    self.doubled.push(format!(
                        "{when}: purchase {number} of {player} is awarded and may be once more: its receipt says {:?}",
                        found.receipts.get(number)
                    ));
                }
            }
        }
    }
}
