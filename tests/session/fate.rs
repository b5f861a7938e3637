//! A commit lands, its answer gets lost, and another server has the player by the time it is asked for again: what is
//! said is what is so.

use super::wishes::Seen;
use super::*;

/// Two servers that look for wishes; ada is on the first, and the second waits for her. It has her a moment after she
/// is free, and before the first has sent anything again.
async fn ada_is_awaited() -> (
    Server,
    Server,
    Session,
    Opening,
    Answer<Result<Opened, OpenError>>,
) {
    let mut slow = settings("a");
    slow.retry.first = SECOND;
    let rows = MemoryStore::default();
    let a = Server::start_with(slow, rows.connect()).await;
    let b = Server::start_with(settings("b"), rows.connect()).await;
    let seen = Seen::by(&a);
    Seen::by(&b);
    let ada = a.join("ada").await;
    let (opening, load) = open(&b.sessions, "ada");
    seen.until(1).await;
    (a, b, ada, opening, load)
}

#[tokio::test(start_paused = true)]
async fn a_final_save_that_has_landed_is_not_called_lost_because_another_server_was_quick() {
    let (a, _b, ada, _opening, load) = ada_is_awaited().await;
    a.wire.script(Op::Commit, [Fault::LoseReply]);
    let closing = close(ada, 7);
    let opened = load.answer().await.expect("b has ada");
    assert_eq!(coins(&opened.document), Some(7));
    assert_eq!(a.wire.calls(Op::Commit), 1, "or this tests nothing");
    let saved = closing.answer().await.expect("it is stored");
    assert_eq!((saved.version, saved.written), (opened.version, true));
    assert!(!opened.session.is_over());
}

#[tokio::test(start_paused = true)]
async fn where_the_next_server_has_saved_already_nobody_claims_to_know() {
    let (a, b, ada, _opening, load) = ada_is_awaited().await;
    a.wire.script(Op::Commit, [Fault::LoseReply]);
    let closing = close(ada, 7);
    let mut opened = load.answer().await.expect("b has ada");
    save(&mut opened.session, 8).answer().await.expect("b saves");
    assert_eq!(a.wire.calls(Op::Commit), 1, "or this tests nothing");
    let player = player("ada");
    assert_eq!(
        closing.answer().await,
        Err(SaveError::Unconfirmed { player }),
        "though it was stored"
    );
    assert_eq!(b.stored("ada").await, Some(8));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_nobody_can_confirm_is_no_loss() {
    let (a, b, mut ada, _opening, load) = ada_is_awaited().await;
    save(&mut ada, 7).answer().await.expect("a saves");
    a.wire.script(Op::Commit, [Fault::LoseReply]);
    let closing = close(ada, 7);
    let mut opened = load.answer().await.expect("b has ada");
    save(&mut opened.session, 8).answer().await.expect("b saves");
    assert_eq!(a.wire.calls(Op::Commit), 2, "or this tests nothing");
    let saved = closing.answer().await.expect("everything was stored before");
    assert!(!saved.written);
    assert_eq!(b.stored("ada").await, Some(8));
}

#[tokio::test(start_paused = true)]
async fn what_has_not_landed_before_the_lock_was_lost_is_lost() {
    for b_saves in [false, true] {
        let (a, b) = two_servers().await;
        let mut ada = a.join("ada").await;
        save(&mut ada, 1).answer().await.expect("a saves");
        a.wire.down(true);
        let closing = close(ada, 7);
        let mut opened = b.try_join("ada").await.expect("a's lease lapses");
        assert_eq!(coins(&opened.document), Some(1));
        if b_saves {
            save(&mut opened.session, 8).answer().await.expect("b saves");
        }
        a.wire.down(false);
        let player = player("ada");
        // As far as the record tells, b's save may be on top of a's.
        let expected = if b_saves {
            SaveError::Unconfirmed { player }
        } else {
            SaveError::LockLost { player }
        };
        assert_eq!(closing.answer().await, Err(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn an_equal_document_that_has_landed_with_an_earlier_save_is_saved() {
    let (a, b) = two_servers().await;
    let mut ada = a.join("ada").await;
    save(&mut ada, 1).answer().await.expect("a saves");
    a.wire.script(Op::Commit, [Fault::LoseReply]);
    let saving = save(&mut ada, 2);
    sleep(SECOND / 50).await;
    a.wire.down(true);
    // It fails while the lease lapses: with four attempts, so its time is up.
    let unavailable = saving.answer().await;
    assert!(
        matches!(unavailable, Err(SaveError::Unavailable { .. })),
        "{unavailable:?}"
    );
    // It has the same document, and is answered when b has ada.
    let closing = close(ada, 2);
    let opened = b.try_join("ada").await.expect("a's lease lapses");
    assert_eq!(coins(&opened.document), Some(2));
    a.wire.down(false);
    closing.answer().await.expect("what it has is stored");
}

#[tokio::test(start_paused = true)]
async fn a_save_that_has_landed_is_saved_though_its_session_is_over() {
    let mut patient = settings("a");
    patient.retry.attempts = Attempts::Limited(1000);
    let rows = MemoryStore::default();
    let a = Server::start_with(patient, rows.connect()).await;
    let b = Server::start_with(settings("b"), rows.connect()).await;
    let mut ada = a.join("ada").await;
    a.wire.script(Op::Commit, [Fault::LoseReply]);
    let saving = save(&mut ada, 2);
    sleep(SECOND / 50).await;
    a.wire.down(true);
    let taken = b.try_join("ada").await.expect("a's lease lapses");
    a.wire.down(false);
    assert!(saving.answer().await.expect("it is stored").written);
    assert!(ada.is_over());
    let player = player("ada");
    assert_eq!(close(ada, 3).answer().await, Err(SaveError::LockLost { player }));
    assert_eq!(coins(&taken.document), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_two_that_has_landed_is_saved_though_both_were_taken_over() {
    for b_saves in [0, 1, 2] {
        let (a, b) = two_servers().await;
        let (mut ada, mut bob) = (a.join("ada").await, a.join("bob").await);
        a.wire.script(Op::Commit, [Fault::LoseReply]);
        let (done, answer) = answer();
        let sides = [(&mut ada, document(1).into()), (&mut bob, document(2).into())];
        Session::save_together(sides, |_| {}, done);
        sleep(SECOND / 50).await;
        a.wire.down(true);
        let (on_ada, on_bob) = tokio::join!(b.try_join("ada"), b.try_join("bob"));
        let mut taken = [on_ada, on_bob].map(|opened| opened.expect("a's lease lapses").session);
        for session in taken.iter_mut().take(b_saves) {
            save(session, 8).answer().await.expect("b saves");
        }
        a.wire.down(false);
        let answer = answer.answer().await;
        if b_saves < 2 {
            answer.expect("one record proves it for both");
            assert!(ada.is_over(), "of whom the store has said so");
        } else {
            assert!(ada.is_over() && bob.is_over());
            let unconfirmed = ["ada", "bob"].map(|name| SaveError::Unconfirmed { player: player(name) });
            assert_eq!(answer, Err(unconfirmed));
        }
        drop((ada, bob));
        a.sessions.drained().await;
        assert!(taken.iter().all(|session| !session.is_over()));
    }
}
