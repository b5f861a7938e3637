//! Proof that a type comes back from the disk as it was saved.

use serde::{Serialize, de::DeserializeOwned};

/// Panics unless `value` comes back from its stored form as it was.
///
/// One call for each persisted type, with its fields filled with values that are not their defaults, finds the serde
/// attributes that save what they cannot load. What is left out of the stored form on purpose (`#[serde(skip)]`) is not
/// missed. The stored forms before and after are compared: maps and sets in any order, floats by their bits.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use bevy_player_data::testing::assert_round_trip;
///
/// #[derive(Serialize, Deserialize)]
/// struct Inventory {
///     swords: Vec<String>,
/// }
///
/// assert_round_trip(&Inventory { swords: vec!["rusty".to_owned()] });
/// ```
///
/// # Panics
/// If the value cannot be encoded, or not be decoded again, or differs afterwards. The message names the type, the
/// place and the attribute that is likely to blame.
#[track_caller]
pub fn assert_round_trip<T: Serialize + DeserializeOwned>(value: &T) {
    if let Err(error) = crate::document::check_round_trip(value) {
        panic!("{error}");
    }
}
