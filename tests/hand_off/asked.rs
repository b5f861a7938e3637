//! The other server asks: who is given up when, and who is not.

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Fault, FaultRates, Op},
};

use super::{
    scene::{Game, Scene, Side, TICK, prompt},
    support::*,
};

const SECOND: Duration = Duration::from_secs(1);

fn handed_off(name: &str) -> [Told; 2] {
    let player = id(name);
    [
        Told::Ended {
            player,
            reason: SessionEnd::HandedOff,
        },
        Told::Saved {
            player,
            is_final: true,
            result: Ok(()),
        },
    ]
}

#[test]
fn a_player_who_joins_elsewhere_is_there_in_the_blink_of_an_eye_with_everything() {
    let (mut scene, on_a) = Scene::with_ada(412);
    let on_b = scene.b.app.join("ada");
    let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert!(took <= TICK * 6, "it took {took:?}");
    assert_eq!(scene.b.coins(on_b), Some(412), "with what a had not saved before");
    scene.run(TICK * 2);
    assert_eq!(scene.a.ends(), handed_off("ada"));
    assert!(!scene.a.is_here(on_a));
    assert_eq!(scene.a.game().asked, [(id("ada"), "b".to_owned())]);
    let stats = *scene.a.app.world().resource::<ServerStats>();
    assert_eq!((stats.hand_offs, stats.hand_offs_refused), (1, 0));
}

#[test]
fn whoever_has_given_a_player_up_never_writes_them_again() {
    let (mut scene, on_a) = Scene::with_ada(412);
    // Saves that are on their way, or asked for in the very last moment, come before the release or not at all.
    scene.a.app.add_observer(
        |_: On<HandOffRequested>, mut commands: Commands, players: Query<Entity, With<PlayerSession>>| {
            for entity in players {
                commands.trigger(SavePlayer { entity });
            }
        },
    );
    for _ in 0..3 {
        scene.a.app.world_mut().trigger(SavePlayer { entity: on_a });
    }
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    let (commits, record) = (scene.a.faults.calls(Op::Commit), scene.record("ada"));
    scene.a.app.world_mut().trigger(SavePlayer { entity: on_a });
    scene.a.app.world_mut().flush();
    scene.run(60 * SECOND);
    assert_eq!(scene.a.faults.calls(Op::Commit), commits);
    assert_eq!(scene.record("ada"), record);
    scene.b.app.set(on_b, Coins(413));
    scene.b.app.leave(on_b);
    scene.until("b has saved ada", |scene| scene.is_free("ada"));
    assert_eq!(scene.stored_coins("ada"), Some(Coins(413)));
}

#[test]
fn a_game_that_refuses_keeps_the_player_and_is_asked_again_now_and_then() {
    let (mut scene, on_a) = Scene::with_ada(1);
    scene.a.game().keeps = true;
    let on_b = scene.b.app.join("ada");
    scene.run(10 * SECOND);
    assert!(scene.a.has_session(on_a) && !scene.b.has_session(on_b));
    let asked = scene.a.asked();
    assert!((8..=11).contains(&asked), "it was asked {asked} times in 10 s");
    assert_eq!(scene.a.ends(), []);
    let stats = *scene.a.app.world().resource::<ServerStats>();
    assert_eq!(stats.hand_offs_refused, asked as u64);

    scene.a.app.set(on_a, Coins(2));
    scene.a.game().keeps = false;
    let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert!(took <= SECOND + TICK * 6, "it took {took:?}");
    assert_eq!(scene.b.coins(on_b), Some(2));
}

#[test]
fn nobody_is_given_up_before_the_session_has_lived_for_a_while() {
    let patient = ServerSettings {
        hand_off: HandOffSettings::default(),
        ..quick("a")
    };
    let min_session = patient.hand_off.min_session;
    let mut scene = Scene::with(patient, prompt("b"));
    let on_a = scene.join_a("ada");
    let on_b = scene.b.app.join("ada");
    scene.run(min_session - TICK * 3);
    assert!(scene.a.has_session(on_a));
    assert_eq!(scene.a.asked(), 0, "the game isn't even asked");
    let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert!(took <= TICK * 10, "it took {took:?}");
}

#[test]
fn asking_over_and_over_takes_nobody_from_a_server_sooner() {
    let patient = |name| ServerSettings {
        hand_off: HandOffSettings::default(),
        ..quick(name)
    };
    let min_session = HandOffSettings::default().min_session;
    let mut scene = Scene::with(patient("a"), patient("b"));
    // Somebody logs in as ada on both servers, again and again.
    let (mut on_a, mut on_b) = (scene.a.app.join("ada"), None);
    let mut hops = 0;
    let minute = 60 * SECOND;
    for _ in 0..minute.as_millis() / TICK.as_millis() {
        for (side, player) in [(&mut scene.a, Some(&mut on_a)), (&mut scene.b, on_b.as_mut())] {
            if let Some(player) = player
                && !side.is_here(*player)
            {
                hops += 1;
                *player = side.app.join("ada");
            }
        }
        on_b.get_or_insert_with(|| scene.b.app.join("ada"));
        scene.tick();
    }
    let most = minute.as_millis() / min_session.as_millis();
    assert!((4..=most).contains(&hops), "{hops} hops in a minute");
}

#[test]
fn a_player_who_has_left_the_other_server_again_stays() {
    let patient = ServerSettings {
        hand_off: HandOffSettings::default(),
        ..quick("a")
    };
    let mut scene = Scene::with(patient, prompt("b"));
    let on_a = scene.join_a("ada");
    let on_b = scene.b.app.join("ada");
    scene.run(SECOND);
    scene.b.app.leave(on_b);
    scene.run(30 * SECOND);
    assert!(scene.a.has_session(on_a));
    assert_eq!(scene.a.asked(), 0, "nobody asks any more");
}

#[test]
fn a_server_that_gives_nobody_up_is_asked_in_vain() {
    let never = ServerSettings {
        hand_off: HandOffSettings {
            min_session: Duration::MAX,
            ..default()
        },
        ..quick("a")
    };
    let mut scene = Scene::with(never, prompt("b"));
    let on_a = scene.join_a("ada");
    let on_b = scene.b.app.join("ada");
    scene.run(50 * SECOND);
    assert!(scene.a.has_session(on_a));
    let fallback = scene.b.app.component::<PlayerFallback>(on_b).expect("b gave up");
    let server = "a".to_owned();
    assert_eq!(*fallback.reason(), LoadError::SessionLocked { server });
}

#[test]
fn whose_data_can_not_be_saved_stays() {
    let small = ServerSettings {
        document_limit: 1000,
        ..prompt("a")
    };
    let mut scene = Scene::with(small, prompt("b"));
    let on_a = scene.join_a("ada");
    scene.a.app.set(on_a, Coins(7));
    let guild = "g".repeat(2000);
    scene.a.app.set(on_a, Guild(guild));
    let on_b = scene.b.app.join("ada");
    scene.run(5 * SECOND);
    assert!(
        scene.a.has_session(on_a),
        "what is too large to be saved would be lost"
    );
    let refused = scene.a.app.world().resource::<ServerStats>().hand_offs_refused;
    assert!((4..=6).contains(&refused), "{refused} refusals");

    scene.a.app.world_mut().entity_mut(on_a).remove::<Guild>();
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(7));
}

/// Ada, who is small enough again, on a server whose store has refused her last save.
fn with_ada_who_was_refused() -> (Scene, Entity) {
    let small = ServerSettings {
        document_limit: 1000,
        ..prompt("a")
    };
    let mut scene = Scene::with(small, prompt("b"));
    let on_a = scene.join_a("ada");
    scene.a.app.set(on_a, Guild("g".repeat(2000)));
    scene.a.app.world_mut().trigger(SavePlayer { entity: on_a });
    scene.until("the save is refused", |scene| {
        scene.a.app.component::<SaveBlocked>(on_a).is_some()
    });
    scene.a.app.set(on_a, Guild("g".to_owned()));
    (scene, on_a)
}

#[test]
fn whose_last_save_was_refused_stays_until_one_has_landed() {
    let (mut scene, on_a) = with_ada_who_was_refused();
    let on_b = scene.b.app.join("ada");
    scene.run(TICK * 6);
    assert!(scene.a.has_session(on_a), "nobody knows whether it would land");
    assert!(
        scene.a.app.component::<SaveBlocked>(on_a).is_none(),
        "but by now it is known"
    );
    let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert!(took <= 2 * SECOND, "it took {took:?}");
    assert_eq!(scene.b.app.component::<Guild>(on_b), Some(Guild("g".to_owned())));
}

#[test]
fn what_observers_of_the_request_change_goes_along() {
    let (mut scene, _) = Scene::with_ada(1);
    scene
        .a
        .app
        .add_observer(|request: On<HandOffRequested>, mut coins: Query<&mut Coins>| {
            coins.get_mut(request.entity).unwrap().0 += 10;
        });
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(11));
}

#[test]
fn an_observer_of_the_request_may_send_the_player_away() {
    let (mut scene, on_a) = Scene::with_ada(5);
    scene
        .a
        .app
        .add_observer(|request: On<HandOffRequested>, mut commands: Commands| {
            commands.entity(request.entity).despawn();
        });
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(5));
    assert!(!scene.a.is_here(on_a));
    let ended = Told::Ended {
        player: id("ada"),
        reason: SessionEnd::Left,
    };
    assert_eq!(scene.a.ends()[0], ended);
}

#[test]
fn a_player_who_is_kept_as_a_fallback_is_on_data_that_is_never_saved() {
    let keep = ServerSettings {
        on_session_lost: OnSessionLost::KeepAsFallback,
        ..prompt("a")
    };
    let mut scene = Scene::with(keep, prompt("b"));
    let on_a = scene.join_a("ada");
    scene.a.app.set(on_a, Coins(3));
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(3));
    let server = "b".to_owned();
    let fallback = scene
        .a
        .app
        .component::<PlayerFallback>(on_a)
        .expect("the entity stays");
    assert_eq!(*fallback.reason(), LoadError::SessionLocked { server });
    assert!(!scene.a.has_session(on_a));
    scene.a.app.set(on_a, Coins(1_000_000));
    scene.a.app.leave(on_a);
    scene.run(SECOND);
    scene.b.app.leave(on_b);
    scene.until("b has saved ada", |scene| scene.is_free("ada"));
    assert_eq!(scene.stored_coins("ada"), Some(Coins(3)));
}

/// Something that is bought.
fn coins_100(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
    coins.get_mut(receipt.entity)?.0 += 100;
    Ok(())
}

#[test]
fn a_purchase_that_is_on_its_way_is_finished_first() {
    #[derive(Resource, Default)]
    struct Order(Vec<&'static str>);
    let (mut scene, _) = Scene::with_ada(1);
    scene
        .a
        .app
        .add_product(Product::new("coins_100", coins_100))
        .init_resource::<Order>()
        .add_observer(|on: On<PurchaseProcessed>, mut order: ResMut<Order>| {
            if on.decision == PurchaseDecision::PurchaseGranted {
                order.0.push("granted");
            }
        })
        .add_observer(|_: On<HandOffRequested>, mut order: ResMut<Order>| order.0.push("asked"));
    // Two saves fail for good, so the award is in memory for a while, and not durable.
    scene.a.faults.fail_next(Op::Commit, 12, Fault::Before);
    let receipt = NewReceipt::new("pi_1".parse().unwrap(), id("ada"), "coins_100".parse().unwrap());
    drop(submit(scene.a.app.world_mut(), receipt));
    scene.until("the award is being saved", |scene| {
        scene.a.faults.injected(Op::Commit) > 0
    });
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(101));
    assert_eq!(scene.a.app.world().resource::<Order>().0, ["granted", "asked"]);
}

#[test]
fn a_trade_that_is_on_its_way_is_finished_first() {
    #[derive(Resource, Default)]
    struct Order(Vec<&'static str>);
    let (mut scene, ada) = Scene::with_ada(10);
    let bob = scene.join_a("bob");
    scene
        .a
        .app
        .init_resource::<Order>()
        .add_observer(|on: On<TradeSettled>, mut order: ResMut<Order>| {
            assert_eq!(on.result, Ok(()));
            order.0.push("settled");
        })
        .add_observer(|_: On<HandOffRequested>, mut order: ResMut<Order>| order.0.push("asked"));
    // While the store doesn't answer commits, the trade is on its way.
    scene.a.faults.fail_next(Op::Commit, 30, Fault::Before);
    scene.a.app.world_mut().commands().trade(
        [ada, bob],
        |In(trade): In<Trade>, mut coins: Query<&mut Coins>| -> Result {
            let [mut a, mut b] = coins.get_many_mut([trade.a, trade.b])?;
            (a.0, b.0) = (a.0 - 4, b.0 + 4);
            Ok(())
        },
    );
    scene.a.app.world_mut().flush();
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(6));
    assert_eq!(scene.a.coins(bob), Some(4));
    assert_eq!(
        scene.a.app.world().resource::<Order>().0,
        ["settled", "settled", "asked"]
    );
}

#[test]
fn several_players_hop_at_once() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..50).map(|n| format!("player {n}")).collect();
    let on_a: Vec<Entity> = names.iter().map(|name| scene.join_a(name)).collect();
    for (n, &entity) in on_a.iter().enumerate() {
        scene.a.app.set(entity, Coins(n as u64));
    }
    let on_b: Vec<Entity> = names.iter().map(|name| scene.b.app.join(name)).collect();
    let took = scene.until("all are on b", |scene| {
        on_b.iter().all(|&entity| scene.b.has_session(entity))
    });
    assert!(took <= TICK * 8, "it took {took:?}");
    for (n, &entity) in on_b.iter().enumerate() {
        assert_eq!(scene.b.coins(entity), Some(n as u64));
    }
    assert_eq!(scene.a.app.world().resource::<Game>().asked.len(), 50);
}

/// What a game does when somebody is gone: here, giving back what they had staked.
fn give_back_stakes(app: &mut App) {
    app.add_observer(
        |despawn: On<Despawn, PlayerSession>, mut coins: Query<&mut Coins>| {
            coins.get_mut(despawn.entity).unwrap().0 += 1;
        },
    );
    app.add_observer(|remove: On<Remove, Coins>, mut coins: Query<&mut Coins>| {
        coins.get_mut(remove.entity).unwrap().0 += 10;
    });
}

#[test]
fn what_observers_of_the_despawn_change_goes_along() {
    let (mut scene, _) = Scene::with_ada(400);
    give_back_stakes(&mut scene.a.app);
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(411));
    scene.run(TICK * 2);
    assert_eq!(scene.a.ends(), handed_off("ada"));
}

#[test]
fn what_observers_of_the_despawn_change_goes_along_with_one_who_is_sent_on() {
    let (mut scene, on_a) = Scene::with_ada(400);
    give_back_stakes(&mut scene.a.app);
    scene.a.app.world_mut().trigger(TransferPlayer {
        entity: on_a,
        to: "b".to_owned(),
    });
    scene.until("ada is free", |scene| scene.is_free("ada"));
    assert_eq!(scene.stored_coins("ada"), Some(Coins(411)));
}

#[test]
fn what_observers_of_the_despawn_change_is_there_for_who_joins_again() {
    let (mut scene, _) = Scene::with_ada(400);
    give_back_stakes(&mut scene.a.app);
    let again = scene.join_a("ada");
    assert_eq!(scene.a.coins(again), Some(411));
}

#[test]
fn a_save_that_is_on_its_way_is_answered_before_the_game_is_asked() {
    let (mut scene, on_a) = Scene::with_ada(10);
    scene.a.faults.fail_next(Op::Commit, 1, Fault::Hang);
    scene.a.app.world_mut().trigger(SavePlayer { entity: on_a });
    let on_b = scene.b.app.join("ada");
    scene.run(SECOND);
    assert!(scene.a.has_session(on_a), "it may be refused yet");
    assert_eq!(scene.a.asked(), 0);
    scene.a.faults.resume();
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(10));
}

/// A scene in which some save of ada's is always under way.
fn with_ada_who_is_saved_all_the_time() -> Scene {
    let (mut scene, _) = Scene::with_ada(10);
    let latency = TICK * 3..=TICK * 3;
    scene.a.faults.set_rates(FaultRates { latency, ..default() });
    scene.a.app.add_systems(
        PreUpdate, // One that is run here.
        |players: Query<(Entity, &mut Coins), With<PlayerSession>>, mut commands: Commands| {
            for (entity, mut coins) in players {
                coins.0 += 1;
                commands.trigger(SavePlayer { entity });
            }
        },
    );
    scene.run(TICK * 10);
    scene
}

#[test]
fn a_game_that_saves_all_the_time_gives_players_up_as_well() {
    let mut scene = with_ada_who_is_saved_all_the_time();
    let on_b = scene.b.app.join("ada");
    let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert!(took <= 5 * SECOND, "it took {took:?}");
}

#[test]
fn a_game_that_saves_all_the_time_and_is_asked_by_two_gives_players_up_as_well() {
    let mut scene = with_ada_who_is_saved_all_the_time();
    let mut c = Side::new(&scene.runtime, &scene.rows, prompt("c"));
    // Until it has its lease.
    for _ in 0..10 {
        scene.tick();
        c.app.update();
    }
    scene.a.game().keeps = true;
    let on_b = scene.b.app.join("ada");
    let on_c = c.app.join("ada");
    // Until both have asked.
    for _ in 0..30 {
        scene.tick();
        c.app.update();
    }
    scene.a.game().keeps = false;
    let took = scene.until("ada is on b or c", |scene| {
        c.app.update();
        scene.b.has_session(on_b) || c.has_session(on_c)
    });
    assert!(took <= 5 * SECOND, "it took {took:?}");
}

#[test]
fn a_game_can_not_hide_from_itself_that_data_was_refused() {
    let (mut scene, on_a) = with_ada_who_was_refused();
    scene.a.app.world_mut().entity_mut(on_a).remove::<SaveBlocked>();
    scene.b.app.join("ada");
    scene.until("a is asked", |scene| scene.a.asked() == 1);
    scene.run(TICK * 3);
    assert!(scene.a.has_session(on_a), "nobody knows whether it would land");
}

#[test]
fn a_server_that_does_not_ask_waits_until_the_player_has_left() {
    let mut waits = prompt("b");
    waits.hand_off.ask = false;
    let mut scene = Scene::with(prompt("a"), waits);
    let on_a = scene.join_a("ada");
    scene.a.app.set(on_a, Coins(3));
    let on_b = scene.b.app.join("ada");
    scene.run(10 * SECOND);
    assert!(scene.a.has_session(on_a));
    assert_eq!((scene.a.asked(), scene.b.faults.calls(Op::Wish)), (0, 0));
    scene.a.app.leave(on_a);
    let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert!(took <= SECOND + TICK * 6, "it took {took:?}");
    assert_eq!(scene.b.coins(on_b), Some(3));
}

#[test]
fn a_final_save_whose_answer_was_lost_is_saved_though_the_other_server_was_quick() {
    let mut slow = prompt("a");
    slow.retry.first = SECOND;
    slow.retry.max = SECOND;
    let mut scene = Scene::with(slow, prompt("b"));
    let on_a = scene.join_a("ada");
    scene.a.app.set(on_a, Coins(412));
    scene.a.faults.fail_next(Op::Commit, 1, Fault::After);
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.a.faults.calls(Op::Commit), 1, "or this tests nothing");
    assert_eq!(scene.b.coins(on_b), Some(412));
    scene.run(3 * SECOND);
    assert_eq!(scene.a.ends(), handed_off("ada"));
}
