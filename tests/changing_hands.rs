//! What a client is sent of a player who is no longer its own: nothing, however slow it was when the player went.
//!
//! Players change hands: an entity is given to another client, is taken from a client, or becomes another player. Here a
//! recorder on each connection keeps every packet, and words are planted in what happens before and after. Who plays now
//! has to be sent what happens now, or the recorder is blind; nobody else may be. A client may be slow while its player
//! goes: its packets arrive, but its game reads none of them, until the server has no room left to tell it anything.
//!
//! `cargo test --test changing_hands`
#![cfg(all(feature = "client", feature = "server"))]

#[path = "support/net.rs"]
mod net;

use bevy::prelude::*;
use bevy_player_data::{prelude::*, testing::ScriptPlayer as _};
use net::*;

/// Nobody reads on, and the server has no more room to say anything.
fn stall(server: &mut App, client: &mut Client, player: Entity) {
    let mut sent = None;
    for number in 0.. {
        assert!(number < 5000, "there is no end to the room");
        let world = server.world_mut();
        world.get_mut::<Coins>(player).expect("they have some").0 = 1_000_000 + number;
        server.update();
        client.deliver(server);
        let now = client.stats(server).sent_messages;
        if sent.replace(now) == Some(now) {
            return;
        }
    }
}

fn purchase(server: &mut App, player: Entity, id: &str) {
    server.world_mut().process_purchase(
        player,
        id.parse().expect("an id"),
        "hat".parse().expect("an id"),
        PurchaseDecision::PurchaseGranted,
    );
}

fn both(server: &mut App, first: &mut Client, second: &mut Client) {
    for _ in 0..12 {
        first.step(server);
        second.step(server);
    }
}

#[test]
fn whoever_is_given_a_player_is_told_what_happens_to_them_from_then_on() {
    for is_slow in [false, true] {
        let mut server = server();
        let (mut first, player) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
        let mut second = Client::connect(&mut server, 2);
        second.settle(&mut server);
        if is_slow {
            stall(&mut server, &mut first, player);
        }
        server.world_mut().entity_mut(player).insert(PlayerClient(2));
        for _ in 0..5 {
            second.step(&mut server);
        }
        both(&mut server, &mut first, &mut second);
        assert_eq!(first.mirror(), None, "slow: {is_slow}");
        server
            .world_mut()
            .entity_mut(player)
            .insert((Coins(7), Guild("AFTER-the-move".to_owned())));
        purchase(&mut server, player, "AFTER-purchase");
        both(&mut server, &mut first, &mut second);
        for word in [&b"AFTER-the-move"[..], b"AFTER-purchase"] {
            let word_text = String::from_utf8_lossy(word);
            assert!(
                !first.was_sent(word),
                "{word_text} went to the old client, slow: {is_slow}"
            );
            assert!(
                second.was_sent(word),
                "{word_text} went to nobody, slow: {is_slow}"
            );
        }
        assert_eq!(second.get(), Some(Coins(7)), "slow: {is_slow}");
    }
}

#[test]
fn players_who_swap_clients_are_each_shown_on_the_other_from_then_on() {
    let mut server = server();
    let (mut first, ada) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    let (mut second, bob) = Client::join_and_load(&mut server, 2, "bob", Coins(2));
    server.world_mut().entity_mut(ada).insert(PlayerClient(2));
    server.world_mut().entity_mut(bob).insert(PlayerClient(1));
    both(&mut server, &mut first, &mut second);
    server
        .world_mut()
        .entity_mut(ada)
        .insert(Guild("ADAS-guild".to_owned()));
    server
        .world_mut()
        .entity_mut(bob)
        .insert(Guild("BOBS-guild".to_owned()));
    both(&mut server, &mut first, &mut second);
    assert!(
        second.was_sent(b"ADAS-guild") && first.was_sent(b"BOBS-guild"),
        "each is shown"
    );
    assert!(!first.was_sent(b"ADAS-guild") && !second.was_sent(b"BOBS-guild"));
}

#[test]
fn a_slow_client_whose_player_was_taken_away_is_not_told_what_happens_to_them_then() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    purchase(&mut server, player, "BEFORE-it-was-slow");
    client.settle(&mut server);
    stall(&mut server, &mut client, player);
    server.world_mut().entity_mut(player).remove::<PlayerClient>();
    server.update();
    server
        .world_mut()
        .entity_mut(player)
        .insert(Guild("AFTER-guild".to_owned()));
    purchase(&mut server, player, "AFTER-purchase");
    client.until(&mut server, "the player is gone", |world| {
        world.query::<&OwnPlayer>().iter(world).next().is_none()
    });
    client.settle(&mut server);
    assert!(client.was_sent(b"BEFORE-it-was-slow"), "the recorder works");
    assert!(!client.was_sent(b"AFTER-guild"), "data");
    assert!(!client.was_sent(b"AFTER-purchase"), "news");
}

#[test]
fn a_slow_client_is_not_told_how_its_former_player_fares_on_another_one() {
    let mut server = server();
    let (mut first, player) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    let mut second = Client::connect(&mut server, 2);
    second.settle(&mut server);
    stall(&mut server, &mut first, player);
    server.world_mut().entity_mut(player).insert(PlayerClient(2));
    server.update();
    let reason = SaveError::Rejected {
        message: String::new(),
    };
    server.world_mut().block_saves(player, Some(reason));
    both(&mut server, &mut second, &mut first);
    let word = b"please contact support";
    assert!(second.was_sent(word), "whose player it is now");
    assert!(!first.was_sent(word));
}

#[test]
fn a_large_message_is_not_continued_when_its_player_has_gone() {
    let mut server = server();
    let drawing = format!("BEGIN{}END-of-the-drawing", "-".repeat(1024 * 1024));
    let (mut first, player) = Client::join(&mut server, 1, "ada");
    first.settle(&mut server);
    let mut second = Client::connect(&mut server, 2);
    second.settle(&mut server);
    server
        .world_mut()
        .finish_load(player, false, (Coins(1), Drawing(drawing.clone())));
    first.step(&mut server);
    assert!(first.was_sent(b"BEGIN"), "it is on its way");
    assert!(!first.was_sent(b"END-of-the-drawing"));
    server.world_mut().entity_mut(player).insert(PlayerClient(2));
    for _ in 0..300 {
        first.step(&mut server);
        second.step(&mut server);
    }
    assert!(!first.was_sent(b"END-of-the-drawing"));
    assert_eq!(second.get(), Some(Drawing(drawing)));
}

/// The entity becomes another player while its client is told of the first.
fn become_bob(server: &mut App, player: Entity) {
    server
        .world_mut()
        .entity_mut(player)
        .remove::<(PlayerSession, Coins, Guild, Drawing, Inventory)>()
        .insert(PersistentPlayer(PlayerId::from_name("bob")));
}

#[test]
fn an_entity_that_becomes_another_player_while_it_loads_is_shown_as_that_one() {
    let mut server = server();
    let (mut client, player) = Client::join(&mut server, 1, "ada");
    client.settle(&mut server);
    become_bob(&mut server, player);
    server
        .world_mut()
        .finish_load(player, false, Guild("BOBS-guild".to_owned()));
    client.settle(&mut server);
    assert!(client.was_sent(b"BOBS-guild"));
    let bob = Told::Loaded {
        player: PlayerId::from_name("bob"),
        first_join: false,
    };
    assert_eq!(client.heard(), [bob], "whose guild it is");
}

#[test]
fn an_entity_that_becomes_another_player_while_its_client_is_slow_is_shown_as_that_one() {
    let mut server = server();
    let (mut client, player) = Client::join_and_load(&mut server, 1, "ada", Coins(1));
    stall(&mut server, &mut client, player);
    client.app.init_resource::<Bought>().add_observer(
        |on: On<PurchaseProcessed>, mut bought: ResMut<Bought>| {
            bought.0.push((on.player, on.purchase.to_string()));
        },
    );
    become_bob(&mut server, player);
    server.update();
    purchase(&mut server, player, "BOBS-early");
    server
        .world_mut()
        .finish_load(player, false, Guild("BOBS-guild".to_owned()));
    client.settle(&mut server);
    client.settle(&mut server);
    purchase(&mut server, player, "BOBS-late");
    client.settle(&mut server);
    assert!(client.was_sent(b"BOBS-guild"));
    let bob = Told::Loaded {
        player: PlayerId::from_name("bob"),
        first_join: false,
    };
    assert_eq!(client.heard().last(), Some(&bob), "whose guild it is");
    let bought = &client.app.world().resource::<Bought>().0;
    let bob = PlayerId::from_name("bob");
    assert!(bought.contains(&(bob, "BOBS-late".to_owned())), "{bought:?}");
    assert!(bought.iter().all(|(player, _)| *player == bob), "{bought:?}");
}

/// What a client was told that was bought, and by whom.
#[derive(Resource, Default)]
struct Bought(Vec<(PlayerId, String)>);

#[test]
fn a_game_that_shows_a_player_to_the_wrong_client_is_found_out() {
    let mut server = server();
    let (mut ada, _) = Client::join_and_load(&mut server, 1, "ada", Guild("ADAS-guild".to_owned()));
    let (mut bob, player) = Client::join_and_load(&mut server, 2, "bob", Guild("BOBS-guild".to_owned()));
    both(&mut server, &mut ada, &mut bob);
    assert!(!ada.was_sent(b"BOBS-guild"));
    server.world_mut().entity_mut(player).insert(PlayerClient(1));
    both(&mut server, &mut ada, &mut bob);
    assert!(ada.was_sent(b"BOBS-guild"), "the recorder sees a leak");
}
