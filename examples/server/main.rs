//! The server of *Coin Rush*: `cargo run --release --example server`.
//!
//! Players log in over HTTP and play over UDP; whatever they own survives their leaving, the server's end and
//! `kill -9`. With `--bots` it brings its own players, which check that they get back what they left with.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    process::ExitCode,
    time::Duration,
};

use bevy::{
    app::ScheduleRunnerPlugin,
    log::{DEFAULT_FILTER, LogPlugin},
    prelude::*,
    time::common_conditions::on_timer,
};
use bevy_player_data::{prelude::*, store::StoreError};
use bevy_renet::{
    RenetServer, RenetServerPlugin,
    netcode::{NetcodeServerPlugin, NetcodeServerTransport, ServerAuthentication, ServerConfig},
};

mod bots;
mod cheating;
#[path = "../game/game.rs"]
mod game;
mod login;
mod options;
mod rules;
mod status;
mod ticks;
mod view;

use bots::Bots;
use game::{data::shared_data, net, usage::parse_command_line};
use login::Issuer;
use options::Options;
use status::say;

/// The server runs at 60 ticks per second.
const TICK: Duration = Duration::from_micros(1_000_000 / 60);
/// As many clients as netcode can serve.
const MAX_CLIENTS: usize = 1024;

fn main() -> ExitCode {
    match serve(&parse_command_line()) {
        Ok(AppExit::Success) => ExitCode::SUCCESS,
        Ok(AppExit::Error(code)) => ExitCode::from(code.get()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{option} {address}` can't be used ({reason}): choose another address")]
    Address {
        option: &'static str,
        address: SocketAddr,
        reason: io::Error,
    },
    #[error("the system refuses a thread: {0}")]
    Thread(io::Error),
}

fn serve(options: &Options) -> Result<AppExit, StartError> {
    let (game, game_address) = bind_game(options.listen)?;
    let (logins, login_address) = bind_logins(options.http)?;
    let store = SqliteStore::open(&options.db)?;

    let issuer = Issuer::new(game_address);
    let transport = secure_transport(game, game_address, &issuer)?;
    login::serve(logins, issuer).map_err(StartError::Thread)?;
    say(format_args!(
        "Coin Rush on `{}`, with its players in {}",
        options.name,
        options.db.display()
    ));
    say(format_args!("listening on udp {game_address}"));
    say(format_args!("login at http://{login_address}"));
    let bots = Bots::start(options.bots(), &format!("http://{login_address}")).map_err(StartError::Thread)?;

    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(TICK)),
        log(),
        RenetServerPlugin,
        NetcodeServerPlugin,
        PlayerDataPlugin::server(store).with_name(&options.name),
        shared_data,
    ))
    .add_plugins((
        cheating::plugin,
        rules::plugin,
        view::plugin,
        ticks::plugin,
        status::plugin,
    ))
    .insert_resource(RenetServer::new(net::connection_config()))
    .insert_resource(transport)
    .insert_resource(bots);
    if let Some(run_for) = options.run_for {
        app.add_systems(Update, stop.run_if(on_timer(run_for)));
    }
    Ok(app.run())
}

/// Everybody is saved on the way out.
fn stop(mut exit: MessageWriter<AppExit>) {
    exit.write(AppExit::Success);
}

fn bind_game(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), StartError> {
    let bound =
        UdpSocket::bind(address).and_then(|socket| socket.local_addr().map(|actual| (socket, actual)));
    bound.map_err(|reason| StartError::Address {
        option: "--listen",
        address,
        reason,
    })
}

fn bind_logins(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = TcpListener::bind(address)
        .and_then(|listener| listener.local_addr().map(|actual| (listener, actual)));
    bound.map_err(|reason| StartError::Address {
        option: "--http",
        address,
        reason,
    })
}

/// In secure mode a client is who its connect token says, and nobody else can make one.
fn secure_transport(
    socket: UdpSocket,
    address: SocketAddr,
    issuer: &Issuer,
) -> Result<NetcodeServerTransport, StartError> {
    let config = ServerConfig {
        current_time: net::since_1970(),
        max_clients: MAX_CLIENTS,
        protocol_id: login::PROTOCOL_ID,
        public_addresses: vec![address],
        authentication: ServerAuthentication::Secure {
            private_key: issuer.key(),
        },
    };
    NetcodeServerTransport::new(config, socket).map_err(|reason| StartError::Address {
        option: "--listen",
        address,
        reason,
    })
}

fn log() -> LogPlugin {
    // netcode calls it an error when a stranger sends it a forged token, or just noise.
    LogPlugin {
        filter: format!("{DEFAULT_FILTER},renetcode=off"),
        ..default()
    }
}
