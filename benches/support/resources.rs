//! What this process has used, as Linux counts it; nothing on other systems.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::fs;

/// Up to a moment, or between two.
#[derive(Clone, Copy, Default)]
pub struct Used {
    /// On all cores, in microseconds.
    pub cpu: f64,
    /// Bytes handed to the system for writing.
    pub written: f64,
}

impl Used {
    pub fn now() -> Self {
        Self {
            cpu: cpu().unwrap_or(f64::NAN),
            written: written().unwrap_or(f64::NAN),
        }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            written: self.written - before.written,
        }
    }
}

/// User and system time, which are the 14th and 15th field, in hundredths of a second (`man 5 proc`).
fn cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11);
    let mut next = || times.next()?.parse::<f64>().ok();
    Some((next()? + next()?) * 10_000.0)
}

fn written() -> Option<f64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "))?;
    line.parse().ok()
}
