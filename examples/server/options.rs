//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, builder::NonEmptyStringValueParser, value_parser};

/// How many bots play when nothing at all was said.
const BOTS_BY_DEFAULT: u16 = 8;

/// The server of Coin Rush, a small game that shows `bevy_player_data` at work.
#[derive(Parser)]
#[command(name = "server")]
pub struct Options {
    /// The SQLite file that the players' data is kept in.
    #[arg(long, value_name = "FILE", default_value = "players.db")]
    pub db: PathBuf,
    /// The UDP address that clients reach the game at; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000", value_parser = reachable)]
    pub listen: SocketAddr,
    /// The address of `POST /login`; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// The server's name: unique among the servers that share the file, and the same after a restart.
    #[arg(long, default_value = "arena-1", value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// How many players the server brings along, which check their data [default: 8 without any option, else 0].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(..=1000))]
    bots: Option<u16>,
    /// Stop after so many seconds; otherwise the server runs until Ctrl-C or SIGTERM.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub run_for: Option<Duration>,
}

impl Options {
    /// How many bots to bring along.
    pub fn bots(&self) -> u16 {
        let nothing_said = std::env::args_os().len() <= 1;
        self.bots
            .unwrap_or(if nothing_said { BOTS_BY_DEFAULT } else { 0 })
    }
}

/// A connect token names the server's address, so it can't be "all of them".
fn reachable(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "give an IP address and a port, like 127.0.0.1:5000")?;
    if address.ip().is_unspecified() {
        return Err(
            "name the very address that clients reach, since their connect tokens carry it".to_owned(),
        );
    }
    Ok(address)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a number of seconds above 0".to_owned())
}
