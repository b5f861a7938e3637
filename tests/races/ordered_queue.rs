//! The ordered queue as long as its runtime lives.

use shuttle::{future::yield_now, thread::spawn};

use crate::{
    broken::Mechanism,
    explore::{Property, count},
    history::{Asking, Bench, Ends, Key},
    session::queue::{NotRun, Skip, Turn},
    sync::{Arc, mpsc, oneshot, step},
    time::FOREVER,
};

/// Three game threads ask about two players, some of them about both; jobs and waiters panic.
const ORDER: Property = Property {
    name: "requests_run_one_at_a_time_in_the_order_asked_for_and_each_is_answered_once",
    scenario: || mixed(|bench, keys| drop(bench.ask(keys, Ends::Well))),
    transitions: &["done", "panicked", "waited for another", "waited with two keys"],
};

/// How a request about two keys is asked for.
type AskBoth = fn(&Bench, &[Key]);

fn mixed(ask_both: AskBoth) {
    let bench = Bench::new();
    let plans: [fn(&Bench, AskBoth); 3] = [
        |bench, ask_both| {
            bench.ask(&["ada"], Ends::Well);
            ask_both(bench, &["ada", "bob"]);
        },
        |bench, ask_both| {
            bench.ask(&["bob"], Ends::JobPanics);
            ask_both(bench, &["bob", "ada"]);
        },
        |bench, _| {
            bench.ask(&["ada"], Ends::WaiterPanics);
            bench.ask(&["bob"], Ends::Well);
        },
    ];
    let threads = plans.map(|plan| {
        let bench = bench.clone();
        spawn(move || plan(&bench, ask_both))
    });
    for thread in threads {
        thread.join().unwrap();
    }
    bench.drain();
    bench.check();
}

#[test]
fn requests_run_one_at_a_time_in_the_order_asked_for_and_each_is_answered_once() {
    ORDER.holds();
}

/// The control: two places that are taken one after the other.
#[test]
fn a_request_that_takes_its_two_places_one_by_one_is_found_out() {
    fn one_by_one(bench: &Bench, keys: &[Key]) {
        let (both, second) = (bench.clone(), keys[1]);
        bench.ask_for(&keys[..1], None, Skip::Never, Ends::Well, move |_| async move {
            let (has_it, got_it) = oneshot::channel();
            both.ask_for(&[second], None, Skip::Never, Ends::Well, |_| async move {
                let _ = has_it.send(());
            });
            let _ = got_it.await;
        });
    }
    let control = Property {
        scenario: || mixed(one_by_one),
        ..ORDER
    };
    control.is_violated("deadlock");
}

/// The control: no queue at all.
#[test]
fn requests_that_run_as_they_come_are_found_out() {
    fn at_once(bench: &Bench, keys: &[Key]) {
        let (id, bench) = (bench.open(keys, None), bench.clone());
        bench.runtime.clone().spawn(async move {
            bench.start(id);
            yield_now().await;
            bench.end(id);
            bench.answer(id, Ok(()));
        });
    }
    let control = Property {
        scenario: || mixed(at_once),
        ..ORDER
    };
    control.is_violated("about the same key");
}

/// Two threads cancel what was asked for, while its turn comes.
const CANCEL: Property = Property {
    name: "either_the_start_or_one_cancel_wins",
    scenario: || cancelled_while_it_starts(|_, asking| asking.ticket.cancel()),
    transitions: &["a cancel won", "the start won", "done", "cancelled"],
};

fn cancelled_while_it_starts(cancel: fn(&Bench, &Asking) -> bool) {
    let bench = Bench::new();
    bench.ask(&["ada"], Ends::Well);
    let asking = Arc::new(bench.ask(&["ada"], Ends::Well));
    let cancels = [(); 2].map(|()| {
        let (bench, asking) = (bench.clone(), Arc::clone(&asking));
        spawn(move || {
            let won = cancel(&bench, &asking);
            let heard = bench.answer_to(asking.id).is_some();
            assert!(
                heard || !won,
                "a request was cancelled before its waiter had heard of it"
            );
            won
        })
    });
    let wins: usize = cancels
        .map(|thread| usize::from(thread.join().unwrap()))
        .into_iter()
        .sum();
    bench.drain();
    let cancelled = bench.answer_to(asking.id) == Some(Err(NotRun::Cancelled));
    count(if cancelled {
        "a cancel won"
    } else {
        "the start won"
    });
    bench.check();
    assert_eq!(wins, usize::from(cancelled), "as many cancels said that they won");
}

#[test]
fn either_the_start_or_one_cancel_wins() {
    CANCEL.holds();
}

/// The control: a cancel that looks and acts in two steps.
#[test]
fn a_cancel_that_looks_before_it_acts_is_found_out() {
    let control = Property {
        scenario: || {
            cancelled_while_it_starts(|bench, asking| {
                if bench.has_started(asking.id) {
                    return false;
                }
                step();
                bench.answer(asking.id, Err(NotRun::Cancelled));
                true
            });
        },
        ..CANCEL
    };
    control.is_violated("answers");
}

/// The server is about to exit while saves, a close and a load are asked for. The load backs off until somebody hurries.
const SKIP: Property = Property {
    name: "skipping_loses_no_last_save_and_leaves_no_load_behind",
    scenario: || skipped_while_asked(|bench, _| bench.queue.skip_all_to_last()),
    transitions: &["skipped", "cancelled", "done", "the load was hurried"],
};

fn skipped_while_asked(skip: fn(&Bench, &[Asking])) {
    let bench = Bench::new();
    let saves = {
        let bench = bench.clone();
        spawn(move || [(); 3].map(|()| bench.save("ada", 1)))
    };
    let others = {
        let bench = bench.clone();
        spawn(move || {
            bench.save("bob", 2);
            let close = bench.close("bob", 2);
            let backs_off = |mut turn: Turn| async move { turn.backoff(FOREVER).await };
            let load = bench.ask_for(&["ada"], None, Skip::Always, Ends::Well, backs_off);
            (close, load)
        })
    };
    let early = {
        let bench = bench.clone();
        spawn(move || bench.queue.skip_all_to_last())
    };
    let saves = saves.join().unwrap();
    let (close, load) = others.join().unwrap();
    skip(&bench, &saves);
    early.join().unwrap();
    bench.drain();
    assert_eq!(
        bench.answer_to(saves[2].id),
        Some(Ok(())),
        "the last save has to land"
    );
    assert_eq!(bench.answer_to(close.id), Some(Ok(())), "a close has to land");
    if bench.answer_to(load.id) == Some(Ok(())) {
        count("the load was hurried");
    }
    bench.check();
}

#[test]
fn skipping_loses_no_last_save_and_leaves_no_load_behind() {
    SKIP.holds();
}

/// The control: a skip that drops the last save too.
#[test]
fn skipping_whatever_has_not_started_is_found_out() {
    let control = Property {
        scenario: || {
            skipped_while_asked(|bench, saves| {
                for save in saves {
                    save.ticket.cancel();
                }
                bench.queue.skip_all_to_last();
            });
        },
        ..SKIP
    };
    control.is_violated("the last save has to land");
}

/// Somebody waits for the end while requests come, ask for others and are cancelled.
const DRAIN: Property = Property {
    name: "waiting_for_the_end_ends_and_not_too_early",
    scenario: || {
        let bench = Bench::new();
        let plans: [fn(&Bench); 2] = [
            |bench| {
                let next = bench.clone();
                bench.ask_for(&["ada"], None, Skip::Never, Ends::Well, move |_| async move {
                    next.ask(&["ada"], Ends::JobPanics);
                });
            },
            |bench| {
                bench.ask(&["bob"], Ends::Well).ticket.cancel();
            },
        ];
        let askers = plans.map(|plan| {
            let bench = bench.clone();
            spawn(move || plan(&bench))
        });
        let waiters = [(); 2].map(|()| {
            let bench = bench.clone();
            spawn(move || {
                let requests = bench.requests();
                count(if bench.queue.is_empty() {
                    "nothing to wait for"
                } else {
                    "something to wait for"
                });
                bench.drain();
                assert_eq!(bench.unanswered_of(requests), 0, "the wait ended too early");
            })
        });
        for thread in askers.into_iter().chain(waiters) {
            thread.join().unwrap();
        }
        bench.drain();
        bench.check();
    },
    transitions: &[
        "nothing to wait for",
        "something to wait for",
        "done",
        "panicked",
        "cancelled",
    ],
};

#[test]
fn waiting_for_the_end_ends_and_not_too_early() {
    DRAIN.holds();
}

/// The control: who waits is registered only after having looked.
#[test]
fn a_wait_that_looks_before_it_registers_is_found_out() {
    DRAIN.is_violated_without(Mechanism::NotifiedIsRegisteredWhenMade, "deadlock");
}

/// A job backs off twice, for ever each time, and each time somebody who knows that it has started is in a hurry.
const HURRY: Property = Property {
    name: "each_hurry_cuts_a_pause_of_what_has_started",
    scenario: || {
        let bench = Bench::new();
        let (attempt, attempts) = mpsc::channel();
        let backs_off = move |mut turn: Turn| async move {
            turn.backoff(FOREVER).await;
            attempt.send(()).unwrap();
            turn.backoff(FOREVER).await;
        };
        let asking = bench.ask_for(&["ada"], None, Skip::Never, Ends::Well, backs_off);
        if asking.ticket.cancel() {
            count("not started");
        } else {
            count("hurried");
            bench.queue.skip_all_to_last();
            attempts.recv().unwrap();
            bench.queue.skip_all_to_last();
        }
        bench.drain();
        bench.check();
    },
    transitions: &["not started", "hurried", "done", "cancelled"],
};

#[test]
fn each_hurry_cuts_a_pause_of_what_has_started() {
    HURRY.holds();
}

/// The control: who pauses is registered only after having looked whether somebody is in a hurry.
#[test]
fn a_hurry_that_comes_between_looking_and_registering_is_found_out() {
    HURRY.is_violated_without(Mechanism::NotifiedIsRegisteredWhenMade, "deadlock");
}
