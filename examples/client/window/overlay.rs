//! What the client knows about itself and its connection, on F3.

use bevy::{
    diagnostic::{DiagnosticPath, DiagnosticsStore, FrameTimeDiagnosticsPlugin},
    prelude::*,
};
use bevy_player_data::prelude::*;
use bevy_renet::RenetClient;

use super::{
    chaos,
    theme::{self, Theme},
};

/// The figures on the screen.
#[derive(Component)]
pub struct Overlay;

/// Their text.
#[derive(Component)]
struct Figures;

/// What is shown of Bevy's diagnostics.
const FIGURES: [(&str, DiagnosticPath); 4] = [
    ("frames", FrameTimeDiagnosticsPlugin::FPS),
    ("frame time", FrameTimeDiagnosticsPlugin::FRAME_TIME),
    ("player data", PlayerDataDiagnosticsPlugin::RECEIVED_BYTES),
    ("in messages", PlayerDataDiagnosticsPlugin::RECEIVED_MESSAGES),
];

pub fn plugin(app: &mut App) {
    app.add_plugins((
        FrameTimeDiagnosticsPlugin::default(),
        PlayerDataDiagnosticsPlugin::default(),
    ))
    .add_systems(Update, (toggle, show).chain());
}

fn toggle(
    keys: Res<ButtonInput<KeyCode>>,
    shown: Query<Entity, With<Overlay>>,
    theme: Res<Theme>,
    mut commands: Commands,
) {
    if !keys.just_pressed(KeyCode::F3) {
        return;
    }
    if let Some(overlay) = shown.iter().next() {
        commands.entity(overlay).despawn();
        return;
    }
    let (node, ground, edge) = theme::panel();
    let corner = Node {
        position_type: PositionType::Absolute,
        left: px(16),
        top: px(16),
        padding: px(12).all(),
        ..node
    };
    commands.spawn((
        Overlay,
        corner,
        ground,
        edge,
        GlobalZIndex(15),
        children![(theme.text("", theme::SMALL, theme::TEXT), Figures)],
    ));
}

/// Loading, in a session, on defaults.
type State = (Has<PlayerLoading>, Has<PlayerSession>, Has<PlayerFallback>);

fn show(
    diagnostics: Res<DiagnosticsStore>,
    client: Option<Res<RenetClient>>,
    me: Query<State, With<OwnPlayer>>,
    chaos: Res<chaos::Outcome>,
    mut texts: Query<&mut Text, With<Figures>>,
) {
    for mut text in &mut texts {
        let mut lines = vec![format!("data: {}", state_of(me.iter().next()))];
        for (name, path) in FIGURES {
            let figure = diagnostics.get(&path).and_then(|figure| {
                let value = figure.smoothed().or(figure.value())?;
                Some(format!("{name}: {value:.1}{}", figure.suffix))
            });
            lines.push(figure.unwrap_or_else(|| format!("{name}: –")));
        }
        if let Some(client) = &client {
            lines.push(format!("round trip: {:.0} ms", client.rtt() * 1e3));
            lines.push(format!("packets lost: {:.1} %", client.packet_loss() * 1e2));
            lines.push(format!(
                "all traffic: {:.1} kB/s in, {:.1} kB/s out",
                client.bytes_received_per_sec() / 1e3,
                client.bytes_sent_per_sec() / 1e3
            ));
        }
        lines.extend(["".to_owned(), chaos::HELP.to_owned()]);
        if !chaos.words.is_empty() {
            lines.push(chaos.words.clone());
        }
        text.set_if_neq(Text(lines.join("\n")));
    }
}

const fn state_of(me: Option<(bool, bool, bool)>) -> &'static str {
    match me {
        None => "no mirror",
        Some((true, ..)) => "loading",
        Some((_, true, _)) => "in a session",
        Some((.., true)) => "on defaults",
        Some(_) => "in no state",
    }
}
