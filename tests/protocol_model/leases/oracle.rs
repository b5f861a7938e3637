//! What must hold in every state of the [model of leases](super).

use stateright::Property;

use super::{Action, Beat, Leases, Mode, Seat, Server, State, step};
use crate::store::SERVERS;

pub const NOT_ROBBED: &str = "a server whose beat arrived within the TTL never loses a lock";
pub const ANSWERED_FOR: &str = "I7: whoever lives answers for every lock that hangs on it";
pub const LOADABLE: &str = "I7: the player can be loaded again, on every server that is left";

/// Units of time in which everything has to be over, once nothing fails any more.
const PATIENCE: u8 = 6;

pub fn properties() -> Vec<Property<Leases>> {
    vec![
        Property::always(NOT_ROBBED, |_, state: &State| !state.robbed),
        Property::always(ANSWERED_FOR, |_, state: &State| is_answered_for(state)),
        Property::always(LOADABLE, is_loadable),
    ]
}

fn is_answered_for(state: &State) -> bool {
    state.rows.players[0].held.is_none_or(|(lock, boot)| {
        let server = &state.servers[usize::from(boot.server)];
        !state.lives(boot) || server.uses(lock) || server.suspects(lock)
    })
}

/// The end of all faults, as one fixed continuation without any: who is in a session leaves, dead servers stay dead,
/// and each server that is left loads the player in turn. What is under way arrives first, or never.
fn is_loadable(model: &Leases, state: &State) -> bool {
    let model = &model.uncounted();
    [false, true].into_iter().all(|arrives| {
        let mut state = state.clone();
        (state.left.time, state.left.loads, state.left.faults) = (u8::MAX, u8::MAX, u8::MAX);
        for acquire in std::mem::take(&mut state.network) {
            if arrives {
                step::apply(
                    model,
                    &mut state,
                    Action::Deliver {
                        acquire,
                        answered: false,
                    },
                );
            }
        }
        if !state.servers.iter().any(Server::is_there) {
            step::apply(model, &mut state, Action::Restart { server: 0 });
        }
        for _ in 0..PATIENCE {
            pass_time(model, &mut state, None);
        }
        (0..SERVERS as u8).all(|server| !state.at(server).is_there() || loads(model, &mut state, server))
    })
}

fn loads(model: &Leases, state: &mut State, server: u8) -> bool {
    step::apply(model, state, Action::Load { server });
    (0..PATIENCE).any(|_| {
        pass_time(model, state, Some(server));
        matches!(state.at(server).seat, Seat::Playing { .. })
    }) && {
        step::apply(model, state, Action::Close { server });
        state.rows.players[0].held.is_none()
    }
}

/// One unit without a fault.
fn pass_time(model: &Leases, state: &mut State, loader: Option<u8>) {
    for server in 0..SERVERS as u8 {
        if state.at(server).mode == Mode::Paused {
            step::apply(model, state, Action::Resume { server });
        }
        if state.at(server).mode == Mode::Up {
            step::apply(
                model,
                state,
                Action::Beat {
                    server,
                    outcome: Beat::Answered,
                },
            );
            end_or_load(model, state, server, loader == Some(server));
        }
    }
    step::apply(model, state, Action::Tick);
}

fn end_or_load(model: &Leases, state: &mut State, server: u8, loads: bool) {
    let seat = state.at(server).seat;
    if matches!(
        seat,
        Seat::Loading { waits: Some(_), .. } | Seat::Settling { waits: Some(_), .. }
    ) {
        step::apply(model, state, Action::TimeOut { server });
    }
    match seat {
        Seat::Free => {}
        Seat::Playing { .. } => step::apply(model, state, Action::Close { server }),
        Seat::Loading { .. } if !loads => {
            step::apply(model, state, Action::GiveUp { server });
            ask(model, state, server);
        }
        Seat::Loading { .. } | Seat::Settling { .. } => ask(model, state, server),
    }
}

/// Asks, and is answered at once.
fn ask(model: &Leases, state: &mut State, server: u8) {
    if !matches!(state.at(server).seat, Seat::Free) {
        step::apply(model, state, Action::Ask { server });
    }
    if let Some(&acquire) = state.network.first() {
        step::apply(
            model,
            state,
            Action::Deliver {
                acquire,
                answered: true,
            },
        );
    }
}
