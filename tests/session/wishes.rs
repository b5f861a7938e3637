//! Wishes: how a load asks another server for a player, and what becomes of that when messages or servers get lost.

use std::sync::Mutex;

use bevy_player_data::store::Wished;

use super::*;

/// What a server has been told of others' wishes, newest last: how many there were each time.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<Vec<Wished>>>>);

impl Seen {
    /// Has a server look for wishes from now on.
    pub(super) fn by(server: &Server) -> Self {
        let seen = Self::default();
        let here = seen.clone();
        server
            .sessions
            .watch_wishes(move |wished| here.0.lock().unwrap().push(wished));
        seen
    }

    fn now(&self) -> Vec<Wished> {
        self.0.lock().unwrap().last().cloned().unwrap_or_default()
    }

    pub(super) async fn until(&self, count: usize) -> Vec<Wished> {
        let seen = async {
            while self.now().len() != count {
                sleep(SECOND / 1000).await;
            }
            self.now()
        };
        timeout(60 * SECOND, seen)
            .await
            .unwrap_or_else(|_| panic!("{count} wishes are seen, and not {:?}", self.now()))
    }
}

/// Two servers that look for wishes; ada is on the first.
async fn ada_on_a() -> (Server, Server, Seen, Session) {
    let (a, b) = two_servers().await;
    let seen = Seen::by(&a);
    Seen::by(&b);
    let ada = a.join("ada").await;
    (a, b, seen, ada)
}

#[tokio::test(start_paused = true)]
async fn a_load_is_woken_as_soon_as_its_wish_has_come_true() {
    let (_a, b, seen, ada) = ada_on_a().await;
    let (_opening, load) = open(&b.sessions, "ada");
    let wished = seen.until(1).await;
    assert_eq!((wished[0].name.as_str(), wished[0].wish.held), ("b", ada.lock()));
    assert_eq!(wished[0].wish.server, b.sessions.server());

    // By now the load asks by itself once a second at most.
    sleep(10 * SECOND).await;
    let start = Instant::now();
    close(ada, 7).answer().await.expect("the close lands");
    let opened = load.answer().await.expect("b has ada");
    assert!(start.elapsed() <= SECOND / 50, "it took {:?}", start.elapsed());
    assert_eq!(coins(&opened.document), Some(7));
    assert!(seen.until(0).await.is_empty(), "nobody wishes any more");
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_got_lost_is_left_again() {
    for fault in [Fault::Fail, Fault::LoseReply, Fault::Panic] {
        let (_a, b, seen, ada) = ada_on_a().await;
        b.wire.script(Op::Wish, [fault]);
        let (_opening, load) = open(&b.sessions, "ada");
        seen.until(1).await;
        close(ada, 7).answer().await.expect("the close lands");
        load.answer().await.expect("b has ada");
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_look_for_wishes_a_load_gets_its_lock_all_the_same() {
    let (_a, b, seen, ada) = ada_on_a().await;
    let (_opening, load) = open(&b.sessions, "ada");
    seen.until(1).await;
    b.wire.script(Op::Wishes, [Fault::Fail; 100]);
    let start = Instant::now();
    close(ada, 7).answer().await.expect("the close lands");
    load.answer().await.expect("b has ada");
    assert!(start.elapsed() <= SECOND, "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_load_that_ends_without_a_session_takes_its_wish_back() {
    for fault in [Fault::Pass, Fault::Fail, Fault::LoseReply] {
        let (_a, b, seen, ada) = ada_on_a().await;
        let (opening, load) = open(&b.sessions, "ada");
        seen.until(1).await;
        b.wire.script(Op::Withdraw, [fault]);
        opening.cancel();
        assert!(load.answer().await.is_err());
        let start = Instant::now();
        seen.until(0).await;
        assert!(
            start.elapsed() < SECOND,
            "{fault:?}: it took {:?}",
            start.elapsed()
        );
        assert!(!ada.is_over());

        // The same for one whose time is up.
        let refused = b.try_join("ada").await;
        assert!(
            matches!(refused, Err(OpenError::SessionLocked { .. })),
            "{refused:?}"
        );
        seen.until(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_arrives_after_it_was_taken_back_ends_by_itself() {
    let (_a, b, seen, _ada) = ada_on_a().await;
    b.wire
        .script(Op::Wish, [Fault::Late(5 * SECOND), Fault::Fail, Fault::Fail]);
    let (opening, load) = open(&b.sessions, "ada");
    sleep(SECOND / 20).await;
    opening.cancel();
    assert!(load.answer().await.is_err());
    let start = Instant::now();
    seen.until(1).await;
    seen.until(0).await;
    let beats = start.elapsed().as_secs_f64() / b.sessions.settings().beat.as_secs_f64();
    assert!(beats <= 4.0, "it stood for {beats} beats");
}

#[tokio::test(start_paused = true)]
async fn a_wish_stands_for_as_long_as_its_load_waits() {
    let (_a, b, seen, _ada) = ada_on_a().await;
    let (_opening, load) = open(&b.sessions, "ada");
    seen.until(1).await;
    let load_timeout = b.sessions.settings().load_timeout;
    assert!(
        load_timeout > 3 * b.sessions.settings().beat,
        "or this tests nothing"
    );
    sleep(load_timeout - SECOND).await;
    assert_eq!(seen.now().len(), 1);
    assert!(load.answer().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_wish_of_a_server_that_has_died_is_not_seen_once_its_lease_has_lapsed() {
    let (a, b, seen, _ada) = ada_on_a().await;
    let (_opening, _load) = open(&b.sessions, "ada");
    seen.until(1).await;
    // Its beat stands still, so that by the beats the wish would stand for ever.
    let lease_ttl = a.sessions.settings().lease_ttl;
    b.crash();
    sleep(2 * lease_ttl).await;
    assert_eq!(seen.now(), []);
}

#[tokio::test(start_paused = true)]
async fn no_wish_is_known_while_the_store_can_not_be_asked() {
    let (a, b, seen, _ada) = ada_on_a().await;
    let (_opening, _load) = open(&b.sessions, "ada");
    seen.until(1).await;
    a.wire.down(true);
    let start = Instant::now();
    seen.until(0).await;
    assert!(start.elapsed() < SECOND, "it took {:?}", start.elapsed());
    a.wire.down(false);
    seen.until(1).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_that_wish_the_one_who_was_slower_is_next() {
    let (_a, b, seen_by_a, ada) = ada_on_a().await;
    let c = Server::start_with(settings("c"), b.wire.rows()).await;
    Seen::by(&c);
    let (_for_b, on_b) = open(&b.sessions, "ada");
    let (_for_c, on_c) = open(&c.sessions, "ada");
    seen_by_a.until(2).await;
    close(ada, 7).answer().await.expect("the close lands");
    // Whoever is quicker gives ada back at once.
    let start = Instant::now();
    let (b_had_her, c_had_her) = tokio::join!(async { on_b.answer().await.map(drop) }, async {
        on_c.answer().await.map(drop)
    });
    assert_eq!((b_had_her, c_had_her), (Ok(()), Ok(())));
    assert!(start.elapsed() <= SECOND / 10, "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_granted_too_late_is_given_back_when_somebody_wishes_for_the_player() {
    let (a, b) = two_servers().await;
    Seen::by(&a);
    Seen::by(&b);
    // It takes effect when its load is long over, so that nobody on a answers for it.
    a.wire.script(Op::Acquire, [Fault::Late(SECOND)]);
    let (opening, load) = open(&a.sessions, "ada");
    sleep(SECOND / 20).await;
    opening.cancel();
    assert!(load.answer().await.is_err());
    while a.wire.landed_late() == 0 {
        sleep(SECOND / 50).await;
    }
    assert!(!a.is_free("ada").await, "or this tests nothing");
    let start = Instant::now();
    drop(b.join("ada").await);
    assert!(start.elapsed() <= SECOND / 10, "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_has_nobody_and_waits_for_nobody_asks_nothing() {
    let (a, b) = two_servers().await;
    Seen::by(&a);
    sleep(60 * SECOND).await;
    assert_eq!(a.wire.calls(Op::Wishes), 0);
    let _ada = a.join("ada").await;
    sleep(SECOND).await;
    assert!(a.wire.calls(Op::Wishes) > 50);
    assert_eq!(b.wire.calls(Op::Wish), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wish_of_a_server_that_has_died_stays_unseen_whatever_happens_to_our_own_beat() {
    let (a, b, seen, _ada) = ada_on_a().await;
    let (_opening, _load) = open(&b.sessions, "ada");
    seen.until(1).await;
    let (beat, lease_ttl) = (a.sessions.settings().beat, a.sessions.settings().lease_ttl);
    b.crash();
    // The store fails once in a while, so that a's own view of the leases starts over again and again.
    for _ in 0..4 {
        a.wire.script(Op::Lease, [Fault::Fail]);
        sleep(2 * beat).await;
    }
    assert!(8 * beat > 2 * lease_ttl, "or this tests nothing");
    assert_eq!(seen.now(), []);
    let news = seen.0.lock().unwrap().len();
    for fault in [Fault::Fail, Fault::Slow(lease_ttl - SECOND), Fault::Fail] {
        a.wire.script(Op::Lease, [fault]);
        sleep(4 * beat).await;
    }
    assert_eq!(seen.0.lock().unwrap().len(), news, "{:?}", seen.now());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_silent_is_heeded_again_when_it_beats() {
    let (a, b, seen, _ada) = ada_on_a().await;
    let lease_ttl = a.sessions.settings().lease_ttl;
    b.wire.script(Op::Lease, [Fault::Fail; 5]);
    sleep(lease_ttl + SECOND).await;
    let (_opening, _load) = open(&b.sessions, "ada");
    seen.until(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_rejoin_does_not_wait_until_a_wish_is_taken_back() {
    let (_a, b, seen, ada) = ada_on_a().await;
    let (opening, load) = open(&b.sessions, "ada");
    seen.until(1).await;
    b.wire
        .script(Op::Withdraw, [Fault::Hang, Fault::Fail, Fault::Hang]);
    opening.cancel();
    assert!(load.answer().await.is_err());
    close(ada, 7).answer().await.expect("the close lands");
    let start = Instant::now();
    let mut again = b.join("ada").await;
    assert!(start.elapsed() <= SECOND / 10, "it took {:?}", start.elapsed());
    save(&mut again, 8).answer().await.expect("b saves");
    // However late the old wish is taken back, the new session is left alone.
    sleep(60 * SECOND).await;
    save(&mut again, 9).answer().await.expect("b saves");
}

#[tokio::test(start_paused = true)]
async fn a_load_whose_wish_has_come_true_is_woken_once_and_not_with_each_look() {
    let (a, b, seen, ada) = ada_on_a().await;
    let (_opening, load) = open(&b.sessions, "ada");
    seen.until(1).await;
    b.wire.script(Op::Acquire, [Fault::Fail; 1000]);
    let before = b.wire.calls(Op::Acquire);
    close(ada, 7).answer().await.expect("the close lands");
    sleep(5 * SECOND).await;
    let calls = b.wire.calls(Op::Acquire) - before;
    assert!(
        (4..=12).contains(&calls),
        "{calls} attempts on a store that fails"
    );
    b.wire.script(Op::Acquire, []);
    drop(load.answer().await.expect("the store is back"));
    drop(a);
}

/// A lock that was granted to server a so late that nobody there answers for it.
async fn late_lock_on_a() -> (Server, Server, Seen) {
    let (a, b) = two_servers().await;
    let seen = Seen::by(&a);
    Seen::by(&b);
    a.wire.script(Op::Acquire, [Fault::Late(SECOND)]);
    let (opening, load) = open(&a.sessions, "ada");
    sleep(SECOND / 20).await;
    opening.cancel();
    assert!(load.answer().await.is_err());
    while a.wire.landed_late() == 0 {
        sleep(SECOND / 50).await;
    }
    assert!(!a.is_free("ada").await, "or this tests nothing");
    (a, b, seen)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_on_a_late_lock_ends_no_watch() {
    let (a, b, _seen) = late_lock_on_a().await;
    a.wire.script(Op::Other, [Fault::Panic]);
    let start = Instant::now();
    drop(b.join("ada").await);
    assert!(start.elapsed() <= SECOND, "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_late_lock_that_can_not_be_given_back_holds_nobody_up_and_is_not_asked_for_all_the_time() {
    let (a, b, seen) = late_lock_on_a().await;
    let bob = a.join("bob").await;
    let (_for_ada, on_ada) = open(&b.sessions, "ada");
    a.wire.script(Op::Other, [Fault::Hang, Fault::Hang]);
    let (_for_bob, _on_bob) = open(&b.sessions, "bob");
    let start = Instant::now();
    seen.until(2).await;
    assert!(start.elapsed() <= SECOND, "it took {:?}", start.elapsed());
    drop(bob);

    a.wire.script(Op::Other, [Fault::Fail; 1000]);
    let before = a.wire.calls(Op::Other);
    sleep(30 * SECOND).await;
    let calls = a.wire.calls(Op::Other) - before;
    assert!((3..=40).contains(&calls), "{calls} looks at a store that fails");
    a.wire.script(Op::Other, []);
    drop(on_ada.answer().await.expect("the lock is given back"));
}
