//! What buying means: the systems that give players what they paid for, and take it back.
//!
//! They are ordinary systems that change ordinary components. That a purchase is granted once, whatever happens to the
//! server meanwhile, is `bevy_player_data`'s part.

use std::sync::Arc;

use bevy::{ecs::query::QueryData, prelude::*};
use bevy_player_data::prelude::*;

use crate::{
    catalogue::{Catalogue, Entry, Kind},
    game::data::{Bought, Coins, Relics, Title},
    relics::bought_relic,
};

/// Puts everything in the catalogue up for sale.
pub fn sell(app: &mut App, catalogue: &Catalogue) {
    for Entry { id, kind, .. } in catalogue.entries() {
        let granted = Arc::new(kind.clone());
        let revoked = Arc::clone(&granted);
        let product = Product::new(
            id.as_str(),
            move |In(receipt): In<Receipt>, buyers: Query<Buyer>, commands: Commands| {
                grant(&granted, &receipt, buyers, commands)
            },
        );
        app.add_product(product.on_refund(
            move |In(receipt): In<Receipt>, buyers: Query<Buyer>, commands: Commands| {
                revoke(&revoked, &receipt, buyers, commands)
            },
        ));
    }
}

/// What a purchase may touch.
#[derive(QueryData)]
#[query_data(mutable)]
struct Buyer {
    bought: &'static mut Bought,
    coins: &'static mut Coins,
    relics: Option<&'static mut Relics>,
    title: Option<&'static Title>,
}

fn grant(kind: &Kind, receipt: &Receipt, mut buyers: Query<Buyer>, mut commands: Commands) -> Result {
    let mut buyer = buyers.get_mut(receipt.entity)?;
    match kind {
        Kind::Coins(coins) => {
            let sum = buyer.coins.0.checked_add(*coins).ok_or(Refuse("wallet full"))?;
            buyer.coins.0 = sum;
        }
        Kind::Title(title) => {
            commands.entity(receipt.entity).insert(Title(title.clone()));
        }
        Kind::Relic => {
            // An error that is no `Refuse` means: not now.
            let relics = buyer.relics.as_mut().ok_or("they have not been welcomed yet")?;
            relics.0.push(bought_relic(&receipt.purchase));
        }
    }
    let count = buyer.bought.0.entry(receipt.product.clone()).or_default();
    *count = count.checked_add(1).ok_or(Refuse("bought too often"))?;
    Ok(())
}

fn revoke(
    kind: &Kind,
    receipt: &Receipt,
    mut buyers: Query<Buyer>,
    mut commands: Commands,
) -> Result<Revoked> {
    let mut buyer = buyers.get_mut(receipt.entity)?;
    let mut revoked = Revoked::Fully;
    match kind {
        Kind::Coins(coins) => {
            let spent = coins.saturating_sub(buyer.coins.0);
            if spent > 0 {
                revoked = Revoked::Short(format!("{spent} of {coins} coins were spent"));
            }
            buyer.coins.0 = buyer.coins.0.saturating_sub(*coins);
        }
        Kind::Title(title) => {
            // Another title, which was earned or bought since, stays.
            if buyer.title.is_some_and(|worn| worn.0 == *title) {
                commands.entity(receipt.entity).remove::<Title>();
            }
        }
        Kind::Relic => {
            let relic = bought_relic(&receipt.purchase);
            let relics = buyer.relics.as_mut();
            match relics.and_then(|relics| Some((relics.0.iter().position(|own| *own == relic)?, relics))) {
                Some((place, relics)) => drop(relics.0.remove(place)),
                None => revoked = Revoked::Short(format!("the relic {relic} was traded away")),
            }
        }
    }
    buyer.bought.take_back(receipt);
    Ok(revoked)
}

impl Bought {
    fn take_back(&mut self, receipt: &Receipt) {
        if let Some(count) = self.0.get_mut(&receipt.product) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&receipt.product);
            }
        }
    }
}
