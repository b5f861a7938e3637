//! For crash tests: ends this process at a named step, and breaks the store on purpose.
//!
//! `CRASH_AT=commit.done:3` ends the process, as `kill -9` does, when it reaches that step for the third time.
//! `SABOTAGE=split-trades` or `split-purchases` saves in two transactions what belongs in one: a crash test that finds
//! nothing wrong with that is no test.

use std::{
    num::NonZeroU64,
    process::{self, Command},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use bevy_player_data::{steps, store::Store};

use self::split_store::{Split, SplitStore};

#[path = "../../tests/support/split_store.rs"]
mod split_store;

/// Between the two transactions of a sabotaged store.
const SPLIT: &str = "split.between";

static CRASH: OnceLock<Crash> = OnceLock::new();

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
        steps::on_step(reached);
    }
    match std::env::var("SABOTAGE").as_deref() {
        Err(_) => Ok(store),
        Ok("split-trades") => Ok(Arc::new(SplitStore::new(store, Split::Trades, between))),
        Ok("split-purchases") => Ok(Arc::new(SplitStore::new(store, Split::Purchases, between))),
        Ok(other) => Err(format!(
            "`SABOTAGE={other}`: there is only `split-trades` and `split-purchases`"
        )),
    }
}

fn between() {
    reached(SPLIT);
}

fn reached(step: &str) {
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
