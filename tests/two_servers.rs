//! Two servers, one store: a player is in one session at a time, whoever crashes, pauses or steals.

#[path = "support/server.rs"]
mod support;

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    session::{Attempts, RetryPolicy},
    testing::{Fault, FaultyStore, Op},
};
use support::*;

/// Times short enough for a test, with the proportions of the defaults.
fn hasty(name: &str) -> ServerSettings {
    ServerSettings {
        beat: Duration::from_millis(100),
        lease_ttl: Duration::from_millis(600),
        exit_deadline: Duration::from_millis(500),
        load_timeout: Duration::from_secs(20),
        ..quick(name)
    }
}

/// Updates all servers in turn, as if each were a process of its own, until `condition` holds.
#[track_caller]
fn until_all(apps: &mut [&mut App], what: &str, mut condition: impl FnMut(&mut [&mut App]) -> bool) {
    let started = std::time::Instant::now();
    while !condition(apps) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "waited in vain until {what}"
        );
        for app in apps.iter_mut() {
            app.update();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn has_session(app: &App, entity: Entity) -> bool {
    app.world().get::<PlayerSession>(entity).is_some()
}

#[test]
fn a_player_in_a_session_elsewhere_can_not_be_loaded_before_it_has_ended() {
    let store = Rows::default();
    let mut a = server(store.connect(), quick("a"));
    let mut b = server(
        store.connect(),
        ServerSettings {
            load_timeout: Duration::from_millis(300),
            ..quick("b")
        },
    );
    let on_a = a.join_and_load("ada");
    a.set(on_a, Coins(3));

    let on_b = b.join("ada");
    until_all(&mut [&mut a, &mut b], "b's load has failed", |apps| {
        apps[1].world().get::<PlayerFallback>(on_b).is_some()
    });
    let reason = b.component::<PlayerFallback>(on_b).unwrap().reason().clone();
    assert_eq!(
        reason,
        LoadError::SessionLocked {
            server: "a".to_owned()
        }
    );
    b.set(on_b, Coins(1_000_000));
    b.leave(on_b);

    assert_eq!(a.save(on_a, "ada"), Ok(()), "the holder was not disturbed");
    assert_eq!(a.leave_and_save(on_a, "ada"), Ok(()));
    let on_b = b.join_and_load("ada");
    assert_eq!(b.component::<Coins>(on_b), Some(Coins(3)), "b has a's last data");
}

#[test]
fn a_load_waits_for_the_other_session_to_end() {
    let store = Rows::default();
    let mut a = server(store.connect(), quick("a"));
    let mut b = server(store.connect(), quick("b"));
    let on_a = a.join_and_load("ada");
    a.set(on_a, Coins(3));
    let on_b = b.join("ada");
    for _ in 0..50 {
        a.update();
        b.update();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(b.component::<PlayerLoading>(on_b).is_some());
    a.leave(on_a);
    until_all(&mut [&mut a, &mut b], "b has the session", |apps| {
        has_session(apps[1], on_b)
    });
    assert_eq!(b.component::<Coins>(on_b), Some(Coins(3)));
}

#[test]
fn a_crashed_servers_player_is_taken_over_once_its_lease_has_lapsed_with_what_it_last_saved() {
    let store = Rows::default();
    let mut a = server(store.connect(), hasty("a"));
    let on_a = a.join_and_load("ada");
    a.set(on_a, Coins(3));
    assert_eq!(a.save(on_a, "ada"), Ok(()));
    a.set(on_a, Coins(4)); // never saved
    drop(a);
    assert!(
        is_locked(&store, "ada"),
        "a dropped world is a crash, which gives nothing back"
    );

    let mut b = server(store.connect(), hasty("b"));
    let on_b = b.join_and_load("ada");
    assert_eq!(b.component::<Coins>(on_b), Some(Coins(3)));
}

#[test]
fn a_server_restarted_under_its_name_takes_up_its_crashed_predecessors_players_at_once() {
    let store = Rows::default();
    let mut a = server(store.connect(), quick("a"));
    let on_a = a.join_and_load("ada");
    a.set(on_a, Coins(3));
    assert_eq!(a.save(on_a, "ada"), Ok(()));
    drop(a);

    // With the default TTL of 30 s, so that only the name can explain a quick load.
    let started = std::time::Instant::now();
    let mut again = server(store.connect(), quick("a"));
    let ada = again.join_and_load("ada");
    assert_eq!(again.component::<Coins>(ada), Some(Coins(3)));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "it waited for the lease to lapse"
    );
}

#[test]
fn two_live_servers_with_one_name_end_the_second_and_leave_the_first_alone() {
    let store = Rows::default();
    let mut first = server(store.connect(), hasty("a"));
    let ada = first.join_and_load("ada");
    let mut second = server(store.connect(), hasty("a"));
    let bob = second.join("bob");
    until_all(&mut [&mut first, &mut second], "the second gives up", |apps| {
        apps[1].should_exit().is_some()
    });
    assert!(second.should_exit().unwrap().is_error());
    assert!(!has_session(&second, bob));
    first.set(ada, Coins(1));
    assert_eq!(first.save(ada, "ada"), Ok(()));
}

#[test]
fn a_paused_server_that_comes_back_changes_nothing_and_hears_once_that_it_lost_the_lock() {
    let store = Rows::default();
    let mut a = server(store.connect(), hasty("a"));
    let on_a = a.join_and_load("ada");
    a.set(on_a, Coins(3));
    assert_eq!(a.save(on_a, "ada"), Ok(()));

    // a stops being updated: as with SIGSTOP, or a game loop that hangs.
    let mut b = server(store.connect(), hasty("b"));
    let on_b = b.join_and_load("ada");
    b.set(on_b, Coins(10));
    assert_eq!(b.save(on_b, "ada"), Ok(()));
    let before = row(&store, "ada").unwrap();

    // a wakes up and saves as if nothing had happened, several times over.
    a.forget();
    a.set(on_a, Coins(4));
    for _ in 0..3 {
        a.world_mut().trigger(SavePlayer { entity: on_a });
    }
    a.world_mut().flush();
    a.until_heard("a hears that its session is over", |told| {
        matches!(told, Told::Ended { .. })
    });
    for _ in 0..50 {
        a.update();
        std::thread::sleep(Duration::from_millis(1));
    }
    let ended: Vec<_> = a
        .heard()
        .into_iter()
        .filter(|told| matches!(told, Told::Ended { .. }))
        .collect();
    assert_eq!(
        ended,
        [Told::Ended {
            player: id("ada"),
            reason: SessionEnd::LockLost
        }]
    );
    assert!(
        a.world().get_entity(on_a).is_err(),
        "by default the player is despawned"
    );
    assert_eq!(
        row(&store, "ada").unwrap(),
        before,
        "b's data and lock are untouched"
    );

    b.set(on_b, Coins(11));
    assert_eq!(b.leave_and_save(on_b, "ada"), Ok(()));
}

#[test]
fn a_session_that_is_over_by_the_time_that_its_save_is_known_to_have_landed_ends() {
    let rows = Rows::default();
    let store = FaultyStore::new(rows.connect(), 7);
    let faults = store.faults();
    let patient = RetryPolicy {
        attempts: Attempts::Limited(100_000),
        ..hasty("a").retry
    };
    let mut a = server(
        store,
        ServerSettings {
            retry: patient,
            ..hasty("a")
        },
    );
    let on_a = a.join_and_load("ada");
    a.set(on_a, Coins(3));
    // It lands, its answer gets lost, and a is cut off until b has ada.
    faults.fail_next(Op::Commit, 1, Fault::After);
    faults.fail_next(Op::Commit, 100_000, Fault::Before);
    faults.fail_next(Op::Lease, 100_000, Fault::Before);
    a.world_mut().trigger(SavePlayer { entity: on_a });
    a.world_mut().flush();
    a.until("the save has landed", |_| faults.injected(Op::Commit) > 0);
    let mut b = server(rows.connect(), hasty("b"));
    let on_b = b.join_and_load("ada");
    assert_eq!(b.component::<Coins>(on_b), Some(Coins(3)));
    a.forget();
    faults.clear();
    let reason = SessionEnd::LockLost;
    a.until_heard("a hears that its session is over", |told| {
        *told
            == (Told::Ended {
                player: id("ada"),
                reason,
            })
    });
    assert!(
        a.heard()
            .iter()
            .any(|told| matches!(told, Told::Saved { result: Ok(()), .. })),
        "nothing is called lost: {:?}",
        a.heard()
    );
    assert_eq!(b.leave_and_save(on_b, "ada"), Ok(()));
}

#[test]
fn a_paused_server_that_comes_back_and_only_leaves_changes_nothing() {
    let store = Rows::default();
    let mut a = server(store.connect(), hasty("a"));
    let on_a = a.join_and_load("ada");
    let mut b = server(store.connect(), hasty("b"));
    let on_b = b.join_and_load("ada");
    b.set(on_b, Coins(10));
    assert_eq!(b.save(on_b, "ada"), Ok(()));
    let before = row(&store, "ada").unwrap();
    a.set(on_a, Coins(4));
    assert_eq!(a.leave_and_save(on_a, "ada"), Err(SaveError::LockLost));
    assert_eq!(row(&store, "ada").unwrap(), before);
}

#[test]
fn a_game_may_keep_a_player_whose_session_was_taken_on_data_that_is_never_saved() {
    let store = Rows::default();
    let keep = ServerSettings {
        on_session_lost: OnSessionLost::KeepAsFallback,
        ..hasty("a")
    };
    let mut a = server(store.connect(), keep);
    let on_a = a.join_and_load("ada");
    let mut b = server(store.connect(), hasty("b"));
    let on_b = b.join_and_load("ada");
    a.set(on_a, Coins(4));
    a.world_mut().trigger(SavePlayer { entity: on_a });
    a.until("the player is on unsaved data", |world| {
        world.entity(on_a).contains::<PlayerFallback>()
    });
    assert!(!has_session(&a, on_a), "a player is in exactly one state");
    assert_eq!(a.save(on_a, "ada"), Err(SaveError::NoSession));
    a.exit();
    assert_eq!(b.leave_and_save(on_b, "ada"), Ok(()));
    assert_eq!(
        stored_value::<Coins>(&store, "ada"),
        Some(Coins(0)),
        "a's data was saved after all"
    );
}

#[test]
fn a_game_that_loads_a_player_anew_whose_session_was_taken_is_not_put_on_unsaved_data() {
    let store = Rows::default();
    let keep = ServerSettings {
        on_session_lost: OnSessionLost::KeepAsFallback,
        ..hasty("a")
    };
    let mut a = server(store.connect(), keep);
    a.add_observer(|on: On<PlayerSessionEnded>, mut commands: Commands| {
        commands.entity(on.entity).insert(PersistentPlayer(on.player));
    });
    let on_a = a.join_and_load("ada");
    let mut b = server(store.connect(), hasty("b"));
    let on_b = b.join_and_load("ada");
    b.set(on_b, Coins(10));
    a.world_mut().trigger(SavePlayer { entity: on_a });
    a.until("the player is loaded anew", |world| {
        world.entity(on_a).contains::<PlayerLoading>()
    });
    assert!(!a.world().entity(on_a).contains::<PlayerFallback>());
    assert_eq!(b.leave_and_save(on_b, "ada"), Ok(()));
    a.until("the player is in a session", |world| {
        let entity = world.entity(on_a);
        assert!(
            !entity.contains::<PlayerFallback>(),
            "a player is in exactly one state"
        );
        entity.contains::<PlayerSession>()
    });
    assert_eq!(a.component::<Coins>(on_a), Some(Coins(10)));
}

#[test]
fn a_second_server_of_the_same_name_ends_with_an_error_and_the_first_goes_on() {
    let store = Rows::default();
    let mut first = server(store.connect(), hasty("a"));
    let ada = first.join_and_load("ada");
    let mut second = server(store.connect(), hasty("a"));
    until_all(&mut [&mut first, &mut second], "the second one ends", |apps| {
        apps[1].should_exit() == Some(AppExit::error())
    });
    first.set(ada, Coins(4));
    assert_eq!(first.leave_and_save(ada, "ada"), Ok(()));
}

#[test]
fn of_two_servers_that_ask_at_once_one_gets_the_session_and_the_other_a_clean_answer() {
    let store = Rows::default();
    let impatient = |name: &str| ServerSettings {
        load_timeout: Duration::from_millis(200),
        ..quick(name)
    };
    let mut a = server(store.connect(), impatient("a"));
    let mut b = server(store.connect(), impatient("b"));
    for name in ["ada", "bob", "eve", "kim"] {
        let (on_a, on_b) = (a.join(name), b.join(name));
        until_all(&mut [&mut a, &mut b], "both have an answer", |apps| {
            apps[0].world().get::<PlayerLoading>(on_a).is_none()
                && apps[1].world().get::<PlayerLoading>(on_b).is_none()
        });
        assert_ne!(
            has_session(&a, on_a),
            has_session(&b, on_b),
            "{name} is in exactly one session"
        );
    }
}
