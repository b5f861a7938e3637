//! The game: public and private data of every shape, each of which can hold secrets.

use std::collections::BTreeMap;

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};

use crate::{sabotage::Sabotage, secret::Secret};

/// Public, and always there.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Badge(pub String);
impl PlayerData for Badge {
    const KEY: &'static str = "badge";
}

/// Public, but for one field.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Purse {
    pub bytes: [u8; 16],
    pub numbers: [u64; 2],
    pub names: BTreeMap<String, u32>,
    #[serde(skip)]
    pub skipped: String,
}
impl PlayerData for Purse {
    const KEY: &'static str = "purse";
}

/// Public, and as large as it likes.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Drawing(pub String);
impl PlayerData for Drawing {
    const KEY: &'static str = "drawing";
}

/// Public, optional and immutable.
#[derive(Component, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[component(immutable)]
pub struct Crest(pub String);
impl PlayerData for Crest {
    const KEY: &'static str = "crest";
}

/// Public. Of the first version, a migration drops half.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Hall {
    pub name: String,
}
impl PlayerData for Hall {
    const KEY: &'static str = "hall";
    const VERSION: u32 = 2;
    fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
        match from {
            1 => old.map(|OldHall { name, .. }| Hall { name }),
            _ => Err(MigrateError::unknown(from)),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct OldHall {
    pub name: String,
    pub memo: String,
}

/// Private, with something in every corner.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Diary {
    pub pages: Vec<Page>,
    pub index: BTreeMap<String, BTreeMap<String, u64>>,
    pub bytes: [u8; 16],
    pub more: Vec<u8>,
    pub numbers: [u64; 2],
    pub signed: i64,
}
impl PlayerData for Diary {
    const KEY: &'static str = "private_diary";
    const PRIVATE: bool = true;
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub text: String,
    pub mood: Mood,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub enum Mood {
    #[default]
    None,
    Said {
        what: Option<(u8, String)>,
    },
}

impl Diary {
    pub fn new(mut plant: impl FnMut(&'static str) -> Secret) -> Self {
        let inner = BTreeMap::from([(plant("private: in a map's key").text(), 7)]);
        Self {
            pages: vec![
                Page::default(),
                Page {
                    text: plant("private: nested").text(),
                    mood: Mood::Said {
                        what: Some((3, plant("private: nested").text())),
                    },
                },
            ],
            index: BTreeMap::from([(plant("private: in a map's key").text(), inner)]),
            bytes: plant("private: bytes and numbers").0,
            more: plant("private: bytes and numbers").0.to_vec(),
            numbers: plant("private: bytes and numbers").numbers(),
            signed: plant("private: bytes and numbers").numbers()[1] as i64,
        }
    }
}

/// Private, optional and immutable; persisted as if it came from another crate.
#[derive(Component, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[component(immutable)]
pub struct Alias(pub String);
pub const ALIAS: &str = "private_alias";

/// Private. Its migration drops half, and refuses what begins with [`REFUSED`], quoting it.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Grudge {
    pub text: String,
}
impl PlayerData for Grudge {
    const KEY: &'static str = "private_grudge";
    const PRIVATE: bool = true;
    const VERSION: u32 = 2;
    fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
        match from {
            1 => old.try_map(|OldGrudge { text, .. }| {
                if text.starts_with(REFUSED) {
                    Err(format!("`{text}` can't be taken along"))
                } else {
                    Ok(Grudge { text })
                }
            }),
            _ => Err(MigrateError::unknown(from)),
        }
    }
}

pub const REFUSED: &str = "refused ";

#[derive(Serialize, Deserialize)]
pub struct OldGrudge {
    pub text: String,
    pub memo: String,
}

/// Private. What begins with [`BROKEN`] can't be encoded, and the error quotes it.
#[derive(Component, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Brittle(pub String);
impl PlayerData for Brittle {
    const KEY: &'static str = "private_brittle";
    const PRIVATE: bool = true;
}
impl Serialize for Brittle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.starts_with(BROKEN) {
            return Err(S::Error::custom(format!("`{}` can't be written", self.0)));
        }
        serializer.serialize_str(&self.0)
    }
}

pub const BROKEN: &str = "broken ";

/// The private types' names, of which nobody is told either.
pub const PRIVATE_NAMES: [&str; 8] = [
    Diary::KEY,
    ALIAS,
    Grudge::KEY,
    Brittle::KEY,
    "game::Diary",
    "game::Alias",
    "game::Grudge",
    "game::Brittle",
];

/// What client and server agree on.
pub fn public_data(app: &mut App, sabotage: Option<Sabotage>) {
    app.persist::<Badge>()
        .persist::<Purse>()
        .persist::<Drawing>()
        .persist_optional::<Crest>()
        .persist::<Hall>();
    if is_alias_open(sabotage) {
        app.persist_with(Rule::<Alias>::optional(ALIAS));
    }
}

/// All that the server persists.
pub fn server_data(app: &mut App, sabotage: Option<Sabotage>) {
    public_data(app, sabotage);
    app.persist::<Diary>().persist::<Grudge>().persist::<Brittle>();
    if !is_alias_open(sabotage) {
        app.persist_with(Rule::<Alias>::optional(ALIAS).private());
    }
}

fn is_alias_open(sabotage: Option<Sabotage>) -> bool {
    matches!(
        sabotage,
        Some(Sabotage::PrivateAsPublic | Sabotage::PrivateAcrossParts)
    )
}

/// What can be bought: what the handlers say, they take from the receipt's payload.
pub fn products(app: &mut App) {
    app.add_product(
        Product::new(
            "gold",
            |In(receipt): In<Receipt>, mut purses: Query<&mut Purse>| {
                *purses
                    .get_mut(receipt.entity)?
                    .names
                    .entry("gold".to_owned())
                    .or_default() += 1;
                Ok(())
            },
        )
        .on_refund(|In(receipt): In<Receipt>| -> Result<Revoked> { Ok(Revoked::Short(words(&receipt, 1))) }),
    )
    .add_product(Product::new("curse", |In(receipt): In<Receipt>| -> Result {
        Err(words(&receipt, 0).into())
    }))
    .add_product(Product::new("title", |In(receipt): In<Receipt>| -> Result {
        Err(Refuse(words(&receipt, 1).leak()).into())
    }));
}

/// The payload's words: the first is nobody's business but the handler's, the second is for the player.
fn words(receipt: &Receipt, number: usize) -> String {
    let payload = receipt.payload.as_deref().unwrap_or_default();
    let text = String::from_utf8_lossy(payload);
    text.split(' ').nth(number).unwrap_or_default().to_owned()
}
