//! A client of *Coin Rush*: `cargo run --release --example client --features window -- --name ada`.
//!
//! With the feature `window` it opens a window. Without, it needs a terminal, on which it shows the field and the
//! player's own data as they change; elsewhere it speaks in lines, and takes commands from stdin.

use std::process::ExitCode;

use bevy::prelude::*;
use clap::Parser;

#[path = "../game/game.rs"]
#[cfg_attr(
    not(feature = "window"),
    allow(dead_code, reason = "a terminal shows no names")
)]
mod game;
#[cfg(feature = "window")]
#[path = "../game/offers.rs"]
mod offers;
#[cfg(not(feature = "window"))]
mod terminal;
#[cfg(feature = "window")]
#[path = "window/window.rs"]
mod window;
mod wishes;

use game::usage::parse_command_line;
#[cfg(not(feature = "window"))]
use terminal::{connection, hop, screen};

/// A client of Coin Rush.
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

fn main() -> ExitCode {
    match play(parse_command_line()) {
        Ok(AppExit::Success) => ExitCode::SUCCESS,
        Ok(AppExit::Error(code)) => ExitCode::from(code.get()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(feature = "window"))]
fn play(Options { name, server }: Options) -> Result<AppExit, terminal::StartError> {
    terminal::play(&name, &server)
}

#[cfg(feature = "window")]
fn play(Options { name, server }: Options) -> Result<AppExit, std::convert::Infallible> {
    Ok(window::play(window::link::Account::new(name, server)))
}
