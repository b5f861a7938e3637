//! One connection to a server: counting what arrived, putting parts together, and leaving out what is out of date.

use bevy::prelude::*;

use crate::{
    id::PlayerId,
    registry::wire::WireError,
    replication::protocol::{self, Frame, FrameKind, TO_CLIENT_LIMIT, ToClient},
};

/// What the client knows about its connection.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) has_said_hello: bool,
    /// How many frames have arrived.
    pub(super) frames: u64,
    /// How many of them the server knows to have been applied.
    pub(super) acknowledged: u64,
    /// The session that the server speaks of; 0 before the first.
    pub(super) epoch: u32,
    pub(super) mirror: Option<Mirror>,
    /// The beginning of a message that comes in parts.
    parts: Vec<u8>,
    /// Whether something that could not be read was complained about.
    pub(super) has_complained: bool,
}

/// The entity that shows the player's data.
#[derive(Clone, Copy)]
pub(super) struct Mirror {
    pub(super) entity: Entity,
    pub(super) player: PlayerId,
}

/// Why a frame is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("it can't be read: {0}")]
    Unreadable(#[from] WireError),
    #[error("its parts have more than {TO_CLIENT_LIMIT} bytes")]
    TooLarge,
}

impl Connection {
    /// Takes in a frame, and returns the message that it completes, unless that is about a session that is over.
    pub(super) fn take_in(&mut self, frame: &[u8]) -> Result<Option<ToClient>, FrameError> {
        self.frames += 1;
        let Frame { epoch, kind, bytes } = protocol::decode(frame)?;
        let message: ToClient = match kind {
            FrameKind::Whole => protocol::decode(&bytes)?,
            _ if epoch != self.epoch => return Ok(None),
            FrameKind::Part => {
                self.append(&bytes)?;
                return Ok(None);
            }
            FrameKind::LastPart => {
                self.append(&bytes)?;
                protocol::decode(&std::mem::take(&mut self.parts))?
            }
        };
        match message {
            ToClient::Refused { .. } | ToClient::Welcome | ToClient::Goodbye { .. } => {
                return Ok(Some(message));
            }
            ToClient::Loading { .. } => {
                self.epoch = epoch;
                self.parts = Vec::new();
            }
            _ if epoch != self.epoch => return Ok(None),
            ToClient::Ended { .. } => self.parts = Vec::new(),
            _ => {}
        }
        Ok(Some(message))
    }

    fn append(&mut self, part: &[u8]) -> Result<(), FrameError> {
        if self.parts.len() + part.len() > TO_CLIENT_LIMIT {
            self.parts = Vec::new();
            return Err(FrameError::TooLarge);
        }
        self.parts.extend_from_slice(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(epoch: u32, kind: FrameKind, bytes: &[u8]) -> Bytes {
        protocol::encode(&Frame {
            epoch,
            kind,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    fn whole(epoch: u32, message: &ToClient) -> Bytes {
        frame(epoch, FrameKind::Whole, &protocol::encode(message))
    }

    fn loading() -> ToClient {
        ToClient::Loading {
            player: PlayerId::from_name("ada"),
        }
    }

    fn changed(size: usize) -> ToClient {
        ToClient::Changed {
            values: vec![(0, Some(vec![7; size].into()))],
        }
    }

    #[test]
    fn a_message_in_parts_is_put_together_with_whole_ones_in_between() {
        let mut connection = Connection::default();
        connection.take_in(&whole(1, &loading())).expect("it can be read");
        let big = protocol::encode(&changed(1000));
        assert_eq!(
            connection
                .take_in(&frame(1, FrameKind::Part, &big[..400]))
                .expect("a part"),
            None
        );
        assert_eq!(
            connection.take_in(&whole(1, &changed(1))).expect("a message"),
            Some(changed(1))
        );
        assert_eq!(
            connection
                .take_in(&frame(1, FrameKind::Part, &big[400..900]))
                .expect("a part"),
            None
        );
        let last = connection
            .take_in(&frame(1, FrameKind::LastPart, &big[900..]))
            .expect("a message");
        assert_eq!(last, Some(changed(1000)));
        assert_eq!(connection.frames, 5);
    }

    #[test]
    fn what_is_about_a_session_that_is_over_is_left_out() {
        let mut connection = Connection::default();
        connection.take_in(&whole(1, &loading())).expect("it can be read");
        let big = protocol::encode(&changed(1000));
        connection
            .take_in(&frame(1, FrameKind::Part, &big[..400]))
            .expect("a part");
        connection.take_in(&whole(2, &loading())).expect("it can be read");
        assert_eq!(
            connection.take_in(&whole(1, &changed(1))).expect("a message"),
            None
        );
        assert_eq!(
            connection
                .take_in(&frame(1, FrameKind::LastPart, &big[400..]))
                .expect("a part"),
            None
        );
        let whole_again = connection
            .take_in(&frame(2, FrameKind::LastPart, &big))
            .expect("a message");
        assert_eq!(whole_again, Some(changed(1000)), "the old part was forgotten");
    }

    #[test]
    fn parts_without_end_are_refused() {
        let mut connection = Connection::default();
        connection.take_in(&whole(1, &loading())).expect("it can be read");
        let part = frame(1, FrameKind::Part, &vec![0; 1024 * 1024]);
        let refused = (0..=TO_CLIENT_LIMIT / (1024 * 1024)).find_map(|_| connection.take_in(&part).err());
        assert!(matches!(refused, Some(FrameError::TooLarge)));
    }
}
