//! What is stored of somebody before a run begins: nothing, something sound, something old, new, or broken.

use bevy_player_data::{
    PlayerData as _,
    document::{Document, Entry, StoredValue},
};
use serde::Serialize;

use crate::{
    game::{Badge, Brittle, Diary, Grudge, Hall, OldGrudge, OldHall, Purse, REFUSED},
    run::Run,
    secret::Person,
    support::{put, put_bytes},
};

/// Plants somebody's past. The first two have nothing in it that keeps them from playing.
pub fn prepare(run: &mut Run, person: Person) {
    let name = run.humans[person].names[0].clone();
    let kind = if person < 2 {
        run.rng.u32(..3)
    } else {
        run.rng.u32(..13)
    };
    let mut document = Document::new();
    match kind {
        0 => return,
        1 | 9.. => sound(run, person, &mut document),
        2 => old(run, person, &mut document),
        3 => refused_by_a_migration(run, &mut document),
        4 => newer(run, &mut document),
        5 => unknown_field(run, &mut document),
        6 => wrong_type(run, person, &mut document),
        7 => wrong_private_type(run, &mut document),
        8 => {
            let secret = run.plant("past: bytes that can't be read", None);
            return put_bytes(&run.store.rows, &name, [&b"BPD"[..], &secret.0].concat());
        }
    }
    put(&run.store.rows, &name, &document);
}

fn set(document: &mut Document, key: &str, version: u32, value: &impl Serialize) {
    let value = StoredValue::encode(value).expect("a storable value");
    document.set(
        key,
        Entry::Value {
            version,
            oldest_reader: version,
            value,
        },
    );
}

fn sound(run: &mut Run, person: Person, document: &mut Document) {
    let badge = run.plant("public: a string", Some(person)).text();
    let purse = Purse {
        bytes: run.plant("public: bytes", Some(person)).0,
        numbers: run.plant("public: numbers", Some(person)).numbers(),
        names: [(run.plant("public: in a map's key", Some(person)).text(), 1)].into(),
        skipped: String::new(),
    };
    let diary = Diary::new(|place| run.plant(place, None));
    let brittle = run.plant("private: nested", None).text();
    let unknown = run.plant("past: an unknown key", None).text();
    let value = run.plant("past: an unknown key", None).text();
    set(document, Badge::KEY, 1, &Badge(badge));
    set(document, Purse::KEY, 1, &purse);
    set(document, Diary::KEY, 1, &diary);
    set(document, Brittle::KEY, 1, &brittle);
    set(document, &unknown, 3, &value);
}

fn old(run: &mut Run, person: Person, document: &mut Document) {
    let name = run.plant("public: migrated", Some(person)).text();
    let memo = run.plant("past: dropped by a migration", None).text();
    set(document, Hall::KEY, 1, &OldHall { name, memo });
    let text = run.plant("private: migrated", None).text();
    let memo = run.plant("past: dropped by a migration", None).text();
    set(document, Grudge::KEY, 1, &OldGrudge { text, memo });
}

fn refused_by_a_migration(run: &mut Run, document: &mut Document) {
    let secret = run.plant("past: refused by a migration", None).text();
    let old = OldGrudge {
        text: format!("{REFUSED}{secret}"),
        memo: run.plant("past: refused by a migration", None).text(),
    };
    set(document, Grudge::KEY, 1, &old);
}

fn newer(run: &mut Run, document: &mut Document) {
    let text = run.plant("past: newer than the code", None).text();
    set(document, Grudge::KEY, 9, &text);
}

/// What the refusal names is the field.
fn unknown_field(run: &mut Run, document: &mut Document) {
    let field = run.plant("past: an unknown field", None).text();
    let value = run.plant("past: an unknown field", None).text();
    let fields = std::collections::BTreeMap::from([("text".to_owned(), String::new()), (field, value)]);
    set(document, Grudge::KEY, 2, &fields);
}

/// Data that the owner could see if it could be read.
fn wrong_type(run: &mut Run, person: Person, document: &mut Document) {
    sound(run, person, document);
    // serde's errors quote what they don't expect.
    let secret = run.plant("past: a value of the wrong type", None);
    set(document, Purse::KEY, 1, &secret.text());
}

fn wrong_private_type(run: &mut Run, document: &mut Document) {
    let secret = run.plant("past: a value of the wrong type", None);
    set(document, Brittle::KEY, 1, &secret.numbers()[0]);
}
