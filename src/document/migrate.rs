//! Taking a stored value from one data version to the next.
//!
//! Owns the helpers that a migration step is written with and the error that it may answer. Which steps run, and when, is
//! the registry's business.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::{StoredValue, ValueError};

impl StoredValue {
    /// Reads the value as the type that it was, and stores what `change` makes of it.
    ///
    /// A newtype struct is stored as what it wraps, so either can be named: `old.map(|v: f64| CheatScore(v as f32))`
    /// reads what a `struct CheatScore(f64)` has written.
    ///
    /// # Errors
    /// If what is stored isn't an `A` (see [`decode`](Self::decode); fields that `A` doesn't have are refused, so that
    /// only what the migration knows of is dropped), or the result cannot be [encoded](Self::encode).
    pub fn map<A, B>(self, change: impl FnOnce(A) -> B) -> Result<Self, MigrateError>
    where
        A: DeserializeOwned,
        B: Serialize,
    {
        Ok(Self::encode(&change(self.decode()?))?)
    }

    /// Like [`map`](Self::map), for a `change` that may refuse.
    ///
    /// # Errors
    /// As [`map`](Self::map), and whatever `change` answers, as [`MigrateError::custom`].
    pub fn try_map<A, B, E>(self, change: impl FnOnce(A) -> Result<B, E>) -> Result<Self, MigrateError>
    where
        A: DeserializeOwned,
        B: Serialize,
        E: fmt::Display,
    {
        Ok(Self::encode(
            &change(self.decode()?).map_err(MigrateError::custom)?,
        )?)
    }
}

/// Why a stored value could not be migrated. The stored bytes are as they were, and the player's data counts as not
/// loaded.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// There is no step from this version.
    #[error("no migration starts from version {from}: add that step to `migrate`")]
    Unknown {
        /// The stored version.
        from: u32,
    },
    /// The stored value isn't what the step expects, or its result cannot be stored.
    #[error("the migration failed: {0}")]
    Value(#[from] ValueError),
    /// The step itself refused.
    #[error("the migration refused the stored value: {reason}")]
    Custom {
        /// In the words of the step.
        reason: String,
    },
}

impl MigrateError {
    /// The answer for a version from which no step starts; the last arm of each `match from`.
    #[must_use]
    pub const fn unknown(from: u32) -> Self {
        Self::Unknown { from }
    }

    /// A refusal in the migration's own words.
    #[must_use]
    pub fn custom(reason: impl fmt::Display) -> Self {
        Self::Custom {
            reason: reason.to_string(),
        }
    }
}

impl fmt::Debug for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
