//! Sending values: those that differ from what the client has, and large messages in parts.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bevy::{platform::collections::HashSet, prelude::*};
use bytes::Bytes;
use tracing::error;

use super::Teller;
use crate::replication::{change::Change, frame, link::Transfer, protocol, public_types::PublicTypes};

/// What a frame costs beside its changes, at most: its first byte, and how many they are.
const FRAME_OVERHEAD: usize = 1 + 3;

impl Teller<'_> {
    /// Sends the values that differ from what the client has.
    pub(super) fn tell_changes(&mut self) -> bool {
        let Some(watched) = &mut self.link.watched else {
            return true;
        };
        let Ok(entity) = self.players.get(watched.entity) else {
            return true;
        };
        let mut dirty = std::mem::take(&mut watched.dirty);
        while self.link.flow.has_room() && self.tell_some_changes(&mut dirty, entity) {}
        self.continue_transfer();
        let is_done = dirty.is_empty() && self.link.transfer.is_none();
        if let Some(watched) = &mut self.link.watched {
            watched.dirty = dirty;
        }
        is_done
    }

    /// Sends one frame with changes. Returns false when that was all that can be done for now.
    fn tell_some_changes(&mut self, dirty: &mut BTreeSet<u16>, entity: EntityRef<'_>) -> bool {
        let limit = self.link.flow.part();
        let (mut changes, mut values) = (Vec::new(), Vec::new());
        let mut size = FRAME_OVERHEAD;
        for index in dirty.iter().copied().collect::<Vec<_>>() {
            if self.must_wait(index, limit) {
                continue;
            }
            let new = match self.encoder.encode(self.types, index, entity) {
                Encoded::Value(bytes) => Some(bytes),
                Encoded::Absent => None,
                Encoded::Failed => {
                    dirty.remove(&index);
                    continue;
                }
            };
            let old = self.sent(index);
            if old == new.as_ref() {
                dirty.remove(&index);
                continue;
            }
            let change = Change::between(old, new.as_ref());
            let length = change.len() + Change::OVERHEAD;
            if length + FRAME_OVERHEAD > limit {
                if self.link.transfer.is_none() {
                    self.start_transfer(index, change, new);
                    dirty.remove(&index);
                }
            } else if size + length > limit {
                break; // It goes into the next frame.
            } else {
                size += length;
                changes.push((index, change));
                values.push((index, new));
            }
        }
        if changes.is_empty() {
            return false;
        }
        let frame = frame::changes(self.link.epoch, &changes);
        if self.outlet.send(self.link, frame).is_none() {
            return false;
        }
        for (index, new) in values {
            dirty.remove(&index);
            self.set_sent(index, new);
        }
        !dirty.is_empty()
    }

    /// Whether a value has to wait for the one that is being sent in parts, because it is that one, or because it was
    /// large as well when it was last sent and would be encoded for nothing.
    fn must_wait(&self, index: u16, limit: usize) -> bool {
        self.link.transfer.as_ref().is_some_and(|transfer| {
            let was_large = self.sent(index).is_some_and(|bytes| bytes.len() > limit);
            transfer.value == Some(index) || was_large
        })
    }

    /// What the client has of a value.
    fn sent(&self, index: u16) -> Option<&Bytes> {
        self.link.watched.as_ref()?.sent.get(usize::from(index))?.as_ref()
    }

    fn set_sent(&mut self, index: u16, bytes: Option<Bytes>) {
        let sent = self
            .link
            .watched
            .as_mut()
            .and_then(|watched| watched.sent.get_mut(usize::from(index)));
        if let Some(sent) = sent {
            *sent = bytes;
        }
    }

    fn start_transfer(&mut self, index: u16, change: Change, new: Option<Bytes>) {
        self.link.transfer = Some(Transfer {
            bytes: frame::changes(self.link.epoch, &[(index, change)]).into(),
            value: Some(index),
        });
        self.set_sent(index, new);
    }

    pub(super) fn continue_transfer(&mut self) {
        let limit = self.link.flow.part();
        while self.link.flow.has_room_for_part()
            && let Some(transfer) = &self.link.transfer
        {
            let length = transfer.bytes.len().min(limit);
            let is_last = length == transfer.bytes.len();
            let part = frame::part(self.link.epoch, is_last, &transfer.bytes[..length]);
            if self.outlet.send(self.link, part).is_none() {
                return;
            }
            if is_last {
                self.link.transfer = None;
            } else if let Some(transfer) = &mut self.link.transfer {
                transfer.bytes = transfer.bytes.slice(length..);
            }
        }
    }
}

/// What became of a value on its way to bytes.
pub(super) enum Encoded {
    Value(Bytes),
    Absent,
    Failed,
}

/// What spells public components.
#[derive(Default)]
pub(in crate::replication) struct Encoder {
    /// Into this it spells them, so that what is kept takes just the memory that it needs.
    buffer: Vec<u8>,
    /// Public types that could not be encoded, which is said once.
    unencodable: HashSet<u16>,
}

/// The most of the buffer that is kept, in bytes. A value that is larger is rare, or costs more than its buffer.
const MAX_BUFFER: usize = 64 * 1024;

impl Encoder {
    /// The bytes of a public component. That it can't be encoded is said once per type.
    pub(super) fn encode(&mut self, types: &PublicTypes, index: u16, entity: EntityRef<'_>) -> Encoded {
        let Some(data_type) = types.get(index) else {
            return Encoded::Absent;
        };
        let bytes = &mut self.buffer;
        bytes.clear();
        bytes.shrink_to(MAX_BUFFER);
        // One player's odd value must not take the server down with everybody on it.
        let written = catch_unwind(AssertUnwindSafe(|| data_type.codec.write_wire(entity, bytes)));
        let problem = match written {
            Err(_) => "its `Serialize` panicked".to_owned(),
            Ok(None) => return Encoded::Absent,
            Ok(Some(Ok(()))) if bytes.len() <= protocol::TO_CLIENT_LIMIT / 2 => {
                return Encoded::Value(Bytes::copy_from_slice(bytes));
            }
            Ok(Some(Ok(()))) => format!("it takes {} bytes, more than a message may have", bytes.len()),
            Ok(Some(Err(problem))) => problem.to_string(),
        };
        if self.unencodable.insert(index) {
            error!(
                "key `{}` (`{}`) can't be sent to its owner: {problem}",
                data_type.key, data_type.type_name
            );
        }
        Encoded::Failed
    }
}
