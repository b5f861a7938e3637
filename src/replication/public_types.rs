//! The public types by the number that names them on the wire.

use std::sync::Arc;

use crate::registry::{DataType, DataTypes};

/// The types that are sent to their owner. Server and client number them alike, or their protocol hashes differ.
#[derive(Clone)]
pub(crate) struct PublicTypes {
    types: Arc<DataTypes>,
    /// Where the public ones are among all.
    positions: Vec<usize>,
}

impl PublicTypes {
    pub(crate) fn new(types: Arc<DataTypes>) -> Self {
        let positions = types
            .iter()
            .enumerate()
            .filter(|(_, data_type)| !data_type.private)
            .map(|(at, _)| at)
            .collect();
        Self { types, positions }
    }

    pub(crate) fn get(&self, index: u16) -> Option<&DataType> {
        self.types.iter().nth(*self.positions.get(usize::from(index))?)
    }

    #[cfg(feature = "server")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &DataType)> {
        (0..=u16::MAX).zip(self.types.public())
    }

    /// The keys and versions, for saying in words what differs.
    pub(crate) fn keys(&self) -> Vec<(String, u32)> {
        self.types
            .public()
            .map(|data_type| (data_type.key.to_owned(), data_type.version))
            .collect()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.types.protocol()
    }

    #[cfg(feature = "server")]
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }
}
