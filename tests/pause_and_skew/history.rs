//! Everything that was ever written to the file, in order, and what must not be in it.
//!
//! Triggers write the history down inside the very transactions that they watch, whichever process they are of.

use std::{collections::BTreeMap, fmt, path::Path};

use bevy_player_data::{
    PlayerId,
    document::{self, Document},
};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::report::Found;

/// One entry of a player's journal.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub server: String,
    pub number: u32,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server, self.number)
    }
}

/// Who has looked at others' beats this often since a server's last beat may have seen it stand still for a whole TTL:
/// once at its beginning, once at its end, and in between, since a longer gap counts for nothing.
const LOOKS_PER_TTL: u32 = 3;

/// How much history is looked at from before a player came in.
const BEFORE: i64 = 500;

const TRIGGERS: &str = "
    CREATE TABLE history (
        n INTEGER PRIMARY KEY, player BLOB, version INTEGER, fence INTEGER, seq INTEGER, is_locked INTEGER,
        server BLOB, name TEXT, document BLOB
    );
    CREATE TRIGGER row_is_new AFTER INSERT ON players BEGIN
        INSERT INTO history (player, version, fence, seq, is_locked, server, document)
        VALUES (NEW.player_id, NEW.version, NEW.fence, NEW.last_seq, NEW.lock_id <> zeroblob(16), NEW.server, NEW.document);
    END;
    CREATE TRIGGER row_changes AFTER UPDATE ON players BEGIN
        INSERT INTO history (player, version, fence, seq, is_locked, server, document)
        VALUES (NEW.player_id, NEW.version, NEW.fence, NEW.last_seq, NEW.lock_id <> zeroblob(16), NEW.server, NEW.document);
    END;
    CREATE TRIGGER server_is_new AFTER INSERT ON servers BEGIN
        INSERT INTO history (server, name) VALUES (NEW.boot_id, NEW.name);
    END;
    CREATE TRIGGER server_beats AFTER UPDATE ON servers BEGIN
        INSERT INTO history (server, name) VALUES (NEW.boot_id, NEW.name);
    END;
";

/// Has the history of a file, which no server has opened yet, written down from now on.
pub fn begin(database: &Path) {
    // The store makes its tables.
    drop(bevy_player_data::store::SqliteStore::open(database).unwrap());
    open(database).execute_batch(TRIGGERS).unwrap();
}

fn open(database: &Path) -> Connection {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.busy_timeout(super::duel::PATIENCE).unwrap();
    connection
}

/// The history so far.
pub struct History(Connection);

/// A player's row as it was left by one statement.
struct Row {
    version: i64,
    fence: i64,
    seq: i64,
    is_locked: bool,
    server: Vec<u8>,
    journal: Vec<Entry>,
}

enum Event {
    Beat { server: Vec<u8>, name: String },
    Row(Row),
}

/// What the history of one player tells.
#[derive(Default)]
pub struct Judged {
    pub found: Vec<Found>,
    pub commits: u64,
    pub takeovers: u64,
    pub beats: u64,
}

impl History {
    pub fn of(database: &Path) -> Self {
        Self(open(database))
    }

    /// How many beats a server has made so far.
    pub fn beats(&self, name: &str) -> i64 {
        let query = "SELECT count(*) FROM history WHERE name = ?1";
        self.0.query_row(query, [name], |row| row.get(0)).unwrap()
    }

    /// Where it ends.
    pub fn end(&self) -> i64 {
        let query = "SELECT coalesce(max(n), 0) FROM history";
        self.0.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// Whether nothing is wrong with the file.
    pub fn is_intact(&self) -> bool {
        let check = self
            .0
            .query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        check.is_ok_and(|said| said == "ok")
    }

    /// Judges what has happened to a player, who came in at `begin`; `acked` was acknowledged to somebody, and up to
    /// `thawed` everybody stood still, who has proved nothing by that.
    pub fn judge(&self, name: &str, begin: i64, thawed: Option<i64>, acked: &[Entry]) -> Judged {
        let mut judge = Judge::default();
        // With some beats from before, to know who is there and since when each stands still.
        for (n, event) in self.events(name, begin - BEFORE) {
            if thawed.is_some_and(|thawed| n <= thawed) {
                judge.looks.values_mut().for_each(|looks| *looks = 0);
            }
            judge.take(event);
        }
        judge.finish(acked)
    }

    fn events(&self, name: &str, begin: i64) -> Vec<(i64, Event)> {
        let query = "SELECT player, version, fence, seq, is_locked, server, name, document, n FROM history
            WHERE (player IS NULL AND n > ?1) OR player = ?2 ORDER BY n";
        let mut statement = self.0.prepare(query).unwrap();
        let events = statement.query_map((begin, PlayerId::from_name(name).into_bytes()), |row| {
            let server = row.get(5)?;
            let event = match row.get::<_, Option<Vec<u8>>>(0)? {
                None => Event::Beat {
                    server,
                    name: row.get(6)?,
                },
                Some(_) => Event::Row(Row {
                    version: row.get(1)?,
                    fence: row.get(2)?,
                    seq: row.get(3)?,
                    is_locked: row.get(4)?,
                    server,
                    journal: row
                        .get::<_, Option<Vec<u8>>>(7)?
                        .map(journal_in)
                        .unwrap_or_default(),
                }),
            };
            Ok((row.get(8)?, event))
        });
        events.unwrap().collect::<Result<_, _>>().unwrap()
    }
}

fn journal_in(document: Vec<u8>) -> Vec<Entry> {
    let document = Document::decode(&document.into()).unwrap();
    match document.get("journal") {
        Some(document::Entry::Value { value, .. }) => value.decode().unwrap(),
        _ => Vec::new(),
    }
}

/// Goes through a history.
#[derive(Default)]
struct Judge {
    names: BTreeMap<Vec<u8>, String>,
    /// How often each server has beaten since another one's last beat, by (other, server).
    looks: BTreeMap<(Vec<u8>, Vec<u8>), u32>,
    row: Option<Row>,
    judged: Judged,
}

impl Judge {
    fn take(&mut self, event: Event) {
        match event {
            Event::Beat { server, name } => {
                self.judged.beats += 1;
                for other in self.names.keys().filter(|other| **other != server) {
                    self.looks.entry((other.clone(), server.clone())).or_default();
                    self.looks.entry((server.clone(), other.clone())).or_default();
                }
                self.names.insert(server.clone(), name);
                for ((still, looking), looks) in &mut self.looks {
                    if *still == server {
                        *looks = 0;
                    } else if *looking == server {
                        *looks += 1;
                    }
                }
            }
            Event::Row(row) => {
                if let Some(old) = self.row.take() {
                    self.compare(&old, &row);
                }
                self.row = Some(row);
            }
        }
    }

    fn compare(&mut self, old: &Row, new: &Row) {
        if new.fence == old.fence {
            self.commit(old, new);
        } else {
            self.acquire(old, new);
        }
        let Some(appended) = new.journal.strip_prefix(old.journal.as_slice()) else {
            let kept = old
                .journal
                .iter()
                .zip(&new.journal)
                .take_while(|(old, new)| old == new)
                .count();
            let lost = old.journal.get(kept).map(ToString::to_string);
            return self.find(format_args!(
                "what was saved was overwritten: {lost:?} is gone, at fence {} version {}",
                new.fence, new.version
            ));
        };
        let writer = self
            .names
            .get(if new.is_locked { &new.server } else { &old.server })
            .cloned();
        for entry in appended {
            if writer.as_ref().is_some_and(|writer| *writer != entry.server) {
                self.find(format_args!("{entry} was accepted while {writer:?} had the lock"));
            }
        }
    }

    fn commit(&mut self, old: &Row, new: &Row) {
        self.judged.commits += 1;
        if new.version != old.version + 1 || new.seq <= old.seq {
            self.find(format_args!(
                "a commit went from version {} to {} and from number {} to {}",
                old.version, new.version, old.seq, new.seq
            ));
        }
    }

    fn acquire(&mut self, old: &Row, new: &Row) {
        if new.fence != old.fence + 1 || new.version != old.version || !new.is_locked {
            self.find(format_args!("the fence went from {} to {}", old.fence, new.fence));
        }
        if !old.is_locked || old.server == new.server {
            return;
        }
        self.judged.takeovers += 1;
        let looks = self
            .looks
            .get(&(old.server.clone(), new.server.clone()))
            .copied()
            .unwrap_or_default();
        if looks < LOOKS_PER_TTL {
            self.find(format_args!(
                "a player was taken from a server that beats: {looks} looks since its last beat"
            ));
        }
    }

    fn finish(mut self, acked: &[Entry]) -> Judged {
        let journal = self
            .row
            .as_ref()
            .map(|row| row.journal.clone())
            .unwrap_or_default();
        for entry in acked {
            let times = journal.iter().filter(|stored| *stored == entry).count();
            if times != 1 {
                self.find(format_args!(
                    "{entry} was acknowledged, and is there {times} times"
                ));
            }
        }
        self.judged
    }

    fn find(&mut self, what: fmt::Arguments<'_>) {
        self.judged.found.push(what.to_string());
    }
}
