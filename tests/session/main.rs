//! Sessions against a store that fails, loses replies and answers late: who may write, in which order, and what stays
//! behind.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod delays;
mod fate;
mod together;
mod wire;
mod wishes;

use std::{path::Path, sync::Arc, time::Duration};

use bevy_player_data::{
    PlayerId,
    document::{Document, Entry, StoredValue},
    session::{
        Attempts, LeaseState, OpenError, Opened, Opening, RetryPolicy, SaveError, Saved, Session,
        SessionSettings, Sessions,
    },
    store::{Acquire, Lease, LockId, MemoryStore, Record, ServerId, Store, Then, Write},
};
use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use wire::{Fault, Op, Wire};

const SECOND: Duration = Duration::from_secs(1);

// Queue: scenarios 1 to 6.

#[tokio::test(start_paused = true)]
async fn a_save_that_fails_for_a_moment_is_not_overtaken_by_the_next() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Fail, Fault::Fail]);
    let first = save(&mut ada, 1);
    let second = save(&mut ada, 2);
    assert!(first.answer().await.is_ok() && second.answer().await.is_ok());
    assert_eq!(arena.stored("ada").await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_player_whose_save_is_backing_off_does_not_hold_another_up() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    let mut bob = arena.join("bob").await;
    arena.wire.script(Op::Commit, [Fault::Fail; 4]);
    let failing = save(&mut ada, 1);
    sleep(SECOND / 100).await;
    arena.wire.script(Op::Commit, []);
    let start = Instant::now();
    save(&mut bob, 2).answer().await.expect("bob's save lands");
    assert!(start.elapsed() < SECOND / 20, "bob waited {:?}", start.elapsed());
    assert_eq!(arena.stored("ada").await, None, "ada's save is still backing off");
    failing.answer().await.expect("ada's save lands later");
}

#[tokio::test(start_paused = true)]
async fn a_close_is_not_merged_into_the_save_that_is_running() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Slow(SECOND)]);
    let running = save(&mut ada, 1);
    sleep(SECOND / 2).await;
    let closing = close(ada, 2);
    assert!(running.answer().await.expect("the save lands").written);
    assert!(closing.answer().await.expect("the close lands").written);
    assert_eq!(arena.stored("ada").await, Some(2));
    assert!(arena.is_free("ada").await);
}

#[tokio::test(start_paused = true)]
async fn a_save_into_a_dead_store_ends_after_its_attempts_and_the_next_one_runs() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Fail; ATTEMPTS as usize]);
    let first = save(&mut ada, 1);
    let second = save(&mut ada, 2);
    let error = first.answer().await.expect_err("the store is down");
    assert!(
        matches!(&error, SaveError::Unavailable { message, .. } if message.contains("scripted")),
        "{error}"
    );
    second.answer().await.expect("the store is back");
    assert_eq!(arena.wire.calls(Op::Commit), ATTEMPTS as usize + 1);
    assert_eq!(arena.stored("ada").await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_the_last_of_ten_saves_runs_and_the_others_hear_that_they_were_skipped() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    let mut saves: Vec<_> = (1..=10).map(|n| save(&mut ada, n)).collect();
    assert_eq!((arena.sessions.queue_len(player("ada")), ada.pending()), (10, 10));
    arena.sessions.skip_all_to_last();
    let last = saves.pop().expect("ten saves");
    for skipped in saves {
        assert_eq!(
            skipped.answer().await,
            Err(SaveError::Skipped {
                player: player("ada")
            })
        );
    }
    last.answer().await.expect("the last save lands");
    arena.sessions.drained().await;
    assert_eq!((arena.wire.calls(Op::Commit), ada.pending()), (1, 0));
    assert_eq!(arena.stored("ada").await, Some(10));
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_close_runs_even_with_a_rejoin_behind_it_and_the_rejoin_is_cancelled() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    let last_save = save(&mut ada, 1);
    let closing = close(ada, 2);
    let (_opening, rejoin) = open(&arena.sessions, "ada");
    arena.sessions.skip_all_to_last();
    assert_eq!(
        last_save.answer().await,
        Err(SaveError::Skipped {
            player: player("ada")
        })
    );
    assert_eq!(
        rejoin.answer().await.err(),
        Some(OpenError::Cancelled {
            player: player("ada")
        })
    );
    closing.answer().await.expect("the close lands");
    assert_eq!(
        (arena.stored("ada").await, arena.is_free("ada").await),
        (Some(2), true)
    );
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_close_that_is_backing_off_tries_again_at_once() {
    let mut settings = settings("arena");
    settings.retry.first = 60 * SECOND;
    settings.retry.max = 60 * SECOND;
    let arena = Server::start_with(settings, MemoryStore::default()).await;
    let ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Fail]);
    let start = Instant::now();
    let closing = close(ada, 1);
    sleep(SECOND).await;
    arena.sessions.skip_all_to_last();
    closing.answer().await.expect("the close lands");
    assert!(start.elapsed() < 2 * SECOND, "it waited {:?}", start.elapsed());
}

// Locks: scenarios 7 to 14.

#[tokio::test(start_paused = true)]
async fn a_player_in_a_session_is_locked_elsewhere_until_it_is_closed() {
    let (a, b) = two_servers().await;
    let mut ada = a.join("ada").await;
    let locked = || OpenError::SessionLocked {
        player: player("ada"),
        server: "a".to_owned(),
    };
    assert_eq!(b.try_join("ada").await.err(), Some(locked()));
    save(&mut ada, 1).answer().await.expect("a saves");
    assert_eq!(b.try_join("ada").await.err(), Some(locked()));
    let (_opening, waiting) = open(&b.sessions, "ada");
    sleep(SECOND).await;
    close(ada, 2).answer().await.expect("a closes");
    let closed = Instant::now();
    let opened = waiting.answer().await.expect("the lock is free");
    assert!(
        closed.elapsed() <= 3 * SECOND / 2,
        "it waited {:?} for a free lock",
        closed.elapsed()
    );
    assert_eq!(
        (coins(&opened.document), opened.first_join, opened.taken_from),
        (Some(2), false, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_crashed_server_keeps_its_players_until_its_lease_lapses_and_then_loses_what_it_had_not_saved() {
    let (a, b) = two_servers().await;
    let mut ada = a.join("ada").await;
    save(&mut ada, 1).answer().await.expect("a saves");
    sleep(20 * SECOND).await;
    a.crash();
    let crashed = Instant::now();
    let early = b.try_join_within("ada", 5 * SECOND).await;
    assert_eq!(
        early.err(),
        Some(OpenError::SessionLocked {
            player: player("ada"),
            server: "a".to_owned()
        })
    );
    let opened = b
        .try_join("ada")
        .await
        .expect("the lease lapses before the load times out");
    assert!(
        crashed.elapsed() >= 20 * SECOND,
        "taken over after {:?}",
        crashed.elapsed()
    );
    assert_eq!(
        (coins(&opened.document), opened.taken_from.as_deref()),
        (Some(1), Some("a"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lost_a_lock_changes_nothing_and_asks_the_store_only_once() {
    let (a, b) = two_servers().await;
    let mut ada = a.join("ada").await;
    save(&mut ada, 1).answer().await.expect("a saves");
    a.hang();
    let mut taken = b.try_join("ada").await.expect("the lease lapsed");
    save(&mut taken.session, 7).answer().await.expect("b saves");
    let before = b.record("ada").await;
    let commits = a.wire.calls(Op::Commit);

    let lost = SaveError::LockLost {
        player: player("ada"),
    };
    let (first, second) = (save(&mut ada, 2), save(&mut ada, 3));
    assert_eq!(first.answer().await, Err(lost.clone()));
    assert!(ada.is_over());
    assert_eq!(second.answer().await, Err(lost.clone()));
    assert_eq!(close(ada, 4).answer().await, Err(lost));
    assert_eq!(
        a.wire.calls(Op::Commit),
        commits + 1,
        "a lost session went on asking the store"
    );
    assert_eq!(b.record("ada").await, before);
    close(taken.session, 8)
        .answer()
        .await
        .expect("b still holds the lock");
}

#[tokio::test(start_paused = true)]
async fn a_close_after_the_lock_was_lost_is_refused_and_changes_nothing() {
    let (a, b) = two_servers().await;
    let ada = a.join("ada").await;
    a.hang();
    let taken = b.try_join("ada").await.expect("the lease lapsed");
    let before = b.record("ada").await;
    assert_eq!(
        close(ada, 2).answer().await,
        Err(SaveError::LockLost {
            player: player("ada")
        })
    );
    assert_eq!(b.record("ada").await, before);
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn of_two_servers_that_ask_at_once_one_gets_the_player_and_the_other_a_clean_answer() {
    let (a, b) = two_servers().await;
    let ((_a, at_a), (_b, at_b)) = (open(&a.sessions, "ada"), open(&b.sessions, "ada"));
    let answers = [at_a.answer().await, at_b.answer().await];
    let ([Ok(winner), Err(OpenError::SessionLocked { server, .. })]
    | [Err(OpenError::SessionLocked { server, .. }), Ok(winner)]) = &answers
    else {
        panic!("not one winner and one clean answer: {answers:?}");
    };
    let held_by = a.record("ada").await.lock.and_then(|holder| holder.name);
    assert_eq!(held_by.as_ref(), Some(server));
    assert!(!winner.session.is_over());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_slept_past_its_lease_finds_its_late_write_refused() {
    let rows = MemoryStore::default();
    let mut stopping = settings("a");
    // A process that is stopped doesn't time out either.
    stopping.retry.attempt_timeout = 3600 * SECOND;
    let a = Server::start_with(stopping, rows.connect()).await;
    let b = Server::start_with(settings("b"), rows.connect()).await;
    let mut ada = a.join("ada").await;
    a.wire.script(Op::Commit, [Fault::Slow(120 * SECOND)]);
    let stopped = save(&mut ada, 2);
    a.hang();
    let taken = b.try_join("ada").await.expect("the lease lapsed");
    close(taken.session, 7)
        .answer()
        .await
        .expect("b saves and closes");
    sleep(150 * SECOND).await;
    assert_eq!(
        stopped.answer().await,
        Err(SaveError::LockLost {
            player: player("ada")
        })
    );
    assert_eq!(b.stored("ada").await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_not_taken_from_a_server_that_beats_however_long_it_holds_it() {
    let (a, b) = two_servers().await;
    let mut ada = a.join("ada").await;
    sleep(3600 * SECOND).await;
    assert!(matches!(
        b.try_join("ada").await,
        Err(OpenError::SessionLocked { .. })
    ));
    save(&mut ada, 1).answer().await.expect("a still holds the lock");
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_could_not_reach_the_store_does_not_call_a_lease_lapsed() {
    let (a, b) = two_servers().await;
    let _ada = a.join("ada").await;
    a.wire.down(true);
    b.wire.down(true);
    sleep(300 * SECOND).await;
    b.wire.down(false);
    let (_opening, loading) = open(&b.sessions, "ada");
    // The outage ends a little later for a.
    sleep(15 * SECOND).await;
    a.wire.down(false);
    let answer = loading.answer().await;
    assert!(
        matches!(answer, Err(OpenError::SessionLocked { .. })),
        "{answer:?}"
    );
}

#[test]
fn no_wall_clock_decides_anything() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join("session.rs")];
    let mut folders = vec![src.join("session")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 10, "these are not all the files");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for clock in ["SystemTime", "UNIX_EPOCH", "saved_at", "created_at"] {
            assert!(!text.contains(clock), "{} reads `{clock}`", file.display());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_cannot_be_decoded_stay_as_they_are_and_no_lock_stays_behind() {
    let arena = Server::start("arena").await;
    let bytes = Bytes::from_static(b"not a document");
    arena.store_bytes("ada", &bytes).await;
    for fault in [Fault::Fail, Fault::Damage] {
        arena.wire.script(Op::Commit, [fault]);
        let error = arena
            .try_join("ada")
            .await
            .expect_err("the bytes are no document");
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        let record = arena.record("ada").await;
        assert_eq!((record.lock, record.document), (None, Some(bytes.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_under_the_same_name_has_its_crashed_predecessors_players_at_once() {
    let rows = MemoryStore::default();
    let old = Server::start_with(settings("arena"), rows.connect()).await;
    let mut ada = old.join("ada").await;
    save(&mut ada, 1).answer().await.expect("saved");
    std::mem::forget(ada); // A crash runs no destructors…
    old.wire.cut(); // …and reaches no store.
    let start = Instant::now();
    let new = Server::start_with(settings("arena"), rows.connect()).await;
    let opened = new.try_join("ada").await.expect("the predecessor is dead");
    assert_eq!(coins(&opened.document), Some(1));
    assert!(start.elapsed() < SECOND, "it took {:?}", start.elapsed());
}

/// As on a database, which doesn't know of a process that it is gone.
#[tokio::test(start_paused = true)]
async fn a_restart_outlasts_the_lease_of_a_predecessor_that_nothing_proves_dead_however_long_that_is() {
    for failed_beats in [0, 150] {
        let patient = SessionSettings {
            lease_ttl: 120 * SECOND,
            load_timeout: 600 * SECOND,
            ..settings("arena")
        };
        let rows = MemoryStore::default();
        let old = Server::start_with(patient.clone(), rows.connect()).await;
        let mut ada = old.join("ada").await;
        save(&mut ada, 1).answer().await.expect("saved");
        std::mem::forget(ada);
        old.hang();
        let new = Server::prepare(patient, rows.connect());
        new.wire.succeeds(&old.wire);
        let (_opening, loading) = open(&new.sessions, "ada");
        sleep(100 * SECOND).await;
        // An outage, after which what was seen before proves nothing.
        new.wire.script(Op::Lease, vec![Fault::Fail; failed_beats]);
        let opened = loading.answer().await.expect("the old lease lapses");
        assert_eq!(
            coins(&opened.document),
            Some(1),
            "after {failed_beats} failed beats"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_predecessor_is_still_flushing_waits_and_loses_nothing() {
    let rows = MemoryStore::default();
    let old = Server::start_with(settings("arena"), rows.connect()).await;
    let ada = old.join("ada").await;
    let start = Instant::now();
    let new = Server::prepare(settings("arena"), rows.connect());
    let (_opening, loading) = open(&new.sessions, "ada");
    sleep(5 * SECOND).await;
    assert_eq!(new.sessions.status().state, LeaseState::WaitingForName);

    // It saves for as long as it may, and goes on beating so that nobody takes over meanwhile.
    old.wire.script(Op::Commit, [Fault::Fail; 8]);
    let flushed = close(ada, 2);
    assert_eq!(flushed.answer().await.map(|saved| saved.written), Ok(true));
    assert!(
        start.elapsed() > 2 * settings("arena").beat,
        "it has beaten twice"
    );
    assert_eq!(new.sessions.status().state, LeaseState::WaitingForName);
    old.hang();
    old.sessions.shutdown().await.expect("the store is there");
    let opened = loading.answer().await.expect("the predecessor has ended");
    assert_eq!((coins(&opened.document), opened.taken_from), (Some(2), None));
    assert_eq!(new.sessions.status().state, LeaseState::Held);
}

#[tokio::test(start_paused = true)]
async fn a_second_running_server_of_one_name_is_refused_and_so_are_its_loads() {
    let rows = MemoryStore::default();
    let _first = Server::start_with(settings("arena"), rows.connect()).await;
    let second = Server::prepare(settings("arena"), rows.connect());
    let SessionSettings { lease_ttl, beat, .. } = settings("arena");
    sleep(lease_ttl + 2 * beat).await;
    assert_eq!(
        second.sessions.status().state,
        LeaseState::WaitingForName,
        "the first one may be about to end"
    );
    let (_opening, loading) = open(&second.sessions, "ada");
    let refused = OpenError::Refused {
        player: player("ada"),
        name: "arena".to_owned(),
    };
    assert_eq!(loading.answer().await.err(), Some(refused));
    assert_eq!(second.sessions.status().state, LeaseState::Refused);
    assert_eq!(
        second
            .try_join("bob")
            .await
            .err()
            .map(|error| error.to_string().contains("`arena`")),
        Some(true)
    );
}

// Late and unknown: scenarios 43 and 44.

#[tokio::test(start_paused = true)]
async fn a_commit_whose_reply_was_lost_lands_once_and_succeeds() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    arena
        .wire
        .script(Op::Commit, [Fault::LoseReply, Fault::LoseReply]);
    let saved = save(&mut ada, 1)
        .answer()
        .await
        .expect("the third attempt is answered");
    assert_eq!(
        (saved.version, arena.record("ada").await.version),
        (1, 1),
        "one effect"
    );
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_arrives_after_a_newer_one_has_no_effect() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    let faults = [Fault::Late(30 * SECOND); ATTEMPTS as usize];
    arena.wire.script(Op::Commit, faults);
    save(&mut ada, 1)
        .answer()
        .await
        .expect_err("no attempt was answered");
    save(&mut ada, 2).answer().await.expect("saved");
    sleep(60 * SECOND).await;
    assert_eq!(
        arena.wire.landed_late(),
        ATTEMPTS as usize,
        "the late attempts did arrive"
    );
    assert_eq!(arena.stored("ada").await, Some(2));
    assert_eq!(arena.record("ada").await.version, 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_whose_reply_was_lost_succeeds_and_its_late_copies_do_not_touch_the_next_session() {
    let arena = Server::start("arena").await;
    let ada = arena.join("ada").await;
    arena
        .wire
        .script(Op::Commit, [Fault::Late(30 * SECOND), Fault::LoseReply]);
    close(ada, 1).answer().await.expect("closed");
    let mut again = arena.join("ada").await;
    save(&mut again, 2).answer().await.expect("saved");
    sleep(60 * SECOND).await;
    assert_eq!(
        (arena.stored("ada").await, arena.is_free("ada").await),
        (Some(2), false)
    );
    save(&mut again, 3)
        .answer()
        .await
        .expect("the lock is still ours");
}

#[tokio::test(start_paused = true)]
async fn an_acquire_whose_reply_was_lost_leaves_no_lock_when_the_player_leaves() {
    let arena = Server::start("arena").await;
    arena
        .wire
        .script(Op::Acquire, [Fault::LoseReply, Fault::Fail, Fault::Fail]);
    let (opening, loading) = open(&arena.sessions, "ada");
    sleep(SECOND / 100).await;
    assert!(!arena.is_free("ada").await, "the lost attempt took the lock");
    opening.cancel();
    assert_eq!(
        loading.answer().await.err(),
        Some(OpenError::Cancelled {
            player: player("ada")
        })
    );
    arena.sessions.drained().await;
    assert!(arena.is_free("ada").await);
}

#[tokio::test(start_paused = true)]
async fn a_rejoin_behind_a_lost_acquire_never_meets_our_own_lock() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::LoseReply]);
    let (opening, _) = open(&arena.sessions, "ada");
    sleep(SECOND / 100).await;
    opening.cancel();
    let (_opening, rejoin) = open(&arena.sessions, "ada");
    let opened = rejoin.answer().await.expect("the lock was given back");
    assert_eq!(opened.taken_from, None, "given back rather than taken over");
    assert_eq!(arena.wire.refusals(), 0, "the rejoin met a lock");
}

#[tokio::test(start_paused = true)]
async fn an_acquire_that_takes_effect_long_after_the_player_left_leaves_no_lock() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::Late(25 * SECOND)]);
    let (opening, _) = open(&arena.sessions, "ada");
    sleep(SECOND / 100).await;
    opening.cancel();
    arena.sessions.drained().await;
    assert!(arena.is_free("ada").await);
    sleep(26 * SECOND).await;
    assert_eq!(arena.wire.landed_late(), 1);
    sleep(10 * SECOND).await;
    assert!(
        arena.is_free("ada").await,
        "the lock that was granted late is still there"
    );
}

#[tokio::test(start_paused = true)]
async fn players_are_loaded_while_the_answers_to_beats_get_lost() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Lease, [Fault::LoseReply; 6]);
    sleep(55 * SECOND).await;
    let asked = Instant::now();
    let ada = arena.join("ada").await;
    assert!(
        asked.elapsed() < SECOND,
        "the load waited for a beat to be answered"
    );
    close(ada, 1).answer().await.expect("closed");
}

#[tokio::test(start_paused = true)]
async fn an_acquire_that_reaches_the_store_hours_later_locks_nobody() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::Late(7200 * SECOND)]);
    let (opening, _) = open(&arena.sessions, "ada");
    sleep(SECOND / 100).await;
    opening.cancel();
    arena.sessions.drained().await;
    sleep(7201 * SECOND).await;
    assert_eq!(arena.wire.landed_late(), 1);
    assert!(
        arena.is_free("ada").await,
        "a lock that nobody will ever give back was granted to a server that runs"
    );
}

#[tokio::test(start_paused = true)]
async fn an_acquire_that_takes_effect_after_its_own_session_was_closed_leaves_no_lock() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::Late(15 * SECOND)]);
    let ada = arena.join("ada").await;
    close(ada, 1).answer().await.expect("closed");
    sleep(26 * SECOND).await;
    assert_eq!(arena.wire.landed_late(), 1);
    assert_eq!(
        (arena.stored("ada").await, arena.is_free("ada").await),
        (Some(1), true)
    );
}

#[tokio::test(start_paused = true)]
async fn looking_for_late_locks_leaves_a_session_alone_whose_acquire_needed_a_second_attempt() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::LoseReply]);
    let mut ada = arena.join("ada").await;
    sleep(60 * SECOND).await;
    assert!(
        !arena.is_free("ada").await,
        "the lock of a live session was given back"
    );
    save(&mut ada, 1).answer().await.expect("the lock is still ours");
    assert_eq!(arena.stored("ada").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_player_who_comes_back_before_a_late_lock_was_noticed_takes_it_over_at_once() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::Late(11 * SECOND)]);
    let (opening, _) = open(&arena.sessions, "ada");
    sleep(SECOND / 100).await;
    opening.cancel();
    while arena.wire.landed_late() == 0 {
        sleep(SECOND / 10).await;
    }
    assert!(!arena.is_free("ada").await);
    let start = Instant::now();
    let mut ada = arena.join("ada").await;
    assert!(start.elapsed() < SECOND, "it took {:?}", start.elapsed());
    sleep(60 * SECOND).await;
    save(&mut ada, 1)
        .answer()
        .await
        .expect("looking for the late lock left the new session alone");
}

// What a session promises beyond the scenarios.

#[tokio::test(start_paused = true)]
async fn a_load_waits_until_the_server_has_its_lease() {
    let arena = Server::prepare(settings("arena"), MemoryStore::default());
    arena.wire.down(true);
    let (_opening, loading) = open(&arena.sessions, "ada");
    sleep(23 * SECOND).await;
    assert_eq!(arena.sessions.status().state, LeaseState::Starting);
    assert_eq!(arena.wire.calls(Op::Acquire), 0);
    arena.wire.down(false);
    let start = Instant::now();
    loading.answer().await.expect("the store is back");
    assert!(start.elapsed() <= SECOND, "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_load_is_answered_when_its_time_is_up_whatever_its_slot_is_busy_with() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::Hang; 8]);
    let start = Instant::now();
    let (_opening, running) = open(&arena.sessions, "ada");
    let (_other, queued) = open(&arena.sessions, "ada");
    for loading in [running, queued] {
        let error = loading.answer().await.expect_err("the store hangs");
        assert!(matches!(error, OpenError::Unavailable { .. }), "{error}");
        assert_eq!(start.elapsed().as_secs(), 40);
    }
    arena.sessions.drained().await;
    assert!(arena.is_free("ada").await);
}

#[tokio::test(start_paused = true)]
async fn a_load_without_a_lease_says_what_the_store_said() {
    let arena = Server::prepare(settings("arena"), MemoryStore::default());
    arena.wire.down(true);
    let error = arena.try_join("ada").await.expect_err("the store is down");
    assert!(
        matches!(&error, OpenError::Unavailable { message, .. } if message.contains("scripted")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_load_gives_the_lock_back_before_anything_else_happens_to_the_player() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::Slow(SECOND)]);
    let (opening, loading) = open(&arena.sessions, "ada");
    sleep(SECOND / 2).await;
    drop(opening);
    assert_eq!(
        loading.answer().await.err(),
        Some(OpenError::Cancelled {
            player: player("ada")
        })
    );
    let opened = arena.try_join("ada").await.expect("the lock was given back");
    assert_eq!((opened.fence, opened.taken_from), (2, None));
    assert_eq!(arena.wire.refusals(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_never_started_never_reaches_the_store() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Commit, [Fault::Slow(SECOND)]);
    let _closing = close(arena.join("ada").await, 1);
    let (opening, loading) = open(&arena.sessions, "ada");
    opening.cancel();
    assert_eq!(
        arena.sessions.queue_len(player("ada")),
        1,
        "only the close is left"
    );
    assert!(loading.answer().await.is_err());
    arena.sessions.drained().await;
    assert_eq!(arena.wire.calls(Op::Acquire), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_join_waits_for_the_final_save_of_the_first() {
    let arena = Server::start("arena").await;
    let mut first = arena.join("ada").await;
    let (_second, joining) = open(&arena.sessions, "ada");
    let (_third, waiting) = open(&arena.sessions, "ada");
    sleep(SECOND).await;
    save(&mut first, 1)
        .answer()
        .await
        .expect("the older session still saves");
    arena.wire.script(Op::Commit, [Fault::Fail; 2]);
    let closing = close(first, 2);
    let second = joining.answer().await.expect("the older session was closed");
    closing.answer().await.expect("closed");
    assert_eq!(coins(&second.document), Some(2));
    let error = waiting
        .answer()
        .await
        .expect_err("the second session is still held");
    assert_eq!(
        error,
        OpenError::SessionLocked {
            player: player("ada"),
            server: "arena".to_owned()
        }
    );
    close(second.session, 3).answer().await.expect("closed");
    assert!(arena.is_free("ada").await);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_was_asked_for_before_the_session_waits_for_its_close_as_well() {
    let arena = Server::start("arena").await;
    let (closed, closing) = answer();
    let close_at_once = |opened: Result<Opened, OpenError>| {
        let session = opened.expect("the lock is free").session;
        session.close(Some(document(1).into()), closed);
    };
    let _first = arena.sessions.open(player("ada"), close_at_once);
    let (_second, loading) = open(&arena.sessions, "ada");
    let start = Instant::now();
    let opened = loading.answer().await.expect("the lock is given back");
    assert!(start.elapsed() < SECOND, "after {:?}", start.elapsed());
    assert_eq!(coins(&opened.document), Some(1));
    closing.answer().await.expect("closed");
}

/// The load's first attempt takes effect once the lock is free, when the load has given up that turn.
#[tokio::test(start_paused = true)]
async fn a_late_lock_of_a_load_that_waited_for_a_close_takes_no_save_back() {
    let arena = Server::start("arena").await;
    let (closed, closing) = answer();
    let close_at_once = |opened: Result<Opened, OpenError>| {
        let session = opened.expect("the lock is free").session;
        session.close(Some(document(1).into()), closed);
    };
    let late = Fault::Late(Duration::from_millis(180));
    arena.wire.script(Op::Acquire, [Fault::Pass, late]);
    // The close has landed by then, and nobody knows.
    arena.wire.script(Op::Commit, [Fault::LoseReply]);
    let _first = arena.sessions.open(player("ada"), close_at_once);
    let (_second, loading) = open(&arena.sessions, "ada");
    let mut opened = loading.answer().await.expect("the lock is given back");
    closing.answer().await.expect("closed");
    assert_eq!(arena.wire.landed_late(), 1, "or this tests nothing");
    sleep(30 * SECOND).await;
    for coins in [2, 3] {
        match save(&mut opened.session, coins).answer().await {
            Ok(_) => assert_eq!(
                arena.stored("ada").await,
                Some(coins),
                "what was acknowledged is stored"
            ),
            Err(error) => panic!("nobody has taken ada: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_gives_its_lock_back_without_saving() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    save(&mut ada, 1).answer().await.expect("saved");
    drop(ada);
    arena.sessions.drained().await;
    assert_eq!(
        (arena.stored("ada").await, arena.is_free("ada").await),
        (Some(1), true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_document_that_is_stored_already_is_not_written_again() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    assert!(save(&mut ada, 1).answer().await.expect("saved").written);
    assert!(!save(&mut ada, 1).answer().await.expect("stored already").written);
    assert_eq!(arena.wire.calls(Op::Commit), 1);
    close(ada, 1).answer().await.expect("closed");
    assert_eq!(
        arena.wire.documents_sent(),
        1,
        "the close only gave the lock back"
    );

    let mut again = arena.join("ada").await;
    assert!(!save(&mut again, 1).answer().await.expect("as loaded").written);
    assert!(save(&mut again, 2).answer().await.expect("saved").written);
}

#[tokio::test(start_paused = true)]
async fn whether_a_document_is_stored_already_is_judged_when_its_turn_comes() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    let saves: Vec<_> = [1, 2, 1].map(|n| save(&mut ada, n)).into();
    for saved in saves {
        assert!(saved.answer().await.expect("saved").written);
    }
    assert_eq!(arena.stored("ada").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_the_document_is_always_sent() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    save(&mut ada, 1).answer().await.expect("saved");
    arena
        .wire
        .script(Op::Commit, [Fault::LoseReply; ATTEMPTS as usize]);
    save(&mut ada, 2)
        .answer()
        .await
        .expect_err("no attempt was answered");
    assert_eq!(arena.stored("ada").await, Some(2), "it landed all the same");
    assert!(
        save(&mut ada, 1).answer().await.expect("saved").written,
        "the last acknowledged one, but not the last"
    );
    assert_eq!(arena.stored("ada").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_first_document_is_saved_even_if_it_is_empty() {
    let arena = Server::start("arena").await;
    let (_opening, loading) = open(&arena.sessions, "ada");
    let mut opened = loading.answer().await.expect("loaded");
    assert!(opened.first_join);
    let (done, saved) = answer();
    opened.session.save(Document::new(), done);
    assert!(saved.answer().await.expect("saved").written);
    drop(opened);
    assert!(!arena.try_join("ada").await.expect("loaded").first_join);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_save_leaves_the_session_and_a_rejected_close_gives_the_lock_back() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    save(&mut ada, 1).answer().await.expect("saved");
    arena.wire.script(
        Op::Commit,
        [Fault::Reject, Fault::Pass, Fault::Reject, Fault::Fail],
    );
    let error = save(&mut ada, 2).answer().await.expect_err("too large");
    assert!(matches!(error, SaveError::Rejected { .. }), "{error}");
    save(&mut ada, 3).answer().await.expect("a smaller save works");
    let error = close(ada, 4).answer().await.expect_err("too large");
    assert!(
        matches!(&error, SaveError::Rejected { message, .. } if message.contains("too large")),
        "{error}"
    );
    assert_eq!(
        (arena.stored("ada").await, arena.is_free("ada").await),
        (Some(3), true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_close_is_retried_for_as_long_as_the_store_is_down() {
    let arena = Server::start("arena").await;
    let ada = arena.join("ada").await;
    arena.wire.down(true);
    let closing = close(ada, 1);
    sleep(600 * SECOND).await;
    arena.wire.down(false);
    closing.answer().await.expect("closed");
    assert_eq!(
        (arena.stored("ada").await, arena.is_free("ada").await),
        (Some(1), true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_final_save_that_a_damaged_store_does_not_take_is_kept_until_it_is_mended() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Damage; 50]);
    let error = save(&mut ada, 1).answer().await.unwrap_err();
    assert!(
        matches!(&error, SaveError::Rejected { message, .. } if message.contains("corrupt: a bad page")),
        "{error}"
    );
    assert!(!ada.is_over());
    close(ada, 2).answer().await.expect("closed");
    assert_eq!(arena.wire.calls(Op::Commit), 51);
    assert_eq!(
        (arena.stored("ada").await, arena.is_free("ada").await),
        (Some(2), true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_store_does_not_hold_up_a_shutdown() {
    let arena = Server::start("arena").await;
    let ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Damage; 10_000]);
    let closing = close(ada, 2);
    sleep(100 * SECOND).await;
    arena.sessions.skip_all_to_last();
    let start = Instant::now();
    let error = closing.answer().await.unwrap_err();
    assert!(
        matches!(&error, SaveError::Rejected { message, .. } if message.contains("corrupt: a bad page")),
        "{error}"
    );
    arena.sessions.shutdown().await.expect("the store is there");
    assert!(start.elapsed() < SECOND, "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_counts_as_unavailable() {
    let arena = Server::start("arena").await;
    let mut ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Hang]);
    let start = Instant::now();
    save(&mut ada, 1)
        .answer()
        .await
        .expect("the second attempt lands");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_wedges_neither_the_player_nor_the_lease() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Lease, [Fault::Panic]);
    arena.wire.script(Op::Acquire, [Fault::Panic]);
    let mut ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::Panic]);
    let error = save(&mut ada, 1).answer().await.expect_err("the store panicked");
    assert!(
        matches!(&error, SaveError::Unavailable { message, .. } if message.contains("a bug")),
        "{error}"
    );
    save(&mut ada, 2).answer().await.expect("the next save lands");
    arena.wire.script(Op::Commit, [Fault::Panic]);
    close(ada, 3).answer().await.expect_err("the store panicked");
    let start = Instant::now();
    let _ada = arena.join("ada").await;
    assert!(
        start.elapsed() < SECOND,
        "the lock that nobody answers for is taken over"
    );
    sleep(60 * SECOND).await;
    assert!(
        arena
            .sessions
            .status()
            .since_refresh
            .is_some_and(|since| since <= 11 * SECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn the_lease_lives_on_ticks_alone_and_on_one_call_at_a_time() {
    let mut settings = settings("arena");
    settings.retry.attempt_timeout = 45 * SECOND;
    let arena = Server::start_with(settings, MemoryStore::default()).await;
    sleep(100 * SECOND).await;
    let beats = arena.wire.calls(Op::Lease);
    assert!((9..=12).contains(&beats), "{beats} beats in 100 s");
    arena.wire.script(Op::Lease, [Fault::Hang]);
    sleep(44 * SECOND).await;
    assert!(
        arena.wire.calls(Op::Lease) <= beats + 2,
        "a beat was started beside one that hung"
    );
    sleep(60 * SECOND).await;
    let calls = arena.wire.calls(Op::Lease) - beats;
    assert!(
        calls <= 8,
        "{calls} beats in 104 s: they piled up behind the one that hung"
    );
    assert!(
        arena
            .sessions
            .status()
            .since_refresh
            .is_some_and(|since| since <= 11 * SECOND),
        "it did not recover"
    );
    arena.hang();
    let beats = arena.wire.calls(Op::Lease);
    sleep(100 * SECOND).await;
    assert_eq!(arena.wire.calls(Op::Lease), beats, "a hung loop goes on beating");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_cancels_loads_waits_for_closes_and_gives_the_name_back() {
    let rows = MemoryStore::default();
    let arena = Server::start_with(settings("arena"), rows.connect()).await;
    let other = Server::start_with(settings("other"), rows.connect()).await;
    let _held_elsewhere = other.join("bob").await;
    let ada = arena.join("ada").await;
    let eve = arena.join("eve").await;
    let (_b, locked) = open(&arena.sessions, "bob");
    let (_e, parked) = open(&arena.sessions, "eve");
    sleep(SECOND).await;
    arena.wire.script(Op::Commit, [Fault::Fail; 3]);
    let closing = close(ada, 1);
    arena.sessions.shutdown().await.expect("the store is there");
    closing.answer().await.expect("closed");
    for cancelled in [locked, parked] {
        assert!(matches!(
            cancelled.answer().await,
            Err(OpenError::Cancelled { .. })
        ));
    }
    assert!(
        matches!(arena.try_join("ada").await, Err(OpenError::Cancelled { .. })),
        "a load after the end"
    );
    sleep(60 * SECOND).await;
    assert_eq!(arena.sessions.status().state, LeaseState::Retired);
    let successor = Server::start_with(settings("arena"), rows.connect()).await;
    assert_eq!(
        coins(&successor.try_join("ada").await.expect("free").document),
        Some(1)
    );
    successor
        .try_join("eve")
        .await
        .expect("a lock that hangs on a retired server is free");
    drop(eve);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_asked_for_while_the_server_shuts_down_is_cancelled_at_once() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Commit, [Fault::Slow(5 * SECOND)]);
    let _closing = close(arena.join("ada").await, 1);
    let sessions = arena.sessions.clone();
    let shutdown = tokio::spawn(async move { sessions.shutdown().await });
    sleep(SECOND).await;
    assert!(!shutdown.is_finished(), "the close is still running");
    let start = Instant::now();
    assert!(matches!(
        arena.try_join("bob").await,
        Err(OpenError::Cancelled { .. })
    ));
    assert_eq!(start.elapsed(), Duration::ZERO);
    shutdown.await.unwrap().expect("the store is there");
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_load_that_waits_for_an_older_session_is_cancelled() {
    let arena = Server::start("arena").await;
    let ada = arena.join("ada").await;
    let (_opening, waiting) = open(&arena.sessions, "ada");
    sleep(SECOND).await;
    let start = Instant::now();
    arena.sessions.skip_all_to_last();
    assert!(matches!(waiting.answer().await, Err(OpenError::Cancelled { .. })));
    assert_eq!(start.elapsed(), Duration::ZERO);
    close(ada, 1).answer().await.expect("closed");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_panics_on_its_session_gives_it_back() {
    let arena = Server::start("arena").await;
    let opening = arena
        .sessions
        .open(player("ada"), |_| panic!("a bug in the game"));
    arena.sessions.drained().await;
    arena.sessions.drained().await;
    drop(opening);
    drop(arena.join("ada").await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_sessions_that_have_ended() {
    let arena = Server::start("arena").await;
    for n in 0..50 {
        arena.wire.script(Op::Acquire, [Fault::LoseReply]);
        close(arena.join("ada").await, n).answer().await.expect("closed");
    }
    arena.sessions.shutdown().await.expect("the store is there");
    let Server {
        wire,
        sessions,
        ticker,
    } = arena;
    ticker.abort();
    sleep(SECOND).await;
    let weak = Arc::downgrade(&wire.state);
    drop((sessions, wire));
    assert!(weak.upgrade().is_none(), "somebody still holds the store");
}

// Helpers.

const ATTEMPTS: u32 = 4;

fn settings(name: &str) -> SessionSettings {
    let retry = RetryPolicy {
        attempts: Attempts::Limited(ATTEMPTS),
        jitter: 0.0,
        ..RetryPolicy::default()
    };
    let settings = SessionSettings {
        name: name.to_owned(),
        retry,
        ..SessionSettings::default()
    };
    settings.validate().expect("these settings can work");
    settings
}

async fn two_servers() -> (Server, Server) {
    let rows = MemoryStore::default();
    let a = Server::start_with(settings("a"), rows.connect()).await;
    let b = Server::start_with(settings("b"), rows.connect()).await;
    (a, b)
}

fn player(name: &str) -> PlayerId {
    PlayerId::from_name(name)
}

fn document(coins: u64) -> Document {
    let mut document = Document::new();
    let value = StoredValue::encode(&coins).unwrap();
    document.set(
        "coins",
        Entry::Value {
            version: 1,
            oldest_reader: 1,
            value,
        },
    );
    document
}

fn coins(document: &Document) -> Option<u64> {
    match document.get("coins")? {
        Entry::Value { value, .. } => Some(value.decode().unwrap()),
        _ => None,
    }
}

fn open(sessions: &Sessions, name: &str) -> (Opening, Answer<Result<Opened, OpenError>>) {
    let (done, answer) = answer();
    (sessions.open(player(name), done), answer)
}

fn save(session: &mut Session, coins: u64) -> Answer<Result<Saved, SaveError>> {
    let (done, answer) = answer();
    session.save(document(coins), done);
    answer
}

fn close(session: Session, coins: u64) -> Answer<Result<Saved, SaveError>> {
    let (done, answer) = answer();
    session.close(Some(document(coins).into()), done);
    answer
}

/// What a waiter was told, or will be.
struct Answer<T>(oneshot::Receiver<T>);

fn answer<T: Send + 'static>() -> (impl FnOnce(T) + Send + 'static, Answer<T>) {
    let (sender, receiver) = oneshot::channel();
    (move |answer| drop(sender.send(answer)), Answer(receiver))
}

impl<T> Answer<T> {
    async fn answer(self) -> T {
        let answer = timeout(3600 * SECOND, self.0)
            .await
            .expect("an answer within the hour");
        answer.expect("the waiter is called, not dropped")
    }
}

/// A server process: its sessions, its game loop, and its connection to the store.
struct Server {
    wire: Wire,
    sessions: Sessions,
    ticker: JoinHandle<()>,
}

impl Server {
    async fn start(name: &str) -> Self {
        Self::start_with(settings(name), MemoryStore::default()).await
    }

    async fn start_with(settings: SessionSettings, store: MemoryStore) -> Self {
        let server = Self::prepare(settings, store);
        let held = async {
            while server.sessions.status().state != LeaseState::Held {
                sleep(SECOND / 50).await;
            }
        };
        timeout(60 * SECOND, held).await.expect("the lease is held");
        server
    }

    fn prepare(settings: SessionSettings, store: MemoryStore) -> Self {
        let wire = Wire::new(store);
        let sessions = Sessions::new(Arc::new(wire.clone()), settings, Handle::current());
        let looping = sessions.clone();
        let ticker = tokio::spawn(async move {
            loop {
                looping.tick();
                sleep(SECOND / 20).await;
            }
        });
        Self {
            wire,
            sessions,
            ticker,
        }
    }

    async fn join(&self, name: &str) -> Session {
        self.try_join(name)
            .await
            .expect("the player can be loaded")
            .session
    }

    async fn try_join(&self, name: &str) -> Result<Opened, OpenError> {
        let (_opening, answer) = open(&self.sessions, name);
        answer.answer().await
    }

    /// With a shorter load timeout than the server's other players have.
    async fn try_join_within(&self, name: &str, limit: Duration) -> Result<Opened, OpenError> {
        let mut settings = self.sessions.settings().clone();
        settings.name = format!("{}-impatient", settings.name);
        settings.load_timeout = limit;
        let impatient = Server::start_with(settings, self.wire.rows()).await;
        impatient.try_join(name).await
    }

    /// The game loop stands still; what is under way goes on.
    fn hang(&self) {
        self.ticker.abort();
    }

    fn crash(self) {
        self.hang();
        self.wire.cut();
    }

    async fn record(&self, name: &str) -> Record {
        self.wire
            .rows()
            .peek(player(name))
            .await
            .unwrap()
            .expect("the player has a row")
    }

    async fn stored(&self, name: &str) -> Option<u64> {
        let document = self.record(name).await.document?;
        coins(&Document::decode(&document).expect("what is stored can be decoded"))
    }

    async fn is_free(&self, name: &str) -> bool {
        let record = self.wire.rows().peek(player(name)).await.unwrap();
        record.is_none_or(|record| record.lock.is_none())
    }

    /// Puts bytes into a player's record, as an older or a broken server might have.
    async fn store_bytes(&self, name: &str, bytes: &Bytes) {
        let store = self.wire.rows();
        let server = ServerId::random();
        store
            .lease(Lease {
                server,
                name: "vandal".to_owned(),
                lapsed: Vec::new(),
            })
            .await
            .unwrap();
        let lock = LockId::random();
        let player = player(name);
        let acquire = Acquire {
            player,
            lock,
            server,
            lapsed: Vec::new(),
            orphan: None,
            until_beat: u64::MAX,
        };
        let fence = store.acquire(acquire).await.unwrap().fence;
        let document = Some(bytes.clone());
        let write = Write {
            player,
            lock,
            fence,
            seq: 1,
            document,
            settle: Vec::new(),
            then: Then::Release,
        };
        store.commit(write.into()).await.unwrap();
        store.retire(server).await.unwrap();
    }
}
