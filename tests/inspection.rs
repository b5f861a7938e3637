//! What inspectors, remote tools and scenes see of the crate's components through reflection, and what they can't do.

#[path = "support/server.rs"]
mod support;

use bevy::{
    prelude::*,
    reflect::{TypePath, serde::TypedReflectSerializer, tuple_struct::DynamicTupleStruct},
};
use bevy_player_data::prelude::*;
use support::*;

/// The crate's component as a tool that knows only its name gets at it.
fn by_name<C: TypePath>(app: &App) -> ReflectComponent {
    let registry = app.world().resource::<AppTypeRegistry>().read();
    let registration = registry
        .get_with_type_path(C::type_path())
        .unwrap_or_else(|| panic!("`{}` is not registered", C::type_path()));
    registration
        .data::<ReflectComponent>()
        .expect("a component can be reached as one")
        .clone()
}

/// What such a tool prints.
fn shown<C: Component + TypePath>(app: &App, entity: Entity) -> Option<String> {
    let registry = app.world().resource::<AppTypeRegistry>().read();
    let value = by_name::<C>(app).reflect(app.world().entity(entity))?;
    let serializer = TypedReflectSerializer::new(value.as_partial_reflect(), &registry);
    Some(serde_json::to_string(&serializer).expect("it can be spelled"))
}

#[test]
fn a_tool_sees_who_a_player_is_and_in_which_state() {
    let mut app = server(MemoryStore::default(), quick("a"));
    let ada = app.join("ada");
    assert_eq!(
        PlayerSession::type_path(),
        "bevy_player_data::player::PlayerSession"
    );
    assert_eq!(
        shown::<PersistentPlayer>(&app, ada),
        Some(format!("\"{}\"", id("ada"))),
        "the id as people write it"
    );
    assert!(shown::<PlayerLoading>(&app, ada).is_some());
    assert_eq!(shown::<PlayerSession>(&app, ada), None);
    app.until("ada is loaded", |world| {
        world.entity(ada).contains::<PlayerSession>()
    });
    assert_eq!(
        shown::<PlayerSession>(&app, ada),
        Some("{\"first_join\":true}".to_owned())
    );
    app.set(ada, OwnPlayer);
    for seen in [shown::<OwnPlayer>(&app, ada), shown::<OwnPurchases>(&app, ada)] {
        assert!(seen.is_some());
    }
    for (name, is_known) in [
        ("LoadDelayed", by_name::<LoadDelayed>(&app)),
        ("PlayerFallback", by_name::<PlayerFallback>(&app)),
        ("SaveBlocked", by_name::<SaveBlocked>(&app)),
        ("SaveUnderWay", by_name::<SaveUnderWay>(&app)),
        ("PlayerClient", by_name::<PlayerClient>(&app)),
    ]
    .map(|(name, component)| (name, component.reflect(app.world().entity(ada)).is_none()))
    {
        assert!(is_known, "{name} is registered, and not on this player");
    }
}

#[test]
fn a_tool_can_not_forge_a_session() {
    let store = MemoryStore::default();
    let mut app = server(store.connect(), quick("a"));
    let ada = app.join_and_load("ada");
    let bystander = app.world_mut().spawn(Coins(5)).id();
    let session = by_name::<PlayerSession>(&app);
    let forged = app.component::<PlayerSession>(ada).expect("she is loaded");
    let registry = app.world().resource::<AppTypeRegistry>().clone();

    let mut entity = app.world_mut().entity_mut(bystander);
    session.insert(&mut entity, &forged, &registry.read());
    session.copy(&World::new(), app.world_mut(), ada, bystander, &registry.read());
    app.update();
    assert!(
        app.component::<PlayerSession>(bystander).is_none(),
        "nobody but the crate says that there is a session"
    );
}

#[test]
fn a_tool_that_changes_an_immutable_component_in_place_is_refused_without_a_panic() {
    let mut app = server(MemoryStore::default(), quick("a"));
    let ada = app.join_and_load("ada");
    let eve = DynamicTupleStruct::from_iter([Box::new(id("eve")) as Box<dyn PartialReflect>]);
    let player = by_name::<PersistentPlayer>(&app);
    player.apply(app.world_mut().entity_mut(ada), &eve);
    assert!(player.reflect_mut(app.world_mut().entity_mut(ada)).is_none());
    assert_eq!(
        app.component::<PersistentPlayer>(ada),
        Some(PersistentPlayer(id("ada")))
    );
}

#[test]
fn a_tool_that_spawns_a_player_loads_it() {
    let mut app = server(MemoryStore::default(), quick("a"));
    let entity = app.world_mut().spawn_empty().id();
    let player = by_name::<PersistentPlayer>(&app);
    let registry = app.world().resource::<AppTypeRegistry>().clone();
    player.insert(
        &mut app.world_mut().entity_mut(entity),
        &PersistentPlayer(id("ada")),
        &registry.read(),
    );
    app.until("ada is loaded", |world| {
        world.entity(entity).contains::<PlayerSession>()
    });
}
