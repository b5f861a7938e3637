//! Reading frames.

use bytes::{Buf, Bytes};

use super::{EPOCH_BITS, epoch_bits, kind, several};
use crate::{
    registry::wire::{self, WireError},
    replication::{change::Change, protocol::ToClient},
};

/// A frame that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// A message.
    Message(ToClient),
    /// What has become of these public types.
    Changes(Vec<(u16, Change)>),
    /// A piece of a frame that is too large for one.
    Part { bytes: Bytes, is_last: bool },
}

/// Reads a frame, and the last bits of the number of the session that it is about.
pub(crate) fn read(frame: &Bytes) -> Result<(u8, Frame), WireError> {
    let (&first, rest) = frame.split_first().ok_or(WireError::new("it is empty"))?;
    let mut rest = frame.slice_ref(rest);
    let frame = match first >> EPOCH_BITS {
        kind::MESSAGE => Frame::Message(wire::read(&rest)?),
        kind::PART => Frame::Part {
            bytes: rest,
            is_last: false,
        },
        kind::LAST_PART => Frame::Part {
            bytes: rest,
            is_last: true,
        },
        kind::CHANGES => Frame::Changes(take_changes(rest)?),
        kind::WHOLE => {
            let index = take(&mut rest)?;
            Frame::Changes(vec![(index, Change::Whole(rest))])
        }
        kind::OVERWRITE => {
            let (index, at) = take(&mut rest)?;
            Frame::Changes(vec![(index, Change::Overwrite { at, bytes: rest })])
        }
        kind::SPLICE => {
            let (index, at, cut) = take(&mut rest)?;
            Frame::Changes(vec![(index, Change::Splice { at, cut, bytes: rest })])
        }
        other => return Err(WireError::new(format!("no frame begins with {other}"))),
    };
    Ok((first & epoch_bits(u32::MAX), frame))
}

/// Whether a frame with these bits is about session `epoch`.
pub(crate) fn is_about(bits: u8, epoch: u32) -> bool {
    bits == epoch_bits(epoch)
}

/// What several changes are, one after the other.
fn take_changes(mut rest: Bytes) -> Result<Vec<(u16, Change)>, WireError> {
    let mut changes = vec![take_change(&mut rest)?];
    while !rest.is_empty() {
        changes.push(take_change(&mut rest)?);
    }
    Ok(changes)
}

fn take_change(rest: &mut Bytes) -> Result<(u16, Change), WireError> {
    let first: u32 = take(rest)?;
    let index = u16::try_from(first >> several::BITS)
        .map_err(|_| WireError::new("no public type has a number as large"))?;
    let change = match first & ((1 << several::BITS) - 1) {
        several::GONE => Change::Gone,
        several::WHOLE => Change::Whole(take_bytes(rest)?),
        several::OVERWRITE => Change::Overwrite {
            at: take(rest)?,
            bytes: take_bytes(rest)?,
        },
        _ => Change::Splice {
            at: take(rest)?,
            cut: take(rest)?,
            bytes: take_bytes(rest)?,
        },
    };
    Ok((index, change))
}

/// Takes bytes that have their length before them, without a copy.
fn take_bytes(rest: &mut Bytes) -> Result<Bytes, WireError> {
    let length: u32 = take(rest)?;
    let length = length as usize;
    if length > rest.len() {
        return Err(WireError::new("it ends before its last change does"));
    }
    Ok(rest.split_to(length))
}

/// Takes what `bytes` begin with.
fn take<T: serde::de::DeserializeOwned>(bytes: &mut Bytes) -> Result<T, WireError> {
    let (value, used) = wire::read_first(bytes)?;
    bytes.advance(used);
    Ok(value)
}
