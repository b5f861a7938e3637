//! Writing frames.

use super::{EPOCH_BITS, epoch_bits, kind};
use crate::replication::{
    change::Change,
    protocol::{self, ToClient},
};

/// A frame with a message.
pub(crate) fn message(epoch: u32, message: &ToClient) -> Vec<u8> {
    let mut frame = begin(kind::MESSAGE, epoch);
    protocol::write(message, &mut frame);
    frame
}

/// A frame with changes of public types.
pub(crate) fn changes(epoch: u32, changes: &[(u16, Change)]) -> Vec<u8> {
    let [(index, change)] = changes else {
        return several(epoch, changes);
    };
    let (mut frame, bytes) = match change {
        Change::Gone => return several(epoch, changes),
        Change::Whole(bytes) => (begin(kind::WHOLE, epoch), bytes),
        Change::Overwrite { bytes, .. } => (begin(kind::OVERWRITE, epoch), bytes),
        Change::Splice { bytes, .. } => (begin(kind::SPLICE, epoch), bytes),
    };
    protocol::write(index, &mut frame);
    match change {
        Change::Overwrite { at, .. } => protocol::write(at, &mut frame),
        Change::Splice { at, cut, .. } => protocol::write(&(at, cut), &mut frame),
        Change::Gone | Change::Whole(_) => {}
    }
    frame.extend_from_slice(bytes);
    frame
}

fn several(epoch: u32, changes: &[(u16, Change)]) -> Vec<u8> {
    let mut frame = begin(kind::CHANGES, epoch);
    protocol::write(&changes, &mut frame);
    frame
}

/// A frame with a piece of one that is too large.
pub(crate) fn part(epoch: u32, is_last: bool, bytes: &[u8]) -> Vec<u8> {
    let kind = if is_last { kind::LAST_PART } else { kind::PART };
    let mut frame = begin(kind, epoch);
    frame.extend_from_slice(bytes);
    frame
}

fn begin(kind: u8, epoch: u32) -> Vec<u8> {
    vec![(kind << EPOCH_BITS) | epoch_bits(epoch)]
}
