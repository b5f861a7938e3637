//! One player's stored form: a map from key to data version and value, and the bytes that it becomes on disk.
//!
//! This module owns the disk format and nothing else: it does no I/O and knows neither Bevy nor components. It promises
//! that what it doesn't understand survives: a key that this server doesn't know and a component that did not change are
//! kept byte for byte, a stored field that the code doesn't know is refused rather than dropped, and bytes that are not
//! exactly a document are an error and never a panic. What a version means, and when to migrate, is left to the registry.
//!
//! # Layout
//!
//! * [`StoredValue`] is one component's stored form, MessagePack with field names. [`ValueError`] says why it is refused.
//! * [`MigrateError`] is what [`PlayerData::migrate`](crate::PlayerData::migrate) may answer.
//! * `Document` maps keys to `Entry`s; `Document::encode` and `Document::decode` speak the disk format, which
//!   `document/format.rs` specifies byte by byte.
//!
//! `Document` and its format are the server's; values and migration errors also exist in a client-only build, because
//! the trait that both sides implement names them.

#[cfg(feature = "server")]
mod entries;
#[cfg(feature = "server")]
mod format;
mod lossless;
mod migrate;
#[cfg(any(feature = "testing", all(feature = "server", debug_assertions)))]
mod nested_nil;
mod reader;
#[cfg(any(feature = "testing", all(feature = "server", debug_assertions)))]
mod round_trip;
mod tree;
mod value;
mod wire;

pub use migrate::MigrateError;
#[cfg(any(feature = "testing", all(feature = "server", debug_assertions)))]
pub(crate) use round_trip::check_round_trip;
pub use value::{StoredValue, ValueError};
#[cfg(feature = "server")]
pub use {
    entries::{Document, Entry},
    format::{Compression, DocumentError},
};
