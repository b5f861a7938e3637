//! What each event does to a state of the [model of commits](super).

use super::{
    Action, Asked, Commits, Kind, Loaded, Request, Seat, Session, State,
    answer::{loaded, receive},
};
use crate::{
    Mechanism,
    run::Event,
    store::{AcquireRow, Boot, Granted, PLAYERS, Refusal, SERVERS, WriteRow},
};

pub fn apply(model: &Commits, state: &mut State, action: Action) {
    let count = |event| model.tally.count(event);
    match action {
        Action::Load { server, player } => {
            count(Event::Load);
            state.left.loads -= 1;
            let begun = &mut state.begun[usize::from(player)];
            begun.loads += 1;
            let lock = begun.loads;
            *state.seat(server, player) = Seat::Loading { lock, attempt: 0 };
            state.send_acquire(server, player);
        }
        Action::FailLoad { server, player } => {
            count(Event::FailedLoad);
            state.left.faults -= 1;
            *state.seat(server, player) = Seat::Free;
        }
        Action::Award { server, player } => {
            count(Event::Award);
            state.left.awards -= 1;
            let session = state.session(server, player);
            session.document.awards += 1;
            (session.is_paid, session.unsettled, session.is_stored) = (false, true, false);
        }
        Action::Save { server, player, op } => {
            count(Event::Save);
            if op {
                state.left.ops -= 1;
                let begun = &mut state.begun[usize::from(player)];
                begun.ops += 1;
                let op = 1 << (begun.ops - 1);
                let session = state.session(server, player);
                session.document.ops |= op;
                session.is_stored = false;
            } else {
                state.left.saves -= 1;
            }
            state.ask(server, player, Kind::Save);
            send_commit(model, state, server, player);
        }
        Action::Close { server, player } => {
            count(Event::Close);
            state.ask(server, player, Kind::Close);
            send_commit(model, state, server, player);
        }
        Action::Trade { server, first } => {
            count(Event::Trade);
            state.left.trades -= 1;
            for player in 0..PLAYERS as u8 {
                let session = state.session(server, player);
                (session.document.traded, session.is_stored) = (true, false);
                state.ask(server, player, Kind::Trade { first });
            }
            send_commit(model, state, server, first);
        }
        Action::Retry { server, player } => retry(model, state, server, player),
        Action::GiveUp { server, player } => {
            count(Event::GiveUp);
            state.left.faults -= 1;
            state.session(server, player).request = None;
        }
        Action::Deliver {
            request,
            lapsed,
            doubled,
            answered,
        } => {
            if doubled {
                count(Event::Doubled);
                state.left.faults -= 1;
            } else {
                state.forget(request);
            }
            if !answered && state.is_awaited(request) {
                count(Event::AnswerLost);
            }
            deliver(model, state, request, lapsed, answered);
        }
        Action::Lose { request } => {
            count(Event::Lost);
            state.left.faults -= 1;
            state.forget(request);
        }
        Action::Crash { server } => {
            count(Event::Crash);
            state.left.faults -= 1;
            let server = &mut state.servers[usize::from(server)];
            (server.is_up, server.seats) = (false, [Seat::Free; PLAYERS]);
        }
        Action::Restart { server } => {
            count(Event::Restart);
            restart(state, server);
        }
        Action::PowerCut => power_cut(model, state),
        Action::Sync => state.on_disk = Some(state.rows),
    }
}

/// A new boot, up to its first beat.
pub fn restart(state: &mut State, server: u8) {
    let at = &mut state.servers[usize::from(server)];
    (at.is_up, at.boot) = (true, at.boot + 1);
    let boot = state.boot(server);
    state.rows.register(boot);
}

/// The store's machine loses its power: nothing that was under way, and no answer, arrives.
fn power_cut(model: &Commits, state: &mut State) {
    model.tally.count(Event::PowerCut);
    state.left.faults -= 1;
    state.network.clear();
    if let Some(on_disk) = state.on_disk {
        state.rows = on_disk;
    }
}

fn retry(model: &Commits, state: &mut State, server: u8, player: u8) {
    model.tally.count(Event::Retry);
    state.left.faults -= 1;
    if let Seat::Loading { attempt, .. } = state.seat(server, player) {
        *attempt += 1;
        state.send_acquire(server, player);
        return;
    }
    for player in state.parties(server, player) {
        if let Some(asked) = &mut state.session(server, player).request {
            asked.attempt += 1;
        }
    }
    send_commit(model, state, server, player);
}

pub(super) fn send_commit(model: &Commits, state: &mut State, server: u8, player: u8) {
    let boot = state.boot(server);
    let mut writes = [None; PLAYERS];
    let mut attempt = 0;
    for (place, player) in state.parties(server, player).into_iter().enumerate() {
        let session = *state.session(server, player);
        let Some(asked) = session.request else { continue };
        attempt = asked.attempt;
        writes[place] = Some(WriteRow {
            player,
            lock: session.lock,
            fence: session.fence,
            seq: session.seq,
            document: asked.is_written.then_some(asked.document),
            settle: asked.settle,
            release: matches!(asked.kind, Kind::Close | Kind::Release),
        });
    }
    if model.without == Some(Mechanism::OneCommitPerTrade) {
        for write in writes.into_iter().flatten() {
            let writes = [Some(write), None];
            state.network.push(Request::Commit {
                boot,
                attempt,
                writes,
            });
        }
    } else {
        state.network.push(Request::Commit {
            boot,
            attempt,
            writes,
        });
    }
}

fn deliver(model: &Commits, state: &mut State, request: Request, lapsed: bool, answered: bool) {
    match request {
        Request::Acquire {
            player, lock, boot, ..
        } => {
            let answer = acquire(model, state, player, lock, boot, lapsed);
            if answered {
                loaded(model, state, boot.server, player, lock, answer.ok());
            }
        }
        Request::Commit { boot, writes, .. } => {
            let answer = commit(model, state, &writes);
            if let (true, Some(write)) = (answered, writes[0]) {
                receive(model, state, boot.server, write.player, answer);
            }
        }
        Request::Settle(write) => {
            let granted = &mut state.rows.granted[usize::from(write.player)];
            *granted = granted.or(Some(write.fence));
        }
    }
}

fn acquire(
    model: &Commits,
    state: &mut State,
    player: u8,
    lock: u8,
    boot: Boot,
    lapsed: bool,
) -> Result<Loaded, Refusal> {
    let before = state.rows;
    let mut claims = [None; SERVERS];
    if lapsed && let Some((_, holder)) = before.players[usize::from(player)].held {
        claims[0] = Some((holder, before.leases[usize::from(holder.server)].beat));
    }
    let request = AcquireRow {
        player,
        lock,
        boot,
        lapsed: claims,
        orphan: None,
        until_beat: u8::MAX,
    };
    let granted = state.rows.acquire(&request, model.without);
    model.tally.count(match &granted {
        Ok(Granted::Again) => Event::GrantedAgain,
        Ok(Granted::Free) => Event::Granted,
        Ok(Granted::TakenOver) => Event::TakenOver,
        Err(Refusal::Locked { .. }) => Event::Locked,
        Err(_) => Event::NoLease,
    });
    state.seen.refused_changed |= granted.is_err() && state.rows != before;
    granted.map_err(|_| Refusal::Unavailable)?;
    let row = state.rows.players[usize::from(player)];
    Ok(Loaded {
        fence: row.fence,
        document: row.document,
        is_paid: state.rows.granted[usize::from(player)].is_none(),
    })
}

fn commit(model: &Commits, state: &mut State, writes: &[Option<WriteRow>; PLAYERS]) -> Result<(), Refusal> {
    let before = state.rows;
    let mut writes: Vec<_> = writes.iter().flatten().copied().collect();
    if model.without == Some(Mechanism::OneTransactionPerAward) {
        for write in writes.iter_mut().filter(|write| write.settle) {
            state.network.push(Request::Settle(*write));
            write.settle = false;
        }
    }
    let landed = state.rows.commit(&writes, model.without);
    match landed {
        Ok(landed) => {
            for write in &writes {
                let player = usize::from(write.player);
                if landed.accepted[player] {
                    model.tally.count(Event::Accepted);
                    let (fence, lock) = state.seen.last_writer[player];
                    state.seen.two_writers |=
                        write.fence < fence || (write.fence == fence && write.lock != lock);
                    state.seen.last_writer[player] = (write.fence, write.lock);
                    if write.settle {
                        let event = if landed.settled_again {
                            Event::SettledAgain
                        } else {
                            Event::Settled
                        };
                        model.tally.count(event);
                    }
                } else {
                    model.tally.count(Event::LandedBefore);
                }
            }
            if writes.len() > 1 {
                model.tally.count(Event::JointCommit);
            }
        }
        Err(refusal) => {
            model.tally.count(match refusal {
                Refusal::LockLost { .. } => Event::LockLost,
                Refusal::Superseded => Event::Superseded,
                _ => Event::NotSettled,
            });
            state.seen.refused_changed |= state.rows != before;
        }
    }
    landed.map(|_| ())
}

impl State {
    pub fn seat(&mut self, server: u8, player: u8) -> &mut Seat {
        &mut self.servers[usize::from(server)].seats[usize::from(player)]
    }

    pub fn session(&mut self, server: u8, player: u8) -> &mut Session {
        match self.seat(server, player) {
            Seat::Playing(session) => session,
            seat => panic!("only a session does this: {seat:?}"),
        }
    }

    pub fn boot(&self, server: u8) -> Boot {
        let number = self.servers[usize::from(server)].boot;
        Boot { server, number }
    }

    pub fn is_up(&self, boot: Boot) -> bool {
        let server = &self.servers[usize::from(boot.server)];
        server.is_up && server.boot == boot.number
    }

    /// Whose requests are one with this player's.
    pub(super) fn parties(&mut self, server: u8, player: u8) -> Vec<u8> {
        match self.session(server, player).request.map(|asked| asked.kind) {
            Some(Kind::Trade { first }) => vec![first, 1 - first],
            _ => vec![player],
        }
    }

    pub(super) fn ask(&mut self, server: u8, player: u8, kind: Kind) {
        let session = self.session(server, player);
        session.seq += 1;
        let saves = kind != Kind::Release;
        session.request = Some(Asked {
            kind,
            attempt: 0,
            document: session.document,
            is_written: saves && !session.is_stored,
            settle: saves && session.unsettled,
        });
        session.is_stored = false;
    }

    fn send_acquire(&mut self, server: u8, player: u8) {
        let boot = self.boot(server);
        if let Seat::Loading { lock, attempt, .. } = *self.seat(server, player) {
            self.network.push(Request::Acquire {
                player,
                lock,
                boot,
                attempt,
            });
        }
    }

    fn forget(&mut self, request: Request) {
        if let Some(place) = self.network.iter().position(|&other| other == request) {
            self.network.remove(place);
        }
    }
}
