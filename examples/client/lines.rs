//! The client without a terminal: it says in lines what changes, and takes commands from stdin.
//!
//! Commands are `move left` (or `right`, `up`, `down`), `color blue`, `trade`, `hop` and `quit`; so is the end of stdin.

use std::{
    io::{self, BufRead, Write},
    sync::{
        Mutex,
        mpsc::{Receiver, TryRecvError, channel},
    },
    thread,
};

use bevy::prelude::*;
use bevy_player_data::prelude::*;

use crate::{
    connection::News,
    game::{
        data::{Bought, Cell, Coins, Inventory, Level, Relics, Settings, Title},
        net::{Direction, Wish},
    },
    hop::Hop,
    wishes::Wishes,
};

/// Lines from stdin.
#[derive(Resource)]
struct Input(Mutex<Receiver<String>>);

pub fn install(app: &mut App) {
    let (sender, receiver) = channel();
    // Reading blocks, so it has a thread of its own, which ends with the process.
    thread::spawn(move || {
        io::stdin()
            .lock()
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    app.insert_resource(Input(Mutex::new(receiver)))
        .add_systems(Update, obey)
        .add_systems(
            PostUpdate,
            (
                tell_news,
                tell_coins,
                tell_level,
                tell_title,
                tell_inventory,
                tell_relics,
                tell_bought,
                tell_color,
                tell_cell,
            )
                .chain(),
        );
}

fn obey(
    mut input: ResMut<Input>,
    mut wishes: ResMut<Wishes>,
    mut has_quit: Local<bool>,
    mut commands: Commands,
) {
    let Ok(input) = input.0.get_mut() else { return };
    while !*has_quit {
        let wish = match input.try_recv() {
            Ok(line) if line.trim() == "hop" => return commands.trigger(Hop),
            Ok(line) => understand(&line),
            Err(TryRecvError::Disconnected) => Ok(Wish::Retire),
            Err(TryRecvError::Empty) => return,
        };
        match wish {
            Ok(wish) => {
                *has_quit = matches!(wish, Wish::Retire);
                wishes.0.push_back(wish);
            }
            Err(problem) => say(format_args!("{problem}")),
        }
    }
}

fn understand(line: &str) -> Result<Wish, String> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["move", "up"] => Ok(Wish::Step(Direction::Up)),
        ["move", "down"] => Ok(Wish::Step(Direction::Down)),
        ["move", "left"] => Ok(Wish::Step(Direction::Left)),
        ["move", "right"] => Ok(Wish::Step(Direction::Right)),
        ["color", name] => name.parse().map(Wish::Wear),
        ["trade"] => Ok(Wish::Trade),
        ["quit"] => Ok(Wish::Retire),
        _ => Err(format!(
            "`{line}` is no command: say `move left`, `color blue`, `trade`, `hop` or `quit`"
        )),
    }
}

fn tell_news(mut news: MessageReader<News>) {
    for News(text) in news.read() {
        say(format_args!("{text}"));
    }
}

/// The player's own entity, when its `T` has just come or changed.
type MyNew<'w, 's, T> = Single<'w, 's, &'static T, (With<OwnPlayer>, Changed<T>)>;

fn tell_coins(coins: MyNew<Coins>) {
    say(format_args!("coins {}", coins.0));
}

fn tell_level(level: MyNew<Level>) {
    say(format_args!("level {} and {} points", level.number, level.points));
}

fn tell_inventory(inventory: MyNew<Inventory>) {
    say(format_args!("inventory {}", **inventory));
}

fn tell_relics(relics: MyNew<Relics>) {
    say(format_args!("relics {}", **relics));
}

fn tell_bought(bought: MyNew<Bought>) {
    say(format_args!("bought {}", **bought));
}

fn tell_color(settings: MyNew<Settings>) {
    say(format_args!("color {:?}", settings.color));
}

fn tell_cell(cell: MyNew<Cell>) {
    say(format_args!("at {} {}", cell.x, cell.y));
}

fn tell_title(title: MyNew<Title>) {
    say(format_args!("title {}", title.0));
}

/// Says a line. Nobody listening is no reason to fall over.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
