//! What each event does to a state of the [model of leases](super).

use super::{Action, Beat, Leases, Mode, Seat, Server, State, watch::TTL};
use crate::{
    Mechanism,
    run::Event,
    store::{AcquireRow, Boot, Granted, Refusal, Rows, WriteRow},
};

const PLAYER: u8 = 0;
const FIRST_SEQ: u8 = 1;

pub fn apply(model: &Leases, state: &mut State, action: Action) {
    let count = |event| model.tally.count(event);
    match action {
        Action::Tick => {
            count(Event::Tick);
            state.left.time -= 1;
            for server in &mut state.servers {
                server.has_beaten = false;
                server.watch.tick();
            }
            state.ages = state.ages.map(|age| TTL.min(age + 1));
        }
        Action::Beat { server, outcome } => {
            count(Event::Beat);
            if outcome != Beat::Answered {
                count(Event::FailedBeat);
                state.left.faults -= 1;
            }
            beat(model, state, server, outcome);
        }
        Action::Pause { server } => {
            count(Event::Pause);
            state.left.faults -= 1;
            state.at(server).mode = Mode::Paused;
        }
        Action::Resume { server } => {
            count(Event::Resume);
            state.at(server).mode = Mode::Up;
        }
        Action::Crash { server } => {
            count(Event::Crash);
            state.left.faults -= 1;
            let at = state.at(server);
            // Nothing of it is left but what tells the next boot from it.
            *at = Server {
                mode: Mode::Down,
                last_lock: at.last_lock,
                ..Server::booted(at.boot, &Rows::default())
            };
        }
        Action::Restart { server } => {
            count(Event::Restart);
            state.at(server).boot += 1;
            let boot = state.boot(server);
            state.rows.register(boot);
            let rows = state.rows;
            let at = state.at(server);
            *at = Server {
                last_lock: at.last_lock,
                ..Server::booted(boot.number, &rows)
            };
            state.ages[usize::from(server)] = 0;
        }
        Action::Load { server } => {
            count(Event::Load);
            state.left.loads -= 1;
            let at = state.at(server);
            at.last_lock += 1;
            at.seat = Seat::Loading {
                lock: at.last_lock,
                waits: None,
                orphan: None,
            };
        }
        Action::Ask { server } => ask(model, state, server),
        Action::TimeOut { server } => {
            count(Event::AnswerLost);
            state.left.faults -= 1;
            unanswered(model, state, server);
        }
        Action::GiveUp { server } => {
            count(Event::FailedLoad);
            let at = state.at(server);
            if let Seat::Loading { lock, .. } = at.seat {
                at.seat = if at.suspects(lock) {
                    Seat::Settling { lock, waits: None }
                } else {
                    Seat::Free
                };
            }
        }
        Action::Close { server } => {
            count(Event::Close);
            if let Seat::Playing { lock, fence } = state.at(server).seat {
                let lost = release(state, lock, fence, FIRST_SEQ).is_err();
                count(if lost { Event::SessionLost } else { Event::Accepted });
                state.at(server).seat = Seat::Free;
            }
        }
        Action::Deliver { acquire, answered } => {
            if let Some(place) = state.network.iter().position(|other| *other == acquire) {
                state.network.remove(place);
            }
            deliver(model, state, &acquire, answered);
        }
    }
}

fn beat(model: &Leases, state: &mut State, server: u8, outcome: Beat) {
    let place = usize::from(server);
    state.at(server).has_beaten = true;
    if outcome != Beat::Lost {
        state.rows.leases[place].beat += 1;
        state.ages[place] = 0;
    }
    if matches!(outcome, Beat::Lost | Beat::Unanswered) {
        let at = state.at(server);
        at.unanswered += 1;
        return at.watch.failed();
    }
    let leases = state.rows.leases;
    let at = state.at(server);
    (at.own_beat, at.unanswered) = (leases[place].beat, 0);
    at.watch.read(&leases);
    if outcome == Beat::Answered {
        look_for_late_locks(model, state, server);
    }
}

/// As `session/settle.rs` does it at each beat.
fn look_for_late_locks(model: &Leases, state: &mut State, server: u8) {
    let boot = state.boot(server);
    for place in 0..state.at(server).suspects.len() {
        let at = *state.at(server);
        let Some((lock, until_beat)) = at.suspects[place].filter(|&(lock, _)| !at.uses(lock)) else {
            continue;
        };
        let row = state.rows.players[usize::from(PLAYER)];
        if row.held == Some((lock, boot)) {
            model.tally.count(Event::LateLock);
            release(state, lock, row.fence, row.last_seq + 1)
                .expect("the look and the release are one step here");
        }
        if at.own_beat > until_beat {
            state.at(server).suspects[place] = None;
        }
    }
    state.at(server).suspects.sort_unstable();
}

fn release(state: &mut State, lock: u8, fence: u8, seq: u8) -> Result<(), Refusal> {
    let write = WriteRow {
        player: PLAYER,
        lock,
        fence,
        seq,
        document: None,
        settle: false,
        release: true,
    };
    state.rows.commit(&[write], None).map(|_| ())
}

fn ask(model: &Leases, state: &mut State, server: u8) {
    let (boot, rows, at) = (state.boot(server), state.rows, *state.at(server));
    let until_beat = at.own_beat + at.unanswered + 2;
    let (lock, orphan, loads) = match at.seat {
        Seat::Loading { lock, orphan, .. } => (lock, orphan, true),
        Seat::Settling { lock, .. } => (lock, None, false),
        _ => return,
    };
    let lapsed = std::array::from_fn(|other| {
        // A server whose wall clock is an hour ahead finds that every lease has expired.
        if model.without == Some(Mechanism::ObservedBeats) && server == 0 {
            let row = rows.leases[other];
            return row.boot.map(|number| (boot_of(other, number), row.beat));
        }
        let (number, beat) = at.watch.lapsed(other)?;
        loads.then_some((boot_of(other, number), beat))
    });
    state.at(server).seat = match at.seat {
        Seat::Loading { lock, orphan, .. } => Seat::Loading {
            lock,
            waits: Some(until_beat),
            orphan,
        },
        _ => Seat::Settling {
            lock,
            waits: Some(until_beat),
        },
    };
    state.network.push(AcquireRow {
        player: PLAYER,
        lock,
        boot,
        lapsed,
        orphan,
        until_beat,
    });
}

fn boot_of(server: usize, number: u8) -> Boot {
    Boot {
        server: server as u8,
        number,
    }
}

/// Nobody knows what became of the attempt: its lock is a suspect.
fn unanswered(model: &Leases, state: &mut State, server: u8) {
    let at = state.at(server);
    let (Seat::Loading { lock, waits, .. } | Seat::Settling { lock, waits }) = &mut at.seat else {
        return;
    };
    let (lock, Some(until)) = (*lock, waits.take()) else {
        return;
    };
    if model.without == Some(Mechanism::Suspects) {
        return;
    }
    let is_free = |suspect: &&mut Option<(u8, u8)>| suspect.is_none_or(|(other, _)| other == lock);
    // The same lock's entry first.
    at.suspects
        .sort_unstable_by_key(|suspect| suspect.is_none_or(|(other, _)| other != lock));
    let entry = at
        .suspects
        .iter_mut()
        .find(is_free)
        .expect("few loads are given up");
    // An earlier attempt may be good for longer than this one.
    let earlier = match model.without {
        Some(Mechanism::LongestSuspicion) => 0,
        _ => entry.map_or(0, |(_, until)| until),
    };
    *entry = Some((lock, until.max(earlier)));
    at.suspects.sort_unstable();
}

fn deliver(model: &Leases, state: &mut State, acquire: &AcquireRow, answered: bool) {
    let held = state.rows.players[usize::from(PLAYER)].held;
    let granted = state.rows.acquire(acquire, model.without);
    model.tally.count(match &granted {
        Ok(Granted::Again) => Event::GrantedAgain,
        Ok(Granted::Free) => Event::Granted,
        Ok(Granted::TakenOver) => Event::TakenOver,
        Err(Refusal::Locked { .. }) => Event::Locked,
        Err(_) => Event::TooLate,
    });
    if let (Ok(Granted::TakenOver), Some((_, from))) = (granted, held) {
        if from == acquire.boot {
            model.tally.count(Event::Orphan);
        } else {
            state.robbed |= state.ages[usize::from(from.server)] < TTL;
        }
    }
    if answered {
        answer(model, state, acquire, granted.err());
    }
}

fn answer(model: &Leases, state: &mut State, acquire: &AcquireRow, refusal: Option<Refusal>) {
    let server = acquire.boot.server;
    let fence = state.rows.players[usize::from(PLAYER)].fence;
    let lock = acquire.lock;
    let is_settling = matches!(state.at(server).seat, Seat::Settling { .. });
    match refusal {
        None if is_settling => {
            model.tally.count(Event::GivenBack);
            // Lost meanwhile or not: it is not ours any more.
            let _ = release(state, lock, fence, FIRST_SEQ);
            state.at(server).seat = Seat::Free;
        }
        None => {
            model.tally.count(Event::Opened);
            state.at(server).seat = Seat::Playing { lock, fence };
        }
        Some(Refusal::Locked { .. }) if is_settling => state.at(server).seat = Seat::Free,
        Some(Refusal::Locked { lock: holder, boot }) => {
            let at = state.at(server);
            let is_orphan = boot == acquire.boot && !at.uses(holder);
            at.seat = Seat::Loading {
                lock,
                waits: None,
                orphan: is_orphan.then_some(holder),
            };
        }
        // Unavailable, as if it had not been answered.
        Some(_) => unanswered(model, state, server),
    }
}

impl State {
    pub fn at(&mut self, server: u8) -> &mut Server {
        &mut self.servers[usize::from(server)]
    }
}
