//! The client without a window: on a terminal, or in lines.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use bevy::{app::ScheduleRunnerPlugin, prelude::*};
use bevy_player_data::prelude::*;
use bevy_renet::{RenetClientPlugin, netcode::NetcodeClientPlugin};

#[path = "connection.rs"]
pub mod connection;
#[path = "hop.rs"]
pub mod hop;
#[path = "lines.rs"]
mod lines;
#[path = "screen.rs"]
pub mod screen;

use crate::{
    game::{data::shared_data, login::LoginError, net},
    wishes,
};

/// The client runs at 30 ticks per second.
const TICK: Duration = Duration::from_millis(33);

/// Why there is no game.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("no connection can be made from here: {0}")]
    Socket(io::Error),
    #[error("the terminal can't be used: {0}")]
    Terminal(io::Error),
}

/// Plays until the player leaves, or the connection is lost.
pub fn play(name: &str, servers: &[String]) -> Result<AppExit, StartError> {
    let route = hop::Route::new(name, servers);
    let token = route.log_in()?;
    let (client, transport) = net::connect(token).map_err(StartError::Socket)?;
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(TICK)),
        RenetClientPlugin,
        NetcodeClientPlugin,
        PlayerDataPlugin::client(),
        shared_data,
    ))
    .add_plugins((connection::plugin, wishes::plugin, hop::plugin))
    .insert_resource(route)
    .insert_resource(client)
    .insert_resource(transport);
    if io::stdout().is_terminal() {
        screen::install(&mut app).map_err(StartError::Terminal)?;
    } else {
        lines::install(&mut app);
    }
    Ok(app.run())
}
