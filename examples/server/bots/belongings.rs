//! What a bot owns, as its client shows it.

use bevy::prelude::*;
use bevy_player_data::prelude::*;

use crate::game::data::{Bought, Career, Cell, Coins, Inventory, Level, Relics, Settings, Title};

/// All of a player's public data.
#[derive(Clone, Debug, PartialEq)]
pub struct Belongings {
    pub coins: Coins,
    pub level: Level,
    pub inventory: Inventory,
    pub settings: Settings,
    pub career: Career,
    pub cell: Cell,
    pub bought: Bought,
    pub relics: Option<Relics>,
    pub title: Option<Title>,
}

impl Belongings {
    /// Looks at the client's mirror; `None` while there is nothing to see.
    pub fn read(client: &mut World) -> Option<Self> {
        let mut mirror = client.query_filtered::<(
            &Coins,
            &Level,
            &Inventory,
            &Settings,
            &Career,
            &Cell,
            &Bought,
            Option<&Relics>,
            Option<&Title>,
        ), (With<OwnPlayer>, With<PlayerSession>)>();
        let (coins, level, inventory, settings, career, cell, bought, relics, title) =
            mirror.single(client).ok()?;
        Some(Self {
            coins: *coins,
            level: *level,
            inventory: inventory.clone(),
            settings: *settings,
            career: *career,
            cell: *cell,
            bought: bought.clone(),
            relics: relics.cloned(),
            title: title.cloned(),
        })
    }
}

/// What a bot counts on when it comes back.
pub enum Expectation {
    /// It was never here.
    Nothing,
    /// It left in good order: exactly this.
    Exactly(Belongings),
    /// Its connection broke: what it saw last, or what came of it since.
    AtLeast { coins: Coins, rounds: u32 },
}

impl Expectation {
    /// What to count on should the connection break now. A refund that is on its way may take any number of coins.
    pub fn in_any_case(seen: &Belongings, nothing_is_on_its_way: bool) -> Self {
        Self::AtLeast {
            coins: if nothing_is_on_its_way {
                seen.coins
            } else {
                Coins(0)
            },
            rounds: seen.career.rounds,
        }
    }

    /// Says what is wrong with what the bot got.
    pub fn check(&self, got: &Belongings) -> Result<(), String> {
        match self {
            Self::Nothing => Ok(()),
            Self::Exactly(left) if left == got => Ok(()),
            Self::AtLeast { coins, rounds } if got.coins >= *coins && got.career.rounds >= *rounds => Ok(()),
            Self::Exactly(left) => Err(format!("left with {left:?} and came back to {got:?}")),
            Self::AtLeast { coins, rounds } => Err(format!(
                "had seen {coins:?} in round {rounds} and came back to {got:?}"
            )),
        }
    }
}
