//! What is played: the components, and what changes in a tick.

use std::collections::BTreeMap;

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Coins(pub u64);

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Level(pub u32);

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Settings(pub BTreeMap<String, u32>);

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Inventory(pub Vec<Item>);

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Item {
    kind: u32,
    count: u32,
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Stats(pub [f32; 16]);

impl PlayerData for Coins {
    const KEY: &'static str = "coins";
}
impl PlayerData for Level {
    const KEY: &'static str = "level";
}
impl PlayerData for Settings {
    const KEY: &'static str = "settings";
}
impl PlayerData for Inventory {
    const KEY: &'static str = "inventory";
}
impl PlayerData for Stats {
    const KEY: &'static str = "stats";
}

/// All that a player has.
pub type Data = (Coins, Level, Settings, Inventory, Stats);

/// What a player begins with.
pub fn fresh(player: usize) -> Data {
    let number = player as u32;
    let settings = (0..20).map(|n| (format!("setting number {n}"), number + n));
    let items = (0..50).map(|n| Item {
        kind: 1000 + n,
        count: 1 + number % 90,
    });
    let stats = std::array::from_fn(|n| n as f32 * 1.5);
    (
        Coins(1000 + player as u64),
        Level(1),
        Settings(settings.collect()),
        Inventory(items.collect()),
        Stats(stats),
    )
}

/// The same changes for everybody who plays them with the same seed.
pub struct Play {
    random: fastrand::Rng,
}

/// What else is to be known of a change: the old and the new form of a component.
pub type Watch<'a> = &'a mut dyn FnMut(Vec<u8>, Vec<u8>);

impl Play {
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// One tick: 10 % of the players change their coins, 5 % their level, 2 % an item, 1 % a setting, 5 % a stat.
    pub fn tick(&mut self, world: &mut World, players: &[Entity], watch: Watch<'_>) {
        for &player in players {
            let random = &mut self.random;
            let percent = |random: &mut fastrand::Rng, part: u32| random.u32(..100) < part;
            if percent(random, 10) {
                let more = random.u64(1..100);
                change(world, player, watch, |coins: &mut Coins| coins.0 += more);
            }
            if percent(random, 5) {
                change(world, player, watch, |level: &mut Level| level.0 += 1);
            }
            if percent(random, 2) {
                let (place, count) = (random.usize(..50), random.u32(1..100));
                change(world, player, watch, |items: &mut Inventory| {
                    items.0[place].count = count;
                });
            }
            if percent(random, 1) {
                let (name, value) = (format!("setting number {}", random.u32(..20)), random.u32(..1000));
                change(world, player, watch, |settings: &mut Settings| {
                    settings.0.insert(name, value);
                });
            }
            if percent(random, 5) {
                let (place, more) = (random.usize(..16), random.f32());
                change(world, player, watch, |stats: &mut Stats| stats.0[place] += more);
            }
        }
    }
}

fn change<T>(world: &mut World, player: Entity, watch: Watch<'_>, change: impl FnOnce(&mut T))
where
    T: Component<Mutability = bevy::ecs::component::Mutable> + Serialize,
{
    let mut component = world.get_mut::<T>(player).expect("every player has it");
    let bytes = |component: &T| {
        bincode::serde::encode_to_vec(component, bincode::config::standard()).expect("it has a form")
    };
    let old = bytes(&component);
    change(&mut component);
    watch(old, bytes(&component));
}

/// What the shortest patch would take: where, how much, and the bytes between what the two have in common.
pub fn bare_patch(old: &[u8], new: &[u8]) -> usize {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    if start == old.len() && start == new.len() {
        return 0;
    }
    let end = old[start..].iter().rev().zip(new[start..].iter().rev());
    let end = end.take_while(|(a, b)| a == b).count();
    let number = |number: usize| if number < 128 { 1 } else { 2 };
    let bytes = new.len() - start - end;
    number(start) + number(bytes) + bytes
}
