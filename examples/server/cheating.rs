//! Who plays too well to be true: the server's own secret about each player.
//!
//! Clients never learn of it. The component is private, and only the server persists it.

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize};

/// How suspicious the player is: 0 for an honest one, and growing with everything that an honest client doesn't do.
#[derive(Component, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct CheatScore(f32);

impl PlayerData for CheatScore {
    const KEY: &'static str = "cheat_score";
    const PRIVATE: bool = true;
}

/// From here on somebody should have a look.
const SUSPICIOUS: f32 = 100.0;

impl CheatScore {
    /// The player asked for more steps than legs can make.
    pub fn too_fast(&mut self) {
        self.0 += 0.1;
    }

    /// The player sent what no client of this game sends.
    pub fn nonsense(&mut self) {
        self.0 += 10.0;
    }
}

pub fn plugin(app: &mut App) {
    app.persist::<CheatScore>()
        .add_systems(Update, warn_about_cheaters);
}

fn warn_about_cheaters(suspects: Query<(&PersistentPlayer, &CheatScore), Changed<CheatScore>>) {
    for (PersistentPlayer(player), CheatScore(score)) in &suspects {
        if *score >= SUSPICIOUS {
            debug!("player {player} looks like a cheater: score {score}");
        }
    }
}
