//! What can be bought: the products in a RON file, such as `assets/products.ron`.
//!
//! A file with any mistake in it is refused as a whole, with the place of the first one: nobody should pay for something
//! that the game doesn't understand.

use std::{
    collections::HashSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use bevy_player_data::ProductId;
use ron::error::SpannedError;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// The catalogue that the server has with it, wherever it is started.
const BUILT_IN: &str = include_str!("../../assets/products.ron");
/// What it is called in messages.
const BUILT_IN_PATH: &str = "assets/products.ron";
/// The longest title and price, in characters.
const TEXT_LIMIT: usize = 80;

/// Everything that can be bought. There is at least one product, and no two have the same id.
#[derive(Clone, Debug)]
pub struct Catalogue(Vec<Entry>);

/// Something that can be bought.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Entry {
    pub id: ProductId,
    /// For people.
    pub title: String,
    /// For people as well: the payment provider decides what is paid.
    pub price: String,
    pub kind: Kind,
}

/// What the buyer gets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Kind {
    /// So many coins.
    Coins(u64),
    /// This title.
    Title(String),
    /// A relic that nobody else has.
    Relic,
}

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("there is no catalogue `{}`: give `--products` a file like {BUILT_IN_PATH}", .0.display())]
    Missing(PathBuf),
    #[error("the catalogue `{}` can't be read ({reason}): make it a text file that the server may open", .path.display())]
    Unreadable { path: PathBuf, reason: io::Error },
    #[error("the catalogue `{}` is wrong in line {}, column {}: {}{}", .path.display(), .problem.span.end.line,
        .problem.span.end.col, .problem.code, advice(&.problem.code))]
    Wrong {
        path: PathBuf,
        problem: Box<SpannedError>,
    },
}

/// What to do about a mistake that RON knows of. The others say so themselves.
fn advice(problem: &ron::Error) -> &'static str {
    match problem {
        ron::Error::Message(_) => "",
        _ => {
            r#" (a product looks like `(id: "coins_100", title: "100 coins", price: "0.99 €", kind: Coins(100))`)"#
        }
    }
}

impl Catalogue {
    /// The catalogue in a file, or the one that the server has with it.
    ///
    /// # Errors
    /// When there is any mistake in it.
    pub fn load(path: Option<&Path>) -> Result<Self, CatalogueError> {
        let Some(path) = path else {
            return Self::parse(BUILT_IN, Path::new(BUILT_IN_PATH));
        };
        let text = fs::read_to_string(path).map_err(|reason| match reason.kind() {
            io::ErrorKind::NotFound => CatalogueError::Missing(path.to_owned()),
            _ => CatalogueError::Unreadable {
                path: path.to_owned(),
                reason,
            },
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, CatalogueError> {
        ron::from_str(text).map_err(|problem| CatalogueError::Wrong {
            path: path.to_owned(),
            problem: Box::new(problem),
        })
    }

    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The ids of all products.
    pub fn products(&self) -> Vec<ProductId> {
        self.0.iter().map(|entry| entry.id.clone()).collect()
    }

    /// The product with this id.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.id == *id)
    }
}

/// For people.
impl fmt::Display for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Entry { id, title, price, .. }) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "; " };
            write!(f, "{comma}{title} (`{id}`, {price})")?;
        }
        Ok(())
    }
}

/// Checks all while reading, since that is when the place of a mistake is known.
impl<'de> Deserialize<'de> for Catalogue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<Entry>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of products in `[` and `]`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Entry>, A::Error> {
                let (mut entries, mut ids) = (Vec::new(), HashSet::new());
                while let Some(entry) = list.next_element::<Entry>()? {
                    if !ids.insert(entry.id.clone()) {
                        return Err(A::Error::custom(format_args!(
                            "the id `{}` is taken by an earlier product: give each an id of its own",
                            entry.id
                        )));
                    }
                    entries.push(entry);
                }
                if entries.is_empty() {
                    return Err(A::Error::custom("there is no product: list at least one"));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(Entries).map(Self)
    }
}

/// A product as it is written down.
#[derive(Deserialize)]
#[serde(rename = "Product", deny_unknown_fields)]
struct Unchecked {
    id: String,
    title: String,
    price: String,
    kind: Kind,
}

impl TryFrom<Unchecked> for Entry {
    type Error = String;

    fn try_from(written: Unchecked) -> Result<Self, String> {
        let Unchecked {
            id,
            title,
            price,
            kind,
        } = written;
        // Not repeated, since it may be too long, or of several lines.
        let id = ProductId::new(&id).map_err(|problem| format!("this can't be an id: {problem}"))?;
        for (name, text) in [("title", &title), ("price", &price)] {
            check_text(name, text, &id)?;
        }
        match &kind {
            Kind::Coins(0) => return Err(format!("`{id}` is a product of 0 coins: sell at least one")),
            Kind::Title(title) => check_text("title to be called", title, &id)?,
            Kind::Coins(_) | Kind::Relic => {}
        }
        Ok(Self {
            id,
            title,
            price,
            kind,
        })
    }
}

fn check_text(name: &str, text: &str, id: &ProductId) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err(format!("the {name} of `{id}` is empty: say something"));
    }
    if text.chars().count() > TEXT_LIMIT {
        return Err(format!(
            "the {name} of `{id}` has more than {TEXT_LIMIT} characters: say it in fewer"
        ));
    }
    Ok(())
}
