//! How long ticks take, and how long they would take without the player data plugin.
//!
//! The plugin's share is what passes between the first and the last of its systems in `PreUpdate` and in `PostUpdate`,
//! where nothing else of this game runs. What it does in hooks and commands, when somebody joins or leaves, counts as
//! the game's.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use bevy_renet::{RenetReceive, RenetSend};

/// The durations of this server's ticks.
#[derive(Resource)]
pub struct Ticks {
    /// Since the last status line.
    pub lately: Durations,
    /// Since the start.
    pub overall: Durations,
    began: Instant,
    plugin_began: Instant,
    in_plugin: Duration,
}

/// The durations of some ticks, with the plugin's share and without.
#[derive(Default)]
pub struct Durations {
    pub whole: Histogram,
    pub without_plugin: Histogram,
}

impl Durations {
    fn record(&mut self, whole: Duration, in_plugin: Duration) {
        self.whole.record(whole);
        self.without_plugin.record(whole.saturating_sub(in_plugin));
    }
}

pub fn plugin(app: &mut App) {
    let now = Instant::now();
    app.insert_resource(Ticks {
        lately: Durations::default(),
        overall: Durations::default(),
        began: now,
        plugin_began: now,
        in_plugin: Duration::ZERO,
    })
    .add_systems(First, |mut ticks: ResMut<Ticks>| ticks.began = Instant::now())
    .add_systems(
        PreUpdate,
        (
            enter_plugin
                .after(RenetReceive)
                .before(PlayerDataSystems::Receive),
            leave_plugin.after(PlayerDataSystems::Load),
        ),
    )
    .add_systems(
        PostUpdate,
        (
            enter_plugin.before(PlayerDataSystems::Capture),
            leave_plugin.after(PlayerDataSystems::Send).before(RenetSend),
        ),
    )
    .add_systems(Last, end_tick);
}

fn enter_plugin(mut ticks: ResMut<Ticks>) {
    ticks.plugin_began = Instant::now();
}

fn leave_plugin(mut ticks: ResMut<Ticks>) {
    let share = ticks.plugin_began.elapsed();
    ticks.in_plugin += share;
}

fn end_tick(mut ticks: ResMut<Ticks>) {
    let whole = ticks.began.elapsed();
    let in_plugin = std::mem::take(&mut ticks.in_plugin);
    ticks.lately.record(whole, in_plugin);
    ticks.overall.record(whole, in_plugin);
}

/// How often each duration occurred, to within 5 %.
pub struct Histogram {
    buckets: [u64; Self::BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; Self::BUCKETS],
        }
    }
}

impl Histogram {
    /// Enough for an hour.
    const BUCKETS: usize = 460;
    /// Each bucket's upper bound is so many times that of the one before; the first one's is a microsecond.
    const GROWTH: f64 = 1.05;

    fn record(&mut self, duration: Duration) {
        let micros = (duration.as_secs_f64() * 1e6).max(1.0);
        let bucket = micros.log(Self::GROWTH).ceil() as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
    }

    /// The duration that this part of all (0 to 1) stays below.
    fn quantile(&self, part: f64) -> Duration {
        let rank = (self.buckets.iter().sum::<u64>() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|&count| {
            seen += count;
            count > 0 && seen >= rank
        });
        bucket.map_or(Duration::ZERO, |bucket| {
            Duration::from_secs_f64(Self::GROWTH.powi(bucket as i32) / 1e6)
        })
    }
}

/// As `p50 0.31 ms, p99 1.20 ms`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |part| self.quantile(part).as_secs_f64() * 1e3;
        write!(f, "p50 {:.2} ms, p99 {:.2} ms", millis(0.5), millis(0.99))
    }
}
