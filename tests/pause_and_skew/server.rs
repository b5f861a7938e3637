//! The server process: a real app on the real store, which appends to the journal of the player it has and says what was
//! acknowledged. It is told what to do on stdin, a line each.

use std::{
    io::BufRead,
    process::{self, Command},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    session::RetryPolicy,
    steps,
    store::{SqliteStore, Store},
    testing::headless_app,
};
use serde::{Deserialize, Serialize};

use super::{broken, history::Entry};

/// How often a server shows that it lives, and how long others wait for that.
pub const BEAT: Duration = Duration::from_millis(400);
pub const TTL: Duration = Duration::from_millis(1200);
/// The names of the variables that make a process one of these servers.
pub const DATABASE: &str = "PAUSE_DATABASE";
pub const NAME: &str = "PAUSE_NAME";
pub const BROKEN: &str = "PAUSE_BROKEN";
/// What begins a line that is meant for the test.
pub const MARK: &str = "»";
/// How often the loop turns, and how long a server rests between two saves.
const TICK: Duration = Duration::from_millis(4);
const REST: Duration = Duration::from_millis(25);

/// The step at which the process is to stop itself.
static STOP_AT: Mutex<Option<String>> = Mutex::new(None);

/// Everything that was ever appended, and by whom.
#[derive(Component, Serialize, Deserialize, Clone, Default)]
struct Journal(Vec<Entry>);

impl PlayerData for Journal {
    const KEY: &'static str = "journal";
}

/// What the server is at.
#[derive(Resource, Default)]
struct Desk {
    server: String,
    /// The number of the last entry.
    number: u32,
    /// The entry that was saved and is not yet acknowledged.
    pending: Option<Pending>,
    rested_since: Option<Instant>,
    player: Option<(String, Entity)>,
}

struct Pending {
    number: u32,
    is_final: bool,
}

macro_rules! say {
    ($($what:tt)*) => { println!("\n{MARK} {}", format_args!($($what)*)) };
}

pub fn serve_if_asked() {
    let Ok(database) = std::env::var(DATABASE) else {
        return;
    };
    let name = std::env::var(NAME).unwrap();
    steps::on_step(stop_at);
    let store = SqliteStore::open(&database).unwrap();
    let store = broken::wrap(store, &database, std::env::var(BROKEN).ok().as_deref());
    let mut app = app(store, &name);
    let commands = listen();
    say!("ready");
    loop {
        match commands.try_recv() {
            Ok(command) => obey(&mut app, &command),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        app.update();
        thread::sleep(TICK);
    }
}

fn app(store: impl Store, name: &str) -> App {
    let mut app = headless_app();
    let settings = ServerSettings {
        name: name.to_owned(),
        beat: BEAT,
        lease_ttl: TTL,
        exit_deadline: TTL / 2,
        autosave: None,
        // Some tests let an hour pass, again and again.
        load_timeout: Duration::from_secs(30 * 24 * 3600),
        handle_signals: false,
        // Whoever waits here waits for a lease to lapse.
        hand_off: HandOffSettings {
            min_session: Duration::MAX,
            ..default()
        },
        retry: RetryPolicy {
            first: Duration::from_millis(5),
            max: Duration::from_millis(50),
            ..RetryPolicy::default()
        },
        ..default()
    };
    app.add_plugins(PlayerDataPlugin::server(store).with_settings(settings))
        .persist::<Journal>()
        .insert_resource(Desk {
            server: name.to_owned(),
            ..default()
        })
        .add_systems(Update, append)
        .add_observer(|_: On<PlayerLoaded>, desk: Res<Desk>| say!("loaded {}", desk.name()))
        .add_observer(|failed: On<PlayerLoadFailed>| say!("failed {}", failed.error))
        .add_observer(answered)
        .add_observer(|ended: On<PlayerSessionEnded>| say!("ended {:?}", ended.reason));
    app
}

impl Desk {
    fn name(&self) -> &str {
        self.player.as_ref().map_or("nobody", |(name, _)| name)
    }

    fn next(&mut self, is_final: bool) -> Entry {
        self.number += 1;
        self.pending = Some(Pending {
            number: self.number,
            is_final,
        });
        Entry {
            server: self.server.clone(),
            number: self.number,
        }
    }
}

/// Appends an entry and saves it, one after the other.
fn append(
    mut desk: ResMut<Desk>,
    mut players: Query<&mut Journal, With<PlayerSession>>,
    mut commands: Commands,
) {
    let Some((_, entity)) = desk.player.clone() else {
        return;
    };
    let Ok(mut journal) = players.get_mut(entity) else {
        return;
    };
    if desk.pending.is_some() || desk.rested_since.is_some_and(|since| since.elapsed() < REST) {
        return;
    }
    journal.0.push(desk.next(false));
    commands.trigger(SavePlayer { entity });
}

fn answered(saved: On<PlayerSaved>, mut desk: ResMut<Desk>) {
    desk.rested_since = Some(Instant::now());
    let Some(pending) = desk.pending.take_if(|pending| pending.is_final == saved.is_final) else {
        return;
    };
    let number = pending.number;
    match &saved.result {
        Ok(()) => say!("acked {number}"),
        Err(SaveError::LockLost) => say!("refused {number}"),
        Err(error) => say!("unsaved {number} {error}"),
    }
    if saved.is_final {
        say!("left");
    }
}

fn obey(app: &mut App, command: &str) {
    match command.split_once(' ').unwrap_or((command, "")) {
        ("join", name) => {
            let entity = app
                .world_mut()
                .spawn(PersistentPlayer(PlayerId::from_name(name)))
                .id();
            let mut desk = app.world_mut().resource_mut::<Desk>();
            desk.player = Some((name.to_owned(), entity));
            desk.pending = None;
        }
        ("leave", _) => leave(app.world_mut()),
        ("stop-at", step) => *STOP_AT.lock().unwrap() = Some(step.to_owned()),
        ("go-on", _) => *STOP_AT.lock().unwrap() = None,
        ("clock", _) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            say!("clock {}", now.as_secs());
        }
        _ => panic!("`{command}` is no command"),
    }
}

/// Lets the player go, with a last entry.
fn leave(world: &mut World) {
    let Some((_, entity)) = world.resource_mut::<Desk>().player.take() else {
        return;
    };
    if world.get::<Journal>(entity).is_some() {
        let entry = world.resource_mut::<Desk>().next(true);
        world.get_mut::<Journal>(entity).unwrap().0.push(entry);
    }
    world.try_despawn(entity).ok();
}

fn listen() -> Receiver<String> {
    let (sender, commands) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    commands
}

/// Stops the whole process here, if it was asked to; it goes on when somebody sends it a `SIGCONT`.
pub fn stop_at(step: &str) {
    let mut wanted = STOP_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if wanted.as_deref() == Some(step) {
        *wanted = None;
        drop(wanted);
        say!("stopping at {step}");
        let stopped = Command::new("kill")
            .args(["-STOP", &process::id().to_string()])
            .status();
        assert!(stopped.is_ok_and(|stopped| stopped.success()), "`kill` works");
    }
}
