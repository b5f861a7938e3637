//! What comes back from a stored value, and which bytes are not one.

use std::collections::{BTreeMap, HashMap, HashSet};

use bevy_player_data::document::{StoredValue, ValueError};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    fields::{Flat, Tagged, Untagged},
    hex, raw,
};

#[derive(Serialize, Deserialize, PartialEq, Eq, Hash, Debug, Clone, Copy)]
struct Cell {
    x: i32,
    y: i32,
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Copy)]
struct Marker;

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Item {
    Nothing,
    Gold(u64),
    Pair(u8, String),
    Sword { name: String, edge: f32 },
}

#[test]
fn awkward_values_come_back_equal() {
    assert_returns(u64::MAX);
    assert_returns((i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN));
    assert_returns((
        u8::MAX,
        u16::MAX,
        u32::MAX,
        i128::MAX,
        u128::MAX,
        Some(u128::MAX),
        Some(i128::from(-7)),
    ));
    assert_returns([0_i128, -1, 127, 128, 1 << 64]);
    assert_returns((f32::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE));
    assert_returns(('\0', 'ß', '\u{10ffff}'));
    assert_returns((true, false));
    assert_returns((String::new(), "x".repeat(1 << 20)));
    assert_returns((
        Vec::<u8>::new(),
        (0..=255).collect::<Vec<u8>>(),
        [0_u8; 32],
        [255_u8; 32],
    ));
    assert_returns(());
    assert_returns(Marker);
    assert_returns((
        Some(Marker),
        Some(0),
        None::<u8>,
        Some(String::new()),
        Some(Vec::<u8>::new()),
        Some([0_u8; 0]),
    ));
    assert_returns([Item::Nothing, Item::Gold(7), Item::Pair(1, "p".into())]);
    assert_returns(Some(Item::Sword {
        name: "s".into(),
        edge: 0.5,
    }));
    assert_returns(BTreeMap::from([(
        0,
        BTreeMap::from([(String::new(), vec![Some(1), None])]),
    )]));
    assert_returns(HashMap::from([
        (Cell { x: 1, y: -2 }, "a".to_owned()),
        (Cell { x: 0, y: 0 }, String::new()),
    ]));
    assert_returns(HashMap::from([(
        (1, 2),
        HashMap::from([(Cell { x: 1, y: 1 }, Marker)]),
    )]));
    assert_returns(HashMap::from([(Some('k'), 1), (None, 2)]));
    assert_returns(HashSet::from([3, 1, 2]));
    assert_returns(uuid::Uuid::from_u128(u128::MAX / 3));
    assert_returns(std::time::Duration::new(u64::MAX, 999_999_999));
    assert_returns("[2001:db8::1]:443".parse::<std::net::SocketAddr>().unwrap());
    assert_returns(Ok::<u8, String>(1));
    assert_returns(std::num::NonZeroU64::MIN);
}

#[test]
fn a_struct_keyed_map_a_nan_the_largest_number_and_strings_of_all_lengths_come_back_equal() {
    #[derive(Serialize, Deserialize)]
    struct Everything {
        by_cell: HashMap<Cell, u64>,
        float: f32,
        double: f64,
        empty: String,
        long: String,
    }
    let double = f64::from_bits(0x7ff8_dead_beef_0001);
    let saved = Everything {
        by_cell: HashMap::from([(Cell { x: 3, y: 4 }, u64::MAX)]),
        float: f32::NAN,
        double,
        empty: String::new(),
        long: "ü".repeat(1 << 19),
    };
    let stored = StoredValue::encode(&saved).unwrap();
    for back in [
        stored.decode::<Everything>(),
        stored.decode_lossless(),
        stored.decode_lenient(),
    ] {
        let back = back.unwrap();
        assert_eq!(back.by_cell, saved.by_cell);
        assert_eq!(back.float.to_bits(), f32::NAN.to_bits());
        assert_eq!(back.double.to_bits(), double.to_bits());
        assert_eq!((back.empty.len(), back.long.len()), (0, 1 << 20));
    }
}

#[test]
fn structs_are_stored_with_their_field_names_and_newtypes_as_what_they_wrap() {
    #[derive(Serialize, Deserialize)]
    struct Coins(u64);
    assert_eq!(StoredValue::encode(&Coins(5)), StoredValue::encode(&5_u64));
    assert_eq!(
        StoredValue::encode(&Cell { x: 1, y: 2 }),
        StoredValue::encode(&BTreeMap::from([("x", 1), ("y", 2)]))
    );
    assert_eq!(
        hex(StoredValue::encode(&Cell { x: 1, y: -2 }).unwrap().bytes()),
        "82a17801a179fe"
    );
}

#[test]
fn a_value_with_bytes_behind_its_end_is_refused() {
    let stored = |bytes: &[u8]| raw(bytes).decode::<u8>();
    assert_eq!(stored(&[5]), Ok(5));
    assert!(matches!(stored(&[5, 5]), Err(ValueError::Malformed { .. })));
    assert!(matches!(stored(&[5, 0xc0]), Err(ValueError::Malformed { .. })));
    assert!(matches!(stored(&[]), Err(ValueError::Malformed { .. })));
    let too_many = raw(&[0x92, 0x93, 1, 2, 3, 4])
        .decode::<((u8, u8), u8)>()
        .unwrap_err();
    assert!(
        too_many
            .to_string()
            .contains("1 of 3 stored elements are more than it has, at `0`"),
        "{too_many}"
    );
}

#[test]
fn a_type_that_reads_nothing_is_not_what_is_stored() {
    #[derive(Debug, PartialEq)]
    struct Deaf;
    impl<'de> Deserialize<'de> for Deaf {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }
    assert!(matches!(
        raw(&[5]).decode::<Deaf>(),
        Err(ValueError::Decode { .. })
    ));
}

#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    #[derive(Serialize, Deserialize, Debug)]
    enum Chain {
        End,
        Link(Box<Chain>),
    }
    #[derive(Serialize, Deserialize, Debug)]
    #[serde(untagged)]
    enum Buffered {
        Link(Vec<Buffered>),
        End(u8),
    }
    let chain = |links| (0..links).fold(Chain::End, |chain, _| Chain::Link(Box::new(chain)));
    let deepest = StoredValue::encode(&chain(128)).unwrap();
    assert!(
        deepest.decode_lossless::<Chain>().is_ok(),
        "what can be written can be read"
    );
    assert!(matches!(
        StoredValue::encode(&chain(129)),
        Err(ValueError::Encode { .. })
    ));

    let buffered = |links| (0..links).fold(Buffered::End(1), |chain, _| Buffered::Link(vec![chain]));
    let deepest = StoredValue::encode(&buffered(128)).unwrap();
    assert!(
        deepest.decode_lossless::<Buffered>().is_ok(),
        "what can be written can be read"
    );
    assert!(matches!(
        StoredValue::encode(&buffered(129)),
        Err(ValueError::Encode { .. })
    ));

    let bottomless = raw(&b"\x81\xa4Link".repeat(1_000_000));
    assert!(matches!(
        bottomless.decode::<Chain>(),
        Err(ValueError::Malformed { .. })
    ));
    let bottomless = raw(&[0x91].repeat(1_000_000));
    assert!(matches!(
        bottomless.decode_lossless::<Buffered>(),
        Err(ValueError::Malformed { .. })
    ));
}

#[test]
fn a_type_that_lies_about_its_length_cannot_be_stored() {
    struct Liar;
    impl Serialize for Liar {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut items = serializer.serialize_seq(Some(2))?;
            items.serialize_element(&1)?;
            items.end()
        }
    }
    assert!(matches!(
        StoredValue::encode(&Liar),
        Err(ValueError::Encode { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_decoding_a_value_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn no_change_of_a_value_makes_decoding_it_panic(at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
        let value = (Cell { x: 1, y: 2 }, Item::Sword { name: "s".into(), edge: 1.5 }, vec![u64::MAX], "text");
        let mut bytes = StoredValue::encode(&value)?.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        decode_as_everything(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decode_as_everything(&bytes);
    }
}

#[track_caller]
fn assert_returns<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
    let stored = StoredValue::encode(&value);
    assert_eq!(
        stored.as_ref().map(|stored| stored.decode::<T>()),
        Ok(Ok(value)),
        "strictly"
    );
    let value = stored.as_ref().map(|stored| stored.decode_lenient::<T>());
    assert_eq!(
        stored.as_ref().map(|stored| stored.decode_lossless::<T>()),
        value,
        "leniently"
    );
}

fn decode_as_everything(bytes: &[u8]) {
    fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
        drop(raw(bytes).decode::<T>());
        drop(raw(bytes).decode_lossless::<T>());
        drop(raw(bytes).decode_lenient::<T>());
    }
    decode::<(Cell, Item, Vec<u64>, String)>(bytes);
    decode::<HashMap<Cell, Option<Item>>>(bytes);
    decode::<Vec<Tagged<Cell>>>(bytes);
    decode::<Flat<HashMap<String, u128>>>(bytes);
    decode::<Vec<Untagged<String>>>(bytes);
    decode::<(Marker, (), i128, char, f32, [u8; 4])>(bytes);
}
