//! What the player wants: one wish after the other, no faster than the server allows.

use std::{collections::VecDeque, time::Duration};

use bevy::{prelude::*, time::common_conditions::on_timer};
use bevy_player_data::prelude::*;
use bevy_renet::RenetClient;

use crate::game::{
    data::Career,
    net::{self, Wish},
};

/// How long it takes to make a step; less than what the server allows.
const PACE: Duration = Duration::from_millis(80);
/// How long the player waits to hear that they have retired from the field.
const PATIENCE: Duration = Duration::from_secs(2);

/// The wishes that the server has not heard yet. They wait until the player's data is there.
#[derive(Resource, Default)]
pub struct Wishes(pub VecDeque<Wish>);

/// The player has retired, and goes as soon as their career says so.
#[derive(Resource)]
struct Retired {
    since: Duration,
    round: u32,
}

pub fn plugin(app: &mut App) {
    app.init_resource::<Wishes>().add_systems(
        Update,
        (
            make_a_wish.run_if(on_timer(PACE).and_then(resource_exists::<RenetClient>)),
            go_once_retired.run_if(resource_exists::<Retired>),
        ),
    );
}

fn make_a_wish(
    mut wishes: ResMut<Wishes>,
    mut client: ResMut<RenetClient>,
    career: Option<Single<&Career, With<OwnPlayer>>>,
    time: Res<Time>,
    mut commands: Commands,
) {
    let Some(career) = career else { return };
    let Some(wish) = wishes.0.pop_front() else { return };
    client.send_message(net::WISHES, net::encode(&wish));
    if let Wish::Retire = wish {
        commands.insert_resource(Retired {
            since: time.elapsed(),
            round: career.rounds.saturating_add(1),
        });
    }
}

fn go_once_retired(
    retired: Res<Retired>,
    career: Option<Single<&Career, With<OwnPlayer>>>,
    time: Res<Time>,
    mut exit: MessageWriter<AppExit>,
) {
    let is_confirmed = career.is_none_or(|career| career.rounds >= retired.round);
    if is_confirmed || time.elapsed() >= retired.since + PATIENCE {
        exit.write(AppExit::Success);
    }
}
