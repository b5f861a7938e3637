//! Secrets: what is planted, who may read it, and every form in which it could leave.
//!
//! A secret is sixteen random bytes. It is planted as bytes, as two numbers, or as a text of 32 hex digits, and looked
//! for in all of these and in what text, JSON, MessagePack, bincode, hex and base64 make of them.

use std::{collections::HashMap, fmt::Write as _};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use fastrand::Rng;

/// One of the people in a run, by number.
pub type Person = usize;

/// One secret as it is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    pub fn text(self) -> String {
        hex(&self.0)
    }

    pub fn numbers(self) -> [u64; 2] {
        [&self.0[..8], &self.0[8..]].map(|half| half.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// Whatever a secret may have become, with a name.
    fn forms(self) -> Vec<(&'static str, Vec<u8>)> {
        let text = self.text().into_bytes();
        let mut forms = vec![
            ("hex", text.clone()),
            ("hex in capitals", text.to_ascii_uppercase()),
            ("hex of its hex", hex(&text).into_bytes()),
            (
                "its bytes backwards",
                self.0.iter().rev().copied().collect::<Vec<u8>>(),
            ),
            (
                "its bytes as MessagePack's small numbers",
                message_pack_list(&self.0),
            ),
            ("its bytes as bincode's small numbers", bincode_list(&self.0)),
            ("its bytes in decimals", join(&self.0, ", ").into_bytes()),
            ("its bytes in JSON", join(&self.0, ",").into_bytes()),
        ];
        for number in self.numbers() {
            let signed = number as i64;
            let zigzag = ((signed << 1) ^ (signed >> 63)) as u64;
            // Either half of the sixteen bytes is one of the first two.
            forms.push(("a number, little end first", number.to_le_bytes().into()));
            forms.push(("a number, big end first", number.to_be_bytes().into()));
            forms.push(("a number in zigzag", zigzag.to_le_bytes().into()));
            forms.push(("a number in LEB128", leb128(number)));
            forms.push(("a number in decimals", number.to_string().into()));
            forms.push((
                "a signed number in decimals",
                signed.unsigned_abs().to_string().into(),
            ));
        }
        for bytes in [&self.0[..], &text] {
            for at in 0..3 {
                forms.push(("base64", base64(&STANDARD_NO_PAD, bytes, at)));
                forms.push(("base64 for URLs", base64(&URL_SAFE_NO_PAD, bytes, at)));
            }
        }
        forms
    }
}

/// What `bytes` become in the middle of a longer base64 text, `at` bytes after the begin of a group of three.
fn base64(alphabet: &impl base64::Engine, bytes: &[u8], at: usize) -> Vec<u8> {
    let all = alphabet.encode([&[0; 2][..at], bytes].concat());
    // A digit that stands for a neighbour's bits as well can be any.
    let first = [0, 2, 3][at];
    let last = all.len() - usize::from(!(at + bytes.len()).is_multiple_of(3));
    all.as_bytes()[first..last].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn join(bytes: &[u8], between: &str) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(between)
}

fn message_pack_list(bytes: &[u8]) -> Vec<u8> {
    let spelled = bytes.iter().flat_map(|&byte| match byte {
        0..0x80 => vec![byte],
        _ => vec![0xcc, byte],
    });
    spelled.collect()
}

fn bincode_list(bytes: &[u8]) -> Vec<u8> {
    let spelled = bytes.iter().flat_map(|&byte| match byte {
        0..251 => vec![byte],
        _ => vec![251, byte, 0],
    });
    spelled.collect()
}

fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Where a secret is, and who may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planted {
    pub place: &'static str,
    /// `None`: nobody at all.
    pub reader: Option<Person>,
}

/// Everything that was planted in one run.
pub struct Secrets {
    rng: Rng,
    planted: Vec<Planted>,
    needles: Vec<Needle>,
}

struct Needle {
    bytes: Vec<u8>,
    form: &'static str,
    /// Which of those that were planted.
    of: usize,
}

impl Secrets {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            planted: Vec::new(),
            needles: Vec::new(),
        }
    }

    pub fn plant(&mut self, place: &'static str, reader: Option<Person>) -> Secret {
        // Two large numbers, so that none of the forms is a short one.
        let bytes = std::array::from_fn(|_| self.rng.u8(128..));
        self.note(place, reader, bytes)
    }

    /// Something that is as good as random already.
    pub fn note(&mut self, place: &'static str, reader: Option<Person>, bytes: [u8; 16]) -> Secret {
        let secret = Secret(bytes);
        // A short form, of a number that happens to be small, could be found by chance.
        for (form, bytes) in secret.forms().into_iter().filter(|(_, bytes)| bytes.len() >= 8) {
            self.add(bytes, form);
        }
        self.planted.push(Planted { place, reader });
        secret
    }

    /// A name that nobody is told.
    pub fn note_name(&mut self, place: &'static str, name: &str) {
        self.add(name.as_bytes().to_vec(), "as it is");
        self.planted.push(Planted { place, reader: None });
    }

    fn add(&mut self, bytes: Vec<u8>, form: &'static str) {
        assert!(bytes.len() >= 8, "{form} is too short");
        let of = self.planted.len();
        self.needles.push(Needle { bytes, form, of });
    }

    pub fn planted(&self) -> &[Planted] {
        &self.planted
    }

    /// Makes it possible to look for all of them at once.
    pub fn index(&self) -> Index<'_> {
        let mut index = Index {
            secrets: self,
            by_head: HashMap::new(),
            heads: vec![0; 1 << (HASH_BITS - 6)],
        };
        for (at, needle) in self.needles.iter().enumerate() {
            let head = needle.bytes[..8]
                .iter()
                .fold(0, |head, &byte| shift_in(head, byte));
            index.by_head.entry(head).or_default().push(at);
            let (word, bit) = place_of(head);
            index.heads[word] |= bit;
        }
        index
    }
}

const HASH_BITS: u32 = 20;

fn shift_in(head: u64, byte: u8) -> u64 {
    head << 8 | u64::from(byte)
}

fn place_of(head: u64) -> (usize, u64) {
    let hash = head.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

/// All needles by their first eight bytes.
pub struct Index<'a> {
    secrets: &'a Secrets,
    by_head: HashMap<u64, Vec<usize>>,
    /// Which heads there may be.
    heads: Vec<u64>,
}

/// A secret that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub place: &'static str,
    pub reader: Option<Person>,
    pub form: &'static str,
    /// Its number among those that were planted.
    pub number: usize,
}

impl Index<'_> {
    /// Everything that is in these bytes, in whatever form.
    pub fn search(&self, bytes: &[u8], mut found: impl FnMut(Found)) {
        let mut head = 0;
        for (end, &byte) in bytes.iter().enumerate() {
            head = shift_in(head, byte);
            let (word, bit) = place_of(head);
            if self.heads[word] & bit == 0 || end < 7 {
                continue;
            }
            for &at in self.by_head.get(&head).into_iter().flatten() {
                let needle = &self.secrets.needles[at];
                if bytes[end - 7..].starts_with(&needle.bytes) {
                    let Planted { place, reader } = self.secrets.planted[needle.of];
                    found(Found {
                        place,
                        reader,
                        form: needle.form,
                        number: needle.of,
                    });
                }
            }
        }
    }
}

#[test]
fn a_secret_is_found_whatever_it_is_turned_into() {
    #[derive(serde::Serialize)]
    struct Value {
        before: &'static str,
        text: String,
        array: [u8; 16],
        wide: [u16; 16],
        numbers: [u64; 2],
        signed: [i64; 2],
        both: u128,
    }
    let mut secrets = Secrets::new(1);
    let secret = secrets.plant("here", None);
    let other = Secrets::new(2).plant("elsewhere", None);
    let index = secrets.index();
    let names = |bytes: &[u8]| {
        let mut names = Vec::new();
        index.search(bytes, |found| names.push(found.form));
        names.sort_unstable();
        names.dedup();
        names
    };
    let value = |secret: Secret| Value {
        before: "x",
        text: secret.text(),
        array: secret.0,
        wide: secret.0.map(u16::from),
        numbers: secret.numbers(),
        signed: secret.numbers().map(|number| number as i64),
        both: u128::from_le_bytes(secret.0),
    };
    let spell = |value: &Value| {
        let bincode = bincode::serde::encode_to_vec(value, bincode::config::standard()).expect("sound");
        [
            rmp_serde::to_vec_named(value).expect("sound"),
            bincode,
            serde_json::to_vec(value).expect("sound"),
            format!("{:?}", (&value.text, value.array, value.numbers, value.signed)).into_bytes(),
        ]
    };
    for bytes in spell(&value(other)) {
        assert_eq!(names(&bytes), Vec::<&str>::new());
    }
    let [message_pack, bincode, json, debug] = spell(&value(secret));
    assert_eq!(
        names(&message_pack),
        [
            "a number, big end first",
            "hex",
            "its bytes as MessagePack's small numbers",
            "its bytes backwards"
        ]
        .into_iter()
        .filter(|form| names(&message_pack).contains(form))
        .collect::<Vec<_>>()
    );
    assert!(names(&bincode).contains(&"a number in zigzag") && names(&bincode).contains(&"hex"));
    assert!(names(&bincode).contains(&"its bytes as bincode's small numbers"));
    assert!(names(&json).contains(&"its bytes in JSON") && names(&json).contains(&"a number in decimals"));
    assert!(names(&debug).contains(&"its bytes in decimals"));
    for (form, bytes) in secret.forms() {
        let around = [&b"something"[..], &bytes, b"else"].concat();
        assert!(names(&around).contains(&form), "{form}");
    }
    for offset in 0..6 {
        for bytes in [secret.0.to_vec(), secret.text().into_bytes()] {
            let longer = [&vec![0xa5; offset], &bytes[..], &[0x5a; 5]].concat();
            assert!(names(STANDARD_NO_PAD.encode(&longer).as_bytes()).contains(&"base64"));
            assert!(names(URL_SAFE_NO_PAD.encode(&longer).as_bytes()).contains(&"base64 for URLs"));
        }
    }
}
