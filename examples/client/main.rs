//! A client of *Coin Rush* for the terminal: `cargo run --release --example client -- --name ada`.
//!
//! On a terminal it shows the field and the player's own data as they change; elsewhere it speaks in lines, and takes
//! commands from stdin.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use bevy::{app::ScheduleRunnerPlugin, prelude::*};
use bevy_player_data::prelude::*;
use bevy_renet::{RenetClientPlugin, netcode::NetcodeClientPlugin};
use clap::Parser;

mod connection;
#[path = "../game/game.rs"]
mod game;
mod hop;
mod lines;
mod screen;
mod wishes;

use game::{data::shared_data, login::LoginError, net, usage::parse_command_line};

/// The client runs at 30 ticks per second.
const TICK: Duration = Duration::from_millis(33);

/// A terminal client of Coin Rush.
#[derive(Parser)]
#[command(name = "client")]
struct Options {
    /// Who to play as. The same name is the same player.
    #[arg(long)]
    name: String,
    /// The server's login address. Of several, which have to share their players, the first is where the game begins, and
    /// `h` hops to the next.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = http_url)]
    #[arg(value_delimiter = ',')]
    server: Vec<String>,
}

fn http_url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("give an address like http://127.0.0.1:8080".to_owned()),
    }
}

/// Why there is no game.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("no connection can be made from here: {0}")]
    Socket(io::Error),
    #[error("the terminal can't be used: {0}")]
    Terminal(io::Error),
}

fn main() -> ExitCode {
    match play(&parse_command_line()) {
        Ok(AppExit::Success) => ExitCode::SUCCESS,
        Ok(AppExit::Error(code)) => ExitCode::from(code.get()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(options: &Options) -> Result<AppExit, StartError> {
    let route = hop::Route::new(&options.name, &options.server);
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
