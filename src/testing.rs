//! Helpers for a game's own tests (feature `testing`).
//!
//! The module owns nothing that a shipped game needs. It offers [`assert_round_trip`] for the game's component types,
//! [`headless_app`] and [`update_until`] for tests with real apps, [`FaultyStore`] to try the game against a store
//! that is slow, fails, or loses its replies, and [`LocalConnection`] with [`ScriptedServerPlugin`] to try a client
//! against everything that it may be told.
//!
//! ```
//! use bevy::prelude::*;
//! use bevy_player_data::{prelude::*, testing::*};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Component, Serialize, Deserialize, Default, Debug, PartialEq)]
//! # struct Coins(u64);
//! # impl PlayerData for Coins { const KEY: &'static str = "coins"; }
//!
//! let store = MemoryStore::default();
//! let mut app = headless_app();
//! app.add_plugins(PlayerDataPlugin::server(store)).persist::<Coins>();
//!
//! let ada = app.world_mut().spawn(PersistentPlayer(PlayerId::from_name("ada"))).id();
//! update_until(&mut app, "ada's data is loaded", |world| world.entity(ada).contains::<PlayerSession>());
//! assert_eq!(app.world().get::<Coins>(ada), Some(&Coins(0)));
//!
//! assert_round_trip(&Coins(u64::MAX));
//! ```

use std::time::{Duration, Instant};

use bevy::{prelude::*, time::TimePlugin};

mod local_connection;
mod round_trip;
#[cfg(feature = "server")]
mod scripted_server;

#[cfg(feature = "server")]
pub use crate::store::{Fault, FaultRates, Faults, FaultyStore, Op};
pub use local_connection::{LocalConnection, Way};
pub use round_trip::assert_round_trip;
#[cfg(feature = "server")]
pub use scripted_server::{ScriptPlayer, ScriptedServerPlugin};

/// From now on everything that this crate does at random on this thread, ids and the jitter of pauses, follows from
/// `seed`; `None` ends that. With [`PlayerDataServerPlugin::driven_by`] and a [`FaultyStore`] a whole server's history
/// can be told again.
///
/// [`PlayerDataServerPlugin::driven_by`]: crate::server::PlayerDataServerPlugin::driven_by
#[cfg(feature = "server")]
pub fn follow_seed(seed: Option<u64>) {
    crate::chance::follow_seed(seed);
}

/// How long [`update_until`] waits at most. Far longer than anything takes, so that a busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(30);

/// An app without window, renderer or network that is driven by calling `update`.
pub fn headless_app() -> App {
    let mut app = App::new();
    app.add_plugins((TaskPoolPlugin::default(), TimePlugin));
    app
}

/// Updates `app` until `condition` holds.
///
/// # Panics
/// When it doesn't hold after 30 s, saying that it was waiting for `what`.
#[track_caller]
pub fn update_until(app: &mut App, what: &str, mut condition: impl FnMut(&mut World) -> bool) {
    let started = Instant::now();
    while !condition(app.world_mut()) {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        app.update();
        // Gives the threads that load and save a chance to run.
        std::thread::sleep(Duration::from_millis(1));
    }
}
