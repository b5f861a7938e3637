//! What inspectors, remote tools and scenes may do with the crate's components: look at all of them, forge none.
//!
//! A [`PlayerSession`](crate::player::PlayerSession) is proof that a session is held, so it must not come into the world
//! because a tool or a scene file says so. Bevy's own [`ReflectComponent`] would let it, and panics when an immutable
//! component is changed in place. The ones that are registered here refuse both, with a warning.

use std::any::TypeId;

use bevy::{
    ecs::reflect::{ReflectComponent, ReflectComponentFns},
    prelude::*,
    reflect::{FromType, GetTypeRegistration, TypePath, TypeRegistry, Typed},
};
use tracing::warn;

use crate::player::{
    LoadDelayed, OwnPlayer, OwnPurchases, PersistentPlayer, PlayerClient, PlayerFallback, PlayerLoading,
    PlayerSession, SaveBlocked, SaveUnderWay,
};

/// Registers the components that both sides know.
pub(crate) fn register(app: &mut App) {
    app.register_type::<OwnPlayer>();
    register_in(app, replaceable::<PersistentPlayer>);
    register_in(app, replaceable::<PlayerClient>);
    register_in(app, read_only::<PlayerLoading>);
    register_in(app, read_only::<LoadDelayed>);
    register_in(app, read_only::<PlayerSession>);
    register_in(app, read_only::<PlayerFallback>);
    register_in(app, read_only::<SaveBlocked>);
    register_in(app, read_only::<SaveUnderWay>);
    register_in(app, read_only::<OwnPurchases>);
}

/// Registers a component with what `access` gives.
pub(crate) fn register_in<C: Reflected>(app: &mut App, access: impl FnOnce() -> Access<C>) {
    let registry = app.world_mut().get_resource_or_init::<AppTypeRegistry>().clone();
    let mut registry = registry.write();
    registry.register::<C>();
    if let Some(registration) = registry.get_mut(TypeId::of::<C>()) {
        registration.insert(ReflectComponent::new(access().0));
    }
}

/// What a component needs to be shown.
pub(crate) trait Reflected: Component + Reflect + TypePath + Typed + GetTypeRegistration {}
impl<C: Component + Reflect + TypePath + Typed + GetTypeRegistration> Reflected for C {}

/// What may be done with a component of type `C`.
pub(crate) struct Access<C>(ReflectComponentFns, std::marker::PhantomData<C>);

/// An immutable component that anybody may insert, but not change in place.
fn replaceable<C: Reflected>() -> Access<C> {
    let mut access = <ReflectComponent as FromType<C>>::from_type()
        .fn_pointers()
        .clone();
    access.apply = |_, _| refuse::<C>("changed in place: insert it anew");
    access.reflect_mut = |_| None;
    access.reflect_unchecked_mut = |_| None;
    Access(access, std::marker::PhantomData)
}

/// A component that only this crate inserts.
pub(crate) fn read_only<C: Reflected>() -> Access<C> {
    const BY: &str = "inserted through reflection: only `bevy_player_data` does so";
    let Access(mut access, of) = replaceable::<C>();
    access.insert = |_, _: &dyn PartialReflect, _: &TypeRegistry| refuse::<C>(BY);
    access.apply_or_insert_mapped = |_, _, _, _, _| refuse::<C>(BY);
    access.copy = |_, _, _, _, _| refuse::<C>(BY);
    Access(access, of)
}

fn refuse<C: TypePath>(what: &str) {
    warn!("a `{}` can't be {what}", C::short_type_path());
}
