//! The game sends a player to another server: everything is saved and released before the client is told.

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Fault, Op},
    testing::{LocalConnection, headless_app},
};
use bevy_renet::{RenetClientPlugin, RenetServer, RenetServerPlugin, renet::ConnectionConfig};

use super::{
    scene::{Scene, TICK, prompt},
    support::*,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_player_who_is_sent_on_is_saved_and_free_when_the_game_hears_of_it() {
    let (mut scene, ada) = Scene::with_ada(412);
    scene.a.transfer(ada, "b");
    scene.until("the game hears of it", |scene| {
        !scene.a.game().transferred.is_empty()
    });
    assert_eq!(scene.a.game().transferred, [("b".to_owned(), Ok(()))]);
    assert!(scene.is_free("ada"));
    assert_eq!(scene.stored_coins("ada"), Some(Coins(412)));
    assert!(!scene.a.is_here(ada));
    let ended = Told::Ended {
        player: id("ada"),
        reason: SessionEnd::HandedOff,
    };
    assert_eq!(scene.a.ends()[0], ended);
    let on_b = scene.b.app.join("ada");
    let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert!(took <= TICK * 3, "it took {took:?}");
}

#[test]
fn a_player_whose_data_can_not_be_saved_is_not_sent_on() {
    let small = ServerSettings {
        document_limit: 1000,
        ..prompt("a")
    };
    let mut scene = Scene::with(small, prompt("b"));
    let ada = scene.join_a("ada");
    scene.a.app.set(ada, Guild("g".repeat(2000)));
    scene.a.transfer(ada, "b");
    scene.run(SECOND);
    let [(_, Err(error))] = &scene.a.game().transferred[..] else {
        panic!("{:?}", scene.a.game().transferred)
    };
    assert!(matches!(error, SaveError::TooLarge { .. }), "{error}");
    assert!(scene.a.has_session(ada));
}

#[test]
fn somebody_without_a_session_can_not_be_sent_on() {
    let mut scene = Scene::new();
    scene.a.faults.down();
    let ada = scene.a.app.join("ada");
    scene.a.app.update();
    scene.a.transfer(ada, "b");
    scene.run(SECOND);
    assert_eq!(
        scene.a.game().transferred,
        [("b".to_owned(), Err(SaveError::NoSession))]
    );
    assert!(scene.a.is_here(ada));
}

#[test]
fn a_player_who_is_sent_twice_goes_once() {
    let (mut scene, ada) = Scene::with_ada(1);
    scene.a.transfer(ada, "b");
    scene.a.transfer(ada, "c");
    scene.run(SECOND);
    let answers = std::mem::take(&mut scene.a.game().transferred);
    assert_eq!(answers.len(), 2);
    assert!(answers.contains(&("b".to_owned(), Ok(()))), "{answers:?}");
    assert!(
        answers.contains(&("c".to_owned(), Err(SaveError::NoSession))),
        "{answers:?}"
    );
}

#[test]
fn a_trade_that_is_on_its_way_is_finished_before_a_player_is_sent_on() {
    let (mut scene, ada) = Scene::with_ada(10);
    let bob = scene.join_a("bob");
    scene.a.faults.fail_next(Op::Commit, 10, Fault::Before);
    scene.a.app.world_mut().commands().trade(
        [ada, bob],
        |In(trade): In<Trade>, mut coins: Query<&mut Coins>| -> Result {
            let [mut a, mut b] = coins.get_many_mut([trade.a, trade.b])?;
            (a.0, b.0) = (a.0 - 4, b.0 + 4);
            Ok(())
        },
    );
    scene.a.transfer(ada, "b");
    scene.tick();
    assert!(scene.a.has_session(ada), "the trade comes first");
    scene.until("the game hears of it", |scene| {
        !scene.a.game().transferred.is_empty()
    });
    assert_eq!(scene.stored_coins("ada"), Some(Coins(6)));
    assert_eq!(scene.stored_coins("bob"), Some(Coins(4)));
}

/// What the client was told, in order.
#[derive(Resource, Default)]
struct ClientHeard(Vec<String>);

fn client() -> App {
    let mut client = headless_app();
    client
        .add_plugins((RenetClientPlugin, PlayerDataPlugin::client()))
        .persist::<Coins>()
        .persist::<Inventory>()
        .persist_optional::<Guild>()
        .init_resource::<ClientHeard>()
        .add_observer(|on: On<TransferredTo>, mut heard: ResMut<ClientHeard>| {
            heard.0.push(format!("go to {}", on.server));
        })
        .add_observer(|on: On<DisconnectedByServer>, mut heard: ResMut<ClientHeard>| {
            heard.0.push(format!("goodbye: {}", on.reason));
        })
        .add_observer(|on: On<PlayerSessionEnded>, mut heard: ResMut<ClientHeard>| {
            heard.0.push(format!("ended: {}", on.reason));
        });
    client
}

/// Server a with ada's client.
fn with_client() -> (Scene, App, LocalConnection, Entity) {
    let mut scene = Scene::new();
    let config = || ConnectionConfig::default().with_player_data();
    scene
        .a
        .app
        .add_plugins(RenetServerPlugin)
        .insert_resource(RenetServer::new(config()));
    let mut client = client();
    let link = LocalConnection::open(&mut scene.a.app, &mut client, 7, config());
    let ada = scene.join_a("ada");
    scene.a.app.world_mut().entity_mut(ada).insert(PlayerClient(7));
    for _ in 0..20 {
        step(&mut scene, &mut client, link);
    }
    scene.a.app.set(ada, Coins(412));
    (scene, client, link, ada)
}

fn step(scene: &mut Scene, client: &mut App, link: LocalConnection) {
    scene.tick();
    client.update();
    link.deliver(&mut scene.a.app, client);
}

fn heard(client: &App) -> Vec<String> {
    client.world().resource::<ClientHeard>().0.clone()
}

#[test]
fn the_client_is_told_where_to_go_once_everything_is_durable_and_is_then_disconnected() {
    let (mut scene, mut client, link, ada) = with_client();
    scene.a.faults.fail_next(Op::Commit, 30, Fault::Before);
    scene.a.transfer(ada, "b");
    let mut ticks = 0;
    while !scene.is_free("ada") {
        assert!(
            !heard(&client).iter().any(|heard| heard.starts_with("go")),
            "too early"
        );
        assert!(scene.a.app.world().resource::<RenetServer>().is_connected(7));
        step(&mut scene, &mut client, link);
        ticks += 1;
        assert!(ticks < 1000);
    }
    assert!(ticks > 5, "the store was down for a while");
    for _ in 0..20 {
        step(&mut scene, &mut client, link);
    }
    let told = ["ended: the player went on to another server", "go to b"];
    assert_eq!(heard(&client), told);
    assert!(!scene.a.app.world().resource::<RenetServer>().is_connected(7));
    assert_eq!(scene.stored_coins("ada"), Some(Coins(412)));
}

#[test]
fn the_client_of_a_player_whom_another_server_has_asked_for_is_told_why_and_disconnected() {
    let (mut scene, mut client, link, _ada) = with_client();
    let on_b = scene.b.app.join("ada");
    for _ in 0..50 {
        step(&mut scene, &mut client, link);
    }
    assert!(scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(412));
    let why = "the player went on to another server";
    assert_eq!(
        heard(&client),
        [format!("ended: {why}"), format!("goodbye: {why}")]
    );
    assert!(!scene.a.app.world().resource::<RenetServer>().is_connected(7));
}

#[test]
fn a_client_that_has_a_player_again_by_then_is_not_disconnected() {
    let (mut scene, mut client, link, ada) = with_client();
    scene.a.faults.fail_next(Op::Commit, 30, Fault::Before);
    scene.a.transfer(ada, "b");
    scene.until("ada is on her way", |scene| !scene.a.is_here(ada));
    // The game has changed its mind.
    let again = scene.a.app.join("ada");
    scene.a.app.world_mut().entity_mut(again).insert(PlayerClient(7));
    for _ in 0..200 {
        step(&mut scene, &mut client, link);
    }
    assert!(scene.a.has_session(again));
    assert_eq!(scene.a.coins(again), Some(412));
    assert!(scene.a.app.world().resource::<RenetServer>().is_connected(7));
}

#[test]
fn somebody_who_uses_the_id_of_a_client_who_has_left_hears_nothing_of_that_one() {
    let (mut scene, mut client, link, ada) = with_client();
    scene.a.faults.fail_next(Op::Commit, 60, Fault::Before);
    scene.a.transfer(ada, "b");
    scene.until("ada is on her way", |scene| !scene.a.is_here(ada));
    // Her client hangs up, and another comes, before everything is durable.
    let mut renet = scene.a.app.world_mut().resource_mut::<RenetServer>();
    renet.remove_connection(7);
    step(&mut scene, &mut client, link);
    let mut other = self::client();
    let config = ConnectionConfig::default().with_player_data();
    let link = LocalConnection::open(&mut scene.a.app, &mut other, 7, config);
    step(&mut scene, &mut other, link);
    assert!(!scene.is_free("ada"), "or this tests nothing");
    for _ in 0..200 {
        step(&mut scene, &mut other, link);
    }
    assert!(scene.is_free("ada"));
    assert_eq!(heard(&other), [""; 0]);
    assert!(scene.a.app.world().resource::<RenetServer>().is_connected(7));
}

#[test]
fn somebody_who_was_spawned_in_the_same_update_is_answered_for() {
    let mut scene = Scene::new();
    let ada = scene.a.app.join("ada");
    scene.a.transfer(ada, "b");
    scene.run(SECOND);
    assert_eq!(
        scene.a.game().transferred,
        [("b".to_owned(), Err(SaveError::NoSession))]
    );
    assert!(scene.a.has_session(ada));
}

#[test]
fn somebody_who_is_on_their_way_already_is_answered_for() {
    let (mut scene, ada) = Scene::with_ada(1);
    scene.a.faults.fail_next(Op::Commit, 10, Fault::Before);
    scene.a.transfer(ada, "b");
    scene.until("ada is on her way", |scene| !scene.a.is_here(ada));
    scene.a.transfer(ada, "c");
    scene.run(SECOND);
    let no_session = ("c".to_owned(), Err(SaveError::NoSession));
    assert_eq!(scene.a.game().transferred, [no_session, ("b".to_owned(), Ok(()))]);
}

#[test]
fn somebody_who_joins_again_on_the_same_entity_is_not_sent_on_by_what_was_asked_before() {
    let (mut scene, ada) = Scene::with_ada(1);
    scene.a.faults.fail_next(Op::Commit, 1, Fault::Hang);
    scene.a.app.world_mut().trigger(SavePlayer { entity: ada });
    scene.a.transfer(ada, "b");
    scene.tick();
    scene
        .a
        .app
        .world_mut()
        .entity_mut(ada)
        .remove::<PersistentPlayer>();
    let player = PersistentPlayer(id("ada"));
    scene.a.app.world_mut().entity_mut(ada).insert(player);
    scene.a.faults.resume();
    scene.until("ada is back", |scene| scene.a.has_session(ada));
    scene.run(SECOND);
    assert_eq!(
        scene.a.game().transferred,
        [("b".to_owned(), Err(SaveError::NoSession))]
    );
    assert!(scene.a.has_session(ada));
}

#[test]
fn whose_purchase_can_never_be_finished_is_answered_for_as_well() {
    let small = ServerSettings {
        document_limit: 1000,
        ..prompt("a")
    };
    let mut scene = Scene::with(small, prompt("b"));
    let grant = |In(receipt): In<Receipt>, mut coins: Query<&mut Coins>| -> Result {
        coins.get_mut(receipt.entity)?.0 += 100;
        Ok(())
    };
    scene.a.app.add_product(Product::new("coins_100", grant));
    let ada = scene.join_a("ada");
    scene.a.faults.fail_next(Op::Commit, 1, Fault::Hang);
    let receipt = NewReceipt::new("pi_1".parse().unwrap(), id("ada"), "coins_100".parse().unwrap());
    let _waiter = submit(scene.a.app.world_mut(), receipt);
    scene.until("the award is being saved", |scene| scene.a.faults.hanging() > 0);
    scene.a.app.set(ada, Guild("g".repeat(2000)));
    scene.a.app.world_mut().trigger(SavePlayer { entity: ada });
    scene.until("the save is refused", |scene| {
        scene.a.app.component::<SaveBlocked>(ada).is_some()
    });
    scene.a.transfer(ada, "b");
    scene.run(SECOND);
    let [(_, Err(error))] = &scene.a.game().transferred[..] else {
        panic!("{:?}", scene.a.game().transferred)
    };
    assert!(error.is_rejection(), "{error}");
    assert!(scene.a.has_session(ada));
}

#[test]
fn a_save_that_is_on_its_way_is_answered_before_a_player_is_sent_on() {
    let (mut scene, ada) = Scene::with_ada(10);
    scene.a.faults.fail_next(Op::Commit, 1, Fault::Hang);
    scene.a.app.world_mut().trigger(SavePlayer { entity: ada });
    scene.a.transfer(ada, "b");
    scene.run(SECOND);
    assert!(scene.a.has_session(ada), "it may be refused yet");
    scene.a.faults.resume();
    scene.until("the game hears of it", |scene| {
        !scene.a.game().transferred.is_empty()
    });
    assert_eq!(scene.a.game().transferred, [("b".to_owned(), Ok(()))]);
}
