//! The store that fails on purpose does so exactly as it is told.

#![cfg(all(feature = "server", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/store.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use bevy_player_data::store::{
    Fault, FaultRates, Faults, FaultyStore, MemoryStore, NewReceipt, Notice, Op, Store, StoreError,
};
use support::{ADA, Server, Session, document};
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn while_it_is_down_nothing_reaches_the_store() {
    let (mut session, faults, rows) = session().await;
    faults.down();
    assert_unavailable(session.save("lost").await);
    assert_unavailable(session.store().peek(ADA).await);
    faults.up();
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, None);
    session.save("coins").await.unwrap();
    assert_eq!((faults.calls(Op::Commit), faults.injected(Op::Commit)), (2, 1));
    assert_eq!((faults.calls(Op::Peek), faults.injected(Op::Peek)), (1, 1));
}

#[tokio::test]
async fn a_lost_reply_leaves_the_effect() {
    let (mut session, faults, rows) = session().await;
    faults.fail_next(Op::Commit, 1, Fault::After);
    let write = session.write("coins");
    assert_unavailable(session.store().commit(write.clone().into()).await);
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, document("coins"));
    assert_eq!(
        session.store().commit(write.into()).await.unwrap().versions,
        [1],
        "a repetition is no second effect"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_effect_comes_after_its_error() {
    let (mut session, faults, rows) = session().await;
    faults.fail_next(Op::Commit, 1, Fault::Late(Duration::from_secs(3)));
    assert_unavailable(session.save("coins").await);
    assert_eq!(faults.late(), 1);
    sleep(Duration::from_millis(2_900)).await;
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, None, "not yet");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, document("coins"));
    assert_eq!(faults.late(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_effect_is_judged_when_it_arrives() {
    let (mut session, faults, rows) = session().await;
    faults.fail_next(Op::Commit, 1, Fault::Late(Duration::from_secs(3)));
    assert_unavailable(session.save("old").await);
    session.save("new").await.unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, document("new"));
}

#[tokio::test(start_paused = true)]
async fn a_request_hangs_until_it_is_resumed() {
    let (mut session, faults, rows) = session().await;
    faults.hang();
    let (store, write) = (
        Arc::clone(session.store.as_ref().unwrap()),
        session.write("coins"),
    );
    let save = tokio::spawn(async move { store.commit(write.into()).await });
    sleep(Duration::from_secs(3600)).await;
    assert!(!save.is_finished(), "an hour is nothing to it");
    assert_eq!(faults.hanging(), 1);
    faults.resume();
    assert_eq!(save.await.unwrap().unwrap().versions, [1]);
    assert_eq!(faults.hanging(), 0);
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, document("coins"));
    session.save("more coins").await.expect("nothing hangs any more");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_request_takes_effect_even_if_its_caller_has_given_up() {
    let (mut session, faults, rows) = session().await;
    faults.fail_next(Op::Commit, 1, Fault::Hang);
    let save = tokio::time::timeout(Duration::from_secs(10), session.save("coins"));
    save.await.expect_err("the caller gives up");
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, None);
    faults.resume();
    while faults.hanging() > 0 {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(rows.peek(ADA).await.unwrap().unwrap().document, document("coins"));
}

#[tokio::test]
async fn a_script_names_the_kind_and_the_number_of_requests() {
    let (mut session, faults, _rows) = session().await;
    faults.fail_next(Op::Commit, 2, Fault::Before);
    faults.fail_next(Op::Commit, 1, Fault::After);
    faults.fail_next(Op::Peek, 0, Fault::Before);
    session
        .store()
        .peek(ADA)
        .await
        .expect("other kinds are not meant");
    let write = session.write("coins");
    for landed in [false, false, true] {
        assert_unavailable(session.store().commit(write.clone().into()).await);
        assert_eq!(session.record().await.document.is_some(), landed);
    }
    session
        .store()
        .commit(write.into())
        .await
        .expect("the script is over");
    assert_eq!(faults.injected(Op::Commit), 3);
}

#[tokio::test]
async fn requests_about_receipts_are_kinds_of_their_own() {
    let (session, faults, rows) = session().await;
    let store = session.store();
    let receipt = NewReceipt::new("p1".parse().unwrap(), ADA, "hat".parse().unwrap());
    let purchase = || "p1".parse().unwrap();

    faults.fail_next(Op::Enqueue, 1, Fault::After);
    assert_unavailable(store.enqueue(receipt.clone(), Notice::Paid).await);
    assert!(rows.receipt(purchase()).await.unwrap().is_some(), "it was stored");
    let again = store.enqueue(receipt, Notice::Paid).await.unwrap();
    assert!(!again.is_new, "a repetition is no second receipt");

    faults.fail_next(Op::Receipts, 3, Fault::Before);
    assert_unavailable(store.receipt(purchase()).await);
    assert_unavailable(store.open_receipts(ADA).await);
    assert_unavailable(store.receipts_of(ADA, None, 10).await);
    faults.fail_next(Op::Arrivals, 1, Fault::Before);
    assert_unavailable(store.arrivals(None).await);

    assert_eq!(store.receipt(purchase()).await.unwrap(), Some(again.receipt));
    assert_eq!(store.open_receipts(ADA).await.unwrap().len(), 1);
    assert_eq!(store.receipts_of(ADA, None, 10).await.unwrap().len(), 1);
    assert_eq!(store.arrivals(Some(0)).await.unwrap().players, [ADA]);
    let injected =
        [Op::Enqueue, Op::Receipts, Op::Arrivals].map(|op| (faults.calls(op), faults.injected(op)));
    assert_eq!(injected, [(2, 1), (6, 3), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn latency_is_as_long_as_it_was_set() {
    let (mut session, faults, _rows) = session().await;
    let latency = Duration::from_millis(50)..=Duration::from_millis(100);
    faults.set_rates(FaultRates {
        latency: latency.clone(),
        ..FaultRates::default()
    });
    for _ in 0..20 {
        let since = Instant::now();
        session.save("coins").await.unwrap();
        // Tokio's timers are a millisecond coarse.
        let took = since.elapsed();
        assert!(
            took >= *latency.start() && took <= *latency.end() + Duration::from_millis(1),
            "it took {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults_however_the_kinds_interleave() {
    async fn outcomes(seed: u64, interleave: bool) -> Vec<bool> {
        let store = FaultyStore::new(MemoryStore::default(), seed);
        let quarter = FaultRates {
            before: 0.25,
            after: 0.25,
            late: 0.25,
            ..FaultRates::default()
        };
        store.faults().set_rates(quarter);
        let mut outcomes = Vec::new();
        for _ in 0..200 {
            if interleave {
                let _ = store.list(None, 1).await;
            }
            outcomes.push(store.peek(ADA).await.is_ok());
        }
        outcomes
    }
    let first = outcomes(7, false).await;
    assert_eq!(first, outcomes(7, true).await);
    assert_ne!(first, outcomes(8, false).await);
    let served = first.iter().filter(|ok| **ok).count();
    assert!(
        (25..=75).contains(&served),
        "a quarter of 200 should be served, but {served} were"
    );
}

#[tokio::test]
async fn clearing_ends_every_fault() {
    let (mut session, faults, _rows) = session().await;
    faults.down();
    faults.hang();
    faults.fail_next(Op::Commit, 5, Fault::Before);
    faults.set_rates(FaultRates {
        before: 1.0,
        ..FaultRates::default()
    });
    faults.clear();
    session.save("coins").await.unwrap();
    assert_eq!(
        (faults.calls(Op::Commit), faults.calls(Op::Lease)),
        (1, 1),
        "the counters go on"
    );
}

/// A session on a faulty store, the handle to its faults, and the bare rows beneath.
async fn session() -> (Session, Faults, MemoryStore) {
    let rows = MemoryStore::default();
    let store = FaultyStore::new(rows.connect(), 42);
    let faults = store.faults();
    let server = Server::start(Arc::new(store), "arena").await;
    (server.session(ADA).await, faults, rows)
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    assert!(
        matches!(outcome, Err(StoreError::Unavailable { .. })),
        "{outcome:?}"
    );
}
