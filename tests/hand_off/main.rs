//! Players who go on on another server: because it asks for them, or because they are sent. On the rows that `PLAYER_STORE`
//! names.

#![cfg(all(feature = "server", feature = "sqlite", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/at_once.rs"]
mod at_once;
#[path = "../support/driven.rs"]
mod driven;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/stored.rs"]
#[allow(dead_code, reason = "shared with tests that compare documents")]
mod stored;

mod asked;
mod faults;
mod scene;
mod sent;

use server::rows;

/// What the files of this test share.
mod support {
    pub use super::{driven::*, server::*};
}
