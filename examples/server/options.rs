//! The command line.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::database::Database;
use clap::{Parser, builder::NonEmptyStringValueParser, value_parser};

use crate::chaos;

/// The address of the HTTP side by default, which clients try as well.
pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// How much time passes between two saves by default.
const AUTOSAVE: Duration = Duration::from_secs(30);
/// How many bots play when nothing at all was said.
const BOTS_BY_DEFAULT: u16 = 8;

/// The server of Coin Rush, a small game that shows `bevy_player_data` at work.
#[derive(Parser)]
#[command(name = "server")]
pub struct Options {
    /// The SQLite file that the players' data is kept in, or the `postgres://` URL of a database (if the server was built
    /// with the feature `postgres`).
    #[arg(long, value_name = "FILE", default_value = "players.db")]
    pub db: Database,
    /// The UDP address that clients reach the game at; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000", value_parser = reachable)]
    pub listen: SocketAddr,
    /// The address of `POST /login` and `POST /webhooks/purchases`; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS", default_value_t = HTTP)]
    pub http: SocketAddr,
    /// What can be bought: a RON file [default: the `assets/products.ron` that the server was built with].
    #[arg(long, value_name = "FILE")]
    pub products: Option<PathBuf>,
    /// The secret (`whsec_…`) that the payment provider signs with [default: the environment's `WEBHOOK_SECRET`, or else
    /// one that is made for this run].
    #[arg(long, value_name = "SECRET")]
    pub webhook_secret: Option<String>,
    /// How many callbacks of the payment provider are taken per second; above that, it is told to try again later.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u16).range(1..))]
    pub webhook_rate: u16,
    /// The server's name: unique among the servers that share the file, and the same after a restart.
    #[arg(long, default_value = "arena-1", value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// How many seconds pass between two saves of a player who changes all the time [default: 30, with `--chaos` 5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    autosave: Option<Duration>,
    /// How many players the server brings along, which check their data [default: 8 without any option, else 0].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(..=1000))]
    bots: Option<u16>,
    /// Start no server: send the bots to the servers with these HTTP addresses, of which each chooses one anew whenever
    /// it comes back, or hops to another without leaving. The servers have to share their file, and their secret with
    /// the bots.
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "bots")]
    pub play_at: Vec<String>,
    /// Let anybody take the store down, and players away: `POST /chaos`, see `examples/README.md`. For developers only.
    #[arg(long)]
    pub chaos: bool,
    /// Stop after so many seconds; otherwise the server runs until Ctrl-C or SIGTERM.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub run_for: Option<Duration>,
    /// Start no server: check the books in the database, and say what is wrong with them.
    #[arg(long)]
    pub audit: bool,
}

impl Options {
    /// How much time passes between two saves of a player.
    pub fn autosave(&self) -> Duration {
        let by_default = if self.chaos { chaos::AUTOSAVE } else { AUTOSAVE };
        self.autosave.unwrap_or(by_default)
    }

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
