//! The server process: a real app with a thousand players, all of whom have something unsaved.

use std::{process::ExitCode, sync::Arc, time::Duration};

use bevy::{
    app::{MainScheduleOrder, ScheduleRunnerPlugin},
    ecs::schedule::ScheduleLabel,
    prelude::*,
};
use bevy_player_data::{
    prelude::*,
    server::FlushPlayerData,
    store::{SqliteSettings, SqliteStore, Store},
};
use serde::{Deserialize, Serialize};

use super::moods::{Mood, Moody};

pub const PLAYERS: usize = 1000;
/// How many players leave in the very moment in which the server is told to end.
const LEAVE: usize = 50;
/// How many are on their way in by then.
const ARRIVE: usize = 20;
pub const EXIT_DEADLINE: Duration = Duration::from_millis(1200);
/// Longer than anybody waits.
const FOR_GOOD: Duration = Duration::from_secs(3600);

/// The names of the variables that make a process one of these servers.
pub const DATABASE: &str = "SHUTDOWN_DATABASE";
pub const GENERATION: &str = "SHUTDOWN_GENERATION";
pub const MOOD: &str = "SHUTDOWN_MOOD";
pub const SABOTAGE: &str = "SHUTDOWN_SABOTAGE";
/// What begins a line that is meant for the test.
pub const MARK: &str = "»";

/// What is wrong with a server that has to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    NoFlush,
    EarlyAnswers,
}

impl Sabotage {
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFlush => "no-flush",
            Self::EarlyAnswers => "early-answers",
        }
    }
}

/// What is saved: the number of a run, and a text that follows from it, so that half of it would be noticed.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub generation: u64,
    pub text: String,
}

impl PlayerData for Page {
    const KEY: &'static str = "page";
}

impl Page {
    pub fn of(player: PlayerId, generation: u64) -> Self {
        Self {
            generation,
            text: format!("{generation} of {player} ").repeat(8),
        }
    }

    pub fn is_whole(&self, player: PlayerId) -> bool {
        *self == Self::default() || *self == Self::of(player, self.generation)
    }
}

pub fn player(n: usize) -> PlayerId {
    PlayerId::from_name(&format!("player {n}"))
}

macro_rules! say {
    ($($what:tt)*) => { println!("\n{MARK} {}", format_args!($($what)*)) };
}

pub fn serve_if_asked() {
    let Ok(database) = std::env::var(DATABASE) else {
        return;
    };
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let sabotage = variable(SABOTAGE);
    let early = sabotage == Sabotage::EarlyAnswers.name();
    let mood = Mood::parse(&variable(MOOD)).expect("a mood");
    let mut settings = SqliteSettings::default();
    if mood == Mood::Locked {
        settings.busy_timeout = FOR_GOOD;
    }
    let store = SqliteStore::open_with(&database, settings).expect("the file can be opened");
    let store: Arc<dyn Store> = Arc::new(store);
    let mut app = app(Moody::new(store, mood, early));
    app.insert_resource(Generation(variable(GENERATION).parse().expect("a number")));
    if sabotage == Sabotage::NoFlush.name() {
        let mut order = app.world_mut().resource_mut::<MainScheduleOrder>();
        order.labels.retain(|label| *label != FlushPlayerData.intern());
    }
    let code = match app.run() {
        AppExit::Success => ExitCode::SUCCESS,
        AppExit::Error(_) => ExitCode::FAILURE,
    };
    // The harness of the tests has an exit code of its own.
    std::process::exit(i32::from(code != ExitCode::SUCCESS));
}

#[derive(Resource)]
struct Generation(u64);

#[derive(Resource, Default)]
struct IsReady(bool);

fn app(store: Moody) -> App {
    let mut app = App::new();
    let settings = ServerSettings {
        name: "arena".to_owned(),
        beat: Duration::from_millis(500),
        // Far longer than a load may take: nobody gets anybody back by waiting for a lease to lapse.
        lease_ttl: FOR_GOOD,
        autosave: None,
        exit_deadline: EXIT_DEADLINE,
        auto_join: false,
        ..default()
    };
    app.add_plugins((
        MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(Duration::from_millis(5))),
        PlayerDataPlugin::server(store).with_settings(settings),
    ))
    .persist::<Page>()
    .init_resource::<IsReady>()
    .add_systems(Startup, arrive)
    .add_systems(Update, make_unsaved)
    .add_systems(Last, some_come_and_some_go)
    .add_observer(|on: On<PlayerLoadFailed>| say!("failed {} {}", on.player, on.error))
    .add_observer(|on: On<PlayerDataFlushed>| {
        for unsaved in &on.unsaved {
            say!("unsaved {}", unsaved.player);
        }
        say!("flushed {} {} {}", on.total, on.saved(), on.elapsed.as_millis());
    });
    app
}

fn arrive(mut commands: Commands) {
    commands.spawn_batch((0..PLAYERS).map(|n| PersistentPlayer(player(n))));
}

/// Once everybody is there, says with what, and gives everybody something new.
fn make_unsaved(
    mut players: Query<(&PersistentPlayer, &mut Page), With<PlayerSession>>,
    generation: Res<Generation>,
    mut ready: ResMut<IsReady>,
) {
    if ready.0 || players.iter().len() < PLAYERS {
        return;
    }
    ready.0 = true;
    for (&PersistentPlayer(player), mut page) in &mut players {
        if !page.is_whole(player) {
            say!("torn {player} {page:?}");
        }
        say!("had {player} {}", page.generation);
        *page = Page::of(player, generation.0);
    }
    say!("ready");
}

/// In the very update in which the server ends: in `Last`, so that nobody has had the time to see it.
fn some_come_and_some_go(
    mut exit: MessageReader<AppExit>,
    players: Query<Entity, With<PlayerSession>>,
    mut commands: Commands,
) {
    if exit.read().next().is_none() {
        return;
    }
    for entity in players.iter().take(LEAVE) {
        commands.entity(entity).despawn();
    }
    commands.spawn_batch((0..ARRIVE).map(|n| PersistentPlayer(player(PLAYERS + n))));
}
