//! What a server makes of an answer, in the [model of commits](super).

use super::{Commits, Kind, Loaded, Seat, Session, State, step::send_commit};
use crate::{run::Event, store::Refusal};

/// A load is answered. One that was refused fails: the player may try again.
pub(super) fn loaded(
    model: &Commits,
    state: &mut State,
    server: u8,
    player: u8,
    lock: u8,
    answer: Option<Loaded>,
) {
    let Some(Loaded {
        fence,
        document,
        is_paid,
    }) = answer
    else {
        *state.seat(server, player) = Seat::Free;
        return;
    };
    model.tally.count(Event::Opened);
    *state.seat(server, player) = Seat::Playing(Session {
        lock,
        fence,
        seq: 0,
        document,
        is_paid,
        unsettled: false,
        is_stored: true,
        request: None,
    });
}

/// A session is answered.
pub(super) fn receive(
    model: &Commits,
    state: &mut State,
    server: u8,
    player: u8,
    answer: Result<(), Refusal>,
) {
    let parties = state.parties(server, player);
    let Err(refusal) = answer else {
        for player in parties {
            acknowledged(model, state, server, player);
        }
        return;
    };
    // A trade that landed unanswered is found in the record that is still under our lock.
    let landed = parties.len() > 1
        && matches!(refusal, Refusal::LockLost { .. })
        && parties.iter().any(|&player| has_landed(state, server, player));
    for player in parties {
        if landed {
            model.tally.count(Event::FoundLanded);
            acknowledged(model, state, server, player);
        } else {
            refused(model, state, server, player, refusal);
        }
    }
}

fn has_landed(state: &mut State, server: u8, player: u8) -> bool {
    let row = state.rows.players[usize::from(player)];
    let session = state.session(server, player);
    let was_repeated = session.request.is_some_and(|asked| asked.attempt > 0);
    was_repeated && row.fence == session.fence && row.last_seq >= session.seq
}

fn acknowledged(model: &Commits, state: &mut State, server: u8, player: u8) {
    model.tally.count(Event::Acknowledged);
    let session = state.session(server, player);
    let Some(asked) = session.request.take() else {
        return;
    };
    if asked.settle {
        session.unsettled = false;
    }
    if asked.kind != Kind::Release {
        let document = asked.document;
        session.is_stored = document == session.document;
        let seen = &mut state.seen;
        seen.acknowledged[usize::from(player)] |= document.ops;
        seen.granted[usize::from(player)] |= asked.settle;
        seen.traded |= document.traded;
    }
    if matches!(asked.kind, Kind::Close | Kind::Release) {
        *state.seat(server, player) = Seat::Free;
    }
}

fn refused(model: &Commits, state: &mut State, server: u8, player: u8, refusal: Refusal) {
    let session = state.session(server, player);
    let kind = session.request.take().map(|asked| asked.kind);
    match refusal {
        Refusal::Superseded => {}
        // The other player's lock: a trade, and both sessions end at their last commit.
        Refusal::LockLost { player: other } if other != player => forfeit(model, state, server, player),
        Refusal::LockLost { .. } => {
            model.tally.count(Event::SessionLost);
            *state.seat(server, player) = Seat::Free;
        }
        _ if kind == Some(Kind::Release) => *state.seat(server, player) = Seat::Free,
        _ => forfeit(model, state, server, player),
    }
}

fn forfeit(model: &Commits, state: &mut State, server: u8, player: u8) {
    model.tally.count(Event::Forfeited);
    state.ask(server, player, Kind::Release);
    send_commit(model, state, server, player);
}
