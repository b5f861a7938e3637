//! A PostgreSQL server of the test's own: in a temporary folder, on a free port of the loopback interface, stopped with
//! the test, however that ends.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    env, fs,
    io::Write,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Waits for the end of its input, which is that of whoever started it, and takes the server with it.
const KEEPER: &str = r#"
    folder=$1; shift
    trap '' INT TERM HUP
    "$@" & server=$!
    read -r _
    kill -QUIT "$server" 2>/dev/null
    wait "$server"
    [ -n "$folder" ] && rm -rf "$folder"
    exit 0
"#;

/// How long a server may take to start, to stop or to be promoted.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of PostgreSQL's programs.
pub(crate) fn programs() -> &'static Path {
    static FOUND: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let mut candidates: Vec<PathBuf> = env::var_os("POSTGRES_BIN")
            .into_iter()
            .map(PathBuf::from)
            .collect();
        if let Ok(folders) = fs::read_dir("/usr/lib/postgresql") {
            let mut versions: Vec<_> = folders.filter_map(|folder| Some(folder.ok()?.path())).collect();
            let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
            versions.sort_by_key(number);
            candidates.extend(versions.into_iter().rev().map(|version| version.join("bin")));
        }
        candidates.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        candidates
            .into_iter()
            .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
    });
    FOUND.as_deref().unwrap_or_else(|| {
        panic!(
            "this test needs PostgreSQL's programs (`initdb`, `postgres`): install the package `postgresql`, or name \
             their folder in `POSTGRES_BIN`"
        )
    })
}

/// The unprivileged user that PostgreSQL runs as when we are root: it refuses to be root.
fn unprivileged() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    root.then(|| {
        user("postgres")
            .or_else(|| user("nobody"))
            .expect("a user that is not root")
    })
}

fn program(name: &str) -> Command {
    let mut command = Command::new(programs().join(name));
    as_nobody_special(&mut command);
    command
}

fn as_nobody_special(command: &mut Command) {
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
        .current_dir("/")
        .env_remove("LC_ALL")
        .env("LC_MESSAGES", "C");
}

/// A data folder, which may or may not be served.
pub(crate) struct Cluster {
    folder: PathBuf,
    pub(crate) port: u16,
    keeper: Option<Child>,
    removes_itself: bool,
}

impl Cluster {
    /// A new cluster that is being served, with these further settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let mut cluster = Self::create();
        cluster.serve(settings);
        cluster
    }

    /// A new cluster that is not served yet.
    pub(crate) fn create() -> Self {
        let cluster = Self::reserve();
        let initialised = program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--no-locale",
                "-D",
            ])
            .arg(cluster.data())
            .output();
        expect(initialised, "initdb");
        cluster
    }

    /// A standby of another one, which is reached by this port. It has to be served, itself on `own_port` if that is
    /// given.
    pub(crate) fn standby_of(port: u16, name: &str, own_port: Option<u16>) -> Self {
        let mut standby = Self::reserve();
        standby.port = own_port.unwrap_or(standby.port);
        let connection = format!("host=127.0.0.1 port={port} user=postgres application_name={name}");
        let copied = program("pg_basebackup")
            .args([
                "--no-sync",
                "--checkpoint=fast",
                "--wal-method=stream",
                "--write-recovery-conf",
            ])
            .arg(format!("--dbname={connection}"))
            .arg("-D")
            .arg(standby.data())
            .output();
        expect(copied, "pg_basebackup");
        standby
    }

    fn reserve() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("player-data-postgres-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        if let Some((user, group)) = unprivileged() {
            chown(&folder, Some(user), Some(group)).expect("root may give files away");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        Self {
            folder,
            port: port.expect("a free port").port(),
            keeper: None,
            removes_itself: false,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Serves the folder and waits until it takes connections.
    pub(crate) fn serve(&mut self, settings: &[&str]) {
        self.serve_unseen(settings);
        self.wait_until("it takes connections", || self.ask("SELECT 1").is_some());
    }

    /// Serves the folder and waits for nothing.
    pub(crate) fn serve_unseen(&mut self, settings: &[&str]) {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.join("log"))
            .expect("a log file");
        let mut keeper = Command::new("/bin/sh");
        as_nobody_special(&mut keeper);
        keeper.args(["-c", KEEPER, "keeper"]);
        keeper.arg(if self.removes_itself {
            self.folder.as_os_str()
        } else {
            "".as_ref()
        });
        keeper.arg(programs().join("postgres")).arg("-D").arg(self.data());
        keeper.args(["-c", &format!("port={}", self.port)]);
        let sockets = format!("unix_socket_directories={}", self.folder.display());
        for setting in [
            "listen_addresses=127.0.0.1",
            &sockets,
            "max_connections=300",
            "shared_buffers=32MB",
            "max_wal_senders=8",
            "wal_keep_size=256MB",
            "max_wal_size=512MB",
            "autovacuum_naptime=10s",
            "logging_collector=off",
        ]
        .iter()
        .chain(settings)
        {
            keeper.args(["-c", setting]);
        }
        let started = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.keeper = Some(started.expect("a shell"));
    }

    /// What a statement returns, as text; `None` when it fails.
    pub(crate) fn ask(&self, statement: &str) -> Option<String> {
        self.ask_database("postgres", statement)
    }

    pub(crate) fn ask_database(&self, database: &str, statement: &str) -> Option<String> {
        let output = program("psql")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-d",
                database,
            ])
            .args(["-p", &self.port.to_string(), "-c", statement])
            .env("PGCONNECT_TIMEOUT", "5")
            // Whatever a test has set for the role.
            .env("PGOPTIONS", "-c statement_timeout=0")
            .output()
            .expect("psql");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// What a statement returns, which has to succeed.
    pub(crate) fn tell(&self, statement: &str) -> String {
        self.ask(statement)
            .unwrap_or_else(|| panic!("`{statement}` failed; the server's log:\n{}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The URL of a new, empty schema.
    pub(crate) fn new_schema(&self) -> String {
        static SCHEMAS: AtomicU32 = AtomicU32::new(0);
        let schema = format!("test_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        self.tell(&format!("CREATE SCHEMA {schema}"));
        self.url(&schema)
    }

    /// The URL of a schema.
    pub(crate) fn url(&self, schema: &str) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/postgres?options=-csearch_path%3D{schema}",
            self.port
        )
    }

    /// The main process.
    pub(crate) fn pid(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Sends a signal to the main process, and to each of its children.
    pub(crate) fn signal_all(&self, signal: &str) {
        let Some(server) = self.pid() else { return };
        let mut pids = vec![server.to_string()];
        pids.extend(children(server).iter().map(u32::to_string));
        kill(signal, &pids);
    }

    /// `kill -9`, of the main process and of each of its children, so that nothing of it runs on.
    pub(crate) fn kill(&mut self) {
        self.signal_all("KILL");
        self.stop();
        // What a machine that lost power would not have either.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
    }

    /// Stops it at once.
    pub(crate) fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            // A stopped process takes no signal but this one.
            if let Some(server) = self.pid() {
                kill("CONT", &[server.to_string()]);
            }
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Takes back what `ALTER SYSTEM` has set, also on a standby.
    pub(crate) fn forget_settings(&self) {
        fs::write(self.data().join("postgresql.auto.conf"), "").expect("the folder can be written");
        self.tell("SELECT pg_reload_conf()");
    }

    /// Makes a standby take writes.
    pub(crate) fn promote(&self) {
        self.tell("SELECT pg_promote(true, 60)");
    }

    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(
                start.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}; the server's log:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts a file into the folder, which only the server may read.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        use std::os::unix::fs::PermissionsExt;

        let path = self.data().join(name);
        fs::write(&path, bytes).expect("the folder can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        if let Some((user, group)) = unprivileged() {
            chown(&path, Some(user), Some(group)).expect("root may give files away");
        }
    }

    /// Appends lines to a configuration file of the folder.
    pub(crate) fn configure(&self, file: &str, lines: &str) {
        let mut file = fs::File::options()
            .append(true)
            .open(self.data().join(file))
            .expect("the file is there");
        writeln!(file, "{lines}").expect("it can be written");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One cluster for all tests of a process, in which each has a schema of its own.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
        let mut cluster = Cluster::create();
        // Nobody drops a static: its keeper does that.
        cluster.removes_itself = true;
        cluster.serve(&["fsync=off", "max_connections=500"]);
        cluster
    });
    &SHARED
}

fn children(parent: u32) -> Vec<u32> {
    let listed = Command::new("ps")
        .args(["-o", "pid=", "--ppid", &parent.to_string()])
        .output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn kill(signal: &str, pids: &[String]) {
    // Who is gone already can't be told anything.
    let _ = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(pids)
        .stderr(Stdio::null())
        .status();
}

fn expect(output: std::io::Result<Output>, what: &str) {
    let output = output.unwrap_or_else(|error| panic!("{what} could not be started: {error}"));
    assert!(
        output.status.success(),
        "{what} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
