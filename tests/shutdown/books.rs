//! What the file says of everybody.

use std::{collections::BTreeMap, path::Path};

use bevy_player_data::{
    PlayerData, PlayerId,
    document::{Document, Entry},
};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};

use super::{campaign::PATIENCE, server::Page};

/// A player's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub generation: u64,
    pub is_locked: bool,
    pub is_whole: bool,
}

pub type Books = BTreeMap<PlayerId, Row>;

pub fn read(database: &Path) -> Books {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .expect("the file can be opened");
    let intact: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("it can be checked");
    assert_eq!(intact, "ok", "the file is damaged");
    let mut rows = connection
        .prepare("SELECT player_id, lock_id <> zeroblob(16), document FROM players")
        .expect("the table is there");
    let rows = rows.query_map([], |row| {
        Ok((
            row.get::<_, [u8; 16]>(0)?,
            row.get(1)?,
            row.get::<_, Option<Vec<u8>>>(2)?,
        ))
    });
    let rows = rows.expect("the table can be read").map(|row| {
        let (id, is_locked, document) = row.expect("a row");
        let player = PlayerId::from_bytes(id);
        let page = document.map(|bytes| page(bytes.into()));
        let is_whole = page
            .as_ref()
            .is_none_or(|page| page.as_ref().is_some_and(|page| page.is_whole(player)));
        let row = Row {
            generation: page.flatten().unwrap_or_default().generation,
            is_locked,
            is_whole,
        };
        (player, row)
    });
    rows.collect()
}

/// Lets nobody else write to the file until the connection is dropped.
pub fn keep_locked(database: &Path) -> Connection {
    let connection = Connection::open(database).expect("the file can be opened");
    connection.busy_timeout(PATIENCE).expect("a timeout can be set");
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .expect("the file can be locked");
    connection
}

fn page(bytes: Bytes) -> Option<Page> {
    let document = Document::decode(&bytes).ok()?;
    match document.get(Page::KEY) {
        Some(Entry::Value { value, .. }) => value.decode().ok(),
        _ => None,
    }
}
