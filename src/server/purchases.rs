//! Purchases: from a receipt in the store to the player's data, exactly once.
//!
//! The module owns what a game declares ([`Product`]) and what its handlers are given ([`Receipt`]). `deliver` finds out
//! which receipts are waiting for the players who are here; `award` lets the handlers have a go at them; `ledger` is what
//! a session knows about its receipts, and says what the next save has to settle; `answer` tells everybody who waits.
//! Nothing in here saves by itself: an award is in the document of a snapshot, and its settlement in the same snapshot.

use std::{fmt, time::Duration};

use bevy::{
    ecs::{change_detection::CheckChangeTicks, system::BoxedSystem},
    platform::collections::HashMap,
    prelude::*,
};
use bytes::Bytes;

use super::attempt::{Failure, run_system};
use crate::id::{PlayerId, ProductId, PurchaseId};

pub(super) mod answer;
mod award;
pub(super) mod deliver;
pub(super) mod ledger;

/// When receipts are looked for, and how often they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurchaseSettings {
    /// How often the store is asked for receipts that other processes handed in. What this process hands in itself is
    /// delivered at once. Default: 5 s.
    pub poll: Duration,
    /// The pause after a product's handler said "not now" for the first time; each further one is twice as long.
    /// Default: 1 s.
    pub first_retry: Duration,
    /// The longest such pause. Default: 60 s.
    pub longest_retry: Duration,
    /// How long a receipt for a product that this server doesn't know is kept waiting, before it is refused for good:
    /// while servers are updated one by one, another one may know it. Counted within a session. Default: 5 minutes.
    pub unknown_product_grace: Duration,
}

impl Default for PurchaseSettings {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(5),
            first_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            unknown_product_grace: Duration::from_secs(5 * 60),
        }
    }
}

impl PurchaseSettings {
    /// Says what cannot work about these settings.
    pub(super) fn validate(&self) -> Result<(), String> {
        for (name, duration) in [
            ("poll", self.poll),
            ("first_retry", self.first_retry),
            ("longest_retry", self.longest_retry),
        ] {
            if duration.is_zero() {
                return Err(format!("`purchases.{name}` is zero: it must be a positive time"));
            }
        }
        Ok(())
    }

    /// The pause after so many failures in a row, counted from 1.
    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first_retry
            .saturating_mul(1 << doublings)
            .min(self.longest_retry)
    }
}

/// What somebody paid for: what a [`Product`]'s handlers are given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The player's entity. Its data is loaded, and its session held.
    pub entity: Entity,
    /// Who bought it.
    pub player: PlayerId,
    /// Which purchase.
    pub purchase: PurchaseId,
    /// What was bought.
    pub product: ProductId,
    /// What was handed in with the receipt.
    pub payload: Option<Bytes>,
}

/// An error with which a product's handler refuses a purchase for good, saying why. The reason is kept with the receipt,
/// for support to refund it, and shown to the player.
///
/// Any other error means "not now": the receipt waits and is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refuse(pub &'static str);

impl fmt::Display for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refuse {}

/// What a product's refund handler could take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Everything.
    Fully,
    /// Not everything, since the player has used some of it. What is missing is kept with the receipt, for support,
    /// and the player's own client is told.
    Short(String),
}

impl From<()> for Revoked {
    fn from((): ()) -> Self {
        Self::Fully
    }
}

/// Something that players can buy.
///
/// Its handler awards it: a system that is given the [`Receipt`] and changes the data of the receipt's player, and of
/// nobody else. It runs once the player is in a session, and its commands are applied before it is judged. Whatever it
/// changes is saved in one transaction with the receipt's settlement. If it returns an error, panics or is skipped, or
/// if the player's data can't be saved afterwards, every persisted component is put back as it was. (Fields that serde
/// skips then have their defaults.) A [`Refuse`] is the last word; after anything else the receipt is tried again.
///
/// ```
/// # use bevy::prelude::*;
/// # use bevy_player_data::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Component, Serialize, Deserialize, Default)] struct Coins(u64);
/// # impl PlayerData for Coins { const KEY: &'static str = "coins"; }
/// fn grant(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
///     let mut coins = coins.get_mut(receipt.entity)?;
///     coins.0 = coins.0.checked_add(100).ok_or(Refuse("wallet full"))?;
///     Ok(())
/// }
///
/// fn revoke(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result<Revoked> {
///     let mut coins = coins.get_mut(receipt.entity)?;
///     let missing = 100_u64.saturating_sub(coins.0);
///     coins.0 = coins.0.saturating_sub(100);
///     Ok(match missing {
///         0 => Revoked::Fully,
///         _ => Revoked::Short(format!("{missing} of 100 coins were spent")),
///     })
/// }
///
/// # let mut app = App::new();
/// app.add_product(Product::new("coins_100", grant).on_refund(revoke));
/// ```
pub struct Product {
    id: ProductId,
    grant: Handler<()>,
    revoke: Option<Handler<Revoked>>,
}

impl Product {
    /// A product with this id and the system that awards it.
    ///
    /// # Panics
    /// When the id is none, see [`ProductId`].
    pub fn new<M>(
        id: impl AsRef<str>,
        grant: impl IntoSystem<In<Receipt>, Result, M> + Clone + Send + Sync + 'static,
    ) -> Self {
        let id = ProductId::new(id).unwrap_or_else(|error| panic!("{error}"));
        Self {
            id,
            grant: Handler::new(grant),
            revoke: None,
        }
    }

    /// Sets the system that takes the product back when it is refunded. It may return nothing, or what it could take back
    /// as [`Revoked`]; an error means "not now".
    ///
    /// Without one, nothing is taken back, and the receipt says so.
    #[must_use]
    pub fn on_refund<R, M>(
        mut self,
        revoke: impl IntoSystem<In<Receipt>, Result<R>, M> + Clone + Send + Sync + 'static,
    ) -> Self
    where
        R: Into<Revoked> + 'static,
        M: 'static,
    {
        self.revoke = Some(Handler {
            make: Box::new(move || {
                let revoke = revoke.clone().map(|revoked: Result<R>| revoked.map(Into::into));
                Box::new(IntoSystem::into_system(revoke))
            }),
            ready: None,
        });
        self
    }

    /// The product's id.
    #[must_use]
    pub const fn id(&self) -> &ProductId {
        &self.id
    }
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Product")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Declares what players can buy.
pub trait PurchaseAppExt {
    /// Adds a product. Call it on the server, before or after the plugin is added.
    ///
    /// # Panics
    /// When there is one with the same id.
    fn add_product(&mut self, product: Product) -> &mut Self;
}

impl PurchaseAppExt for App {
    fn add_product(&mut self, product: Product) -> &mut Self {
        let world = self.world_mut();
        let mut products = world.get_resource_or_init::<Products>();
        let id = product.id.clone();
        assert!(
            products.0.insert(id.clone(), product).is_none(),
            "the product `{id}` is added twice: give each an id of its own"
        );
        self
    }
}

/// Everything that can be bought.
#[derive(Resource, Default)]
pub(super) struct Products(HashMap<ProductId, Product>);

/// One of a product's systems.
struct Handler<T: 'static> {
    make: Box<dyn Fn() -> HandlerSystem<T> + Send + Sync>,
    /// `None` before its first run, and after a panic, which may have left anything behind in it.
    ready: Option<HandlerSystem<T>>,
}

type HandlerSystem<T> = BoxedSystem<In<Receipt>, Result<T>>;

impl<T> Handler<T> {
    fn new<M>(system: impl IntoSystem<In<Receipt>, Result<T>, M> + Clone + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(move || Box::new(IntoSystem::into_system(system.clone()))),
            ready: None,
        }
    }
}

/// Runs the handler that `of` picks. `None` when there is no such product or handler.
fn run_handler<T: 'static>(
    world: &mut World,
    receipt: Receipt,
    of: impl Fn(&mut Product) -> Option<&mut Handler<T>>,
) -> Option<Result<T, Failure>> {
    let id = receipt.product.clone();
    let mut products = world.get_resource_mut::<Products>()?;
    let handler = products.0.get_mut(&id).and_then(&of)?;
    let ready = handler.ready.take();
    let is_new = ready.is_none();
    let mut system = ready.unwrap_or_else(|| (handler.make)());
    if is_new {
        system.initialize(world);
    }
    // If it panics, it is gone, and the next run makes another.
    let result = run_system(&mut system, receipt, world);
    if let Some(mut products) = world.get_resource_mut::<Products>()
        && let Some(handler) = products.0.get_mut(&id).and_then(&of)
    {
        handler.ready = Some(system);
    }
    Some(result)
}

/// Keeps the change ticks that handlers remember comparable.
pub(super) fn keep_ticks_in_range(check: On<CheckChangeTicks>, mut products: Option<ResMut<Products>>) {
    for product in products.iter_mut().flat_map(|products| products.0.values_mut()) {
        if let Some(system) = &mut product.grant.ready {
            system.check_change_tick(*check);
        }
        if let Some(system) = product.revoke.as_mut().and_then(|handler| handler.ready.as_mut()) {
            system.check_change_tick(*check);
        }
    }
}
