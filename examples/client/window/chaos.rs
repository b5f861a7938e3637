//! For developers: while the figures are shown (F3), keys bring about what a player may meet, on a server with `--chaos`.

use bevy::prelude::*;
use serde_json::json;

use super::{background::Background, link::Account, overlay::Overlay};
use crate::game::web;

/// Which key asks for what.
pub const HELP: &str =
    "F5 store down · F6 slow · F7 up\nF8 taken away · F9 given back\nF10 thrown out · F11 server exit";

/// What the server made of it.
#[derive(Resource, Default)]
pub struct Outcome {
    asked: Option<Background<String>>,
    pub words: String,
}

pub fn plugin(app: &mut App) {
    app.init_resource::<Outcome>()
        .add_systems(Update, (ask.run_if(any_with_component::<Overlay>), hear));
}

fn ask(keys: Res<ButtonInput<KeyCode>>, account: Res<Account>, mut outcome: ResMut<Outcome>) {
    let name = &account.name;
    let wish = keys.get_just_pressed().find_map(|key| {
        Some(match key {
            KeyCode::F5 => json!({ "store": "down" }),
            KeyCode::F6 => json!({ "store": "slow" }),
            KeyCode::F7 => json!({ "store": "up" }),
            KeyCode::F8 => json!({ "take": name }),
            KeyCode::F9 => json!({ "release": name }),
            KeyCode::F10 => json!({ "kick": name }),
            KeyCode::F11 => json!({ "exit": true }),
            _ => return None,
        })
    });
    if let Some(wish) = wish {
        let url = format!("{}/chaos", account.server().trim_end_matches('/'));
        outcome.asked = Background::start(move || bring_about(&url, &wish)).ok();
    }
}

fn bring_about(url: &str, wish: &serde_json::Value) -> String {
    match web::agent().post(url).send_json(wish) {
        Ok(answer) if answer.status().is_success() => "done".to_owned(),
        Ok(answer) if answer.status() == 404 => "the server runs without `--chaos`".to_owned(),
        Ok(mut answer) => answer.body_mut().read_to_string().unwrap_or_default(),
        Err(problem) => problem.to_string(),
    }
}

fn hear(mut outcome: ResMut<Outcome>) {
    if let Some(words) = outcome.asked.as_mut().and_then(Background::poll) {
        outcome.words = words;
    }
}
