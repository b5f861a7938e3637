//! What can't be persisted is refused when the app is built, by name.

#[path = "support/server.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize};
use support::*;

/// The message of the panic that `build` ends in.
#[track_caller]
fn refused(build: impl FnOnce(&mut App)) -> String {
    let mut app = bare_server(MemoryStore::default(), quick("a"));
    let panic = catch_unwind(AssertUnwindSafe(|| build(&mut app))).expect_err("it was accepted");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().expect("a panic with a text")).to_owned(),
    }
}

macro_rules! data {
    ($name:ident, $key:literal) => {
        #[derive(Component, Serialize, Deserialize, Default)]
        struct $name;
        impl PlayerData for $name {
            const KEY: &'static str = $key;
        }
    };
}
data!(First, "shared");
data!(Second, "shared");
data!(Nameless, "");

#[derive(Resource, Serialize, Deserialize, Default)]
struct Scoreboard;

#[derive(Component, Serialize, Deserialize)]
#[relationship(relationship_target = Followers)]
struct Follows {
    #[relationship]
    #[serde(skip, default = "nobody")]
    leader: Entity,
    since: u32,
}

fn nobody() -> Entity {
    Entity::PLACEHOLDER
}

#[derive(Component)]
#[relationship_target(relationship = Follows)]
struct Followers(Vec<Entity>);

#[test]
fn two_types_with_one_key() {
    let text = refused(|app| {
        app.persist::<First>().persist_optional::<Second>();
    });
    assert!(
        text.contains("First") && text.contains("Second") && text.contains("`shared`"),
        "{text}"
    );
}

#[test]
fn one_type_twice() {
    let text = refused(|app| {
        app.persist::<First>().persist_with(Rule::<First>::new("other"));
    });
    assert!(text.contains("First") && text.contains("twice"), "{text}");
}

#[test]
fn an_empty_key() {
    let text = refused(|app| {
        app.persist::<Nameless>();
    });
    assert!(text.contains("Nameless") && text.contains("empty key"), "{text}");
}

#[test]
fn a_resource() {
    let text = refused(|app| {
        app.persist_with(Rule::<Scoreboard>::new("scoreboard"));
    });
    assert!(text.contains("Scoreboard") && text.contains("resource"), "{text}");
}

#[test]
fn a_relationship() {
    let text = refused(|app| {
        app.persist_with(Rule::<Follows>::optional("follows"));
    });
    assert!(
        text.contains("Follows") && text.contains("relationship"),
        "{text}"
    );
}

#[test]
fn a_type_after_the_first_update() {
    let text = refused(|app| {
        app.update();
        app.persist::<First>();
    });
    assert!(text.contains("First") && text.contains("too late"), "{text}");
}

#[test]
fn types_may_be_persisted_before_and_after_the_plugin_is_added() {
    let mut app = bevy_player_data::testing::headless_app();
    app.persist::<Coins>();
    app.add_plugins(PlayerDataPlugin::server(MemoryStore::default()).with_settings(quick("a")));
    app.persist::<Inventory>().init_resource::<Heard>();
    let ada = app.join_and_load("ada");
    assert!(app.component::<Coins>(ada).is_some() && app.component::<Inventory>(ada).is_some());
}

#[test]
fn settings_that_cannot_work_together() {
    for (change, word) in [
        (
            (|settings| settings.beat = settings.lease_ttl) as fn(&mut ServerSettings),
            "beat",
        ),
        (
            |settings| settings.exit_deadline = settings.lease_ttl,
            "exit_deadline",
        ),
        (
            |settings| settings.autosave = Some(std::time::Duration::ZERO),
            "autosave",
        ),
        (|settings| settings.name = String::new(), "name"),
    ] {
        let text = refused(|_| {
            let mut settings = quick("a");
            change(&mut settings);
            let _ = bare_server(MemoryStore::default(), settings);
        });
        assert!(text.contains(word), "{text}");
    }
}
