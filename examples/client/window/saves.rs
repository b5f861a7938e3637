//! Whether what the player has is saved: the indicator in the corner.

use std::time::Duration;

use bevy::{ecs::query::QueryData, prelude::*};
use bevy_player_data::prelude::*;

use super::theme;

/// When the server last said that the player's data is durable.
#[derive(Resource, Default)]
pub struct Saves {
    /// On the real clock.
    last: Option<Duration>,
    /// Every save since then has failed.
    is_failing: bool,
}

impl Saves {
    /// Whether the last save failed; of use when the mirror is gone.
    pub const fn is_failing(&self) -> bool {
        self.is_failing
    }
}

pub fn plugin(app: &mut App) {
    app.init_resource::<Saves>()
        .add_observer(|_: On<PlayerLoaded>, mut saves: ResMut<Saves>| *saves = Saves::default())
        .add_observer(note_save);
}

fn note_save(saved: On<PlayerSaved>, time: Res<Time<Real>>, mut saves: ResMut<Saves>) {
    match &saved.result {
        Ok(()) => {
            *saves = Saves {
                last: Some(time.elapsed()),
                is_failing: false,
            };
        }
        // Neither done nor failed.
        Err(SaveError::Skipped | SaveError::NoSession) => {}
        Err(_) => saves.is_failing = true,
    }
}

/// What the mirror says about saves.
#[derive(QueryData)]
pub struct SaveState {
    session: Has<PlayerSession>,
    fallback: Has<PlayerFallback>,
    under_way: Has<SaveUnderWay>,
    failed: Option<&'static LastSaveFailed>,
    blocked: Option<&'static SaveBlocked>,
}

impl SaveStateItem<'_, '_> {
    /// The indicator's words and color.
    pub fn words(&self, saves: &Saves, now: Duration) -> (String, Color) {
        if self.fallback {
            return ("nothing is saved".to_owned(), theme::BAD);
        }
        if !self.session {
            return ("loading …".to_owned(), theme::MUTED);
        }
        if let Some(reason) = self
            .blocked
            .map(SaveBlocked::reason)
            .or(self.failed.map(LastSaveFailed::reason))
        {
            return (format!("not saved: {}", in_short(reason)), theme::CAREFUL);
        }
        if self.under_way {
            return ("saving …".to_owned(), theme::GOLD);
        }
        match saves.last {
            Some(last) => (format!("saved {}", ago(now.saturating_sub(last))), theme::GOOD),
            None => ("nothing to save yet".to_owned(), theme::GOOD),
        }
    }
}

fn in_short(reason: &SaveError) -> &'static str {
    match reason {
        SaveError::Unavailable { .. } => "the store is unreachable",
        SaveError::LockLost => "another server has you",
        _ => "the store refuses it",
    }
}

fn ago(passed: Duration) -> String {
    match passed.as_secs() {
        0 => "just now".to_owned(),
        seconds @ 1..60 => format!("{seconds} s ago"),
        seconds => format!("{} min ago", seconds / 60),
    }
}
