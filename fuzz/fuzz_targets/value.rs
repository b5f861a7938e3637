//! `StoredValue`: one component's stored form. No bytes panic, however they are read; what is read without loss comes
//! back the same; a field that the code doesn't know is refused, never dropped; and the check for values that would
//! not come back (a `Some` with nothing in it) is right about each.
//!
//! The first byte of an input says what the rest is: stored bytes, a value, or what newer code has stored.
#![no_main]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    panic::{self, AssertUnwindSafe},
};

use arbitrary::{Arbitrary, Unstructured};
use bevy_player_data::{
    document::{MigrateError, StoredValue, ValueError},
    testing::assert_round_trip,
};
use bevy_player_data_fuzz::{is_control, start};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

fuzz_target!(init: start(seeds), |input: &[u8]| {
    let Some((&what, rest)) = input.split_first() else { return };
    match what % 3 {
        0 => read_bytes(rest),
        1 => {
            if let Ok(value) = Everything::arbitrary_take_rest(Unstructured::new(rest)) {
                return_value(&value);
            }
        }
        _ => {
            if let Ok(newer) = Newer::arbitrary_take_rest(Unstructured::new(rest)) {
                refuse_newer(&newer);
            }
        }
    }
});

fn read_bytes(bytes: &[u8]) {
    let stored = StoredValue::from_bytes(bytes.to_vec().into());
    read_as::<u64>(&stored);
    read_as::<String>(&stored);
    read_as::<Everything>(&stored);
    read_as::<Hero>(&stored);
    read_as::<Flat>(&stored);
    read_as::<Tagged>(&stored);
    read_as::<Untagged>(&stored);
    read_as::<BTreeMap<i64, Vec<Option<Tagged>>>>(&stored);
    for from in 0..4 {
        if let Ok(hero) = migrate(from, stored.clone()) {
            hero.decode::<Hero>()
                .expect("a migration's result is of the type that it makes");
        }
    }
}

fn read_as<T: Serialize + DeserializeOwned + Debug>(stored: &StoredValue) {
    let lossless = stored.decode_lossless::<T>();
    let strict = stored.decode::<T>();
    let lenient = stored.decode_lenient::<T>();
    if let Ok(value) = &lossless {
        assert!(strict.is_ok(), "what is read without loss is read strictly");
        let again = StoredValue::encode(value).expect("it was read without loss");
        let same = again.decode_lossless::<T>().expect("it was encoded");
        assert_eq!(format!("{same:?}"), format!("{value:?}"), "it comes back");
    }
    if let Err(ValueError::Malformed { .. }) = &strict {
        assert!(lenient.is_err(), "what is damaged is damaged for everybody");
    }
    assert!(
        strict.is_err() || lenient.is_ok(),
        "what is read strictly is read leniently"
    );
}

fn return_value(value: &Everything) {
    let said = complaint(value);
    let stored = match StoredValue::encode(value) {
        Ok(stored) => stored,
        // It nests too deep, which is no secret either.
        Err(problem) => {
            assert!(said.is_some(), "{problem}: {value:?}");
            return;
        }
    };
    assert_eq!(
        said.is_some(),
        value.has_nothing_in_some(),
        "{said:?} about {value:?}"
    );
    if said.is_none() {
        let again: Everything = stored.decode_lossless().expect("it was encoded");
        assert_eq!(format!("{again:?}"), format!("{value:?}"));
        assert_eq!(StoredValue::encode(&again), Ok(stored));
    }
}

/// What `assert_round_trip` has against a value. It says so in a panic, which libFuzzer must not hear of.
fn complaint(value: &Everything) -> Option<String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| assert_round_trip(value)));
    panic::set_hook(hook);
    outcome
        .err()
        .map(|said| said.downcast_ref::<String>().cloned().unwrap_or_default())
}

/// The control: a server that reads leniently, and so drops what it doesn't know.
fn refuse_newer(newer: &Newer) {
    fn read<T: Serialize + DeserializeOwned>(stored: &StoredValue) -> Result<T, ValueError> {
        if is_control("value") {
            stored.decode_lenient()
        } else {
            stored.decode_lossless()
        }
    }
    fn check<T: Serialize + DeserializeOwned>(newer: &(impl Serialize + Debug), has_news: bool) {
        // With its news it may nest deeper than what can be stored.
        let Ok(stored) = StoredValue::encode(newer) else {
            return;
        };
        match read::<T>(&stored) {
            Ok(old) => {
                let again = StoredValue::encode(&old).expect("it was read");
                assert!(
                    !has_news && again == stored,
                    "an older server drops a part of {newer:?}"
                );
            }
            Err(ValueError::UnknownField { .. }) => assert!(has_news, "{newer:?}"),
            Err(problem) => panic!("{newer:?}: {problem}"),
        }
    }
    match newer {
        Newer::Hero(hero) => check::<Hero>(hero, hero.mana.is_some() || hero.pet.iter().any(NewPet::is_new)),
        Newer::Flat(flat) => check::<Flat>(flat, flat.pet.is_new()),
        Newer::Tagged(NewTagged::Wolf { pet, .. }) => {
            check::<Tagged>(
                &NewTagged::Wolf {
                    pet: pet.clone(),
                    teeth: 1,
                },
                pet.is_new(),
            );
        }
        Newer::Tagged(cat @ NewTagged::Cat { lives, .. }) => check::<Tagged>(cat, lives.is_some()),
    }
}

fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
    match from {
        0 => old.map(|level: u8| Hero {
            level: level.into(),
            pet: None,
        }),
        1 => old.map(|(level, name): (u32, String)| Hero {
            level,
            pet: Some(Pet { name }),
        }),
        2 => old.try_map(|level: f64| match level {
            0.0..=100.0 => Ok(Hero {
                level: level as u32,
                pet: None,
            }),
            _ => Err("no such level"),
        }),
        _ => Err(MigrateError::unknown(from)),
    }
}

/// Every shape that serde knows.
#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
struct Everything {
    flag: bool,
    narrow: (u8, i8, u16, i16, u32, i32),
    wide: (u64, i64, u128, i128),
    floats: (f32, f64),
    letter: char,
    text: String,
    unit: (),
    marker: Marker,
    maybe: Option<u32>,
    maybe_twice: Option<Option<u8>>,
    maybe_nothing: Option<()>,
    items: Vec<Item>,
    numbers: BTreeMap<i64, Vec<Option<bool>>>,
    names: BTreeMap<String, BTreeMap<(u8, u8), Item>>,
    tagged: Vec<Tagged>,
    wrapped: Wrapped,
    array: [u16; 3],
}

impl Everything {
    fn has_nothing_in_some(&self) -> bool {
        let mut items = self
            .items
            .iter()
            .chain(self.names.values().flat_map(BTreeMap::values));
        matches!(self.maybe_twice, Some(None))
            || self.maybe_nothing.is_some()
            || items.any(Item::has_nothing_in_some)
    }
}

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
struct Marker;

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
struct Wrapped(Vec<String>);

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
enum Item {
    Nothing,
    Gold(u64),
    Pair(i8, String),
    Sword { name: String, edge: Option<f32> },
    Box(Option<Option<Box<Item>>>),
}

impl Item {
    fn has_nothing_in_some(&self) -> bool {
        match self {
            Self::Box(Some(inner)) => inner.as_ref().is_none_or(|inner| inner.has_nothing_in_some()),
            _ => false,
        }
    }
}

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
struct Hero {
    level: u32,
    #[serde(default)]
    pet: Option<Pet>,
}

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
struct Pet {
    name: String,
}

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
struct Flat {
    id: u8,
    #[serde(flatten)]
    pet: Pet,
}

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
#[serde(tag = "kind")]
enum Tagged {
    Wolf {
        #[serde(flatten)]
        pet: Pet,
        teeth: u8,
    },
    Cat {
        name: String,
    },
}

#[derive(Serialize, Deserialize, Arbitrary, Clone, Debug)]
#[serde(untagged)]
enum Untagged {
    Number(i32),
    Pair(bool, u8),
    Pet(Pet),
    Flat(Flat),
}

/// What newer code stores: the same with more fields, if they are there.
#[derive(Arbitrary, Debug)]
enum Newer {
    Hero(NewHero),
    Flat(NewFlat),
    Tagged(NewTagged),
}

#[derive(Serialize, Arbitrary, Debug)]
struct NewHero {
    level: u32,
    pet: Option<NewPet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mana: Option<Item>,
}

#[derive(Serialize, Arbitrary, Clone, Debug)]
struct NewPet {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<Box<Everything>>,
}

impl NewPet {
    fn is_new(&self) -> bool {
        self.color.is_some()
    }
}

#[derive(Serialize, Arbitrary, Debug)]
struct NewFlat {
    id: u8,
    #[serde(flatten)]
    pet: NewPet,
}

#[derive(Serialize, Arbitrary, Debug)]
#[serde(tag = "kind")]
enum NewTagged {
    Wolf {
        #[serde(flatten)]
        pet: NewPet,
        teeth: u8,
    },
    Cat {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        lives: Option<u8>,
    },
}

fn seeds() -> Vec<Vec<u8>> {
    fn stored(value: &impl Serialize) -> Vec<u8> {
        let stored = StoredValue::encode(value).expect("it has a stored form");
        [&[0], &stored.bytes()[..]].concat()
    }
    let noise: Vec<u8> = (0..400_u32).map(|n| (n * 7919 % 251) as u8).collect();
    let everything = Everything::arbitrary_take_rest(Unstructured::new(&noise)).expect("there are bytes");
    let pet = Pet {
        name: "rex".to_owned(),
    };
    let mut seeds = vec![
        stored(&everything),
        stored(&Hero {
            level: 3,
            pet: Some(pet.clone()),
        }),
        stored(&Flat {
            id: 7,
            pet: pet.clone(),
        }),
        stored(&Tagged::Wolf {
            pet: pet.clone(),
            teeth: 42,
        }),
        stored(&Untagged::Pair(true, 3)),
        stored(&BTreeMap::from([(
            -3,
            vec![
                Some(Tagged::Cat {
                    name: "tom".to_owned(),
                }),
                None,
            ],
        )])),
        stored(&(9, "ada")),
        stored(&50.5),
        // Lengths that lie, and nesting without end.
        vec![0, 0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0, 0xdb, 0xff, 0xff, 0xff, 0xff, b'x'],
        vec![0, 0xc6, 0xff, 0xff, 0xff, 0xff],
        [&[0][..], &[0x91; 200], &[0xc0]].concat(),
        vec![0, 0xdd, 0, 0, 0, 2, 0xc0, 0xc0],
    ];
    for what in [1, 2] {
        for length in [0, 8, 24, 60, 150, 400] {
            seeds.push([&[what], &noise[..length]].concat());
            let other: Vec<u8> = noise[..length].iter().rev().map(|byte| byte ^ 0x5a).collect();
            seeds.push([&[what], &other[..]].concat());
        }
    }
    seeds
}
