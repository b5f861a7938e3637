//! Inserting any set of components in one structural change.
//!
//! Observers of `On<Add, T>` may look at the player's other components, so they must all be there at once. Bevy's tool
//! for that, [`BundleWriter`](bevy::ecs::bundle::BundleWriter), is `unsafe` with one contract: everything pushed and
//! written must be of one world. Here it is one function that holds a single `EntityWorldMut` throughout.
#![expect(
    unsafe_code,
    reason = "the only way to insert a set of components known at run time in one structural change"
)]

use bevy::{
    ecs::{
        bundle::{BundleScratch, BundleWriter},
        component::ComponentsRegistrator,
    },
    prelude::*,
};

/// A component's value whose type is known only to itself.
pub(crate) trait ComponentValue: Send + Sync {
    /// Moves the component into `writer`.
    ///
    /// # Safety
    /// `components` must be of the world that everything else was pushed for and that `writer` will write to.
    unsafe fn push(self: Box<Self>, components: &mut ComponentsRegistrator, writer: &mut BundleWriter<'_>);
}

impl<T: Component> ComponentValue for T {
    unsafe fn push(self: Box<Self>, components: &mut ComponentsRegistrator, writer: &mut BundleWriter<'_>) {
        // SAFETY: the caller's promise is the same.
        unsafe { writer.push_component(components, *self) };
    }
}

/// Inserts all `values` at once, replacing components that the entity already has. Hooks run in the order of `values`.
pub(crate) fn insert_together(
    entity: &mut EntityWorldMut<'_>,
    values: impl IntoIterator<Item = Box<dyn ComponentValue>>,
) {
    let mut scratch = BundleScratch::default();
    let mut writer = scratch.writer();
    entity.world_scope(|world| {
        let mut components = world.components_registrator();
        for value in values {
            // SAFETY: `components` is always that of `entity`'s world.
            unsafe { value.push(&mut components, &mut writer) };
        }
    });
    // SAFETY: everything was pushed with the components of `entity`'s own world.
    unsafe { writer.write(entity) };
}
