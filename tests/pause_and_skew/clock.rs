//! A process's own clock, which a test can put forward and back (libfaketime).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which clocks jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faked {
    /// The time of day, as when somebody sets it, or NTP steps it.
    Wall,
    /// Every clock of the process, the one that never jumps included.
    Monotonic,
}

/// The file that says what time it is.
pub struct Clock {
    path: PathBuf,
    /// How fast it is.
    seconds: i64,
}

impl Clock {
    /// Gives the process that `command` will start a clock of its own.
    pub fn wind(command: &mut Command, folder: &Path, name: &str, faked: Faked) -> Self {
        let mut clock = Self {
            path: folder.join(format!("{name}.faketime")),
            seconds: 0,
        };
        clock.turn(0);
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &clock.path)
            // Read anew at each look.
            .env("FAKETIME_NO_CACHE", "1");
        if faked == Faked::Wall {
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        clock
    }

    /// Puts it forward by so many seconds, or back.
    pub fn turn(&mut self, seconds: i64) {
        self.seconds += seconds;
        // Whole, or not at all: the process may be reading it.
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{:+}\n", self.seconds)).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }
}

fn library() -> PathBuf {
    let folders = [
        "x86_64-linux-gnu/faketime",
        "aarch64-linux-gnu/faketime",
        "faketime",
    ];
    let places = ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
        .iter()
        .flat_map(|root| folders.map(|folder| Path::new(root).join(folder).join("libfaketimeMT.so.1")));
    places
        .into_iter()
        .find(|library| library.exists())
        .expect("clocks can only be turned with libfaketime: `apt-get install libfaketime`")
}
