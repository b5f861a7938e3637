//! For crash tests: ends this process at a named step, and breaks the store on purpose.
//!
//! `CRASH_AT=commit.done:3` ends the process, as `kill -9` does, when it reaches that step for the third time.
//! `STEP_LOG=commit` says on stderr each time that it reaches a step that begins with that, so that it can be told
//! where a process was that was killed from outside. `LEASE_TTL=2` lets leases lapse after so many seconds: on
//! PostgreSQL, a restart after a crash waits for that. `SABOTAGE=split-trades` or `split-purchases` saves in two
//! transactions what belongs in one, and `early-answers` says that it has saved what it is yet to save: a crash test
//! that finds nothing wrong with that is no test. `leaks` loses some memory, a file handle or a thread with each player
//! who joins, for the soak test.

use std::{
    num::NonZeroU64,
    process::{self, Command},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bevy_player_data::{server::ServerSettings, steps, store::Store};

use self::{
    early_store::EarlyStore,
    leaky_store::LeakyStore,
    split_store::{Split, SplitStore},
};

#[path = "../../tests/support/early_store.rs"]
mod early_store;
#[path = "../../tests/support/leaky_store.rs"]
mod leaky_store;
#[path = "../../tests/support/split_store.rs"]
mod split_store;

/// Between the two transactions of a sabotaged store.
const SPLIT: &str = "split.between";

static CRASH: OnceLock<Crash> = OnceLock::new();
static LOGGED: OnceLock<String> = OnceLock::new();

struct Crash {
    step: String,
    left: AtomicU64,
}

/// Reads the environment, and does what it says.
///
/// # Errors
/// What is wrong with it.
pub fn prepare(store: Arc<dyn Store>) -> Result<Arc<dyn Store>, String> {
    if let Ok(crash) = std::env::var("CRASH_AT") {
        let (step, n) = crash.split_once(':').unwrap_or((&crash, "1"));
        let n: NonZeroU64 = n
            .parse()
            .map_err(|_| format!("`CRASH_AT={crash}`: after the colon comes a number above 0"))?;
        let crash = Crash {
            step: step.to_owned(),
            left: AtomicU64::new(n.get()),
        };
        CRASH.get_or_init(|| crash);
    }
    if let Ok(logged) = std::env::var("STEP_LOG") {
        LOGGED.get_or_init(|| logged);
    }
    steps::on_step(reached);
    match std::env::var("SABOTAGE").as_deref() {
        Err(_) => Ok(store),
        Ok("split-trades") => Ok(Arc::new(SplitStore::new(store, Split::Trades, between))),
        Ok("split-purchases") => Ok(Arc::new(SplitStore::new(store, Split::Purchases, between))),
        Ok("early-answers") => Ok(Arc::new(EarlyStore::new(store))),
        Ok("leaks") => Ok(Arc::new(LeakyStore::new(store))),
        Ok(other) => Err(format!(
            "`SABOTAGE={other}`: there is only `split-trades`, `split-purchases`, `early-answers` and `leaks`"
        )),
    }
}

/// Shortens leases, and what has to be shorter than they are.
pub fn hasten(settings: ServerSettings) -> ServerSettings {
    let ttl = std::env::var("LEASE_TTL").ok().and_then(|ttl| ttl.parse().ok());
    let Some(lease_ttl) = ttl.map(Duration::from_secs) else {
        return settings;
    };
    ServerSettings {
        beat: lease_ttl / 8,
        lease_ttl,
        exit_deadline: lease_ttl.mul_f64(0.9),
        ..settings
    }
}

fn between() {
    reached(SPLIT);
}

fn reached(step: &str) {
    if LOGGED.get().is_some_and(|logged| step.starts_with(logged)) {
        eprintln!("at {step}");
    }
    let Some(crash) = CRASH.get().filter(|crash| crash.step == step) else {
        return;
    };
    let left = crash
        .left
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    match left {
        Ok(2..) => {}
        Ok(_) => {
            eprintln!("crashing at {step}");
            let _ = Command::new("kill")
                .args(["-9", &process::id().to_string()])
                .spawn();
            park();
        }
        // Somebody else got here first, and this process is about to be killed.
        Err(_) => park(),
    }
}

fn park() -> ! {
    loop {
        thread::park();
    }
}
