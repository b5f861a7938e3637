//! The server of *Coin Rush*: `cargo run --release --example server`.
//!
//! Players log in over HTTP and play over UDP; whatever they own survives their leaving, the server's end and
//! `kill -9`. With `--bots` it brings its own players, which check that they get back what they left with.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use bevy::{
    app::ScheduleRunnerPlugin,
    ecs::system::RunSystemOnce,
    log::{DEFAULT_FILTER, LogPlugin},
    prelude::*,
    time::common_conditions::on_timer,
};
use bevy_player_data::{
    inbox::ReceiptInbox,
    prelude::*,
    store::{Store, StoreError},
};
use bevy_renet::{
    RenetServer, RenetServerPlugin,
    netcode::{NetcodeServerPlugin, NetcodeServerTransport, ServerAuthentication, ServerConfig},
};

#[path = "../game/account.rs"]
mod account;
mod audit;
mod bots;
mod catalogue;
mod chaos;
mod cheating;
#[cfg(feature = "step-points")]
mod crash;
mod database;
#[path = "../game/game.rs"]
mod game;
mod http;
mod login;
#[path = "../game/offers.rs"]
mod offers;
mod options;
#[path = "../payments/payments.rs"]
mod payments;
mod products;
mod relics;
mod rules;
mod status;
mod storefront;
mod ticks;
mod view;
mod webhook;

use audit::{Audit, AuditError};
use bots::{Bots, Destination};
use catalogue::{Catalogue, CatalogueError};
use game::{data::shared_data, net, usage::parse_command_line};
use login::Issuer;
use options::Options;
use payments::{callback, provider::Provider, secret::Secret};
use status::{Books, say};

/// The server runs at 60 ticks per second.
const TICK: Duration = Duration::from_micros(1_000_000 / 60);
/// As many clients as netcode can serve.
const MAX_CLIENTS: usize = 1024;

fn main() -> ExitCode {
    let options: Options = parse_command_line();
    let ended = if options.audit {
        audit(&options)
    } else if !options.play_at.is_empty() {
        visit(&options)
    } else {
        serve(&options)
    };
    match ended {
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
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("`{option} {address}` can't be used ({reason}): choose another address")]
    Address {
        option: &'static str,
        address: SocketAddr,
        reason: io::Error,
    },
    #[error("{0}")]
    Secret(String),
    #[error("the system refuses a thread: {0}")]
    Thread(io::Error),
    #[cfg(feature = "step-points")]
    #[error("{0}")]
    CrashTest(String),
}

fn audit(options: &Options) -> Result<AppExit, StartError> {
    let catalogue = Catalogue::load(options.products.as_deref())?;
    let audit = Audit::of(&options.db, &catalogue)?;
    say(&audit);
    Ok(if audit.is_clean() {
        AppExit::Success
    } else {
        AppExit::error()
    })
}

/// Lets bots play elsewhere until their time is up, or for good.
fn visit(options: &Options) -> Result<AppExit, StartError> {
    let catalogue = Catalogue::load(options.products.as_deref())?;
    let given = Secret::given(options.webhook_secret.as_deref()).map_err(StartError::Secret)?;
    let secret = given.ok_or_else(|| {
        StartError::Secret(
            "the bots don't know what callbacks about purchases are signed with: set `WEBHOOK_SECRET` to what the \
             servers have"
                .to_owned(),
        )
    })?;
    let destination = Destination {
        servers: options.play_at.clone(),
        secret,
        products: catalogue.products(),
    };
    let mut bots = Bots::start(options.bots(), &destination).map_err(StartError::Thread)?;
    thread::sleep(options.run_for.unwrap_or(Duration::MAX));
    let tally = bots.stop();
    say(tally);
    Ok(if tally.mismatches == 0 {
        AppExit::Success
    } else {
        AppExit::error()
    })
}

fn serve(options: &Options) -> Result<AppExit, StartError> {
    let catalogue = Catalogue::load(options.products.as_deref())?;
    let given = Secret::given(options.webhook_secret.as_deref()).map_err(StartError::Secret)?;
    let (game, game_address) = bind_game(options.listen)?;
    let (http, http_address) = bind_http(options.http)?;
    let store: Arc<dyn Store> = options.db.open()?;
    #[cfg(feature = "step-points")]
    let store = crash::prepare(store).map_err(StartError::CrashTest)?;
    let (store, chaos) = if options.chaos {
        let (store, chaos) = chaos::prepare(store);
        (store, Some(chaos))
    } else {
        (store, None)
    };

    let issuer = Issuer::new(game_address);
    let transport = secure_transport(game, game_address, &issuer)?;
    let mut app = app(options, store, &catalogue);
    app.insert_resource(transport);

    let (secret, new) = match given {
        Some(secret) => (secret, None),
        None => {
            let (secret, written) = webhook::new_secret();
            (secret, Some(written))
        }
    };
    let own_address = format!("http://{http_address}");
    let provider = Provider::new(&own_address, secret.clone()).map_err(StartError::Secret)?;
    let mut routes = login::routes(issuer)
        .merge(webhook::routes(
            inbox(&mut app),
            secret.clone(),
            options.webhook_rate,
        ))
        .merge(storefront::routes(&catalogue, provider));
    if let Some(chaos) = chaos {
        routes = routes.merge(chaos::install(&mut app, chaos));
    }
    http::serve(http, routes).map_err(StartError::Thread)?;
    tell_the_start(options, game_address, http_address, &catalogue, new.as_deref());

    let destination = Destination {
        servers: vec![own_address],
        secret,
        products: catalogue.products(),
    };
    app.insert_resource(Bots::start(options.bots(), &destination).map_err(StartError::Thread)?)
        .insert_resource(Books {
            db: options.db.clone(),
            catalogue,
        });
    if let Some(run_for) = options.run_for {
        app.add_systems(Update, stop.run_if(on_timer(run_for)));
    }
    Ok(app.run())
}

fn app(options: &Options, store: Arc<dyn Store>, catalogue: &Catalogue) -> App {
    let settings = ServerSettings {
        name: options.name.clone(),
        autosave: Some(options.autosave()),
        ..default()
    };
    #[cfg(feature = "step-points")]
    let settings = crash::hasten(settings);
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(TICK)),
        log(),
        RenetServerPlugin,
        NetcodeServerPlugin,
        PlayerDataPlugin::server(store).with_settings(settings),
        shared_data,
    ))
    .add_plugins((
        cheating::plugin,
        relics::plugin,
        rules::plugin,
        view::plugin,
        ticks::plugin,
        status::plugin,
    ))
    .insert_resource(RenetServer::new(net::connection_config()));
    products::sell(&mut app, catalogue);
    app
}

/// Where the payment provider's callbacks go.
fn inbox(app: &mut App) -> ReceiptInbox {
    app.world_mut()
        .run_system_once(|server: PlayerDataServer| server.inbox())
        .expect("the plugin is there")
}

fn tell_the_start(
    options: &Options,
    game: SocketAddr,
    http: SocketAddr,
    catalogue: &Catalogue,
    new_secret: Option<&str>,
) {
    say(format_args!(
        "Coin Rush on `{}`, with its players in {}",
        options.name, options.db
    ));
    say(format_args!("for sale: {catalogue}"));
    say(format_args!("listening on udp {game}"));
    say(format_args!("purchases at http://{http}{}", callback::PATH));
    if let Some(secret) = new_secret {
        say(format_args!(
            "purchases are signed with {secret}, until this server ends"
        ));
    }
    if options.chaos {
        say(format_args!("chaos at http://{http}{}", chaos::PATH));
    }
    say(format_args!(
        "play with: cargo run --release --example client --features window -- --name ada{}",
        elsewhere(http)
    ));
    say(format_args!("login at http://{http}"));
}

/// What a client has to be told about this address, unless it is the one that it knows.
fn elsewhere(http: SocketAddr) -> String {
    if http == options::HTTP {
        String::new()
    } else {
        format!(" --server http://{http}")
    }
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

fn bind_http(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
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
