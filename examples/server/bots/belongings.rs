//! What a bot owns, as its client shows it.

use bevy::prelude::*;
use bevy_player_data::prelude::*;

use crate::game::data::{Career, Cell, Coins, Inventory, Level, Settings, Title};

/// All of a player's public data.
#[derive(Clone, Debug, PartialEq)]
pub struct Belongings {
    pub coins: Coins,
    pub level: Level,
    pub inventory: Inventory,
    pub settings: Settings,
    pub career: Career,
    pub cell: Cell,
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
            Option<&Title>,
        ), (With<OwnPlayer>, With<PlayerSession>)>();
        let (coins, level, inventory, settings, career, cell, title) = mirror.single(client).ok()?;
        Some(Self {
            coins: *coins,
            level: *level,
            inventory: inventory.clone(),
            settings: *settings,
            career: *career,
            cell: *cell,
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
    AtLeast(Belongings),
}

impl Expectation {
    /// Says what is wrong with what the bot got.
    pub fn check(&self, got: &Belongings) -> Result<(), String> {
        match self {
            Self::Nothing => Ok(()),
            Self::Exactly(left) if left == got => Ok(()),
            Self::AtLeast(seen) if got.coins >= seen.coins && got.career.rounds >= seen.career.rounds => {
                Ok(())
            }
            Self::Exactly(left) => Err(format!("left with {left:?} and came back to {got:?}")),
            Self::AtLeast(seen) => Err(format!("had seen {seen:?} and came back to {got:?}")),
        }
    }
}
