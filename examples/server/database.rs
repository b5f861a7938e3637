//! Where the players' data is kept: in an SQLite file or, with the feature `postgres`, in a PostgreSQL database.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(feature = "postgres")]
use bevy_player_data::store::{CopySettings, PostgresStore, copy_store};
use bevy_player_data::{
    prelude::SqliteStore,
    store::{Store, StoreError},
};

/// What `--db` names.
#[derive(Clone)]
pub enum Database {
    File(PathBuf),
    /// A `postgres://` URL, which may have a password in it.
    Postgres(
        #[cfg_attr(
            not(feature = "postgres"),
            allow(dead_code, reason = "without the feature it is only refused")
        )]
        String,
    ),
}

impl From<String> for Database {
    fn from(given: String) -> Self {
        if given.starts_with("postgres://") || given.starts_with("postgresql://") {
            Self::Postgres(given)
        } else {
            Self::File(given.into())
        }
    }
}

/// For people.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(_) => f.write_str("a PostgreSQL database"),
        }
    }
}

impl Database {
    pub fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::File(path) => Ok(Arc::new(SqliteStore::open(path)?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => Ok(Arc::new(PostgresStore::connect(url)?)),
            #[cfg(not(feature = "postgres"))]
            Self::Postgres(_) => Err(without_postgres()),
        }
    }

    /// Reads the database as a file: as it is, or a copy of it.
    pub fn read<T>(&self, read: impl FnOnce(&Path) -> T) -> Result<T, String> {
        match self {
            Self::File(path) => Ok(read(path)),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => {
                let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
                let path = folder.path().join("copy.db");
                copy(url, &path)?;
                Ok(read(&path))
            }
            #[cfg(not(feature = "postgres"))]
            Self::Postgres(_) => Err(without_postgres().to_string()),
        }
    }
}

#[cfg(not(feature = "postgres"))]
fn without_postgres() -> StoreError {
    StoreError::rejected("this server was built without PostgreSQL: build it with `--features postgres`")
}

/// Copies what is saved. Whatever is saved meanwhile makes the two differ, so it is tried more than once.
#[cfg(feature = "postgres")]
fn copy(url: &str, path: &Path) -> Result<(), String> {
    let from = PostgresStore::connect(url).map_err(|error| error.to_string())?;
    let to = SqliteStore::open(path).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let settings = CopySettings {
        despite_live_locks: true,
    };
    let copied = || runtime.block_on(copy_store(&from, &to, settings, |_| {}));
    let copied = (0..4)
        .map(|_| copied())
        .find(Result::is_ok)
        .unwrap_or_else(copied);
    copied.map(drop).map_err(|error| error.to_string())
}
