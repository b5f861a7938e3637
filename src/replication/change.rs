//! What becomes of one public value, in few bytes.
//!
//! The channel is reliable and ordered, so both ends know which bytes the client has of each value, and a change needs to
//! say only what differs: everything between the beginning and the end that the old and the new bytes have in common.

use bytes::Bytes;

#[cfg(feature = "client")]
use super::protocol::TO_CLIENT_LIMIT;

/// What becomes of a value whose bytes the client has, if there is one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The component is gone.
    Gone,
    /// These are all its bytes.
    Whole(Bytes),
    /// From `at` on, so many bytes as these are overwritten.
    Overwrite { at: u32, bytes: Bytes },
    /// From `at` on, `cut` bytes are replaced by these.
    Splice { at: u32, cut: u32, bytes: Bytes },
}

/// A change of bytes that aren't there.
#[cfg(feature = "client")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it changes bytes of a value that are not there")]
pub(crate) struct Misfit;

#[cfg(feature = "server")]
impl Change {
    /// What makes `new` of `old`.
    pub(crate) fn between(old: Option<&Bytes>, new: Option<&Bytes>) -> Self {
        let Some(new) = new else { return Self::Gone };
        old.and_then(|old| Self::patch(old, new))
            .unwrap_or_else(|| Self::Whole(new.clone()))
    }

    /// The same in fewer bytes than the whole has, if there is such a patch.
    fn patch(old: &Bytes, new: &Bytes) -> Option<Self> {
        let same = |(a, b): &(&u8, &u8)| a == b;
        let start = old.iter().zip(new.iter()).take_while(same).count();
        let (old_rest, new_rest) = (&old[start..], &new[start..]);
        let end = old_rest
            .iter()
            .rev()
            .zip(new_rest.iter().rev())
            .take_while(same)
            .count();
        let cut = old_rest.len() - end;
        let bytes = new.slice(start..new.len() - end);
        let at = u32::try_from(start).ok()?;
        if cut == bytes.len() {
            let is_shorter = bytes.len() + place(start) < new.len();
            is_shorter.then_some(Self::Overwrite { at, bytes })
        } else {
            let is_shorter = bytes.len() + place(start) + place(cut) < new.len();
            let cut = u32::try_from(cut).ok()?;
            is_shorter.then_some(Self::Splice { at, cut, bytes })
        }
    }
}

#[cfg(any(feature = "server", test))]
impl Change {
    /// What a change costs in a message beside its bytes, at most: its value's number, its kind, two places, its length.
    pub(crate) const OVERHEAD: usize = 3 + 1 + 5 + 5 + 5;

    /// How many bytes of the value it carries.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Gone => 0,
            Self::Whole(bytes) | Self::Overwrite { bytes, .. } | Self::Splice { bytes, .. } => bytes.len(),
        }
    }
}

/// How many bytes a place in a value takes up.
#[cfg(feature = "server")]
fn place(place: usize) -> usize {
    match place {
        0..=250 => 1,
        251..=0xffff => 3,
        _ => 5,
    }
}

#[cfg(feature = "client")]
impl Change {
    /// What it makes of `old`; `None` when the component is gone.
    pub(crate) fn apply(self, old: Option<&Bytes>) -> Result<Option<Bytes>, Misfit> {
        let (at, cut, bytes) = match self {
            Self::Gone => return Ok(None),
            Self::Whole(bytes) => return Ok(Some(bytes)),
            Self::Overwrite { at, bytes } => (at as usize, bytes.len(), bytes),
            Self::Splice { at, cut, bytes } => (at as usize, cut as usize, bytes),
        };
        let old = old.ok_or(Misfit)?;
        let (Some(start), Some(end)) = (old.get(..at), at.checked_add(cut).and_then(|end| old.get(end..)))
        else {
            return Err(Misfit);
        };
        if start.len() + bytes.len() + end.len() > TO_CLIENT_LIMIT {
            return Err(Misfit);
        }
        Ok(Some([start, &bytes, end].concat().into()))
    }
}

#[cfg(all(test, feature = "client", feature = "server"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    fn between(old: &[u8], new: &[u8]) -> Change {
        Change::between(Some(&bytes(old)), Some(&bytes(new)))
    }

    #[test]
    fn a_change_in_the_middle_says_only_what_differs() {
        let (at, cut) = (3, 2);
        let patch = Change::Overwrite {
            at,
            bytes: bytes(b"XY"),
        };
        assert_eq!(between(b"abcdefgh", b"abcXYfgh"), patch);
        let patch = Change::Splice {
            at,
            cut,
            bytes: bytes(b"XYZ"),
        };
        assert_eq!(between(b"abcdefghij", b"abcXYZfghij"), patch);
        let patch = Change::Splice {
            at,
            cut,
            bytes: bytes(b""),
        };
        assert_eq!(between(b"abcdefgh", b"abcfgh"), patch);
    }

    #[test]
    fn bytes_that_repeat_are_not_taken_for_both_beginning_and_end() {
        assert_eq!(
            between(b"aaaaaa", b"aaaa"),
            Change::Splice {
                at: 4,
                cut: 2,
                bytes: bytes(b"")
            }
        );
        assert_eq!(
            between(b"aaaa", b"aaaaaaaa"),
            Change::Splice {
                at: 4,
                cut: 0,
                bytes: bytes(b"aaaa")
            }
        );
    }

    #[test]
    fn a_value_with_little_in_common_goes_as_a_whole() {
        assert_eq!(between(b"ab", b"ax"), Change::Whole(bytes(b"ax")));
        assert_eq!(
            Change::between(None, Some(&bytes(b"abc"))),
            Change::Whole(bytes(b"abc"))
        );
        assert_eq!(Change::between(Some(&bytes(b"abc")), None), Change::Gone);
    }

    #[test]
    fn a_change_of_bytes_that_are_not_there_changes_nothing() {
        let old = bytes(b"abc");
        let overwrite = |at| Change::Overwrite {
            at,
            bytes: bytes(b"xy"),
        };
        assert_eq!(overwrite(1).apply(Some(&old)), Ok(Some(bytes(b"axy"))));
        assert_eq!(overwrite(2).apply(Some(&old)), Err(Misfit));
        assert_eq!(overwrite(9).apply(Some(&old)), Err(Misfit));
        assert_eq!(overwrite(0).apply(None), Err(Misfit));
        let splice = |at, cut| Change::Splice {
            at,
            cut,
            bytes: Bytes::new(),
        };
        assert_eq!(splice(3, 0).apply(Some(&old)), Ok(Some(old.clone())));
        assert_eq!(splice(1, u32::MAX).apply(Some(&old)), Err(Misfit));
    }

    proptest! {
        #[test]
        fn whatever_changes_arrives(
            old in proptest::collection::vec(0_u8..3, 0..40),
            new in proptest::collection::vec(0_u8..3, 0..40),
        ) {
            let (old, new) = (Bytes::from(old), Bytes::from(new));
            let change = Change::between(Some(&old), Some(&new));
            prop_assert!(change.len() <= new.len());
            prop_assert_eq!(change.apply(Some(&old)), Ok(Some(new)));
        }
    }
}
