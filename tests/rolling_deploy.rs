//! A fleet that is updated one server at a time: two versions of the game share a store, and players go back and forth.

#[path = "support/server.rs"]
mod support;

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use support::{Drive as _, bare_server, id, quick, row, stored_value};

/// The game before the update.
mod before {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
    pub struct Coins(pub u32);
    impl PlayerData for Coins {
        const KEY: &'static str = "coins";
    }

    #[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
    pub struct Level(pub u32);
    impl PlayerData for Level {
        const KEY: &'static str = "level";
    }

    pub fn data(app: &mut App) {
        app.persist::<Coins>().persist::<Level>();
    }
}

/// The game after the update: coins have a new form, and there are pets.
mod after {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
    pub struct Coins {
        pub gold: u32,
        pub silver: u32,
    }
    impl PlayerData for Coins {
        const KEY: &'static str = "coins";
        const VERSION: u32 = 2;

        fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
            match from {
                1 => old.map(|before::Coins(gold)| Coins { gold, silver: 0 }),
                _ => Err(MigrateError::unknown(from)),
            }
        }
    }

    #[derive(Component, Serialize, Deserialize, Clone, Debug, PartialEq)]
    pub struct Pet(pub String);
    impl PlayerData for Pet {
        const KEY: &'static str = "pet";
    }

    pub fn data(app: &mut App) {
        app.persist::<Coins>()
            .persist::<before::Level>()
            .persist_optional::<Pet>();
    }
}

/// An update that adds pets and changes nothing that was there.
fn with_pets(app: &mut App) {
    app.add_plugins(before::data).persist_optional::<after::Pet>();
}

fn start(store: &MemoryStore, name: &str, game: fn(&mut App)) -> App {
    let mut app = bare_server(store.connect(), quick(name));
    app.add_plugins(game);
    app
}

/// A visit: joins, does something, leaves and is saved.
#[track_caller]
fn visit(app: &mut App, name: &str, play: impl FnOnce(&mut App, Entity)) {
    let player = app.join_and_load(name);
    play(app, player);
    assert_eq!(app.leave_and_save(player, name), Ok(()));
}

#[test]
fn servers_are_updated_one_by_one_and_nobody_loses_anything() {
    let store = MemoryStore::default();
    let mut a = start(&store, "a", before::data);
    let mut b = start(&store, "b", before::data);
    visit(&mut a, "ada", |a, ada| a.set(ada, before::Coins(5)));
    visit(&mut b, "bob", |b, bob| b.set(bob, before::Coins(7)));

    // b goes out of service and comes back with the new version, while bob is on a and cyd is on b.
    let on_a = a.join_and_load("bob");
    let cyd = b.join_and_load("cyd");
    b.set(cyd, before::Coins(3));
    assert_eq!(b.exit(), AppExit::Success);
    let mut b = start(&store, "b", after::data);
    visit(&mut b, "cyd", |b, cyd| {
        let migrated = after::Coins { gold: 3, silver: 0 };
        assert_eq!(
            b.component(cyd),
            Some(migrated),
            "saved by the old b, migrated by the new one"
        );
    });
    visit(&mut b, "ada", |b, ada| {
        b.set(ada, after::Coins { gold: 5, silver: 2 });
        b.set(ada, after::Pet("owl".to_owned()));
    });

    // ada comes to a, which doesn't know the new form of coins yet.
    let before_visit = row(&store, "ada").expect("she was saved");
    let ada = a.join("ada");
    a.until("the load has failed", |world| {
        world.entity(ada).contains::<PlayerFallback>()
    });
    let refusal = a.component::<PlayerFallback>(ada).expect("it is there");
    assert!(matches!(refusal.reason(), LoadError::Newer { .. }), "{refusal:?}");
    assert_eq!(
        refusal.reason().for_player(),
        LoadError::Newer {
            message: "join an updated server".to_owned()
        },
        "she is told where to go"
    );
    a.set(ada, before::Coins(1_000_000));
    a.leave(ada);
    a.update();
    let after_visit = row(&store, "ada").expect("she is still there");
    assert_eq!(
        after_visit.document, before_visit.document,
        "nothing of that visit is kept"
    );
    assert!(after_visit.lock.is_none());

    // Whoever was not on an updated server plays on.
    a.set(on_a, before::Coins(8));
    assert_eq!(a.save(on_a, "bob"), Ok(()));

    // At last a is updated.
    assert_eq!(a.exit(), AppExit::Success);
    let mut a = start(&store, "a", after::data);
    visit(&mut a, "ada", |a, ada| {
        assert_eq!(a.component(ada), Some(after::Coins { gold: 5, silver: 2 }));
        assert_eq!(a.component(ada), Some(after::Pet("owl".to_owned())));
    });
    visit(&mut a, "bob", |a, bob| {
        assert_eq!(a.component(bob), Some(after::Coins { gold: 8, silver: 0 }));
    });
}

#[test]
fn an_update_that_only_adds_lets_players_go_back_and_forth() {
    let store = MemoryStore::default();
    let mut old = start(&store, "a", before::data);
    let mut new = start(&store, "b", with_pets);
    visit(&mut new, "ada", |new, ada| {
        new.set(ada, before::Coins(1));
        new.set(ada, after::Pet("owl".to_owned()));
    });
    for coins in 2..6 {
        visit(&mut old, "ada", |old, ada| old.set(ada, before::Coins(coins)));
        visit(&mut new, "ada", |new, ada| {
            assert_eq!(
                new.component(ada),
                Some(before::Coins(coins)),
                "what the old server saved"
            );
            assert_eq!(
                new.component(ada),
                Some(after::Pet("owl".to_owned())),
                "what the old server doesn't know"
            );
        });
    }
    assert_eq!(
        stored_value::<after::Pet>(&store, "ada"),
        Some(after::Pet("owl".to_owned()))
    );
    assert_eq!(row(&store, "ada").expect("a row").player, id("ada"));
}
