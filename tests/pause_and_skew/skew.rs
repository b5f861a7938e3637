//! Servers whose clocks jump.

use super::{
    clock::Faked,
    duel::{self, Duel, HOPE},
    report::Report,
};

pub const FAULTS: &[&str] = &[
    "the holder's clock jumps forward",
    "the rival's clock jumps forward",
    "the holder's clock jumps back",
    "the rival's clock jumps back",
];

const HOUR: i64 = 3600;
/// How many beats of both servers are waited for after a jump: more than two leases.
const BEATS: i64 = 7;

pub fn campaign(runs: u32, faked: Faked, broken: Option<&'static str>) -> Report {
    let round = match faked {
        Faked::Wall => wall,
        Faked::Monotonic => monotonic,
    };
    duel::campaign(runs, Some(faked), broken, round)
}

/// Whose clock jumps, and where to.
struct Jump {
    of_holder: bool,
    seconds: i64,
}

fn jump(duel: &mut Duel, n: u32) -> Jump {
    let fault = (n / 4 + n % 4) as usize % FAULTS.len();
    duel.count("fault", FAULTS[fault]);
    let jump = Jump {
        of_holder: fault.is_multiple_of(2),
        seconds: if fault < 2 { HOUR } else { -HOUR },
    };
    turn(duel, &jump, jump.seconds);
    jump
}

fn turn(duel: &mut Duel, jump: &Jump, seconds: i64) {
    let server = if jump.of_holder {
        &mut duel.holder
    } else {
        &mut duel.rival
    };
    server.clock.as_mut().unwrap().turn(seconds);
}

/// The time of day jumps on one server, and not on the other.
fn wall(duel: &mut Duel, n: u32) {
    let jump = jump(duel, n);
    let apart = (duel.holder.time() - duel.rival.time()).abs();
    assert!(
        (apart - HOUR).abs() < HOUR / 10,
        "the clocks are {apart} s apart: libfaketime does nothing here"
    );
    let (holder, rival) = (duel.holder.name, duel.rival.name);
    let enough = [holder, rival].map(|name| (name, duel.history.beats(name) + BEATS));
    let history = &duel.history;
    duel.holder.wait("goes on, as does the other", |holder| {
        holder.has_lost() || enough.iter().all(|(name, enough)| history.beats(name) >= *enough)
    });
    let kept = duel.holder_saves();
    // Where the machine itself stood still for a whole lease, the history says so.
    duel.count("outcome", if kept { "no takeover" } else { "taken over" });
    settle(duel, kept);
    turn(duel, &jump, -jump.seconds);
}

/// Every clock of one server jumps. Put back, the process stands still until its timers' hour has come: it is put right
/// before that.
fn monotonic(duel: &mut Duel, n: u32) {
    let jump = jump(duel, n);
    let is_taken = duel.rival.wait_up_to(HOPE, |rival| rival.acked().len() >= 3);
    duel.count("outcome", if is_taken { "taken over" } else { "no takeover" });
    if jump.seconds < 0 {
        turn(duel, &jump, -jump.seconds);
    }
    let kept = duel.holder_saves();
    settle(duel, kept);
}

fn settle(duel: &mut Duel, kept: bool) {
    if kept {
        duel.hand_over();
    } else {
        duel.rival_saves();
    }
}
