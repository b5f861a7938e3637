//! A player outside of the process that is killed: a client over HTTP and UDP, which remembers what it was told.
//!
//! It knows of two kinds of promises. A purchase of which it hears that it is granted was saved, together with
//! everything that it had seen before it paid, if that was in the same session. And of a save it hears no more than
//! that there was one; but as autosaves of a player who buys nothing come one at a time, what it saw before three of
//! them is in the last, at least.

use std::{
    collections::BTreeSet,
    ops::AddAssign,
    path::Path,
    time::{Duration, Instant},
};

use bevy::{ecs::schedule::SingleThreadedExecutor, prelude::*};
use bevy_player_data::{
    document::{Document, Entry},
    prelude::*,
    testing::headless_app,
};
use bevy_renet::{
    RenetClient, RenetClientPlugin,
    netcode::{NetcodeClientPlugin, NetcodeClientTransport},
};
use rusqlite::OptionalExtension;

use super::{
    game::{
        data::{Bought, Cell, Coins, Level, shared_data},
        login::LoginService,
        net::{self, Direction, FieldView, Wish},
    },
    process::{ask, database, receipts},
    provider::Provider,
};

/// How many saves have to be heard of before what was seen before them counts as saved.
const SAVES: u32 = 3;
/// How long it takes to make a step; less than what the server allows.
const STEP: Duration = Duration::from_millis(80);

pub struct Witness {
    name: String,
    app: App,
    visit: Option<Visit>,
    /// What is saved, as far as it was told.
    saved: Progress,
    /// Purchases that it heard are granted.
    granted: BTreeSet<String>,
    /// What it has paid for and not heard of again, with what will be saved by then: what it had seen before it paid.
    open: Vec<(String, Progress)>,
    has_enough: bool,
    pub promises: Promises,
}

/// What it was promised, and when.
#[derive(Clone, Copy, Default)]
pub struct Promises {
    /// How often it was let in.
    pub visits: u64,
    pub grants: u64,
    pub saves: u64,
    /// How often it was promised that something new is saved.
    pub progress: u64,
}

impl AddAssign for Promises {
    fn add_assign(&mut self, other: Self) {
        self.visits += other.visits;
        self.grants += other.grants;
        self.saves += other.saves;
        self.progress += other.progress;
    }
}

struct Visit {
    /// Buys; otherwise it walks about.
    buys: bool,
    is_loaded: bool,
    next_step: Instant,
    view: FieldView,
    /// What it had seen, and how many saves it has heard of since.
    seen: Option<(Progress, u32)>,
}

/// What a player has who gives nothing back: it only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    level: (u32, u32),
    coins: u64,
    bought: u32,
}

/// What the client was told since somebody last looked.
#[derive(Resource, Default)]
struct Told {
    saves: u32,
    granted: Vec<String>,
}

impl Progress {
    fn covers(&self, other: &Self) -> bool {
        self.level >= other.level && self.coins >= other.coins && self.bought >= other.bought
    }

    fn of(coins: &Coins, level: &Level, bought: &Bought) -> Self {
        Self {
            level: (level.number, level.points),
            coins: coins.0,
            bought: bought.0.values().sum(),
        }
    }
}

impl Witness {
    pub fn new(name: String) -> Self {
        Self {
            name,
            app: client(),
            visit: None,
            saved: Progress::default(),
            granted: BTreeSet::new(),
            open: Vec::new(),
            has_enough: false,
            promises: Promises::default(),
        }
    }

    /// From now on it only waits for what it has paid for.
    pub fn buy_no_more(&mut self) {
        self.has_enough = true;
    }

    /// Does what there is to do now, which begins with logging in.
    pub fn live(&mut self, url: &str, provider: &mut Provider, random: &mut fastrand::Rng) {
        let Some(mut visit) = self.visit.take() else {
            return self.come(url, provider, random);
        };
        self.listen(&mut visit);
        if let Some((seen, cell)) = self.look() {
            if !visit.is_loaded {
                visit.is_loaded = true;
                self.promises.visits += 1;
            }
            if visit.buys {
                self.buy(seen, url, provider);
            } else {
                visit.seen.get_or_insert((seen, 0));
            }
            self.walk(&mut visit, cell, random);
        }
        self.visit = Some(visit);
    }

    /// Hears what the server still said before it was killed, and leaves.
    pub fn mourn(&mut self) {
        if let Some(mut visit) = self.visit.take() {
            self.listen(&mut visit);
        }
        self.app.world_mut().remove_resource::<RenetClient>();
        self.app.world_mut().remove_resource::<NetcodeClientTransport>();
        *self.app.world_mut().resource_mut::<Told>() = Told::default();
        // What it had seen before it paid went with the session, unless it was saved. The purchase will be granted in
        // another.
        for (_, seen) in &mut self.open {
            *seen = self.saved;
        }
    }

    fn come(&mut self, url: &str, provider: &mut Provider, random: &mut fastrand::Rng) {
        // A server that is being killed lets nobody in.
        let Ok(token) = LoginService::new(url).log_in(&self.name) else {
            return;
        };
        let (client, transport) = net::connect(token).expect("the server gives good tokens");
        self.app.world_mut().insert_resource(client);
        self.app.world_mut().insert_resource(transport);
        for (purchase, _) in &self.open {
            provider.repeat(url, purchase);
        }
        self.visit = Some(Visit {
            // Whoever has paid for something waits for it: its receipts come in between the autosaves.
            buys: !self.open.is_empty() || random.bool(),
            is_loaded: false,
            next_step: Instant::now(),
            view: FieldView::default(),
            seen: None,
        });
    }

    fn listen(&mut self, visit: &mut Visit) {
        self.app.update();
        let told = std::mem::take(&mut *self.app.world_mut().resource_mut::<Told>());
        for purchase in told.granted {
            self.promises.grants += 1;
            let Some(n) = self.open.iter().position(|(open, _)| *open == purchase) else {
                continue;
            };
            let (purchase, seen) = self.open.swap_remove(n);
            self.promise(Progress {
                bought: seen.bought + 1,
                ..seen
            });
            self.granted.insert(purchase);
        }
        self.promises.saves += u64::from(told.saves);
        let Some((seen, saves)) = &mut visit.seen else {
            return;
        };
        // What is said in one update may have been said in one message.
        *saves += u32::from(told.saves > 0);
        if *saves >= SAVES {
            let seen = *seen;
            visit.seen = None;
            self.promise(seen);
        }
    }

    fn promise(&mut self, saved: Progress) {
        if !self.saved.covers(&saved) {
            self.promises.progress += 1;
        }
        self.saved = Progress {
            level: self.saved.level.max(saved.level),
            coins: self.saved.coins.max(saved.coins),
            bought: self.saved.bought.max(saved.bought),
        };
    }

    fn look(&mut self) -> Option<(Progress, Cell)> {
        let world = self.app.world_mut();
        let mut own = world
            .query_filtered::<(&Coins, &Level, &Bought, &Cell), (With<OwnPlayer>, With<PlayerSession>)>();
        let (coins, level, bought, cell) = own.single(world).ok()?;
        Some((Progress::of(coins, level, bought), *cell))
    }

    /// One thing at a time.
    fn buy(&mut self, seen: Progress, url: &str, provider: &mut Provider) {
        if self.open.is_empty() && !self.has_enough {
            let purchase = provider.sell(url, PlayerId::from_name(&self.name));
            self.open.push((purchase, seen));
        }
    }

    fn walk(&mut self, visit: &mut Visit, Cell { x, y }: Cell, random: &mut fastrand::Rng) {
        let Some(mut client) = self.app.world_mut().get_resource_mut::<RenetClient>() else {
            return;
        };
        while let Some(view) = client.receive_message(net::VIEWS) {
            visit.view = net::decode(&view).unwrap_or_default();
        }
        if visit.next_step > Instant::now() {
            return;
        }
        visit.next_step = Instant::now() + STEP;
        let finds = visit.view.finds.iter().filter(|find| **find != Cell { x, y });
        let near = finds.min_by_key(|find| find.x.abs_diff(x) as u16 + find.y.abs_diff(y) as u16);
        let direction = match near {
            Some(find) if find.x > x => Direction::Right,
            Some(find) if find.x < x => Direction::Left,
            Some(find) if find.y > y => Direction::Down,
            Some(_) => Direction::Up,
            None => [Direction::Up, Direction::Down, Direction::Left, Direction::Right][random.usize(0..4)],
        };
        client.send_message(net::WISHES, net::encode(&Wish::Step(direction)));
    }

    /// What was promised and is not in the file.
    pub fn missing(&mut self, folder: &Path) -> Vec<String> {
        let mut missing = Vec::new();
        let stored = stored(folder, &self.name);
        if !stored.covers(&self.saved) {
            missing.push(format!(
                "{} was told that {:?} is saved, and the file has {stored:?}",
                self.name, self.saved
            ));
        }
        let receipts = receipts(folder);
        for purchase in &self.granted {
            let state = receipts
                .iter()
                .find(|row| row.purchase == *purchase)
                .map(|row| &row.state);
            if state.is_none_or(|state| state != "granted") {
                missing.push(format!(
                    "{} was told that {purchase} is granted, and it is {state:?}",
                    self.name
                ));
            }
        }
        // Nobody will say again that these are granted.
        let is_settled = |open: &String| {
            receipts
                .iter()
                .any(|row| row.purchase == *open && row.state == "granted")
        };
        self.open.retain(|(open, _)| !is_settled(open));
        missing
    }
}

/// What the file, or the database, has.
fn stored(folder: &Path, name: &str) -> Progress {
    let player = PlayerId::from_name(name);
    let document = match ask(folder, |store| store.peek(player)) {
        Some(record) => record.and_then(|record| record.document),
        None => in_the_file(folder, player).map(Into::into),
    };
    let Some(document) = document else {
        return Progress::default();
    };
    let document = Document::decode(&document).expect("a document");
    Progress::of(&value(&document), &value(&document), &value(&document))
}

fn in_the_file(folder: &Path, player: PlayerId) -> Option<Vec<u8>> {
    let query = "SELECT document FROM players WHERE player_id = ?1";
    let document: Option<Option<Vec<u8>>> = database(folder)
        .query_row(query, [player.into_bytes()], |row| row.get(0))
        .optional()
        .expect("the table can be read");
    document.flatten()
}

fn value<T: PlayerData + serde::de::DeserializeOwned + Default>(document: &Document) -> T {
    match document.get(T::KEY) {
        Some(Entry::Value { value, .. }) => value.decode().expect("what was saved can be read"),
        _ => T::default(),
    }
}

fn client() -> App {
    let mut app = headless_app();
    app.add_plugins((
        RenetClientPlugin,
        NetcodeClientPlugin,
        PlayerDataPlugin::client(),
        shared_data,
    ))
    .init_resource::<Told>()
    .add_observer(|saved: On<PlayerSaved>, mut told: ResMut<Told>| {
        told.saves += u32::from(saved.result.is_ok());
    })
    .add_observer(|processed: On<PurchaseProcessed>, mut told: ResMut<Told>| {
        if processed.decision == PurchaseDecision::PurchaseGranted {
            told.granted.push(processed.purchase.to_string());
        }
    });
    app.finish();
    app.cleanup();
    // One thread for all that each lane does.
    for (_, schedule) in app.world_mut().resource_mut::<Schedules>().iter_mut() {
        schedule.set_executor(SingleThreadedExecutor::new());
    }
    app
}
