//! What a process uses, and whether that grows.

use std::{
    fmt, fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::rest;

/// How long a process may take until it is at rest.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a process uses at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub resident_kib: u64,
    pub threads: u64,
    pub files: usize,
}

impl Usage {
    pub fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).expect("a number")
        };
        Self {
            resident_kib: number("VmRSS:"),
            threads: number("Threads:"),
            files: fs::read_dir(format!("/proc/{process}/fd"))
                .expect("it runs")
                .count(),
        }
    }

    /// What it uses once it has opened what it needs.
    pub fn once_started(process: u32) -> Self {
        let began = Instant::now();
        let mut last = Self::of(process);
        let mut same = 0;
        while same < 3 && began.elapsed() < PATIENCE {
            rest();
            let now = Self::of(process);
            let is_same = (now.threads, now.files) == (last.threads, last.files);
            same = if is_same { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// What is left of what it uses, once that gets no less: connections and idle threads end after a while.
    pub fn at_rest(process: u32) -> Self {
        let began = Instant::now();
        let mut least = Self::of(process);
        let mut since = Instant::now();
        while since.elapsed() < PATIENCE / 3 && began.elapsed() < PATIENCE {
            rest();
            let now = Self::of(process);
            if now.threads < least.threads || now.files < least.files {
                since = Instant::now();
            }
            least.threads = least.threads.min(now.threads);
            least.files = least.files.min(now.files);
            least.resident_kib = now.resident_kib;
        }
        least
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resident_kib,
            threads,
            files,
        } = self;
        write!(f, "{resident_kib} KiB, {threads} threads, {files} open files")
    }
}

/// Measures a process's memory every second.
pub struct Meter {
    /// When (in seconds), and how much (in KiB).
    samples: Vec<(f64, f64)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<(f64, f64)>>>,
}

impl Meter {
    pub fn start(process: u32) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let began = Instant::now();
        let measure = move || {
            let mut samples = Vec::new();
            while !stopped.load(Relaxed) {
                let now = Usage::of(process).resident_kib as f64;
                samples.push((began.elapsed().as_secs_f64(), now));
                rest();
            }
            samples
        };
        Self {
            samples: Vec::new(),
            stop,
            thread: Some(thread::spawn(measure)),
        }
    }

    pub fn stop(mut self) -> Self {
        self.stop.store(true, Relaxed);
        let samples = self.thread.take().map(JoinHandle::join);
        self.samples = samples.and_then(Result::ok).unwrap_or_default();
        self
    }

    /// By how much the memory grows, by least squares over the second half of the time, when the process is warm.
    pub fn kib_per_minute(&self) -> f64 {
        let samples = &self.samples[self.samples.len() / 2..];
        let count = samples.len().max(1) as f64;
        let (x, y) = samples
            .iter()
            .fold((0.0, 0.0), |(x, y), sample| (x + sample.0, y + sample.1));
        let (x, y) = (x / count, y / count);
        let (covariance, variance) = samples.iter().fold((0.0, 0.0), |(both, own), sample| {
            (
                both + (sample.0 - x) * (sample.1 - y),
                own + (sample.0 - x).powi(2),
            )
        });
        if variance > 0.0 {
            covariance / variance * 60.0
        } else {
            0.0
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.samples.iter().map(|sample| sample.1).fold(0.0, f64::max);
        let slope = self.kib_per_minute();
        write!(
            f,
            "at most {most:.0} KiB, growing by {slope:.0} KiB a minute in the second half"
        )
    }
}
