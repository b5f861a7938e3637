//! What tells one boot of a server, and one lock of a session, from all others.

use std::fmt;

use uuid::Uuid;

use crate::chance;

/// Identifies one *boot* of a server: a restart under the same name gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(Uuid);

/// Identifies one session's lock. Never all zeros, which is how a store spells "free".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockId(Uuid);

macro_rules! random_id {
    ($name:ident) => {
        impl $name {
            /// A new random id (UUID version 4).
            #[must_use]
            pub fn random() -> Self {
                Self(chance::uuid())
            }

            /// The id's 16 bytes, as stored.
            #[must_use]
            pub const fn into_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// The reverse of [`into_bytes`](Self::into_bytes).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}
random_id!(ServerId);
random_id!(LockId);
