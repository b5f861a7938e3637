//! Races: the ordered queue and the hand-over to a database's thread, under 100,000 schedules.
//!
//! What runs here are the product's own files `src/session/queue.rs`, `src/session/queue/order.rs`, `src/watched.rs` and
//! `src/store/sqlite/worker.rs`, line for line. This crate calls itself `std` and `tokio`, so that what they import is
//! found here: locks, channels and threads are [`shuttle`]'s, which decides at each of their steps who goes on; what
//! tokio shares between tasks is tokio's own, with such a step put before it (`sync`, `thread`, `time`, `runtime`). Half
//! of the schedules are drawn step by step, half by PCT, which gives tasks priorities and changes few of them.
//!
//! Each property has a control: the same scenario with one mechanism taken out (`broken`), which has to be found out.
//!
//! | variable | default | |
//! |---|---|---|
//! | `RACES_SCHEDULES` | 4,500 | how many schedules the properties are explored under, all together |
//! | `RACES_SEED` | 1 | where all schedules follow from |
//! | `RACES_REPLAY` | | runs this schedule alone, as printed by the test that failed |
//!
//! `RACES_SCHEDULES=100000 cargo test --profile model --test races -- --nocapture`
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

extern crate std as real_std;
extern crate tokio as real_tokio;
// What the product's files call `std` and `tokio` is what this crate has under these names.
extern crate self as std;
extern crate self as tokio;

use real_std::{any, collections, env, fmt, fs, future, hash, io, mem, panic, path, pin, task};
use real_tokio::select;

mod broken;
mod explore;
mod history;
mod ordered_queue;
mod runtime;
#[path = "../support/env.rs"]
mod settings;
mod shutdown;
mod sync;
mod thread;
mod time;

#[path = "../../src/watched.rs"]
#[allow(dead_code, reason = "what only the rest of the product uses")]
mod watched;

#[path = "../../src/session"]
#[allow(dead_code, reason = "what only the rest of the product uses")]
mod session {
    pub mod queue;
}

#[path = "../../src/store"]
#[allow(dead_code, reason = "what only the rest of the product uses")]
mod store {
    pub use bevy_player_data::store::StoreError;

    mod sqlite {
        mod worker;

        #[path = "../../../tests/races/hand_over.rs"]
        mod hand_over;
    }
}
