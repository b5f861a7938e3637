//! The whole path over real UDP on loopback, with netcode's connect tokens.

#[path = "support/server.rs"]
mod support;

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bevy::prelude::*;
use bevy_player_data::{prelude::*, replication::ConnectionConfigExt, testing::headless_app};
use bevy_renet::{
    RenetClient, RenetClientPlugin, RenetServer, RenetServerPlugin,
    netcode::{
        ClientAuthentication, ConnectToken, NetcodeClientPlugin, NetcodeClientTransport, NetcodeServerPlugin,
        NetcodeServerTransport, ServerAuthentication, ServerConfig,
    },
    renet::ConnectionConfig,
};
use support::*;

const PROTOCOL: u64 = 7;
const SECRET: [u8; 32] = [42; 32];

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970")
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port")
}

fn udp_server(store: MemoryStore, authentication: ServerAuthentication) -> (App, SocketAddr) {
    let mut app = server(store, quick("a"));
    let socket = socket();
    let address = socket.local_addr().expect("a bound socket has an address");
    let config = ServerConfig {
        current_time: now(),
        max_clients: 8,
        protocol_id: PROTOCOL,
        public_addresses: vec![address],
        authentication,
    };
    app.add_plugins((RenetServerPlugin, NetcodeServerPlugin))
        .insert_resource(RenetServer::new(ConnectionConfig::default().with_player_data()))
        .insert_resource(NetcodeServerTransport::new(config, socket).expect("the socket works"));
    (app, address)
}

struct Login<'a> {
    player: PlayerId,
    client: u64,
    secret: &'a [u8; 32],
    issued: Duration,
    valid_for: u64,
}

impl Login<'_> {
    fn of(name: &str, client: u64) -> Self {
        Self {
            player: id(name),
            client,
            secret: &SECRET,
            issued: now(),
            valid_for: 60,
        }
    }

    fn token(&self, server: SocketAddr) -> ConnectToken {
        let user_data = self.player.to_user_data();
        ConnectToken::generate(
            self.issued,
            PROTOCOL,
            self.valid_for,
            self.client,
            5,
            vec![server],
            Some(&user_data),
            self.secret,
        )
        .expect("a sound token")
    }
}

fn udp_client(token: ConnectToken) -> App {
    let mut app = headless_app();
    let authentication = ClientAuthentication::Secure { connect_token: token };
    app.add_plugins((
        RenetClientPlugin,
        NetcodeClientPlugin,
        PlayerDataPlugin::client(),
        shared_data,
    ))
    .insert_resource(RenetClient::new(ConnectionConfig::default().with_player_data()))
    .insert_resource(NetcodeClientTransport::new(now(), authentication, socket()).expect("the socket works"));
    app
}

/// Updates everybody in turn until `condition` holds.
#[track_caller]
fn until(apps: &mut [&mut App], what: &str, mut condition: impl FnMut(&mut [&mut App]) -> bool) {
    let started = Instant::now();
    while !condition(apps) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "waited in vain until {what}"
        );
        update(apps);
    }
}

fn update(apps: &mut [&mut App]) {
    for app in apps.iter_mut() {
        app.update();
    }
    std::thread::sleep(Duration::from_millis(2));
}

fn own<T: Component + Clone>(app: &mut App) -> Option<T> {
    let world = app.world_mut();
    world
        .query_filtered::<&T, With<OwnPlayer>>()
        .iter(world)
        .next()
        .cloned()
}

fn players(app: &mut App) -> Vec<(PlayerId, Entity)> {
    let world = app.world_mut();
    world
        .query::<(&PersistentPlayer, Entity)>()
        .iter(world)
        .map(|(player, entity)| (player.0, entity))
        .collect()
}

fn secure() -> ServerAuthentication {
    ServerAuthentication::Secure { private_key: SECRET }
}

#[test]
fn a_client_joins_plays_leaves_and_comes_back() {
    let store = MemoryStore::default();
    let (mut server, address) = udp_server(store.clone(), secure());
    let mut client = udp_client(Login::of("ada", 1).token(address));
    until(&mut [&mut server, &mut client], "the mirror is loaded", |apps| {
        own::<PlayerSession>(apps[1]).is_some()
    });
    assert_eq!(own::<Coins>(&mut client), Some(Coins(0)));

    let [(player, entity)] = players(&mut server)[..] else {
        panic!("one client is one player")
    };
    assert_eq!(player, id("ada"));
    server.set(entity, Coins(412));
    server.set(entity, Guild("weavers".to_owned()));
    server.set(entity, CheatScore(0.9));
    until(&mut [&mut server, &mut client], "the change arrives", |apps| {
        own::<Coins>(apps[1]) == Some(Coins(412))
    });
    assert_eq!(own::<Guild>(&mut client), Some(Guild("weavers".to_owned())));
    assert_eq!(
        own::<CheatScore>(&mut client),
        None,
        "a private component reached the client"
    );

    client.world_mut().write_message(AppExit::Success);
    client.update();
    drop(client);
    until(&mut [&mut server], "the server has let ada go", |apps| {
        players(apps[0]).is_empty()
    });
    until(&mut [&mut server], "ada's data is unlocked", |_| {
        !is_locked(&store, "ada")
    });
    assert_eq!(stored_value::<CheatScore>(&store, "ada"), Some(CheatScore(0.9)));

    let mut client = udp_client(Login::of("ada", 2).token(address));
    until(&mut [&mut server, &mut client], "ada is back", |apps| {
        own::<PlayerSession>(apps[1]).is_some()
    });
    assert_eq!(own::<Coins>(&mut client), Some(Coins(412)));
    assert!(!own::<PlayerSession>(&mut client).unwrap().first_join());
}

#[test]
fn forged_expired_and_replayed_tokens_are_refused_and_nobody_else_is_disturbed() {
    let store = MemoryStore::default();
    let (mut server, address) = udp_server(store, secure());
    let honest = Login::of("ada", 1);
    let token = honest.token(address);
    let replayed = {
        let mut bytes = Vec::new();
        token.write(&mut bytes).expect("a token has a form");
        ConnectToken::read(&mut bytes.as_slice()).expect("it was just written")
    };
    let mut ada = udp_client(token);
    until(&mut [&mut server, &mut ada], "ada is loaded", |apps| {
        own::<PlayerSession>(apps[1]).is_some()
    });
    let before = players(&mut server);

    let forged = Login {
        secret: &[13; 32],
        ..Login::of("eve", 2)
    }
    .token(address);
    let expired = Login {
        issued: now() - Duration::from_secs(100),
        ..Login::of("eve", 3)
    }
    .token(address);
    let taken_client_id = Login::of("eve", 1).token(address);
    for (what, token) in [
        ("forged", forged),
        ("expired", expired),
        ("replayed", replayed),
        ("with a client id in use", taken_client_id),
    ] {
        let mut eve = udp_client(token);
        // Far more round trips than a handshake takes.
        for _ in 0..100 {
            update(&mut [&mut server, &mut ada, &mut eve]);
        }
        assert!(own::<PlayerLoading>(&mut eve).is_none() && own::<PlayerSession>(&mut eve).is_none());
        assert_eq!(
            players(&mut server),
            before,
            "a token that is {what} let somebody in"
        );
    }
    let [(_, entity)] = before[..] else {
        panic!("only ada is there")
    };
    server.set(entity, Coins(5));
    until(&mut [&mut server, &mut ada], "ada still plays", |apps| {
        own::<Coins>(apps[1]) == Some(Coins(5))
    });
}

#[test]
fn a_client_without_a_player_in_its_token_is_turned_away() {
    let (mut server, address) = udp_server(MemoryStore::default(), ServerAuthentication::Unsecure);
    let mut client = headless_app();
    let authentication = ClientAuthentication::Unsecure {
        protocol_id: PROTOCOL,
        client_id: 9,
        server_addr: address,
        user_data: None,
    };
    client
        .add_plugins((
            RenetClientPlugin,
            NetcodeClientPlugin,
            PlayerDataPlugin::client(),
            shared_data,
        ))
        .insert_resource(RenetClient::new(ConnectionConfig::default().with_player_data()))
        .insert_resource(
            NetcodeClientTransport::new(now(), authentication, socket()).expect("the socket works"),
        );
    until(
        &mut [&mut server, &mut client],
        "it is disconnected again",
        |apps| apps[1].world().resource::<RenetClient>().is_disconnected(),
    );
    assert!(players(&mut server).is_empty());
}

#[test]
fn the_same_player_from_a_second_client_takes_over_and_the_first_hears_why() {
    let (mut server, address) = udp_server(MemoryStore::default(), secure());
    let mut first = udp_client(Login::of("ada", 1).token(address));
    until(&mut [&mut server, &mut first], "the first is loaded", |apps| {
        own::<PlayerSession>(apps[1]).is_some()
    });
    let [(_, entity)] = players(&mut server)[..] else {
        panic!("one client is one player")
    };
    server.set(entity, Coins(7));

    #[derive(Resource)]
    struct Why(SessionEnd);
    first.add_observer(|ended: On<PlayerSessionEnded>, mut commands: Commands| {
        commands.insert_resource(Why(ended.reason));
    });
    let mut second = udp_client(Login::of("ada", 2).token(address));
    until(
        &mut [&mut server, &mut first, &mut second],
        "the second is loaded and the first gone",
        |apps| {
            own::<PlayerSession>(apps[2]).is_some()
                && apps[1].world().resource::<RenetClient>().is_disconnected()
        },
    );
    assert_eq!(
        own::<Coins>(&mut second),
        Some(Coins(7)),
        "the newer session has the older one's data"
    );
    assert_eq!(first.world().resource::<Why>().0, SessionEnd::Replaced);
}

#[test]
fn a_load_error_reaches_the_client_without_its_details() {
    let store = MemoryStore::default();
    put(&store, "ada", &with_value("cheat_score", 99, &1));
    let (mut server, address) = udp_server(store, secure());
    let mut client = udp_client(Login::of("ada", 1).token(address));
    until(
        &mut [&mut server, &mut client],
        "the client is on defaults",
        |apps| own::<PlayerFallback>(apps[1]).is_some(),
    );
    let reason = own::<PlayerFallback>(&mut client).unwrap().reason().clone();
    assert_eq!(reason.kind(), ErrorKind::DataStoreError);
    assert!(
        !reason.to_string().contains("cheat"),
        "a private key reached the client: {reason}"
    );
    assert_eq!(own::<Coins>(&mut client), Some(Coins(0)));
}
