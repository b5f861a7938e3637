//! Two sessions in one commit: both documents have it or neither does, and nothing of either overtakes it.

use std::sync::atomic::{AtomicU32, Ordering};

use bevy_player_data::{
    ProductId, PurchaseId,
    session::Snapshot,
    store::{NewReceipt, Notice, Outcome, ReceiptState, Settlement},
};

use super::*;

type Both = Result<[Saved; 2], [SaveError; 2]>;

/// Saves both; what was told of trouble, and the answer.
fn together([first, second]: [(&mut Session, u64); 2]) -> (Arc<AtomicU32>, Answer<Both>) {
    let (done, answer) = answer();
    let troubles = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&troubles);
    Session::save_together(
        [
            (first.0, document(first.1).into()),
            (second.0, document(second.1).into()),
        ],
        move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        },
        done,
    );
    (troubles, answer)
}

#[tokio::test(start_paused = true)]
async fn both_land_in_one_commit() {
    let arena = Server::start("arena").await;
    let (mut ada, mut bob) = (arena.join("ada").await, arena.join("bob").await);
    let commits = arena.wire.calls(Op::Commit);
    let (troubles, answer) = together([(&mut ada, 1), (&mut bob, 2)]);
    let [of_ada, of_bob] = answer.answer().await.expect("the store works");
    assert_eq!(arena.wire.calls(Op::Commit), commits + 1);
    assert!(of_ada.written && of_bob.written);
    assert_eq!(
        (arena.stored("ada").await, arena.stored("bob").await),
        (Some(1), Some(2))
    );
    assert_eq!(troubles.load(Ordering::Relaxed), 0);
    // What was acknowledged is known: an equal document is not written again.
    assert!(!save(&mut ada, 1).answer().await.unwrap().written);
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_until_it_lands_and_whatever_is_saved_later_waits() {
    let arena = Server::start("arena").await;
    let (mut ada, mut bob) = (arena.join("ada").await, arena.join("bob").await);
    arena.wire.down(true);
    let (troubles, answer) = together([(&mut ada, 1), (&mut bob, 2)]);
    let later = save(&mut ada, 10);
    let left = close(bob, 20);
    sleep(120 * SECOND).await;
    assert_eq!(
        troubles.load(Ordering::Relaxed),
        1,
        "told once, though it failed many times"
    );
    assert_eq!(
        (arena.stored("ada").await, arena.stored("bob").await),
        (None, None)
    );
    arena.wire.down(false);
    answer.answer().await.expect("it lands");
    later.answer().await.expect("it lands");
    left.answer().await.expect("it lands");
    assert_eq!(
        (arena.stored("ada").await, arena.stored("bob").await),
        (Some(10), Some(20))
    );
    assert!(arena.is_free("bob").await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_one_effect() {
    let arena = Server::start("arena").await;
    let (mut ada, mut bob) = (arena.join("ada").await, arena.join("bob").await);
    arena
        .wire
        .script(Op::Commit, [Fault::LoseReply, Fault::LoseReply]);
    let (_, answer) = together([(&mut ada, 1), (&mut bob, 2)]);
    let versions = answer
        .answer()
        .await
        .expect("it had landed")
        .map(|saved| saved.version);
    assert_eq!(versions, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn one_players_damaged_record_does_not_keep_the_other_here() {
    let arena = Server::start("arena").await;
    let (mut ada, mut bob) = (arena.join("ada").await, arena.join("bob").await);
    save(&mut bob, 2).answer().await.expect("saved");
    arena.wire.script(Op::Commit, [Fault::Damage]);
    let (_, answer) = together([(&mut ada, 10), (&mut bob, 20)]);
    let left = close(bob, 20);
    for error in answer.answer().await.expect_err("the record can't be read") {
        assert!(matches!(error, SaveError::Forfeited { .. }), "{error}");
    }
    assert!(matches!(left.answer().await, Err(SaveError::Forfeited { .. })));
    assert_eq!(
        (arena.stored("bob").await, arena.is_free("bob").await),
        (Some(2), true)
    );
}

#[tokio::test(start_paused = true)]
async fn what_landed_before_a_record_was_damaged_is_not_called_refused() {
    let arena = Server::start("arena").await;
    let (mut ada, mut bob) = (arena.join("ada").await, arena.join("bob").await);
    arena.wire.script(Op::Commit, [Fault::LoseReply, Fault::Damage]);
    let (_, answer) = together([(&mut ada, 1), (&mut bob, 2)]);
    answer.answer().await.expect("it had landed");
    assert!(!ada.is_over() && !bob.is_over());
    save(&mut ada, 3).answer().await.expect("the record is mended");
    assert_eq!(
        (arena.stored("ada").await, arena.stored("bob").await),
        (Some(3), Some(2))
    );
}

#[tokio::test(start_paused = true)]
async fn when_one_lock_is_lost_both_sessions_are_over_at_their_last_commit() {
    let (a, b) = two_servers().await;
    let (mut ada, mut bob) = (a.join("ada").await, a.join("bob").await);
    save(&mut ada, 1).answer().await.expect("a saves");
    save(&mut bob, 2).answer().await.expect("a saves");
    a.hang();
    let taken = b.try_join("bob").await.expect("the lease lapsed");
    let (_, answer) = together([(&mut ada, 10), (&mut bob, 20)]);
    let queued = save(&mut ada, 11);
    let player_lost = player("bob");
    let [of_ada, of_bob] = answer.answer().await.expect_err("bob's lock is lost");
    assert!(matches!(of_ada, SaveError::Forfeited { .. }), "{of_ada}");
    assert_eq!(of_bob, SaveError::LockLost { player: player_lost });
    assert!(ada.is_over() && bob.is_over());
    let forfeited = queued.answer().await;
    assert!(
        matches!(forfeited, Err(SaveError::Forfeited { .. })),
        "{forfeited:?}"
    );
    let closed = close(ada, 12).answer().await;
    assert!(matches!(closed, Err(SaveError::Forfeited { .. })), "{closed:?}");
    assert_eq!(a.stored("ada").await, Some(1), "nothing of the trade");
    assert!(a.is_free("ada").await, "her lock was ours, and is given back");
    assert_eq!(
        close(bob, 21).answer().await,
        Err(SaveError::LockLost { player: player_lost })
    );
    assert_eq!(b.stored("bob").await, Some(2));
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_takes_its_partner_with_it() {
    let (a, b) = two_servers().await;
    let (mut ada, mut bob, mut eve) = (a.join("ada").await, a.join("bob").await, a.join("eve").await);
    a.hang();
    let taken = b.try_join("bob").await.expect("the lease lapsed");
    let (_, first) = together([(&mut ada, 1), (&mut bob, 2)]);
    let (_, second) = together([(&mut ada, 3), (&mut eve, 4)]);
    assert!(first.answer().await.is_err() && second.answer().await.is_err());
    assert!(eve.is_over(), "she has what ada never had");
    let _ = close(eve, 5).answer().await;
    assert_eq!(a.stored("eve").await, None);
    assert!(a.is_free("eve").await);
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_rejects_it_ends_both_sessions_at_their_last_commit() {
    let arena = Server::start("arena").await;
    let (mut ada, mut bob) = (arena.join("ada").await, arena.join("bob").await);
    arena.wire.script(Op::Commit, [Fault::Reject]);
    let (_, answer) = together([(&mut ada, 1), (&mut bob, 2)]);
    let queued = save(&mut bob, 3);
    let errors = answer.answer().await.expect_err("it is rejected");
    assert!(
        errors
            .iter()
            .all(|error| matches!(error, SaveError::Forfeited { .. })),
        "{errors:?}"
    );
    assert!(matches!(queued.answer().await, Err(SaveError::Forfeited { .. })));
    drop((ada, bob));
    arena.sessions.drained().await;
    assert_eq!(
        (arena.stored("ada").await, arena.stored("bob").await),
        (None, None)
    );
    assert!(arena.is_free("ada").await && arena.is_free("bob").await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_ends_both_sessions_without_half_a_trade() {
    let arena = Server::start("arena").await;
    let (mut ada, mut bob) = (arena.join("ada").await, arena.join("bob").await);
    arena.wire.script(Op::Commit, [Fault::Panic]);
    let (_, answer) = together([(&mut ada, 1), (&mut bob, 2)]);
    assert!(answer.answer().await.is_err());
    assert!(ada.is_over() && bob.is_over());
    let _ = (close(ada, 1).answer().await, close(bob, 2).answer().await);
    assert_eq!(
        (arena.stored("ada").await, arena.stored("bob").await),
        (None, None)
    );
    assert!(arena.is_free("ada").await && arena.is_free("bob").await);
}

// Receipts in a snapshot.

fn purchase() -> PurchaseId {
    "p1".parse().unwrap()
}

async fn pay(arena: &Server, name: &str) {
    let product: ProductId = "hat".parse().unwrap();
    let receipt = NewReceipt::new(purchase(), player(name), product);
    arena.wire.rows().enqueue(receipt, Notice::Paid).await.unwrap();
}

async fn state(arena: &Server) -> ReceiptState {
    arena
        .wire
        .rows()
        .receipt(purchase())
        .await
        .unwrap()
        .unwrap()
        .state
}

fn granted(coins: u64) -> Snapshot {
    Snapshot {
        document: document(coins),
        settle: vec![Settlement {
            purchase: purchase(),
            outcome: Outcome::Granted,
        }],
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_settled_though_the_document_is_stored_already() {
    let arena = Server::start("arena").await;
    pay(&arena, "ada").await;
    let mut ada = arena.join("ada").await;
    save(&mut ada, 1).answer().await.unwrap();
    let (done, saved) = answer();
    ada.save(granted(1), done);
    assert!(!saved.answer().await.unwrap().written);
    assert_eq!(state(&arena).await, ReceiptState::Granted);
}

#[tokio::test(start_paused = true)]
async fn a_close_settles_what_its_document_contains() {
    let arena = Server::start("arena").await;
    pay(&arena, "ada").await;
    let ada = arena.join("ada").await;
    arena.wire.script(Op::Commit, [Fault::LoseReply]);
    let (done, closed) = answer();
    ada.close(Some(granted(1)), done);
    closed.answer().await.unwrap();
    assert_eq!(state(&arena).await, ReceiptState::Granted);
    assert!(arena.is_free("ada").await);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_refused_ends_the_session_at_its_last_commit() {
    let arena = Server::start("arena").await;
    pay(&arena, "bob").await;
    for closes in [false, true] {
        let mut ada = arena.join("ada").await;
        save(&mut ada, 1).answer().await.unwrap();
        let (done, refused) = answer();
        if closes {
            ada.close(Some(granted(100)), done);
        } else {
            ada.save(granted(100), done);
            assert!(
                save(&mut ada, 101).answer().await.is_err(),
                "it contains the award as well"
            );
            assert!(ada.is_over());
            drop(ada);
        }
        let refused = refused.answer().await;
        assert!(matches!(refused, Err(SaveError::Forfeited { .. })), "{refused:?}");
        arena.sessions.drained().await;
        assert_eq!(arena.stored("ada").await, Some(1));
        assert!(arena.is_free("ada").await);
    }
    assert_eq!(state(&arena).await, ReceiptState::Pending);
}
