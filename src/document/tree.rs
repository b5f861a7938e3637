//! A stored value as a tree, to compare two of them and to change one.
//!
//! Owns the tree and the names of places in it. It is for rare occasions (a first encode in a debug build, a load after
//! which something is missing); ordinary loads and saves never build one.

use super::{
    StoredValue,
    wire::{self, Flaw, Token},
};

/// A MessagePack value. The order is total and means nothing; it is there for sorting and searching.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Tree<'a> {
    /// Never the head of an array or map.
    Scalar(Token<'a>),
    Array(Vec<Self>),
    Map(Vec<Pair<'a>>),
}

/// A map's key and value.
pub(super) type Pair<'a> = (Tree<'a>, Tree<'a>);

impl<'a> Tree<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Flaw> {
        wire::check(bytes)?; // bounds the recursion, and proves the lengths
        Self::take(&mut &*bytes)
    }

    fn take(rest: &mut &'a [u8]) -> Result<Self, Flaw> {
        match Token::read(rest)? {
            Token::Array(len) => (0..len)
                .map(|_| Self::take(rest))
                .collect::<Result<_, _>>()
                .map(Self::Array),
            Token::Map(len) => {
                let pairs = (0..len).map(|_| Ok((Self::take(rest)?, Self::take(rest)?)));
                pairs.collect::<Result<_, _>>().map(Self::Map)
            }
            scalar => Ok(Self::Scalar(scalar)),
        }
    }

    pub(super) fn to_stored(&self) -> StoredValue {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        StoredValue::from_bytes(bytes.into())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(token) => token.write(out),
            Self::Array(items) => {
                Token::Array(items.len() as u32).write(out);
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(pairs) => {
                Token::Map(pairs.len() as u32).write(out);
                pairs.iter().for_each(|(key, value)| {
                    key.write(out);
                    value.write(out);
                });
            }
        }
    }

    /// Puts maps *and arrays* in a fixed order, since a set is stored as an array in any order.
    pub(super) fn sorted(mut self) -> Self {
        self.sort();
        self
    }

    fn sort(&mut self) {
        match self {
            Self::Scalar(_) => {}
            Self::Array(items) => {
                items.iter_mut().for_each(Self::sort);
                items.sort_unstable();
            }
            Self::Map(pairs) => {
                pairs.iter_mut().for_each(|(key, value)| {
                    key.sort();
                    value.sort();
                });
                pairs.sort_unstable();
            }
        }
    }

    /// The value at `path`: an index per level, of an array's item or of a map's pair.
    pub(super) fn at_mut(&mut self, path: &[usize]) -> Option<&mut Self> {
        path.iter().try_fold(self, |tree, &index| match tree {
            Self::Scalar(_) => None,
            Self::Array(items) => items.get_mut(index),
            Self::Map(pairs) => pairs.get_mut(index).map(|(_, value)| value),
        })
    }

    /// The name of the place at `path`, as `inventory.0.colour`.
    pub(super) fn name_of(&self, path: &[usize]) -> String {
        let mut names = Vec::new();
        let mut tree = self;
        for &index in path {
            let Some((name, child)) = tree.child(index) else {
                break;
            };
            names.push(name);
            tree = child;
        }
        names.join(".")
    }

    fn child(&self, index: usize) -> Option<(String, &Self)> {
        match self {
            Self::Scalar(_) => None,
            Self::Array(items) => items.get(index).map(|item| (index.to_string(), item)),
            Self::Map(pairs) => pairs.get(index).map(|(key, value)| (key.label(), value)),
        }
    }

    /// A map key in words.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Scalar(token) => token.to_string(),
            _ => "?".to_owned(),
        }
    }
}
