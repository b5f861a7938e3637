//! Ids that are texts given by somebody else: a payment provider's purchases, a catalogue's products.

use std::{fmt, str::FromStr, sync::Arc};

use bevy::prelude::*;
use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 255 bytes of UTF-8 without control characters. Cheap to clone.
        #[derive(Reflect, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[reflect(opaque)]
        #[type_path = "bevy_player_data"]
        #[reflect(Clone, Debug, Hash, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest id, in bytes.
            pub const MAX_LEN: usize = 255;

            #[doc = concat!("Takes a text for ", $what, ".")]
            ///
            /// # Errors
            /// When it is empty, longer than [`MAX_LEN`](Self::MAX_LEN), or has control characters.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                check_id($what, text.as_ref()).map(|()| Self(text.as_ref().into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, text: &str) -> bool {
                self.as_str() == text
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, text: &&str) -> bool {
                self.as_str() == *text
            }
        }
    };
}
text_id! {
    /// The payment provider's id of one purchase: the same in every repetition of its callback, and never used again.
    PurchaseId, "a purchase id"
}
text_id! {
    /// What was bought, as the game's catalogue names it.
    ProductId, "a product id"
}

/// A text that can't be an id.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must have 1 to 255 bytes and no control characters, and this has {found}")]
pub struct InvalidId {
    what: &'static str,
    found: String,
}

impl fmt::Debug for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn check_id(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let found = if text.is_empty() {
        "none".to_owned()
    } else if text.len() > PurchaseId::MAX_LEN {
        format!("{} bytes", text.len())
    } else if text.chars().any(char::is_control) {
        "a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(InvalidId { what, found })
}
