//! The keyboard, while nothing but the game wants it.

use bevy::{prelude::*, window::WindowCloseRequested};
use bevy_player_data::prelude::*;

use super::{link::Hop, theme::Modal};
use crate::{
    game::{
        data::{Career, Paint},
        net::{Direction, Wish},
    },
    wishes::Wishes,
};

const STEPS: [(KeyCode, Direction); 8] = [
    (KeyCode::ArrowUp, Direction::Up),
    (KeyCode::KeyW, Direction::Up),
    (KeyCode::ArrowDown, Direction::Down),
    (KeyCode::KeyS, Direction::Down),
    (KeyCode::ArrowLeft, Direction::Left),
    (KeyCode::KeyA, Direction::Left),
    (KeyCode::ArrowRight, Direction::Right),
    (KeyCode::KeyD, Direction::Right),
];
const DIGITS: [KeyCode; 5] = [
    KeyCode::Digit1,
    KeyCode::Digit2,
    KeyCode::Digit3,
    KeyCode::Digit4,
    KeyCode::Digit5,
];

pub fn plugin(app: &mut App) {
    app.add_systems(Update, (play.run_if(hands_are_free), leave));
}

/// Whether the keyboard is the field's: no dialog and no shop has it.
pub fn hands_are_free(modals: Query<(), With<Modal>>) -> bool {
    modals.is_empty()
}

fn play(keys: Res<ButtonInput<KeyCode>>, mut wishes: ResMut<Wishes>, mut commands: Commands) {
    // Whoever holds a key down wants to go on walking, not to walk a minute longer.
    if wishes.0.is_empty() {
        // A tap may be over within a frame.
        let is_down = |key| keys.pressed(key) || keys.just_pressed(key);
        let step = STEPS.iter().find(|(key, _)| is_down(*key));
        wishes.0.extend(step.map(|&(_, direction)| Wish::Step(direction)));
    }
    if keys.just_pressed(KeyCode::KeyT) {
        wishes.0.push_back(Wish::Trade);
    }
    if keys.just_pressed(KeyCode::KeyH) {
        commands.trigger(Hop);
    }
    for (key, paint) in DIGITS.into_iter().zip(Paint::ALL) {
        if keys.just_pressed(key) {
            wishes.0.push_back(Wish::Wear(paint));
        }
    }
}

/// Closing the window leaves the field in good order, if there is anything to leave.
fn leave(
    mut closed: MessageReader<WindowCloseRequested>,
    me: Query<(), (With<OwnPlayer>, With<Career>)>,
    mut wishes: ResMut<Wishes>,
    mut exit: MessageWriter<AppExit>,
) {
    if closed.read().count() == 0 {
        return;
    }
    if me.is_empty() {
        exit.write(AppExit::Success);
    } else {
        wishes.0.push_back(Wish::Retire);
    }
}
