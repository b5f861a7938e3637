//! Each run finds the coins that the last run saved: `cargo run --example minimal`, twice.

use std::time::Duration;

use bevy::{app::ScheduleRunnerPlugin, prelude::*};
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Component, Serialize, Deserialize, Default)]
struct Coins(u64);

impl PlayerData for Coins {
    const KEY: &'static str = "coins";
}

fn main() -> Result<AppExit> {
    let store = SqliteStore::open("minimal.db")?;
    Ok(App::new()
        .add_plugins(MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(Duration::from_millis(16))))
        .add_plugins(PlayerDataPlugin::server(store))
        .persist::<Coins>()
        .add_systems(Startup, join)
        .add_observer(play)
        .add_observer(give_up)
        .add_observer(report)
        .run())
}

/// With a network there is nothing to do here: each client that connects becomes a player.
fn join(mut commands: Commands) {
    commands.spawn(PersistentPlayer(PlayerId::from_name("ada")));
}

fn play(loaded: On<PlayerLoaded>, mut coins: Query<&mut Coins>, mut exit: MessageWriter<AppExit>) -> Result {
    coins.get_mut(loaded.entity)?.0 += 10;
    exit.write(AppExit::Success); // On exit everybody is saved.
    Ok(())
}

fn give_up(failed: On<PlayerLoadFailed>, mut exit: MessageWriter<AppExit>) {
    eprintln!("ada could not be loaded: {}", failed.error);
    exit.write(AppExit::error());
}

fn report(saved: On<PlayerSaved>, coins: Query<&Coins>) -> Result {
    let Coins(coins) = coins.get(saved.entity)?;
    match &saved.result {
        Ok(()) => println!("ada has {coins} coins, saved for next time"),
        Err(error) => eprintln!("ada's {coins} coins are lost: {error}"),
    }
    Ok(())
}
