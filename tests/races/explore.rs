//! Runs a scenario under many schedules: what happened is counted, and a failure is told with the command that repeats
//! it.

use real_std::{cell::RefCell, sync::Once};
use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler},
};

use crate::{
    any::Any,
    broken::{self, Mechanism},
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    settings::number,
};

/// How many properties share the schedules that `RACES_SCHEDULES` asks for.
const PROPERTIES: u64 = 9;
/// From how many schedules of one property on everything that it is about has to have happened.
const ENOUGH: u64 = 200;
/// Within how many schedules a control has to be found out.
const CONTROL: u64 = 20_000;
/// How often PCT lowers a task's priority in one schedule.
const PCT_DEPTH: usize = 3;
const SCHEDULES: &str = "schedules";
/// The message of panics that are part of a scenario.
pub const ON_PURPOSE: &str = "on purpose";

/// What has to hold under each schedule.
pub struct Property {
    /// The test's name.
    pub name: &'static str,
    /// Panics, or ends in a deadlock, when the property is violated.
    pub scenario: fn(),
    /// What the scenario [counts](count), all of which has to happen.
    pub transitions: &'static [&'static str],
}

struct Found {
    message: String,
    schedule: String,
}

thread_local! {
    static COUNTS: RefCell<BTreeMap<&'static str, u64>> = RefCell::default();
}

/// Counts one of the transitions of the scenario that is running.
pub fn count(transition: &'static str) {
    COUNTS.with_borrow_mut(|counts| *counts.entry(transition).or_default() += 1);
}

impl Property {
    /// Looks for a violation, half of the time step by step, half of the time by PCT.
    pub fn holds(&self) {
        if let Ok(schedule) = env::var("RACES_REPLAY") {
            let schedule: String = schedule.split_whitespace().collect();
            return self
                .run(ReplayScheduler::new_from_encoded(&schedule))
                .unwrap_or_else(|found| panic!("{}", found.message));
        }
        let schedules = number("RACES_SCHEDULES")
            .unwrap_or(4_500_u64)
            .div_ceil(PROPERTIES)
            .max(2);
        self.run_both(schedules).unwrap_or_else(|found| self.fail(&found));
        let times: Vec<_> = self
            .transitions
            .iter()
            .map(|what| (what, counted(what)))
            .collect();
        println!(
            "{}: {} schedules, 0 violations, {times:?}",
            self.name,
            counted(SCHEDULES)
        );
        for (what, times) in times {
            assert!(
                times > 0 || schedules < ENOUGH,
                "\"{what}\" never happened: the scenario doesn't test what it is for"
            );
        }
    }

    /// Takes a mechanism out and sees that this property notices, for this reason.
    pub fn is_violated_without(&self, mechanism: Mechanism, reason: &str) {
        broken::take_out(mechanism);
        self.is_violated(reason);
    }

    /// Sees that this property doesn't hold, for this reason.
    pub fn is_violated(&self, reason: &str) {
        let Err(found) = self.run_both(CONTROL) else {
            panic!("{}: nothing was found in {CONTROL} schedules", self.name);
        };
        assert!(
            found.message.contains(reason),
            "{}: found out, but for another reason: {}",
            self.name,
            found.message
        );
        println!(
            "{} (control): found out in schedule {}: {}",
            self.name,
            counted(SCHEDULES),
            found.message
        );
    }

    fn run_both(&self, schedules: u64) -> Result<(), Found> {
        let seed = number("RACES_SEED").unwrap_or(1);
        let half = usize::try_from(schedules.div_ceil(2)).expect("that many schedules would take years");
        self.run(RandomScheduler::new_from_seed(seed, half))?;
        self.run(PctScheduler::new_from_seed(seed, PCT_DEPTH, half))
    }

    fn run(&self, scheduler: impl Scheduler + 'static) -> Result<(), Found> {
        take_shuttles_hook_out();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new();
        config.failure_persistence = FailurePersistence::File(Some(folder.path().to_owned()));
        // Enough for a panic's backtrace.
        config.stack_size = 0x4_0000;
        let scenario = self.scenario;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            Runner::new(scheduler, config).run(move || {
                count(SCHEDULES);
                scenario();
            })
        }));
        ran.map(|_| ()).map_err(|panic| {
            let schedules = fs::read_dir(folder.path()).unwrap();
            let schedule = schedules
                .last()
                .map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
            Found {
                message: message(&*panic),
                schedule: schedule.unwrap_or_default().split_whitespace().collect(),
            }
        })
    }

    fn fail(&self, found: &Found) -> ! {
        panic!(
            "{}\nto see this schedule again:\nRACES_REPLAY={} cargo test --profile model --test races {}",
            found.message, found.schedule, self.name
        );
    }
}

fn counted(transition: &str) -> u64 {
    COUNTS.with_borrow(|counts| counts.get(transition).copied().unwrap_or_default())
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// Shuttle reports each panic as a failure, those too that are caught. Failures that end a schedule reach `run` anyway.
fn take_shuttles_hook_out() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let own = take_hook();
        shuttle::check_random(|| (), 1);
        set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some(ON_PURPOSE) {
                own(info);
            }
        }));
    });
}
