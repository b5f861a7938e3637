//! The game that is simulated: data that tells on itself when it is lost, doubled or leaked.
//!
//! Every deed of a player has a number of its own, which goes into the [`Journal`]: a stored journal that doesn't
//! continue the one stored before has lost something. Beside it stand data that must agree with it ([`Level`],
//! [`Bought`]), things that exist once in the world ([`Relics`]), data that only newer servers know ([`Pet`]), and data
//! that nobody else, or nobody at all, may see ([`Badge`], [`Diary`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize};

/// What a player has done, in order.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Journal(pub Vec<u32>);
impl PlayerData for Journal {
    const KEY: &'static str = "journal";
}

/// Marks a deed on default data, which must never be stored.
pub const ON_FALLBACK: u32 = 1 << 31;
/// Marks a deed that raises the level.
pub const PLAYED: u32 = 1 << 30;

/// One more with each deed that is marked as [`PLAYED`].
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Level(pub u64);
impl PlayerData for Level {
    const KEY: &'static str = "level";
}

/// The same in a newer version of the game, where each deed counts for ten.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NewLevel(pub u64);
impl PlayerData for NewLevel {
    const KEY: &'static str = Level::KEY;
    const VERSION: u32 = 2;
    fn migrate(from: u32, old: StoredValue) -> Result<StoredValue, MigrateError> {
        match from {
            1 => old.map(|Level(old)| NewLevel(old * NEW_LEVELS)),
            _ => Err(MigrateError::unknown(from)),
        }
    }
}
/// How many new levels an old one is worth.
pub const NEW_LEVELS: u64 = 10;

/// Things that exist once. Each player brings one into the world.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Relics(pub BTreeSet<u32>);
impl PlayerData for Relics {
    const KEY: &'static str = "relics";
}

/// How often each purchase was granted, less how often it was taken back. What is zero is absent.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Bought(pub BTreeMap<String, i64>);
impl PlayerData for Bought {
    const KEY: &'static str = "bought";
}

/// Something that only newer servers know. Once a player has one it never changes.
#[derive(Component, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Pet(pub String);
impl PlayerData for Pet {
    const KEY: &'static str = "pet";
}

/// What its owner may see, and nobody else.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Badge(pub String);
impl PlayerData for Badge {
    const KEY: &'static str = "badge";
}

/// What no client may see.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Diary(pub String);
impl PlayerData for Diary {
    const KEY: &'static str = "diary";
    const PRIVATE: bool = true;
}

/// The same by mistake: everything about it is right but that it is not private.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct OpenDiary(pub String);
impl PlayerData for OpenDiary {
    const KEY: &'static str = Diary::KEY;
}

/// Which version of the game a server runs.
#[derive(Resource, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Old,
    New,
}

pub const PRODUCT: &str = "coins";
/// The end of a purchase's id for which the handler says "never".
pub const NEVER: &str = "-never";
/// What the handler says then.
pub const NEVER_WHY: &str = "sold out";

/// Numbers the deeds of all players.
#[derive(Resource, Clone, Default)]
pub struct Deeds(Arc<AtomicU32>);

impl Deeds {
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// How many of the next handlers say "not now", after they have changed the player's data.
#[derive(Resource, Default)]
pub struct NotNow(pub u32);

/// The words that a client's packets are searched for.
pub fn badge_of(player: PlayerId) -> String {
    format!("badge/{}", player.uuid().simple())
}
pub fn diary_of(player: PlayerId) -> String {
    format!("diary/{}", player.uuid().simple())
}
pub fn pet_of(player: PlayerId) -> String {
    format!("pet/{}", player.uuid().simple())
}

/// What client and server agree on. Clients are always new.
pub fn public_data(app: &mut App, build: Build) {
    app.persist::<Journal>()
        .persist::<Relics>()
        .persist::<Bought>()
        .persist::<Badge>();
    match build {
        Build::Old => app.persist::<Level>(),
        Build::New => app.persist::<NewLevel>().persist_optional::<Pet>(),
    };
}

pub fn server_data(app: &mut App, build: Build, diary_is_open: bool) {
    public_data(app, build);
    if diary_is_open {
        app.persist::<OpenDiary>();
    } else {
        app.persist::<Diary>();
    }
    app.insert_resource(build)
        .init_resource::<NotNow>()
        .add_product(Product::new(PRODUCT, grant).on_refund(revoke))
        .add_observer(welcome);
}

/// The relic that a player brings into the world.
pub fn relic_of(players: &[PlayerId], player: PlayerId) -> Option<u32> {
    let place = players.iter().position(|&known| known == player)?;
    u32::try_from(place).ok()
}

/// Everybody who plays.
#[derive(Resource, Clone)]
pub struct Everybody(pub Vec<PlayerId>);

fn welcome(
    loaded: On<PlayerLoaded>,
    build: Res<Build>,
    everybody: Res<Everybody>,
    pets: Query<(), With<Pet>>,
    mut data: Query<(
        &mut Relics,
        &mut Badge,
        Option<&mut Diary>,
        Option<&mut OpenDiary>,
    )>,
    mut commands: Commands,
) -> Result {
    let player = loaded.player;
    let (mut relics, mut badge, diary, open_diary) = data.get_mut(loaded.entity)?;
    if loaded.first_join {
        relics.0.extend(relic_of(&everybody.0, player));
        badge.0 = badge_of(player);
        if let Some(mut diary) = diary {
            diary.0 = diary_of(player);
        }
        if let Some(mut diary) = open_diary {
            diary.0 = diary_of(player);
        }
    }
    if *build == Build::New && !pets.contains(loaded.entity) {
        commands.entity(loaded.entity).insert(Pet(pet_of(player)));
    }
    Ok(())
}

fn grant(
    In(receipt): In<Receipt>,
    deeds: Res<Deeds>,
    mut not_now: ResMut<NotNow>,
    mut players: Query<(&mut Bought, &mut Journal)>,
) -> Result {
    let (mut bought, mut journal) = players.get_mut(receipt.entity)?;
    add(&mut bought.0, receipt.purchase.as_str(), 1);
    journal.0.push(deeds.next());
    if receipt.purchase.as_str().ends_with(NEVER) {
        return Err(Refuse(NEVER_WHY).into());
    }
    not_now.happen()
}

fn revoke(
    In(receipt): In<Receipt>,
    deeds: Res<Deeds>,
    mut not_now: ResMut<NotNow>,
    mut players: Query<(&mut Bought, &mut Journal)>,
) -> Result<Revoked> {
    let (mut bought, mut journal) = players.get_mut(receipt.entity)?;
    add(&mut bought.0, receipt.purchase.as_str(), -1);
    journal.0.push(deeds.next());
    not_now.happen()?;
    Ok(Revoked::Fully)
}

impl NotNow {
    fn happen(&mut self) -> Result {
        if self.0 == 0 {
            return Ok(());
        }
        self.0 -= 1;
        Err("not now".into())
    }
}

/// Adds to a count that is absent when it is zero.
fn add(counts: &mut BTreeMap<String, i64>, key: &str, more: i64) {
    let count = counts.entry(key.to_owned()).or_default();
    *count += more;
    if *count == 0 {
        counts.remove(key);
    }
}

/// Gives a relic away, if there is one to give, and remembers the deed on both sides.
pub fn give_relic(
    In(trade): In<Trade>,
    deeds: Res<Deeds>,
    mut players: Query<(&mut Relics, &mut Journal)>,
) -> Result {
    let [mut from, mut to] = players.get_many_mut([trade.a, trade.b])?;
    let relic = from.0.0.pop_first().ok_or("there is no relic to give")?;
    to.0.0.insert(relic);
    let deed = deeds.next();
    from.1.0.push(deed);
    to.1.0.push(deed);
    Ok(())
}

/// Does something, on whatever data the player has.
pub fn play(world: &mut World, entity: Entity, is_real: bool) {
    let deed = world.resource::<Deeds>().next();
    let Ok(mut entity) = world.get_entity_mut(entity) else {
        return;
    };
    let mark = if is_real { PLAYED } else { ON_FALLBACK };
    if let Some(mut journal) = entity.get_mut::<Journal>() {
        journal.0.push(deed | mark);
    }
    if !is_real {
        return;
    }
    if let Some(mut level) = entity.get_mut::<Level>() {
        level.0 += 1;
    }
    if let Some(mut level) = entity.get_mut::<NewLevel>() {
        level.0 += NEW_LEVELS;
    }
}
