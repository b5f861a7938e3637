//! The one place that knows how values are spelled on the wire: `postcard`, with its variable-length integers.
//!
//! Both ends are the same build of the game (the handshake sees to it), so the form needs to be compact, not lasting:
//! nothing written here ever reaches the disk.

use serde::{Serialize, de::DeserializeOwned};

/// Why a value could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WireError(String);

impl WireError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

impl From<postcard::Error> for WireError {
    fn from(error: postcard::Error) -> Self {
        Self(error.to_string())
    }
}

/// Appends `value` to `out`.
pub(crate) fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), WireError> {
    postcard::to_io(value, out)?;
    Ok(())
}

/// Reads one value that takes up all of `bytes`. Whatever its length fields claim, no more is allocated for it than what
/// `bytes` can fill, and a mebibyte for each level at which they claim more.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(WireError::new(format!("{} bytes left over", rest.len())))
    }
}

/// Reads the value that `bytes` begin with, and says how many bytes it takes up.
#[cfg(feature = "client")]
pub(crate) fn read_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    Ok((value, bytes.len() - rest.len()))
}
