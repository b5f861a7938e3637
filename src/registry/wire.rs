//! The one place that knows how values are spelled on the wire: `bincode`, with variable-length integers.
//!
//! Both ends are the same build of the game (the handshake sees to it), so the form needs to be compact, not lasting:
//! nothing written here ever reaches the disk.

use bincode::{config, error::DecodeError};
use serde::{Serialize, de::DeserializeOwned};

/// The largest value that is decoded, in bytes: whatever a length field claims, no more than this is allocated.
pub(crate) const LIMIT: usize = 64 * 1024 * 1024;

/// Why a value could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WireError(String);

impl WireError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// Appends `value` to `out`.
pub(crate) fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), WireError> {
    bincode::serde::encode_into_std_write(value, out, config::standard())
        .map(|_| ())
        .map_err(|error| WireError::new(error.to_string()))
}

/// Reads one value that takes up all of `bytes`.
#[cfg(feature = "client")]
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    read_within::<LIMIT, T>(bytes)
}

/// Reads one value that takes up all of `bytes`, and allocates no more than `MAX` bytes for it, whatever its length
/// fields claim: for bytes from somebody who may not be trusted.
pub(crate) fn read_within<const MAX: usize, T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (value, used) = read_first_within::<MAX, T>(bytes)?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(WireError::new(format!("{} bytes left over", bytes.len() - used)))
    }
}

/// Reads the value that `bytes` begin with, and says how many bytes it takes up.
#[cfg(feature = "client")]
pub(crate) fn read_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    read_first_within::<LIMIT, T>(bytes)
}

fn read_first_within<const MAX: usize, T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    let config = config::standard().with_limit::<MAX>();
    bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error: DecodeError| WireError::new(error.to_string()))
}
