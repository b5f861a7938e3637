//! How a type from another crate is persisted.

use bevy::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use super::PlayerData;
use crate::document::{MigrateError, StoredValue};

/// Says how to persist a component that can't implement [`PlayerData`], because it comes from another crate.
///
/// ```
/// # use bevy::prelude::*;
/// # use bevy_player_data::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Component, Serialize, Deserialize, Default)]
/// # struct SpawnPoint { x: f32, y: f32 } // stands for somebody else's type
/// fn shared_data(app: &mut App) {
///     app.persist_with(Rule::<SpawnPoint>::new("spawn_point").private());
/// }
/// ```
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "only a server stores, so some of it is for servers only")
)]
pub struct Rule<T> {
    pub(super) key: &'static str,
    pub(super) private: bool,
    pub(super) version: u32,
    pub(super) oldest_reader: u32,
    pub(super) migrate: fn(u32, StoredValue) -> Result<StoredValue, MigrateError>,
    pub(super) default: Option<fn() -> T>,
}

impl<T: Component + Serialize + DeserializeOwned> Rule<T> {
    /// Every loaded player has one, as with [`persist`](super::PersistAppExt::persist).
    #[must_use]
    pub fn new(key: &'static str) -> Self
    where
        T: Default,
    {
        Self {
            default: Some(T::default),
            ..Self::optional(key)
        }
    }

    /// Absent until the game inserts it, as with [`persist_optional`](super::PersistAppExt::persist_optional).
    #[must_use]
    pub fn optional(key: &'static str) -> Self {
        Self {
            key,
            private: false,
            version: 1,
            oldest_reader: 1,
            migrate: |from, _| Err(MigrateError::unknown(from)),
            default: None,
        }
    }

    /// Stored, but never sent to any client. See [`PlayerData::PRIVATE`].
    #[must_use]
    pub fn private(self) -> Self {
        Self {
            private: true,
            ..self
        }
    }

    /// The version of the stored form (1 if never called) and the steps that lead to it.
    /// See [`PlayerData::VERSION`] and [`PlayerData::migrate`].
    #[must_use]
    pub fn version(
        self,
        version: u32,
        migrate: fn(u32, StoredValue) -> Result<StoredValue, MigrateError>,
    ) -> Self {
        Self {
            version,
            oldest_reader: version,
            migrate,
            ..self
        }
    }

    /// The lowest version of the code that may read what this code writes. See [`PlayerData::OLDEST_READER`].
    #[must_use]
    pub fn oldest_reader(self, version: u32) -> Self {
        Self {
            oldest_reader: version,
            ..self
        }
    }

    pub(super) fn of_player_data(default: Option<fn() -> T>) -> Self
    where
        T: PlayerData,
    {
        Self {
            key: T::KEY,
            private: T::PRIVATE,
            version: T::VERSION,
            oldest_reader: T::OLDEST_READER,
            migrate: T::migrate,
            default,
        }
    }
}
