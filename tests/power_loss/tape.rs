//! What was asked of a disk, in order, with what players were told in between.
//!
//! One tape is one stretch of a store's life: every write, sync, creation and deletion of the database's files, and every
//! request and answer, in the order in which they happened. It also has a gate that holds writers up, so that a test can
//! have several requests queue behind one: the same seed then gives the same groups of requests, and the same tape.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

/// A file's content, which may have had several names or none.
pub(crate) type FileId = usize;

/// Files by their names.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// How long a writer may take to reach the gate. Far longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// What SQLite uses a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Database,
    Log,
    Journal,
}

/// What the store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    Running,
    Closing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Created {
        name: String,
        file: FileId,
    },
    Deleted {
        name: String,
    },
    /// All names until here are on the disk.
    FolderSynced,
    Written {
        file: FileId,
        offset: usize,
        bytes: Bytes,
    },
    Resized {
        file: FileId,
        size: usize,
    },
    SyncBegun {
        file: FileId,
    },
    /// Everything done to the file before the event number `begun` is on the disk.
    Synced {
        file: FileId,
        begun: usize,
    },
    /// So many requests have been handed in by now.
    Asked {
        requests: usize,
    },
    /// So many of them have been answered by now.
    Answered {
        requests: usize,
    },
    Phase(Phase),
}

/// With which setting the store is made to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synchronous {
    /// Whatever it asks for.
    AsAsked,
    /// `NORMAL` whenever it asks for `FULL`.
    Normal,
}

pub(crate) struct Tape {
    pub(crate) synchronous: Synchronous,
    state: Mutex<State>,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) events: Vec<Event>,
    /// What is in the folder now.
    names: HashMap<String, FileId>,
    pub(crate) kinds: Vec<Kind>,
    /// How often `FULL` was replaced by `NORMAL`.
    pub(crate) lowered: usize,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    waiting: usize,
}

impl Tape {
    /// Begins with the files of `base`, all of them on the disk.
    pub(crate) fn new(base: &Files, synchronous: Synchronous) -> Self {
        let mut state = State::default();
        for name in base.keys() {
            state.file(name);
        }
        Self {
            synchronous,
            state: Mutex::new(state),
            gate: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, event: Event) {
        self.state().events.push(event);
    }

    /// Writers wait from now on.
    pub(crate) fn close_gate(&self) {
        self.gate().closed = true;
    }

    pub(crate) fn open_gate(&self) {
        self.gate().closed = false;
        self.moved.notify_all();
    }

    /// Returns once a writer stands at the closed gate.
    pub(crate) fn wait_for_writer(&self) {
        let (gate, outcome) = self
            .moved
            .wait_timeout_while(self.gate(), PATIENCE, |gate| gate.waiting == 0)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!outcome.timed_out(), "no writer came to the gate");
        drop(gate);
    }

    /// Waits while the gate is closed.
    pub(crate) fn pass_gate(&self) {
        let mut gate = self.gate();
        if !gate.closed {
            return;
        }
        gate.waiting += 1;
        self.moved.notify_all();
        let mut gate = self
            .moved
            .wait_while(gate, |gate| gate.closed)
            .unwrap_or_else(PoisonError::into_inner);
        gate.waiting -= 1;
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The file that has this name, which gets a new one if none has.
    pub(crate) fn file(&mut self, name: &str) -> FileId {
        if let Some(&file) = self.names.get(name) {
            return file;
        }
        let file = self.kinds.len();
        self.kinds.push(match name {
            _ if name.ends_with("-wal") => Kind::Log,
            _ if name.ends_with("-journal") => Kind::Journal,
            _ => Kind::Database,
        });
        self.names.insert(name.to_owned(), file);
        file
    }

    pub(crate) fn create(&mut self, name: &str) -> FileId {
        self.names.remove(name);
        let file = self.file(name);
        self.events.push(Event::Created {
            name: name.to_owned(),
            file,
        });
        file
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.names.remove(name);
        self.events.push(Event::Deleted {
            name: name.to_owned(),
        });
    }
}
