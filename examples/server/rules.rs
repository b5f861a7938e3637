//! The rules: what becomes of players' wishes.
//!
//! Players' data are ordinary components here. Nothing in this module loads, saves or sends any of it.

use bevy::{ecs::query::QueryData, platform::collections::HashMap, prelude::*};
use bevy_player_data::prelude::*;
use bevy_renet::{RenetServer, renet::ClientId};

use crate::{
    cheating::CheatScore,
    game::{
        data::{Career, Cell, Coins, Inventory, Item, Level, Settings, Stack, Title},
        net::{self, Direction, FIELD, Wish},
    },
    relics,
    view::introduce,
};

/// What a new player begins with.
const WELCOME_COINS: u64 = 10;
/// How many finds lie on the field.
const FINDS: usize = 60;
/// How many steps a player makes per second at most, and how many in one go.
const STEPS_PER_SECOND: f32 = 15.0;
/// How many wishes of one player are heard per tick; the others wait.
const WISHES_PER_TICK: usize = 8;
/// The level from which on a player is called a coin hunter, and for each following multiple something better.
const LEVELS_PER_TITLE: u32 = 3;
const TITLES: [&str; 4] = ["Coin Hunter", "Coin Knight", "Coin Baron", "Coin Emperor"];

/// The player is on the field.
#[derive(Component)]
pub struct OnField {
    /// How many steps the player can make right now.
    breath: f32,
}

/// Others may trade with the player, who has made a move: whoever has just come in is left to look around, and whoever
/// has retired is left alone.
#[derive(Component)]
pub struct OpenToTrade;

/// What lies on the field.
#[derive(Resource, Default)]
pub struct Finds(HashMap<Cell, Find>);

#[derive(Clone, Copy)]
enum Find {
    Coin,
    Item(Item),
}

impl Finds {
    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        self.0.keys().copied()
    }
}

pub fn plugin(app: &mut App) {
    app.init_resource::<Finds>()
        .add_observer(welcome)
        .add_observer(play_on_defaults)
        .add_systems(Update, (catch_breath, fulfil_wishes, scatter_finds).chain());
}

/// Everything that is loaded comes at once, so a [`PlayerLoaded`] finds all of it.
fn welcome(
    loaded: On<PlayerLoaded>,
    mut players: Query<(&mut Coins, &mut Cell)>,
    mut commands: Commands,
) -> Result {
    if loaded.first_join {
        let (mut coins, mut cell) = players.get_mut(loaded.entity)?;
        coins.0 = WELCOME_COINS;
        *cell = random_cell();
        commands.trigger(SavePlayer {
            entity: loaded.entity,
        });
    }
    commands.entity(loaded.entity).insert(OnField {
        breath: STEPS_PER_SECOND,
    });
    Ok(())
}

/// Whoever can't be loaded may play all the same; nothing of that is saved.
fn play_on_defaults(failed: On<PlayerLoadFailed>, mut commands: Commands) {
    commands.entity(failed.entity).insert(OnField {
        breath: STEPS_PER_SECOND,
    });
}

fn catch_breath(time: Res<Time>, mut players: Query<&mut OnField>) {
    for mut player in &mut players {
        player.breath = (player.breath + STEPS_PER_SECOND * time.delta_secs()).min(STEPS_PER_SECOND);
    }
}

/// What a wish may touch.
#[derive(QueryData)]
#[query_data(mutable)]
struct Player {
    entity: Entity,
    on_field: &'static mut OnField,
    is_open_to_trade: Has<OpenToTrade>,
    cell: &'static mut Cell,
    coins: &'static mut Coins,
    level: &'static mut Level,
    inventory: &'static mut Inventory,
    settings: &'static mut Settings,
    career: &'static mut Career,
    cheat_score: &'static mut CheatScore,
}

fn fulfil_wishes(
    mut server: ResMut<RenetServer>,
    mut players: Query<(&PlayerClient, Player)>,
    mut finds: ResMut<Finds>,
    mut commands: Commands,
) {
    for (&PlayerClient(client), mut player) in &mut players {
        for _ in 0..WISHES_PER_TICK {
            match next_wish(&mut server, client) {
                None => break,
                Some(None) => player.cheat_score.nonsense(),
                Some(Some(Wish::Step(direction))) => player.step(direction, &mut finds, &mut commands),
                Some(Some(Wish::Wear(color))) => player.settings.color = color,
                Some(Some(Wish::Trade)) => player.trade(&mut commands),
                Some(Some(Wish::WhoIs(tag))) => commands.run_system_cached_with(introduce, (client, tag)),
                Some(Some(Wish::Retire)) => {
                    // The last change of this round: once the client sees it, it has seen everything.
                    player.career.rounds = player.career.rounds.saturating_add(1);
                    commands.entity(player.entity).remove::<(OnField, OpenToTrade)>();
                    break;
                }
            }
        }
    }
}

/// The client's next message, and what it means if it means anything.
fn next_wish(server: &mut RenetServer, client: ClientId) -> Option<Option<Wish>> {
    server
        .receive_message(client, net::WISHES)
        .map(|message| net::decode(&message))
}

impl PlayerItem<'_, '_> {
    /// Whether the player may make a move now.
    fn may_move(&mut self, commands: &mut Commands) -> bool {
        if self.on_field.breath < 1.0 {
            self.cheat_score.too_fast();
            return false;
        }
        self.on_field.breath -= 1.0;
        if !self.is_open_to_trade {
            commands.entity(self.entity).insert(OpenToTrade);
        }
        true
    }

    fn trade(&mut self, commands: &mut Commands) {
        if self.may_move(commands) {
            // A command, so that it comes before those of this player's later wishes.
            commands.run_system_cached_with(relics::trade_with_somebody, self.entity);
        }
    }

    fn step(&mut self, direction: Direction, finds: &mut Finds, commands: &mut Commands) {
        if !self.may_move(commands) {
            return;
        }
        // Walking against the edge of the field changes nothing, and is not to be taken for a change.
        self.cell.set_if_neq(neighbor(*self.cell, direction));
        match finds.0.remove(&*self.cell) {
            None => return,
            Some(Find::Coin) => self.coins.0 = self.coins.0.saturating_add(1),
            Some(Find::Item(item)) => put(&mut self.inventory, item),
        }
        self.gain_a_point(commands);
    }

    fn gain_a_point(&mut self, commands: &mut Commands) {
        self.level.points = self.level.points.saturating_add(1);
        if self.level.points < self.level.goal() {
            return;
        }
        *self.level = Level {
            number: self.level.number.saturating_add(1),
            points: 0,
        };
        if let Some(title) = title_at(self.level.number) {
            commands.entity(self.entity).insert(title);
        }
    }
}

/// The title that comes with a level.
fn title_at(level: u32) -> Option<Title> {
    let rank = (level / LEVELS_PER_TITLE) as usize;
    let is_due = level.is_multiple_of(LEVELS_PER_TITLE);
    TITLES
        .get(rank.checked_sub(1)?)
        .filter(|_| is_due)
        .map(|&title| Title(title.to_owned()))
}

fn put(inventory: &mut Inventory, item: Item) {
    match inventory.stacks.iter_mut().find(|stack| stack.item == item) {
        Some(stack) => stack.count = stack.count.saturating_add(1),
        None => inventory.stacks.push(Stack { item, count: 1 }),
    }
}

fn neighbor(Cell { x, y }: Cell, direction: Direction) -> Cell {
    match direction {
        Direction::Up => Cell {
            x,
            y: y.saturating_sub(1),
        },
        Direction::Down => Cell {
            x,
            y: y.saturating_add(1).min(FIELD.y - 1),
        },
        Direction::Left => Cell {
            x: x.saturating_sub(1),
            y,
        },
        Direction::Right => Cell {
            x: x.saturating_add(1).min(FIELD.x - 1),
            y,
        },
    }
}

fn scatter_finds(mut finds: ResMut<Finds>) {
    while finds.0.len() < FINDS {
        let find = match fastrand::u8(0..100) {
            0..90 => Find::Coin,
            90..96 => Find::Item(Item::Apple),
            96..99 => Find::Item(Item::Horseshoe),
            _ => Find::Item(Item::Gem),
        };
        finds.0.insert(random_cell(), find);
    }
}

fn random_cell() -> Cell {
    Cell {
        x: fastrand::u8(0..FIELD.x),
        y: fastrand::u8(0..FIELD.y),
    }
}
