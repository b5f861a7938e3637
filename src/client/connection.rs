//! One connection to a server: counting what arrived, putting parts and patches together, and leaving out what is out of
//! date.

use std::collections::BTreeMap;

use bevy::prelude::*;
use bytes::Bytes;

use crate::{
    id::PlayerId,
    registry::wire::WireError,
    replication::{
        change::{Change, Misfit},
        frame::{self, Frame},
        protocol::{TO_CLIENT_LIMIT, ToClient},
    },
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
    /// The bytes of each public value, by the number of its type: what patches are applied to.
    values: BTreeMap<u16, Bytes>,
    /// The beginning of a frame that comes in parts.
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

/// What a frame tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Message(ToClient),
    /// The new bytes of these public types; `None` for one that is gone.
    Changed(Vec<(u16, Option<Bytes>)>),
}

/// Why a frame is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("it can't be read: {0}")]
    Unreadable(#[from] WireError),
    #[error("its parts have more than {TO_CLIENT_LIMIT} bytes")]
    TooLarge,
    #[error("it holds a part in a part")]
    PartInPart,
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

impl Connection {
    /// Takes in a frame, and returns what it tells, or completes, unless that is about a session that is over.
    pub(super) fn take_in(&mut self, frame: &Bytes) -> Result<Option<Told>, FrameError> {
        self.frames += 1;
        let (session, frame) = frame::read(frame)?;
        let Frame::Part { bytes, is_last } = frame else {
            return self.understand(session, frame);
        };
        if !frame::is_about(session, self.epoch) {
            return Ok(None);
        }
        self.append(&bytes)?;
        if !is_last {
            return Ok(None);
        }
        let (session, frame) = frame::read(&std::mem::take(&mut self.parts).into())?;
        self.understand(session, frame)
    }

    fn understand(&mut self, session: u8, frame: Frame) -> Result<Option<Told>, FrameError> {
        let is_current = frame::is_about(session, self.epoch);
        match frame {
            Frame::Part { .. } => Err(FrameError::PartInPart),
            Frame::Changes(changes) if is_current => {
                let values = changes
                    .into_iter()
                    .map(|(index, change)| self.change(index, change))
                    .collect::<Result<_, _>>()
                    // Whatever the server believes that we have, it is something else: only whole values are of use now.
                    .inspect_err(|_| self.values.clear())?;
                Ok(Some(Told::Changed(values)))
            }
            Frame::Changes(_) => Ok(None),
            Frame::Message(message) => {
                match &message {
                    ToClient::Refused { .. }
                    | ToClient::Welcome
                    | ToClient::Goodbye { .. }
                    | ToClient::GoTo { .. } => {}
                    ToClient::Loading { epoch, .. } => {
                        self.epoch = *epoch;
                        self.forget();
                    }
                    _ if !is_current => return Ok(None),
                    ToClient::Loaded { values, .. } => self.values.extend(values.iter().cloned()),
                    ToClient::Ended { .. } => self.forget(),
                    _ => {}
                }
                Ok(Some(Told::Message(message)))
            }
        }
    }

    fn change(&mut self, index: u16, change: Change) -> Result<(u16, Option<Bytes>), Misfit> {
        let new = change.apply(self.values.get(&index))?;
        match &new {
            Some(bytes) => self.values.insert(index, bytes.clone()),
            None => self.values.remove(&index),
        };
        Ok((index, new))
    }

    /// A session begins, or is over.
    fn forget(&mut self) {
        self.values.clear();
        self.parts = Vec::new();
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
    use super::*;
    use crate::replication::protocol::Outcome;

    fn connection() -> Connection {
        let mut connection = Connection::default();
        told(&mut connection, loading(1));
        connection
    }

    fn loading(epoch: u32) -> Vec<u8> {
        let player = PlayerId::from_name("ada");
        frame::message(epoch, &ToClient::Loading { player, epoch })
    }

    fn told(connection: &mut Connection, frame: Vec<u8>) -> Option<Told> {
        connection.take_in(&frame.into()).expect("it can be read")
    }

    fn big() -> Bytes {
        vec![7; 1000].into()
    }

    fn change(epoch: u32, change: Change) -> Vec<u8> {
        frame::changes(epoch, &[(0, change)])
    }

    fn changed(bytes: Bytes) -> Option<Told> {
        Some(Told::Changed(vec![(0, Some(bytes))]))
    }

    #[test]
    fn a_frame_in_parts_is_put_together_with_whole_ones_in_between() {
        let mut connection = connection();
        let frame = change(1, Change::Whole(big()));
        assert_eq!(told(&mut connection, frame::part(1, false, &frame[..400])), None);
        let small = Bytes::from_static(b"a");
        assert_eq!(
            told(&mut connection, change(1, Change::Whole(small.clone()))),
            changed(small)
        );
        assert_eq!(
            told(&mut connection, frame::part(1, false, &frame[400..900])),
            None
        );
        assert_eq!(
            told(&mut connection, frame::part(1, true, &frame[900..])),
            changed(big())
        );
        assert_eq!(connection.frames, 5);
    }

    #[test]
    fn what_is_about_a_session_that_is_over_is_left_out() {
        let mut connection = connection();
        let frame = change(1, Change::Whole(big()));
        told(&mut connection, frame::part(1, false, &frame[..400]));
        told(&mut connection, loading(2));
        assert_eq!(told(&mut connection, frame.clone()), None);
        assert_eq!(told(&mut connection, frame::part(1, true, &frame[400..])), None);
        let again = change(2, Change::Whole(big()));
        assert_eq!(
            told(&mut connection, frame::part(2, true, &again)),
            changed(big()),
            "the old part was forgotten"
        );
    }

    #[test]
    fn patches_continue_what_was_loaded_and_what_was_changed() {
        let mut connection = connection();
        let outcome = Outcome::Session { first_join: false };
        let values = vec![(0, Bytes::from_static(b"abcd"))];
        told(
            &mut connection,
            frame::message(1, &ToClient::Loaded { outcome, values }),
        );
        let overwrite = |at, bytes| Change::Overwrite {
            at,
            bytes: Bytes::from_static(bytes),
        };
        assert_eq!(
            told(&mut connection, change(1, overwrite(1, b"X"))),
            changed(Bytes::from_static(b"aXcd"))
        );
        assert_eq!(
            told(&mut connection, change(1, overwrite(2, b"Y"))),
            changed(Bytes::from_static(b"aXYd"))
        );
    }

    #[test]
    fn a_patch_that_does_not_fit_changes_nothing_and_no_patch_is_trusted_afterwards() {
        let mut connection = connection();
        told(
            &mut connection,
            change(1, Change::Whole(Bytes::from_static(b"abcd"))),
        );
        let patch = |at| Change::Overwrite {
            at,
            bytes: Bytes::from_static(b"X"),
        };
        for at in [4, 1] {
            let refused = connection.take_in(&change(1, patch(at)).into());
            assert!(matches!(refused, Err(FrameError::Misfit(_))), "{refused:?}");
        }
        let whole = Bytes::from_static(b"efgh");
        assert_eq!(
            told(&mut connection, change(1, Change::Whole(whole.clone()))),
            changed(whole)
        );
        assert_eq!(
            told(&mut connection, change(1, patch(1))),
            changed(Bytes::from_static(b"eXgh"))
        );
    }

    #[test]
    fn a_patch_never_continues_another_session() {
        let mut connection = connection();
        told(
            &mut connection,
            change(1, Change::Whole(Bytes::from_static(b"abcd"))),
        );
        told(&mut connection, loading(2));
        let bytes = Bytes::from_static(b"X");
        let refused = connection.take_in(&change(2, Change::Overwrite { at: 0, bytes }).into());
        assert!(matches!(refused, Err(FrameError::Misfit(_))), "{refused:?}");
    }

    #[test]
    fn parts_without_end_are_refused() {
        let mut connection = connection();
        let part = frame::part(1, false, &vec![0; 1024 * 1024]).into();
        let refused = (0..=TO_CLIENT_LIMIT / (1024 * 1024)).find_map(|_| connection.take_in(&part).err());
        assert!(matches!(refused, Some(FrameError::TooLarge)));
    }
}
