//! What has happened in all cases, so that nobody has to believe that anything did.

use std::{collections::BTreeMap, fmt};

#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<(&'static str, String), u64>);

impl Tally {
    pub fn count(&mut self, group: &'static str, what: impl Into<String>) {
        self.add(group, what, 1);
    }

    pub fn add(&mut self, group: &'static str, what: impl Into<String>, times: u64) {
        *self.0.entry((group, what.into())).or_default() += times;
    }

    pub fn get(&self, group: &'static str, what: &str) -> u64 {
        self.0.get(&(group, what.to_owned())).copied().unwrap_or_default()
    }

    pub fn sum(&self, group: &'static str) -> u64 {
        self.0
            .iter()
            .filter(|((of, _), _)| *of == group)
            .map(|(_, times)| times)
            .sum()
    }

    /// Takes everything in that another tally counted.
    pub fn merge(&mut self, other: Self) {
        for ((group, what), times) in other.0 {
            self.add(group, what, times);
        }
    }

    /// What should have happened and did not.
    pub fn zeroes(&self) -> Vec<String> {
        let zeroes = self.0.iter().filter(|(_, times)| **times == 0);
        zeroes
            .map(|((group, what), _)| format!("{group}: {what}"))
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((group, what), times) in &self.0 {
            if *group != last {
                writeln!(f, "{group}")?;
                last = group;
            }
            writeln!(f, "{times:>12}  {what}")?;
        }
        Ok(())
    }
}
