//! Stored fields that the code doesn't know, and migrations.

use std::collections::{BTreeMap, HashMap};

use bevy_player_data::document::{DocumentError, MigrateError, StoredValue, ValueError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct NewStats {
    level: u32,
    mana: u32,
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct OldStats {
    level: u32,
}

#[test]
fn an_unknown_field_is_refused_by_its_path() {
    let newer = StoredValue::encode(&NewStats { level: 3, mana: 9 }).unwrap();
    assert_unknown(newer.decode::<OldStats>(), "mana");
    assert_eq!(newer.decode_lenient(), Ok(OldStats { level: 3 }));

    let nested =
        StoredValue::encode(&BTreeMap::from([("ada", vec![NewStats { level: 3, mana: 9 }])])).unwrap();
    assert_unknown(nested.decode::<BTreeMap<String, Vec<OldStats>>>(), "ada.0.mana");

    #[derive(Serialize, Deserialize, Debug)]
    enum New {
        Mage { spell: u8, school: u8 },
    }
    #[derive(Serialize, Deserialize, Debug)]
    enum Old {
        Mage { spell: u8 },
    }
    let newer = StoredValue::encode(&Some(New::Mage { spell: 1, school: 2 })).unwrap();
    assert_unknown(newer.decode::<Option<Old>>(), "school");
}

#[test]
fn an_added_field_with_a_default_is_no_loss() {
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Grown {
        level: u32,
        #[serde(default)]
        mana: u32,
    }
    let older = StoredValue::encode(&OldStats { level: 3 }).unwrap();
    assert_eq!(older.decode_lossless(), Ok(Grown { level: 3, mana: 0 }));
}

// serde buffers all of these, so that an unknown field vanishes out of sight of the deserializer.

#[derive(Serialize, Deserialize, Debug, PartialEq)]
pub struct Flat<T> {
    pub id: u32,
    #[serde(flatten)]
    pub stats: T,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(tag = "kind")]
pub enum Tagged<T> {
    Hero(T),
    Ghost { age: u32 },
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(tag = "kind", content = "value")]
enum Adjacent<T> {
    Hero(T),
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(untagged)]
pub enum Untagged<T> {
    Number(u32),
    Stats(T),
}

#[test]
fn an_unknown_field_is_refused_where_serde_buffers() {
    let (new, old) = (NewStats { level: 3, mana: 9 }, OldStats { level: 3 });

    let flat = StoredValue::encode(&Flat {
        id: 1,
        stats: new.clone(),
    })
    .unwrap();
    assert_unknown(flat.decode_lossless::<Flat<OldStats>>(), "mana");
    let tagged = StoredValue::encode(&[Tagged::Ghost { age: 1 }, Tagged::Hero(new.clone())]).unwrap();
    assert_unknown(tagged.decode_lossless::<Vec<Tagged<OldStats>>>(), "1.mana");
    let adjacent = StoredValue::encode(&Adjacent::Hero(new.clone())).unwrap();
    assert_unknown(adjacent.decode_lossless::<Adjacent<OldStats>>(), "value.mana");
    let untagged = StoredValue::encode(&(Untagged::<u8>::Number(1), Untagged::Stats(new))).unwrap();
    assert_unknown(
        untagged.decode_lossless::<(Untagged<OldStats>, Untagged<OldStats>)>(),
        "1.mana",
    );

    // And what is complete is not.
    assert_lossless(&Flat {
        id: 1,
        stats: old.clone(),
    });
    assert_lossless(&vec![Tagged::Ghost { age: 1 }, Tagged::Hero(old.clone())]);
    assert_lossless(&Adjacent::Hero(old.clone()));
    assert_lossless(&vec![Untagged::Number(1), Untagged::Stats(old)]);
    assert_lossless(&Flat {
        id: 1,
        stats: HashMap::from([("any".to_owned(), 1), ("other".to_owned(), 2)]),
    });
}

#[test]
fn an_unknown_field_with_a_value_that_looks_like_a_default_is_refused_as_well() {
    for mana in [0, 1] {
        let flat = StoredValue::encode(&Flat {
            id: 1,
            stats: NewStats { level: 3, mana },
        })
        .unwrap();
        assert_unknown(flat.decode_lossless::<Flat<OldStats>>(), "mana");
    }
    #[derive(Serialize)]
    struct WithNil {
        level: u32,
        guild: Option<u8>,
    }
    let flat = StoredValue::encode(&Flat {
        id: 1,
        stats: WithNil {
            level: 3,
            guild: None,
        },
    })
    .unwrap();
    assert_unknown(flat.decode_lossless::<Flat<OldStats>>(), "guild");
}

#[test]
fn a_known_field_that_is_no_longer_written_is_no_loss() {
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Sparing {
        #[serde(alias = "level")]
        rank: u32,
        #[serde(default = "full", skip_serializing_if = "is_full")]
        health: f32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guild: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        items: Vec<u8>,
        #[serde(default, skip_serializing)]
        legacy: u8,
        #[serde(default, deserialize_with = "or_zero", skip_serializing_if = "is_zero")]
        forgiving: u8,
    }
    fn full() -> f32 {
        0.8
    }
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_full(health: &f32) -> bool {
        *health == full()
    }
    fn is_zero(number: &u8) -> bool {
        *number == 0
    }
    fn or_zero<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u8),
            Other(serde::de::IgnoredAny),
        }
        Ok(
            if let Either::Number(number) = Either::deserialize(deserializer)? {
                number
            } else {
                0
            },
        )
    }
    #[derive(Serialize, Clone)]
    struct Wasteful {
        level: u32,
        health: f32,
        guild: Option<String>,
        items: Vec<u8>,
        legacy: u8,
        forgiving: u8,
    }
    let stored = Wasteful {
        level: 3,
        health: 0.8,
        guild: None,
        items: Vec::new(),
        legacy: 4,
        forgiving: 0,
    };
    let plain = StoredValue::encode(&stored).unwrap();
    assert_eq!(plain.decode_lossless::<Sparing>().unwrap().rank, 3);
    let flat = StoredValue::encode(&vec![Flat { id: 1, stats: stored }]).unwrap();
    assert_eq!(
        flat.decode_lossless::<Vec<Flat<Sparing>>>().unwrap()[0]
            .stats
            .legacy,
        4
    );
}

#[test]
fn ten_thousand_items_with_a_field_that_is_no_longer_written_are_examined_together() {
    #[derive(Serialize, Deserialize, Debug)]
    struct Sparing {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<u32>,
    }
    #[derive(Serialize)]
    struct Wasteful {
        id: u32,
        name: &'static str,
        owner: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        colour: Option<u8>,
    }
    let item = |id| Wasteful {
        id,
        name: "sword",
        owner: None,
        colour: None,
    };
    let mut items: BTreeMap<u32, _> = (0..10_000).map(|id| (id, item(id))).collect();
    let stored = StoredValue::encode(&items).unwrap();
    let loaded = stored.decode_lossless::<BTreeMap<u32, Flat<Sparing>>>().unwrap();
    assert_eq!(loaded.len(), 10_000);

    // The unknown field of a single one among them is not overlooked.
    items.insert(
        5_000,
        Wasteful {
            colour: Some(3),
            ..item(5_000)
        },
    );
    let stored = StoredValue::encode(&items).unwrap();
    assert_unknown(
        stored.decode_lossless::<BTreeMap<u32, Flat<Sparing>>>(),
        "5000.colour",
    );
}

#[test]
fn a_migration_reads_the_old_type_and_stores_the_new_one() {
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct CheatScore(f32);
    fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
        match from {
            1 => old.map(|v: f64| CheatScore(v as f32)),
            2 => old.try_map(|v: CheatScore| {
                if v.0 < 0.0 {
                    Err("a score is not negative")
                } else {
                    Ok(v)
                }
            }),
            _ => Err(MigrateError::unknown(from)),
        }
    }
    let migrated = migrate(1, StoredValue::encode(&0.5_f64).unwrap()).unwrap();
    assert_eq!(migrated.decode(), Ok(CheatScore(0.5)));

    let refused = migrate(2, StoredValue::encode(&-0.5_f32).unwrap());
    assert_eq!(refused, Err(MigrateError::custom("a score is not negative")));
    assert_eq!(
        migrate(7, StoredValue::encode(&1).unwrap()),
        Err(MigrateError::Unknown { from: 7 })
    );
    let wrong = migrate(1, StoredValue::encode("half").unwrap());
    assert!(
        matches!(wrong, Err(MigrateError::Value(ValueError::Decode { .. }))),
        "{wrong:?}"
    );
}

#[test]
fn a_migration_drops_only_fields_that_it_knows() {
    let newer = StoredValue::encode(&NewStats { level: 3, mana: 9 }).unwrap();
    let unaware = newer.clone().map(|old: OldStats| old.level);
    assert!(
        matches!(unaware, Err(MigrateError::Value(ValueError::UnknownField { .. }))),
        "{unaware:?}"
    );
    assert_eq!(newer.map(|old: NewStats| old.level).unwrap().decode(), Ok(3));
}

#[test]
fn errors_print_the_same_sentence_in_both_ways() {
    let value = StoredValue::encode(&"x").unwrap().decode::<u8>().unwrap_err();
    assert!(value.to_string().contains("is not a `u8`"), "{value}");
    assert_eq!(format!("{value:?}"), value.to_string());
    let migrate = MigrateError::unknown(3);
    assert_eq!(format!("{migrate:?}"), migrate.to_string());
    let document = DocumentError::NotADocument;
    assert_eq!(format!("{document:?}"), document.to_string());
    assert_eq!(
        format!("{:?}", StoredValue::encode("secret").unwrap()),
        "StoredValue(7 bytes)"
    );
}

#[track_caller]
fn assert_lossless<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let stored = StoredValue::encode(value);
    assert_eq!(
        stored.and_then(|stored| stored.decode_lossless::<T>()).as_ref(),
        Ok(value)
    );
}

#[track_caller]
fn assert_unknown<T: std::fmt::Debug>(result: Result<T, ValueError>, field: &str) {
    match result {
        Err(ValueError::UnknownField { path, .. }) if path.ends_with(field) => {}
        other => panic!("expected the field `{field}` to be refused, got {other:?}"),
    }
}
