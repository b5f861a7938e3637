//! Finding stored fields that a type dropped where nobody could see it.
//!
//! serde buffers what `flatten`, `tag = …` and `untagged` look at, and drops what it doesn't need from the buffer without
//! a word. This module owns the way to notice all the same; [`StoredValue::decode_lossless`] states the rule.

use std::{
    any::type_name,
    collections::BTreeMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    StoredValue, ValueError,
    tree::{Pair, Tree},
    wire::Token,
};

/// No more kinds of missing fields than this are examined, the outermost first: each costs at least one decoding. Types
/// have few; only a map with free keys that is stored under a new name comes near.
const MAX_KINDS: usize = 64;

/// What a field's value is replaced by, to see whether anybody reads it. No type that drops its stored value without
/// looking can be told from one that accepts all of these and makes nothing of them.
const PROBES: [Token<'static>; 5] = [
    Token::Bool(true),
    Token::Uint(1),
    Token::F64(0.5_f64.to_bits()),
    Token::Str(b"probe"),
    Token::Nil,
];

/// Checks that `value`, just decoded from `stored`, accounts for each of its fields.
pub(super) fn check<T>(stored: &StoredValue, value: &T) -> Result<(), ValueError>
where
    T: Serialize + DeserializeOwned,
{
    let again = StoredValue::encode(value)?;
    if again == *stored {
        return Ok(());
    }
    let before = parse(stored)?;
    let after = parse(&again)?.sorted();
    let mut missing = Missing::default();
    collect(&before, Some(&after), &mut Vec::new(), &mut missing);
    for paths in missing.values().take(MAX_KINDS) {
        if !is_read::<T>(&before, &after, paths) {
            let path = paths.first().map(|path| before.name_of(path)).unwrap_or_default();
            return Err(ValueError::UnknownField {
                type_name: type_name::<T>(),
                path,
            });
        }
    }
    Ok(())
}

fn parse(value: &StoredValue) -> Result<Tree<'_>, ValueError> {
    Tree::parse(value.bytes()).map_err(|flaw| ValueError::Malformed {
        reason: flaw.to_string(),
    })
}

/// Fields of one kind belong to one Rust field, as far as one can see: the same name at the same depth, beside the same
/// neighbours (which tells the variants of a tagged enum apart). They are examined together, since a decoding for each of
/// ten thousand items would take too long.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind<'a> {
    depth: usize,
    name: &'a Tree<'a>,
    neighbours: u64,
}

/// Where the fields of each kind are.
type Missing<'a> = BTreeMap<Kind<'a>, Vec<Vec<usize>>>;

/// Notes each field in `before` that `after` lacks; and those within one that it lacks, which may have another name
/// there.
fn collect<'a>(
    before: &'a Tree<'a>,
    after: Option<&Tree<'_>>,
    path: &mut Vec<usize>,
    missing: &mut Missing<'a>,
) {
    if Some(before) == after {
        return;
    }
    match before {
        Tree::Scalar(_) => {}
        Tree::Array(items) => {
            let others = if let Some(Tree::Array(others)) = after {
                &**others
            } else {
                &[]
            };
            for (index, item) in items.iter().enumerate() {
                path.push(index);
                collect(item, others.get(index), path, missing);
                path.pop();
            }
        }
        Tree::Map(pairs) => {
            let others = if let Some(Tree::Map(others)) = after {
                &**others
            } else {
                &[]
            };
            let neighbours = hash(pairs);
            for (index, (name, value)) in pairs.iter().enumerate() {
                path.push(index);
                let found = others.binary_search_by(|(other, _)| other.cmp(name)).ok();
                let other = found.and_then(|at| others.get(at)).map(|(_, value)| value);
                if other.is_none() {
                    missing
                        .entry(Kind {
                            depth: path.len(),
                            name,
                            neighbours,
                        })
                        .or_default()
                        .push(path.clone());
                }
                collect(value, other, path, missing);
                path.pop();
            }
        }
    }
}

/// A fingerprint of a map's keys in their order.
fn hash(pairs: &[Pair<'_>]) -> u64 {
    let names: Vec<_> = pairs.iter().map(|(name, _)| name).collect();
    BuildHasherDefault::<DefaultHasher>::default().hash_one(names)
}

/// Whether what stands at `paths` has any influence on the decoded value.
fn is_read<T>(before: &Tree<'_>, after: &Tree<'_>, paths: &[Vec<usize>]) -> bool
where
    T: Serialize + DeserializeOwned,
{
    PROBES.into_iter().any(|probe| {
        let mut changed = before.clone();
        for path in paths {
            if let Some(place) = changed.at_mut(path) {
                *place = Tree::Scalar(probe);
            }
        }
        let Ok(value) = changed.to_stored().decode_lenient::<T>() else {
            return true;
        };
        let Ok(again) = StoredValue::encode(&value) else {
            return true;
        };
        Tree::parse(again.bytes()).is_ok_and(|again| again.sorted() != *after)
    })
}
