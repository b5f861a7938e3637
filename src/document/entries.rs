//! What a document holds: keys and their entries, in a fixed order.
//!
//! Owns the map; what it looks like on disk is next door in `format.rs`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::StoredValue;

/// One player's data: a sorted map from key to [`Entry`].
///
/// Cloning copies no value: keys and values are shared. A document decoded from uncompressed bytes keeps these bytes alive
/// for as long as one of its values is unchanged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Document {
    pub(super) entries: BTreeMap<Arc<str>, Entry>,
}

/// What is stored under one key. A key without an entry was never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A value.
    Value {
        /// The data version that wrote it.
        version: u32,
        /// The oldest data version whose code may read and replace it; `version`, unless its type says otherwise.
        oldest_reader: u32,
        /// The value itself.
        value: StoredValue,
    },
    /// The component was removed on purpose: it must not come back with its default.
    Tombstone,
}

impl Document {
    /// A document without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }

    /// What is stored under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Stores `entry` under `key` and returns what was there. (An empty key is refused when the document is encoded.)
    pub fn set(&mut self, key: &str, entry: Entry) -> Option<Entry> {
        match self.entries.get_mut(key) {
            Some(known) => Some(std::mem::replace(known, entry)),
            None => self.entries.insert(key.into(), entry),
        }
    }

    /// Records that `key` was removed on purpose, and returns what was there.
    pub fn tombstone(&mut self, key: &str) -> Option<Entry> {
        self.set(key, Entry::Tombstone)
    }

    /// Forgets `key` as if it had never been stored, and returns what was there.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        self.entries.remove(key)
    }

    /// The number of entries, tombstones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in the order of their keys, which is the order on disk.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Entry)> + ExactSizeIterator + Clone {
        self.entries.iter().map(|(key, entry)| (&**key, entry))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
