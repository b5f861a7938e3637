//! What is in a player database, as JSON: `cargo run --example inspect -- players.db [PLAYER]`.
//!
//! Without a player, all players with their locks, and all servers with their leases; with one (a UUID, or a name as the
//! example server derives ids from names), that player's document and receipts. It takes no lock and changes nothing, so
//! it may look at the database of a running server. The tables are the crate's stable surface: tools in any language may
//! do the same.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bevy_player_data::{
    PlayerId,
    document::{Document, Entry},
};
use clap::Parser;
use rmpv::Value as Stored;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, Row};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

/// Shows what is in a player database, as JSON.
#[derive(Parser)]
struct Options {
    /// The SQLite file.
    db: PathBuf,
    /// Whose document and receipts to show: a UUID or a name. Without it, an overview of all players and servers is
    /// shown.
    player: Option<String>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("there is no database `{}`", .0.display())]
    Missing(PathBuf),
    #[error("`{}` can't be read as a player database: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: rusqlite::Error },
    #[error("there is no player `{given}` ({player})")]
    UnknownPlayer { given: String, player: PlayerId },
    #[error("the output can't be written: {0}")]
    Output(io::Error),
}

fn main() -> ExitCode {
    match show(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn show(options: &Options) -> Result<(), Failure> {
    let path = &options.db;
    if !path.is_file() {
        return Err(Failure::Missing(path.clone()));
    }
    let unreadable = |reason| Failure::Unreadable {
        path: path.clone(),
        reason,
    };
    let database = open(path).map_err(unreadable)?;
    let shown = match &options.player {
        None => overview(&database).map_err(unreadable)?,
        Some(given) => {
            let player = given.parse().unwrap_or_else(|_| PlayerId::from_name(given));
            player_in(&database, player)
                .map_err(unreadable)?
                .ok_or_else(|| Failure::UnknownPlayer {
                    given: given.clone(),
                    player,
                })?
        }
    };
    match writeln!(io::stdout(), "{shown:#}") {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::Output),
    }
}

/// Opens the database to look, and only to look.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    if fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        return Connection::open_with_flags(path, flags);
    }
    // Nobody is writing. Saying so keeps SQLite from putting a log beside a file that we shall not touch.
    let uri = format!("file:{}?immutable=1", percent_encoded(&path));
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
}

fn percent_encoded(path: &Path) -> String {
    let encode = |&byte: &u8| match byte {
        b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    path.as_os_str().as_encoded_bytes().iter().map(encode).collect()
}

fn overview(database: &Connection) -> rusqlite::Result<Json> {
    let servers = "SELECT boot_id, name, started_at, beat FROM servers ORDER BY name, started_at";
    Ok(json!({
        "players": rows(database, &format!("{PLAYERS} ORDER BY player_id"), [], player_row)?,
        "servers": rows(database, servers, [], server_row)?,
    }))
}

fn rows(
    database: &Connection,
    sql: &str,
    params: impl Params,
    show: fn(&Row<'_>) -> rusqlite::Result<Json>,
) -> rusqlite::Result<Vec<Json>> {
    database.prepare(sql)?.query_map(params, show)?.collect()
}

/// A player's record and receipts, the newest first; `None` when there is neither.
fn player_in(database: &Connection, player: PlayerId) -> rusqlite::Result<Option<Json>> {
    let show = |row: &Row<'_>| {
        let mut shown = player_row(row)?;
        let document: Option<Vec<u8>> = row.get("document")?;
        shown["document"] = document.map_or(Json::Null, document_in);
        Ok(shown)
    };
    let id = player.into_bytes();
    let record = database
        .query_row(&format!("{PLAYERS} WHERE player_id = ?1"), [id], show)
        .optional()?;
    let receipts = rows(database, RECEIPTS, [id], receipt_row)?;
    // Whoever has never joined may have bought something on the studio's website.
    let mut shown = match record {
        None if receipts.is_empty() => return Ok(None),
        None => json!({ "player_id": player.to_string() }),
        Some(record) => record,
    };
    shown["receipts"] = receipts.into();
    Ok(Some(shown))
}

/// Every column, because `note` is missing in a file that no server of this version has opened yet.
const RECEIPTS: &str = "SELECT * FROM receipts WHERE player_id = ?1 ORDER BY rowid DESC";

fn receipt_row(row: &Row<'_>) -> rusqlite::Result<Json> {
    let note = match row.get::<_, Option<String>>("note") {
        Err(rusqlite::Error::InvalidColumnName(_)) => None,
        note => note?,
    };
    Ok(json!({
        "purchase_id": row.get::<_, String>("purchase_id")?,
        "product_id": row.get::<_, Option<String>>("product_id")?,
        "state": row.get::<_, String>("state")?,
        "refund_requested": row.get::<_, bool>("refund_requested")?,
        "note": note,
        "settled_fence": row.get::<_, Option<i64>>("settled_fence")?,
        "received_at": row.get::<_, i64>("received_at")?,
        "settled_at": row.get::<_, Option<i64>>("settled_at")?,
        "payload_bytes": row.get_ref("payload")?.as_bytes_or_null()?.map(<[u8]>::len),
    }))
}

/// The players, each with the server that holds its lock, if one does.
const PLAYERS: &str = "SELECT players.*, servers.name AS holder
    FROM players LEFT JOIN servers ON servers.boot_id = players.server";

fn player_row(row: &Row<'_>) -> rusqlite::Result<Json> {
    let lock = Uuid::from_bytes(row.get("lock_id")?);
    let holder = json!({
        "lock_id": lock.to_string(),
        "server": Uuid::from_bytes(row.get("server")?).to_string(),
        // Without a name, the server is gone and the lock is free for the taking.
        "name": row.get::<_, Option<String>>("holder")?,
    });
    Ok(json!({
        "player_id": Uuid::from_bytes(row.get("player_id")?).to_string(),
        "version": row.get::<_, i64>("version")?,
        "fence": row.get::<_, i64>("fence")?,
        "last_seq": row.get::<_, i64>("last_seq")?,
        "locked_by": if lock.is_nil() { Json::Null } else { holder },
        "created_at": row.get::<_, i64>("created_at")?,
        "saved_at": row.get::<_, Option<i64>>("saved_at")?,
        "document_bytes": row.get_ref("document")?.as_blob_or_null()?.map(<[u8]>::len),
    }))
}

fn server_row(row: &Row<'_>) -> rusqlite::Result<Json> {
    Ok(json!({
        "boot_id": Uuid::from_bytes(row.get(0)?).to_string(),
        "name": row.get::<_, String>(1)?,
        "started_at": row.get::<_, i64>(2)?,
        "beat": row.get::<_, i64>(3)?,
    }))
}

/// A document as a map from key to version and value; `null` stands for a component that was removed on purpose.
fn document_in(bytes: Vec<u8>) -> Json {
    match Document::decode(&bytes.into()) {
        Ok(document) => document
            .iter()
            .map(|(key, entry)| (key.to_owned(), entry_as_json(entry)))
            .collect(),
        Err(error) => json!({ "$unreadable": error.to_string() }),
    }
}

fn entry_as_json(entry: &Entry) -> Json {
    match entry {
        Entry::Tombstone => Json::Null,
        Entry::Value { version, value, .. } => {
            let value = match rmpv::decode::read_value(&mut value.bytes().as_ref()) {
                Ok(value) => as_json(value),
                Err(error) => json!({ "$unreadable": error.to_string() }),
            };
            json!({ "version": version, "value": value })
        }
    }
}

/// Stored values may be what JSON can't say: that becomes an object with one key, which begins with `$`.
fn as_json(value: Stored) -> Json {
    match value {
        Stored::Nil => Json::Null,
        Stored::Boolean(value) => value.into(),
        Stored::Integer(value) => match (value.as_u64(), value.as_i64()) {
            (Some(value), _) => value.into(),
            (None, value) => value.into(),
        },
        Stored::F32(value) => float_as_json(value.into()),
        Stored::F64(value) => float_as_json(value),
        Stored::String(text) => match text.into_bytes() {
            bytes if std::str::from_utf8(&bytes).is_err() => bytes_as_json(&bytes),
            bytes => String::from_utf8_lossy(&bytes).into(),
        },
        Stored::Binary(bytes) => bytes_as_json(&bytes),
        Stored::Array(values) => values.into_iter().map(as_json).collect(),
        Stored::Map(pairs) => map_as_json(pairs),
        Stored::Ext(kind, bytes) => json!({ "$ext": [kind, BASE64_STANDARD.encode(bytes)] }),
    }
}

fn float_as_json(value: f64) -> Json {
    if value.is_finite() {
        value.into()
    } else {
        json!({ "$float": value.to_string() })
    }
}

fn bytes_as_json(bytes: &[u8]) -> Json {
    json!({ "$bytes": BASE64_STANDARD.encode(bytes) })
}

/// An object where all keys are texts that mean nothing else here, and a list of pairs otherwise.
fn map_as_json(pairs: Vec<(Stored, Stored)>) -> Json {
    let plain = |(key, _): &(Stored, Stored)| key.as_str().is_some_and(|key| !key.starts_with('$'));
    if !pairs.iter().all(plain) {
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| json!([as_json(key), as_json(value)]));
        return json!({ "$map": pairs.collect::<Vec<Json>>() });
    }
    let text = |key: Stored| key.as_str().unwrap_or_default().to_owned();
    pairs
        .into_iter()
        .map(|(key, value)| (text(key), as_json(value)))
        .collect::<Map<String, Json>>()
        .into()
}
