//! What a player has to be told about their data, in words: what happened, what that means, and what they can do.
//!
//! Nothing here draws. [`telling`] reads the link and the mirror, and the dialogs show what it says.

use std::time::Duration;

use bevy::{ecs::query::QueryData, prelude::*};
use bevy_player_data::prelude::*;

use super::{
    link::{Farewell, Link, NextAttempt},
    saves::Saves,
    theme,
};

/// Something to tell the player.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    pub topic: Topic,
    pub title: &'static str,
    /// Paragraphs.
    pub words: Vec<String>,
    pub tone: Color,
    /// Something that ends by itself.
    pub wait: Option<Wait>,
    /// The first is what one most likely wants, unless that is to leave.
    pub choices: &'static [Choice],
}

/// What it is about. While that stays the same, a dialog that was closed stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Connecting,
    Loading,
    LockedElsewhere,
    StoreAwaited,
    PlayingOnDefaults,
    PlayingOnDefaultsWhileLocked,
    SaveFailing,
    SessionTakenOver,
    SessionEnded,
    ServerExit,
    Disconnected,
    Unwanted,
}

impl Topic {
    /// Whether the game can go on beside the dialog.
    pub const fn leaves_the_field_alone(self) -> bool {
        matches!(self, Self::SaveFailing)
    }
}

/// What a player can do about it.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    TryAgain,
    PlayOn,
    Leave,
}

impl Choice {
    pub const fn words(self, topic: Topic) -> &'static str {
        match (self, topic) {
            (Self::TryAgain, Topic::SessionTakenOver | Topic::SessionEnded) => "Join again",
            (Self::TryAgain, Topic::ServerExit | Topic::Disconnected) => "Try now",
            (Self::TryAgain, _) => "Try again",
            (Self::PlayOn, Topic::SaveFailing) => "Keep playing",
            (Self::PlayOn, _) => "Play all the same",
            (Self::Leave, _) => "Leave",
        }
    }
}

/// A time that runs out, on the real clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub since: Duration,
    pub until: Duration,
    /// What happens then.
    pub then: &'static str,
}

/// The player's own entity, as far as it matters here.
#[derive(QueryData)]
pub struct Standing {
    loading: Has<PlayerLoading>,
    delayed: Option<Ref<'static, LoadDelayed>>,
    fallback: Option<&'static PlayerFallback>,
    failed: Option<&'static LastSaveFailed>,
    blocked: Option<&'static SaveBlocked>,
}

/// What there is to tell now, if anything.
pub fn telling(
    link: &Link,
    me: Option<&StandingItem<'_, '_>>,
    next: Option<&NextAttempt>,
    saves: &Saves,
    delayed_since: Duration,
) -> Option<Telling> {
    match (link, me) {
        (Link::Down(farewell), _) => Some(of_farewell(farewell, next, saves)),
        (Link::LoggingIn(_), _) | (Link::Up, None) => Some(connecting()),
        (Link::Up, Some(me)) => of_standing(me, delayed_since),
    }
}

fn connecting() -> Telling {
    Telling {
        topic: Topic::Connecting,
        title: "Connecting",
        words: vec!["Looking for the server …".to_owned()],
        tone: theme::MUTED,
        wait: None,
        choices: &[Choice::Leave],
    }
}

fn of_standing(me: &StandingItem<'_, '_>, delayed_since: Duration) -> Option<Telling> {
    if me.loading {
        return Some(loading(me.delayed.as_deref(), delayed_since));
    }
    if let Some(fallback) = me.fallback {
        return Some(playing_on_defaults(fallback.reason()));
    }
    let reason = me
        .blocked
        .map(SaveBlocked::reason)
        .or(me.failed.map(LastSaveFailed::reason))?;
    Some(save_failing(reason))
}

fn loading(delayed: Option<&LoadDelayed>, since: Duration) -> Telling {
    let wait = delayed.map(|delayed| Wait {
        since,
        until: since + delayed.gives_up_in(),
        then: "After that you can play without it, but nothing is kept.",
    });
    let (topic, title, words, tone) = match delayed.map(LoadDelayed::reason) {
        None => (
            Topic::Loading,
            "Loading your data",
            vec!["Just a moment …".to_owned()],
            theme::MUTED,
        ),
        Some(LoadError::SessionLocked { server }) => (
            Topic::LockedElsewhere,
            "You are still playing elsewhere",
            vec![
                format!("The server “{server}” has your data, and has to save it before you can go on here."),
                "If you play there, leave. If that server has crashed, this takes up to half a minute."
                    .to_owned(),
            ],
            theme::CAREFUL,
        ),
        Some(reason) => (
            Topic::StoreAwaited,
            "Your data is out of reach",
            vec![
                in_words(reason),
                "What you have is safe, and the server keeps trying to load it.".to_owned(),
            ],
            theme::CAREFUL,
        ),
    };
    Telling {
        topic,
        title,
        words,
        tone,
        wait,
        choices: &[Choice::Leave],
    }
}

fn playing_on_defaults(reason: &LoadError) -> Telling {
    let (topic, title, why) = match reason {
        LoadError::SessionLocked { server } => (
            Topic::PlayingOnDefaultsWhileLocked,
            "Your data is in use elsewhere",
            format!(
                "The server “{server}” has not let go of your data. Leave the game there, then try again."
            ),
        ),
        reason => (
            Topic::PlayingOnDefaults,
            "Your data could not be loaded",
            in_words(reason),
        ),
    };
    Telling {
        topic,
        title,
        words: vec![
            why,
            "What you have is safe, but it is not here: you would play as if you were new, and nothing of that is kept."
                .to_owned(),
        ],
        tone: theme::BAD,
        wait: None,
        choices: &[Choice::TryAgain, Choice::PlayOn, Choice::Leave],
    }
}

fn in_words(reason: &LoadError) -> String {
    match reason {
        LoadError::Unavailable { .. } => "The server can't reach the store that has it.".to_owned(),
        reason => format!("{}.", in_sentence(&reason.to_string())),
    }
}

fn save_failing(reason: &SaveError) -> Telling {
    let (why, hope) = match reason {
        SaveError::Unavailable { .. } => (
            "The server can't reach the store.".to_owned(),
            "The server keeps trying. Until it gets through, what you gain could be lost, and nothing can be bought.",
        ),
        reason => (
            format!("{}.", in_sentence(&reason.to_string())),
            "What you gain from here on could be lost, and nothing can be bought.",
        ),
    };
    Telling {
        topic: Topic::SaveFailing,
        title: "You are not being saved",
        words: vec![why, hope.to_owned()],
        tone: theme::CAREFUL,
        wait: None,
        choices: &[Choice::PlayOn],
    }
}

fn of_farewell(farewell: &Farewell, next: Option<&NextAttempt>, saves: &Saves) -> Telling {
    let wait = next.map(|next| Wait {
        since: next.since,
        until: next.at,
        then: "Then this client tries again by itself.",
    });
    let (topic, title, words, tone) = match farewell {
        Farewell::ServerExit => (
            Topic::ServerExit,
            "The server is shutting down",
            vec![
                kept("It saves everybody on its way out.", saves),
                "You can go on as soon as the server is back.".to_owned(),
            ],
            theme::CAREFUL,
        ),
        Farewell::SessionLost(SessionEnd::LockLost) => (
            Topic::SessionTakenOver,
            "Another server has taken you over",
            vec![
                "This server was out of touch for so long that another one was allowed to take up your data."
                    .to_owned(),
                "What you gained here since the last save is lost; everything before that is safe."
                    .to_owned(),
            ],
            theme::BAD,
        ),
        Farewell::SessionLost(SessionEnd::Replaced) => (
            Topic::SessionEnded,
            "You play in another window now",
            vec![
                "Somebody has logged in with your name, and goes on with all that you had.".to_owned(),
                "If that wasn't you, somebody else knows your name.".to_owned(),
            ],
            theme::CAREFUL,
        ),
        Farewell::SessionLost(end) => (
            Topic::SessionEnded,
            "Your session is over",
            vec![
                format!("{}.", in_sentence(&end.to_string())),
                "What was saved last is safe. Join again to go on from there.".to_owned(),
            ],
            theme::CAREFUL,
        ),
        Farewell::NoAnswer => (
            Topic::Disconnected,
            "The server doesn't answer",
            vec![
                "Either it isn't running, or there is no way to it from here.".to_owned(),
                "What you have is safe there. You can go on as soon as it is back.".to_owned(),
            ],
            theme::CAREFUL,
        ),
        Farewell::Lost(reason) => (
            Topic::Disconnected,
            "The connection broke off",
            vec![
                format!("{}.", in_sentence(reason)),
                kept("The server saves you when it notices that you are gone.", saves),
            ],
            theme::CAREFUL,
        ),
        Farewell::Unwanted(reason) => (
            Topic::Unwanted,
            "The server turns you away",
            vec![format!("{}.", in_sentence(reason))],
            theme::BAD,
        ),
    };
    Telling {
        topic,
        title,
        words,
        tone,
        wait,
        choices: &[Choice::TryAgain, Choice::Leave],
    }
}

/// What becomes of the player's data: what usually does, unless saves had been failing.
fn kept(usually: &str, saves: &Saves) -> String {
    if saves.is_failing() {
        "The last save had failed, so what you gained since then is lost unless the server still gets through.".to_owned()
    } else {
        usually.to_owned()
    }
}

/// As the beginning of a sentence. The end is the caller's.
fn in_sentence(text: &str) -> String {
    let text = text.trim_end_matches(['.', '?', '!']);
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}
