//! The game that the model plays: what can be bought, and handlers that go wrong when they are told to.
//!
//! [`Bought`] says which purchases are in a player's data, by their ids, so that one that is there twice, or is not
//! there, has a name. Only the handlers change it.

use std::collections::{BTreeMap, VecDeque};

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize};

/// The products: one that is simply granted; one that may be spent before it is refunded; and two more.
pub const PRODUCTS: [&str; 4] = ["coins", "gems", "chest", "pass"];
pub const GEMS: &str = PRODUCTS[1];
/// The end of a purchase's id for which the handler says "never".
pub const NEVER: &str = "-never";
/// What the handler says then.
pub const NEVER_WHY: &str = "sold out";

/// How often each purchase was granted, less how often it was taken back. What is zero is absent.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Bought(pub BTreeMap<String, i64>);
impl PlayerData for Bought {
    const KEY: &'static str = "bought";
}

/// How many the player has of each product. Gems are spent by playing.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Purse(pub BTreeMap<String, i64>);
impl PlayerData for Purse {
    const KEY: &'static str = "purse";
}

/// What else players do: something to save.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Score(pub u64);
impl PlayerData for Score {
    const KEY: &'static str = "score";
}

/// What happens in the middle of a handler, after it has changed the player's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// It says "not now".
    NotNow,
    /// It panics.
    Panic,
    /// It despawns the player.
    Despawn,
    /// It changes the data of everybody else as well.
    Meddle,
    /// None: it asks for a save, and all is well.
    Save,
}

impl Mishap {
    pub const ALL: [Self; 5] = [Self::NotNow, Self::Panic, Self::Despawn, Self::Meddle, Self::Save];
}

/// What is to happen in the next handlers that run, and what has happened.
#[derive(Resource, Default)]
pub struct Mishaps {
    pub next: VecDeque<Mishap>,
    pub done: Vec<Mishap>,
}

/// The message of a panic that is meant to happen.
pub const ON_PURPOSE: &str = "a handler panics on purpose";

/// What both handlers have at hand.
type Players<'w, 's> = Query<'w, 's, (Entity, &'static mut Bought, &'static mut Purse)>;

pub fn open_shop(app: &mut App) {
    app.init_resource::<Mishaps>()
        .persist::<Bought>()
        .persist::<Purse>()
        .persist::<Score>();
    for product in PRODUCTS {
        app.add_product(Product::new(product, grant).on_refund(revoke));
    }
}

fn grant(
    In(receipt): In<Receipt>,
    mut players: Players,
    mut mishaps: ResMut<Mishaps>,
    mut commands: Commands,
) -> Result {
    let (_, mut bought, mut purse) = players.get_mut(receipt.entity)?;
    add(&mut bought.0, receipt.purchase.as_str(), 1);
    add(&mut purse.0, receipt.product.as_str(), 1);
    if receipt.purchase.as_str().ends_with(NEVER) {
        return Err(Refuse(NEVER_WHY).into());
    }
    mishaps.happen(receipt.entity, &mut players, &mut commands)
}

fn revoke(
    In(receipt): In<Receipt>,
    mut players: Players,
    mut mishaps: ResMut<Mishaps>,
    mut commands: Commands,
) -> Result<Revoked> {
    let (_, mut bought, mut purse) = players.get_mut(receipt.entity)?;
    add(&mut bought.0, receipt.purchase.as_str(), -1);
    let product = receipt.product.as_str();
    let is_spent = product == GEMS && !purse.0.contains_key(GEMS);
    if !is_spent {
        add(&mut purse.0, product, -1);
    }
    mishaps.happen(receipt.entity, &mut players, &mut commands)?;
    Ok(if is_spent {
        Revoked::Short("the gem is spent".to_owned())
    } else {
        Revoked::Fully
    })
}

/// Adds to a count that is absent when it is zero.
fn add(counts: &mut BTreeMap<String, i64>, key: &str, more: i64) {
    let count = counts.entry(key.to_owned()).or_default();
    *count += more;
    if *count == 0 {
        counts.remove(key);
    }
}

impl Mishaps {
    fn happen(&mut self, entity: Entity, players: &mut Players, commands: &mut Commands) -> Result {
        let Some(mishap) = self.next.pop_front() else {
            return Ok(());
        };
        self.done.push(mishap);
        match mishap {
            Mishap::NotNow => return Err("not now".into()),
            Mishap::Panic => panic!("{ON_PURPOSE}"),
            Mishap::Despawn => commands.entity(entity).despawn(),
            Mishap::Save => commands.trigger(SavePlayer { entity }),
            Mishap::Meddle => {
                let mut others = 0;
                for (_, _, mut purse) in players.iter_mut().filter(|(other, ..)| *other != entity) {
                    add(&mut purse.0, PRODUCTS[0], 1);
                    others += 1;
                }
                // With nobody else there it is like any other failure.
                if others == 0 {
                    return Err("there is nobody else".into());
                }
            }
        }
        Ok(())
    }
}

/// Spends a gem, if there is one, and scores.
pub fn play(world: &mut World, entity: Entity) {
    let Ok(mut entity) = world.get_entity_mut(entity) else {
        return;
    };
    if !entity.contains::<PlayerSession>() {
        return;
    }
    if let Some(mut purse) = entity
        .get_mut::<Purse>()
        .filter(|purse| purse.0.contains_key(GEMS))
    {
        add(&mut purse.0, GEMS, -1);
    }
    if let Some(mut score) = entity.get_mut::<Score>() {
        score.0 += 1;
    }
}

/// Gives a gem to somebody else, if there is one to give.
pub fn give_gem(In(trade): In<Trade>, mut purses: Query<&mut Purse>) -> Result {
    let [mut from, mut to] = purses.get_many_mut([trade.a, trade.b])?;
    if from.0.contains_key(GEMS) {
        add(&mut from.0, GEMS, -1);
        add(&mut to.0, GEMS, 1);
    }
    Ok(())
}
