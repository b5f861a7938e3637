//! The examples as processes: starting them, listening to them, and ending them.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[cfg(all(unix, feature = "postgres"))]
#[path = "postgres.rs"]
mod postgres;

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bevy_player_data::{
    PlayerId,
    document::Document,
    store::{BoxFuture, Store, StoreError},
};
use rusqlite::{Connection, OpenFlags, Row as SqlRow};

/// How long anything may take. Far longer than it does, so that a busy machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The path of an example's program, which `cargo test` builds before it runs any test.
pub fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of the test");
    let folder = this
        .parent()
        .and_then(Path::parent)
        .expect("tests are in `deps`, beside `examples`");
    let program = folder
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.exists(),
        "there is no `{}`: run `cargo build --examples` first",
        program.display()
    );
    program
}

/// Runs a program to its end.
pub fn run(program: &Path, arguments: &[&str], folder: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .env_remove("WEBHOOK_SECRET")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// A running example server. It is killed when the test is done with it.
pub struct Server {
    child: Child,
    said: Said,
    log: Option<JoinHandle<String>>,
}

/// How a server ended.
pub struct Ended {
    pub code: Option<i32>,
    pub said: Vec<String>,
    pub log: String,
}

impl Server {
    /// Starts a server with its database in `folder`, on ports that are free, and waits until one can log in.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_in(folder, arguments, &[])
    }

    /// As [`start`](Self::start), with these environment variables.
    pub fn start_in(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(example("server"))
            .env_remove("WEBHOOK_SECRET")
            .envs(variables.iter().copied())
            .args([
                "--db",
                &database_of(folder),
                "--listen",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
            ])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let said = Said::listen(child.stdout.take().expect("it is piped"));
        let mut stderr = child.stderr.take().expect("it is piped");
        let log = thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let server = Self {
            child,
            said,
            log: Some(log),
        };
        server.wait_for_line("login at ");
        server
    }

    /// The address of the login service, like `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        self.wait_for_line("login at ")
            .trim_start_matches("login at ")
            .to_owned()
    }

    /// Waits until the server has said a line that contains `part`.
    #[track_caller]
    pub fn wait_for_line(&self, part: &str) -> String {
        self.said.wait_for_line(part)
    }

    /// The secret that callbacks about purchases are signed with, if the server has made one for itself.
    pub fn secret(&self) -> String {
        let line = self.wait_for_line("purchases are signed with ");
        let secret = line.split_whitespace().find(|word| word.starts_with("whsec_"));
        secret.expect("a secret").trim_end_matches(',').to_owned()
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .expect("`kill` starts");
        assert!(status.success(), "the server can be signalled");
    }

    /// Ends it without any warning.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let status = wait_for("the server ends", || {
            self.child.try_wait().expect("it can be asked")
        });
        let log = self
            .log
            .take()
            .and_then(|log| log.join().ok())
            .unwrap_or_default();
        let said = self.said.all();
        Ended {
            code: status.code(),
            said,
            log,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Checks that it ended in good order, with everybody saved. Returns how many that were.
    #[track_caller]
    pub fn assert_all_saved(&self) -> u32 {
        let said = self.said.join("\n");
        assert_eq!(
            self.code,
            Some(0),
            "the exit code is 0; it said:\n{said}\nand logged:\n{}",
            self.log
        );
        let last = self.said.last().expect("it said something");
        let words: Vec<&str> = last.split(' ').collect();
        let ["saved", saved, "of", total, "players", "in", millis, "ms"] = words[..] else {
            panic!("the last line says who was saved, and not: {last}");
        };
        assert_eq!(saved, total, "everybody is saved");
        millis.parse::<u64>().expect("a number of milliseconds");
        total.parse().expect("a number of players")
    }
}

/// What a process has said on stdout so far.
struct Said {
    lines: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Said {
    fn listen(stdout: ChildStdout) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let listener = thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| heard.lock().expect("no panics").push(line));
        });
        Self {
            lines,
            listener: Some(listener),
        }
    }

    #[track_caller]
    fn wait_for_line(&self, part: &str) -> String {
        wait_for(&format!("the process says `{part}`"), || {
            self.lines
                .lock()
                .expect("no panics")
                .iter()
                .find(|line| line.contains(part))
                .cloned()
        })
    }

    /// Everything, once the process has ended.
    fn all(&mut self) -> Vec<String> {
        self.listener.take().map(JoinHandle::join);
        std::mem::take(&mut *self.lines.lock().expect("no panics"))
    }
}

/// A running client, which plays until the test is done with it.
pub struct Player {
    child: Child,
    said: Said,
}

impl Player {
    pub fn join(url: &str, name: &str) -> Self {
        let mut child = client(url, name)
            .stderr(Stdio::null())
            .spawn()
            .expect("the client starts");
        let said = Said::listen(child.stdout.take().expect("it is piped"));
        Self { child, said }
    }

    /// Gives the client a command.
    pub fn say(&mut self, command: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{command}").expect("the client listens");
    }

    /// Waits until the client has said a line that contains `part`.
    #[track_caller]
    pub fn wait_for_line(&self, part: &str) -> String {
        self.said.wait_for_line(part)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(url: &str, name: &str) -> Command {
    let mut command = Command::new(example("client"));
    command
        .args(["--name", name, "--server", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Plays as `name`, saying these commands, and returns what the client said to the end.
pub fn play(url: &str, name: &str, commands: &str) -> Output {
    let mut client = client(url, name)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let mut stdin = client.stdin.take().expect("it is piped");
    // A client that can't connect has ended already, and hears nothing.
    let _ = stdin.write_all(commands.as_bytes());
    drop(stdin);
    client.wait_with_output().expect("the client ends")
}

/// Waits until `look` finds something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A player's row, as any tool can read it.
#[derive(Clone, Debug)]
pub struct Row {
    pub player: PlayerId,
    pub version: i64,
    pub fence: i64,
    pub is_locked: bool,
    /// `None` before the first save.
    pub coins: Option<u64>,
}

/// All players in the database of a server that was started in `folder`.
pub fn rows(folder: &Path) -> Vec<Row> {
    let query = "SELECT player_id, version, fence, lock_id, document FROM players ORDER BY player_id";
    select(folder, query, |row| {
        let document: Option<Vec<u8>> = row.get(4)?;
        Ok(Row {
            player: PlayerId::from_bytes(row.get(0)?),
            version: row.get(1)?,
            fence: row.get(2)?,
            is_locked: row.get::<_, [u8; 16]>(3)? != [0; 16],
            coins: document.map(coins_in),
        })
    })
}

/// A receipt's row, as any tool can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    pub purchase: String,
    pub player: PlayerId,
    pub product: String,
    pub state: String,
    pub refund_requested: bool,
    pub note: Option<String>,
}

/// All receipts in that database.
pub fn receipts(folder: &Path) -> Vec<ReceiptRow> {
    if let Some(receipts) = ask(folder, |store| store.all_receipts(None, usize::MAX)) {
        let row = |receipt: bevy_player_data::store::StoredReceipt| ReceiptRow {
            purchase: receipt.purchase.to_string(),
            player: receipt.player.expect("nobody was erased"),
            product: receipt.product.expect("nobody was erased").to_string(),
            state: receipt.state.name().to_owned(),
            refund_requested: receipt.refund_requested,
            note: receipt.note,
        };
        return receipts.into_iter().map(row).collect();
    }
    let query = "SELECT purchase_id, player_id, product_id, state, refund_requested, note FROM receipts
        ORDER BY rowid";
    select(folder, query, |row| {
        Ok(ReceiptRow {
            purchase: row.get(0)?,
            player: PlayerId::from_bytes(row.get(1)?),
            product: row.get(2)?,
            state: row.get(3)?,
            refund_requested: row.get(4)?,
            note: row.get(5)?,
        })
    })
}

/// What a server that is started in `folder` is told to keep its data in: a file there or, if the variable `PLAYER_STORE`
/// says `postgres`, a database of its own.
pub fn database_of(folder: &Path) -> String {
    let note = folder.join("url");
    #[cfg(all(unix, feature = "postgres"))]
    if !note.exists() && std::env::var("PLAYER_STORE").is_ok_and(|store| store == "postgres") {
        std::fs::write(&note, postgres::shared().new_schema()).expect("the folder can be written");
    }
    std::fs::read_to_string(note).unwrap_or_else(|_| "players.db".to_owned())
}

/// The answer of the database of its own that the servers of `folder` have; `None` if what they have is a file.
pub fn ask<T>(
    folder: &Path,
    question: impl FnOnce(&dyn Store) -> BoxFuture<'_, Result<T, StoreError>>,
) -> Option<T> {
    let url = std::fs::read_to_string(folder.join("url")).ok()?;
    let store = connect(&url);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let answer = runtime.expect("a runtime").block_on(question(&*store));
    Some(answer.expect("the database can be read"))
}

#[cfg(all(unix, feature = "postgres"))]
fn connect(url: &str) -> Box<dyn Store> {
    let settings = bevy_player_data::store::PostgresSettings {
        timeout: PATIENCE / 4,
        ..Default::default()
    };
    let connected = bevy_player_data::store::PostgresStore::connect_with(url, settings);
    Box::new(connected.expect("the database can be reached"))
}

#[cfg(not(all(unix, feature = "postgres")))]
fn connect(url: &str) -> Box<dyn Store> {
    unreachable!("nobody has started a server at {url}")
}

/// Copies what the servers of `folder` have in a database of its own into a file, for whoever reads files.
#[cfg(all(unix, feature = "postgres"))]
fn copy_into_a_file(folder: &Path) {
    use bevy_player_data::store::{CopyError, CopySettings, PostgresStore, SqliteStore, copy_store};

    let Ok(url) = std::fs::read_to_string(folder.join("url")) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let from = PostgresStore::connect(&url).expect("the database can be reached");
    let settings = CopySettings {
        despite_live_locks: true,
    };
    loop {
        for file in ["players.db", "players.db-wal", "players.db-shm"] {
            let _ = std::fs::remove_file(folder.join(file));
        }
        let to = SqliteStore::open(folder.join("players.db")).expect("a new file");
        match runtime.block_on(copy_store(&from, &to, settings, |_| {})) {
            Ok(_) => {
                drop(to);
                return copy_locks(folder, &runtime, &from);
            }
            // A server has saved somebody meanwhile.
            Err(CopyError::Differs { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whose locks are held, which is nothing that a copy has.
#[cfg(all(unix, feature = "postgres"))]
fn copy_locks(folder: &Path, runtime: &tokio::runtime::Runtime, from: &dyn bevy_player_data::store::Store) {
    let file = Connection::open(folder.join("players.db")).expect("the copy");
    for player in runtime
        .block_on(from.list(None, usize::MAX))
        .expect("the players")
    {
        let record = runtime.block_on(from.peek(player)).expect("a player");
        if let Some(holder) = record.and_then(|record| record.lock) {
            let lock = "UPDATE players SET lock_id = ?2, server = ?3 WHERE player_id = ?1";
            let ids = (
                player.into_bytes(),
                holder.lock.into_bytes(),
                holder.server.into_bytes(),
            );
            file.execute(lock, ids).expect("a row of the copy");
        }
    }
}

/// The database of a server that was started in `folder`, as any tool can open it.
pub fn database(folder: &Path) -> Connection {
    #[cfg(all(unix, feature = "postgres"))]
    copy_into_a_file(folder);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database =
        Connection::open_with_flags(folder.join("players.db"), flags).expect("there is a database");
    database.busy_timeout(PATIENCE).expect("a timeout can be set");
    database
}

fn select<T>(folder: &Path, query: &str, read: impl FnMut(&SqlRow<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let database = database(folder);
    let mut statement = database.prepare(query).expect("the table has these columns");
    let rows = statement.query_map([], read).expect("the rows can be read");
    rows.collect::<Result<_, _>>().expect("the rows can be read")
}

fn coins_in(document: Vec<u8>) -> u64 {
    let document = Document::decode(&document.into()).expect("a document");
    let Some(bevy_player_data::document::Entry::Value { value, .. }) = document.get("coins") else {
        panic!("everybody has coins");
    };
    value.decode().expect("coins are a number")
}
