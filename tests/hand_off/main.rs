//! Players who go on on another server: because it asks for them, or because they are sent.

#![cfg(all(feature = "server", feature = "sqlite", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/driven.rs"]
mod driven;
#[path = "../support/server.rs"]
mod server;

mod asked;
mod faults;
mod scene;
mod sent;

/// What the files of this test share.
mod support {
    pub use super::{driven::*, server::*};
}
