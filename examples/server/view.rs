//! What everybody sees of everybody: the field, ten times a second.

use std::time::Duration;

use bevy::{prelude::*, time::common_conditions::on_timer};
use bevy_player_data::prelude::*;
use bevy_renet::{RenetServer, renet::ClientId};
use bytes::Bytes;

use crate::{
    game::{
        data::{Cell, Settings},
        net::{self, FieldView, Introduction, PlayerView},
    },
    rules::{Finds, OnField},
};

/// How often the field is shown.
const INTERVAL: Duration = Duration::from_millis(100);

pub fn plugin(app: &mut App) {
    app.add_systems(
        PostUpdate,
        show_field
            .before(PlayerDataSystems::Capture)
            .run_if(on_timer(INTERVAL)),
    );
}

fn show_field(
    mut server: ResMut<RenetServer>,
    finds: Res<Finds>,
    players: Query<(&PersistentPlayer, &Cell, &Settings), With<OnField>>,
) {
    let players = players
        .iter()
        .map(|(&PersistentPlayer(player), &cell, settings)| PlayerView {
            tag: net::tag(player),
            cell,
            color: settings.color,
        });
    let view = FieldView {
        players: players.collect(),
        finds: finds.cells().collect(),
    };
    server.broadcast_message(net::VIEWS, Bytes::from(net::encode(&view)));
}

/// Tells a client what a player on the field is called, if anybody there has this tag.
pub fn introduce(
    In((client, tag)): In<(ClientId, u32)>,
    players: Query<(&PersistentPlayer, &Name), With<OnField>>,
    mut server: ResMut<RenetServer>,
) {
    let named = players
        .iter()
        .find(|&(&PersistentPlayer(player), _)| net::tag(player) == tag);
    if let Some((_, name)) = named {
        let name = name.to_string();
        server.send_message(
            client,
            net::INTRODUCTIONS,
            net::encode(&Introduction { tag, name }),
        );
    }
}
