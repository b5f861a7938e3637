//! What a player is told about purchases.

use std::{collections::VecDeque, fmt};

use bevy::prelude::*;
use serde::{Deserialize, Serialize};

use super::{OwnPlayer, PersistentPlayer};
use crate::id::{PlayerId, ProductId, PurchaseId};

/// A purchase has been processed, or could not be yet. On the server's player entity, and on the client's
/// [`OwnPlayer`](super::OwnPlayer).
///
/// It is triggered each time that an attempt to process a receipt has ended. At the end of a session the entity may be
/// gone already.
#[derive(EntityEvent, Clone, Debug)]
pub struct PurchaseProcessed {
    /// The player's entity.
    pub entity: Entity,
    /// Who it is.
    pub player: PlayerId,
    /// Which purchase.
    pub purchase: PurchaseId,
    /// What was bought.
    pub product: ProductId,
    /// What has become of it.
    pub decision: PurchaseDecision,
}

/// What has become of a purchase.
///
/// The names are those that Roblox's receipt handlers answer with, and two more.
#[derive(Reflect, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[type_path = "bevy_player_data::player"]
#[non_exhaustive]
pub enum PurchaseDecision {
    /// What was bought is in the player's data, and that is durable.
    PurchaseGranted,
    /// Not now: the player isn't here, the handler can't grant it at the moment, or the data could not be saved yet. It
    /// will be tried again, and there is nothing to do about it.
    NotProcessedYet,
    /// It will never be granted: the product's handler, or the server, refuses it. The money has to go back.
    Refused {
        /// Why, in the words of the handler.
        reason: String,
    },
    /// The money went back, and what was bought was taken back, or never granted.
    Refunded {
        /// What could not be taken back, in the words of the handler.
        shortfall: Option<String>,
    },
}

impl PurchaseDecision {
    /// Whether this is the last word, apart from a refund.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::NotProcessedYet)
    }
}

impl fmt::Display for PurchaseDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PurchaseGranted => f.write_str("granted"),
            Self::NotProcessedYet => f.write_str("not processed yet"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::Refunded { shortfall: None } => f.write_str("refunded"),
            Self::Refunded {
                shortfall: Some(shortfall),
            } => write!(f, "refunded, except: {shortfall}"),
        }
    }
}

/// What was told lately about the local player's purchases: on each entity with [`OwnPlayer`].
///
/// A shop asks it what has become of a purchase, since [`PurchaseProcessed`] may be triggered before the shop's own web
/// request is answered with the purchase's id. Purchases that were processed in earlier sessions are not in it.
#[derive(Component, Reflect, Clone, Debug, Default, PartialEq, Eq)]
#[component(clone_behavior = Ignore)]
#[type_path = "bevy_player_data::player"]
#[reflect(from_reflect = false)]
pub struct OwnPurchases(VecDeque<OwnPurchase>);

#[derive(Reflect, Clone, Debug, PartialEq, Eq)]
#[type_path = "bevy_player_data::player"]
struct OwnPurchase {
    purchase: PurchaseId,
    product: ProductId,
    decision: PurchaseDecision,
}

impl OwnPurchases {
    /// How many purchases are remembered; beyond, the one that was told about longest ago is forgotten.
    pub const CAPACITY: usize = 64;

    /// What was told last about a purchase; `None` if nothing was.
    #[must_use]
    pub fn decision(&self, purchase: &PurchaseId) -> Option<&PurchaseDecision> {
        self.0
            .iter()
            .find(|known| known.purchase == *purchase)
            .map(|known| &known.decision)
    }

    /// All of them, the one that was told about last at the end.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&PurchaseId, &ProductId, &PurchaseDecision)> {
        self.0
            .iter()
            .map(|known| (&known.purchase, &known.product, &known.decision))
    }

    fn remember(&mut self, news: OwnPurchase) {
        self.0.retain(|known| known.purchase != news.purchase);
        if self.0.len() >= Self::CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(news);
    }
}

/// Keeps [`OwnPurchases`], on a client as on a listen server.
pub(crate) fn remember_own_purchase(
    processed: On<PurchaseProcessed>,
    mut players: Query<(&mut OwnPurchases, Option<&PersistentPlayer>), With<OwnPlayer>>,
) {
    // The last news of a player who has left may come when somebody else has the entity.
    if let Ok((mut purchases, player)) = players.get_mut(processed.entity)
        && player.is_none_or(|player| player.0 == processed.player)
    {
        purchases.remember(OwnPurchase {
            purchase: processed.purchase.clone(),
            product: processed.product.clone(),
            decision: processed.decision.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(purchase: usize, decision: PurchaseDecision) -> OwnPurchase {
        OwnPurchase {
            purchase: format!("pi_{purchase}").parse().expect("an id"),
            product: "coins_100".parse().expect("an id"),
            decision,
        }
    }

    #[test]
    fn the_last_word_about_a_purchase_counts_and_the_oldest_is_forgotten() {
        let mut purchases = OwnPurchases::default();
        for n in 0..OwnPurchases::CAPACITY {
            purchases.remember(news(n, PurchaseDecision::NotProcessedYet));
        }
        purchases.remember(news(0, PurchaseDecision::PurchaseGranted));
        let decision = |purchases: &OwnPurchases, n| {
            purchases
                .decision(&news(n, PurchaseDecision::NotProcessedYet).purchase)
                .cloned()
        };
        assert_eq!(decision(&purchases, 0), Some(PurchaseDecision::PurchaseGranted));
        assert_eq!(
            purchases.iter().count(),
            OwnPurchases::CAPACITY,
            "each purchase is there once"
        );

        purchases.remember(news(OwnPurchases::CAPACITY, PurchaseDecision::PurchaseGranted));
        assert_eq!(decision(&purchases, 1), None, "it was told about longest ago");
        assert_eq!(decision(&purchases, 0), Some(PurchaseDecision::PurchaseGranted));
    }
}
