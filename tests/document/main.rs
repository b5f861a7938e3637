//! A player's stored form: the disk format, what comes back, and what is refused.
#![cfg(feature = "server")]

mod fields;
mod format;
mod values;

use bevy_player_data::document::StoredValue;
use bytes::Bytes;

fn raw(bytes: &[u8]) -> StoredValue {
    StoredValue::from_bytes(Bytes::copy_from_slice(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
