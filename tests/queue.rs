//! The ordered queue: per key one at a time, in the order asked for, whatever fails.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bevy_player_data::session::{NotRun, OrderedQueue, Request, Skip, Turn};
use proptest::prelude::*;
use tokio::{runtime::Handle, time::Instant};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_set_that_fails_for_a_moment_is_not_overtaken_by_the_next() {
    let bench = Bench::new();
    let value = Arc::new(Mutex::new(0));
    for (n, failures) in [(1, 3), (2, 0)] {
        let value = Arc::clone(&value);
        bench.ask(Request::of("ada"), n, move |mut turn| async move {
            for _ in 0..failures {
                turn.backoff(SECOND).await;
            }
            *value.lock().unwrap() = n;
        });
    }
    bench.queue.drained().await;
    assert_eq!(*value.lock().unwrap(), 2);
    assert_eq!(bench.ran(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_get_between_two_sets_answers_the_first() {
    let bench = Bench::new();
    let value = Arc::new(Mutex::new(0));
    let got = Arc::new(Mutex::new(None));
    let set = |n: i32| {
        let value = Arc::clone(&value);
        move |_| async move {
            tokio::task::yield_now().await;
            *value.lock().unwrap() = n;
        }
    };
    bench.ask(Request::of("ada"), 1, set(1));
    let (read, answer) = (Arc::clone(&value), Arc::clone(&got));
    bench.queue.enqueue(
        Request::of("ada"),
        move |_| async move { *read.lock().unwrap() },
        move |value| *answer.lock().unwrap() = value.ok(),
    );
    bench.ask(Request::of("ada"), 2, set(2));
    bench.queue.drained().await;
    assert_eq!(*got.lock().unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_backing_off_does_not_hold_another_up() {
    let bench = Bench::new();
    bench.ask(Request::of("ada"), 1, |mut turn| async move {
        turn.backoff(60 * SECOND).await;
    });
    bench.ask(Request::of("bob"), 2, work);
    let start = Instant::now();
    while bench.ran().is_empty() {
        tokio::time::sleep(SECOND / 10).await;
    }
    assert_eq!(bench.ran(), [2], "bob's request ran while ada's was backing off");
    assert!(start.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_the_last_of_ten_saves_runs_and_the_others_waiters_hear_that_they_were_skipped() {
    let bench = Bench::new();
    for n in 1..=10 {
        bench.ask(save("ada", 7), n, work);
    }
    bench.queue.skip_all_to_last();
    assert_eq!(
        bench.refused(),
        (1..=9).map(|n| (n, NotRun::Skipped)).collect::<Vec<_>>()
    );
    bench.queue.drained().await;
    assert_eq!(bench.ran(), [10]);
}

#[tokio::test(start_paused = true)]
async fn skipping_spares_what_is_running_and_what_is_not_followed_by_its_own_session() {
    let bench = Bench::new();
    bench.ask(save("ada", 1), 1, |_| async { tokio::time::sleep(SECOND).await });
    tokio::time::sleep(SECOND / 2).await;
    bench.ask(save("ada", 1), 2, work); // skipped: followed by the close of session 1
    bench.ask(Request::of("ada").series(1), 3, work); // a close
    bench.ask(Request::of("ada").skip(Skip::Always), 4, work); // a load nobody will use
    bench.ask(save("ada", 2), 5, work); // the last save of session 2
    bench.ask(save("ada", 3), 6, work); // another session behind it is no reason to skip session 2's
    bench.queue.skip_all_to_last();
    assert_eq!(bench.refused(), [(2, NotRun::Skipped), (4, NotRun::Cancelled)]);
    bench.queue.drained().await;
    assert_eq!(bench.ran(), [1, 3, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_request_about_two_players_is_never_skipped() {
    let bench = Bench::new();
    bench.ask(Request::of("ada"), 1, |_| async {
        tokio::time::sleep(SECOND).await;
    });
    tokio::time::sleep(SECOND / 2).await;
    bench.ask(
        Request::of_all(["ada", "bob"]).series(1).skip(Skip::IfFollowed),
        2,
        work,
    );
    bench.ask(save("ada", 1), 3, work);
    bench.queue.skip_all_to_last();
    bench.queue.drained().await;
    assert_eq!(bench.ran(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_hurry_cuts_one_backoff_short_and_no_more() {
    let bench = Bench::new();
    let start = Instant::now();
    bench.ask(Request::of("ada"), 1, |mut turn| async move {
        turn.backoff(60 * SECOND).await;
        turn.backoff(60 * SECOND).await;
    });
    tokio::time::sleep(SECOND).await;
    bench.queue.skip_all_to_last();
    bench.queue.drained().await;
    assert_eq!(
        start.elapsed().as_secs(),
        61,
        "the first pause ended after 1 s, the second one lasted"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hurry_during_an_attempt_cuts_the_pause_after_it_short() {
    let bench = Bench::new();
    let start = Instant::now();
    bench.ask(Request::of("ada"), 1, |mut turn| async move {
        tokio::time::sleep(2 * SECOND).await;
        turn.backoff(60 * SECOND).await;
    });
    tokio::time::sleep(SECOND).await;
    bench.queue.skip_all_to_last();
    bench.queue.drained().await;
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_about_two_players_waits_for_both_and_holds_both_up() {
    let bench = Bench::new();
    bench.ask(Request::of("ada"), 1, |_| async {
        tokio::time::sleep(SECOND).await;
    });
    bench.ask(Request::of_all(["ada", "bob", "ada"]), 2, |_| async {
        tokio::time::sleep(SECOND).await;
    });
    bench.ask(Request::of("bob"), 3, work);
    bench.ask(Request::of("ada"), 4, work);
    bench.ask(Request::of("eve"), 5, work);
    assert_eq!(
        [
            bench.queue.len(&"ada"),
            bench.queue.len(&"bob"),
            bench.queue.len(&"eve"),
            bench.queue.total_len()
        ],
        [3, 2, 1, 5]
    );
    bench.queue.drained().await;
    assert_eq!(
        bench.ran()[..3],
        [5, 1, 2],
        "eve is not concerned, and bob waits behind the request with ada"
    );
    assert_eq!(bench.queue.total_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_name_the_same_players_in_any_order_do_not_wait_for_each_other() {
    let bench = Bench::new();
    for n in 0..100 {
        let keys = match n % 3 {
            0 => ["ada", "bob"],
            1 => ["bob", "eve"],
            _ => ["eve", "ada"],
        };
        bench.ask(Request::of_all(keys), n, work);
    }
    let drained = tokio::time::timeout(60 * SECOND, bench.queue.drained()).await;
    assert!(drained.is_ok(), "{} requests are stuck", bench.queue.total_len());
    assert_eq!(bench.ran().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_panics_is_answered_with_its_message_and_does_not_wedge_its_key() {
    let bench = Bench::new();
    bench.ask(Request::of("ada"), 1, |_| async {
        tokio::task::yield_now().await;
        panic!("the store has a bug");
    });
    bench.ask(Request::of("ada"), 2, work);
    bench.queue.drained().await;
    assert_eq!(
        bench.refused(),
        [(1, NotRun::Panicked("the store has a bug".to_owned()))]
    );
    assert_eq!(bench.ran(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_panics_does_not_wedge_its_key_nor_whoever_skips_it() {
    let bench = Bench::new();
    let ada = || Request::of("ada").skip(Skip::Always);
    bench.queue.enqueue(ada(), work, |_| panic!("a bug in the game"));
    bench.ask(ada(), 1, |_| async { tokio::time::sleep(SECOND).await });
    tokio::time::sleep(SECOND / 2).await;
    bench.queue.enqueue(ada(), work, |_| panic!("a bug in the game"));
    bench.queue.skip_all_to_last();
    bench.ask(ada(), 2, work);
    bench.queue.drained().await;
    assert_eq!(bench.ran(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_cancels_what_has_not_started_and_nothing_else() {
    let bench = Bench::new();
    let running = bench.ask(Request::of("ada"), 1, |_| async {
        tokio::time::sleep(SECOND).await;
    });
    let waiting = bench.ask(Request::of_all(["ada", "bob"]), 2, work);
    bench.ask(Request::of("bob"), 3, work);
    tokio::time::sleep(SECOND / 2).await;
    assert!(bench.ran().is_empty());
    assert!(!running.cancel(), "it has started");
    assert!(waiting.cancel());
    assert!(!waiting.cancel(), "it is gone");
    assert_eq!(bench.refused(), [(2, NotRun::Cancelled)]);
    bench.queue.drained().await;
    assert_eq!(bench.ran(), [3, 1], "bob no longer waits for ada's request");
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_the_last_answer() {
    let bench = Bench::new();
    bench.queue.drained().await; // nothing to wait for
    bench.ask(Request::of("ada"), 1, |_| async {
        tokio::time::sleep(SECOND).await;
    });
    bench.ask(Request::of("ada"), 2, work);
    bench.queue.drained().await;
    assert_eq!(bench.ran(), [1, 2]);
    assert!(bench.queue.is_empty());
}

#[test]
fn a_runtime_that_is_shut_down_lets_go_of_everything_that_was_queued() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let queue = OrderedQueue::new(runtime.handle().clone());
    let held = Arc::new(());
    let (started, starts) = std::sync::mpsc::channel();
    for _ in 0..10_000 {
        let (held, started, inner) = (Arc::clone(&held), started.clone(), queue.clone());
        queue.enqueue(
            Request::of("ada"),
            move |_| async move {
                let _owned = (held, inner);
                started.send(()).unwrap();
                pending::<()>().await;
            },
            |_| (),
        );
    }
    starts
        .recv_timeout(10 * SECOND)
        .expect("the first request starts");
    runtime.shutdown_timeout(10 * SECOND);
    assert_eq!(Arc::strong_count(&held), 1);
    queue.enqueue(Request::of("ada"), work, |_| ());
    assert_eq!(queue.total_len(), 0, "a request that nobody can run is not kept");
}

/// What one random request does.
#[derive(Clone, Debug)]
struct Plan {
    keys: Vec<u8>,
    failures: u8,
    panics: bool,
    skip: Skip,
    series: u64,
    pause_before: u8,
    cancel: bool,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let keys = prop_oneof![
        4 => prop::collection::vec(0..4_u8, 1),
        1 => prop::collection::vec(0..4_u8, 2),
        1 => prop::collection::vec(0..4_u8, 3),
    ];
    let skip = prop_oneof![3 => Just(Skip::Never), 2 => Just(Skip::IfFollowed), 1 => Just(Skip::Always)];
    let plan = (
        keys,
        0..3_u8,
        prop::bool::weighted(0.1),
        skip,
        0..3_u64,
        0..3_u8,
        prop::bool::weighted(0.1),
    );
    let plan = plan.prop_map(
        |(keys, failures, panics, skip, series, pause_before, cancel)| Plan {
            keys,
            failures,
            panics,
            skip,
            series,
            pause_before,
            cancel,
        },
    );
    prop::collection::vec(plan, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_requests_keep_their_order_exclude_each_other_and_are_all_answered_once(
        plans in plans(),
        skip_at in 0..60_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(plans, skip_at));
    }
}

/// What happened, by key: the requests that started, in order, and how many were inside at a time.
#[derive(Default)]
struct Trace {
    started: HashMap<u8, Vec<usize>>,
    inside: HashMap<u8, usize>,
    answers: HashMap<usize, Vec<Result<(), NotRun>>>,
}

async fn check(plans: Vec<Plan>, skip_at: usize) {
    let queue = OrderedQueue::new(Handle::current());
    let trace = Arc::new(Mutex::new(Trace::default()));
    for (n, plan) in plans.iter().cloned().enumerate() {
        tokio::time::sleep(u32::from(plan.pause_before) * SECOND / 2).await;
        let request = Request::of_all(plan.keys.clone())
            .series(plan.series)
            .skip(plan.skip);
        let cancel = plan.cancel;
        let (inside, answered) = (Arc::clone(&trace), Arc::clone(&trace));
        let ticket = queue.enqueue(
            request,
            move |turn| run(plan, n, inside, turn),
            move |answer| {
                answered
                    .lock()
                    .unwrap()
                    .answers
                    .entry(n)
                    .or_default()
                    .push(answer);
            },
        );
        if cancel {
            ticket.cancel();
        }
        if n == skip_at {
            queue.skip_all_to_last();
        }
    }
    queue.drained().await;
    let trace = trace.lock().unwrap();
    for (n, plan) in plans.iter().enumerate() {
        let [answer] = trace.answers[&n].as_slice() else {
            panic!("request {n} was not answered once")
        };
        let started = trace.started.values().any(|started| started.contains(&n));
        match answer {
            Ok(()) => assert!(started && !plan.panics, "request {n} answered without having run"),
            Err(NotRun::Panicked(_)) => assert!(started && plan.panics),
            Err(NotRun::Skipped) => {
                assert!(
                    !started && plan.skip == Skip::IfFollowed,
                    "request {n} was skipped"
                );
                let followed = plans[n + 1..].iter().any(|later| later.series == plan.series);
                assert!(followed, "request {n} was skipped, and nothing follows it");
            }
            Err(NotRun::Cancelled) => assert!(!started && (plan.cancel || plan.skip == Skip::Always)),
        }
    }
    for (key, started) in &trace.started {
        assert!(started.is_sorted(), "key {key} ran out of order: {started:?}");
    }
    assert_eq!(queue.total_len(), 0);
}

async fn run(mut plan: Plan, n: usize, trace: Arc<Mutex<Trace>>, mut turn: Turn) {
    plan.keys.sort_unstable();
    plan.keys.dedup();
    {
        let mut trace = trace.lock().unwrap();
        for &key in &plan.keys {
            trace.started.entry(key).or_default().push(n);
            *trace.inside.entry(key).or_default() += 1;
        }
    }
    for _ in 0..plan.failures {
        turn.backoff(SECOND).await;
    }
    let mut most = 0;
    {
        let mut trace = trace.lock().unwrap();
        for key in &plan.keys {
            let inside = trace.inside.get_mut(key).unwrap();
            most = most.max(*inside);
            *inside -= 1;
        }
    }
    assert_eq!(most, 1, "two requests of one key ran at a time");
    assert!(!plan.panics, "as planned");
}

async fn work(_: Turn) {}

fn save(key: &'static str, series: u64) -> Request<&'static str> {
    Request::of(key).series(series).skip(Skip::IfFollowed)
}

type Answers = Vec<(u32, Result<(), NotRun>)>;

/// A queue whose requests are numbered, and what became of them, in the order in which their waiters heard it.
struct Bench {
    queue: OrderedQueue<&'static str>,
    answers: Arc<Mutex<Answers>>,
}

impl Bench {
    fn new() -> Self {
        Self {
            queue: OrderedQueue::new(Handle::current()),
            answers: Arc::default(),
        }
    }

    fn ask<F: Future<Output = ()> + Send>(
        &self,
        request: Request<&'static str>,
        n: u32,
        job: impl FnOnce(Turn) -> F + Send + 'static,
    ) -> bevy_player_data::session::Ticket<&'static str> {
        let answers = Arc::clone(&self.answers);
        self.queue.enqueue(request, job, move |answer| {
            answers.lock().unwrap().push((n, answer));
        })
    }

    fn ran(&self) -> Vec<u32> {
        self.answers
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, answer)| answer.is_ok())
            .map(|&(n, _)| n)
            .collect()
    }

    fn refused(&self) -> Vec<(u32, NotRun)> {
        let answers = self.answers.lock().unwrap();
        answers
            .iter()
            .filter_map(|(n, answer)| Some((*n, answer.clone().err()?)))
            .collect()
    }
}
