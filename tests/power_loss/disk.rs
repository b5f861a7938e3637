//! What a disk may hold once the power has gone.
//!
//! What was synced is there. Of everything else any part may be: each write of its own, in whole or by sectors,
//! whatever came before or after it; a sector that was being written may hold half of it, or garbage; a file's new
//! length may be there without its content; a new name may be missing and a deleted one may be back. That is what
//! SQLite's own crash tests do, and it is as far as SQLite promises to survive it: bytes that nobody was writing stay
//! (`SQLITE_POWERSAFE_OVERWRITE`, its default), and a sync is a sync.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

use super::{
    tally::Tally,
    tape::{Event, FileId, Files},
};

/// The smallest part of a write that is on the disk or isn't, in bytes.
const SECTOR: usize = 512;

/// A disk that is told what happens, in order.
pub(crate) struct Disk {
    files: Vec<File>,
    folder: BTreeMap<String, FileId>,
    folder_pending: Vec<(String, Option<FileId>)>,
    lies: bool,
}

#[derive(Default)]
struct File {
    /// What is certain.
    durable: Vec<u8>,
    /// What may or may not be there, each with its event's number.
    pending: Vec<(usize, Change)>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Bytes },
    Resize(usize),
}

/// How much of a file's pending changes reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Nothing,
    Everything,
    /// The first ones.
    Beginning,
    /// Only the last one.
    End,
    /// Any of them, each in whole.
    Some,
    /// Any sectors of any of them.
    Torn,
    /// As before; and some sectors hold a half, or garbage.
    Garbled,
}

const FATES: [Fate; 7] = [
    Fate::Nothing,
    Fate::Everything,
    Fate::Beginning,
    Fate::End,
    Fate::Some,
    Fate::Torn,
    Fate::Garbled,
];

impl Disk {
    /// A disk with these files. One that `lies` says that it has synced and hasn't.
    pub(crate) fn new(base: &Files, lies: bool) -> Self {
        let files = base.values().map(|content| File {
            durable: content.clone(),
            pending: Vec::new(),
        });
        Self {
            files: files.collect(),
            folder: base.keys().cloned().zip(0..).collect(),
            folder_pending: Vec::new(),
            lies,
        }
    }

    /// The event with this number happens.
    pub(crate) fn see(&mut self, number: usize, event: &Event) {
        match event {
            Event::Created { name, file } => {
                self.files
                    .resize_with(self.files.len().max(file + 1), File::default);
                self.folder_pending.push((name.clone(), Some(*file)));
            }
            Event::Deleted { name } => self.folder_pending.push((name.clone(), None)),
            Event::FolderSynced if !self.lies => {
                for (name, file) in self.folder_pending.drain(..) {
                    enter(&mut self.folder, name, file);
                }
            }
            Event::Written { file, offset, bytes } => self.files[*file].pending.push((
                number,
                Change::Write {
                    offset: *offset,
                    bytes: bytes.clone(),
                },
            )),
            Event::Resized { file, size } => {
                self.files[*file].pending.push((number, Change::Resize(*size)));
            }
            Event::Synced { file, begun } if !self.lies => self.files[*file].sync(*begun),
            _ => {}
        }
    }

    /// The power goes: what is found afterwards.
    pub(crate) fn cut(&self, rng: &mut fastrand::Rng, tally: &mut Tally) -> Files {
        let mut folder = self.folder.clone();
        let fate = FATES[rng.usize(..5)];
        let chosen = choose(fate, self.folder_pending.len(), rng);
        for ((name, file), reached) in self.folder_pending.iter().zip(chosen) {
            if reached {
                enter(&mut folder, name.clone(), *file);
            } else if file.is_some() {
                tally.fault("a new file's name is missing");
            } else {
                tally.fault("a deleted file is back");
            }
        }
        folder
            .into_iter()
            .map(|(name, file)| (name, self.files[file].cut(rng, tally)))
            .collect()
    }
}

fn enter(folder: &mut BTreeMap<String, FileId>, name: String, file: Option<FileId>) {
    match file {
        Some(file) => folder.insert(name, file),
        None => folder.remove(&name),
    };
}

/// Which of `count` changes reached the disk.
fn choose(fate: Fate, count: usize, rng: &mut fastrand::Rng) -> Vec<bool> {
    let first = rng.usize(..=count);
    let share = [0.1, 0.5, 0.9][rng.usize(..3)];
    let mut reached = |n| match fate {
        Fate::Nothing => false,
        Fate::Everything | Fate::Torn | Fate::Garbled => true,
        Fate::Beginning => n < first,
        Fate::End => n + 1 == count,
        Fate::Some => rng.f64() < share,
    };
    (0..count).map(&mut reached).collect()
}

impl File {
    fn sync(&mut self, begun: usize) {
        let Self { durable, pending } = self;
        pending.retain(|(number, change)| {
            let done = *number < begun;
            if done {
                change.apply(durable);
            }
            !done
        });
    }

    fn cut(&self, rng: &mut fastrand::Rng, tally: &mut Tally) -> Vec<u8> {
        let mut content = self.durable.clone();
        if self.pending.is_empty() {
            return content;
        }
        let fate = FATES[rng.usize(..FATES.len())];
        let chosen = choose(fate, self.pending.len(), rng);
        let (kept, lost) = chosen.iter().partition::<Vec<bool>, _>(|reached| **reached);
        tally.faults("a write is there without a sync", kept.len());
        tally.faults("a write is lost", lost.len());
        if chosen.windows(2).any(|pair| pair == [false, true]) {
            tally.fault("a later write is there and an earlier one isn't");
        }
        let share = [0.1, 0.5, 0.9][rng.usize(..3)];
        for ((_, change), reached) in self.pending.iter().zip(chosen) {
            match change {
                _ if !reached => {}
                Change::Write { offset, bytes } if matches!(fate, Fate::Torn | Fate::Garbled) => {
                    let garbles = fate == Fate::Garbled;
                    tear(&mut content, *offset, bytes, share, garbles, rng, tally);
                }
                change => change.apply(&mut content),
            }
        }
        let mut whole = self.durable.clone();
        self.pending
            .iter()
            .for_each(|(_, change)| change.apply(&mut whole));
        if whole.len() > content.len() && rng.u8(..3) == 0 {
            tally.fault("a file has its new length without the content");
            content.resize(whole.len(), 0);
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                room(content, *offset..*offset + bytes.len()).copy_from_slice(bytes);
            }
            Self::Resize(size) => content.resize(*size, 0),
        }
    }
}

/// A part of a file, which grows as far as it has to.
fn room(content: &mut Vec<u8>, range: Range<usize>) -> &mut [u8] {
    if content.len() < range.end {
        content.resize(range.end, 0);
    }
    &mut content[range]
}

/// Does a write sector by sector, each with the probability `share`.
fn tear(
    content: &mut Vec<u8>,
    offset: usize,
    bytes: &[u8],
    share: f64,
    garbles: bool,
    rng: &mut fastrand::Rng,
    tally: &mut Tally,
) {
    let (mut at, end) = (offset, offset + bytes.len());
    let (mut kept, mut lost) = (0, 0);
    while at < end {
        let next = end.min((at / SECTOR + 1) * SECTOR);
        let source = &bytes[at - offset..next - offset];
        if rng.f64() < share {
            kept += 1;
            let sector = room(content, at..next);
            match if garbles { rng.u8(..6) } else { 6 } {
                0 => {
                    tally.fault("a sector holds garbage");
                    rng.fill(sector);
                }
                1 => {
                    tally.fault("a sector is half written");
                    let half = source.len() / 2;
                    sector[..half].copy_from_slice(&source[..half]);
                }
                2 => {
                    tally.fault("a sector is half written");
                    let half = source.len() / 2;
                    sector[half..].copy_from_slice(&source[half..]);
                }
                _ => sector.copy_from_slice(source),
            }
        } else {
            lost += 1;
        }
        at = next;
    }
    if kept > 0 && lost > 0 {
        tally.fault("a write is torn between sectors");
    }
}
