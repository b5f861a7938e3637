//! The connection: logging in, playing, and coming back when it is lost.
//!
//! The player's own data needs nothing of this. `bevy_player_data` spawns the mirror on whatever connection there is.

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{client::DisconnectedByServer, prelude::*};
use bevy_renet::{
    RenetClient, RenetClientPlugin,
    netcode::{ConnectToken, NetcodeClientPlugin, NetcodeClientTransport},
};

use super::background::Background;
use crate::game::{
    login::{LoginError, LoginService},
    net,
};

/// How long to wait before the first attempt to come back; each further one waits twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Who plays, and where.
#[derive(Resource, Clone, Debug)]
pub struct Account {
    pub name: String,
    /// The HTTP addresses of the servers, which share their players.
    servers: Vec<String>,
    /// On which of them the player is.
    here: usize,
}

impl Account {
    /// Somebody who begins on the first of these servers.
    pub const fn new(name: String, servers: Vec<String>) -> Self {
        Self {
            name,
            servers,
            here: 0,
        }
    }

    /// The HTTP address of the server that the player is on.
    pub fn server(&self) -> &str {
        self.servers.get(self.here).map_or("", String::as_str)
    }

    /// Whether there is another server.
    pub const fn can_hop(&self) -> bool {
        self.servers.len() > 1
    }

    /// Turns to the next server; `false` if there is only one.
    fn hop(&mut self) -> bool {
        self.here = (self.here + 1) % self.servers.len().max(1);
        self.can_hop()
    }

    /// Turns to the server with this address.
    fn go_to(&mut self, server: &str) {
        let known = self.servers.iter().position(|known| known == server);
        self.here = known.unwrap_or_else(|| {
            self.servers.push(server.to_owned());
            self.servers.len() - 1
        });
    }
}

/// Where the client stands with the server.
#[derive(Resource)]
pub enum Link {
    /// The login service is asked for a connect token.
    LoggingIn(Background<Result<ConnectToken, LoginError>>),
    /// renet connects, or is connected. How far the player's data is, the mirror says.
    Up,
    /// There is no connection any more, or never was one.
    Down(Farewell),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The login service doesn't answer.
    NoAnswer,
    /// It broke off.
    Lost(String),
    /// The server is shutting down.
    ServerExit,
    /// The player's session is somebody else's now.
    SessionLost(SessionEnd),
    /// The server wants nothing to do with this player, or with this build of the client.
    Unwanted(String),
}

/// When the client tries to come back by itself.
#[derive(Resource)]
pub struct NextAttempt {
    /// On the real clock.
    pub at: Duration,
    /// From when on it has waited.
    pub since: Duration,
}

/// Trigger this to connect, whatever became of the last connection.
#[derive(Event)]
pub struct Reconnect;

/// Trigger this to go on on the next server. The one that the player is on hands them off once that one asks for them.
#[derive(Event)]
pub struct Hop;

/// There is no connection from here on.
#[derive(Event)]
struct Ended(Farewell);

/// How often the client has tried to come back since it was last in a session.
#[derive(Resource, Default)]
struct Failures(u32);

pub fn plugin(app: &mut App) {
    app.add_plugins((RenetClientPlugin, NetcodeClientPlugin))
        .init_resource::<Failures>()
        .add_observer(connect_anew)
        .add_observer(hop)
        .add_observer(go_where_sent)
        .add_observer(end)
        .add_observer(hear_refusal)
        .add_observer(hear_farewell)
        .add_observer(|_: On<PlayerLoaded>, mut failures: ResMut<Failures>| failures.0 = 0)
        .add_systems(
            Update,
            (
                take_token.run_if(resource_exists::<Link>),
                notice_the_end.run_if(resource_exists::<NetcodeClientTransport>),
                try_again.run_if(resource_exists::<NextAttempt>),
            )
                .chain(),
        );
}

fn connect_anew(_: On<Reconnect>, account: Res<Account>, mut commands: Commands) {
    let (name, server) = (account.name.clone(), account.server().to_owned());
    commands.remove_resource::<RenetClient>();
    commands.remove_resource::<NetcodeClientTransport>();
    commands.remove_resource::<NextAttempt>();
    let login = Background::start(move || LoginService::new(&server).log_in(&name));
    commands.insert_resource(match login {
        Ok(login) => Link::LoggingIn(login),
        Err(problem) => Link::Down(Farewell::Lost(problem.to_string())),
    });
}

fn hop(_: On<Hop>, mut account: ResMut<Account>, mut commands: Commands) {
    if account.hop() {
        commands.trigger(Reconnect);
    }
}

/// The server has saved the player, and names the one to go on on.
fn go_where_sent(sent: On<TransferredTo>, mut account: ResMut<Account>, mut commands: Commands) {
    account.go_to(&sent.server);
    commands.trigger(Reconnect);
}

fn take_token(mut link: ResMut<Link>, mut commands: Commands) {
    let Link::LoggingIn(login) = link.bypass_change_detection() else {
        return;
    };
    let Some(answer) = login.poll() else { return };
    let connected = answer.map_err(Farewell::from).and_then(|token| {
        net::connect(token)
            .map_err(|problem| Farewell::Lost(format!("no connection can be made from here: {problem}")))
    });
    match connected {
        Ok((client, transport)) => {
            commands.insert_resource(client);
            commands.insert_resource(transport);
            *link = Link::Up;
        }
        Err(farewell) => commands.trigger(Ended(farewell)),
    }
}

fn hear_refusal(refused: On<ReplicationRefused>, mut commands: Commands) {
    let reason = format!("this client doesn't fit the server: {}", refused.reason);
    commands.trigger(Ended(Farewell::Unwanted(reason)));
}

/// The server has nothing more to say, so there is no need to wait for the connection to end.
fn hear_farewell(farewell: On<DisconnectedByServer>, mut commands: Commands) {
    commands.trigger(Ended(Farewell::from(&*farewell)));
}

impl From<LoginError> for Farewell {
    fn from(problem: LoginError) -> Self {
        match problem {
            LoginError::NoAnswer { .. } => Self::NoAnswer,
            LoginError::Refused { reason } => Self::Unwanted(reason),
            problem @ LoginError::Nonsense { .. } => Self::Unwanted(problem.to_string()),
        }
    }
}

impl From<&DisconnectedByServer> for Farewell {
    fn from(farewell: &DisconnectedByServer) -> Self {
        match farewell.kind {
            DisconnectKind::ServerExit => Self::ServerExit,
            DisconnectKind::SessionEnded(end) => Self::SessionLost(end),
            DisconnectKind::LoadFailed(_) => Self::Unwanted(farewell.reason.clone()),
            _ => Self::Lost(farewell.reason.clone()),
        }
    }
}

fn notice_the_end(
    client: Res<RenetClient>,
    transport: Res<NetcodeClientTransport>,
    link: Res<Link>,
    mut commands: Commands,
) {
    if client.is_disconnected() && matches!(*link, Link::Up) {
        let reason = transport.disconnect_reason().map(|reason| reason.to_string());
        let reason = reason.or_else(|| client.disconnect_reason().map(|reason| reason.to_string()));
        let reason = reason.unwrap_or_else(|| "nobody knows why".to_owned());
        commands.trigger(Ended(Farewell::Lost(reason)));
    }
}

/// The first reason counts: whatever else happens to the connection follows from it.
fn end(
    ended: On<Ended>,
    mut link: ResMut<Link>,
    mut failures: ResMut<Failures>,
    time: Res<Time<Real>>,
    mut commands: Commands,
) {
    if matches!(*link, Link::Down(_)) {
        return;
    }
    let Ended(farewell) = ended.event();
    if farewell.passes() {
        commands.insert_resource(failures.wait(&time));
    }
    *link = Link::Down(farewell.clone());
}

impl Farewell {
    /// Whether it is worth trying again without anybody having done anything. Somebody who plays elsewhere by now
    /// should not be drawn back here.
    const fn passes(&self) -> bool {
        matches!(self, Self::NoAnswer | Self::Lost(_) | Self::ServerExit)
    }
}

impl Failures {
    fn wait(&mut self, time: &Time<Real>) -> NextAttempt {
        let pause = FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(self.0))
            .min(LONGEST_PAUSE);
        self.0 = self.0.saturating_add(1);
        NextAttempt {
            at: time.elapsed() + pause,
            since: time.elapsed(),
        }
    }
}

fn try_again(next: Res<NextAttempt>, time: Res<Time<Real>>, mut commands: Commands) {
    if time.elapsed() >= next.at {
        commands.trigger(Reconnect);
    }
}
