//! Servers that stand still.

use std::{thread, time::Duration};

use super::{
    duel::{self, Duel, HOPE},
    report::Report,
    server::TTL,
};

pub const FAULTS: &[&str] = &[
    "stopped anywhere",
    "stopped at save.queued",
    "stopped at commit.before",
    "stopped at commit.done",
    "the rival stopped at acquire.judged",
    "stopped for less than the lease",
    "all stopped at once",
];

pub fn campaign(runs: u32, broken: Option<&'static str>) -> Report {
    duel::campaign(runs, None, broken, round)
}

fn round(duel: &mut Duel, n: u32) {
    // There is an odd number of them, so that each comes to each pair of servers.
    let fault = FAULTS[n as usize % FAULTS.len()];
    duel.count("fault", fault);
    match fault.strip_prefix("stopped at ") {
        Some(step) => stopped_at(duel, step),
        None if fault.starts_with("the rival") => rival_stopped(duel),
        None if fault.ends_with("lease") => stopped_briefly(duel),
        None if fault.starts_with("all") => all_stopped(duel),
        None => {
            let after = duel.random.u64(0..150);
            thread::sleep(Duration::from_millis(after));
            duel.holder.stop();
            stands_still(duel, HOPE);
        }
    }
}

fn stopped_at(duel: &mut Duel, step: &str) {
    duel.holder.tell(&format!("stop-at {step}"));
    duel.holder.wait("stands still", |holder| holder.is_stopped());
    // In the middle of a transaction it keeps the file to itself: nobody can take anything over.
    let patience = if step == "commit.before" {
        TTL * 3 / 2
    } else {
        HOPE
    };
    stands_still(duel, patience);
}

/// The holder is stopped: lets the rival take the player over, and then the holder go on.
fn stands_still(duel: &mut Duel, patience: Duration) {
    let is_taken = duel.rival.wait_up_to(patience, |rival| rival.acked().len() >= 3);
    duel.count(
        "outcome",
        if is_taken {
            "the rival took over a stopped server's player"
        } else {
            "the stopped server kept its player"
        },
    );
    duel.holder.go_on();
    if duel.holder_saves() && !is_taken {
        return duel.hand_over();
    }
    // What the holder still has to say must not touch what the rival goes on to save.
    duel.rival_saves();
}

/// The rival has judged that the holder's lease has lapsed, and stands still until the holder is back.
fn rival_stopped(duel: &mut Duel) {
    duel.rival.tell("stop-at acquire.judged");
    duel.holder.stop();
    let has_judged = duel.rival.wait_up_to(HOPE, |rival| rival.is_stopped());
    duel.holder.go_on();
    if has_judged {
        let beats = duel.history.beats(duel.holder.name);
        let holder = duel.holder.name;
        let history = &duel.history;
        let is_back = duel.holder.wait_up_to(HOPE, |_| history.beats(holder) > beats);
        if is_back {
            duel.count("outcome", "a verdict was out of date");
        }
    } else {
        duel.rival.tell("go-on");
    }
    duel.rival.go_on();
    if duel.holder_saves() {
        duel.hand_over();
    } else {
        duel.rival_saves();
    }
}

fn stopped_briefly(duel: &mut Duel) {
    duel.holder.stop();
    let pause = TTL.mul_f64(0.2 + 0.5 * duel.random.f64());
    thread::sleep(pause);
    duel.holder.go_on();
    if duel.holder_saves() {
        duel.count("outcome", "the stopped server kept its player");
        duel.hand_over();
    } else {
        duel.rival_saves();
    }
}

/// Both stand still, as when their machine or container is frozen, the rival with a look at the others' beats on its way:
/// nobody has seen anybody stand still.
fn all_stopped(duel: &mut Duel) {
    duel.rival.tell("stop-at lease.answered");
    duel.rival.wait("stands still", |rival| rival.is_stopped());
    duel.holder.stop();
    thread::sleep(TTL * 3 / 2);
    duel.thawed = Some(duel.history.end());
    duel.rival.go_on();
    // As long as it takes to have the second of two processes go on.
    thread::sleep(Duration::from_millis(duel.random.u64(0..20)));
    duel.holder.go_on();
    if duel.holder_saves() {
        duel.count("outcome", "nobody was taken over after all had stood still");
        duel.hand_over();
    } else {
        duel.rival_saves();
    }
}
