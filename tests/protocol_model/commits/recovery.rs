//! The end of all faults, tried from every state of the [model of commits](super): whoever is in a session leaves, and
//! every player is loaded by another server, saved, and given what they paid for.
//!
//! It is one fixed continuation of each state, without any fault, that a working deployment would take by itself. If it
//! ends well from every reachable state, there is none from which a player can never load again. It is tried twice,
//! since what is still under way may arrive first, or never.

use super::{Commits, Kind, Request, Seat, State, oracle, step};
use crate::{
    Mechanism,
    store::{AcquireRow, Boot, PLAYERS, Refusal, SERVERS, WriteRow},
};

/// No session of the models has such a lock.
const FRESH_LOCK: u8 = u8::MAX;

pub fn is_possible(model: &Commits, state: &State) -> bool {
    [false, true].into_iter().all(|arrives| {
        let mut state = state.clone();
        let network = std::mem::take(&mut state.network);
        if arrives {
            network
                .into_iter()
                .for_each(|request| arrive(model, &mut state, request));
        }
        (0..PLAYERS as u8).all(|player| is_loadable(model, state.clone(), player))
    })
}

/// Nobody finds a lease lapsed meanwhile.
fn arrive(model: &Commits, state: &mut State, request: Request) {
    match request {
        Request::Acquire {
            player, lock, boot, ..
        } => {
            // Refused or not: what matters is the row.
            let _ = state.rows.acquire(&acquire(player, lock, boot), model.without);
        }
        Request::Commit { writes, .. } => {
            let writes: Vec<_> = writes.iter().flatten().copied().collect();
            let _ = state.rows.commit(&writes, model.without);
        }
        Request::Settle(write) => {
            let granted = &mut state.rows.granted[usize::from(write.player)];
            *granted = granted.or(Some(write.fence));
        }
    }
}

fn acquire(player: u8, lock: u8, boot: Boot) -> AcquireRow {
    AcquireRow {
        player,
        lock,
        boot,
        lapsed: [None; SERVERS],
        orphan: None,
        until_beat: u8::MAX,
    }
}

fn is_loadable(model: &Commits, mut state: State, player: u8) -> bool {
    let at = usize::from(player);
    let holder = state.rows.players[at].held;
    let mut lapsed = None;
    if let Some((lock, boot)) = holder {
        if state.is_up(boot) {
            if leave(model, &mut state, player, lock, boot).is_err() {
                return false;
            }
        } else if model.without != Some(Mechanism::LapsingLeases) {
            // It beats no more, so that every other server finds its lease lapsed.
            lapsed = Some((boot, state.rows.leases[usize::from(boot.server)].beat));
        }
    }
    let loader = (0..SERVERS as u8).find(|&server| holder.is_none_or(|(_, boot)| boot.server != server));
    let Some(loader) = loader else { return false };
    if !state.servers[usize::from(loader)].is_up {
        step::restart(&mut state, loader);
    }
    let mut request = acquire(player, FRESH_LOCK, state.boot(loader));
    request.lapsed[0] = lapsed;
    state.rows.acquire(&request, model.without).is_ok() && plays_on(model, &mut state, player) && {
        oracle::is_kept(&state, at) && state.rows.players[at].held.is_none()
    }
}

/// The session that was just opened awards what is pending, saves, and closes.
fn plays_on(model: &Commits, state: &mut State, player: u8) -> bool {
    let at = usize::from(player);
    let row = state.rows.players[at];
    let settle = state.rows.granted[at].is_none();
    let mut document = row.document;
    document.awards += u8::from(settle);
    let save = WriteRow {
        player,
        lock: FRESH_LOCK,
        fence: row.fence,
        seq: 1,
        document: Some(document),
        settle,
        release: false,
    };
    let close = WriteRow {
        seq: 2,
        document: None,
        settle: false,
        release: true,
        ..save
    };
    let mut lands = |write| {
        state
            .rows
            .commit(&[write], model.without)
            .is_ok_and(|landed| landed.accepted[at])
    };
    // In the control without it, the second transaction lands as well.
    lands(save) && lands(close) && {
        let parted = model.without == Some(Mechanism::OneTransactionPerAward);
        parted || (state.rows.granted[at].is_some() && state.rows.players[at].document.awards == 1)
    }
}

/// The server that holds the lock gives it back: its player leaves, or it finds that nobody there answers for it.
fn leave(model: &Commits, state: &mut State, player: u8, lock: u8, boot: Boot) -> Result<(), Refusal> {
    let row = state.rows.players[usize::from(player)];
    let late = WriteRow {
        player,
        lock,
        fence: row.fence,
        seq: row.last_seq + 1,
        document: None,
        settle: false,
        release: true,
    };
    let session = match *state.seat(boot.server, player) {
        Seat::Playing(session) if (session.lock, session.fence) == (lock, row.fence) => session,
        // An attempt came into effect late: before it was answered, or after all that it was for.
        _ => return state.rows.commit(&[late], model.without).map(|_| ()),
    };
    let mut close = WriteRow {
        fence: session.fence,
        seq: session.seq + 1,
        document: Some(session.document),
        settle: session.unsettled,
        ..late
    };
    match session.request.map(|asked| asked.kind) {
        Some(Kind::Trade { first }) => {
            if repeat_trade(model, state, boot, first).is_err() {
                (close.document, close.settle) = (None, false);
            }
        }
        Some(Kind::Release) => (close.document, close.settle) = (None, false),
        // Repeated as it is, until it is answered.
        Some(Kind::Close) => close.seq = session.seq,
        Some(Kind::Save) | None => {}
    }
    state.rows.commit(&[close], model.without).map(|_| ())
}

fn repeat_trade(model: &Commits, state: &mut State, boot: Boot, first: u8) -> Result<(), Refusal> {
    let mut writes = Vec::new();
    for player in [first, 1 - first] {
        let session = *state.session(boot.server, player);
        let Some(asked) = session.request else { continue };
        writes.push(WriteRow {
            player,
            lock: session.lock,
            fence: session.fence,
            seq: session.seq,
            document: Some(asked.document),
            settle: asked.settle,
            release: false,
        });
    }
    state.rows.commit(&writes, model.without).map(|_| ())
}
