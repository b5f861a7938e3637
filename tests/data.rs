//! Stored data meets code that is older, newer, or expects something else.

#[path = "support/server.rs"]
mod support;

use std::collections::BTreeMap;

use bevy::prelude::*;
use bevy_player_data::{
    document::{Document, Entry},
    prelude::*,
    testing::assert_round_trip,
};
use serde::{Deserialize, Serialize};
use support::*;

fn server_with<T: PlayerData + Default>(store: MemoryStore) -> App {
    let mut app = bare_server(store, quick("a"));
    app.persist::<T>();
    app
}

#[track_caller]
fn fails_to_load(mut app: App, name: &str) -> (App, Entity, LoadError) {
    let entity = app.join(name);
    app.until("the load ends", |world| {
        !world.entity(entity).contains::<PlayerLoading>()
    });
    let fallback = app
        .component::<PlayerFallback>(entity)
        .expect("the load was expected to fail");
    (app, entity, fallback.reason().clone())
}

/// Gold was once silver, was once copper, was once nothing but a number of text.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Purse {
    gold: u64,
}

impl PlayerData for Purse {
    const KEY: &'static str = "purse";
    const VERSION: u32 = 3;

    fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
        match from {
            0 => old.try_map(|text: String| text.parse::<u64>()),
            1 => old.map(|copper: u64| copper / 10),
            2 => old.map(|silver: u64| Purse { gold: silver / 10 }),
            _ => Err(MigrateError::unknown(from)),
        }
    }
}

#[test]
fn three_migrations_run_once_each_and_in_order_and_the_newest_version_is_stored() {
    let store = MemoryStore::default();
    put(&store, "ada", &with_value("purse", 0, &"1200"));
    let mut app = server_with::<Purse>(store.clone());
    let ada = app.join_and_load("ada");
    assert_eq!(app.component::<Purse>(ada), Some(Purse { gold: 12 }));
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(
        decoded::<Purse>(&stored(&store, "ada"), "purse"),
        (3, Purse { gold: 12 })
    );
    let ada = app.join_and_load("ada");
    assert_eq!(
        app.component::<Purse>(ada),
        Some(Purse { gold: 12 }),
        "a migration ran again"
    );
}

#[test]
fn a_migration_that_fails_leaves_the_bytes_and_the_lock_as_they_were() {
    let store = MemoryStore::default();
    put(&store, "ada", &with_value("purse", 0, &"a lot"));
    let before = row(&store, "ada").unwrap().document;
    let (mut app, ada, error) = fails_to_load(server_with::<Purse>(store.clone()), "ada");
    assert!(
        matches!(&error, LoadError::Corrupt { message } if message.contains("purse")),
        "{error}"
    );
    app.leave(ada);
    app.until("the lock is given back", |_| !is_locked(&store, "ada"));
    assert_eq!(row(&store, "ada").unwrap().document, before);
}

#[test]
fn data_newer_than_the_code_is_refused_and_left_as_it_is() {
    let store = MemoryStore::default();
    put(&store, "ada", &with_value("purse", 4, &Purse { gold: 1 }));
    let before = row(&store, "ada").unwrap().document;
    let (mut app, ada, error) = fails_to_load(server_with::<Purse>(store.clone()), "ada");
    assert!(matches!(&error, LoadError::Newer { .. }), "{error}");
    assert_eq!(
        app.component::<Purse>(ada),
        Some(Purse::default()),
        "the player plays on defaults"
    );
    app.set(ada, Purse { gold: 1_000_000 });
    assert_eq!(app.save(ada, "ada"), Err(SaveError::NoSession));
    app.leave(ada);
    app.exit();
    assert_eq!(
        row(&store, "ada").unwrap().document,
        before,
        "defaults were saved over real data"
    );
    assert!(!is_locked(&store, "ada"));
}

#[test]
fn a_stored_field_that_the_code_does_not_know_is_newer_data() {
    #[derive(Serialize)]
    struct NewerPurse {
        gold: u64,
        gems: u64,
    }

    let store = MemoryStore::default();
    put(
        &store,
        "ada",
        &with_value("purse", 3, &NewerPurse { gold: 1, gems: 7 }),
    );
    let (_, _, error) = fails_to_load(server_with::<Purse>(store.clone()), "ada");
    assert!(
        matches!(&error, LoadError::Newer { message } if message.contains("gems")),
        "{error}"
    );
    assert!(!is_locked(&store, "ada"));
}

#[test]
fn newer_data_that_says_so_may_be_read_and_stays_as_it_is_until_it_changes() {
    let store = MemoryStore::default();
    let mut document = Document::new();
    let value = StoredValue::encode(&BTreeMap::from([("gold", 5_u64), ("gems", 7)])).unwrap();
    document.set(
        "purse",
        Entry::Value {
            version: 4,
            oldest_reader: 3,
            value: value.clone(),
        },
    );
    put(&store, "ada", &document);
    let mut app = server_with::<Purse>(store.clone());
    let ada = app.join_and_load("ada");
    assert_eq!(app.component::<Purse>(ada), Some(Purse { gold: 5 }));
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(
        stored(&store, "ada"),
        document,
        "unchanged newer data was rewritten"
    );

    let ada = app.join_and_load("ada");
    app.set(ada, Purse { gold: 6 });
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    assert_eq!(
        decoded::<Purse>(&stored(&store, "ada"), "purse"),
        (3, Purse { gold: 6 })
    );
}

#[test]
fn keys_that_this_server_does_not_know_survive_byte_for_byte() {
    let store = MemoryStore::default();
    let mut document = with_value("pets", 9, &["cat", "dog"]);
    document.tombstone("zombies");
    put(&store, "ada", &document);
    let mut app = server_with::<Coins>(store.clone());
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    let after = stored(&store, "ada");
    assert_eq!(after.get("pets"), document.get("pets"));
    assert_eq!(after.get("zombies"), Some(&Entry::Tombstone));
    assert_eq!(stored_value::<Coins>(&store, "ada"), Some(Coins(1)));
}

#[test]
fn bytes_that_are_no_document_are_left_alone_and_no_lock_stays_behind() {
    for bytes in [b"garbage".to_vec(), vec![], vec![0; 4096]] {
        let store = MemoryStore::default();
        put_bytes(&store, "ada", bytes.clone());
        let (mut app, ada, error) = fails_to_load(server_with::<Coins>(store.clone()), "ada");
        assert!(matches!(error, LoadError::Corrupt { .. }), "{error}");
        assert!(!is_locked(&store, "ada"));
        app.set(ada, Coins(5));
        app.leave(ada);
        app.exit();
        assert_eq!(
            row(&store, "ada").unwrap().document.unwrap(),
            bytes,
            "unreadable bytes were overwritten"
        );
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    x: i32,
    y: i32,
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default)]
struct Odd {
    by_place: BTreeMap<Place, String>,
    floats: Vec<f32>,
    largest: u64,
    empty: String,
    long: String,
    nothing: Option<u8>,
}

impl PlayerData for Odd {
    const KEY: &'static str = "odd";
}

#[test]
fn odd_values_come_back_equal() {
    let odd = Odd {
        by_place: BTreeMap::from([(Place { x: -1, y: 2 }, "home".to_owned())]),
        floats: vec![f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE],
        largest: u64::MAX,
        empty: String::new(),
        long: "x".repeat(1 << 20),
        nothing: None,
    };
    assert_round_trip(&odd);

    let store = MemoryStore::default();
    let mut app = server_with::<Odd>(store);
    let ada = app.join_and_load("ada");
    app.set(ada, odd.clone());
    assert_eq!(app.leave_and_save(ada, "ada"), Ok(()));
    let ada = app.join_and_load("ada");
    let back = app.component::<Odd>(ada).unwrap();
    assert_eq!(back.by_place, odd.by_place);
    assert!(
        back.floats
            .iter()
            .zip(&odd.floats)
            .all(|(a, b)| a.to_bits() == b.to_bits())
    );
    assert_eq!(
        (back.largest, back.empty, back.nothing),
        (odd.largest, odd.empty, odd.nothing)
    );
    assert_eq!(back.long, odd.long);
}

/// Stands for a type from another crate.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Spot {
    x: f32,
}

#[test]
fn a_type_from_another_crate_is_persisted_by_a_rule() {
    let store = MemoryStore::default();
    let mut app = bare_server(store.clone(), quick("a"));
    app.persist_with(Rule::<Spot>::new("spawn_point").version(2, |_, old| old.map(|x: f32| Spot { x })));
    put(&store, "ada", &with_value("spawn_point", 1, &2.5_f32));
    let ada = app.join_and_load("ada");
    assert_eq!(app.component::<Spot>(ada), Some(Spot { x: 2.5 }));
    let bob = app.join_and_load("bob");
    assert_eq!(app.component::<Spot>(bob), Some(Spot::default()));
}

#[test]
fn a_document_above_the_limit_is_refused_with_its_size_and_heaviest_key_and_the_session_lives() {
    let store = MemoryStore::default();
    let mut settings = quick("a");
    settings.document_limit = 1000;
    let mut app = server(store.clone(), settings);
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(1));
    assert_eq!(app.save(ada, "ada"), Ok(()));

    app.set(ada, Guild("g".repeat(2000)));
    match app.save(ada, "ada") {
        Err(SaveError::TooLarge {
            bytes,
            limit,
            heaviest,
            heaviest_bytes,
        }) => {
            assert_eq!((limit, heaviest.as_str()), (1000, "guild"));
            assert!(bytes > 2000 && heaviest_bytes >= 2000);
        }
        other => panic!("a document that is too large gave {other:?}"),
    }
    assert!(
        app.component::<SaveBlocked>(ada).is_some(),
        "the game can see that saves are refused"
    );
    assert!(
        app.component::<PlayerSession>(ada).is_some(),
        "the session goes on"
    );

    app.set(ada, Guild("small".to_owned()));
    app.set(ada, Coins(2));
    assert_eq!(app.save(ada, "ada"), Ok(()), "a later, smaller save works");
    assert!(app.component::<SaveBlocked>(ada).is_none());

    app.set(ada, Guild("g".repeat(2000)));
    let result = app.leave_and_save(ada, "ada");
    assert!(
        matches!(result, Err(SaveError::TooLarge { .. })),
        "the loss is reported"
    );
    assert!(!is_locked(&store, "ada"), "the lock is given back all the same");
    assert_eq!(
        stored_value::<Coins>(&store, "ada"),
        Some(Coins(2)),
        "what was saved before stays"
    );
}

/// Cannot always be encoded.
#[derive(Component, Deserialize, Clone, Debug, Default)]
struct Moody {
    mood: u8,
}

impl Serialize for Moody {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.mood {
            0 => serializer.collect_map([("mood", 0_u8)]),
            1 => Err(serde::ser::Error::custom("not today")),
            _ => panic!("never again"),
        }
    }
}

impl PlayerData for Moody {
    const KEY: &'static str = "moody";
}

#[test]
fn a_component_that_errs_or_panics_while_it_is_encoded_fails_that_save_only() {
    let store = MemoryStore::default();
    let mut app = server(store.clone(), quick("a"));
    app.persist::<Moody>();
    let ada = app.join_and_load("ada");
    for mood in [1, 2] {
        app.set(ada, Moody { mood });
        app.set(ada, Coins(u64::from(mood)));
        let result = app.save(ada, "ada");
        assert!(
            matches!(&result, Err(SaveError::Encode { key, .. }) if key == "moody"),
            "{result:?}"
        );
    }
    app.set(ada, Moody { mood: 0 });
    assert_eq!(app.save(ada, "ada"), Ok(()));
    assert_eq!(
        stored_value::<Coins>(&store, "ada"),
        Some(Coins(2)),
        "what changed meanwhile is in the next save"
    );
    app.set(ada, Moody { mood: 2 });
    assert!(app.leave_and_save(ada, "ada").is_err());
    assert!(!is_locked(&store, "ada"));
}
