//! What must hold in every state of the [model of commits](super).

use stateright::Property;

use super::{Commits, State, recovery};
use crate::store::PLAYERS;

pub const ONE_WRITER: &str = "I1: one accepted writer per fence, in the order of the fences";
pub const REFUSED: &str = "I1: a refused request changed nothing";
pub const AWARDED_ONCE: &str = "I5: no purchase is awarded twice";
pub const SETTLED: &str = "I4: a document contains an award exactly if the receipt is granted";
pub const GRANTED: &str = "I5, I6: what was answered as granted stays granted";
pub const ACKNOWLEDGED: &str = "I6: an acknowledged save is never lost or rolled back";
pub const TRADE: &str = "I9: a trade is in both documents or in neither";
pub const LOADABLE: &str = "I7: every player can be loaded again, with all that was acknowledged, and saved";

pub fn properties() -> Vec<Property<Commits>> {
    vec![
        Property::always(ONE_WRITER, |_, state: &State| !state.seen.two_writers),
        Property::always(REFUSED, |_, state: &State| !state.seen.refused_changed),
        Property::always(AWARDED_ONCE, |_, state: &State| {
            state.rows.players.iter().all(|row| row.document.awards <= 1)
        }),
        Property::always(SETTLED, |_, state: &State| {
            players().all(|player| is_settled(state, player))
        }),
        Property::always(GRANTED, |_, state: &State| {
            players().all(|player| granted_stays(state, player))
        }),
        Property::always(ACKNOWLEDGED, |_, state: &State| {
            players().all(|player| is_kept(state, player))
        }),
        Property::always(TRADE, |_, state: &State| is_whole(state)),
        Property::always(LOADABLE, recovery::is_possible),
    ]
}

fn players() -> std::ops::Range<usize> {
    0..PLAYERS
}

fn is_settled(state: &State, player: usize) -> bool {
    let awards = state.rows.players[player].document.awards;
    (awards > 0) == state.rows.granted[player].is_some()
}

fn granted_stays(state: &State, player: usize) -> bool {
    !state.seen.granted[player]
        || (state.rows.granted[player].is_some() && state.rows.players[player].document.awards > 0)
}

pub fn is_kept(state: &State, player: usize) -> bool {
    let lost = state.seen.acknowledged[player] & !state.rows.players[player].document.ops;
    lost == 0
}

fn is_whole(state: &State) -> bool {
    let [first, second] = state.rows.players.map(|row| row.document.traded);
    first == second && (first || !state.seen.traded)
}
