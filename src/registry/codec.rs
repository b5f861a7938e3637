//! One component type's way to bytes and back, with the type erased.

#[cfg(feature = "server")]
use bevy::ecs::schedule::Schedules;
use bevy::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use super::{ComponentValue, Rule, wire, wire::WireError};
#[cfg(feature = "server")]
use crate::document::{MigrateError, StoredValue, ValueError};

/// What can be done with a persisted component without knowing its type.
pub(crate) trait Codec: Send + Sync {
    /// The default of a type that every player has; `None` for an optional one.
    #[cfg(feature = "server")]
    fn default_value(&self) -> Option<Box<dyn ComponentValue>>;

    /// The component's stored form; `None` when the entity has none.
    #[cfg(feature = "server")]
    fn store(&self, entity: EntityRef<'_>) -> Option<Result<StoredValue, ValueError>>;

    /// Brings a stored form of `version` up to date, one migration a version, and decodes it.
    #[cfg(feature = "server")]
    fn load(
        &self,
        version: u32,
        oldest_reader: u32,
        stored: StoredValue,
    ) -> Result<Box<dyn ComponentValue>, DecodeError>;

    /// What a stored form becomes when it is loaded and stored again: in this code's version, and in any order.
    #[cfg(feature = "server")]
    fn store_again(
        &self,
        version: u32,
        oldest_reader: u32,
        stored: StoredValue,
    ) -> Result<StoredValue, DecodeError>;

    /// Appends the component's wire form to `out`; `None` when the entity has none.
    #[cfg(feature = "server")]
    fn write_wire(&self, entity: EntityRef<'_>, out: &mut Vec<u8>) -> Option<Result<(), WireError>>;

    /// Decodes a wire form.
    #[cfg(feature = "client")]
    fn read_wire(&self, bytes: &[u8]) -> Result<Box<dyn ComponentValue>, WireError>;

    /// Adds the system that notes in the [`ChangeLog`](super::ChangeLog) whose component of this type (number `index`)
    /// was changed or removed.
    #[cfg(feature = "server")]
    fn track_changes(&self, schedules: &mut Schedules, index: u16);
}

/// Why a stored component could not be loaded.
#[cfg(feature = "server")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it has version {stored}, and this code knows versions up to {known}")]
    NewerVersion { stored: u32, known: u32 },
    #[error("{0}")]
    UnknownField(ValueError),
    #[error("{0}")]
    Value(ValueError),
    #[error("migrating it from version {from} failed: {error}")]
    Migrate { from: u32, error: MigrateError },
    #[error("its `Deserialize`, its migration or its default panicked")]
    Panicked,
}

/// The codec of the type that a [`Rule`] is about.
pub(crate) struct TypedCodec<T> {
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only a server stores"))]
    rule: Rule<T>,
    #[cfg(all(feature = "server", debug_assertions))]
    checked: std::sync::atomic::AtomicBool,
}

impl<T> TypedCodec<T> {
    pub(crate) fn new(rule: Rule<T>) -> Self {
        Self {
            rule,
            #[cfg(all(feature = "server", debug_assertions))]
            checked: std::sync::atomic::AtomicBool::new(false),
        }
    }
}

#[cfg(feature = "server")]
impl<T: Component + Serialize + DeserializeOwned> TypedCodec<T> {
    fn decode(&self, version: u32, oldest_reader: u32, stored: StoredValue) -> Result<T, DecodeError> {
        let known = self.rule.version;
        let decoded: Result<T, _> = if version > known {
            if oldest_reader > known {
                return Err(DecodeError::NewerVersion {
                    stored: version,
                    known,
                });
            }
            stored.decode_lenient()
        } else {
            let current = (version..known).try_fold(stored, |value, from| {
                (self.rule.migrate)(from, value).map_err(|error| DecodeError::Migrate { from, error })
            })?;
            current.decode_lossless()
        };
        decoded.map_err(|error| match error {
            ValueError::UnknownField { .. } => DecodeError::UnknownField(error),
            error => DecodeError::Value(error),
        })
    }
}

impl<T: Component + Serialize + DeserializeOwned> Codec for TypedCodec<T> {
    #[cfg(feature = "server")]
    fn default_value(&self) -> Option<Box<dyn ComponentValue>> {
        self.rule
            .default
            .map(|default| Box::new(default()) as Box<dyn ComponentValue>)
    }

    #[cfg(feature = "server")]
    fn store(&self, entity: EntityRef<'_>) -> Option<Result<StoredValue, ValueError>> {
        let component = entity.get::<T>()?;
        #[cfg(debug_assertions)]
        if !self.checked.swap(true, std::sync::atomic::Ordering::Relaxed) {
            check(component, self.rule.key);
        }
        Some(StoredValue::encode(component))
    }

    #[cfg(feature = "server")]
    fn load(
        &self,
        version: u32,
        oldest_reader: u32,
        stored: StoredValue,
    ) -> Result<Box<dyn ComponentValue>, DecodeError> {
        let component = self.decode(version, oldest_reader, stored)?;
        Ok(Box::new(component))
    }

    #[cfg(feature = "server")]
    fn store_again(
        &self,
        version: u32,
        oldest_reader: u32,
        stored: StoredValue,
    ) -> Result<StoredValue, DecodeError> {
        let component = self.decode(version, oldest_reader, stored)?;
        StoredValue::encode(&component).map_err(DecodeError::Value)
    }

    #[cfg(feature = "server")]
    fn write_wire(&self, entity: EntityRef<'_>, out: &mut Vec<u8>) -> Option<Result<(), WireError>> {
        Some(wire::write(entity.get::<T>()?, out))
    }

    #[cfg(feature = "client")]
    fn read_wire(&self, bytes: &[u8]) -> Result<Box<dyn ComponentValue>, WireError> {
        wire::read::<T>(bytes).map(|component| Box::new(component) as Box<dyn ComponentValue>)
    }

    #[cfg(feature = "server")]
    fn track_changes(&self, schedules: &mut Schedules, index: u16) {
        super::track::add_tracker::<T>(schedules, index);
    }
}

/// Logs whether a component would come back from the disk as it is. What goes wrong in here fails no save.
#[cfg(all(feature = "server", debug_assertions))]
fn check<T: Serialize + DeserializeOwned>(component: &T, key: &str) {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    match catch_unwind(AssertUnwindSafe(|| crate::document::check_round_trip(component))) {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!("key `{key}` will not come back as it was saved: {error}"),
        Err(_) => tracing::error!("key `{key}` panics when it is read back as it was saved"),
    }
}
