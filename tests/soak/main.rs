//! A long time: hundreds of bots over UDP join, leave, buy, have things refunded, trade, and hop all the time between two
//! servers that share one file, every other time without leaving the first.
//!
//! Each bot compares what it finds with what it left, wherever that was. Meanwhile the servers' memory, threads and
//! open files are measured (`meter`); when the bots are gone, no lock, no thread and no open file of theirs may be
//! left.
//!
//! It needs Linux and the example server with the feature `step-points`, which Cargo does not build for a single test:
//!
//! ```console
//! $ cargo build --release --features step-points --example server
//! $ SOAK_BOTS=500 SOAK_SECONDS=600 cargo test --release --features step-points --test soak -- --nocapture
//! ```
//!
//! `SOAK_BOTS` (default: 20) and `SOAK_SECONDS` (default: 10) set how many and how long.

#![cfg(all(
    target_os = "linux",
    feature = "sqlite",
    feature = "client",
    feature = "step-points"
))]

#[path = "../support/env.rs"]
mod env;
#[path = "../support/process.rs"]
mod process;

mod meter;

use std::{fmt, path::Path, process::Command, thread, time::Duration};

use env::number;
use meter::{Meter, Usage};
use process::{Server, example, rows, run, wait_for};

/// What all parties sign with, and check.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// From so many seconds on a slope of memory says something.
const LONG: u64 = 300;
/// How much a server's memory may grow in a long run, once it is warm: less than what 500 bots leave behind in a minute
/// if 1 KiB is lost with each visit.
const KIB_PER_MINUTE: f64 = 2_000.0;

struct Report {
    findings: Vec<String>,
    said: String,
    usage: Vec<(Meter, Usage, Usage)>,
}

#[test]
fn nothing_is_lost_and_nothing_stays_behind() {
    let (bots, seconds) = (
        number("SOAK_BOTS").unwrap_or(20),
        number("SOAK_SECONDS").unwrap_or(10),
    );
    let report = soak(bots, seconds, None);
    println!("{bots} bots for {seconds} s\n{report}");
    assert!(report.findings.is_empty(), "see above");
}

/// The control: something stays behind with each player who joins.
#[test]
fn what_stays_behind_is_found_out() {
    let report = soak(20, 10, Some("leaks"));
    println!("{report}");
    for what in ["threads", "open files"] {
        let is_found = report.findings.iter().any(|finding| finding.contains(what));
        assert!(is_found, "the {what} are not found out");
    }
    let grew = report
        .usage
        .iter()
        .any(|(meter, ..)| meter.kib_per_minute() > KIB_PER_MINUTE);
    assert!(grew, "the memory is not found out");
}

fn soak(bots: u64, seconds: u64, sabotage: Option<&str>) -> Report {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut variables = vec![("WEBHOOK_SECRET", SECRET)];
    variables.extend(sabotage.map(|sabotage| ("SABOTAGE", sabotage)));
    let start = |name| {
        let arguments = ["--name", name, "--webhook-rate", "10000", "--autosave", "5"];
        Server::start_in(folder.path(), &arguments, &variables)
    };
    let servers = [start("arena-1"), start("arena-2")];
    let before = servers.each_ref().map(|server| Usage::once_started(server.id()));
    let meters = servers.each_ref().map(|server| Meter::start(server.id()));
    let mut report = Report {
        findings: Vec::new(),
        said: String::new(),
        usage: Vec::new(),
    };
    report.send_bots(folder.path(), &servers, bots, seconds);
    let meters = meters.map(Meter::stop);

    // The bots have gone without a word, so their connections time out first.
    let all_are_gone = || rows(folder.path()).iter().all(|row| !row.is_locked).then_some(());
    wait_for("everybody's lock is given back", all_are_gone);
    let after = servers.each_ref().map(|server| Usage::at_rest(server.id()));
    for ((meter, before), after) in meters.into_iter().zip(before).zip(after) {
        report.compare(&meter, &before, &after, seconds);
        report.usage.push((meter, before, after));
    }
    let mut logs = String::new();
    for server in servers {
        server.signal("TERM");
        let ended = server.wait();
        ended.assert_all_saved();
        if ended.log.contains("panicked") {
            report.findings.push("a server panicked".to_owned());
        }
        logs += &ended.log;
    }
    report.audit(folder.path());
    if !report.findings.is_empty() {
        let problems = logs.lines().filter(|line| {
            ["WARN", "ERROR", "panicked"]
                .iter()
                .any(|word| line.contains(word))
        });
        let problems: Vec<&str> = problems.take(200).collect();
        report.said += &format!("what the servers complained of:\n{}\n", problems.join("\n"));
    }
    report
}

impl Report {
    /// Lets bots play until their time is up.
    fn send_bots(&mut self, folder: &Path, servers: &[Server], bots: u64, seconds: u64) {
        let urls: Vec<String> = servers.iter().map(Server::url).collect();
        let played = Command::new(example("server"))
            .args(["--play-at", &urls.join(","), "--bots", &bots.to_string()])
            .args(["--for", &seconds.to_string()])
            .env("WEBHOOK_SECRET", SECRET)
            .current_dir(folder)
            .output()
            .expect("the bots start");
        let said = String::from_utf8_lossy(&played.stdout).into_owned();
        if !played.status.success() {
            let log = String::from_utf8_lossy(&played.stderr);
            self.findings.push(format!("the bots complain:\n{said}{log}"));
        }
        let numbers: Vec<u64> = said
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        let have_hopped = said.contains("hopped");
        if said.lines().count() == 1 && (!have_hopped || numbers.iter().take(4).any(|number| *number == 0)) {
            self.findings.push(format!("something never happened: {said}"));
        }
        self.said = said;
    }

    fn compare(&mut self, meter: &Meter, before: &Usage, after: &Usage, seconds: u64) {
        if after.threads > before.threads {
            let grown = format!("threads: {} before, {} after", before.threads, after.threads);
            self.findings.push(grown);
        }
        if after.files > before.files {
            let grown = format!("open files: {} before, {} after", before.files, after.files);
            self.findings.push(grown);
        }
        if seconds >= LONG && meter.kib_per_minute() > KIB_PER_MINUTE {
            self.findings.push(format!(
                "memory grows by {:.0} KiB a minute",
                meter.kib_per_minute()
            ));
        }
    }

    /// Has the books checked by the example's own auditor.
    fn audit(&mut self, folder: &Path) {
        let audit = run(&example("server"), &["--db", "players.db", "--audit"], folder);
        let said = String::from_utf8_lossy(&audit.stdout);
        self.said.push_str(&said);
        if !audit.status.success() {
            self.findings.push(format!("the audit: {said}"));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.said)?;
        for (meter, before, after) in &self.usage {
            writeln!(f, "before: {before}; after: {after}; {meter}")?;
        }
        write!(f, "what must not be: {}", self.findings.len())?;
        self.findings
            .iter()
            .try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

/// How often something is measured.
const EVERY: Duration = Duration::from_secs(1);

fn rest() {
    thread::sleep(EVERY);
}
