//! Small things that several parts need.

use std::{fs, path::Path};

use super::tape::Files;

/// The database's file name.
pub(crate) const DATABASE: &str = "players.db";

/// Waits on this thread.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .expect("a runtime without drivers needs nothing")
        .block_on(future)
}

pub(crate) fn random_bytes(rng: &mut fastrand::Rng) -> [u8; 16] {
    rng.u128(1..).to_le_bytes()
}

/// Puts these files into a new folder.
pub(crate) fn lay_out(folder: &Path, files: &Files) {
    fs::create_dir_all(folder).expect("a folder for the test can be made");
    for (name, content) in files {
        fs::write(folder.join(name), content).expect("the test's files can be written");
    }
}
