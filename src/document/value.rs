//! One component's stored form, and the strict way back.
//!
//! Owns the choice of MessagePack (field names, compact numbers) and the rule that nothing is dropped silently on the way
//! back: see [`StoredValue`] for both.

use std::{any::type_name, cell::Cell, fmt};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "server")]
use super::tree::Tree;
use super::{lossless, reader::Reader, wire};

/// One component's stored form: a single MessagePack value in which structs are maps from field name to value.
///
/// Cloning is cheap (the bytes are shared). Two values are equal when their bytes are.
///
/// # What comes back
///
/// Whatever serde can describe comes back equal: all integers up to 128 bits, floats bit by bit (NaN included), `char`,
/// strings and bytes of any length, unit structs, enums, maps with any key. Exceptions, all of them properties of the
/// type, which `testing::assert_round_trip` finds:
///
/// * `Some(None)` of an `Option<Option<T>>` and `Some(())` come back as `None`: MessagePack has one nil.
/// * 128-bit integers, and maps whose keys are not strings, inside `#[serde(flatten)]`, `#[serde(tag = …)]` or
///   `#[serde(untagged)]`: serde keeps these in a buffer that cannot hold all of them.
/// * A `Vec<u8>` costs one or two bytes each; `#[serde(with = "serde_bytes")]` makes it one.
///
/// ```
/// # use bevy_player_data::document::StoredValue;
/// # fn main() -> Result<(), bevy_player_data::document::ValueError> {
/// let stored = StoredValue::encode(&("sword", u64::MAX))?;
/// assert_eq!(stored.decode::<(String, u64)>()?, ("sword".to_owned(), u64::MAX));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StoredValue(Bytes);

/// The most that a thread keeps for its next value, in bytes.
const SCRATCH: usize = 64 * 1024;

/// Lends out an empty buffer that has grown already, so that what is kept of it takes just the memory that it needs.
fn with_scratch<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // A value that encodes another one within its `Serialize` finds none kept, and a new one does as well.
    let mut bytes = KEPT.take();
    bytes.clear();
    let written = write(&mut bytes);
    if bytes.capacity() <= SCRATCH {
        KEPT.set(bytes);
    }
    written
}

impl StoredValue {
    /// The stored form of `value`.
    ///
    /// # Errors
    /// [`ValueError::Encode`] if the type's `Serialize` fails, nests deeper than 128 levels or announces another number
    /// of elements than it then writes.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, ValueError> {
        let refused = |reason: String| ValueError::Encode {
            type_name: type_name::<T>(),
            reason,
        };
        with_scratch(|bytes| {
            value
                .serialize(&mut rmp_serde::Serializer::new(&mut *bytes).with_struct_map())
                .map_err(|error| refused(error.to_string()))?;
            // The serializer counts neither levels nor elements; what decoding would refuse must not get as far as the
            // disk.
            wire::check(bytes).map_err(|flaw| refused(flaw.to_string()))?;
            Ok(Self(Bytes::copy_from_slice(bytes)))
        })
    }

    /// Takes bytes that [`bytes`](Self::bytes) gave out. They are examined when they are decoded, not here.
    #[must_use]
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The MessagePack bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The value, provided that `T` accounts for every stored byte.
    ///
    /// Trailing bytes and fields that `T` doesn't have are refused: to save `T` again would drop them. Where serde
    /// buffers (`flatten`, `tag = …`, `untagged`) unknown fields are out of sight; a type that is going to be saved
    /// again wants [`decode_lossless`](Self::decode_lossless), which sees these too.
    ///
    /// # Errors
    /// [`ValueError::Malformed`], [`ValueError::Decode`], [`ValueError::UnknownField`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        self.decode_noting_buffers().map(|(value, _)| value)
    }

    /// Like [`decode`](Self::decode), and sees unknown fields where serde buffers as well. Use it for whatever will be
    /// encoded again.
    ///
    /// The rule: the value is encoded once more. A stored field that is missing then was either left out on purpose (a
    /// new `skip_serializing_if`, a new name with an `alias`) or never read. To tell, the field's stored value is
    /// replaced by values of other types: a field that the type reads makes decoding fail or changes the result. One
    /// that can be anything without making a difference is unknown to the type, and refused. A field that is meant to
    /// be read and thrown away (`IgnoredAny`) counts as unknown as well: dropping data takes a new version and a
    /// migration.
    ///
    /// A type that serde doesn't buffer pays nothing; others one encoding, and a comparison if the order of a hash map
    /// changed.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); and [`ValueError::Encode`], if the decoded value could not be saved again.
    pub fn decode_lossless<T: Serialize + DeserializeOwned>(&self) -> Result<T, ValueError> {
        let (value, is_buffered) = self.decode_noting_buffers()?;
        if is_buffered {
            lossless::check(self, &value)?;
        }
        Ok(value)
    }

    /// The value, ignoring fields that `T` doesn't have. For tools that only look: saving the result would lose data.
    ///
    /// # Errors
    /// [`ValueError::Malformed`], [`ValueError::Decode`].
    pub fn decode_lenient<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        self.read().map(|(value, _)| value)
    }

    /// Decodes strictly, and tells whether serde buffered a part of it.
    /// Whether both say the same, apart from the order of what may be a map or a set.
    #[cfg(feature = "server")]
    pub(crate) fn is_equivalent(&self, other: &Self) -> bool {
        let sorted = |value: &Self| Some(Tree::parse(value.bytes()).ok()?.sorted().to_stored());
        self == other || sorted(self).is_some_and(|this| sorted(other) == Some(this))
    }

    fn decode_noting_buffers<T: DeserializeOwned>(&self) -> Result<(T, bool), ValueError> {
        let (value, reader) = self.read()?;
        let is_buffered = reader.is_buffered();
        match reader.into_unknown() {
            None => Ok((value, is_buffered)),
            Some(path) => Err(ValueError::UnknownField {
                type_name: type_name::<T>(),
                path,
            }),
        }
    }

    fn read<T: DeserializeOwned>(&self) -> Result<(T, Reader<'_>), ValueError> {
        let mut reader = Reader::new(&self.0).map_err(|flaw| ValueError::Malformed {
            reason: flaw.to_string(),
        })?;
        let refused = |reason| ValueError::Decode {
            type_name: type_name::<T>(),
            reason,
        };
        match T::deserialize(&mut reader) {
            Ok(value) if reader.is_at_end() => Ok((value, reader)),
            Ok(_) => Err(refused("it reads only a part of what is stored".to_owned())),
            Err(error) => Err(refused(match reader.path() {
                path if path.is_empty() => error.to_string(),
                path => format!("{error}, at `{path}`"),
            })),
        }
    }
}

/// Short, since values can be megabytes and private.
impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredValue({} bytes)", self.0.len())
    }
}

/// Why a value cannot be stored, or a stored value not be read. The stored bytes are as they were.
///
/// The text may quote what is stored: log it, but don't show it to players other than the owner.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value has no stored form. What is stored already stays as it is.
    #[error("a `{type_name}` cannot be stored: {reason}")]
    Encode {
        /// The Rust type.
        type_name: &'static str,
        /// What serde, or the format, has against it.
        reason: String,
    },
    /// The stored bytes are not a MessagePack value. Decoding them as another type won't help.
    #[error("the stored value is damaged: {reason}")]
    Malformed {
        /// What is wrong with the bytes.
        reason: String,
    },
    /// The stored value is not one of this type. It needs a migration from the type that it was.
    #[error(
        "the stored value is not a `{type_name}`: {reason}; if the type changed, raise its VERSION and migrate"
    )]
    Decode {
        /// The Rust type.
        type_name: &'static str,
        /// What serde has against it.
        reason: String,
    },
    /// The stored value has a field that the type doesn't, so newer code has written it, or the field was removed or
    /// renamed without a new version. Saving would drop the field.
    #[error(
        "the stored field `{path}` is unknown to `{type_name}` and saving would drop it: it was written by newer code, or \
         the field was removed or renamed, which needs a new VERSION and a migration"
    )]
    UnknownField {
        /// The Rust type.
        type_name: &'static str,
        /// Where the field is, as `inventory.0.colour`.
        path: String,
    },
}

impl fmt::Debug for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
