//! One run: a real server, several people on their devices, and whatever can happen to them, drawn from a seed.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bevy::prelude::*;
use bevy_player_data::{prelude::*, testing::follow_seed};
use bevy_renet::renet::ClientId;
use fastrand::Rng;
use tokio::{runtime::Runtime, time};

use crate::{
    device::{Device, Make},
    driven::paused_runtime,
    event::{EVENTS, Event},
    game::{self, Badge},
    past::prepare,
    recorder::{Level, Recorder},
    sabotage::{SABOTAGED_AT, Sabotage},
    secret::{Found, Person, Planted, Secret, Secrets},
    server::{Heard, Identities, server, settings},
    store::{Op, TalkingStore},
    support::OtherServer,
    tally::Tally,
};

/// How much time passes with each tick.
pub const TICK: Duration = Duration::from_millis(50);
/// How long things happen, in ticks.
const LENGTH: u32 = 100;
/// How long everybody may take to be shown their data in the end, in ticks.
const PATIENCE: u32 = 200;

/// A secret that was sent to somebody who must not have it.
#[derive(Clone, Debug)]
pub struct Leak {
    pub place: &'static str,
    pub form: &'static str,
    pub level: Level,
    pub owner: Option<Person>,
    pub reader: Person,
}

/// What came of a run.
pub struct Outcome {
    pub tally: Tally,
    pub leaks: Vec<Leak>,
    /// What should have been seen, and was not.
    pub blind: Vec<String>,
}

/// Somebody who plays.
pub struct Human {
    /// The names of their characters.
    pub names: [String; 2],
    /// The one that they play now.
    pub character: usize,
}

impl Human {
    pub fn name(&self) -> &str {
        &self.names[self.character]
    }

    pub fn player(&self) -> PlayerId {
        PlayerId::from_name(self.name())
    }
}

pub struct Run {
    pub rng: Rng,
    pub secrets: Secrets,
    pub tally: Tally,
    pub sabotage: Option<Sabotage>,
    pub store: TalkingStore,
    pub server: App,
    runtime: Arc<Runtime>,
    pub humans: Vec<Human>,
    /// What each of them was sent, and then what somebody was who is none of them.
    recorders: Vec<Recorder>,
    pub devices: Vec<Device>,
    identities: Identities,
    next_client: ClientId,
    /// Other servers, which hold locks.
    pub others: Vec<OtherServer>,
    pub bought: Vec<NewReceipt>,
}

/// Tells a run from its seed.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    follow_seed(Some(seed));
    let mut run = Run::new(seed, sabotage);
    for tick in 0..LENGTH {
        if tick == SABOTAGED_AT {
            run.sabotage_once();
        }
        if tick < SABOTAGED_AT || sabotage != Some(Sabotage::PrivateAcrossParts) {
            for _ in 0..run.rng.u32(0..4) {
                run.something_happens();
            }
        }
        run.tick();
    }
    run.end_sabotage();
    let blind = run.end();
    let outcome = run.judge(blind);
    follow_seed(None);
    outcome
}

impl Run {
    fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut secrets = Secrets::new(rng.u64(..));
        for name in game::PRIVATE_NAMES {
            secrets.note_name("private types' names", name);
        }
        let count = rng.usize(3..=8);
        let humans = (0..count)
            .map(|person| Human {
                names: ["knight", "thief"].map(|kind| {
                    let name = format!("{kind} {person} of {seed}");
                    secrets.note(
                        "public: the player's id",
                        Some(person),
                        PlayerId::from_name(&name).into_bytes(),
                    );
                    name
                }),
                character: 0,
            })
            .collect();
        let runtime = paused_runtime();
        let store = TalkingStore::default();
        let identities = Identities::default();
        let settings = settings(&mut rng, &mut secrets, &identities, sabotage);
        let server = server(store.clone(), settings, &runtime, sabotage);
        let mut this = Self {
            rng,
            secrets,
            tally: Tally::default(),
            sabotage,
            store,
            server,
            runtime,
            humans,
            recorders: (0..=count).map(|_| Recorder::default()).collect(),
            devices: Vec::new(),
            identities,
            next_client: 1,
            others: Vec::new(),
            bought: Vec::new(),
        };
        for person in 0..count {
            prepare(&mut this, person);
        }
        this
    }

    /// The one who is none of them.
    pub fn stranger(&self) -> Person {
        self.humans.len()
    }

    pub fn plant(&mut self, place: &'static str, reader: Option<Person>) -> Secret {
        self.secrets.plant(place, reader)
    }

    fn something_happens(&mut self) {
        let total: u32 = EVENTS.iter().map(|event| event.weight).sum();
        let mut ticket = self.rng.u32(..total);
        let person = self.rng.usize(..self.humans.len());
        for &Event { name, weight, happen } in EVENTS {
            if ticket < weight {
                if happen(self, person) {
                    self.tally.count("events", name);
                }
                return;
            }
            ticket -= weight;
        }
    }

    pub fn tick(&mut self) {
        self.server.update();
        self.runtime.block_on(async { time::sleep(TICK).await });
        self.deliver();
    }

    fn deliver(&mut self) {
        for mut device in mem::take(&mut self.devices) {
            let reader = match self.sabotage {
                // The first two.
                Some(Sabotage::SwappedPackets) if device.reader < 2 => 1 - device.reader,
                _ => device.reader,
            };
            device.tick(&mut self.server, &mut self.recorders[reader]);
            if device.is_connected(&self.server) {
                self.devices.push(device);
            } else {
                device.hang_up(&mut self.recorders[reader]);
            }
        }
    }

    /// Somebody connects, as the player that they play.
    pub fn connect(&mut self, person: Person) {
        let player = self.humans[person].player();
        self.connect_as(person, Some(player), Make::Honest);
    }

    pub fn connect_as(&mut self, reader: Person, player: Option<PlayerId>, make: Make) {
        let id = self.next_client;
        self.next_client += 1;
        if let Some(player) = player {
            let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
            identities.insert(id, player);
        }
        let device = Device::connect(&mut self.server, reader, id, make, self.sabotage);
        self.devices.push(device);
        self.tally.count("connections", format!("{make:?}"));
    }

    pub fn is_connected(&self, person: Person) -> bool {
        self.devices.iter().any(|device| device.reader == person)
    }

    /// The entity of somebody who plays, and whether that is in a session; if not, it is on defaults.
    pub fn entity_of(&mut self, person: Person) -> Option<(Entity, bool)> {
        let player = self.humans[person].player();
        let world = self.server.world_mut();
        let mut players =
            world.query::<(Entity, &PersistentPlayer, Has<PlayerSession>, Has<PlayerFallback>)>();
        let mut players = players.iter(world);
        players.find_map(|(entity, &PersistentPlayer(id), in_session, on_fallback)| {
            (id == player && (in_session || on_fallback)).then_some((entity, in_session))
        })
    }

    /// Everything is well again: everybody comes back, is shown something new, and the server exits.
    ///
    /// Returns what should have been seen, and was not.
    fn end(&mut self) -> Vec<String> {
        self.store.clear();
        for other in mem::take(&mut self.others) {
            other.stop(&self.store.rows);
        }
        for device in &mut self.devices {
            (device.stalled, device.lossy) = (0, 0);
            device.disconnect();
        }
        for _ in 0..10 {
            self.tick();
        }
        assert_eq!(self.devices.len(), 0, "everybody is gone");
        for person in 0..self.humans.len() {
            self.connect(person);
        }
        let mut shown = BTreeMap::new();
        for _ in 0..PATIENCE {
            for person in 0..self.humans.len() {
                if !shown.contains_key(&person)
                    && let Some((entity, _)) = self.entity_of(person)
                {
                    let secret = self.plant("public: the last thing shown", Some(person)).text();
                    shown.insert(person, (self.secrets.planted().len() - 1, secret.clone()));
                    self.server.world_mut().entity_mut(entity).insert(Badge(secret));
                }
            }
            self.tick();
            let is_shown = |device: &mut Device| {
                shown
                    .get(&device.reader)
                    .is_some_and(|(_, secret)| device.badge().as_ref() == Some(secret))
            };
            if self.devices.iter_mut().all(is_shown) {
                break;
            }
        }
        let mut blind = Vec::new();
        for device in &mut self.devices {
            let person = device.reader;
            if shown.get(&person).map(|(_, secret)| secret) != device.badge().as_ref() {
                blind.push(format!("{person} is not shown their data in the end"));
            }
        }
        if shown.len() < 2 {
            blind.push("fewer than two were shown their data".to_owned());
        }
        self.tally.add("events", "everybody is saved at the exit", 1);
        self.server.world_mut().write_message(AppExit::Success);
        self.tick();
        self.deliver();
        for device in mem::take(&mut self.devices) {
            let reader = device.reader;
            device.hang_up(&mut self.recorders[reader]);
        }
        for (person, (number, _)) in shown {
            if !self.has_seen(person, number) {
                blind.push(format!(
                    "the recorder has not seen what {person} was shown in the end"
                ));
            }
        }
        blind
    }

    fn has_seen(&self, person: Person, number: usize) -> bool {
        if self.sabotage == Some(Sabotage::SwappedPackets) {
            return true; // On the wrong client.
        }
        let mut is_seen = false;
        self.recorders[person].search(&self.secrets.index(), |level, found| {
            is_seen |= found.number == number && level == Level::Packet;
        });
        is_seen
    }

    /// Looks for every secret in everything that was sent.
    fn judge(mut self, blind: Vec<String>) -> Outcome {
        let mut leaks: BTreeMap<(usize, Person), Leak> = BTreeMap::new();
        let mut seen = BTreeMap::new();
        let index = self.secrets.index();
        for (reader, recorder) in self.recorders.iter().enumerate() {
            recorder.search(&index, |level, found| {
                let Found {
                    place,
                    reader: owner,
                    form,
                    number,
                } = found;
                if owner == Some(reader) {
                    seen.insert(number, place);
                } else {
                    // The lowest level comes first.
                    leaks.entry((number, reader)).or_insert(Leak {
                        place,
                        form,
                        level,
                        owner,
                        reader,
                    });
                }
            });
            self.tally.add("sent", "packets", recorder.packets() as u64);
            self.tally.add("sent", "bytes", recorder.bytes() as u64);
            self.tally.add("sent", "messages", recorder.messages() as u64);
            self.tally.add("sent", "streams", recorder.streams() as u64);
            if reader == self.stranger() {
                self.tally
                    .add("sent", "packets to strangers", recorder.packets() as u64);
            }
        }
        for place in seen.into_values() {
            self.tally.count("seen by whom it is for", place);
        }
        for Planted { place, reader } in self.secrets.planted() {
            let group = if reader.is_some() {
                "for its owner"
            } else {
                "for nobody"
            };
            self.tally.count(group, *place);
        }
        for (op, name) in [
            (Op::Acquire, "to a load"),
            (Op::Commit, "to a save"),
            (Op::Receipts, "to a look at receipts"),
        ] {
            self.tally.add("errors of the store", name, self.store.given(op));
        }
        let heard = mem::take(&mut self.server.world_mut().resource_mut::<Heard>().0);
        for (what, times) in heard {
            self.tally.add("the server was told", what, times);
        }
        Outcome {
            tally: self.tally,
            leaks: leaks.into_values().collect(),
            blind,
        }
    }
}
