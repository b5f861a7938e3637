//! What can happen, and how often it does.

use bevy::prelude::*;
use bevy_player_data::{
    ProductId, PurchaseId,
    prelude::*,
    store::{Notice, Store as _, StoreError},
};

use crate::{
    device::Make,
    game::{Alias, BROKEN, Badge, Brittle, Crest, Diary, Drawing, Page, Purse},
    run::Run,
    sabotage::Sabotage,
    secret::Person,
    store::Op,
    support::{OtherServer, is_locked, wait},
};

/// Something that can happen to somebody. It returns whether it could.
pub struct Event {
    pub name: &'static str,
    pub weight: u32,
    pub happen: fn(&mut Run, Person) -> bool,
}

const fn event(name: &'static str, weight: u32, happen: fn(&mut Run, Person) -> bool) -> Event {
    Event { name, weight, happen }
}

pub const EVENTS: &[Event] = &[
    event("somebody connects", 30, connect),
    event("somebody disconnects", 2, disconnect),
    event("somebody connects once more, from elsewhere", 2, replace),
    event("the server sends somebody away", 2, despawn),
    event("somebody goes on as another character", 1, change_character),
    event("another game's client connects", 2, connect_with_other_types),
    event("another version's client connects", 2, connect_with_other_version),
    event("a client sends nonsense", 1, connect_with_nonsense),
    event("a client that nobody knows connects", 1, connect_unknown),
    event("a client stands still", 4, stall),
    event("a client's packets are lost", 4, lose_packets),
    event("public data changes", 12, change_public),
    event("a large public value changes", 2, change_large),
    event("an optional public component comes", 3, insert_public),
    event("an optional public component goes", 6, remove_public),
    event("private data changes", 8, change_private),
    event("an optional private component comes", 4, insert_private),
    event("an optional private component goes", 6, remove_private),
    event("a component can't be encoded any more", 3, break_private),
    event("the data is too large", 3, grow_private),
    event("a save is asked for", 6, save),
    event("the store can't be reached", 4, fail_store),
    event("the store rejects a save", 3, reject_save),
    event("the store calls what is stored corrupt", 2, call_corrupt),
    event("the lock is lost", 3, lose_lock),
    event("another server holds the lock", 3, lock_elsewhere),
    event("something is bought", 10, buy),
    event("something is refunded", 5, refund),
    event("two people trade", 8, trade),
    event("two people's trade fails", 6, fail_trade),
];

fn connect(run: &mut Run, person: Person) -> bool {
    let is_new = !run.is_connected(person);
    if is_new {
        run.connect(person);
    }
    is_new
}

fn disconnect(run: &mut Run, person: Person) -> bool {
    let mut devices = run.devices.iter_mut();
    let device = devices.find(|device| device.reader == person);
    device.map(crate::device::Device::disconnect).is_some()
}

fn replace(run: &mut Run, person: Person) -> bool {
    let is_here = run.entity_of(person).is_some();
    if is_here {
        run.connect(person);
    }
    is_here
}

fn despawn(run: &mut Run, person: Person) -> bool {
    let player = run.entity_of(person);
    player.is_some_and(|(entity, _)| run.server.world_mut().despawn(entity))
}

fn change_character(run: &mut Run, person: Person) -> bool {
    let Some((entity, _)) = run.entity_of(person) else {
        return false;
    };
    let human = &mut run.humans[person];
    human.character = 1 - human.character;
    let player = human.player();
    run.server
        .world_mut()
        .entity_mut(entity)
        .insert(PersistentPlayer(player));
    true
}

/// A client that is not the right one for a player who has all kinds of data.
fn connect_with(run: &mut Run, person: Person, reader: Person, make: Make) -> bool {
    let is_free = !run.is_connected(person);
    if is_free {
        let player = run.humans[person].player();
        run.connect_as(reader, Some(player), make);
    }
    is_free
}

fn connect_with_other_types(run: &mut Run, person: Person) -> bool {
    connect_with(run, person, run.stranger(), Make::OtherTypes)
}

fn connect_with_other_version(run: &mut Run, person: Person) -> bool {
    connect_with(run, person, run.stranger(), Make::OtherVersion)
}

fn connect_with_nonsense(run: &mut Run, person: Person) -> bool {
    // It may be shown something before it is thrown out.
    connect_with(run, person, person, Make::Nonsense)
}

fn connect_unknown(run: &mut Run, _: Person) -> bool {
    run.connect_as(run.stranger(), None, Make::Honest);
    true
}

fn stall(run: &mut Run, person: Person) -> bool {
    let ticks = run.rng.u32(1..20);
    let mut devices = run.devices.iter_mut();
    let device = devices.find(|device| device.reader == person);
    device.map(|device| device.stalled = ticks).is_some()
}

fn lose_packets(run: &mut Run, person: Person) -> bool {
    let ticks = run.rng.u32(1..10);
    let mut devices = run.devices.iter_mut();
    let device = devices.find(|device| device.reader == person);
    device.map(|device| device.lossy = ticks).is_some()
}

/// Puts something on somebody's entity, if they play.
fn put_on<B: Bundle>(run: &mut Run, person: Person, make: impl FnOnce(&mut Run) -> B) -> bool {
    let Some((entity, in_session)) = run.entity_of(person) else {
        return false;
    };
    let bundle = make(run);
    run.server.world_mut().entity_mut(entity).insert(bundle);
    let group = if in_session { "in a session" } else { "on defaults" };
    run.tally.count("changes", group);
    true
}

fn change_public(run: &mut Run, person: Person) -> bool {
    put_on(run, person, |run| {
        let badge = Badge(run.plant("public: a string", Some(person)).text());
        let purse = Purse {
            bytes: run.plant("public: bytes", Some(person)).0,
            numbers: run.plant("public: numbers", Some(person)).numbers(),
            names: [(run.plant("public: in a map's key", Some(person)).text(), 1)].into(),
            skipped: run.plant("public: in a skipped field", None).text(),
        };
        (badge, purse)
    })
}

fn change_large(run: &mut Run, person: Person) -> bool {
    put_on(run, person, |run| {
        let mut text = String::new();
        for _ in 0..run.rng.u32(2..6) {
            text += &run.plant("public: in a large value", Some(person)).text();
            text += &"-".repeat(run.rng.usize(..12_000));
        }
        Drawing(text)
    })
}

fn insert_public(run: &mut Run, person: Person) -> bool {
    put_on(run, person, |run| {
        Crest(run.plant("public: optional", Some(person)).text())
    })
}

fn remove<B: Component>(run: &mut Run, person: Person) -> bool {
    let player = run.entity_of(person);
    player.is_some_and(|(entity, _)| run.server.world_mut().entity_mut(entity).take::<B>().is_some())
}

fn remove_public(run: &mut Run, person: Person) -> bool {
    remove::<Crest>(run, person)
}

fn change_private(run: &mut Run, person: Person) -> bool {
    put_on(run, person, |run| {
        let diary = Diary::new(|place| run.plant(place, None));
        (diary, Brittle(run.plant("private: nested", None).text()))
    })
}

fn insert_private(run: &mut Run, person: Person) -> bool {
    // That one has a place of its own.
    run.sabotage != Some(Sabotage::PrivateAcrossParts)
        && put_on(run, person, |run| {
            Alias(run.plant("private: optional", None).text())
        })
}

fn remove_private(run: &mut Run, person: Person) -> bool {
    remove::<Alias>(run, person)
}

fn break_private(run: &mut Run, person: Person) -> bool {
    put_on(run, person, |run| {
        let secret = run.plant("private: can't be encoded", None).text();
        Brittle(format!("{BROKEN}{secret}"))
    }) && save(run, person)
}

fn grow_private(run: &mut Run, person: Person) -> bool {
    put_on(run, person, |run| {
        let mut diary = Diary::new(|place| run.plant(place, None));
        diary.pages.push(Page {
            text: run.plant("private: too large", None).text() + &"x".repeat(300 * 1024),
            ..default()
        });
        diary
    }) && save(run, person)
}

fn save(run: &mut Run, person: Person) -> bool {
    let Some((entity, _)) = run.entity_of(person) else {
        return false;
    };
    let world = run.server.world_mut();
    world.trigger(SavePlayer { entity });
    world.flush();
    true
}

/// Lets the store answer with an error, and gives it an occasion.
fn answer(run: &mut Run, person: Person, op: Op, times: usize, error: StoreError) -> bool {
    run.store.answer(run.humans[person].player(), op, times, error);
    change_public(run, person);
    save(run, person);
    true
}

fn error_text(run: &mut Run) -> String {
    let secret = run.plant("the text of a store's error", None).text();
    format!("no answer from db-7, password `{secret}`")
}

fn fail_store(run: &mut Run, person: Person) -> bool {
    let error = StoreError::unavailable(error_text(run));
    let op = *run
        .rng
        .choice(&[Op::Acquire, Op::Commit, Op::Receipts])
        .expect("there are some");
    let times = run.rng.usize(1..40);
    answer(run, person, op, times, error)
}

fn reject_save(run: &mut Run, person: Person) -> bool {
    let error = StoreError::rejected(error_text(run));
    answer(run, person, Op::Commit, 2, error)
}

fn call_corrupt(run: &mut Run, person: Person) -> bool {
    let error = StoreError::corrupt(error_text(run));
    let op = *run
        .rng
        .choice(&[Op::Acquire, Op::Commit, Op::Receipts])
        .expect("there are some");
    answer(run, person, op, 1, error)
}

fn lose_lock(run: &mut Run, person: Person) -> bool {
    let player = run.humans[person].player();
    let is_here = matches!(run.entity_of(person), Some((_, true)));
    is_here && answer(run, person, Op::Commit, 1, StoreError::LockLost { player })
}

fn lock_elsewhere(run: &mut Run, person: Person) -> bool {
    let name = run.humans[person].name().to_owned();
    if run.is_connected(person) || run.entity_of(person).is_some() || is_locked(&run.store.rows, &name) {
        return false;
    }
    let secret = run
        .plant("public: the name of the server that holds the lock", Some(person))
        .text();
    let other = OtherServer::start(&run.store.rows, &format!("arena {secret}"));
    other.lock(&run.store.rows, &name);
    run.others.push(other);
    run.connect(person);
    true
}

/// Another process hands a receipt in.
fn buy(run: &mut Run, person: Person) -> bool {
    let mystery = run.plant("public: a product's id", Some(person)).text();
    let product = *run
        .rng
        .choice(&["gold", "curse", "title", &mystery])
        .expect("there are some");
    let purchase = run.plant("public: a purchase's id", Some(person)).text();
    let hidden = run.plant("a receipt's payload and its handler's error", None);
    let shown = run.plant("public: what a handler says of a purchase", Some(person));
    let mut receipt = NewReceipt::new(
        PurchaseId::new(&purchase).expect("an id"),
        run.humans[person].player(),
        ProductId::new(product).expect("an id"),
    );
    let payload = format!("{} {}", hidden.text(), shown.text());
    receipt.payload = Some(payload.into_bytes().into());
    run.bought.push(receipt.clone());
    wait(run.store.enqueue(receipt, Notice::Paid)).is_ok()
}

fn refund(run: &mut Run, _: Person) -> bool {
    let Some(receipt) = run.rng.choice(&run.bought).cloned() else {
        return false;
    };
    wait(run.store.enqueue(receipt, Notice::Refund)).is_ok()
}

/// Two who are in a session.
fn partners(run: &mut Run, person: Person) -> Option<[(Person, Entity); 2]> {
    let partner = (person + run.rng.usize(1..run.humans.len())) % run.humans.len();
    match (run.entity_of(person), run.entity_of(partner)) {
        (Some((a, true)), Some((b, true))) => Some([(person, a), (partner, b)]),
        _ => None,
    }
}

fn trade(run: &mut Run, person: Person) -> bool {
    let Some(partners) = partners(run, person) else {
        return false;
    };
    let badges = partners.map(|(of, _)| Badge(run.plant("public: after a trade", Some(of)).text()));
    let page = run.plant("private: traded", None).text();
    let exchange = move |In(trade): In<Trade>, mut players: Query<(&mut Badge, &mut Diary)>| -> Result {
        let [mut a, mut b] = players.get_many_mut([trade.a, trade.b])?;
        [*a.0, *b.0] = badges.clone();
        let page = Page {
            text: page.clone(),
            ..default()
        };
        // What no client sees changes hands as well.
        b.1.pages.push(page);
        b.1.pages.append(&mut a.1.pages);
        Ok(())
    };
    let world = run.server.world_mut();
    world
        .commands()
        .trade(partners.map(|(_, entity)| entity), exchange);
    world.flush();
    true
}

fn fail_trade(run: &mut Run, person: Person) -> bool {
    let Some(partners) = partners(run, person) else {
        return false;
    };
    let badges = [0; 2].map(|_| Badge(run.plant("public: undone by a trade that failed", None).text()));
    let error = run.plant("the text of a trade's error", None).text();
    let exchange = move |In(trade): In<Trade>, mut players: Query<&mut Badge>| -> Result {
        let [mut a, mut b] = players.get_many_mut([trade.a, trade.b])?;
        [*a, *b] = badges.clone();
        Err(error.clone().into())
    };
    let world = run.server.world_mut();
    world
        .commands()
        .trade(partners.map(|(_, entity)| entity), exchange);
    world.flush();
    true
}
