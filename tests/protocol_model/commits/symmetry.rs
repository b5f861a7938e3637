//! Servers are alike, and so are players: of states that differ only in who is who, one is explored.
//!
//! The representative is found by sorting, which does not always find the same one for all of them. That costs a few
//! states and loses none.

use super::{Request, Seat, State};
use crate::store::{Boot, PLAYERS, SERVERS};

pub fn representative(state: &State) -> State {
    let players = order::<PLAYERS, _>(|player| {
        let row = state.rows.players[player];
        let held = row.held.map(|(lock, boot)| (lock, boot.number));
        let seen = &state.seen;
        (
            (row.fence, row.last_seq, held, row.document),
            (state.rows.granted[player], state.begun[player]),
            (
                seen.acknowledged[player],
                seen.granted[player],
                seen.last_writer[player],
            ),
        )
    });
    let servers = order::<SERVERS, _>(|server| {
        let at = &state.servers[server];
        let holds = |player: usize| {
            state.rows.players[player]
                .held
                .is_some_and(|(_, boot)| usize::from(boot.server) == server)
        };
        let seats = players.map(|player| at.seats[player]);
        (
            at.boot,
            at.is_up,
            state.rows.leases[server],
            seats,
            players.map(holds),
        )
    });
    renamed(state, players, servers)
}

/// Old places in their new order.
fn order<const N: usize, K: Ord>(key: impl Fn(usize) -> K) -> [usize; N] {
    let mut order = std::array::from_fn(|place| place);
    order.sort_by_cached_key(|&place| key(place));
    order
}

fn renamed(state: &State, players: [usize; PLAYERS], servers: [usize; SERVERS]) -> State {
    let place = |order: &[usize], old: u8| {
        let place = order.iter().position(|&at| at == usize::from(old));
        place.map_or(old, |place| place as u8)
    };
    let player = |old: u8| place(&players, old);
    let boot = |old: Boot| Boot {
        server: place(&servers, old.server),
        ..old
    };
    let mut next = state.clone();
    for (to, &from) in players.iter().enumerate() {
        next.rows.players[to] = state.rows.players[from];
        next.rows.granted[to] = state.rows.granted[from];
        next.begun[to] = state.begun[from];
        next.seen.acknowledged[to] = state.seen.acknowledged[from];
        next.seen.granted[to] = state.seen.granted[from];
        next.seen.last_writer[to] = state.seen.last_writer[from];
    }
    for row in &mut next.rows.players {
        row.held = row.held.map(|(lock, holder)| (lock, boot(holder)));
    }
    for (to, &from) in servers.iter().enumerate() {
        next.rows.leases[to] = state.rows.leases[from];
        next.servers[to] = state.servers[from];
        next.servers[to].seats = players.map(|player| state.servers[from].seats[player]);
        next.servers[to]
            .seats
            .iter_mut()
            .for_each(|seat| rename_seat(seat, player));
    }
    for request in &mut next.network {
        match request {
            Request::Acquire {
                player: of,
                boot: from,
                ..
            } => (*of, *from) = (player(*of), boot(*from)),
            Request::Commit {
                boot: from, writes, ..
            } => {
                *from = boot(*from);
                writes
                    .iter_mut()
                    .flatten()
                    .for_each(|write| write.player = player(write.player));
            }
            Request::Settle(write) => write.player = player(write.player),
        }
    }
    next.network.sort_unstable();
    next
}

fn rename_seat(seat: &mut Seat, player: impl Fn(u8) -> u8) {
    let Seat::Playing(session) = seat else { return };
    let Some(asked) = &mut session.request else { return };
    if let super::Kind::Trade { first } = &mut asked.kind {
        *first = player(*first);
    }
}
