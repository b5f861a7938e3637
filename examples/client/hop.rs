//! Going from one server to the next without leaving the first, which gives the player up once the next one asks; and
//! going where the server sends the player.

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use bevy_renet::{
    RenetClient,
    netcode::{ConnectToken, NetcodeClientTransport},
};

use crate::{
    connection::News,
    game::{
        login::{LoginError, LoginService},
        net,
    },
};

/// Who plays, and on which servers one after the other.
#[derive(Resource)]
pub struct Route {
    name: String,
    servers: Vec<String>,
    here: usize,
}

/// The player wants to go on to the next server.
#[derive(Event)]
pub struct Hop;

/// The connection to the server that the player has hopped away from. It is kept until that server closes it, as that of
/// somebody would be who has started the game a second time.
#[derive(Resource)]
struct Former(NetcodeClientTransport, RenetClient);

pub fn plugin(app: &mut App) {
    app.add_observer(hop)
        .add_observer(go_where_sent)
        .add_systems(Update, keep_up_former.run_if(resource_exists::<Former>));
}

impl Route {
    pub fn new(name: &str, servers: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            servers: servers.to_vec(),
            here: 0,
        }
    }

    /// Asks the server that the player is on now for a connect token.
    ///
    /// # Errors
    /// Why there is none.
    pub fn log_in(&self) -> Result<ConnectToken, LoginError> {
        LoginService::new(&self.servers[self.here]).log_in(&self.name)
    }

    fn connect(&self) -> Result<(RenetClient, NetcodeClientTransport), String> {
        let token = self.log_in().map_err(|error| error.to_string())?;
        net::connect(token).map_err(|error| error.to_string())
    }
}

fn hop(_: On<Hop>, mut commands: Commands) {
    commands.queue(|world: &mut World| {
        let Route { servers, here, .. } = world.resource::<Route>();
        let next = (here + 1) % servers.len();
        let said = if next == *here {
            "there is nowhere to hop to: name several servers".to_owned()
        } else {
            let there = servers[next].clone();
            match go_to(world, next) {
                Ok(former) => {
                    world.insert_resource(former);
                    format!("hopping to {there}")
                }
                Err(problem) => format!("can't hop: {problem}"),
            }
        };
        world.write_message(News(said));
    });
}

/// The server names the login address of the other one.
fn go_where_sent(sent: On<TransferredTo>, mut commands: Commands) {
    let server = sent.server.clone();
    commands.queue(move |world: &mut World| {
        let mut route = world.resource_mut::<Route>();
        let known = route.servers.iter().position(|known| *known == server);
        let there = known.unwrap_or_else(|| {
            route.servers.push(server.clone());
            route.servers.len() - 1
        });
        let said = match go_to(world, there) {
            // The server is about to close that connection.
            Ok(former) => {
                drop(former);
                format!("going on to {server}")
            }
            Err(problem) => format!("can't go on to {server}: {problem}"),
        };
        world.write_message(News(said));
    });
}

/// Connects to another server, and returns the connection that there was.
fn go_to(world: &mut World, place: usize) -> Result<Former, String> {
    let mut route = world.resource_mut::<Route>();
    let before = std::mem::replace(&mut route.here, place);
    let (client, transport) = route.connect().inspect_err(|_| route.here = before)?;
    let former = (world.remove_resource(), world.remove_resource());
    // Anew, and not in place: so the mirror knows that this is another connection.
    world.insert_resource(client);
    world.insert_resource(transport);
    match former {
        (Some(transport), Some(client)) => Ok(Former(transport, client)),
        _ => Err("there was no connection".to_owned()),
    }
}

fn keep_up_former(mut former: ResMut<Former>, time: Res<Time<Real>>, mut commands: Commands) {
    let Former(transport, client) = &mut *former;
    client.update(time.delta());
    if transport.update(time.delta(), client).is_err() || client.is_disconnected() {
        return commands.remove_resource::<Former>();
    }
    // That the connection lives is all that is still said on it.
    let _ = transport.send_packets(client);
}
