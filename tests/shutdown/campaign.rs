//! Many runs, several at a time, and what was found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use bevy_player_data::PlayerId;

use super::{
    books::{self, Books, Row},
    moods::Mood,
    server::{DATABASE, EXIT_DEADLINE, GENERATION, MARK, MOOD, PLAYERS, SABOTAGE, Sabotage, player},
    tally::Tally,
};

/// How many servers, each with a file of its own, are ended side by side.
const LANES: u64 = 3;
/// How long anything may take. Far longer than it does, so that a busy machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// By how much an exit may be later than its deadline on a busy machine.
const MARGIN: Duration = Duration::from_secs(20);

/// How a server is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Term,
    /// A second signal must not interrupt the flush.
    TermAndInt,
    IntTwice,
    /// After so long nobody waits any more.
    TermAndKill(Duration),
}

/// What happens in a run.
struct Run {
    /// What everybody has at its end, if they are saved.
    generation: u64,
    mood: Mood,
    end: End,
    story: String,
}

pub struct Campaign {
    pub runs: u64,
    pub seed: u64,
    pub sabotage: Option<Sabotage>,
}

#[derive(Default)]
pub struct Report {
    pub tally: Tally,
    pub found: Vec<String>,
    took: Duration,
}

impl Campaign {
    pub fn run(&self) -> Report {
        let began = Instant::now();
        let mut total = Report::default();
        for (group, names) in EXPECTED {
            for name in names {
                total.tally.add(group, *name, 0);
            }
        }
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES)
                .map(|lane| scope.spawn(move || self.run_lane(lane)))
                .collect();
            for lane in lanes {
                let report = lane.join().expect("a lane does not panic");
                total.tally.merge(report.tally);
                total.found.extend(report.found);
            }
        });
        total.took = began.elapsed();
        total
    }

    fn run_lane(&self, lane: u64) -> Report {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let database = folder.path().join("players.db");
        let mut random = fastrand::Rng::with_seed(self.seed ^ (lane << 32));
        let mut report = Report::default();
        let mut before = Books::new();
        for run in (lane..self.runs).step_by(LANES as usize) {
            // Without a flush it is the drop of the store that waits for the lock, and that for good.
            let moods = if self.sabotage.is_none() { 5 } else { 4 };
            let mood = match run % moods {
                0 => Mood::Slow,
                1 => Mood::Hanging,
                2 => Mood::DiesAfter(random.usize(1..PLAYERS)),
                3 => Mood::TooSlow,
                _ => Mood::Locked,
            };
            let end = match random.u8(..4) {
                0 => End::Term,
                1 => End::TermAndInt,
                2 => End::IntTwice,
                _ => End::TermAndKill(EXIT_DEADLINE.mul_f64(random.f64() * 1.2)),
            };
            let run = Run {
                generation: run + 1,
                mood,
                end,
                story: format!("run {run}, seed {}: a store that is {mood}, {end:?}", self.seed),
            };
            before = self.end_one(&database, &run, &before, &mut report);
        }
        report
    }

    /// Lets one server live and end; compares the file with what was in it before, and returns what is in it now.
    fn end_one(&self, database: &Path, run: &Run, before: &Books, report: &mut Report) -> Books {
        let &Run {
            generation,
            mood,
            end,
            ref story,
        } = run;
        let mut found = |what: String| report.found.push(format!("{story}: {what}"));
        let mut server = Server::start(database, generation, mood, self.sabotage);
        let said = server.until_ready();
        for line in said
            .iter()
            .filter(|line| line.starts_with("torn") || line.starts_with("failed"))
        {
            found(line.clone());
        }
        for (player, generation) in said.iter().filter_map(|line| had(line)) {
            if before.get(&player).map_or(0, |row| row.generation) != generation {
                found(format!(
                    "{player} was loaded with generation {generation}, and the file has {:?}",
                    before.get(&player)
                ));
            }
        }
        let lock = (mood == Mood::Locked).then(|| books::keep_locked(database));
        let ended = server.end(end);
        drop(lock);
        if ended.took > EXIT_DEADLINE + MARGIN {
            found(format!("the exit took {:?}", ended.took));
        }
        let after = books::read(database);
        let mut unsaved = BTreeSet::new();
        for n in 0..PLAYERS {
            let player = player(n);
            let previous = before.get(&player).map_or(0, |row| row.generation);
            match after.get(&player) {
                Some(Row {
                    generation: now,
                    is_locked: false,
                    is_whole: true,
                }) if *now == generation => {}
                Some(Row {
                    generation: now,
                    is_locked: true,
                    is_whole: true,
                }) if *now == previous => {
                    unsaved.insert(player);
                }
                row => found(format!("{player} had generation {previous}, and is {row:?}")),
            }
        }
        let arrived = after
            .iter()
            .filter(|(id, _)| !(0..PLAYERS).any(|n| player(n) == **id));
        for (player, row) in arrived.filter(|(_, row)| row.is_locked) {
            // Only a server that had no time to do so leaves the lock of somebody who was on their way in.
            if ended.code == Some(0) {
                found(format!("{player} was on their way in, and is {row:?}"));
            }
        }
        let tally = &mut report.tally;
        tally.count("store", mood.to_string().split(' ').next().unwrap_or_default());
        tally.count("end", end.name());
        tally.add("players", "saved and released", (PLAYERS - unsaved.len()) as u64);
        tally.add(
            "players",
            "locked with the previous version",
            unsaved.len() as u64,
        );
        tally.count(
            "runs",
            match (unsaved.len(), ended.code) {
                (_, None) => "killed",
                (0, _) => "all saved",
                (PLAYERS, _) => "nobody saved",
                _ => "some saved",
            },
        );
        let mut found = |what: String| report.found.push(format!("{story}: {what}"));
        if let Some(code) = ended.code {
            for player in unsaved.difference(&ended.unsaved) {
                found(format!("{player} was not saved, and nobody said so"));
            }
            if (code == 0) != ended.unsaved.is_empty() {
                found(format!(
                    "the exit code is {code}, and {} were not saved",
                    ended.unsaved.len()
                ));
            }
        }
        after
    }
}

const EXPECTED: [(&str, &[&str]); 4] = [
    ("store", &["slow", "hanging", "dies", "too-slow", "locked"]),
    (
        "end",
        &["SIGTERM", "SIGTERM, SIGINT", "SIGINT twice", "SIGTERM, SIGKILL"],
    ),
    (
        "players",
        &["saved and released", "locked with the previous version"],
    ),
    ("runs", &["killed", "all saved", "nobody saved", "some saved"]),
];

impl End {
    const fn name(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::TermAndInt => "SIGTERM, SIGINT",
            Self::IntTwice => "SIGINT twice",
            Self::TermAndKill(_) => "SIGTERM, SIGKILL",
        }
    }
}

fn had(line: &str) -> Option<(PlayerId, u64)> {
    let (player, generation) = line.strip_prefix("had ")?.split_once(' ')?;
    Some((player.parse().ok()?, generation.parse().ok()?))
}

struct Server {
    child: Child,
    said: Receiver<String>,
}

struct Ended {
    /// `None` if it was killed.
    code: Option<i32>,
    unsaved: BTreeSet<PlayerId>,
    took: Duration,
}

impl Server {
    fn start(database: &Path, generation: u64, mood: Mood, sabotage: Option<Sabotage>) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the path of the test"))
            .args([
                "--exact",
                "a_server",
                "--ignored",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env(DATABASE, database)
            .env(GENERATION, generation.to_string())
            .env(MOOD, mood.to_string())
            .env(SABOTAGE, sabotage.map_or("", Sabotage::name))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (say, said) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    // Nobody may want to hear it any more.
                    let _ = say.send(line.trim().to_owned());
                }
            }
        });
        Self { child, said }
    }

    fn until_ready(&self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let line = self.said.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it never got ready; it has said {said:?}"));
            if line == "ready" {
                return said;
            }
            said.push(line);
        }
    }

    fn signal(&self, signal: &str) {
        // It may have ended already.
        let _ = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .stderr(Stdio::null())
            .status();
    }

    fn end(&mut self, end: End) -> Ended {
        let began = Instant::now();
        self.signal(if end == End::IntTwice { "INT" } else { "TERM" });
        match end {
            End::Term => {}
            End::TermAndInt | End::IntTwice => {
                thread::sleep(Duration::from_millis(50));
                self.signal("INT");
            }
            End::TermAndKill(after) => {
                thread::sleep(after);
                self.signal("KILL");
            }
        }
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            if began.elapsed() > PATIENCE {
                // Its exit took far too long already, which is found.
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(5));
        };
        let took = began.elapsed();
        let mut unsaved = BTreeSet::new();
        while let Ok(line) = self.said.recv_timeout(PATIENCE) {
            if let Some(player) = line
                .strip_prefix("unsaved ")
                .and_then(|player| player.parse().ok())
            {
                unsaved.insert(player);
            }
        }
        Ended {
            code: status.code(),
            unsaved,
            took,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Report {
    #[track_caller]
    pub fn assert_found(&self, what: &str) {
        assert!(
            self.found.iter().any(|found| found.contains(what)),
            "`{what}` was not found out: {self}"
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}in {:.0?}; what must not be: {}",
            self.tally,
            self.took,
            self.found.len()
        )?;
        let mut kinds = BTreeMap::<&str, u32>::new();
        for found in &self.found {
            let story = found.split(": ").next().unwrap_or_default();
            let told = kinds.entry(story).or_default();
            *told += 1;
            if *told <= 2 {
                writeln!(f, "  {found}")?;
            }
        }
        Ok(())
    }
}
