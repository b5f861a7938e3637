//! How what the server says travels: in frames, each of which is one message of the channel.
//!
//! A frame's first byte says in its upper three bits what the rest is, and in the lower five which session it is about:
//! the last bits of the session's number. The channel keeps the order, so that much is enough to tell one session's
//! end from the next one's beginning. Most frames tell a small change of one value, and have two bytes beside it.

#[cfg(feature = "client")]
mod read;
#[cfg(any(feature = "server", test))]
mod write;

#[cfg(feature = "client")]
pub(crate) use read::{Frame, is_about, read};
#[cfg(any(feature = "server", test))]
pub(crate) use write::{changes, message, part};

/// The bits of a session's number that each frame has.
const EPOCH_BITS: u32 = 5;

fn epoch_bits(epoch: u32) -> u8 {
    (epoch & ((1 << EPOCH_BITS) - 1)) as u8
}

/// What follows a frame's first byte. The one number that is left begins no frame.
mod kind {
    /// A [`ToClient`](crate::replication::protocol::ToClient).
    pub(super) const MESSAGE: u8 = 0;
    /// A piece of a frame that is too large for one. Others may come in between.
    pub(super) const PART: u8 = 1;
    /// Its last piece.
    pub(super) const LAST_PART: u8 = 2;
    /// Several changes, each in the form that [`several`](super::several) describes.
    pub(super) const CHANGES: u8 = 3;
    /// The number of a public type and its [`Whole`](crate::replication::change::Change::Whole). Here and below the
    /// value's bytes come last, and their length goes without saying.
    pub(super) const WHOLE: u8 = 4;
    /// The number of a public type and its [`Overwrite`](crate::replication::change::Change::Overwrite).
    pub(super) const OVERWRITE: u8 = 5;
    /// The number of a public type and its [`Splice`](crate::replication::change::Change::Splice).
    pub(super) const SPLICE: u8 = 6;
}

/// What one of several changes is. It begins with the number of its public type, in whose lowest two bits this is, and
/// goes on like a frame with a single one; but its bytes have their length before them.
mod several {
    pub(super) const BITS: u32 = 2;
    pub(super) const GONE: u32 = 0;
    pub(super) const WHOLE: u32 = 1;
    pub(super) const OVERWRITE: u32 = 2;
    #[cfg(any(feature = "server", test))]
    pub(super) const SPLICE: u32 = 3;
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        id::PlayerId,
        replication::{change::Change, protocol::ToClient},
    };

    fn comes_back(frame: Vec<u8>, expected: &Frame) {
        let (epoch, read) = read(&frame.into()).expect("it was written");
        assert_eq!(read, *expected);
        assert!(is_about(epoch, 33) && is_about(epoch, 1) && !is_about(epoch, 2));
    }

    #[test]
    fn whatever_is_written_comes_back() {
        let bytes = Bytes::from_static(b"abc");
        let (at, cut) = (300, 2);
        let loading = ToClient::Loading {
            player: PlayerId::from_name("ada"),
            epoch: 33,
        };
        comes_back(message(33, &loading), &Frame::Message(loading));
        let alone = [
            Change::Gone,
            Change::Whole(bytes.clone()),
            Change::Overwrite {
                at,
                bytes: bytes.clone(),
            },
            Change::Splice {
                at,
                cut,
                bytes: bytes.clone(),
            },
        ];
        for change in &alone {
            let one = [(400, change.clone())];
            comes_back(changes(33, &one), &Frame::Changes(one.into()));
        }
        let all: Vec<_> = (0..).zip(alone).collect();
        comes_back(changes(33, &all), &Frame::Changes(all));
        for is_last in [false, true] {
            let bytes = bytes.clone();
            comes_back(part(33, is_last, b"abc"), &Frame::Part { bytes, is_last });
        }
    }

    #[test]
    fn a_small_change_has_two_bytes_beside_its_place_and_its_bytes() {
        let bytes = Bytes::from_static(b"c");
        let frame = changes(1, &[(2, Change::Overwrite { at: 9, bytes })]);
        assert_eq!(frame, [0b101_00001, 2, 9, b'c']);
    }

    #[test]
    fn each_of_several_changes_has_two_bytes_beside_its_place_and_its_bytes() {
        let bytes = Bytes::from_static(b"c");
        let overwrite = Change::Overwrite {
            at: 9,
            bytes: bytes.clone(),
        };
        let several = [(2, overwrite), (5, Change::Whole(bytes)), (6, Change::Gone)];
        let frame = changes(1, &several);
        assert_eq!(
            frame,
            [0b011_00001, 2 << 2 | 2, 9, 1, b'c', 5 << 2 | 1, 1, b'c', 6 << 2]
        );
    }

    #[test]
    fn what_begins_no_frame_or_ends_too_early_or_too_late_is_refused() {
        for bytes in [
            &[][..],
            &[0xff],
            &[0b100_00000],
            &[0b101_00000, 1],
            &[0b110_00000, 1, 2],
            &[0b011_00000],
            &[0b011_00000, 2 << 2 | 2, 9, 2, b'c'],
            &[0b011_00000, 1, 252, 0xff, 0xff, 0xff, 0xff],
            &[0b011_00000, 252, 0, 0, 4, 0],
            &[0b011_00000, 2 << 2, 0xff],
            &[0b000_00000, 1, 0],
        ] {
            assert!(read(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
