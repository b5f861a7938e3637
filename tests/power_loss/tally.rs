//! How often what happened, and what was found.

use std::{collections::BTreeMap, fmt};

use super::{places::Place, survey::Found};

/// How many findings of each kind are told in full.
const TOLD: usize = 2;

/// Everything that a campaign counts.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) cuts: usize,
    pub(crate) recordings: usize,
    pub(crate) places: BTreeMap<Place, usize>,
    pub(crate) faults: BTreeMap<&'static str, usize>,
    /// What the store did before the cuts.
    pub(crate) deeds: BTreeMap<&'static str, usize>,
    /// What was in a transaction that survived although nobody had been told.
    pub(crate) unanswered_survived: usize,
    pub(crate) unanswered_lost: usize,
    pub(crate) found: BTreeMap<&'static str, usize>,
    told: BTreeMap<&'static str, Vec<String>>,
}

impl Tally {
    pub(crate) fn fault(&mut self, fault: &'static str) {
        self.faults(fault, 1);
    }

    pub(crate) fn faults(&mut self, fault: &'static str, count: usize) {
        *self.faults.entry(fault).or_default() += count;
    }

    pub(crate) fn deed(&mut self, deed: &'static str) {
        *self.deeds.entry(deed).or_default() += 1;
    }

    pub(crate) fn find(&mut self, found: &Found, whence: impl fmt::Display) {
        *self.found.entry(found.name()).or_default() += 1;
        let told = self.told.entry(found.name()).or_default();
        if told.len() < TOLD {
            told.push(format!("{found}\n  {whence}"));
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.recordings += other.recordings;
        self.unanswered_survived += other.unanswered_survived;
        self.unanswered_lost += other.unanswered_lost;
        add(&mut self.places, other.places);
        add(&mut self.faults, other.faults);
        add(&mut self.deeds, other.deeds);
        add(&mut self.found, other.found);
        for (found, more) in other.told {
            let told = self.told.entry(found).or_default();
            told.extend(more);
            told.truncate(TOLD);
        }
    }

    /// How many cuts found something of this kind.
    pub(crate) fn times(&self, found: &str) -> usize {
        self.found.get(found).copied().unwrap_or_default()
    }

    /// How many cuts found anything.
    pub(crate) fn violations(&self) -> usize {
        self.found.values().sum()
    }
}

fn add<K: Ord>(to: &mut BTreeMap<K, usize>, from: BTreeMap<K, usize>) {
    for (what, count) in from {
        *to.entry(what).or_default() += count;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, recordings, .. } = self;
        writeln!(
            f,
            "{cuts} cuts in {recordings} recordings, {} violations",
            self.violations()
        )?;
        let unanswered = (self.unanswered_survived, self.unanswered_lost);
        writeln!(
            f,
            "  cut with requests unanswered, some of which survived, or none: {unanswered:?}"
        )?;
        writeln!(f, "  places: {:?}", self.places)?;
        writeln!(f, "  faults: {:?}", self.faults)?;
        writeln!(f, "  deeds: {:?}", self.deeds)?;
        writeln!(f, "  found: {:?}", self.found)?;
        for told in self.told.values().flatten() {
            writeln!(f, "- {told}")?;
        }
        Ok(())
    }
}
