//! Relics: things of which the world has one each, and the trades by which they change hands.
//!
//! A serial number follows from how its relic came into the world, so anybody can tell which ones there have to be. A
//! trade is in both players' saved data or in neither, which is `bevy_player_data`'s part; this module says what is
//! swapped.

use bevy::prelude::*;
use bevy_player_data::{PurchaseId, prelude::*};
use uuid::Uuid;

use crate::{
    game::data::{Relic, Relics},
    rules::OpenToTrade,
};

/// How many relics a player begins with.
const WELCOME_RELICS: u8 = 3;
/// Namespace for the serial numbers of relics that were bought.
const BOUGHT: Uuid = Uuid::from_u128(0x8c1d_6a3e_42f7_4b5a_9e0d_27c4_f1b8_3a66);

/// The relics that a player begins with.
pub fn relics_of_newcomer(player: PlayerId) -> impl Iterator<Item = Relic> {
    (0..WELCOME_RELICS).map(move |n| Relic(Uuid::new_v5(&player.uuid(), &[n])))
}

/// The relic that comes with a purchase.
pub fn bought_relic(purchase: &PurchaseId) -> Relic {
    Relic(Uuid::new_v5(&BOUGHT, purchase.as_str().as_bytes()))
}

pub fn plugin(app: &mut App) {
    app.add_observer(welcome);
}

/// Relics are optional, so whoever has none has never been given any. If the server is killed before they are saved, they
/// come once more, and are the same.
fn welcome(
    loaded: On<PlayerLoaded>,
    newcomers: Query<(), (With<PlayerSession>, Without<Relics>)>,
    mut commands: Commands,
) {
    if newcomers.contains(loaded.entity) {
        let relics = relics_of_newcomer(loaded.player);
        commands.entity(loaded.entity).insert(Relics(relics.collect()));
        commands.trigger(SavePlayer {
            entity: loaded.entity,
        });
    }
}

/// Who can trade: nobody on defaults, which are never saved.
type Trader = (With<PlayerSession>, With<OpenToTrade>);

/// Swaps one of the player's relics with one of somebody else's.
pub fn trade_with_somebody(
    In(player): In<Entity>,
    traders: Query<(Entity, &Relics), Trader>,
    mut commands: Commands,
) {
    let others = traders
        .iter()
        .filter(|(entity, relics)| *entity != player && !relics.0.is_empty());
    let others: Vec<Entity> = others.map(|(entity, _)| entity).collect();
    if let Some(partner) = fastrand::choice(others) {
        commands.trade([player, partner], swap_relics);
    }
}

fn swap_relics(In(trade): In<Trade>, mut traders: Query<&mut Relics, Trader>) -> Result {
    let [mut ours, mut theirs] = traders.get_many_mut([trade.a, trade.b])?;
    let (Some(our), Some(their)) = (
        fastrand::choice(ours.0.iter_mut()),
        fastrand::choice(theirs.0.iter_mut()),
    ) else {
        return Err("somebody has no relic to give".into());
    };
    std::mem::swap(our, their);
    Ok(())
}
