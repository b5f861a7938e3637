//! What a document holds: keys and their entries, in a fixed order.
//!
//! Owns the map; what it looks like on disk is next door in `format.rs`.

use std::{fmt, mem, sync::Arc};

use super::StoredValue;

/// One player's data: a sorted map from key to [`Entry`].
///
/// Cloning copies nothing: clones share everything until one of them is changed, and keys and values even then. A
/// document decoded from uncompressed bytes keeps these bytes alive for as long as one of its values is unchanged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Sorted by key. (A handful: a tree would take more memory, of which each player pays.)
    entries: Arc<Vec<(Arc<str>, Entry)>>,
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
    pub fn new() -> Self {
        Self::default()
    }

    /// What is stored under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let place = self.place(key).ok()?;
        Some(&self.entries[place].1)
    }

    /// Stores `entry` under `key` and returns what was there. (An empty key is refused when the document is encoded.)
    pub fn set(&mut self, key: &str, entry: Entry) -> Option<Entry> {
        let place = self.place(key);
        let entries = Arc::make_mut(&mut self.entries);
        match place {
            Ok(place) => Some(mem::replace(&mut entries[place].1, entry)),
            Err(place) => {
                entries.insert(place, (key.into(), entry));
                None
            }
        }
    }

    /// Adds an entry behind all others; `false` if its key doesn't belong there.
    pub(super) fn push(&mut self, key: Arc<str>, entry: Entry) -> bool {
        let follows = self.entries.last().is_none_or(|(last, _)| **last < *key);
        if follows {
            Arc::make_mut(&mut self.entries).push((key, entry));
        }
        follows
    }

    /// Records that `key` was removed on purpose, and returns what was there.
    pub fn tombstone(&mut self, key: &str) -> Option<Entry> {
        self.set(key, Entry::Tombstone)
    }

    /// Forgets `key` as if it had never been stored, and returns what was there.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let place = self.place(key).ok()?;
        Some(Arc::make_mut(&mut self.entries).remove(place).1)
    }

    /// Where `key` is, or would be.
    fn place(&self, key: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| (**known).cmp(key))
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
