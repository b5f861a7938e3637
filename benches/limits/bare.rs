//! The baseline: the same rows and bytes through `rusqlite`, and nothing else.

use std::path::Path;

use bevy_player_data::prelude::*;
use rusqlite::{CachedStatement, Connection, params};

use crate::ours::filling;

/// How far apart in the file players are who are saved one after the other: no divisor of any number of players here.
const STRIDE: usize = 97;

/// A file with rows of players.
pub struct Bare {
    connection: Connection,
    players: usize,
    saved: usize,
}

/// What a commit waits for.
#[derive(Clone, Copy)]
pub enum Synchronous {
    Full,
    Off,
}

impl Bare {
    pub fn new(path: &Path, players: usize, synchronous: Synchronous) -> Self {
        // The crate's own file, so that schema and page size are the same.
        drop(SqliteStore::open(path).unwrap_or_else(|error| panic!("{error}")));
        let bare = Self {
            connection: open(path, synchronous),
            players,
            saved: 0,
        };
        bare.transaction(|bare| {
            let mut insert = bare.statement(
                "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at, document)
                 VALUES (?1, 0, 1, 0, zeroblob(16), zeroblob(16), 0, NULL)",
            );
            for player in 0..players {
                insert
                    .execute(params![player_id(player).into_bytes()])
                    .expect("the row is new");
            }
        });
        bare
    }

    /// Saves the next `count` players in transactions of `group`, each time with a document of other letters.
    /// Neighbours in the file are not saved together, as players in a game aren't.
    pub fn save(&mut self, count: usize, group: usize, bytes: usize) {
        let documents: Vec<String> = (0..26).map(|round| filling(bytes, round)).collect();
        let mut left = count;
        while left > 0 {
            let now = group.min(left);
            self.transaction(|bare| {
                let mut update = bare.statement(
                    "UPDATE players SET version = version + 1, last_seq = ?2, saved_at = ?2, document = ?3
                     WHERE player_id = ?1",
                );
                for save in bare.saved..bare.saved + now {
                    let player = player_id(save * STRIDE % bare.players).into_bytes();
                    let document = documents[save / bare.players % documents.len()].as_bytes();
                    update
                        .execute(params![player, save as i64, document])
                        .expect("the row is there");
                }
            });
            self.saved += now;
            left -= now;
        }
    }

    /// Locks everybody and reads their documents, in one transaction; the number of bytes read.
    pub fn load_everybody(&self) -> usize {
        let mut bytes = 0;
        self.transaction(|bare| {
            let mut select =
                bare.statement("SELECT rowid, fence, document FROM players WHERE player_id = ?1");
            let mut lock = bare.statement(
                "UPDATE players SET fence = ?2, last_seq = 0, lock_id = ?3, server = ?3 WHERE rowid = ?1",
            );
            for player in 0..bare.players {
                let (row, fence, document): (i64, i64, Option<Vec<u8>>) = select
                    .query_row(params![player_id(player).into_bytes()], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                    })
                    .expect("the row is there");
                bytes += document.map_or(0, |document| document.len());
                lock.execute(params![row, fence + 1, [1_u8; 16]])
                    .expect("the row is there");
            }
        });
        bytes
    }

    /// A file that is there.
    pub fn again(path: &Path, players: usize) -> Self {
        Self {
            connection: open(path, Synchronous::Full),
            players,
            saved: 0,
        }
    }

    /// Gives all locks back.
    pub fn unlock_everybody(&self) {
        self.transaction(|bare| {
            bare.statement("UPDATE players SET lock_id = zeroblob(16), server = zeroblob(16)")
                .execute([])
                .expect("the rows are there");
        });
    }

    /// Beats once, in a transaction of its own.
    pub fn beat(&self) {
        self.transaction(|bare| {
            bare.statement(
                "INSERT INTO servers (boot_id, name, started_at, beat) VALUES (zeroblob(16), 'bare', 0, 1)
                 ON CONFLICT (boot_id) DO UPDATE SET beat = beat + 1",
            )
            .execute([])
            .expect("there is room on the disk");
        });
    }

    fn transaction(&self, work: impl FnOnce(&Self)) {
        let run = |sql| self.statement(sql).execute([]).expect("nobody else has the file");
        run("BEGIN IMMEDIATE");
        work(self);
        run("COMMIT");
    }

    fn statement(&self, sql: &str) -> CachedStatement<'_> {
        self.connection.prepare_cached(sql).expect("the tables are there")
    }
}

fn open(path: &Path, synchronous: Synchronous) -> Connection {
    let connection = Connection::open(path).expect("the file was just made");
    let synchronous = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Off => "OFF",
    };
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -16384;"
        ))
        .expect("the pragmas are known");
    connection
}

pub fn player_id(player: usize) -> PlayerId {
    PlayerId::from_name(&player.to_string())
}
