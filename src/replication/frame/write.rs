//! Writing frames.

use super::{EPOCH_BITS, epoch_bits, kind, several};
use crate::replication::{
    change::Change,
    protocol::{self, ToClient},
};

/// A frame with a message.
pub(crate) fn message(epoch: u32, message: &ToClient) -> Vec<u8> {
    let room = match message {
        ToClient::Loaded { values, .. } => {
            let values = values.iter().map(|(_, bytes)| Change::OVERHEAD + bytes.len());
            values.sum()
        }
        _ => 0,
    };
    let mut frame = begin(kind::MESSAGE, epoch, room);
    protocol::write(message, &mut frame);
    frame
}

/// A frame with changes of public types.
pub(crate) fn changes(epoch: u32, changes: &[(u16, Change)]) -> Vec<u8> {
    let [(index, change)] = changes else {
        return changes_together(epoch, changes);
    };
    let (kind, bytes) = match change {
        Change::Gone => return changes_together(epoch, changes),
        Change::Whole(bytes) => (kind::WHOLE, bytes),
        Change::Overwrite { bytes, .. } => (kind::OVERWRITE, bytes),
        Change::Splice { bytes, .. } => (kind::SPLICE, bytes),
    };
    let mut frame = begin(kind, epoch, Change::OVERHEAD + bytes.len());
    protocol::write(index, &mut frame);
    write_place(change, &mut frame);
    frame.extend_from_slice(bytes);
    frame
}

/// Where a change is, if it says so.
fn write_place(change: &Change, frame: &mut Vec<u8>) {
    match change {
        Change::Overwrite { at, .. } => protocol::write(at, frame),
        Change::Splice { at, cut, .. } => protocol::write(&(at, cut), frame),
        Change::Gone | Change::Whole(_) => {}
    }
}

fn changes_together(epoch: u32, changes: &[(u16, Change)]) -> Vec<u8> {
    let room = changes
        .iter()
        .map(|(_, change)| Change::OVERHEAD + change.len())
        .sum();
    let mut frame = begin(kind::CHANGES, epoch, room);
    for (index, change) in changes {
        let (tag, bytes) = match change {
            Change::Gone => (several::GONE, None),
            Change::Whole(bytes) => (several::WHOLE, Some(bytes)),
            Change::Overwrite { bytes, .. } => (several::OVERWRITE, Some(bytes)),
            Change::Splice { bytes, .. } => (several::SPLICE, Some(bytes)),
        };
        protocol::write(&(u32::from(*index) << several::BITS | tag), &mut frame);
        write_place(change, &mut frame);
        if let Some(bytes) = bytes {
            protocol::write(bytes, &mut frame);
        }
    }
    frame
}

/// A frame with a piece of one that is too large.
pub(crate) fn part(epoch: u32, is_last: bool, bytes: &[u8]) -> Vec<u8> {
    let kind = if is_last { kind::LAST_PART } else { kind::PART };
    let mut frame = begin(kind, epoch, bytes.len());
    frame.extend_from_slice(bytes);
    frame
}

/// Begins a frame in which there is room for so many bytes more.
fn begin(kind: u8, epoch: u32, room: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1 + room);
    frame.push((kind << EPOCH_BITS) | epoch_bits(epoch));
    frame
}
