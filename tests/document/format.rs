//! The disk format: stable, exact, and proof against anything that is not a document.

use bevy_player_data::document::{Compression, Document, DocumentError, Entry, StoredValue};
use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;

use crate::{hex, raw};

const ZSTD: Compression = Compression::Zstd { level: 3 };
const HEADER: usize = 14;

#[test]
fn the_disk_format_is_the_one_that_was_documented() {
    // Never change these bytes: players' documents look like this.
    const GOLDEN: &str = "42504464 01 00 00000024 3c6824f7 \
                          83 a5636f696e73 93 02 01 c403 cd0100 a56775696c64 c0 a56c6576656c 93 cd012c 00 c40107";
    let golden = unhex(GOLDEN);

    let mut document = Document::new();
    document.set("level", value_of(300, 0, &7_u8));
    document.tombstone("guild");
    document.set("coins", value_of(2, 1, &256_u16));

    let bytes = document.encode(Compression::None).unwrap();
    assert_eq!(hex(&bytes), hex(&golden));
    assert_eq!(Document::decode(&golden), Ok(document));
}

#[test]
fn the_compressed_disk_format_of_version_one_stays_readable() {
    let golden = unhex(
        "42504464 01 01 00000204 da47de1d \
         28b52ffd600401e50000a881a56e6f746573930101c501f7da01f4676f6c64200100d9a11626",
    );
    let mut document = Document::new();
    document.set("notes", value_of(1, 1, &"gold ".repeat(100)));
    assert_eq!(Document::decode(&golden), Ok(document));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_document_comes_back_equal(document in documents(), packed: bool) {
        let bytes = document.encode(if packed { ZSTD } else { Compression::None })?;
        prop_assert_eq!(Document::decode(&bytes)?, document);
    }

    #[test]
    fn the_predicted_length_is_the_real_one(document in documents()) {
        prop_assert_eq!(document.encode(Compression::None)?.len(), document.encoded_len());
    }

    #[test]
    fn equal_documents_are_equal_bytes_in_whatever_order_they_were_filled(document in documents(), packed: bool) {
        let mut refilled = Document::new();
        for (key, entry) in document.iter().rev() {
            refilled.set(key, entry.clone());
        }
        let compression = if packed { ZSTD } else { Compression::None };
        prop_assert_eq!(refilled.encode(compression)?, document.encode(compression)?);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Document::decode(&bytes.into()).is_err());
    }

    #[test]
    fn any_changed_byte_is_noticed(document in documents(), packed: bool, at: prop::sample::Index, by in 1..=255_u8) {
        let mut bytes = document.encode(if packed { ZSTD } else { Compression::None })?.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert!(Document::decode(&bytes.into()).is_err());
    }

    #[test]
    fn any_cut_or_appended_byte_is_noticed(document in documents(), packed: bool, at: prop::sample::Index, more: u8) {
        let bytes = document.encode(if packed { ZSTD } else { Compression::None })?;
        prop_assert!(Document::decode(&bytes.slice(..at.index(bytes.len()))).is_err());
        prop_assert!(Document::decode(&[&bytes[..], &[more]].concat().into()).is_err());
    }

    /// Behind a checksum that is right, the body's own checks are on their own.
    #[test]
    fn a_body_that_was_tampered_with_never_panics_and_whatever_decodes_is_a_document(
        document in documents(),
        packed: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = document.encode(if packed { ZSTD } else { Compression::None })?.to_vec();
        for (at, to) in changes {
            let at = 5 + at.index(bytes.len() - 5);
            bytes[at] = to;
        }
        if let Some(cut) = cut {
            bytes.truncate(HEADER + cut.index(bytes.len() - HEADER + 1));
        }
        if let Ok(document) = Document::decode(&sealed(bytes)) {
            prop_assert_eq!(Document::decode(&document.encode(Compression::None)?)?, document);
        }
    }
}

#[test]
fn what_is_not_a_document_is_told_from_what_is_newer_and_from_what_is_damaged() {
    let good = document_with(&[("coins", &[1])])
        .encode(Compression::None)
        .unwrap();
    assert!(Document::decode(&good).is_ok());

    for foreign in [&b""[..], b"BPD", b"SQLite format 3\0", &good[1..]] {
        assert_eq!(
            Document::decode(&Bytes::copy_from_slice(foreign)),
            Err(DocumentError::NotADocument)
        );
    }
    let mut newer = good.to_vec();
    newer[4] = 2;
    assert_eq!(
        Document::decode(&newer.into()),
        Err(DocumentError::Newer { format: 2 })
    );
    assert_damaged(good.slice(..9), "ends too early");

    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_damaged(flipped.into(), "checksum");
}

#[test]
fn a_body_that_no_encoder_writes_is_refused_even_with_the_right_checksum() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x82\xa1b\xc0\xa1a\xc0", "keys are not in order"),
        (b"\x82\xa1a\xc0\xa1a\xc0", "keys are not in order"),
        (b"\x81\xa0\xc0", "a key is empty"),
        (b"\x81\xa1\xff\xc0", "not UTF-8"),
        (b"\x81\x01\xc0", "not a string"),
        (b"\x81\xa1a\xc0\xc0", "more bytes follow"),
        (b"\x82\xa1a\xc0", "ends too early"),
        (b"\xdf\xff\xff\xff\xff", "ends too early"),
        (b"\x81\xa1a\x93\x01\x01\xc6\xff\xff\xff\xff\x00", "ends too early"),
        (b"\x81\xdb\xff\xff\xff\xffa\xc0", "ends too early"),
        (b"\x81\xa1a\x92\x01\x01", "neither a value nor a tombstone"),
        (
            b"\x81\xa1a\x94\x01\x01\xc4\x00\x01",
            "neither a value nor a tombstone",
        ),
        (
            b"\x81\xa1a\x93\xcf\x00\x00\x00\x01\x00\x00\x00\x00\x01\xc4\x00",
            "version",
        ),
        (b"\x81\xa1a\x93\xff\x01\xc4\x00", "version"),
        (b"\x81\xa1a\x93\x01\x01\xa1x", "a value is not bytes"),
        (b"\x81\xa1a\xc1", "reserves"),
        (b"\xde\x00\x01\xa1a\xc0", "shortest form"),
        (b"\x81\xd9\x01a\xc0", "shortest form"),
        (b"\x81\xa1a\xdc\x00\x03\x01\x01\xc4\x00", "shortest form"),
        (b"\x81\xa1a\x93\xcc\x01\x01\xc4\x00", "shortest form"),
        (b"\x81\xa1a\x93\xd1\x01\x2c\x01\xc4\x00", "shortest form"),
        (b"\x81\xa1a\x93\x01\x01\xc5\x00\x00", "shortest form"),
        (b"\x90", "not a map"),
        (b"", "ends too early"),
    ];
    for (body, reason) in cases {
        assert_damaged(document_of(0, body.len(), body), reason);
    }
}

#[test]
fn a_header_that_lies_about_the_body_is_refused() {
    let body = b"\x81\xa1a\xc0";
    assert!(Document::decode(&document_of(0, body.len(), body)).is_ok());
    assert_damaged(document_of(0, body.len() + 1, body), "length");
    assert_damaged(document_of(0, body.len() - 1, body), "length");
    assert_damaged(document_of(2, body.len(), body), "never written");
    assert_damaged(document_of(1, body.len(), body), "unpack");
    assert_damaged(document_of(0, 257 << 20, body), "256 MiB");

    let mut version_zero = document_of(0, body.len(), body).to_vec();
    version_zero[4] = 0;
    assert_damaged(sealed(version_zero), "never written");
}

#[test]
fn a_decompression_bomb_stops_at_the_stated_length() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert!(bomb.len() < 16 << 10, "a bomb is small: {}", bomb.len());
    // The frame says in its own header how large a window it wants, which is more than the whole body may have.
    assert_damaged(document_of(1, 100, &bomb), "unpack");

    // This one asks for little and goes on for long.
    let mut modest = zstd::Encoder::new(Vec::new(), 19).unwrap();
    modest.window_log(10).unwrap();
    std::io::Write::write_all(&mut modest, &vec![0; 64 << 20]).unwrap();
    assert_damaged(
        document_of(1, 100, &modest.finish().unwrap()),
        "more bytes follow",
    );

    let mut two_frames = zstd::bulk::compress(b"\x80", 3).unwrap();
    assert!(Document::decode(&document_of(1, 1, &two_frames)).is_ok());
    assert_damaged(document_of(1, 2, &two_frames), "length");
    assert_damaged(document_of(1, 0, &two_frames), "");
    two_frames.extend(two_frames.clone());
    assert_damaged(document_of(1, 1, &two_frames), "more bytes follow");
    assert_damaged(document_of(1, 2, &two_frames), "more bytes follow");
}

#[test]
fn a_change_that_keeps_its_length_leaves_every_other_byte_in_place() {
    let mut document = document_with(&[("a", &[1; 100]), ("b", &[2; 100]), ("c", &[3; 100])]);
    let before = document.encode(Compression::None).unwrap();
    document.set(
        "b",
        Entry::Value {
            version: 1,
            oldest_reader: 1,
            value: raw(&[9; 100]),
        },
    );
    let after = document.encode(Compression::None).unwrap();

    assert_eq!(before.len(), after.len());
    let changed = before
        .iter()
        .zip(&after)
        .skip(HEADER)
        .filter(|(before, after)| before != after)
        .count();
    assert_eq!(changed, 100, "only the value's own bytes");
    assert_eq!(before[..10], after[..10], "only the checksum of the header");
}

#[test]
fn keys_that_nobody_knows_survive_byte_for_byte_beside_a_change() {
    let strange = [0xc1, 0xff, 0x00, 0xde]; // not even MessagePack
    let mut document = document_with(&[("from_the_future", &strange), ("coins", &[1])]);
    document.set(
        "from_the_future",
        Entry::Value {
            version: 900,
            oldest_reader: 899,
            value: raw(&strange),
        },
    );
    let on_disk = document.encode(Compression::None).unwrap();

    let mut loaded = Document::decode(&on_disk).unwrap();
    loaded.set("coins", value_of(1, 1, &500));
    let saved = loaded.encode(Compression::None).unwrap();

    let entry = Entry::Value {
        version: 900,
        oldest_reader: 899,
        value: raw(&strange),
    };
    assert_eq!(
        Document::decode(&saved).unwrap().get("from_the_future"),
        Some(&entry)
    );
}

#[test]
fn values_of_an_uncompressed_document_are_slices_of_its_bytes() {
    let on_disk = document_with(&[("blob", &[7; 10_000])])
        .encode(Compression::None)
        .unwrap();
    let loaded = Document::decode(&on_disk).unwrap();
    let Some(Entry::Value { value, .. }) = loaded.get("blob") else {
        panic!("the blob is gone")
    };
    assert!(
        on_disk.as_ptr_range().contains(&value.bytes().as_ptr()),
        "it was copied"
    );
}

#[test]
fn compression_saves_space_where_it_can_and_costs_none_where_it_cannot() {
    let wordy = document_with(&[("notes", "gold ".repeat(10_000).as_bytes())]);
    let packed = wordy.encode(ZSTD).unwrap();
    assert!(
        packed.len() < wordy.encoded_len() / 100,
        "{} of {}",
        packed.len(),
        wordy.encoded_len()
    );
    assert_eq!(Document::decode(&packed).unwrap(), wordy);

    let tiny = document_with(&[("n", &[1])]);
    assert_eq!(
        tiny.encode(ZSTD).unwrap(),
        tiny.encode(Compression::None).unwrap()
    );

    for level in [i32::MIN, -5, 0, 1, 22, i32::MAX] {
        let packed = wordy.encode(Compression::Zstd { level }).unwrap();
        assert_eq!(Document::decode(&packed).unwrap(), wordy, "level {level}");
    }
}

#[test]
fn tombstones_are_neither_values_nor_absent() {
    let mut document = document_with(&[("guild", &[1]), ("coins", &[2])]);
    let value = document.tombstone("guild");
    assert!(
        matches!(value, Some(Entry::Value { .. })),
        "the old entry is handed back"
    );

    let mut loaded = Document::decode(&document.encode(Compression::None).unwrap()).unwrap();
    assert_eq!(loaded.get("guild"), Some(&Entry::Tombstone));
    assert_eq!(loaded.get("never_seen"), None);
    assert_eq!(loaded.len(), 2);

    assert_eq!(loaded.remove("guild"), Some(Entry::Tombstone));
    assert_eq!(loaded.get("guild"), None);
    assert_eq!(loaded.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["coins"]);
}

#[test]
fn the_heaviest_key_is_named() {
    assert_eq!(Document::new().heaviest(), None);
    let document = document_with(&[("a_long_name", &[1]), ("map", &[2; 1000]), ("coins", &[3; 10])]);
    let (key, len) = document.heaviest().unwrap();
    assert_eq!(key, "map");
    assert!((1000..1020).contains(&len), "{len}");
}

#[test]
fn an_empty_document_is_a_document_and_an_empty_key_is_an_error() {
    let empty = Document::new();
    assert!(empty.is_empty());
    assert_eq!(Document::decode(&empty.encode(ZSTD).unwrap()), Ok(empty));

    let nameless = document_with(&[("", &[1])]);
    assert_eq!(nameless.encode(Compression::None), Err(DocumentError::EmptyKey));
}

#[test]
fn a_document_that_could_not_be_read_again_is_not_written() {
    let huge = raw(&vec![0; 129 << 20]);
    let mut document = Document::new();
    for key in ["a", "b"] {
        document.set(
            key,
            Entry::Value {
                version: 1,
                oldest_reader: 1,
                value: huge.clone(),
            },
        );
    }
    let len = document.encoded_len() - HEADER;
    assert_eq!(document.encode(ZSTD), Err(DocumentError::TooLarge { len }));
}

#[test]
fn a_thousand_keys_come_back_sorted() {
    let mut document = Document::new();
    for number in 0..1000 {
        document.set(&format!("key {}", number * 7919 % 1000), Entry::Tombstone);
    }
    let loaded = Document::decode(&document.encode(Compression::None).unwrap()).unwrap();
    assert_eq!(loaded, document);
    assert!(loaded.iter().is_sorted_by_key(|(key, _)| key));
    assert_eq!(loaded.len(), 1000);
}

fn value_of<T: Serialize>(version: u32, oldest_reader: u32, value: &T) -> Entry {
    Entry::Value {
        version,
        oldest_reader,
        value: StoredValue::encode(value).expect("plain data"),
    }
}

fn document_with(values: &[(&str, &[u8])]) -> Document {
    let mut document = Document::new();
    for (key, bytes) in values {
        document.set(
            key,
            Entry::Value {
                version: 1,
                oldest_reader: 1,
                value: raw(bytes),
            },
        );
    }
    document
}

fn documents() -> impl Strategy<Value = Document> {
    let value = (
        any::<u32>(),
        any::<u32>(),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(version, oldest_reader, bytes)| Entry::Value {
            version,
            oldest_reader,
            value: raw(&bytes),
        });
    let entry = prop_oneof![1 => Just(Entry::Tombstone), 4 => value];
    prop::collection::vec(("[a-zß_]{1,12}", entry), 0..20).prop_map(|entries| {
        let mut document = Document::new();
        for (key, entry) in entries {
            document.set(&key, entry);
        }
        document
    })
}

/// A document with a body of our own making.
fn document_of(flags: u8, stated_len: usize, body: &[u8]) -> Bytes {
    let stated_len = (stated_len as u32).to_be_bytes();
    sealed([b"BPDd\x01", &[flags][..], &stated_len, &[0; 4], body].concat())
}

/// Puts the right checksum where it belongs.
fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let checksum = crc32fast::hash(&[&bytes[..10], &bytes[14..]].concat());
    bytes[10..14].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

#[track_caller]
fn assert_damaged(bytes: Bytes, reason: &str) {
    match Document::decode(&bytes) {
        Err(DocumentError::Damaged { reason: actual }) if actual.contains(reason) => {}
        other => panic!(
            "expected damage (`{reason}`), got {other:?} for {}",
            hex(&bytes[..bytes.len().min(64)])
        ),
    }
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
