//! Which components are a player's data, and how each is stored and sent.
//!
//! The module owns the [`PlayerData`] trait, the `app.persist::<T>()` family and the table that they fill. It promises
//! that the table is sound (no key twice, no type twice, no resource, no relationship) and that it no longer changes
//! after the first update. It knows how to turn one component into bytes and back; when that happens is left to
//! `server`, `replication` and `client`.

use std::{any::TypeId, sync::Arc};

use bevy::{
    ecs::{component::ComponentId, resource::IsResource},
    prelude::*,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::document::{MigrateError, StoredValue};

mod codec;
mod insert;
mod rule;
#[cfg(feature = "server")]
mod track;
pub(crate) mod wire;

#[cfg(feature = "server")]
pub(crate) use codec::DecodeError;
pub(crate) use codec::{Codec, TypedCodec};
pub(crate) use insert::{ComponentValue, insert_together};
pub use rule::Rule;
#[cfg(feature = "server")]
pub(crate) use track::ChangeLog;

/// A component that is part of a player's saved data.
///
/// ```
/// # use bevy::prelude::*;
/// # use bevy_player_data::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Component, Serialize, Deserialize, Default)]
/// struct CheatScore(f32);
///
/// impl PlayerData for CheatScore {
///     const KEY: &'static str = "cheat_score";
///     const PRIVATE: bool = true;
///     const VERSION: u32 = 2;
///
///     fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
///         match from {
///             1 => old.map(|percent: f64| CheatScore(percent as f32 / 100.0)),
///             _ => Err(MigrateError::unknown(from)),
///         }
///     }
/// }
/// ```
///
/// For a type from another crate, use a [`Rule`].
pub trait PlayerData: Component + Serialize + DeserializeOwned {
    /// The name under which the component is stored. Never change it: stored data is found by it.
    const KEY: &'static str;

    /// Whether the component is the server's secret: stored, but never sent to any client.
    const PRIVATE: bool = false;

    /// The version of the component's stored form. Raise it with every change that `#[serde(default)]` on a new field
    /// doesn't cover, and add a step to [`migrate`](Self::migrate).
    ///
    /// Data stored with a higher version than this is refused and left as it is.
    const VERSION: u32 = 1;

    /// The lowest [`VERSION`](Self::VERSION) of the code that may read what this code writes.
    ///
    /// By default that is this very version. Lower it only if older code reads the new form correctly *and* may lose
    /// what it doesn't know of it: once older code changes the component, it stores it in the old form.
    const OLDEST_READER: u32 = Self::VERSION;

    /// Turns the stored form of version `from` into that of version `from + 1`.
    ///
    /// Called once for each version between the stored one and [`VERSION`](Self::VERSION), in order.
    ///
    /// # Errors
    /// An error makes the load fail; the stored bytes stay as they are.
    fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
        let _ = old;
        Err(MigrateError::unknown(from))
    }
}

/// Declares the components that make up a player's data.
///
/// Call these in any order, before or after the plugin is added, on the server and on the client alike; types that only
/// the server registers must be [`PRIVATE`](PlayerData::PRIVATE).
///
/// # Panics
/// Each of these panics, naming the type, when the key is empty or already taken, when the type is already persisted,
/// is a resource or a relationship, or when the app has already run its first update.
pub trait PersistAppExt {
    /// Persists `T`: every loaded player has one. A player for whom none was ever stored gets the default.
    fn persist<T: PlayerData + Default>(&mut self) -> &mut Self;

    /// Persists `T` for players that have one: it is absent until the game inserts it, and gone for good when the game
    /// removes it.
    fn persist_optional<T: PlayerData>(&mut self) -> &mut Self;

    /// Persists a type that can't implement [`PlayerData`], because it comes from another crate.
    fn persist_with<T: Component + Serialize + DeserializeOwned>(&mut self, rule: Rule<T>) -> &mut Self;
}

impl PersistAppExt for App {
    fn persist<T: PlayerData + Default>(&mut self) -> &mut Self {
        self.persist_with(Rule::of_player_data(Some(T::default)))
    }

    fn persist_optional<T: PlayerData>(&mut self) -> &mut Self {
        self.persist_with(Rule::<T>::of_player_data(None))
    }

    fn persist_with<T: Component + Serialize + DeserializeOwned>(&mut self, rule: Rule<T>) -> &mut Self {
        let world = self.world_mut();
        let component = world.register_component::<T>();
        refuse_unsuitable::<T>(world, component);
        world
            .get_resource_or_init::<Registry>()
            .add(DataType::new(component, rule));
        self
    }
}

fn refuse_unsuitable<T: Component>(world: &mut World, component: ComponentId) {
    let name = std::any::type_name::<T>();
    let is_resource = world.register_component::<IsResource>();
    let info = world
        .components()
        .get_info(component)
        .expect("registered by the caller");
    assert!(
        !info.required_components().iter_ids().any(|id| id == is_resource),
        "`{name}` is a resource, and there is only one of it: persist a component of its own on the player's entity"
    );
    assert!(
        T::relationship_accessor().is_none(),
        "`{name}` is a relationship, and entity ids mean nothing after a restart: persist a stable id instead"
    );
}

/// One persisted component type.
pub(crate) struct DataType {
    pub(crate) key: &'static str,
    pub(crate) type_name: &'static str,
    pub(crate) component: ComponentId,
    pub(crate) private: bool,
    /// Whether every player has one.
    #[cfg(feature = "server")]
    pub(crate) required: bool,
    pub(crate) version: u32,
    #[cfg(feature = "server")]
    pub(crate) oldest_reader: u32,
    pub(crate) codec: Box<dyn Codec>,
    rust_type: TypeId,
}

impl DataType {
    fn new<T: Component + Serialize + DeserializeOwned>(component: ComponentId, rule: Rule<T>) -> Self {
        Self {
            key: rule.key,
            type_name: std::any::type_name::<T>(),
            component,
            private: rule.private,
            #[cfg(feature = "server")]
            required: rule.default.is_some(),
            version: rule.version,
            #[cfg(feature = "server")]
            oldest_reader: rule.oldest_reader,
            rust_type: TypeId::of::<T>(),
            codec: Box::new(TypedCodec::new(rule)),
        }
    }
}

/// The table while it is being filled, and the frozen table afterwards.
#[derive(Resource)]
pub(crate) enum Registry {
    Open(Vec<DataType>),
    Frozen(Arc<DataTypes>),
}

impl Default for Registry {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

impl Registry {
    fn add(&mut self, new: DataType) {
        let Self::Open(types) = self else {
            panic!(
                "`{}` is persisted too late: the first update has already run, and players may have been loaded \
                 without it; persist every type while the app is being built",
                new.type_name
            );
        };
        assert!(
            !new.key.is_empty(),
            "`{}` has an empty key: its data could not be found again",
            new.type_name
        );
        for old in types.iter() {
            assert!(
                old.rust_type != new.rust_type,
                "`{}` is persisted twice, under the keys `{}` and `{}`",
                new.type_name,
                old.key,
                new.key
            );
            assert!(
                old.key != new.key,
                "`{}` and `{}` are both persisted under the key `{}`: give each a key of its own",
                old.type_name,
                new.type_name,
                new.key
            );
        }
        types.push(new);
    }

    /// Closes the table; from here on it never changes.
    pub(crate) fn freeze(world: &mut World) -> Arc<DataTypes> {
        let mut registry = world.get_resource_or_init::<Self>();
        if let Self::Open(types) = &mut *registry {
            *registry = Self::Frozen(Arc::new(DataTypes::new(std::mem::take(types))));
        }
        match &*registry {
            Self::Frozen(types) => Arc::clone(types),
            Self::Open(_) => unreachable!("frozen just above"),
        }
    }
}

/// Makes the table close at the start of the app's first update. May be called more than once.
///
/// In [`PreStartup`] and not in `Plugin::finish`, which never runs in tests that call `App::update` by hand.
pub(crate) fn freeze_at_first_update(app: &mut App) {
    app.init_resource::<Registry>();
    if !app.is_plugin_added::<FreezePlugin>() {
        app.add_plugins(FreezePlugin);
    }
}

struct FreezePlugin;

impl Plugin for FreezePlugin {
    fn build(&self, app: &mut App) {
        app.add_systems(PreStartup, freeze_registry);
    }
}

/// Closes the table. Systems that need it frozen in [`PreStartup`] run after this one.
pub(crate) fn freeze_registry(world: &mut World) {
    Registry::freeze(world);
}

/// Every persisted type, in the order of the keys. A type's place in it is what the wire names it by.
pub(crate) struct DataTypes {
    types: Vec<DataType>,
    protocol: u64,
}

impl DataTypes {
    fn new(mut types: Vec<DataType>) -> Self {
        types.sort_by_key(|data_type| data_type.key);
        let protocol = protocol_hash(types.iter().filter(|data_type| !data_type.private));
        Self { types, protocol }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, DataType> {
        self.types.iter()
    }

    /// The types that are sent to their owner, in the order of the keys: the same list on server and client, or
    /// [`protocol`](Self::protocol) differs.
    pub(crate) fn public(&self) -> impl Iterator<Item = &DataType> {
        self.types.iter().filter(|data_type| !data_type.private)
    }

    /// A hash of the public types' keys and versions: server and client must agree on it.
    pub(crate) const fn protocol(&self) -> u64 {
        self.protocol
    }
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the same on every platform and in every build,
/// unlike the standard library's hashers.
fn protocol_hash<'a>(types: impl Iterator<Item = &'a DataType>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for data_type in types {
        feed(&(data_type.key.len() as u64).to_le_bytes());
        feed(data_type.key.as_bytes());
        feed(&data_type.version.to_le_bytes());
    }
    hash
}
