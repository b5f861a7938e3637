//! Servers' names, held by operating system locks.
//!
//! A name is an exclusive lock on a file of its own beside the database. The kernel drops it with the process, so
//! whoever gets it knows that no other server of that name is alive. The files are never removed: somebody who has just
//! opened one would be left with a lock on a file that nobody else can find.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::super::{ServerId, StoreError};

/// The longest escaped name that becomes part of a file name as it is; a file name has 255 bytes at most.
const LONGEST: usize = 100;
/// How much of a longer one is kept, for people.
const KEPT: usize = 60;
/// Namespace for what stands in for the rest of it.
const LONG_NAMES: Uuid = Uuid::from_u128(0x1c0e_77d4_5b1a_4b8e_8f53_3b8d_90e4_62af);

/// The names that this process (or rather, this handle) holds.
pub(super) struct Names {
    database: PathBuf,
    held: HashMap<String, Held>,
    /// Whose names are given back as soon as the transaction that retires them is durable.
    retiring: HashSet<ServerId>,
}

struct Held {
    server: ServerId,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Names {
    /// No names yet; lock files go beside `database`.
    pub(super) fn beside(database: &Path) -> Self {
        Self {
            database: database.to_owned(),
            held: HashMap::new(),
            retiring: HashSet::new(),
        }
    }

    /// Takes `name` for `server`, unless that has it already.
    pub(super) fn take(&mut self, name: &str, server: ServerId) -> Result<(), StoreError> {
        match self.held.get(name) {
            Some(held) if held.server == server => {}
            Some(_) => {
                return Err(StoreError::NameTaken {
                    name: name.to_owned(),
                });
            }
            None => {
                let lock = self.lock(name)?;
                self.held.insert(name.to_owned(), Held { server, _lock: lock });
            }
        }
        self.retiring.remove(&server);
        Ok(())
    }

    /// Gives `server`'s name back, once the transaction is [settled](Self::settle).
    pub(super) fn give_back(&mut self, server: ServerId) {
        self.retiring.insert(server);
    }

    /// The transaction has ended. Names that it took are kept even if it was lost: the server that asked will ask again.
    pub(super) fn settle(&mut self, durable: bool) {
        let retired = std::mem::take(&mut self.retiring);
        if durable && !retired.is_empty() {
            self.held.retain(|_, held| !retired.contains(&held.server));
        }
    }

    fn lock(&self, name: &str) -> Result<File, StoreError> {
        let path = self.path(name);
        let failed = |error: io::Error| {
            StoreError::unavailable(format_args!(
                "the lock file `{}` of this server's name cannot be used ({error}): check its permissions, and that it \
                 is on a local disk",
                path.display()
            ))
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::NameTaken {
                name: name.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        let mut path = OsString::from(&self.database);
        path.push("-server-");
        path.push(escape(name));
        path.into()
    }
}

/// A name as a part of a file name: no separators, nothing special, and never the same for two names.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    if escaped.len() > LONGEST {
        escaped.truncate(KEPT);
        // A tilde is never the result of escaping, so no short name can meet a long one.
        escaped.push_str(&format!(
            "~{}",
            Uuid::new_v5(&LONG_NAMES, name.as_bytes()).simple()
        ));
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_name_cannot_leave_the_folder_or_be_too_long() {
        for name in [
            "../../etc/passwd",
            "a/b",
            "a\\b",
            "C:",
            "nul\0byte",
            "",
            "..",
            "ä",
            &"x/".repeat(500),
        ] {
            let escaped = escape(name);
            assert!(
                escaped.len() <= LONGEST,
                "`{name}` became {} bytes",
                escaped.len()
            );
            let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.%~".contains(&byte);
            assert!(escaped.bytes().all(harmless), "`{name}` became `{escaped}`");
        }
    }

    #[test]
    fn two_names_never_share_a_file() {
        let long = "x".repeat(300);
        let longer = format!("{long}x");
        let names = ["a/b", "a%2Fb", "a_b", "a", "", &long, &longer, &escape(&long)];
        let files: HashSet<String> = names.iter().map(|name| escape(name)).collect();
        assert_eq!(files.len(), names.len(), "{files:?}");
    }
}
