//! `Document`: the disk format. Damaged bytes are refused and never panic; whatever is accepted comes back byte for
//! byte, and a change of one key leaves the others as they were.
//!
//! The first byte of an input says how the rest becomes a document: as it is, with a checksum that fits, as the body
//! of a header that fits, or as a body that is packed.
#![no_main]

use bevy_player_data::document::{Compression, Document, DocumentError, Entry, StoredValue};
use bevy_player_data_fuzz::{is_control, start};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 14;
/// The longest body that a target's header states, in bytes: unpacking stops there.
const STATED_LIMIT: u32 = 1 << 20;

fuzz_target!(init: start(seeds), |input: &[u8]| {
    let Some((&how, rest)) = input.split_first() else { return };
    let bytes: Bytes = match how % 5 {
        0 => rest.to_vec(),
        1 => seal(rest.to_vec()),
        2 => seal(with_header(0, rest.len() as u32, rest)),
        3 => match zstd::bulk::compress(rest, 1) {
            Ok(packed) => seal(with_header(1, rest.len() as u32, &packed)),
            Err(_) => return,
        },
        // A frame that may be anything, a bomb included.
        _ => {
            let Some((stated, frame)) = rest.split_first_chunk() else { return };
            seal(with_header(1, u32::from_be_bytes(*stated) % STATED_LIMIT, frame))
        }
    }
    .into();
    match decode(&bytes) {
        Ok(document) => examine(&bytes, document),
        Err(problem) => {
            let said = problem.to_string();
            assert!(!said.is_empty() && said.len() < 400, "{said}");
        }
    }
});

/// The control: a decoder that looks at no checksum, and believes the length that is stated.
fn decode(bytes: &Bytes) -> Result<Document, DocumentError> {
    if is_control("document")
        && let Some(header) = bytes.first_chunk::<HEADER>()
        && bytes.starts_with(b"BPDd")
    {
        let stated = u32::from_be_bytes([header[6], header[7], header[8], header[9]]);
        assert!(
            stated as usize <= bytes.len() || header[5] != 0,
            "control: the decoder reads behind the end"
        );
    }
    Document::decode(bytes)
}

fn examine(bytes: &Bytes, document: Document) {
    let plain = document.encode(Compression::None).expect("it was decoded");
    assert_eq!(
        plain.len(),
        document.encoded_len(),
        "the length is known beforehand"
    );
    if bytes[5] == 0 {
        assert_eq!(plain, *bytes, "there is one way to spell a document");
    }
    assert_eq!(Document::decode(&plain).as_ref(), Ok(&document));
    let packed = document
        .encode(Compression::Zstd { level: 1 })
        .expect("it was decoded");
    assert!(packed.len() <= plain.len());
    assert_eq!(Document::decode(&packed).as_ref(), Ok(&document));
    assert_eq!(document.heaviest().is_none(), document.is_empty());
    refuse_damage(&plain);
    change_one_key(document);
}

/// A bit that is another one somewhere, or a byte that is missing, is noticed.
fn refuse_damage(plain: &Bytes) {
    let place = plain.iter().fold(0_usize, |sum, &byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut damaged = plain.to_vec();
    let length = damaged.len();
    damaged[place % length] ^= 1 << (place % 8);
    assert!(
        Document::decode(&damaged.into()).is_err(),
        "bit {place} is damaged"
    );
    assert!(
        Document::decode(&plain.slice(..place % length)).is_err(),
        "it is cut off"
    );
}

/// What this server doesn't know survives what it does know.
fn change_one_key(document: Document) {
    let mut changed = document.clone();
    let value = StoredValue::encode("something else").expect("a text can be stored");
    let before = changed.set(
        "coins",
        Entry::Value {
            version: 7,
            oldest_reader: 7,
            value,
        },
    );
    assert_eq!(before.as_ref(), document.get("coins"));
    let changed = changed.encode(Compression::None).expect("its keys have names");
    let mut again = Document::decode(&changed).expect("it was encoded");
    match before {
        Some(before) => drop(again.set("coins", before)),
        None => drop(again.remove("coins")),
    }
    assert_eq!(again, document, "another key has changed");
}

fn with_header(flags: u8, stated: u32, body: &[u8]) -> Vec<u8> {
    let stated = stated.to_be_bytes();
    [b"BPDd", &[1, flags][..], &stated, &[0; 4], body].concat()
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= HEADER {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..10]);
        hasher.update(&bytes[HEADER..]);
        bytes[10..HEADER].copy_from_slice(&hasher.finalize().to_be_bytes());
    }
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    let value = |version, value: StoredValue| Entry::Value {
        version,
        oldest_reader: version,
        value,
    };
    let mut document = Document::new();
    let empty = document.clone();
    document.set(
        "coins",
        value(1, StoredValue::encode(&412_u64).expect("a number")),
    );
    let small = document.clone();
    document.set(
        "inventory",
        value(300, StoredValue::encode(&vec!["sword"; 40]).expect("a list")),
    );
    document.set("pet", Entry::Tombstone);
    document.set(
        &"long".repeat(20),
        value(u32::MAX, StoredValue::encode(&"x".repeat(300)).expect("a text")),
    );
    let mut seeds = Vec::new();
    for document in [empty, small, document] {
        let plain = document.encode(Compression::None).expect("its keys have names");
        let packed = document
            .encode(Compression::Zstd { level: 19 })
            .expect("its keys have names");
        let body = &plain[HEADER..];
        seeds.extend([
            [&[0], &plain[..]].concat(),
            [&[1], &plain[..]].concat(),
            [&[1], &packed[..]].concat(),
        ]);
        seeds.extend([[&[2], body].concat(), [&[3], body].concat()]);
        let frame = zstd::bulk::compress(body, 3).expect("it is short");
        seeds.push([&[4], &(body.len() as u32).to_be_bytes()[..], &frame].concat());
    }
    let bomb = zstd::bulk::compress(&vec![0; STATED_LIMIT as usize - 1], 3).expect("it is zeros");
    seeds.push([&[4], &(STATED_LIMIT - 1).to_be_bytes()[..], &bomb].concat());
    seeds
}
