//! A server process, as the test sees it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    clock::{Clock, Faked},
    duel::PATIENCE,
    history::Entry,
    server::{BROKEN, DATABASE, MARK, NAME},
};

pub struct Fighter {
    pub name: &'static str,
    pub clock: Option<Clock>,
    child: Child,
    stdin: ChildStdin,
    said: Arc<Mutex<Vec<String>>>,
    /// Where what it has said since the last [`listen_from_here`](Self::listen_from_here) begins.
    from: usize,
}

impl Fighter {
    pub fn start(name: &'static str, database: &Path, broken: Option<&str>, faked: Option<Faked>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "a_server",
                "--ignored",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env(DATABASE, database)
            .env(NAME, name)
            .env_remove(BROKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(broken) = broken {
            command.env(BROKEN, broken);
        }
        let clock = faked.map(|faked| Clock::wind(&mut command, database.parent().unwrap(), name, faked));
        let mut child = command.spawn().unwrap();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let (heard, stdout) = (Arc::clone(&said), child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    heard.lock().unwrap().push(line.trim().to_owned());
                }
            }
        });
        let fighter = Self {
            name,
            clock,
            stdin: child.stdin.take().unwrap(),
            child,
            said,
            from: 0,
        };
        fighter.wait("ready", |fighter| fighter.has_said("ready"));
        fighter
    }

    pub fn tell(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    /// Forgets what it has said so far.
    pub fn listen_from_here(&mut self) {
        self.from = self.said.lock().unwrap().len();
    }

    pub fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(self.from..).unwrap_or_default().to_vec()
    }

    pub fn has_said(&self, what: &str) -> bool {
        self.said().iter().any(|line| line.starts_with(what))
    }

    /// Whether it has heard that somebody else has the player by now.
    pub fn has_lost(&self) -> bool {
        self.has_said("ended LockLost")
    }

    /// The entries whose saves were acknowledged.
    pub fn acked(&self) -> Vec<Entry> {
        let said = self.said();
        let numbers = said
            .iter()
            .filter_map(|line| line.strip_prefix("acked ")?.parse().ok());
        numbers
            .map(|number| Entry {
                server: self.name.to_owned(),
                number,
            })
            .collect()
    }

    /// What its clock shows, in seconds.
    pub fn time(&mut self) -> i64 {
        let before = self.said().len();
        self.tell("clock");
        let mut time = None;
        self.wait("tells the time", |fighter| {
            let said = fighter.said();
            time = said
                .iter()
                .skip(before)
                .find_map(|line| line.strip_prefix("clock ")?.parse().ok());
            time.is_some()
        });
        time.unwrap()
    }

    pub fn stop(&self) {
        self.signal("STOP");
        self.wait("stands still", Self::is_stopped);
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    pub fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // After the name, which is in brackets.
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()
            .unwrap();
        assert!(sent.success(), "{} can be sent SIG{signal}", self.name);
    }

    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl FnMut(&Self) -> bool) {
        assert!(
            self.wait_up_to(PATIENCE, condition),
            "waited in vain until `{}` {what}; it has said {:?}",
            self.name,
            self.said()
        );
    }

    pub fn wait_up_to(&self, patience: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let began = Instant::now();
        while !condition(self) {
            if began.elapsed() > patience {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for Fighter {
    fn drop(&mut self) {
        // Also when it is stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
