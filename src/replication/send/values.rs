//! Sending values: those that differ from what the client has, and large messages in parts.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bevy::{platform::collections::HashSet, prelude::*};
use bytes::Bytes;
use tracing::error;

use super::Teller;
use crate::replication::{
    link::Transfer,
    protocol::{self, FrameKind, ToClient},
    public_types::PublicTypes,
};

/// What a value costs in a message beside its own bytes, at most: its number, whether it's there, its length.
const VALUE_OVERHEAD: usize = 3 + 1 + 5;

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

    /// Sends one message with changes. Returns false when that was all that can be done for now.
    fn tell_some_changes(&mut self, dirty: &mut BTreeSet<u16>, entity: EntityRef<'_>) -> bool {
        let limit = self.link.flow.part();
        let mut values = Vec::new();
        let mut size = VALUE_OVERHEAD;
        for index in dirty.iter().copied().collect::<Vec<_>>() {
            if self.must_wait(index, limit) {
                continue;
            }
            let new = match encode(self.types, self.unencodable, index, entity) {
                Encoded::Value(bytes) => Some(bytes),
                Encoded::Absent => None,
                Encoded::Failed => {
                    dirty.remove(&index);
                    continue;
                }
            };
            if self.sent(index) == Some(&new) {
                dirty.remove(&index);
                continue;
            }
            let length = new.as_ref().map_or(0, Bytes::len) + VALUE_OVERHEAD;
            if length + VALUE_OVERHEAD > limit {
                if self.link.transfer.is_none() {
                    self.start_transfer(index, new);
                    dirty.remove(&index);
                }
            } else if size + length > limit {
                break; // It goes into the next message.
            } else {
                size += length;
                values.push((index, new));
            }
        }
        if values.is_empty() {
            return false;
        }
        let message = ToClient::Changed { values };
        let is_said = self.say(&message);
        if is_said && let ToClient::Changed { values } = message {
            for (index, new) in values {
                dirty.remove(&index);
                self.set_sent(index, new);
            }
        }
        is_said && !dirty.is_empty()
    }

    /// Whether a value has to wait for the one that is being sent in parts, because it is that one, or because it was
    /// large as well when it was last sent and would be encoded for nothing.
    fn must_wait(&self, index: u16, limit: usize) -> bool {
        self.link.transfer.as_ref().is_some_and(|transfer| {
            let was_large = matches!(self.sent(index), Some(Some(bytes)) if bytes.len() > limit);
            transfer.value == Some(index) || was_large
        })
    }

    fn sent(&self, index: u16) -> Option<&Option<Bytes>> {
        self.link.watched.as_ref()?.sent.get(usize::from(index))
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

    fn start_transfer(&mut self, index: u16, new: Option<Bytes>) {
        let bytes = protocol::encode(&ToClient::Changed {
            values: vec![(index, new.clone())],
        });
        self.link.transfer = Some(Transfer {
            bytes,
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
            let part = transfer.bytes.slice(..length);
            let is_last = length == transfer.bytes.len();
            let kind = if is_last {
                FrameKind::LastPart
            } else {
                FrameKind::Part
            };
            if self.outlet.send(self.link, kind, part).is_none() {
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

/// The bytes of a public component. That it can't be encoded is said once per type.
pub(super) fn encode(
    types: &PublicTypes,
    unencodable: &mut HashSet<u16>,
    index: u16,
    entity: EntityRef<'_>,
) -> Encoded {
    let Some(data_type) = types.get(index) else {
        return Encoded::Absent;
    };
    let mut bytes = Vec::new();
    // One player's odd value must not take the server down with everybody on it.
    let written = catch_unwind(AssertUnwindSafe(|| {
        data_type.codec.write_wire(entity, &mut bytes)
    }));
    let problem = match written {
        Err(_) => "its `Serialize` panicked".to_owned(),
        Ok(None) => return Encoded::Absent,
        Ok(Some(Ok(()))) if bytes.len() <= protocol::TO_CLIENT_LIMIT / 2 => {
            return Encoded::Value(bytes.into());
        }
        Ok(Some(Ok(()))) => format!("it takes {} bytes, more than a message may have", bytes.len()),
        Ok(Some(Err(problem))) => problem.to_string(),
    };
    if unencodable.insert(index) {
        error!(
            "key `{}` (`{}`) can't be sent to its owner: {problem}",
            data_type.key, data_type.type_name
        );
    }
    Encoded::Failed
}
