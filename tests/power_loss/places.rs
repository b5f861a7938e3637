//! Where in a store's work the power can go.

use super::tape::{Event, Kind, Phase, State};

/// A kind of moment. Between two of a tape's events there is exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The file, its log and its schema are being made.
    Creation,
    /// A file that exists is being opened, after a cut or in order.
    Opening,
    /// Nothing is under way on the disk.
    Between,
    /// The log begins anew: its header is written, and not yet synced.
    LogHeader,
    /// Some of a transaction is in the log, and more follows.
    MidCommit,
    /// All of a transaction is in the log; its sync has not begun.
    BeforeSync,
    /// That sync is under way.
    DuringSync,
    /// The transaction is durable; nobody has been told.
    BeforeAnswer,
    /// The log is being folded into the database.
    Checkpoint,
    /// The store is being closed.
    Closing,
}

impl Place {
    pub(crate) const ALL: [Self; 10] = [
        Self::Creation,
        Self::Opening,
        Self::Between,
        Self::LogHeader,
        Self::MidCommit,
        Self::BeforeSync,
        Self::DuringSync,
        Self::BeforeAnswer,
        Self::Checkpoint,
        Self::Closing,
    ];
}

/// The length of the log's header.
const HEADER: usize = 32;

/// What is in the log and not synced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsynced {
    Nothing,
    Header,
    Frames,
}

struct Walk {
    phase: Phase,
    has_opened: bool,
    log: Unsynced,
    log_syncing: bool,
    database_dirty: bool,
    is_committed: bool,
}

/// The place before each of a tape's events, and the one after the last.
pub(crate) fn places(tape: &State, is_new: bool) -> Vec<Place> {
    let mut walk = Walk {
        phase: Phase::Opening,
        has_opened: !is_new,
        log: Unsynced::Nothing,
        log_syncing: false,
        database_dirty: false,
        is_committed: false,
    };
    let mut places = Vec::with_capacity(tape.events.len() + 1);
    for event in &tape.events {
        places.push(walk.place(Some(event), &tape.kinds));
        walk.see(event, &tape.kinds);
    }
    places.push(walk.place(None, &tape.kinds));
    places
}

impl Walk {
    fn see(&mut self, event: &Event, kinds: &[Kind]) {
        match *event {
            Event::Phase(phase) => {
                self.has_opened |= phase == Phase::Running;
                self.phase = phase;
            }
            Event::Written {
                file,
                offset,
                ref bytes,
            } => match kinds[file] {
                Kind::Log if offset == 0 && bytes.len() == HEADER => self.log = Unsynced::Header,
                Kind::Log => self.log = Unsynced::Frames,
                Kind::Database => self.database_dirty = true,
                Kind::Journal => {}
            },
            Event::SyncBegun { file } if kinds[file] == Kind::Log => self.log_syncing = true,
            Event::Synced { file, .. } => match kinds[file] {
                Kind::Log => {
                    self.is_committed |= self.log == Unsynced::Frames;
                    (self.log, self.log_syncing) = (Unsynced::Nothing, false);
                }
                Kind::Database => self.database_dirty = false,
                Kind::Journal => {}
            },
            Event::Answered { .. } => self.is_committed = false,
            _ => {}
        }
    }

    fn place(&self, next: Option<&Event>, kinds: &[Kind]) -> Place {
        match self.phase {
            Phase::Opening if self.has_opened => return Place::Opening,
            Phase::Opening => return Place::Creation,
            Phase::Closing => return Place::Closing,
            Phase::Running => {}
        }
        let next = next.and_then(|event| match *event {
            Event::Written { file, .. } => Some((kinds[file], false)),
            Event::SyncBegun { file } => Some((kinds[file], true)),
            _ => None,
        });
        if self.database_dirty || matches!(next, Some((Kind::Database, _))) {
            return Place::Checkpoint;
        }
        match (self.log, self.log_syncing) {
            (Unsynced::Header, _) => Place::LogHeader,
            (Unsynced::Frames, true) => Place::DuringSync,
            (Unsynced::Frames, false) if next == Some((Kind::Log, true)) => Place::BeforeSync,
            (Unsynced::Frames, false) if next.is_some() => Place::MidCommit,
            (Unsynced::Frames, false) => Place::BeforeAnswer,
            // A log that is synced is synced once more before it's folded in.
            (Unsynced::Nothing, _) if self.log_syncing || next == Some((Kind::Log, true)) => {
                Place::Checkpoint
            }
            (Unsynced::Nothing, _) if self.is_committed => Place::BeforeAnswer,
            (Unsynced::Nothing, _) => Place::Between,
        }
    }
}
