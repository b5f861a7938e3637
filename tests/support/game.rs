//! The small game that the tests play, on servers and on clients.

use std::collections::BTreeMap;

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Coins(pub u64);
impl PlayerData for Coins {
    const KEY: &'static str = "coins";
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Inventory(pub BTreeMap<String, u32>);
impl PlayerData for Inventory {
    const KEY: &'static str = "inventory";
}

/// Optional and immutable.
#[derive(Component, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[component(immutable)]
pub struct Guild(pub String);
impl PlayerData for Guild {
    const KEY: &'static str = "guild";
}
