//! What must be so, whatever happens: an opinion of its own about everything that takes effect on the rows.
//!
//! [`Oracle`] sees each request where it takes effect, with the rows before and after, and what servers say to their
//! games. It keeps the history, word for word, and the first thing that must not be.

use std::collections::{BTreeMap, BTreeSet};

use bevy_player_data::{
    PlayerData as _, PlayerId,
    document::{Document, Entry},
    store::{Acquire, Commit, LockId, ReceiptState, Record, Store, StoreError, Then, Write},
};
use bytes::Bytes;

use crate::{
    at_once::AtOnce,
    game::{Badge, Bought, Diary, Journal, Level, NEW_LEVELS, NewLevel, ON_FALLBACK, PLAYED, Pet, Relics},
    leases::TrueLeases,
    stored::{look, value},
    tally::Tally,
};

pub type Check = Result<(), String>;

pub struct Oracle {
    rows: AtOnce,
    pages: BTreeMap<PlayerId, Page>,
    relics: BTreeMap<u32, PlayerId>,
    /// Whose session was told by its last write that somebody had it after all.
    taken_over: BTreeSet<PlayerId>,
    pub leases: TrueLeases,
    pub history: String,
    pub tally: Tally,
    violation: Option<String>,
}

/// A player's row and what its document says.
#[derive(Clone, Default)]
struct Page {
    record: Option<Record>,
    data: Data,
}

#[derive(Clone, Default)]
struct Data {
    journal: Vec<u32>,
    relics: Vec<u32>,
    bought: BTreeMap<String, i64>,
    level: u64,
    pet: Option<Entry>,
    /// The badge and the diary, which nobody ever changes.
    words: String,
}

impl Oracle {
    pub fn new(rows: AtOnce) -> Self {
        Self {
            rows,
            pages: BTreeMap::new(),
            relics: BTreeMap::new(),
            taken_over: BTreeSet::new(),
            leases: TrueLeases::default(),
            history: String::new(),
            tally: Tally::default(),
            violation: None,
        }
    }

    pub fn tell(&mut self, line: &str) {
        self.history.push_str(line);
        self.history.push('\n');
    }

    /// Keeps the first thing that must not be.
    pub fn judge(&mut self, check: Check) {
        if let Err(violation) = check {
            self.tell(&format!("VIOLATION {violation}"));
            self.violation.get_or_insert(violation);
        }
    }

    pub fn verdict(&self) -> Check {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// How many commits the players' records have seen.
    pub fn commits(&self) -> u64 {
        let records = self.pages.values().filter_map(|page| page.record.as_ref());
        records.map(|record| record.version).sum()
    }

    /// What is stored of a player's journal.
    pub fn journal(&self, player: PlayerId) -> &[u32] {
        self.pages.get(&player).map_or(&[], |page| &page.data.journal)
    }

    /// From here on it counts who is told that they were taken over.
    pub fn everybody_leaves(&mut self) {
        self.taken_over.clear();
    }

    /// Whether a session's last write has come too late since, because somebody was given a later fence.
    pub fn was_taken_over(&self, player: PlayerId) -> bool {
        self.taken_over.contains(&player)
    }

    /// Takes in that somebody asked for a lock.
    pub fn acquired(&mut self, acquire: &Acquire, answer: Result<(u64, Option<Bytes>), &StoreError>) {
        let (player, lock) = (acquire.player, acquire.lock);
        let before = self.page(player).record.clone();
        let after = self.read(player);
        let check = match answer {
            Err(_) => unchanged(player, before.as_ref(), after.as_ref()),
            Ok((fence, document)) => {
                let known = before.as_ref().and_then(|record| record.document.clone());
                let again = before
                    .as_ref()
                    .is_some_and(|record| record.fence == fence && holds(record, lock));
                let next = before.as_ref().map_or(0, |record| record.fence) + 1;
                if document != known {
                    Err(format!(
                        "I1: {player} was locked with other data than what was stored last"
                    ))
                } else if !again && fence != next {
                    Err(format!(
                        "I1: {player} was locked with fence {fence}, and {next} is the next"
                    ))
                } else if !after.as_ref().is_some_and(|record| holds(record, lock)) {
                    Err(format!(
                        "I1: {player} was locked, and the row knows nothing of it"
                    ))
                } else {
                    let holder = before.as_ref().and_then(|record| record.lock.as_ref());
                    match holder.filter(|_| !again) {
                        Some(holder) => {
                            self.tally.count("effects", "lock taken over");
                            self.leases.may_be_taken(holder, acquire)
                        }
                        None => Ok(()),
                    }
                }
            }
        };
        self.page(player).record = after;
        self.judge(check);
    }

    /// Takes in that something was committed, or refused.
    pub fn committed(&mut self, commit: &Commit, answer: Result<(), &StoreError>) {
        let mut changed = Vec::new();
        for write in &commit.writes {
            let before = self.page(write.player).record.clone();
            let after = self.read(write.player);
            if answer.is_err() {
                let check = unchanged(write.player, before.as_ref(), after.as_ref());
                self.judge(check);
                if write.then == Then::Release && after.as_ref().is_some_and(|row| row.fence > write.fence) {
                    self.taken_over.insert(write.player);
                }
            } else if before != after {
                let check = may_write(write, before.as_ref(), after.as_ref());
                self.judge(check);
                self.tally.count("effects", "commit accepted");
                changed.push(write.player);
            } else {
                let check = has_landed(write, after.as_ref());
                self.judge(check);
                self.tally.count("effects", "commit landed before");
            }
            self.page(write.player).record = after;
        }
        for &player in &changed {
            let check = self.turn_page(player);
            self.judge(check);
        }
        if !changed.is_empty() {
            let check = self.relics_are_once();
            self.judge(check);
        }
        for write in &commit.writes {
            let check = self.receipts_agree(write.player);
            self.judge(check);
        }
    }

    fn page(&mut self, player: PlayerId) -> &mut Page {
        self.pages.entry(player).or_default()
    }

    fn read(&self, player: PlayerId) -> Option<Record> {
        let mut record = look(self.rows.peek(player)).expect("the rows can be read")?;
        if let Some(holder) = &mut record.lock {
            // The name is in the row of the server, which goes when the server does.
            holder.name = None;
        }
        Some(record)
    }

    /// Reads a document that has changed, and compares it with the one before.
    fn turn_page(&mut self, player: PlayerId) -> Check {
        let page = self.page(player);
        let bytes = page.record.as_ref().and_then(|record| record.document.clone());
        let Some(bytes) = bytes else {
            return Ok(());
        };
        let new = Data::read(&bytes)?;
        let old = std::mem::replace(&mut page.data, new);
        let new = &page.data;
        if !new.journal.starts_with(&old.journal) {
            return Err(format!(
                "I2: the journal of {player} was {:?}, and what is stored now does not continue it: {:?}",
                old.journal, new.journal
            ));
        }
        if let Some(deed) = new.journal.iter().find(|deed| **deed & ON_FALLBACK != 0) {
            return Err(format!(
                "I3: deed {deed} of {player} was on defaults, and is stored"
            ));
        }
        let played = new.journal.iter().filter(|deed| **deed & PLAYED != 0).count() as u64;
        if new.level != played {
            return Err(format!(
                "I11: {player} has played {played} times, and the level says {}",
                new.level
            ));
        }
        if old.pet.is_some() && old.pet != new.pet {
            return Err(format!(
                "I11: the pet of {player} was {:?}, and is {:?}",
                old.pet, new.pet
            ));
        }
        if !old.words.is_empty() && old.words != new.words {
            return Err(format!(
                "I6: {player} had {:?}, and has {:?}",
                old.words, new.words
            ));
        }
        Ok(())
    }

    /// A relic that was ever stored is stored with exactly one player.
    fn relics_are_once(&mut self) -> Check {
        let mut owners = BTreeMap::new();
        for (&player, page) in &self.pages {
            for &relic in &page.data.relics {
                if let Some(other) = owners.insert(relic, player) {
                    return Err(format!("I9: relic {relic} is with {other} and with {player}"));
                }
            }
        }
        let lost = self.relics.keys().find(|relic| !owners.contains_key(relic));
        if let Some(relic) = lost {
            return Err(format!("I9: relic {relic} is nowhere any more"));
        }
        self.relics = owners;
        Ok(())
    }

    /// A receipt is granted exactly if its award is in the document.
    pub fn receipts_agree(&mut self, player: PlayerId) -> Check {
        let rows = look(self.rows.receipts_of(player, None, usize::MAX)).expect("the rows can be read");
        let granted = rows.iter().filter(|row| row.state == ReceiptState::Granted);
        let mut granted: Vec<&str> = granted.map(|row| row.purchase.as_str()).collect();
        granted.sort_unstable();
        let bought = &self.page(player).data.bought;
        let agree = bought.len() == granted.len()
            && bought
                .iter()
                .zip(&granted)
                .all(|((id, times), granted)| id == granted && *times == 1);
        if agree {
            Ok(())
        } else {
            Err(format!(
                "I4: granted to {player} are {granted:?}, and stored is {bought:?}"
            ))
        }
    }
}

fn holds(record: &Record, lock: LockId) -> bool {
    record.lock.as_ref().is_some_and(|holder| holder.lock == lock)
}

fn unchanged(player: PlayerId, before: Option<&Record>, after: Option<&Record>) -> Check {
    if before == after {
        Ok(())
    } else {
        Err(format!(
            "I1: a refused request has changed {player} from {before:?} to {after:?}"
        ))
    }
}

/// Whether a write that has changed nothing is what is there.
fn has_landed(write: &Write, row: Option<&Record>) -> Check {
    let is_there = row.is_some_and(|row| {
        let document_is_right = write.document.is_none() || write.document == row.document;
        let lock_is_right = match write.then {
            Then::Keep => holds(row, write.lock),
            Then::Release => row.lock.is_none(),
        };
        row.fence == write.fence && row.last_seq == write.seq && document_is_right && lock_is_right
    });
    if is_there {
        Ok(())
    } else {
        Err(format!("I6: {write:?} was acknowledged, and the row is {row:?}"))
    }
}

/// Whether a write had the right to change what it changed.
fn may_write(write: &Write, before: Option<&Record>, after: Option<&Record>) -> Check {
    let (Some(before), Some(after)) = (before, after) else {
        return Err(format!(
            "I1: a write has made or removed the row of {}",
            write.player
        ));
    };
    if !holds(before, write.lock) || before.fence != write.fence {
        return Err(format!(
            "I1: {} was written with fence {} by somebody who does not hold the lock: {before:?}",
            write.player, write.fence
        ));
    }
    if write.seq <= before.last_seq {
        return Err(format!(
            "I2: write {} of {} was accepted after write {}",
            write.seq, write.player, before.last_seq
        ));
    }
    let document_is_right = match &write.document {
        Some(document) => after.document.as_ref() == Some(document),
        None => after.document == before.document,
    };
    let lock_is_right = match write.then {
        Then::Keep => holds(after, write.lock),
        Then::Release => after.lock.is_none(),
    };
    if document_is_right && after.fence == before.fence && after.last_seq == write.seq {
        if lock_is_right {
            Ok(())
        } else {
            Err(format!(
                "I7: a write that ends with {:?} has left {after:?}",
                write.then
            ))
        }
    } else {
        Err(format!("I1: {write:?} has made {after:?} of {before:?}"))
    }
}

impl Data {
    fn read(bytes: &Bytes) -> Result<Self, String> {
        let document = Document::decode(bytes).map_err(|error| error.to_string())?;
        let level = match document.get(Level::KEY) {
            Some(Entry::Value { version: 1, .. }) | None => value::<Level>(&document)?.0,
            _ => {
                let new = value::<NewLevel>(&document)?.0;
                if new % NEW_LEVELS != 0 {
                    return Err(format!("I11: {new} is no new level"));
                }
                new / NEW_LEVELS
            }
        };
        Ok(Self {
            journal: value::<Journal>(&document)?.0,
            relics: value::<Relics>(&document)?.0.into_iter().collect(),
            bought: value::<Bought>(&document)?.0,
            level,
            pet: document.get(Pet::KEY).cloned(),
            words: value::<Badge>(&document)?.0 + &value::<Diary>(&document)?.0,
        })
    }
}
