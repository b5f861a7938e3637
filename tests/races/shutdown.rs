//! The ordered queue when its runtime is shut down under it.

use shuttle::thread::spawn;

use crate::{
    broken::Mechanism,
    explore::{Property, count},
    history::{Bench, Ends},
    session::queue::{NotRun, Skip},
};

/// Two threads ask and cancel, one waits for the end, and the runtime goes away.
const SHUTDOWN: Property = Property {
    name: "a_runtime_that_goes_away_lets_go_of_everything",
    scenario: || {
        let bench = Bench::new();
        let plans: [fn(&Bench); 4] = [
            |bench| {
                bench.ask(&["ada"], Ends::Well);
                let looks_back = LooksBack(bench.clone());
                let job = move |_| async move { drop(looks_back) };
                bench.ask_for(&["ada", "bob"], None, Skip::Never, Ends::Well, job);
            },
            |bench| {
                let first = bench.ask(&["bob"], Ends::Well);
                let second = bench.ask(&["bob"], Ends::Well);
                for asking in [second, first] {
                    if asking.ticket.cancel() {
                        let answer = bench.answer_to(asking.id);
                        assert_eq!(
                            answer,
                            Some(Err(NotRun::Cancelled)),
                            "who cancelled was told of another"
                        );
                    }
                }
            },
            |bench| bench.runtime.shut_down(),
            Bench::drain,
        ];
        let threads = plans.map(|plan| {
            let bench = bench.clone();
            spawn(move || plan(&bench))
        });
        for thread in threads {
            thread.join().unwrap();
        }
        bench.drain();
        bench.ask(&["ada"], Ends::Well);
        bench.drain();
        bench.check_after_shutdown();
    },
    transitions: &["dropped unanswered", "done", "cancelled", "looked back at nobody"],
};

/// What a job holds, and looks at the queue when it is dropped.
struct LooksBack(Bench);

impl Drop for LooksBack {
    fn drop(&mut self) {
        count(if self.0.queue.len(&"ada") > 0 {
            "looked back at others"
        } else {
            "looked back at nobody"
        });
    }
}

#[test]
fn a_runtime_that_goes_away_lets_go_of_everything() {
    SHUTDOWN.holds();
}

/// The control: a task that comes too late is neither run nor dropped.
#[test]
fn a_runtime_that_keeps_late_tasks_is_found_out() {
    SHUTDOWN.is_violated_without(Mechanism::LateTasksAreDropped, "deadlock");
}
