//! The example server's `products.ron`. No file panics the server; one that is accepted can be sold from, and one that
//! isn't is refused with words.
#![no_main]

use std::{cell::LazyCell, collections::HashSet, fs};

use bevy_player_data_fuzz::{is_control, start};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

use catalogue::{Catalogue, Entry, Kind};

#[path = "../../examples/server/catalogue.rs"]
#[allow(dead_code, reason = "a part of the example")]
mod catalogue;

thread_local! {
    static FOLDER: LazyCell<TempDir> = LazyCell::new(|| {
        // In memory, where there is such a place.
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder can be made")
    });
}

fuzz_target!(init: start(seeds), |input: &[u8]| {
    let loaded = FOLDER.with(|folder| {
        let path = folder.path().join("products.ron");
        fs::write(&path, input).expect("it can be written");
        load(&path, input)
    });
    match loaded {
        Ok(entries) => examine(&entries),
        Err(said) => assert!(said.contains("products.ron") && said.len() > 40, "{said}"),
    }
});

/// The control: a loader that does not compare the products.
fn load(path: &std::path::Path, input: &[u8]) -> Result<Vec<Entry>, String> {
    if is_control("catalogue")
        && let Ok(entries) = ron::de::from_bytes::<Vec<Entry>>(input)
        && !entries.is_empty()
    {
        return Ok(entries);
    }
    match Catalogue::load(Some(path)) {
        Ok(catalogue) => {
            for entry in catalogue.entries() {
                assert_eq!(catalogue.get(entry.id.as_str()), Some(entry));
            }
            assert!(!catalogue.to_string().is_empty());
            Ok(catalogue.entries().to_vec())
        }
        Err(problem) => Err(problem.to_string()),
    }
}

fn examine(entries: &[Entry]) {
    assert!(!entries.is_empty(), "there is something to sell");
    let mut ids = HashSet::new();
    for Entry {
        id,
        title,
        price,
        kind,
    } in entries
    {
        assert!(ids.insert(id), "two products have the id `{id}`");
        let mut texts = vec![title, price];
        match kind {
            Kind::Coins(coins) => assert_ne!(*coins, 0, "nobody pays for nothing"),
            Kind::Title(title) => texts.push(title),
            Kind::Relic => {}
        }
        for text in texts {
            assert!(!text.trim().is_empty() && text.chars().count() <= 80, "{text:?}");
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let product =
        |id: &str, kind: &str| format!("(id: \"{id}\", title: \"A\", price: \"1 €\", kind: {kind})");
    vec![
        include_str!("../../assets/products.ron").into(),
        format!("[{}]", product("a", "Coins(1)")).into(),
        format!("[{}, {}]", product("a", "Relic"), product("b", "Title(\"T\")")).into(),
        format!("[{}, {}]", product("a", "Relic"), product("a", "Relic")).into(),
        format!("[{}]", product("a", "Coins(0)")).into(),
        format!("[{}]", product("", "Relic")).into(),
        format!(
            "#![enable(unwrap_newtypes)]\n[Product{} /* c */]",
            product("a", "Relic")
        )
        .into(),
        format!("[{}]", product("a", "Relic").replace("title", "r#\"raw\"# title")).into(),
        "[".repeat(300).into(),
        "(((Some(Some([1, 'a', 0x1F, 1e400, \"\\u{110000}\"]))))".into(),
        b"[\xff]".to_vec(),
        "[]".into(),
    ]
}
