//! What a waiting load says of what it waits for.

use std::sync::Mutex;

use bevy_player_data::session::Delay;

use super::*;

/// What was told, in order, and when.
type Delays = Arc<Mutex<Vec<(Instant, Delay)>>>;

fn open_telling(sessions: &Sessions, name: &str) -> (Opening, Delays, Answer<Result<Opened, OpenError>>) {
    let (done, answer) = answer();
    let delays = Delays::default();
    let told = Arc::clone(&delays);
    let tell = move |delay| told.lock().unwrap().push((Instant::now(), delay));
    (sessions.open_telling(player(name), tell, done), delays, answer)
}

fn reasons(delays: &Delays) -> Vec<OpenError> {
    let delays = delays.lock().unwrap();
    delays.iter().map(|(_, delay)| delay.reason.clone()).collect()
}

fn locked_on(server: &str) -> OpenError {
    OpenError::SessionLocked {
        player: player("ada"),
        server: server.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_goes_well_says_nothing() {
    let arena = Server::start("arena").await;
    let (_opening, delays, answer) = open_telling(&arena.sessions, "ada");
    let ada = answer.answer().await.expect("the store works");
    sleep(120 * SECOND).await;
    assert_eq!(reasons(&delays), []);
    drop(ada);
}

#[tokio::test(start_paused = true)]
async fn each_reason_is_told_once_with_the_time_that_is_left() {
    let (a, b) = two_servers().await;
    let ada = a.join("ada").await;
    let start = Instant::now();
    let (_opening, delays, answer) = open_telling(&b.sessions, "ada");
    sleep(10 * SECOND).await;
    assert_eq!(
        reasons(&delays),
        [locked_on("a")],
        "once, however often it was tried"
    );
    b.wire.down(true);
    sleep(5 * SECOND).await;
    b.wire.down(false);
    sleep(5 * SECOND).await;
    let told = reasons(&delays);
    assert!(
        matches!(&told[..], [_, OpenError::Unavailable { .. }, last] if *last == locked_on("a")),
        "{told:?}"
    );
    let timeout = b.sessions.settings().load_timeout;
    for (at, delay) in delays.lock().unwrap().iter() {
        assert_eq!(delay.gives_up_in, timeout - (*at - start));
    }
    close(ada, 1).answer().await.expect("closed");
    drop(answer.answer().await.expect("the lock is free"));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_waits_for_a_final_save_of_its_own_server_says_so() {
    let arena = Server::start("arena").await;
    let ada = arena.join("ada").await;
    arena.wire.down(true);
    let closing = close(ada, 1);
    let (_opening, delays, answer) = open_telling(&arena.sessions, "ada");
    sleep(SECOND / 2).await;
    assert_eq!(reasons(&delays), [], "it may be over in a moment");
    sleep(SECOND).await;
    assert!(
        matches!(&reasons(&delays)[..], [OpenError::Unavailable { .. }]),
        "{:?}",
        reasons(&delays)
    );
    arena.wire.down(false);
    closing.answer().await.expect("closed");
    drop(answer.answer().await.expect("the store works"));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_waits_for_the_first_lease_says_what_is_in_the_way_of_that() {
    let arena = Server::prepare(settings("arena"), MemoryStore::default());
    arena.wire.down(true);
    let (_opening, delays, answer) = open_telling(&arena.sessions, "ada");
    sleep(2 * SECOND).await;
    let told = reasons(&delays);
    let [OpenError::Unavailable { message, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    let failed = answer.answer().await.expect_err("there is no store");
    assert!(
        failed.to_string().contains(message),
        "{failed} is no news after {message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_load_that_was_cancelled_says_nothing_any_more() {
    let (a, b) = two_servers().await;
    let ada = a.join("ada").await;
    b.wire.script(Op::Acquire, [Fault::Slow(SECOND)]);
    let (opening, delays, answer) = open_telling(&b.sessions, "ada");
    sleep(SECOND / 2).await;
    opening.cancel();
    assert!(matches!(answer.answer().await, Err(OpenError::Cancelled { .. })));
    sleep(120 * SECOND).await;
    assert_eq!(reasons(&delays), [], "though the lock was refused after that");
    drop(ada);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_waits_for_a_silent_store_does_not_blame_the_lease() {
    let arena = Server::start("arena").await;
    arena.wire.script(Op::Acquire, [Fault::Hang]);
    let (_opening, delays, _answer) = open_telling(&arena.sessions, "ada");
    sleep(2 * SECOND).await;
    let told = reasons(&delays);
    let [OpenError::Unavailable { message, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(!message.contains("lease"), "{message}");
}
