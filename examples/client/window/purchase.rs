//! A purchase from the press of the button to the game's decision, in words.

use bevy::prelude::*;
use bevy_player_data::prelude::*;

use super::{background::Background, storefront::NoSale, theme};
use crate::game::data::Bought;

/// How far a purchase is.
pub enum Purchase {
    /// The storefront has been asked.
    Asked(Background<Result<PurchaseId, NoSale>>),
    /// It is paid for; [`OwnPurchases`] says what the game makes of it.
    Paid(PurchaseId),
    Failed(NoSale),
}

impl Purchase {
    /// Whether somebody else has yet to say something.
    pub fn is_pending(&self, heard: Option<&OwnPurchases>) -> bool {
        match self {
            Self::Asked(_) => true,
            Self::Paid(id) => !heard
                .and_then(|heard| heard.decision(id))
                .is_some_and(PurchaseDecision::is_final),
            Self::Failed(_) => false,
        }
    }

    /// What the customer is told, and in which color.
    pub fn words(&self, heard: Option<&OwnPurchases>) -> (String, Color) {
        let id = match self {
            Self::Asked(_) => return ("paying …".to_owned(), theme::GOLD),
            Self::Failed(problem) => return (format!("not bought: {problem}"), theme::BAD),
            Self::Paid(id) => id,
        };
        match heard.and_then(|heard| heard.decision(id)) {
            None => ("paid; on its way to you …".to_owned(), theme::GOLD),
            Some(PurchaseDecision::PurchaseGranted) => ("it is yours".to_owned(), theme::GOOD),
            Some(PurchaseDecision::NotProcessedYet) => (
                "paid; you get it as soon as the server can save it".to_owned(),
                theme::CAREFUL,
            ),
            Some(PurchaseDecision::Refused { reason }) => {
                (format!("refused: {reason}. You get your money back"), theme::BAD)
            }
            Some(decision) => (decision.to_string(), theme::MUTED),
        }
    }
}

/// How often the player has bought a product.
pub fn owned(bought: Option<&Bought>, product: &str) -> String {
    let count = bought.and_then(|bought| {
        let (_, count) = bought.0.iter().find(|(id, _)| **id == *product)?;
        Some(*count)
    });
    match count {
        None => "not bought yet".to_owned(),
        Some(1) => "bought once".to_owned(),
        Some(count) => format!("bought {count} times"),
    }
}
