//! What the benches share: how a figure is made of many, and how it is printed.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::time::Duration;

use bevy::{ecs::schedule::SingleThreadedExecutor, prelude::*};

/// A tick at 60 Hz.
pub const TICK: Duration = Duration::from_micros(16_667);

/// Whether only to see that it runs. (Cargo itself passes `--bench`.)
pub fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// Has every system run on the main thread, so that what is timed there is all that an update does.
pub fn on_one_thread(app: &mut App) {
    let mut schedules = app.world_mut().resource_mut::<Schedules>();
    for (_, schedule) in schedules.iter_mut() {
        schedule.set_executor(SingleThreadedExecutor::new());
    }
}

/// The time below which this share of `times` is, or nothing of none.
pub fn quantile(times: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied()
}

pub fn median(times: &[Duration]) -> Option<Duration> {
    quantile(times, 0.5)
}

pub fn microseconds(time: Option<Duration>) -> String {
    time.map_or_else(
        || "–".to_owned(),
        |time| format!("{:.1}", time.as_secs_f64() * 1e6),
    )
}

pub fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(
        || "–".to_owned(),
        |time| format!("{:.2}", time.as_secs_f64() * 1e3),
    )
}
