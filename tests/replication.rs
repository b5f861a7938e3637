//! A player's public data reaches its owner's client, and nothing else reaches anybody.
#![cfg(all(feature = "client", feature = "server"))]

#[path = "support/net.rs"]
mod net;

use bevy::prelude::*;
use bevy_player_data::{
    client::{LastSaveFailed, own_player_can_purchase},
    prelude::*,
    replication::ReplicationStats,
    systems::{own_player_loaded, own_player_loading},
    testing::{LocalConnection, ScriptPlayer, ScriptedServerPlugin, headless_app},
};
use bevy_renet::{RenetClient, RenetServer, RenetServerPlugin, renet::ConnectionConfig};
use net::*;
use serde::{Deserialize, Serialize};

fn ada() -> PlayerId {
    PlayerId::from_name("ada")
}

fn inventory(items: &[(&str, u32)]) -> Inventory {
    Inventory(
        items
            .iter()
            .map(|(item, count)| ((*item).to_owned(), *count))
            .collect(),
    )
}

fn guild(name: &str) -> Guild {
    Guild(name.to_owned())
}

fn set<T: Component<Mutability = bevy::ecs::component::Mutable>>(
    server: &mut App,
    player: Entity,
    change: impl FnOnce(&mut T),
) {
    change(
        &mut server
            .world_mut()
            .get_mut::<T>(player)
            .expect("the player has it"),
    );
}

#[test]
fn a_loading_player_is_shown_without_data() {
    let mut server = server();
    let (mut client, _) = Client::join(&mut server, 1, "ada");
    client.settle(&mut server);
    assert!(client.has::<PlayerLoading>());
    assert!(!client.has::<Coins>());
    assert_eq!(client.heard(), []);
}

#[test]
fn everything_arrives_at_once_when_the_load_ends() {
    #[derive(Resource, Default)]
    struct Seen(u32);

    let mut server = server();
    let (mut client, player) = Client::join(&mut server, 1, "ada");
    client.app.init_resource::<Seen>().add_observer(
        |add: On<Add, Coins>,
         players: Query<(&Coins, &Inventory, &Guild, &OwnPlayer, &PlayerSession)>,
         mut seen: ResMut<Seen>| {
            let (coins, inventory, guild, ..) = players.get(add.entity).expect("everything is there");
            assert_eq!((coins, &*guild.0, inventory.0.len()), (&Coins(412), "owls", 1));
            seen.0 += 1;
        },
    );
    client.settle(&mut server);
    let values = (
        Coins(412),
        inventory(&[("rope", 2)]),
        guild("owls"),
        Drawing::default(),
        CheatScore::default(),
    );
    server.world_mut().finish_load(player, true, values);
    client.settle(&mut server);
    assert_eq!(
        client.app.world().resource::<Seen>().0,
        1,
        "the observer ran once"
    );
    assert!(!client.has::<PlayerLoading>());
    assert!(!client.has::<CheatScore>());
    assert_eq!(
        client.get::<PlayerSession>().map(|session| session.first_join()),
        Some(true)
    );
    assert_eq!(
        client.heard(),
        [Told::Loaded {
            player: ada(),
            first_join: true
        }]
    );
}

#[test]
fn a_player_who_was_loaded_before_the_client_said_hello_is_shown() {
    let mut server = server();
    let player = spawn(&mut server, 1, "ada");
    server.update();
    server.world_mut().finish_load(player, false, Coins(5));
    server.update();
    let mut client = Client::connect(&mut server, 1);
    client.settle(&mut server);
    assert_eq!(client.get(), Some(Coins(5)));
    assert_eq!(
        client.heard(),
        [Told::Loaded {
            player: ada(),
            first_join: false
        }]
    );
}

#[test]
fn a_change_is_shown_in_the_same_tick() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", (Coins(5), inventory(&[])));
    set(&mut server, player, |coins: &mut Coins| coins.0 = 6);
    client.step(&mut server);
    assert_eq!(client.get(), Some(Coins(6)));
}

#[test]
fn only_what_changed_is_sent() {
    let mut server = server();
    let drawing = Drawing("o".repeat(5000));
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", (Coins(5), drawing));
    let before = client.stats(&server).sent_bytes;
    set(&mut server, player, |coins: &mut Coins| coins.0 = 6);
    client.settle(&mut server);
    let sent = client.stats(&server).sent_bytes - before;
    assert!((1..32).contains(&sent), "{sent} bytes for a changed number");
}

#[test]
fn a_small_change_of_a_large_value_is_sent_as_what_differs() {
    let mut server = server();
    let mut drawing = "o".repeat(1024 * 1024);
    let mut items: Vec<_> = (0..500).map(|n| (format!("item {n}"), 1)).collect();
    let bag = |items: &[(String, u32)]| Inventory(items.iter().cloned().collect());
    let data = (bag(&items), Drawing(drawing.clone()));
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", data);
    client.until(&mut server, "the drawing is there", |world| {
        world
            .query::<&Drawing>()
            .iter(world)
            .any(|drawing| !drawing.0.is_empty())
    });
    client.settle(&mut server);
    let before = client.stats(&server).sent_bytes;
    // As long as before, longer, and shorter.
    for (place, count) in [(500_000, 2), (700_000, 70_000), (900_000, 3)] {
        drawing.replace_range(place..place + 10, "0123456789");
        set(&mut server, player, |shown: &mut Drawing| {
            shown.0.clone_from(&drawing);
        });
        items[250].1 = count;
        set(&mut server, player, |shown: &mut Inventory| *shown = bag(&items));
        client.step(&mut server);
        assert!(
            client.get::<Drawing>() == Some(Drawing(drawing.clone())),
            "another drawing is shown"
        );
        assert_eq!(client.get(), Some(bag(&items)));
    }
    let sent = client.stats(&server).sent_bytes - before;
    assert!(sent < 128, "{sent} bytes for six small changes");
}

#[test]
fn a_value_that_is_written_but_equal_is_not_sent() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(5));
    let before = client.stats(&server).sent_messages;
    for _ in 0..10 {
        set(&mut server, player, |coins: &mut Coins| coins.0 = 5);
        client.step(&mut server);
    }
    assert_eq!(client.stats(&server).sent_messages, before);
}

#[test]
fn nothing_at_all_is_sent_while_nothing_changes() {
    let mut server = server();
    let (mut client, _) = Client::join_and_load(&mut server, 1, "ada", Coins(5));
    client.settle(&mut server);
    let before = client.stats(&server);
    for _ in 0..60 {
        client.step(&mut server);
    }
    assert_eq!(client.stats(&server), before);
    assert_eq!(before.outstanding_bytes, 0, "everything was acknowledged");
}

#[test]
fn an_optional_component_that_is_removed_is_gone_on_the_client() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", (Coins(5), guild("owls")));
    assert_eq!(client.get(), Some(guild("owls")));
    server.world_mut().entity_mut(player).remove::<Guild>();
    client.settle(&mut server);
    assert_eq!(client.get::<Guild>(), None);
    assert_eq!(client.get(), Some(Coins(5)));
    server.world_mut().entity_mut(player).insert(guild("bats"));
    client.settle(&mut server);
    assert_eq!(client.get(), Some(guild("bats")));
}

#[test]
fn an_immutable_component_is_replaced() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", guild("owls"));
    server.world_mut().entity_mut(player).insert(guild("bats"));
    client.settle(&mut server);
    assert_eq!(client.get(), Some(guild("bats")));
}

#[test]
fn a_value_of_a_mebibyte_arrives_with_the_load_and_later() {
    let mut server = server();
    let first = "1".repeat(1024 * 1024);
    let (mut client, player) = Client::join(&mut server, 1, "ada");
    server
        .world_mut()
        .finish_load(player, false, (Coins(1), Drawing(first.clone())));
    client.until(&mut server, "the data is there", |world| {
        world
            .query::<(&Coins, &Drawing)>()
            .iter(world)
            .any(|(_, drawing)| drawing.0 == first)
    });
    let second = "2".repeat(1024 * 1024);
    set(&mut server, player, |drawing: &mut Drawing| {
        drawing.0 = second.clone();
    });
    client.until(&mut server, "the new drawing is there", |world| {
        world
            .query::<&Drawing>()
            .iter(world)
            .any(|drawing| drawing.0 == second)
    });
}

#[test]
fn small_changes_do_not_queue_behind_a_large_one() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", (Coins(1), Drawing::default()));
    set(&mut server, player, |drawing: &mut Drawing| {
        drawing.0 = "2".repeat(4 * 1024 * 1024);
    });
    client.step(&mut server);
    set(&mut server, player, |coins: &mut Coins| coins.0 = 2);
    client.until(&mut server, "the coins are there", |world| {
        world.query::<&Coins>().iter(world).any(|coins| coins.0 == 2)
    });
    assert_eq!(
        client.get(),
        Some(Drawing::default()),
        "the drawing is still on its way"
    );
    // A change of what is on its way comes after it.
    set(&mut server, player, |drawing: &mut Drawing| {
        drawing.0 = "3".to_owned();
    });
    client.until(&mut server, "the newest drawing is there", |world| {
        world
            .query::<&Drawing>()
            .iter(world)
            .any(|drawing| drawing.0 == "3")
    });
    for _ in 0..300 {
        client.step(&mut server);
    }
    assert_eq!(client.get(), Some(Drawing("3".to_owned())), "and stays");
}

#[test]
fn many_values_that_do_not_fit_into_one_message_all_arrive() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(
        &mut server,
        1,
        "ada",
        (Coins(1), Drawing::default(), guild(""), inventory(&[])),
    );
    set(&mut server, player, |drawing: &mut Drawing| {
        drawing.0 = "d".repeat(12_000);
    });
    set(&mut server, player, |inventory: &mut Inventory| {
        inventory.0 = (0..1000).map(|n| (format!("item {n:05}"), n)).collect();
    });
    server
        .world_mut()
        .entity_mut(player)
        .insert(guild(&"g".repeat(9_000)));
    client.settle(&mut server);
    assert_eq!(
        client.get::<Drawing>().map(|drawing| drawing.0.len()),
        Some(12_000)
    );
    assert_eq!(
        client.get::<Inventory>().map(|inventory| inventory.0.len()),
        Some(1000)
    );
    assert_eq!(client.get::<Guild>().map(|guild| guild.0.len()), Some(9_000));
}

#[test]
fn a_private_key_is_in_no_packet_and_no_client_gets_anothers_data() {
    const SECRETS: [&str; 3] = ["SECRET-score", "SECRET-newer", "SECRET-error"];
    let secret = |at: usize| CheatScore(SECRETS[at].to_owned());
    let mut server = server();
    let (mut ada, ada_player) = Client::join(&mut server, 1, "ada");
    let (mut bob, bob_player) = Client::join(&mut server, 2, "bob");
    let step = |server: &mut App, ada: &mut Client, bob: &mut Client| {
        for _ in 0..3 {
            ada.step(server);
            bob.step(server);
        }
    };
    step(&mut server, &mut ada, &mut bob);
    server
        .world_mut()
        .finish_load(ada_player, false, (guild("ADAS-guild"), secret(0)));
    let error = LoadError::Corrupt {
        message: "key `cheat_score`: SECRET-error".to_owned(),
    };
    server
        .world_mut()
        .fail_load(bob_player, error, (guild("BOBS-guild"), secret(0)));
    step(&mut server, &mut ada, &mut bob);
    server
        .world_mut()
        .entity_mut(ada_player)
        .insert((guild("ADAS-bats"), secret(1)));
    let too_large = SaveError::TooLarge {
        bytes: 2,
        limit: 1,
        heaviest: "SECRET-error".to_owned(),
        heaviest_bytes: 1,
    };
    server.world_mut().finish_save(ada_player, Err(too_large.clone()));
    server.world_mut().block_saves(ada_player, Some(too_large));
    step(&mut server, &mut ada, &mut bob);
    let encode = SaveError::Encode {
        key: "cheat_score".to_owned(),
        message: "SECRET-error".to_owned(),
    };
    server.world_mut().finish_save(ada_player, Err(encode));
    server.world_mut().end_session(ada_player, SessionEnd::LockLost);
    server
        .world_mut()
        .disconnect_client(1, DisconnectKind::Other, "goodbye");
    server.world_mut().despawn(bob_player);
    step(&mut server, &mut ada, &mut bob);

    assert!(ada.was_sent(b"ADAS-guild") && ada.was_sent(b"ADAS-bats") && bob.was_sent(b"BOBS-guild"));
    for client in [&ada, &bob] {
        for secret in SECRETS
            .map(str::as_bytes)
            .into_iter()
            .chain([&b"cheat_score"[..]])
        {
            assert!(
                !client.was_sent(secret),
                "{} was sent",
                String::from_utf8_lossy(secret)
            );
        }
    }
    assert!(!bob.was_sent(b"ADAS") && !ada.was_sent(b"BOBS"));
}

#[test]
fn a_client_that_never_says_hello_is_sent_nothing() {
    let mut server = server();
    let player = spawn(&mut server, 1, "ada");
    let mut app = headless_app(); // Without the plugin.
    let connection = LocalConnection::open(&mut server, &mut app, 1, config());
    server.world_mut().finish_load(player, false, Coins(1));
    for _ in 0..10 {
        connection.step(&mut server, &mut app);
    }
    assert_eq!(
        server.world().resource::<ReplicationStats>().total.sent_messages,
        0
    );
}

#[test]
fn a_client_that_reads_nothing_for_a_minute_stays_connected_and_then_gets_the_newest_values() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", (Coins(0), Drawing::default()));
    let stalled_at = client.get::<Coins>();
    let mut most_outstanding = 0;
    let mut least_room = usize::MAX;
    for tick in 1..=3600 {
        set(&mut server, player, |coins: &mut Coins| coins.0 = tick);
        set(&mut server, player, |drawing: &mut Drawing| {
            drawing.0 = format!("{tick:08}").repeat(1000);
        });
        server.update();
        client.deliver(&mut server); // Its transport lives on; the game does not read.
        most_outstanding = most_outstanding.max(client.stats(&server).outstanding_bytes);
        let renet = server.world().resource::<RenetServer>();
        least_room = least_room.min(renet.channel_available_memory(1, 250));
    }
    assert!(client.is_connected(&server));
    assert!(client.app.world().resource::<RenetClient>().is_connected());
    assert_eq!(client.get::<Coins>(), stalled_at);
    assert!(
        most_outstanding <= 1024 * 1024,
        "{most_outstanding} bytes were on their way"
    );
    assert!(least_room >= 4 * 1024 * 1024, "renet held more than the budget");
    let sent = client.stats(&server).sent_messages;
    assert!(sent < 1000, "{sent} messages for a client that reads none");

    client.settle(&mut server);
    assert_eq!(client.get(), Some(Coins(3600)));
    assert_eq!(
        client.get::<Drawing>().map(|drawing| drawing.0),
        Some("00003600".repeat(1000))
    );
}

#[test]
fn a_client_whose_packets_are_lost_for_a_minute_costs_no_more_than_its_budget() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(0));
    for tick in 1..=3600 {
        set(&mut server, player, |coins: &mut Coins| coins.0 = tick);
        server.update();
        // As a network that loses everything would.
        let _ = server
            .world_mut()
            .resource_mut::<RenetServer>()
            .get_packets_to_send(1);
    }
    assert!(client.is_connected(&server));
    assert!(client.stats(&server).outstanding_bytes <= 1024 * 1024);
    client.until(&mut server, "the newest value is there", |world| {
        world.query::<&Coins>().iter(world).any(|coins| coins.0 == 3600)
    });
}

#[test]
fn a_client_built_with_other_keys_and_its_server_both_say_so() {
    let logs = Logs::capture();
    let mut server = server();
    let mut app = bare_client(ReplicationSettings::default());
    app.persist::<Coins>().persist::<Title>();
    let mut client = Client::connect_app(&mut server, app, 3838);
    let player = spawn(&mut server, 3838, "ada");
    server.world_mut().finish_load(player, false, Coins(5));
    client.settle(&mut server);
    let [Told::Refused { reason }] = &client.heard()[..] else {
        panic!("{:?}", client.heard())
    };
    assert_eq!(
        reason,
        "server and client were built with different keys, or versions of keys, of player data: only the server has \
         `drawing`, only the server has `guild`, only the server has `inventory`, only this client has `title`"
    );
    assert_eq!(
        logs.count("client 3838 can't be told its player's data: server and client were built with"),
        1
    );
    assert_eq!(
        logs.count("the server refuses this client: server and client were built with"),
        1
    );
    assert!(!client.is_connected(&server));
    assert_eq!(client.mirror(), None, "no data were sent");
    assert_eq!(server.world().resource::<ReplicationStats>().refused, 1);
}

#[derive(Component, Serialize, Deserialize, Default)]
struct Title(String);
impl PlayerData for Title {
    const KEY: &'static str = "title";
}

#[test]
fn a_client_of_another_game_version_and_its_server_both_say_so() {
    let logs = Logs::capture();
    let mut server = server();
    let settings = ReplicationSettings {
        game_version: "1.3".to_owned(),
        ..default()
    };
    let mut app = bare_client(settings);
    app.add_plugins(shared_data);
    let mut client = Client::connect_app(&mut server, app, 3839);
    client.settle(&mut server);
    let reason = "the server runs game version \"\", the client \"1.3\"".to_owned();
    assert_eq!(
        logs.count(&format!("client 3839 can't be told its player's data: {reason}")),
        1
    );
    assert_eq!(client.heard(), [Told::Refused { reason }]);
    assert!(!client.is_connected(&server));
}

#[test]
fn a_value_that_cannot_be_read_leaves_the_last_good_one_and_is_reported_once() {
    /// The same key and version, another form.
    #[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
    struct OtherCoins(bool);
    impl PlayerData for OtherCoins {
        const KEY: &'static str = "coins";
    }

    let logs = Logs::capture();
    let mut server = bare_server();
    server.persist::<Coins>().persist_optional::<Guild>();
    let mut app = bare_client(ReplicationSettings::default());
    app.persist::<OtherCoins>().persist_optional::<Guild>();
    let mut client = Client::connect_app(&mut server, app, 1);
    let player = spawn(&mut server, 1, "ada");
    server
        .world_mut()
        .finish_load(player, false, (Coins(1), guild("owls")));
    client.settle(&mut server);
    assert_eq!(client.get(), Some(OtherCoins(true)), "1 can be read as `true`");
    for coins in 2..5 {
        set(&mut server, player, |old: &mut Coins| old.0 = coins);
        server
            .world_mut()
            .entity_mut(player)
            .insert(guild(&format!("owls {coins}")));
        client.settle(&mut server);
    }
    assert_eq!(client.get(), Some(OtherCoins(true)));
    assert_eq!(client.get(), Some(guild("owls 4")), "the others go on");
    assert_eq!(logs.count("the server's value of `coins`"), 1);
    assert!(client.is_connected(&server));
    set(&mut server, player, |coins: &mut Coins| coins.0 = 0);
    client.settle(&mut server);
    assert_eq!(client.get(), Some(OtherCoins(false)));
}

#[test]
fn a_component_that_cannot_be_encoded_is_reported_once_and_the_others_go_on() {
    /// Serializes up to a point.
    #[derive(Component, Deserialize, Clone, Debug, Default, PartialEq)]
    struct Odd(u8);
    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                1 => Err(serde::ser::Error::custom("one is odd")),
                2 => panic!("two is a panic, on purpose"),
                n => serializer.serialize_u8(n),
            }
        }
    }
    impl PlayerData for Odd {
        const KEY: &'static str = "odd";
    }

    let logs = Logs::capture();
    let mut server = bare_server();
    server.persist::<Coins>().persist::<Odd>();
    let mut app = bare_client(ReplicationSettings::default());
    app.persist::<Coins>().persist::<Odd>();
    let mut client = Client::connect_app(&mut server, app, 1);
    let player = spawn(&mut server, 1, "ada");
    server.world_mut().finish_load(player, false, (Coins(0), Odd(0)));
    client.settle(&mut server);
    for odd in [1, 2, 1] {
        set(&mut server, player, |old: &mut Odd| old.0 = odd);
        set(&mut server, player, |coins: &mut Coins| coins.0 += 1);
        client.settle(&mut server);
        assert_eq!(client.get(), Some(Odd(0)));
    }
    assert_eq!(client.get(), Some(Coins(3)));
    assert_eq!(logs.count("key `odd`"), 1);
    set(&mut server, player, |odd: &mut Odd| odd.0 = 3);
    client.settle(&mut server);
    assert_eq!(client.get(), Some(Odd(3)));
}

#[test]
fn a_load_error_is_told_by_kind_and_the_player_plays_on_defaults() {
    let mut server = server();
    let (mut client, player) = Client::join(&mut server, 1, "ada");
    let error = LoadError::SessionLocked {
        server: "arena-2".to_owned(),
    };
    server.world_mut().fail_load(player, error.clone(), Coins(0));
    client.settle(&mut server);
    assert_eq!(client.heard(), [Told::LoadFailed { error: error.clone() }]);
    assert_eq!(error.kind(), ErrorKind::SessionLocked);
    assert_eq!(
        client
            .get::<PlayerFallback>()
            .map(|fallback| fallback.reason().clone()),
        Some(error)
    );
    assert_eq!(client.get(), Some(Coins(0)));
    assert!(!client.has::<PlayerSession>() && !client.has::<PlayerLoading>());
    assert!(!can_purchase(&mut client));
}

#[test]
fn a_save_error_is_told_by_kind_and_again_when_it_has_passed() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(0));
    assert!(can_purchase(&mut client));
    server.world_mut().finish_save(
        player,
        Err(SaveError::Unavailable {
            message: "db-7 is down".to_owned(),
        }),
    );
    client.settle(&mut server);
    let Some(Told::Saved { result: Err(error) }) = client.heard().last().cloned() else {
        panic!("no save error")
    };
    assert_eq!(error.kind(), ErrorKind::DataStoreError);
    assert!(
        !error.to_string().contains("db-7"),
        "that is the operator's business: {error}"
    );
    assert!(client.has::<LastSaveFailed>());
    assert!(!can_purchase(&mut client));
    server.world_mut().finish_save(player, Ok(()));
    client.settle(&mut server);
    assert_eq!(client.heard().last(), Some(&Told::Saved { result: Ok(()) }));
    assert!(!client.has::<LastSaveFailed>());
    assert!(can_purchase(&mut client));
}

#[test]
fn blocked_saves_are_shown_until_they_are_blocked_no_more() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(0));
    server.world_mut().block_saves(
        player,
        Some(SaveError::Rejected {
            message: "too large".to_owned(),
        }),
    );
    client.settle(&mut server);
    assert!(client.has::<SaveBlocked>());
    assert!(!can_purchase(&mut client));
    server.world_mut().block_saves(player, None);
    client.settle(&mut server);
    assert!(!client.has::<SaveBlocked>());
    assert!(can_purchase(&mut client));
}

fn can_purchase(client: &mut Client) -> bool {
    client
        .app
        .world_mut()
        .run_system_cached(own_player_can_purchase)
        .expect("it has no parameters that can fail")
}

#[test]
fn the_run_conditions_follow_the_load() {
    let mut server = server();
    let (mut client, player) = Client::join(&mut server, 1, "ada");
    let state = |client: &mut Client| {
        let world = client.app.world_mut();
        let loading = world
            .run_system_cached(own_player_loading)
            .expect("it has no parameters that can fail");
        let loaded = world
            .run_system_cached(own_player_loaded)
            .expect("it has no parameters that can fail");
        (loading, loaded)
    };
    assert_eq!(state(&mut client), (false, false), "nothing is known yet");
    client.settle(&mut server);
    assert_eq!(state(&mut client), (true, false));
    server.world_mut().finish_load(player, false, Coins(0));
    client.settle(&mut server);
    assert_eq!(state(&mut client), (false, true));
}

#[test]
fn the_end_of_a_session_is_told_and_takes_the_mirror_away() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(0));
    server.world_mut().end_session(player, SessionEnd::LockLost);
    client.settle(&mut server);
    assert_eq!(
        client.heard().last(),
        Some(&Told::Ended {
            reason: SessionEnd::LockLost
        })
    );
    assert_eq!(client.mirror(), None);
    // The same entity may load again.
    server.world_mut().finish_load(player, false, Coins(3));
    client.settle(&mut server);
    assert_eq!(client.get(), Some(Coins(3)));
}

#[test]
fn a_client_that_gets_another_player_is_shown_that_one_only() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", (Coins(1), guild("owls")));
    server.world_mut().despawn(player);
    let other = spawn(&mut server, 1, "ada's second character");
    server.world_mut().finish_load(other, true, Coins(2));
    client.settle(&mut server);
    assert_eq!(client.get(), Some(Coins(2)));
    assert_eq!(client.get::<Guild>(), None);
    let ended = client.heard().contains(&Told::Ended {
        reason: SessionEnd::Left,
    });
    assert!(ended, "the first one's session is over: {:?}", client.heard());
}

#[test]
fn a_player_who_loses_the_client_is_no_longer_shown_to_it() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    server.world_mut().entity_mut(player).remove::<PlayerClient>();
    client.settle(&mut server);
    assert_eq!(client.mirror(), None);
    let before = client.stats(&server).sent_messages;
    set(&mut server, player, |coins: &mut Coins| coins.0 = 2);
    client.settle(&mut server);
    assert_eq!(client.stats(&server).sent_messages, before);
}

#[test]
fn a_player_who_moves_to_another_client_is_shown_there_only() {
    let mut server = server();
    let (mut first, player) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    let mut second = Client::connect(&mut server, 2);
    second.settle(&mut server);
    server.world_mut().entity_mut(player).insert(PlayerClient(2));
    for _ in 0..3 {
        first.step(&mut server);
        second.step(&mut server);
    }
    assert_eq!((first.mirror(), second.get()), (None, Some(Coins(1))));
}

#[test]
fn a_disconnected_client_hears_why_first() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    server.world_mut().finish_save(player, Err(SaveError::LockLost));
    server.world_mut().disconnect_client(
        1,
        DisconnectKind::Other,
        "another server has taken the player over",
    );
    server.world_mut().despawn(player);
    client.settle(&mut server);
    let reason = "another server has taken the player over".to_owned();
    assert_eq!(
        client.heard()[1..],
        [
            Told::Saved {
                result: Err(SaveError::LockLost)
            },
            Told::Ended {
                reason: SessionEnd::Left
            },
            Told::Disconnected { reason },
        ]
    );
    assert!(!client.is_connected(&server));
    assert_eq!(client.mirror(), None);
}

#[test]
fn a_client_that_does_not_listen_is_disconnected_all_the_same() {
    let mut server = server();
    let (mut client, _) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    server
        .world_mut()
        .disconnect_client(1, DisconnectKind::Other, "goodbye");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while client.is_connected(&server) {
        assert!(std::time::Instant::now() < deadline, "it is still connected");
        server.update();
        client.deliver(&mut server);
        std::thread::yield_now();
    }
}

#[test]
fn the_mirror_goes_with_the_connection_and_comes_back_with_the_next() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", (Coins(1), guild("owls")));
    let old = client.mirror().expect("it is loaded");
    client.app.world_mut().resource_mut::<RenetClient>().disconnect();
    client.settle(&mut server);
    assert_eq!(client.mirror(), None);
    // The player stays on the server for a while, and changes.
    set(&mut server, player, |coins: &mut Coins| coins.0 = 2);
    server.world_mut().entity_mut(player).remove::<Guild>();
    server.update();
    client.connection = LocalConnection::open(&mut server, &mut client.app, 1, config());
    client.settle(&mut server);
    assert_eq!((client.get(), client.get::<Guild>()), (Some(Coins(2)), None));
    assert_ne!(client.mirror(), Some(old));
}

#[test]
fn a_client_without_a_connection_or_with_one_that_was_removed_waits() {
    let mut app = bare_client(ReplicationSettings::default());
    app.add_plugins(shared_data);
    for _ in 0..3 {
        app.update();
    }
    let mut server = server();
    let mut client = Client::connect_app(&mut server, app, 1);
    let player = spawn(&mut server, 1, "ada");
    server.world_mut().finish_load(player, false, Coins(1));
    client.settle(&mut server);
    assert_eq!(client.get(), Some(Coins(1)));
    client.app.world_mut().remove_resource::<RenetClient>();
    client.app.update();
    assert_eq!(client.mirror(), None);
}

#[test]
fn a_host_with_a_player_of_its_own_gets_no_mirror() {
    let mut server = server();
    let (mut client, player) = Client::join(&mut server, 1, "ada");
    let host = client.app.world_mut().spawn(OwnPlayer).id();
    server.world_mut().finish_load(player, false, Coins(1));
    client.settle(&mut server);
    assert_eq!(client.mirror(), Some(host));
    assert!(!client.has::<Coins>());
    assert_eq!(
        client.stats(&server).outstanding_bytes,
        0,
        "what is not shown is acknowledged"
    );
}

#[test]
fn a_server_that_is_replaced_starts_over() {
    let mut server = server();
    let (mut client, _) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    server.insert_resource(RenetServer::new(config()));
    client.settle(&mut server);
    assert_eq!(client.mirror(), None, "the old connection is gone");
    client.connection = LocalConnection::open(&mut server, &mut client.app, 1, config());
    client.settle(&mut server);
    assert_eq!(client.get(), Some(Coins(1)));
}

#[test]
fn missing_channels_are_warned_about_with_the_line_to_add() {
    let logs = Logs::capture();
    let count = |resource: &str| {
        logs.count(&format!(
            "the `{resource}` has no reliable ordered channels for player data (id 250 to clients, 250 to the server), \
             so none is replicated: make it with \
             `{resource}::new(ConnectionConfig::default().with_player_data())`"
        ))
    };
    // Inserted after the plugin, and before it.
    let mut server = server();
    server.insert_resource(RenetServer::new(ConnectionConfig::default()));
    assert_eq!(count("RenetServer"), 1);
    let mut early = headless_app();
    early
        .insert_resource(RenetServer::new(ConnectionConfig::default()))
        .add_plugins((RenetServerPlugin, ScriptedServerPlugin::default()));
    assert_eq!(count("RenetServer"), 2);

    let mut app = bare_client(ReplicationSettings::default());
    app.add_plugins(shared_data);
    let connection = LocalConnection::open(&mut server, &mut app, 1, ConnectionConfig::default());
    assert_eq!(count("RenetClient"), 1);
    let player = spawn(&mut server, 1, "ada");
    server.world_mut().finish_load(player, false, Coins(1));
    for _ in 0..5 {
        connection.step(&mut server, &mut app);
    }
    assert_eq!((count("RenetServer"), count("RenetClient")), (2, 1), "once each");
    server
        .world_mut()
        .disconnect_client(1, DisconnectKind::Other, "goodbye");
    connection.step(&mut server, &mut app);
    assert!(!server.world().resource::<RenetServer>().is_connected(1));
}

#[test]
fn missing_renet_plugins_are_warned_about_with_the_line_to_add() {
    let logs = Logs::capture();
    let count = |resource: &str| {
        logs.count(&format!(
            "there is a `{resource}` and no `{resource}Plugin`, so it does nothing: add \
             `app.add_plugins({resource}Plugin)`"
        ))
    };
    let mut server = headless_app();
    server.add_plugins(ScriptedServerPlugin::default());
    server.finish();
    assert_eq!(count("RenetServer"), 0, "a server without any network is normal");
    server.insert_resource(RenetServer::new(config()));
    assert_eq!(count("RenetServer"), 1);
    let mut complete = net::server();
    complete.finish();
    complete.insert_resource(RenetServer::new(config()));
    assert_eq!(count("RenetServer"), 1, "nothing is missing there");

    let mut client = headless_app();
    client
        .insert_resource(RenetClient::new(config()))
        .add_plugins(PlayerDataPlugin::client());
    client.finish();
    assert_eq!(count("RenetClient"), 1);
}

#[test]
fn a_player_whose_client_is_not_connected_costs_nothing() {
    let mut server = server();
    let player = spawn(&mut server, 77, "ada");
    server.world_mut().finish_load(player, false, Coins(1));
    for _ in 0..5 {
        set(&mut server, player, |coins: &mut Coins| coins.0 += 1);
        server.update();
    }
    assert_eq!(server.world().resource::<ReplicationStats>().client(77), None);
    server.world_mut().despawn(player);
    server.update();
}

#[test]
fn a_player_of_the_real_server_is_shown_from_joining_to_being_replaced() {
    let mut server = headless_app();
    let settings = ServerSettings {
        identify: Identify::by(|client, _| {
            Some(PlayerId::from_name(if client == 1 { "ada" } else { "eve" }))
        }),
        handle_signals: false,
        ..default()
    };
    server
        .insert_resource(bevy::time::TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            RenetServerPlugin,
            PlayerDataPlugin::server(MemoryStore::default()).with_settings(settings),
        ))
        .insert_resource(RenetServer::new(config()))
        .add_plugins(shared_data)
        .persist::<CheatScore>();
    let mut client = Client::connect(&mut server, 1);
    client.until_in_time(&mut server, "ada is loaded", |client| {
        client.has::<PlayerSession>()
    });
    assert_eq!(
        client.heard(),
        [Told::Loaded {
            player: ada(),
            first_join: true
        }]
    );
    assert_eq!(
        (client.get(), client.has::<CheatScore>()),
        (Some(Coins(0)), false)
    );

    let mut players = server
        .world_mut()
        .query_filtered::<Entity, With<PersistentPlayer>>();
    let player = players.single(server.world()).expect("one player");
    set(&mut server, player, |coins: &mut Coins| coins.0 = 412);
    client.step(&mut server);
    assert_eq!(client.get(), Some(Coins(412)));
    server.world_mut().trigger(SavePlayer { entity: player });
    client.until_in_time(&mut server, "the save is done", |client| {
        client.heard().contains(&Told::Saved { result: Ok(()) })
    });

    // Ada again, from elsewhere.
    server.world_mut().spawn(PersistentPlayer(ada()));
    client.until_in_time(&mut server, "the older ada has gone", |client| {
        matches!(client.heard().last(), Some(Told::Disconnected { .. }))
    });
    assert!(
        client.heard().contains(&Told::Ended {
            reason: SessionEnd::Replaced
        }),
        "{:?}",
        client.heard()
    );
    client.settle(&mut server);
    assert!(!client.is_connected(&server));
}
