//! The hand-over to the thread that owns a database connection: asking, answering, dying and going away.

use shuttle::{
    future::block_on,
    sync::atomic::{AtomicU32, Ordering},
    thread::{JoinHandle, spawn},
};

use super::worker::{Reply, Worker};
use crate::{
    broken::Mechanism,
    explore::{ON_PURPOSE, Property, count},
    future::poll_fn,
    path::Path,
    pin::pin,
    store::StoreError,
    sync::{Arc, mpsc, oneshot, step},
    task::Poll,
};

/// How many jobs the thread takes on at once, as the writer's does.
const GROUP: usize = 2;

struct Job {
    work: Work,
    number: u32,
    reply: Reply<u32>,
}

enum Work {
    /// Counts that it was done.
    Count(Arc<AtomicU32>),
    /// Panics, which ends the thread.
    Panic,
    /// Lets go of what may be the last handle to the thread.
    LetGo(Arc<Worker<Job>>),
}

type Serve = fn(&mpsc::Receiver<Job>);

fn start(serve: Serve) -> (Arc<Worker<Job>>, oneshot::Receiver<()>) {
    let (ended, end) = oneshot::channel();
    let worker = Worker::start("test", Path::new("players.db"), move |queue| {
        serve(&queue);
        drop(queue);
        let _ = ended.send(());
    });
    (Arc::new(worker.unwrap()), end)
}

/// Like the writer: a group is taken, then its work is done, then everybody in it is answered.
fn in_groups(queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        count(if group.len() > 1 {
            "a group of several"
        } else {
            "a group of one"
        });
        let answers: Vec<_> = group
            .into_iter()
            .map(|job| {
                job.work.run();
                (job.reply, job.number)
            })
            .collect();
        for (reply, number) in answers {
            let _ = reply.send(Ok(number));
        }
    }
}

fn replies_first(queue: &mpsc::Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        let _ = job.reply.send(Ok(job.number));
        job.work.run();
    }
}

impl Work {
    fn run(self) {
        step();
        match self {
            Self::Count(done) => {
                done.fetch_add(1, Ordering::SeqCst);
            }
            Self::Panic => panic!("{ON_PURPOSE}"),
            Self::LetGo(worker) => drop(worker),
        }
    }
}

fn ask(worker: &Worker<Job>, number: u32, work: Work) -> Result<u32, StoreError> {
    block_on(worker.ask(|reply| Job { work, number, reply }))
}

/// Queues a job and doesn't wait for its answer.
fn ask_and_go(worker: &Worker<Job>, number: u32, work: Work) {
    let mut asking = pin!(worker.ask(|reply| Job { work, number, reply }));
    block_on(poll_fn(|context| {
        let _ = asking.as_mut().poll(context);
        Poll::Ready(())
    }));
}

/// Asks, and sees that the work was done by the time of the answer.
fn ask_and_look(worker: &Worker<Job>, number: u32) {
    let done = Arc::new(AtomicU32::new(0));
    let answer = ask(worker, number, Work::Count(Arc::clone(&done)));
    assert_eq!(answer, Ok(number), "somebody else's answer, or none");
    assert_eq!(
        done.load(Ordering::SeqCst),
        1,
        "the answer came before the work was done once"
    );
    count("answered");
}

/// Several threads ask one that is dropped as soon as nobody needs it; one of them doesn't wait for its answer.
const ANSWERS: Property = Property {
    name: "each_ask_gets_its_answer_and_what_is_queued_is_done_before_the_end",
    scenario: || asked_by_several(in_groups),
    transitions: &["answered", "done unheard", "a group of one", "a group of several"],
};

fn asked_by_several(serve: Serve) {
    let (worker, _) = start(serve);
    let askers: [JoinHandle<()>; 2] = [1, 2].map(|number| {
        let worker = Arc::clone(&worker);
        spawn(move || {
            ask_and_look(&worker, number);
            ask_and_look(&worker, number + 10);
        })
    });
    let done = Arc::new(AtomicU32::new(0));
    ask_and_go(&worker, 3, Work::Count(Arc::clone(&done)));
    for asker in askers {
        asker.join().unwrap();
    }
    ask_and_go(&worker, 4, Work::Count(Arc::clone(&done)));
    drop(Arc::into_inner(worker).expect("the last handle"));
    assert_eq!(
        done.load(Ordering::SeqCst),
        2,
        "a worker was gone before what was queued was done"
    );
    count("done unheard");
}

#[test]
fn each_ask_gets_its_answer_and_what_is_queued_is_done_before_the_end() {
    ANSWERS.holds();
}

/// The control: a drop that doesn't wait for the thread.
#[test]
fn a_drop_that_does_not_wait_for_the_thread_is_found_out() {
    ANSWERS.is_violated_without(Mechanism::JoinWaits, "before what was queued was done");
}

/// The control: a thread that answers before it does the work.
#[test]
fn a_thread_that_answers_first_is_found_out() {
    let control = Property {
        scenario: || asked_by_several(replies_first),
        ..ANSWERS
    };
    control.is_violated("the answer came before the work");
}

/// The thread dies of one of the jobs.
const DEATH: Property = Property {
    name: "a_thread_that_dies_leaves_nobody_without_an_answer",
    scenario: || {
        let (worker, _) = start(in_groups);
        let culprit = {
            let worker = Arc::clone(&worker);
            spawn(move || {
                let answer = ask(&worker, 0, Work::Panic);
                assert!(
                    matches!(answer, Err(StoreError::Unavailable { .. })),
                    "{answer:?}"
                );
                let late = ask(&worker, 0, Work::Panic);
                assert!(matches!(late, Err(StoreError::Unavailable { .. })), "{late:?}");
            })
        };
        let askers = [1, 2].map(|number| {
            let worker = Arc::clone(&worker);
            spawn(move || {
                let done = Arc::new(AtomicU32::new(0));
                match ask(&worker, number, Work::Count(Arc::clone(&done))) {
                    Ok(answer) => {
                        assert_eq!((answer, done.load(Ordering::SeqCst)), (number, 1));
                        count("answered");
                    }
                    Err(StoreError::Unavailable { .. }) if done.load(Ordering::SeqCst) > 0 => {
                        count("done, and the thread died");
                    }
                    Err(StoreError::Unavailable { .. }) => count("not done, and the thread died"),
                    Err(other) => panic!("told neither done nor unavailable: {other}"),
                }
            })
        });
        for thread in askers.into_iter().chain([culprit]) {
            thread.join().unwrap();
        }
        drop(Arc::into_inner(worker).expect("the last handle"));
    },
    transitions: &[
        "answered",
        "done, and the thread died",
        "not done, and the thread died",
    ],
};

#[test]
fn a_thread_that_dies_leaves_nobody_without_an_answer() {
    DEATH.holds();
}

/// The control: what is queued when the thread dies is kept.
#[test]
fn a_queue_that_outlives_its_thread_is_found_out() {
    DEATH.is_violated_without(Mechanism::ReceiverDropsWhatIsQueued, "deadlock");
}

/// The thread itself may let go of the last handle to it.
const LET_GO: Property = Property {
    name: "a_thread_that_drops_its_own_last_handle_ends",
    scenario: || {
        let (worker, mut end) = start(in_groups);
        ask_and_go(&worker, 1, Work::LetGo(Arc::clone(&worker)));
        step();
        count(match Arc::into_inner(worker) {
            Some(last) => {
                drop(last);
                "let go of here"
            }
            None => "let go of there",
        });
        block_on(&mut end).expect("the thread ends");
    },
    transitions: &["let go of here", "let go of there"],
};

#[test]
fn a_thread_that_drops_its_own_last_handle_ends() {
    LET_GO.holds();
}

/// The control: a thread that doesn't know itself, and waits for its own end.
#[test]
fn a_thread_that_waits_for_itself_is_found_out() {
    LET_GO.is_violated_without(Mechanism::ThreadsHaveIds, "deadlock");
}
