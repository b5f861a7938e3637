//! Two servers on one file, and one player after the other whom both want.

use std::{path::PathBuf, thread, time::Duration};

use super::{
    clock::Faked,
    env::number,
    fighter::Fighter,
    history::{self, Entry, History},
    report::Report,
    server::TTL,
};

/// How long anything may take. Far longer than it does, so that a busy machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long it is waited for what need not happen.
pub const HOPE: Duration = TTL.saturating_mul(5);
/// How many pairs fight side by side, each on a file of its own.
const LANES: u32 = 4;

/// One pair of servers.
pub struct Duel {
    pub holder: Fighter,
    pub rival: Fighter,
    pub history: History,
    pub random: fastrand::Rng,
    pub report: Report,
    pub is_judged_by_beats: bool,
    /// Where in the history everybody went on after they had all stood still.
    pub thawed: Option<i64>,
    player: String,
    begin: i64,
    _folder: tempfile::TempDir,
}

/// Runs so many faults, `round` by `round`, on some pairs. A control ends with the first thing that is found.
pub fn campaign(
    runs: u32,
    faked: Option<Faked>,
    broken: Option<&'static str>,
    round: fn(&mut Duel, u32),
) -> Report {
    let seed = number("PAUSE_SEED").unwrap_or(1);
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            thread::spawn(move || {
                let mut duel = Duel::start(seed, lane, faked, broken);
                let mut n = lane;
                while n < runs && (broken.is_none() || duel.report.found.is_empty()) {
                    duel.begin(lane, n);
                    round(&mut duel, n);
                    duel.end();
                    n += LANES;
                }
                duel.report
            })
        })
        .collect();
    let mut report = Report::new(seed);
    for lane in lanes {
        report.add(lane.join().expect("a lane does not panic"));
    }
    report
}

impl Duel {
    fn start(seed: u64, lane: u32, faked: Option<Faked>, broken: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database: PathBuf = folder.path().join("players.db");
        history::begin(&database);
        Self {
            holder: Fighter::start("a", &database, broken, faked),
            rival: Fighter::start("b", &database, broken, faked),
            history: History::of(&database),
            random: fastrand::Rng::with_seed(seed.wrapping_mul(1000) + u64::from(lane)),
            report: Report::new(seed),
            thawed: None,
            is_judged_by_beats: faked != Some(Faked::Monotonic),
            player: String::new(),
            begin: 0,
            _folder: folder,
        }
    }

    /// Gives somebody new to one of the two, and lets the other one wait for them.
    fn begin(&mut self, lane: u32, n: u32) {
        if self.random.bool() {
            std::mem::swap(&mut self.holder, &mut self.rival);
        }
        self.player = format!("lane {lane} player {n}");
        self.begin = self.history.end();
        self.thawed = None;
        self.holder.listen_from_here();
        self.rival.listen_from_here();
        self.holder.tell(&format!("join {}", self.player));
        self.holder.wait("has saved", |holder| holder.acked().len() >= 2);
        self.rival.tell(&format!("join {}", self.player));
    }

    pub fn count(&mut self, group: &'static str, what: &str) {
        self.report.tally.count(group, what);
    }

    /// Lets the holder go on until it has saved, or has heard that it has lost the player. `true` if it still has them.
    pub fn holder_saves(&mut self) -> bool {
        let before = self.holder.acked().len();
        self.holder.wait("saves or has lost the player", |holder| {
            holder.acked().len() >= before + 2 || holder.has_lost()
        });
        !self.holder.has_lost()
    }

    /// Gives the player to the rival in order, and lets it save.
    pub fn hand_over(&mut self) {
        self.holder.tell("leave");
        self.holder.wait("has let the player go", |holder| {
            holder.has_said("left") || holder.has_lost()
        });
        if self.holder.has_said("left") {
            self.count("outcome", "handed over in order");
        }
        self.rival_saves();
    }

    pub fn rival_saves(&mut self) {
        let before = self.rival.acked().len();
        self.rival.wait("has the player and saves", |rival| {
            rival.acked().len() >= before + 3 || rival.has_lost()
        });
    }

    /// Lets everybody go, and judges.
    fn end(&mut self) {
        self.rival.tell("leave");
        self.rival.wait("has let the player go", |rival| {
            rival.has_said("left") || rival.has_lost() || rival.has_said("refused")
        });
        // A server that has lost the player has nobody to let go.
        self.holder.tell("leave");
        let acked: Vec<Entry> = [self.holder.acked(), self.rival.acked()].concat();
        let refused = [&self.holder, &self.rival].map(|server| {
            let said = server.said();
            said.iter().filter(|line| line.starts_with("refused")).count()
        });
        let judged = self.history.judge(&self.player, self.begin, self.thawed, &acked);
        self.report.runs += 1;
        let tally = &mut self.report.tally;
        tally.add(
            "outcome",
            "a late write was refused",
            refused.iter().sum::<usize>() as u64,
        );
        let lost = [&self.holder, &self.rival].map(|server| u64::from(server.has_lost()));
        tally.add("outcome", "a session ended with LockLost", lost.iter().sum());
        tally.add("history", "saves acknowledged", acked.len() as u64);
        tally.add("history", "commits", judged.commits);
        tally.add("history", "takeovers", judged.takeovers);
        tally.add("history", "beats", judged.beats);
        let found = judged.found.into_iter();
        let counts = |found: &String| self.is_judged_by_beats || !found.contains("that beats");
        let player = &self.player;
        self.report
            .found
            .extend(found.filter(counts).map(|found| format!("{player}: {found}")));
        if !self.history.is_intact() {
            self.report.found.push(format!("{player}: the file is damaged"));
        }
    }
}
