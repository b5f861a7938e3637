//! What happens to the connection and to the player's data on the server, in words.

use bevy::prelude::*;
use bevy_player_data::{
    client::{DisconnectedByServer, ReplicationRefused},
    prelude::*,
};
use bevy_renet::{RenetClient, netcode::NetcodeClientTransport};

use crate::{
    game::net::{self, FieldView},
    screen::Screen,
};

/// Something to tell the player.
#[derive(Message)]
pub struct News(pub String);

/// What is said last, once the terminal is as it was.
#[derive(Resource)]
pub struct Ending(String);

/// What the field looked like last.
#[derive(Resource, Default)]
pub struct Field(pub FieldView);

pub fn plugin(app: &mut App) {
    app.add_message::<News>()
        .init_resource::<Field>()
        .add_observer(tell_loaded)
        .add_observer(tell_load_failure)
        .add_observer(tell_saved)
        .add_observer(tell_purchase)
        .add_observer(remember_refusal)
        .add_observer(remember_farewell)
        .add_systems(Update, (look_around, notice_the_end))
        .add_systems(Last, close.run_if(on_message::<AppExit>));
}

fn tell_loaded(loaded: On<PlayerLoaded>, mut news: MessageWriter<News>) {
    let greeting = if loaded.first_join {
        "welcome"
    } else {
        "welcome back"
    };
    news.write(News(format!("{greeting}: your data is loaded")));
}

fn tell_load_failure(failed: On<PlayerLoadFailed>, mut news: MessageWriter<News>) {
    news.write(News(format!(
        "your data can't be loaded, and nothing that you do will be saved: {}",
        failed.error
    )));
}

fn tell_saved(saved: On<PlayerSaved>, mut news: MessageWriter<News>) {
    news.write(News(match &saved.result {
        Ok(()) => "saved".to_owned(),
        Err(error) => format!("not saved: {error}"),
    }));
}

fn tell_purchase(processed: On<PurchaseProcessed>, mut news: MessageWriter<News>) {
    let product = &processed.product;
    news.write(News(match &processed.decision {
        PurchaseDecision::PurchaseGranted => format!("{product} is yours"),
        decision => format!("{product}: {decision}"),
    }));
}

fn remember_refusal(refused: On<ReplicationRefused>, mut commands: Commands) {
    commands.insert_resource(Ending(format!(
        "this client doesn't fit the server: {}",
        refused.reason
    )));
}

fn remember_farewell(farewell: On<DisconnectedByServer>, mut commands: Commands) {
    commands.insert_resource(Ending(format!(
        "the server ends the connection: {}",
        farewell.reason
    )));
}

fn look_around(mut client: ResMut<RenetClient>, mut field: ResMut<Field>) {
    while let Some(view) = client.receive_message(net::VIEWS) {
        if let Some(view) = net::decode(&view) {
            field.0 = view;
        }
    }
}

/// The connection is over, or there never was one.
fn notice_the_end(
    client: Res<RenetClient>,
    transport: Res<NetcodeClientTransport>,
    ending: Option<Res<Ending>>,
    mut commands: Commands,
    mut exit: MessageWriter<AppExit>,
) {
    if !client.is_disconnected() {
        return;
    }
    if ending.is_none() {
        let reason = transport.disconnect_reason().map(|reason| reason.to_string());
        let reason = reason.or_else(|| client.disconnect_reason().map(|reason| reason.to_string()));
        commands.insert_resource(Ending(format!(
            "the connection to the game is over: {}",
            reason.unwrap_or_default()
        )));
    }
    exit.write(AppExit::error());
}

fn close(world: &mut World) {
    drop(world.remove_resource::<Screen>());
    if let Some(Ending(sentence)) = world.remove_resource() {
        eprintln!("{sentence}");
    }
}
