//! A server process that is going to be killed.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    process::{PATIENCE, database_of, example},
    provider::SECRET,
};

/// Often, so that players hear of many saves before the end; in seconds.
const AUTOSAVE: &str = "0.1";

/// For how long the next server of a victim's name waits, where nothing proves it dead.
pub const LEASE_TTL: Duration = Duration::from_secs(2);

pub fn is_postgres() -> bool {
    std::env::var("PLAYER_STORE").is_ok_and(|store| store == "postgres")
}

/// A running server with some bots.
pub struct Victim {
    child: Child,
    said: Receiver<String>,
    log: Option<JoinHandle<String>>,
}

/// How one is to end.
#[derive(Clone, Debug)]
pub struct Doom<'a> {
    /// At which step, and at which time that it is reached; at none if it is `None`.
    pub step: Option<(&'a str, u32)>,
    pub sabotage: Option<&'a str>,
}

impl Victim {
    pub fn start(folder: &Path, doom: &Doom<'_>) -> Self {
        let mut command = Command::new(example("server"));
        command
            .args([
                "--db",
                &database_of(folder),
                "--listen",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
            ])
            .args(["--bots", "6", "--webhook-secret", SECRET, "--autosave", AUTOSAVE])
            .env("STEP_LOG", "commit.")
            .env_remove("LEASE_TTL")
            .env_remove("CRASH_AT")
            .env_remove("SABOTAGE")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if is_postgres() {
            command.env("LEASE_TTL", LEASE_TTL.as_secs().to_string());
        }
        if let Some((step, n)) = doom.step {
            command.env("CRASH_AT", format!("{step}:{n}"));
        }
        if let Some(sabotage) = doom.sabotage {
            command.env("SABOTAGE", sabotage);
        }
        let mut child = command.spawn().expect("the server starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, said) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens any more once it is killed.
                let _ = sender.send(line);
            }
        });
        let mut stderr = child.stderr.take().expect("it is piped");
        let log = thread::spawn(move || {
            let mut log = Vec::new();
            let _ = stderr.read_to_end(&mut log);
            String::from_utf8_lossy(&log).into_owned()
        });
        Self {
            child,
            said,
            log: Some(log),
        }
    }

    /// Where it can be reached; `None` if it was dead before it could say so.
    pub fn url(&mut self) -> Option<String> {
        let began = Instant::now();
        loop {
            match self.said.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    if let Some(url) = line.strip_prefix("login at ") {
                        return Some(url.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    assert!(began.elapsed() < PATIENCE, "the server does not start");
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    pub fn is_dead(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    /// Kills it, unless it is dead, and says what it had to say.
    pub fn kill(mut self) -> String {
        // It may have ended in this very moment.
        let _ = self.child.kill();
        self.child.wait().expect("it ends");
        self.log
            .take()
            .and_then(|log| log.join().ok())
            .unwrap_or_default()
    }

    /// Asks it to save everybody and end.
    pub fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("`kill` starts");
        assert!(asked.success(), "the server can be signalled");
        let began = Instant::now();
        while !self.is_dead() {
            assert!(began.elapsed() < PATIENCE, "the server does not end");
            thread::sleep(Duration::from_millis(10));
        }
        self.kill()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
