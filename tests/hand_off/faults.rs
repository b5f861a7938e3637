//! Servers that die and stores that fail in the middle of a hand-off: nothing is lost, and nobody is taken for nobody.

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Fault, FaultRates, Op},
    testing::follow_seed,
};

use super::{
    scene::{Scene, Side, TICK, prompt},
    support::*,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_server_that_is_dead_costs_the_wait_for_its_lease_and_no_more() {
    let (mut scene, on_a) = Scene::with_ada(1);
    scene.a.app.world_mut().trigger(SavePlayer { entity: on_a });
    scene.run(SECOND);
    let lease_ttl = prompt("a").lease_ttl;
    let on_b = scene.b.app.join("ada");
    scene.b.app.update();
    // From here on nobody updates a.
    let mut passed = Duration::ZERO;
    while !scene.b.has_session(on_b) {
        assert!(passed < lease_ttl * 2, "ada is not on b after {passed:?}");
        scene.b.app.update();
        scene.runtime.block_on(async { tokio::time::sleep(TICK).await });
        passed += TICK;
    }
    // Counted from when b has last seen it beat.
    assert!(
        passed >= lease_ttl - prompt("a").beat,
        "a had its lease for {passed:?}"
    );
    assert_eq!(scene.b.coins(on_b), Some(1));
}

#[test]
fn messages_that_get_lost_cost_time_and_nothing_else() {
    for op in [Op::Acquire, Op::Wish, Op::Wishes, Op::Withdraw, Op::Commit] {
        for fault in [
            Fault::Before,
            Fault::After,
            Fault::Late(SECOND),
            Fault::Late(SECOND / 50),
        ] {
            let (mut scene, _) = Scene::with_ada(412);
            for side in [&scene.a, &scene.b] {
                side.faults.fail_next(op, 2, fault);
            }
            let on_b = scene.b.app.join("ada");
            let took = scene.until("ada is on b", |scene| scene.b.has_session(on_b));
            assert!(took <= 4 * SECOND, "{op:?} {fault:?}: it took {took:?}");
            assert_eq!(scene.b.coins(on_b), Some(412), "{op:?} {fault:?}");
            scene.b.app.set(on_b, Coins(413));
            scene.run(5 * SECOND);
            assert!(scene.b.has_session(on_b), "{op:?} {fault:?}");
            scene.b.app.leave(on_b);
            scene.until("b has saved ada", |scene| scene.is_free("ada"));
            assert_eq!(scene.stored_coins("ada"), Some(Coins(413)), "{op:?} {fault:?}");
        }
    }
}

#[test]
fn a_store_that_goes_down_in_the_middle_holds_the_player_up_until_all_is_saved() {
    let (mut scene, on_a) = Scene::with_ada(412);
    let on_b = scene.b.app.join("ada");
    scene.until("a is asked", |scene| {
        scene.a.asked() == 1 || scene.b.has_session(on_b)
    });
    scene.a.faults.down();
    // Whatever was decided by then: b gets ada with everything, or not at all.
    scene.run(5 * SECOND);
    if scene.b.has_session(on_b) {
        assert_eq!(scene.b.coins(on_b), Some(412));
    } else {
        assert!(!scene.a.is_here(on_a));
        assert!(!scene.is_free("ada"), "nothing is released that isn't saved");
    }
    scene.a.faults.up();
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    assert_eq!(scene.b.coins(on_b), Some(412));
}

#[test]
fn while_a_server_can_not_see_its_wishes_it_gives_nobody_up() {
    let patient = ServerSettings {
        hand_off: HandOffSettings::default(),
        ..quick("a")
    };
    let mut scene = Scene::with(patient, prompt("b"));
    let on_a = scene.join_a("ada");
    scene.b.app.join("ada");
    scene.run(4 * SECOND);
    scene.a.faults.down();
    scene.run(10 * SECOND);
    assert_eq!(scene.a.asked(), 0, "who knows whether anybody still waits");
    assert!(scene.a.has_session(on_a));
}

#[test]
fn a_wish_that_arrives_a_session_too_late_is_about_nobody() {
    let mut scene = Scene::new();
    let first = scene.join_a("ada");
    // b's wish is on its way for two seconds; b's player leaves meanwhile, and ada joins a anew.
    scene.b.faults.fail_next(Op::Wish, 1, Fault::Late(2 * SECOND));
    scene.b.faults.fail_next(Op::Wish, 20, Fault::Before);
    let on_b = scene.b.app.join("ada");
    scene.run(SECOND / 2);
    scene.b.app.leave(on_b);
    scene.a.app.leave(first);
    scene.until("ada is free", |scene| scene.is_free("ada"));
    let second = scene.join_a("ada");
    scene.run(60 * SECOND);
    assert_eq!(scene.a.asked(), 0);
    assert!(scene.a.has_session(second));
}

#[test]
fn what_was_seen_a_moment_ago_is_not_held_against_the_next_session() {
    // A server that looks so rarely that it knows of the wish long after it was taken back.
    let mut drowsy = prompt("a");
    drowsy.hand_off.poll = 2 * SECOND;
    let mut scene = Scene::with(drowsy, prompt("b"));
    scene.a.game().keeps = true;
    let first = scene.join_a("ada");
    let on_b = scene.b.app.join("ada");
    scene.until("a is asked", |scene| scene.a.asked() == 1);
    scene.b.app.leave(on_b);
    scene.run(TICK * 3);
    scene.a.app.leave(first);
    scene.a.game().keeps = false;
    let second = scene.join_a("ada");
    scene.run(5 * SECOND);
    assert_eq!(scene.a.asked(), 1);
    assert!(scene.a.has_session(second));
}

#[test]
fn who_comes_back_at_once_is_not_taken_by_the_wish_that_has_come_true() {
    let (mut scene, _) = Scene::with_ada(1);
    let on_b = scene.b.app.join("ada");
    scene.until("ada is on b", |scene| scene.b.has_session(on_b));
    scene.b.app.set(on_b, Coins(2));
    // The client goes back to a: b gives ada up, once, and a keeps her.
    let on_a = scene.a.app.join("ada");
    scene.until("ada is on a", |scene| scene.a.has_session(on_a));
    scene.run(20 * SECOND);
    assert!(scene.a.has_session(on_a));
    assert_eq!((scene.a.asked(), scene.b.asked()), (1, 1));
    assert_eq!(scene.a.coins(on_a), Some(2));
}

#[test]
fn a_server_that_dies_while_it_waits_takes_nobody_along() {
    let patient = ServerSettings {
        hand_off: HandOffSettings {
            min_session: 60 * SECOND,
            ..default()
        },
        ..quick("a")
    };
    let mut scene = Scene::with(patient, prompt("b"));
    let on_a = scene.join_a("ada");
    scene.b.app.join("ada");
    scene.run(SECOND);
    // A crash, which withdraws nothing; and another server takes its place.
    let other = Side::new(&scene.runtime, &scene.rows, prompt("c"));
    drop(std::mem::replace(&mut scene.b, other));
    scene.run(100 * SECOND);
    assert!(scene.a.has_session(on_a));
    assert_eq!(scene.a.asked(), 0);
}

#[test]
fn players_who_hop_for_ever_on_a_bad_store_lose_nothing() {
    for seed in 1..=3 {
        follow_seed(Some(seed));
        hop_on_a_bad_store(seed);
    }
    follow_seed(None);
}

fn hop_on_a_bad_store(seed: u64) {
    let mut scene = Scene::new();
    let rates = FaultRates {
        before: 0.05,
        after: 0.05,
        late: 0.05,
        late_by: SECOND / 100..=SECOND,
        latency: Duration::ZERO..=SECOND / 50,
    };
    for side in [&scene.a, &scene.b] {
        side.faults.set_rates(rates.clone());
    }
    let names = ["ada", "bob", "eve", "kim"];
    let mut players: Vec<Entity> = names.map(|name| scene.a.app.join(name)).into();
    let mut coins = [0; 4];
    for hop in 0..60 {
        let is_on_a = hop % 2 == 0;
        scene.until(&format!("all have made hop {hop} with seed {seed}"), |scene| {
            let here = if is_on_a { &scene.a } else { &scene.b };
            players.iter().all(|&entity| here.has_session(entity))
        });
        let (here, there) = if is_on_a {
            (&mut scene.a, &mut scene.b)
        } else {
            (&mut scene.b, &mut scene.a)
        };
        for (n, player) in players.iter_mut().enumerate() {
            assert_eq!(
                here.coins(*player),
                Some(coins[n]),
                "{} on hop {hop}, seed {seed}",
                names[n]
            );
            coins[n] += 1;
            here.app.set(*player, Coins(coins[n]));
            *player = there.app.join(names[n]);
        }
    }
    let stats = *scene.a.app.world().resource::<ServerStats>();
    assert!(stats.hand_offs >= 100, "{stats:?}");
}
