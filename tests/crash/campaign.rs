//! Hundreds of kills, several servers at a time, and what was found.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    env::number,
    process::{PATIENCE, database, database_of, example, receipts, run},
    provider::Provider,
    victim::{Doom, LEASE_TTL, Victim, is_postgres},
    witness::{Promises, Witness},
};

/// How many servers, each with a file of its own, are killed side by side.
const LANES: u32 = 4;
/// How long a server may take to reach the step that it is to die at; then it is killed wherever it is.
const LIFE: Duration = Duration::from_secs(6);
/// The pause between two callbacks.
const BREATH: Duration = Duration::from_millis(20);
/// The name of the place where those die that are killed wherever they are.
const RANDOM: &str = "random";
/// How often a step is reached before the end, at most.
const MOST_TIMES: u32 = 30;

/// Something that must not be.
pub type Found = String;

/// A plan of kills.
#[derive(Clone)]
pub struct Campaign {
    steps: &'static [&'static str],
    sabotage: Option<&'static str>,
    stops_when_found: bool,
}

/// What came of it.
#[derive(Default)]
pub struct Report {
    /// How many servers died at each step; `random` for those that were killed wherever they were.
    pub kills: BTreeMap<String, u32>,
    steps: Vec<&'static str>,
    pub delivered: u64,
    pub repeated: u64,
    pub paid: usize,
    pub granted: usize,
    pub refunded: usize,
    pub lost: usize,
    pub relics: u64,
    /// All purchases that the file says were granted, those of the bots included.
    pub all_granted: u64,
    pub audits: u32,
    /// How many of the servers that died at no step died while SQLite was at a `COMMIT`.
    pub random_in_mid_commit: u32,
    /// How often everything that was promised was looked for.
    pub looks: u32,
    pub promises: Promises,
    pub findings: Vec<Found>,
    pub took: Duration,
}

impl Campaign {
    pub fn new(steps: &'static [&'static str]) -> Self {
        Self {
            steps,
            sabotage: None,
            stops_when_found: false,
        }
    }

    pub fn sabotaged(self, sabotage: &'static str) -> Self {
        Self {
            sabotage: Some(sabotage),
            ..self
        }
    }

    /// Kills so many servers.
    pub fn run(&self, kills: u32) -> Report {
        assert_it_can_crash();
        let began = Instant::now();
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let campaign = self.clone();
                let kills = kills / LANES + u32::from(lane < kills % LANES);
                thread::spawn(move || campaign.run_lane(lane, kills))
            })
            .collect();
        let mut total = Report {
            steps: self.steps.to_vec(),
            ..Report::default()
        };
        for lane in lanes {
            total.add(lane.join().expect("a lane does not panic"));
        }
        total.took = began.elapsed();
        total
    }

    /// Kills servers until something is found, but not more than so many.
    pub fn run_until_found(&self, kills: u32) -> Report {
        Self {
            stops_when_found: true,
            ..self.clone()
        }
        .run(kills)
    }

    fn run_lane(&self, lane: u32, kills: u32) -> Report {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let seed = seed().wrapping_mul(1000) + u64::from(lane);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut provider = Provider::new(lane, seed);
        let mut witness = Witness::new(format!("witness-{lane}"));
        let mut report = Report::default();
        for n in 0..kills {
            // Every third dies at a random time, the others at each step in turn.
            let at_a_step = !self.steps.is_empty() && (n % 3 != 2 || self.sabotage.is_some());
            let step = at_a_step.then(|| {
                let turn = (n - n / 3) as usize * LANES as usize + lane as usize;
                let times = if random.bool() {
                    random.u32(1..=3)
                } else {
                    random.u32(1..=MOST_TIMES)
                };
                (self.steps[turn % self.steps.len()], times)
            });
            let doom = Doom {
                step,
                sabotage: self.sabotage,
            };
            let death = kill_one(folder.path(), &doom, &mut provider, &mut witness, &mut random);
            report.random_in_mid_commit += u32::from(death.step == RANDOM && death.in_mid_commit);
            *report.kills.entry(death.step).or_default() += 1;
            report.look(folder.path(), &provider, &mut witness);
            report.promises = witness.promises;
            if self.stops_when_found && !report.findings.is_empty() {
                return report;
            }
        }
        if self.sabotage.is_none() {
            settle(
                folder.path(),
                &mut provider,
                &mut witness,
                &mut random,
                &mut report,
            );
            report.look(folder.path(), &provider, &mut witness);
        }
        report.promises = witness.promises;
        report
    }
}

/// What the plan of the kills follows from. Where exactly a server is by then is the operating system's own chance.
fn seed() -> u64 {
    number("CRASH_SEED").unwrap_or_default()
}

/// A server that was built without the feature would live on at every step, and prove nothing.
fn assert_it_can_crash() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let probe = Command::new(example("server"))
        .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--for", "0.1"])
        .env("CRASH_AT", "no step:0")
        .current_dir(folder.path())
        .output()
        .expect("the server starts");
    assert!(
        !probe.status.success(),
        "the server knows no steps: run `cargo build --features step-points --example server` first"
    );
}

/// How long it takes until a server can do anything after another one of its name was killed.
fn waits_for_its_name() -> Duration {
    if is_postgres() { LEASE_TTL } else { Duration::ZERO }
}

/// How a server died.
struct Death {
    step: String,
    /// Whether it had begun a `COMMIT` and not ended it.
    in_mid_commit: bool,
}

/// Lets one server live until it dies.
fn kill_one(
    folder: &Path,
    doom: &Doom<'_>,
    provider: &mut Provider,
    witness: &mut Witness,
    random: &mut fastrand::Rng,
) -> Death {
    let alone = match doom.step {
        Some(_) => LIFE,
        None => Duration::from_millis(random.u64(300..2500)),
    };
    let life = alone + waits_for_its_name();
    let mut victim = Victim::start(folder, doom);
    if let Some(url) = victim.url() {
        let began = Instant::now();
        while began.elapsed() < life && !victim.is_dead() {
            provider.call(&url);
            witness.live(&url, provider, random);
            thread::sleep(BREATH);
        }
    }
    let log = victim.kill();
    witness.mourn();
    assert!(!log.contains("panicked"), "a server panicked:\n{log}");
    let died_at = log.lines().find_map(|line| line.strip_prefix("crashing at "));
    let last = log.lines().rev().find_map(|line| line.strip_prefix("at commit."));
    Death {
        step: died_at.unwrap_or(RANDOM).to_owned(),
        in_mid_commit: last == Some("before"),
    }
}

/// Lets the last server live until everything that was paid for is settled, and looks whether it is all there.
fn settle(
    folder: &Path,
    provider: &mut Provider,
    witness: &mut Witness,
    random: &mut fastrand::Rng,
    report: &mut Report,
) {
    let doom = Doom {
        step: None,
        sabotage: None,
    };
    let mut victim = Victim::start(folder, &doom);
    let url = victim.url().expect("nobody kills it");
    let began = Instant::now();
    witness.buy_no_more();
    loop {
        // What it has paid for is granted while it is there.
        witness.live(&url, provider, random);
        let all_is_said = provider.catch_up(&url);
        let stored = receipts(folder);
        let is_open = |purchase: &str| {
            stored.iter().all(|row| {
                row.purchase != purchase
                    || row.state == "pending"
                    || (row.state == "granted" && row.refund_requested)
            })
        };
        if all_is_said && !provider.purchases.iter().any(|purchase| is_open(&purchase.id)) {
            break;
        }
        if began.elapsed() > PATIENCE {
            report.findings.push("some receipts are never settled".to_owned());
            break;
        }
        thread::sleep(BREATH);
    }
    let log = victim.stop();
    witness.mourn();
    assert!(!log.contains("panicked"), "the last server panicked:\n{log}");

    let stored: BTreeMap<String, String> = receipts(folder)
        .into_iter()
        .map(|row| (row.purchase, row.state))
        .collect();
    report.delivered = provider.delivered;
    report.repeated = provider.repeated;
    for purchase in &provider.purchases {
        report.paid += 1;
        let expected = if purchase.wants_refund {
            "refunded"
        } else {
            "granted"
        };
        match stored.get(&purchase.id).map(String::as_str) {
            Some("granted") => report.granted += 1,
            Some("refunded") => report.refunded += 1,
            _ => report.lost += 1,
        }
        if stored.get(&purchase.id).map(String::as_str) != Some(expected) {
            let state = stored.get(&purchase.id);
            report
                .findings
                .push(format!("{purchase:?} is {state:?}, and not {expected}"));
        }
    }
}

impl Report {
    /// Looks whether the file is sound, has everything that anybody was promised, and balances.
    fn look(&mut self, folder: &Path, provider: &Provider, witness: &mut Witness) {
        if !is_postgres() {
            // A server that died in its first moments has left nothing to look at, or not all of its tables.
            if !folder.join("players.db").exists() {
                return;
            }
            let intact: String = database(folder)
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .expect("it can be checked");
            if intact != "ok" {
                self.findings.push(format!("the file is damaged: {intact}"));
            }
        }
        self.looks += 1;
        self.audit(folder);
        self.findings.extend(witness.missing(folder));
        self.findings.extend(provider.missing(&receipts(folder)));
    }

    /// Has the books checked by the example's own auditor.
    fn audit(&mut self, folder: &Path) {
        let audit = run(
            &example("server"),
            &["--db", &database_of(folder), "--audit"],
            folder,
        );
        let said = String::from_utf8_lossy(&audit.stdout).into_owned();
        if !audit.status.success() {
            let log = String::from_utf8_lossy(&audit.stderr);
            self.findings.push(format!("{said}{log}"));
            return;
        }
        self.audits += 1;
        let numbers: Vec<u64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if let [relics, granted] = numbers[..] {
            (self.relics, self.all_granted) = (relics, granted);
        }
    }

    fn add(&mut self, lane: Self) {
        for (step, kills) in lane.kills {
            *self.kills.entry(step).or_default() += kills;
        }
        self.delivered += lane.delivered;
        self.repeated += lane.repeated;
        self.paid += lane.paid;
        self.granted += lane.granted;
        self.refunded += lane.refunded;
        self.lost += lane.lost;
        self.relics += lane.relics;
        self.all_granted += lane.all_granted;
        self.audits += lane.audits;
        self.random_in_mid_commit += lane.random_in_mid_commit;
        self.looks += lane.looks;
        self.promises += lane.promises;
        self.findings.extend(lane.findings);
    }

    /// A run in which nobody was promised anything has proved nothing about promises.
    #[track_caller]
    pub fn assert_promises_were_made(&self) {
        let Promises {
            visits,
            grants,
            saves,
            progress,
        } = self.promises;
        for promises in [visits, grants, saves, progress] {
            assert!(
                promises > 0,
                "there is a kind of promise that was never made: {self}"
            );
        }
    }

    /// A run in which no server died at some step has proved nothing about it.
    #[track_caller]
    pub fn assert_every_step_was_met(&self) {
        for step in self.steps.iter().copied().chain([RANDOM]) {
            assert!(self.kills.contains_key(step), "nobody died at `{step}`: {self}");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills: u32 = self.kills.values().sum();
        writeln!(f, "{kills} kills in {:.0?}: {:?}", self.took, self.kills)?;
        writeln!(
            f,
            "{} deliveries ({} of them repetitions) of {} purchases: {} granted, {} refunded, {} lost",
            self.delivered, self.repeated, self.paid, self.granted, self.refunded, self.lost
        )?;
        writeln!(
            f,
            "{} clean audits; in the end {} relics, each once, and {} purchases granted, each once (bots' included)",
            self.audits, self.relics, self.all_granted
        )?;
        let Promises {
            visits,
            grants,
            saves,
            progress,
        } = self.promises;
        writeln!(
            f,
            "a player outside came {visits} times over UDP and was told of {grants} grants and {saves} saves, {progress} times of \
             something new; all of it was looked for after each kill, {} times{}",
            self.looks,
            if is_postgres() {
                ""
            } else {
                ", in a file that SQLite found sound"
            }
        )?;
        writeln!(
            f,
            "of the random kills, {} landed between the beginning and the end of a COMMIT",
            self.random_in_mid_commit
        )?;
        let again = if is_postgres() {
            "PLAYER_STORE=postgres cargo test --features step-points,postgres --test crash -- --nocapture --test-threads 1"
        } else {
            "cargo test --features step-points --test crash -- --nocapture --test-threads 1"
        };
        writeln!(f, "again: CRASH_SEED={} CRASH_KILLS={kills} {again}", seed())?;
        write!(f, "doubled, lost or torn: {}", self.findings.len())?;
        self.findings
            .iter()
            .take(5)
            .try_for_each(|found| write!(f, "\n  {found}"))
    }
}
