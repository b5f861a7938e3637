//! Servers are alike: of states that differ only in which is which, one is explored.

use super::State;
use crate::store::{Boot, SERVERS};

pub fn representative(state: &State) -> State {
    let mut order: [usize; SERVERS] = std::array::from_fn(|place| place);
    order.sort_by_cached_key(|&server| {
        let held = state.rows.players[0]
            .held
            .filter(|(_, boot)| usize::from(boot.server) == server);
        let at = &state.servers[server];
        let of_itself = (
            at.boot,
            at.mode,
            at.has_beaten,
            (at.own_beat, at.unanswered),
            at.seat,
            at.suspects,
            at.last_lock,
        );
        (of_itself, state.rows.leases[server], state.ages[server], held)
    });
    let boot = |old: Boot| Boot {
        server: order
            .iter()
            .position(|&from| from == usize::from(old.server))
            .map_or(old.server, |to| to as u8),
        ..old
    };
    let mut next = state.clone();
    for (to, &from) in order.iter().enumerate() {
        next.servers[to] = state.servers[from];
        next.servers[to].watch = state.servers[from].watch.renamed(&order);
        next.rows.leases[to] = state.rows.leases[from];
        next.ages[to] = state.ages[from];
    }
    let held = &mut next.rows.players[0].held;
    *held = held.map(|(lock, holder)| (lock, boot(holder)));
    for acquire in &mut next.network {
        acquire.boot = boot(acquire.boot);
        acquire.lapsed = order.map(|from| acquire.lapsed[from].map(|(lapsed, beat)| (boot(lapsed), beat)));
    }
    next.network.sort_unstable();
    next
}
