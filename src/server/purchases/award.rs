//! Letting a product's handlers have a go at a receipt.

use bevy::prelude::*;
use tracing::warn;

use super::{Product, Products, Receipt, Refuse, Revoked, ledger::ToDo, run_handler};
use crate::{
    id::ProductId,
    server::{
        Server,
        attempt::{Failure, attempt},
    },
    steps,
    store::{Outcome, StoredReceipt},
};

/// What has come of it.
pub(super) enum Award {
    /// It is in memory, and in the ledger for the next save to settle.
    Done,
    /// Not now, and nothing has changed.
    NotNow,
    /// There is no such product here, and nothing has changed.
    UnknownProduct,
}

/// One receipt of a player in a session, and what is to be done about it.
pub(super) struct Case<'a> {
    pub(super) entity: Entity,
    pub(super) product: &'a ProductId,
    pub(super) receipt: &'a StoredReceipt,
}

impl Case<'_> {
    /// Does what there is to do.
    pub(super) fn process(&self, world: &mut World, to_do: ToDo) -> Award {
        steps::reached("award.before");
        let award = match to_do {
            ToDo::Forget => self.settle(world, Outcome::Refunded { shortfall: None }),
            _ if !self.is_sound(world) => Award::NotNow,
            _ if !self.has_handler(world, |_| true) => Award::UnknownProduct,
            ToDo::Grant => self.grant(world),
            ToDo::Revoke => self.revoke(world),
        };
        steps::reached("award.done");
        award
    }

    /// Settles a receipt that this server has no product for, and won't get one.
    pub(super) fn give_up(&self, world: &mut World, to_do: ToDo) -> Award {
        let missing = format!("there is no product `{}`", self.product);
        self.settle(
            world,
            match to_do {
                ToDo::Grant => Outcome::Refused { reason: missing },
                ToDo::Revoke | ToDo::Forget => Outcome::Refunded {
                    shortfall: Some(format!("{missing}: nothing was taken back")),
                },
            },
        )
    }

    /// Nothing new may rest on data that the store refuses.
    fn is_sound(&self, world: &mut World) -> bool {
        let live = world.resource_mut::<Server>().into_inner().live_mut(self.entity);
        live.is_some_and(|live| live.blocked.is_none() && !live.session.is_over())
    }

    fn grant(&self, world: &mut World) -> Award {
        let granted = attempt(
            world,
            &[self.entity],
            |world| self.run(world, |product| Some(&mut product.grant)),
            |world, ()| self.note(world, Outcome::Granted),
        );
        match granted {
            Ok(()) => Award::Done,
            Err(failure) => match refusal(&failure) {
                Some(reason) => self.settle(world, Outcome::Refused { reason }),
                None => self.not_now("granted", &failure),
            },
        }
    }

    fn revoke(&self, world: &mut World) -> Award {
        if !self.has_handler(world, |product| product.revoke.is_some()) {
            let shortfall = Some("the product has no refund handler: nothing was taken back".to_owned());
            return self.settle(world, Outcome::Refunded { shortfall });
        }
        let revoked = attempt(
            world,
            &[self.entity],
            |world| self.run(world, |product| product.revoke.as_mut()),
            |world, revoked| {
                let shortfall = match revoked {
                    Revoked::Fully => None,
                    Revoked::Short(shortfall) => Some(shortfall.clone()),
                };
                self.note(world, Outcome::Refunded { shortfall });
            },
        );
        match revoked {
            Ok(_) => Award::Done,
            Err(failure) => match refusal(&failure) {
                Some(reason) => self.settle(
                    world,
                    Outcome::Refunded {
                        shortfall: Some(format!("nothing was taken back: {reason}")),
                    },
                ),
                None => self.not_now("revoked", &failure),
            },
        }
    }

    fn has_handler(&self, world: &World, has: impl Fn(&Product) -> bool) -> bool {
        let products = world.get_resource::<Products>();
        products
            .and_then(|products| products.0.get(self.product))
            .is_some_and(has)
    }

    fn run<T: 'static>(
        &self,
        world: &mut World,
        of: impl Fn(&mut Product) -> Option<&mut super::Handler<T>>,
    ) -> Result<T, Failure> {
        let receipt = Receipt {
            entity: self.entity,
            player: self.receipt.player.ok_or(Failure::Left)?,
            purchase: self.receipt.purchase.clone(),
            product: self.product.clone(),
            payload: self.receipt.payload.clone(),
        };
        // It was there a moment ago.
        run_handler(world, receipt, of).unwrap_or(Err(Failure::Left))
    }

    fn not_now(&self, verb: &str, failure: &Failure) -> Award {
        warn!(
            "purchase `{}` of product `{}` is not {verb} now, and will be tried again: {failure}",
            self.receipt.purchase, self.product
        );
        Award::NotNow
    }

    fn settle(&self, world: &mut World, outcome: Outcome) -> Award {
        self.note(world, outcome);
        Award::Done
    }

    /// From here on, every save of the player settles the receipt.
    fn note(&self, world: &mut World, outcome: Outcome) {
        if let Some(live) = world.resource_mut::<Server>().live_mut(self.entity) {
            live.ledger
                .settle(self.receipt.purchase.clone(), self.product.clone(), outcome);
            live.unsaved = true;
        }
    }
}

/// The handler's last word, if that was it.
fn refusal(failure: &Failure) -> Option<String> {
    match failure {
        Failure::Failed(error) => error.downcast_ref::<Refuse>().map(ToString::to_string),
        _ => None,
    }
}
