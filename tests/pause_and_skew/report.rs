//! What came of a campaign.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::tally::Tally;

/// Something that must not be.
pub type Found = String;

pub struct Report {
    pub runs: u32,
    pub tally: Tally,
    pub found: Vec<Found>,
    pub seed: u64,
    began: Instant,
    took: Duration,
}

impl Report {
    pub fn new(seed: u64) -> Self {
        Self {
            runs: 0,
            tally: Tally::default(),
            found: Vec::new(),
            seed,
            began: Instant::now(),
            took: Duration::ZERO,
        }
    }

    pub fn add(&mut self, lane: Self) {
        self.runs += lane.runs;
        self.tally.merge(lane.tally);
        self.found.extend(lane.found);
        self.took = self.began.elapsed();
    }

    /// `variable` is the one that sets how many faults there are.
    #[track_caller]
    pub fn assert_nothing_was_found(&self, variable: &str) {
        let (seed, runs) = (self.seed, self.runs);
        let again = "cargo test --features step-points --test pause_and_skew -- --nocapture --test-threads 1";
        assert!(
            self.found.is_empty(),
            "{self}\nagain: PAUSE_SEED={seed} {variable}={runs} {again}"
        );
        assert!(
            self.runs > 0 && self.tally.get("history", "commits") > 0,
            "{self}"
        );
    }

    /// A run in which something did not happen has proved nothing about it.
    #[track_caller]
    pub fn assert_happened(&self, group: &'static str, what: &[&str]) {
        for what in what {
            assert!(
                self.tally.get(group, what) > 0,
                "`{what}` never happened:\n{self}"
            );
        }
    }

    #[track_caller]
    pub fn assert_found(&self, what: &str) {
        let is_found = self.found.iter().any(|found| found.contains(what));
        assert!(is_found, "nobody found that something {what}:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} faults in {:.0?}, seed {}", self.runs, self.took, self.seed)?;
        write!(f, "{}", self.tally)?;
        write!(f, "found: {}", self.found.len())?;
        self.found
            .iter()
            .take(5)
            .try_for_each(|found| write!(f, "\n  {found}"))
    }
}
