//! Whether a value comes back from its stored form as it was.
//!
//! Owns the check, the words for what differs, and the guess at the serde attribute that is to blame. When to check (the
//! first encode of each type in a debug build, a game's own tests) is left to others.

use std::any::type_name;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    StoredValue, ValueError, nested_nil,
    tree::{Pair, Tree},
};

/// A value that would not come back from the disk as it was saved. The text names the type, the place and what to change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundTripError {
    #[error("{0}")]
    Encode(ValueError),
    #[error("a stored `{type_name}` cannot be read again: {reason}; {hint}")]
    Decode {
        type_name: &'static str,
        reason: String,
        hint: &'static str,
    },
    #[error("a stored `{type_name}` comes back changed: {place} {what}; {hint}")]
    Changed {
        type_name: &'static str,
        place: String,
        what: &'static str,
        hint: &'static str,
    },
}

/// Encodes `value`, decodes that, encodes the result, and compares both stored forms: maps and sets in any order,
/// floats by their bits. Returns the stored form.
///
/// It sees what is stored, so it is not told about fields that are left out on purpose (`#[serde(skip)]`).
pub(crate) fn check_round_trip<T>(value: &T) -> Result<StoredValue, RoundTripError>
where
    T: Serialize + DeserializeOwned,
{
    let type_name = type_name::<T>();
    let stored = StoredValue::encode(value).map_err(RoundTripError::Encode)?;
    if let Some(place) = nested_nil::find(value) {
        return Err(RoundTripError::Changed {
            type_name,
            place,
            what: "becomes `None`",
            hint: NESTED_NIL,
        });
    }
    let again: T = stored.decode().map_err(|error| unreadable(type_name, error))?;
    let again = StoredValue::encode(&again).map_err(RoundTripError::Encode)?;
    match find_difference(&parse(&stored)?, &parse(&again)?) {
        None => Ok(stored),
        Some(Difference {
            mut place,
            what,
            hint,
        }) => {
            place.reverse();
            let place = if place.is_empty() {
                "it".to_owned()
            } else {
                format!("`{}`", place.join("."))
            };
            Err(RoundTripError::Changed {
                type_name,
                place,
                what,
                hint,
            })
        }
    }
}

fn parse(value: &StoredValue) -> Result<Tree<'_>, RoundTripError> {
    Tree::parse(value.bytes()).map_err(|flaw| {
        RoundTripError::Encode(ValueError::Malformed {
            reason: flaw.to_string(),
        })
    })
}

const NESTED_NIL: &str = "a `Some` that holds nothing is stored like `None`: use an enum in place of `Option<Option<T>>` \
                          or `Option<()>`";
const ONE_SIDED: &str =
    "it is written and not read: remove `skip_deserializing`, or give `rename` the same name both ways";
const WRONG_DEFAULT: &str = "it is left out when written and comes back with another value: `skip_serializing_if` may \
                             leave out only what `#[serde(default)]` gives back";
const NOT_READ: &str = "another field or variant takes its place: `flatten` has two fields of one name, or `untagged` \
                        reads an earlier variant";
const NOT_MIRRORED: &str = "`untagged` reads another variant than was written, or `serialize_with` and \
                            `deserialize_with` (`into` and `from`) do not mirror each other";

/// The attribute that is likely to blame when `reason` is what serde says.
fn hint(reason: &str) -> &'static str {
    const HINTS: [(&str, &str); 6] = [
        (
            "missing field",
            "a field that `skip_serializing` leaves out needs `#[serde(default)]` to be read",
        ),
        (
            "untagged",
            "`untagged` cannot tell the variants apart by what is stored: use `#[serde(tag = \"…\")]` or none",
        ),
        (
            "128 is not",
            "`flatten`, `tag` and `untagged` cannot hold 128-bit numbers: keep them out, or store a string",
        ),
        (
            "unknown variant",
            "give the variant's `rename` the same name both ways, or remove `skip_deserializing`",
        ),
        (
            "duplicate field",
            "two fields have one name: look at `flatten`, `rename` and `alias`",
        ),
        (
            "",
            "`flatten`, `tag` and `untagged` cannot hold every type; `serialize_with` needs its `deserialize_with`",
        ),
    ];
    HINTS
        .iter()
        .find(|(sign, _)| reason.contains(sign))
        .map_or(NOT_MIRRORED, |(_, hint)| hint)
}

fn unreadable(type_name: &'static str, error: ValueError) -> RoundTripError {
    match error {
        ValueError::UnknownField { path, .. } => RoundTripError::Decode {
            type_name,
            reason: format!("`{path}` is an unknown field"),
            hint: ONE_SIDED,
        },
        ValueError::Decode { reason, .. } => {
            let hint = hint(&reason);
            RoundTripError::Decode {
                type_name,
                reason,
                hint,
            }
        }
        other => RoundTripError::Encode(other),
    }
}

/// Where two trees differ (the names of the place, innermost first), how, and the likely reason.
struct Difference {
    place: Vec<String>,
    what: &'static str,
    hint: &'static str,
}

impl Difference {
    const fn here(what: &'static str, hint: &'static str) -> Option<Self> {
        Some(Self {
            place: Vec::new(),
            what,
            hint,
        })
    }

    fn inside(mut self, name: String) -> Self {
        self.place.push(name);
        self
    }
}

/// The first place where `after` is not as `before`.
fn find_difference(before: &Tree<'_>, after: &Tree<'_>) -> Option<Difference> {
    match (before, after) {
        _ if before == after => None,
        (Tree::Map(before), Tree::Map(after)) => map_difference(before, after),
        (Tree::Array(before), Tree::Array(after)) => array_difference(before, after),
        _ => Difference::here("has another value", NOT_MIRRORED),
    }
}

fn map_difference(before: &[Pair<'_>], after: &[Pair<'_>]) -> Option<Difference> {
    let (before, after) = (in_order(before), in_order(after));
    let lacks = |pairs: &[&Pair<'_>], name| pairs.binary_search_by(|(other, _)| other.cmp(name)).is_err();
    if let Some((name, _)) = before.iter().find(|(name, _)| lacks(&after, name)) {
        return Difference::here("is lost", NOT_READ).map(|found| found.inside(name.label()));
    }
    if let Some((name, _)) = after.iter().find(|(name, _)| lacks(&before, name)) {
        return Difference::here("appears", WRONG_DEFAULT).map(|found| found.inside(name.label()));
    }
    let mut pairs = before.iter().zip(after);
    pairs.find_map(|((name, before), (_, after))| Some(find_difference(before, after)?.inside(name.label())))
}

fn in_order<'a, 'b>(pairs: &'b [Pair<'a>]) -> Vec<&'b Pair<'a>> {
    let mut pairs: Vec<_> = pairs.iter().collect();
    pairs.sort_unstable();
    pairs
}

/// An array may be a set, which comes back in any order.
fn array_difference(before: &[Tree<'_>], after: &[Tree<'_>]) -> Option<Difference> {
    if before.len() != after.len() {
        return Difference::here("has another number of items", NOT_MIRRORED);
    }
    let known = sorted_items(after);
    if sorted_items(before) == known {
        return None;
    }
    let lost = before
        .iter()
        .position(|item| known.binary_search(&item.clone().sorted()).is_err());
    let place = lost.and_then(|index| Some((index, before.get(index)?, after.get(index)?)));
    match place
        .and_then(|(index, before, after)| Some(find_difference(before, after)?.inside(index.to_string())))
    {
        Some(found) => Some(found),
        None => Difference::here("has other items", NOT_MIRRORED),
    }
}

fn sorted_items<'a>(items: &[Tree<'a>]) -> Vec<Tree<'a>> {
    let mut items: Vec<_> = items.iter().map(|item| item.clone().sorted()).collect();
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde::{Deserialize, Deserializer, Serializer};

    use super::*;

    /// What is said about `value`, or nothing.
    fn complaint<T: Serialize + DeserializeOwned>(value: &T) -> String {
        check_round_trip(value)
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[track_caller]
    fn assert_complaint<T: Serialize + DeserializeOwned>(value: &T, words: &[&str]) {
        let complaint = complaint(value);
        let type_name = type_name::<T>();
        for word in words.iter().chain([&type_name]) {
            assert!(complaint.contains(word), "`{word}` is not in: {complaint}");
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Bag<T> {
        items: Vec<T>,
    }

    #[test]
    fn what_comes_back_as_it_was_is_fine_in_whatever_order() {
        #[derive(Serialize, Deserialize)]
        struct Everything {
            set: HashSet<u32>,
            sets: Vec<HashSet<String>>,
            map: HashMap<u32, HashSet<u32>>,
            nan: f32,
            wide: Option<u128>,
            unit: (),
            #[serde(skip)]
            _cache: u32,
        }
        let everything = Everything {
            set: (0..1000).collect(),
            sets: (0..20)
                .map(|end| (0..end).map(|number| number.to_string()).collect())
                .collect(),
            map: (0..100).map(|key| (key, (0..key).collect())).collect(),
            nan: f32::NAN,
            wide: Some(u128::MAX),
            unit: (),
            _cache: 7,
        };
        assert_eq!(complaint(&everything), "");
    }

    #[test]
    fn a_field_that_is_left_out_needs_a_default() {
        #[derive(Serialize, Deserialize)]
        struct Hero {
            #[serde(skip_serializing_if = "Vec::is_empty")]
            items: Vec<u8>,
        }
        assert_eq!(complaint(&Hero { items: vec![1] }), "");
        assert_complaint(
            &Hero { items: Vec::new() },
            &["missing field `items`", "#[serde(default)]"],
        );
        assert_complaint(
            &Bag {
                items: vec![Hero { items: vec![] }],
            },
            &["at `items.0`"],
        );
    }

    #[test]
    fn a_field_that_is_left_out_needs_the_default_that_was_left_out() {
        #[derive(Serialize, Deserialize)]
        struct Hero {
            #[serde(default = "full", skip_serializing_if = "is_zero")]
            health: u8,
        }
        fn full() -> u8 {
            100
        }
        #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
        fn is_zero(health: &u8) -> bool {
            *health == 0
        }
        assert_eq!(complaint(&Hero { health: 7 }), "");
        assert_complaint(
            &Bag {
                items: vec![Hero { health: 7 }, Hero { health: 0 }],
            },
            &["`items.1.health` appears", "skip_serializing_if"],
        );
    }

    #[test]
    fn a_field_with_two_names_is_not_read() {
        #[derive(Serialize, Deserialize)]
        struct Hero {
            #[serde(default, rename(serialize = "hp"))]
            health: u8,
        }
        assert_complaint(&Hero { health: 1 }, &["`hp` is an unknown field", "rename"]);
    }

    #[test]
    fn an_untagged_enum_that_reads_another_variant_is_noticed() {
        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Either {
            Short { x: u8 },
            Long { x: u8, y: u8 },
        }
        assert_eq!(complaint(&Either::Short { x: 1 }), "");
        assert_complaint(
            &Bag {
                items: vec![Either::Long { x: 1, y: 2 }],
            },
            &["`items.0.y` is lost", "untagged"],
        );
    }

    #[test]
    fn an_untagged_enum_that_reads_no_variant_is_noticed() {
        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Wide {
            Number(u128),
        }
        assert_complaint(&Wide::Number(1), &["untagged"]);
    }

    #[test]
    fn two_flattened_fields_of_one_name_are_noticed() {
        #[derive(Serialize, Deserialize)]
        struct Named {
            name: String,
        }
        #[derive(Serialize, Deserialize)]
        struct Pair {
            #[serde(flatten)]
            first: Named,
            #[serde(flatten)]
            second: Named,
        }
        let named = |name: &str| Named {
            name: name.to_owned(),
        };
        assert_complaint(
            &Pair {
                first: named("a"),
                second: named("b"),
            },
            &["flatten"],
        );
    }

    #[test]
    fn a_some_that_holds_nothing_is_noticed_where_it_is() {
        #[derive(Serialize, Deserialize)]
        enum Slot {
            Held { by: Option<Option<u8>> },
        }
        assert_eq!(complaint(&Slot::Held { by: Some(Some(1)) }), "");
        assert_eq!(complaint(&Slot::Held { by: None }), "");
        let held = HashMap::from([("left".to_owned(), vec![Slot::Held { by: Some(None) }])]);
        assert_complaint(&held, &["`left.0.Held.by` becomes `None`"]);
        assert_complaint(&Some(()), &["it becomes `None`"]);
    }

    #[test]
    fn halves_that_do_not_mirror_each_other_are_noticed() {
        #[derive(Serialize, Deserialize)]
        struct Timer {
            #[serde(serialize_with = "in_seconds", deserialize_with = "from_millis")]
            left: u32,
            done: bool,
        }
        #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
        fn in_seconds<S: Serializer>(left: &u32, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u32(left / 1000)
        }
        fn from_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
            u32::deserialize(deserializer)
        }
        let timers = Bag {
            items: vec![
                Timer { left: 0, done: true },
                Timer {
                    left: 5000,
                    done: false,
                },
            ],
        };
        assert_complaint(&timers, &["`items.1.left` has another value", "deserialize_with"]);
    }

    #[test]
    fn a_map_that_grows_when_it_is_read_is_noticed() {
        #[derive(Serialize, Deserialize)]
        #[serde(from = "Vec<u8>", into = "Vec<u8>")]
        #[derive(Clone)]
        struct Padded(Vec<u8>);
        impl From<Vec<u8>> for Padded {
            fn from(mut bytes: Vec<u8>) -> Self {
                bytes.push(0);
                Self(bytes)
            }
        }
        impl From<Padded> for Vec<u8> {
            fn from(padded: Padded) -> Self {
                padded.0
            }
        }
        assert_complaint(
            &Padded(vec![1]),
            &["it has another number of items", "`into` and `from`"],
        );
    }
}
