//! What a player has: the components that are saved, and shown to their owner.
//!
//! All of it is public. What the server keeps to itself is persisted by the server alone, see its `cheating` module.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bevy::prelude::*;
use bevy_player_data::{ProductId, prelude::*};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares the data that server and client share.
pub fn shared_data(app: &mut App) {
    app.persist::<Coins>()
        .persist::<Level>()
        .persist::<Inventory>()
        .persist::<Settings>()
        .persist::<Career>()
        .persist::<Cell>()
        .persist::<Bought>()
        .persist_optional::<Relics>()
        .persist_optional::<Title>();
}

/// The player's money.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub struct Coins(pub u64);

impl PlayerData for Coins {
    const KEY: &'static str = "coins";
}

/// How far the player has come.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Counted from 1.
    pub number: u32,
    /// What was gained since this level was reached.
    pub points: u32,
}

impl Default for Level {
    fn default() -> Self {
        Self { number: 1, points: 0 }
    }
}

impl Level {
    /// Each level takes this many points times its number.
    const POINTS: u32 = 5;

    /// How many points lead to the next level.
    pub const fn goal(&self) -> u32 {
        self.number.saturating_mul(Self::POINTS)
    }
}

impl PlayerData for Level {
    const KEY: &'static str = "level";
}

/// What the player has found, besides coins.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// At most one stack of each item.
    pub stacks: Vec<Stack>,
}

/// Some items of one kind.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    pub item: Item,
    pub count: u32,
}

/// A kind of item.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Apple,
    Horseshoe,
    Gem,
}

impl PlayerData for Inventory {
    const KEY: &'static str = "inventory";
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stacks.is_empty() {
            return f.write_str("nothing");
        }
        for (n, Stack { item, count }) in self.stacks.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {item:?}")?;
        }
        Ok(())
    }
}

/// What the player has chosen.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub color: Paint,
}

impl PlayerData for Settings {
    const KEY: &'static str = "settings";
}

/// The color in which a player is shown to everybody.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    #[default]
    Red,
    Green,
    Blue,
    Magenta,
    Cyan,
}

impl Paint {
    pub const ALL: [Self; 5] = [Self::Red, Self::Green, Self::Blue, Self::Magenta, Self::Cyan];
}

impl FromStr for Paint {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let paint = Self::ALL
            .into_iter()
            .find(|paint| format!("{paint:?}").eq_ignore_ascii_case(name));
        paint.ok_or_else(|| format!("there is no color `{name}`, only {:?}", Self::ALL))
    }
}

/// The player's past.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Career {
    /// How often the player has left the field in good order.
    pub rounds: u32,
}

impl PlayerData for Career {
    const KEY: &'static str = "career";
}

/// Where the player stands.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    pub x: u8,
    pub y: u8,
}

impl PlayerData for Cell {
    const KEY: &'static str = "cell";
}

/// What the player may call themselves, once they have earned it.
#[derive(Component, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[component(immutable)]
pub struct Title(pub String);

impl PlayerData for Title {
    const KEY: &'static str = "title";
}

/// How often the player has bought each product, less what was refunded. Only purchases change it.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Bought(pub BTreeMap<ProductId, u32>);

impl PlayerData for Bought {
    const KEY: &'static str = "bought";
}

impl fmt::Display for Bought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (n, (product, count)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {product}")?;
        }
        Ok(())
    }
}

/// Rare things that players give to each other. Nobody has any before the first welcome.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Relics(pub Vec<Relic>);

impl PlayerData for Relics {
    const KEY: &'static str = "relics";
}

/// The serial number of a relic: there is one of each in the whole world.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relic(pub Uuid);

/// The number's first digits, which are enough for people.
impl fmt::Display for Relic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, ..) = self.0.as_fields();
        write!(f, "#{first:08x}")
    }
}

impl fmt::Display for Relics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(relics) = self;
        write!(f, "{}", relics.len())?;
        for (n, relic) in relics.iter().enumerate() {
            let before = if n == 0 { ": " } else { ", " };
            write!(f, "{before}{relic}")?;
        }
        Ok(())
    }
}
