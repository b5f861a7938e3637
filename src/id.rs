//! Who is who: the identifiers that every other module shares.
//!
//! This module owns [`PlayerId`], [`PurchaseId`] and [`ProductId`], and nothing else; of Bevy it knows
//! reflection alone, and it knows no storage.

mod text;

use std::{fmt, str::FromStr};

pub use text::{InvalidId, ProductId, PurchaseId};

use bevy::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Namespace for ids made with [`PlayerId::from_name`].
const NAMES: Uuid = Uuid::from_u128(0x5d1f_63c2_8f1e_4f0a_9d3e_7b1c_52a4_0e91);
/// Namespace for ids made with [`PlayerId::from_steam`].
const STEAM: Uuid = Uuid::from_u128(0xc7a8_0b54_21d3_4c6f_8a92_e1f0_6d35_b8c4);

/// The size of a netcode connect token's user data.
const USER_DATA_BYTES: usize = 256;
/// Tells user data with a player id in it from other user data.
const USER_DATA_MARK: &[u8; 8] = b"player:1";

/// Identifies a player (or one of a player's characters, see [`slot`](Self::slot)) for as long as the game lives.
///
/// It wraps a UUID. Where an account system already hands out UUIDs, use [`PlayerId::from_uuid`];
/// for Steam ids and for names there are constructors that always give the same id for the same input.
///
/// ```
/// use bevy_player_data::PlayerId;
///
/// let ada = PlayerId::from_name("ada");
/// assert_eq!(ada, PlayerId::from_name("ada"));
/// assert_ne!(ada, ada.slot(1));
/// assert_eq!(ada, ada.to_string().parse().unwrap());
/// ```
#[derive(Reflect, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[reflect(opaque)]
#[type_path = "bevy_player_data"]
#[reflect(Clone, Debug, Hash, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlayerId(Uuid);

impl PlayerId {
    /// Wraps the UUID by which an account system already knows the player.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id of the player with this name (UUID version 5).
    ///
    /// A name proves nothing: hand such an id out only after whoever claims the name has been authenticated.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self(Uuid::new_v5(&NAMES, name.as_bytes()))
    }

    /// The id of the player with this 64-bit Steam id (UUID version 5).
    #[must_use]
    pub fn from_steam(steam_id: u64) -> Self {
        Self(Uuid::new_v5(&STEAM, &steam_id.to_be_bytes()))
    }

    /// The id of this player's `n`-th character (UUID version 5 in this player's own namespace).
    ///
    /// Each slot is a player of its own to the store: it has its own data and its own session lock.
    #[must_use]
    pub fn slot(self, n: u32) -> Self {
        Self(Uuid::new_v5(&self.0, &n.to_be_bytes()))
    }

    /// The wrapped UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The 16 bytes of the UUID, as stored in the `player_id` column.
    #[must_use]
    pub const fn into_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The reverse of [`into_bytes`](Self::into_bytes).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id in the form in which a netcode connect token carries it: for the login service that makes the token.
    /// The bytes from the 24th on are zeros and the game's own, to put a name or a team there.
    ///
    /// ```
    /// use bevy_player_data::PlayerId;
    ///
    /// let user_data = PlayerId::from_name("ada").to_user_data(); // for `ConnectToken::generate`
    /// assert_eq!(PlayerId::from_user_data(&user_data), Some(PlayerId::from_name("ada")));
    /// ```
    #[must_use]
    pub fn to_user_data(self) -> [u8; USER_DATA_BYTES] {
        let mut user_data = [0; USER_DATA_BYTES];
        user_data[..USER_DATA_MARK.len()].copy_from_slice(USER_DATA_MARK);
        user_data[USER_DATA_MARK.len()..][..16].copy_from_slice(&self.into_bytes());
        user_data
    }

    /// The reverse of [`to_user_data`](Self::to_user_data); `None` when there is no player id in it.
    #[must_use]
    pub fn from_user_data(user_data: &[u8; USER_DATA_BYTES]) -> Option<Self> {
        let rest = user_data.strip_prefix(USER_DATA_MARK)?;
        rest.first_chunk().copied().map(Self::from_bytes)
    }
}

impl From<Uuid> for PlayerId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for PlayerId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlayerId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_different_kinds_never_meet() {
        let ada = PlayerId::from_name("ada");
        let all = [
            ada,
            PlayerId::from_name("Ada"),
            PlayerId::from_steam(7),
            ada.slot(0),
            ada.slot(1),
            ada.slot(0).slot(0),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b, "two different origins gave one id");
            }
        }
    }

    #[test]
    fn user_data_of_another_kind_is_not_a_player() {
        assert_eq!(PlayerId::from_user_data(&[0; 256]), None);
        assert_eq!(PlayerId::from_user_data(&[7; 256]), None);
    }

    #[test]
    fn a_derived_id_is_the_same_in_every_version_of_the_crate() {
        // Stored data hangs on these: they may never change.
        assert_eq!(
            PlayerId::from_name("ada").to_string(),
            "40e8a19c-171c-5e76-87df-7a40130d1b12"
        );
        assert_eq!(
            PlayerId::from_steam(76_561_197_960_287_930).to_string(),
            "3bb27c93-2bca-5f34-89f3-ef3e639ffe70"
        );
        assert_eq!(
            PlayerId::from_name("ada").slot(1).to_string(),
            "7735a176-bd34-536f-bc7e-d7a67b320bbb"
        );
    }
}
