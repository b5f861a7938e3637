//! Purchases and trades in bad company: observers that meddle, stores that answer at the wrong moment, handlers that
//! touch whom they shouldn't, players who leave in the middle.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/gate.rs"]
mod gate;
#[path = "support/purchases.rs"]
mod shop;
#[path = "support/server.rs"]
mod support;

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    document::{Document, Entry, StoredValue},
    player::{
        PurchaseDecision::{NotProcessedYet, PurchaseGranted},
        TradeError,
    },
    prelude::*,
    session::{Attempts, RetryPolicy},
    store::{Fault, Op, ReceiptState, Store},
    testing::{Faults, FaultyStore},
};
use gate::Gate;
use serde::{Deserialize, Serialize};
use shop::*;
use support::*;

fn shop(store: impl Store, settings: ServerSettings) -> App {
    let mut app = server(store, settings);
    app.add_plugins(with_coins);
    app
}

/// A server whose store answers when the test lets it, and looks for receipts at every opportunity.
fn gated() -> (App, Gate) {
    let gate = Gate::default();
    let purchases = PurchaseSettings {
        poll: Duration::from_millis(20),
        ..default()
    };
    let settings = ServerSettings {
        purchases,
        ..quick("a")
    };
    (shop(gate.clone(), settings), gate)
}

fn shaky(settings: ServerSettings) -> (App, MemoryStore, Faults) {
    let rows = MemoryStore::default();
    let store = FaultyStore::new(rows.connect(), 7);
    let faults = store.faults();
    (shop(store, settings), rows, faults)
}

fn coins(app: &App, player: Entity) -> u64 {
    app.component::<Coins>(player).unwrap().0
}

fn seven_coins_each(In(trade): In<Trade>, mut coins: Query<&mut Coins>) -> Result {
    coins.get_mut(trade.a)?.0 = 7;
    coins.get_mut(trade.b)?.0 = 7;
    Ok(())
}

fn trade(app: &mut App, players: [Entity; 2]) {
    app.world_mut().commands().trade(players, seven_coins_each);
    app.world_mut().flush();
}

#[test]
fn a_refund_that_was_read_before_the_grant_landed_and_is_heard_of_after_it_is_not_forgotten() {
    let (mut app, gate) = gated();
    let ada = app.join_and_load("ada");
    gate.commits.close();
    let asked = submit(&mut app, receipt("p1", "ada", "coins_100"));
    app.until("it is awarded in memory", |world| {
        world.get::<Coins>(ada).unwrap().0 == 100
    });
    // Another process asks for the refund; the poll finds it; the row is read: pending, with a refund asked for.
    gate.reads.close();
    let reads = gate.reads.waiting();
    refund(&gate.rows, "p1", "ada", "coins_100");
    app.until("the row is read", |_| gate.reads.waiting() > reads);
    // The grant lands and is acknowledged; then the reader's answer arrives.
    gate.commits.open();
    assert_eq!(answer(&mut app, asked), Ok(PurchaseGranted));
    gate.reads.open();
    app.until("it is refunded", |_| {
        state(&gate.rows, "p1") == ReceiptState::Refunded
    });
    assert_eq!(coins(&app, ada), 0);
}

#[test]
fn a_late_answer_to_the_last_players_save_blocks_nobody_else_on_the_same_entity() {
    let (mut app, gate) = gated();
    let entity = app.join_and_load("ada");
    gate.reject(id("ada"));
    gate.commits.close();
    app.set(entity, Coins(1));
    app.world_mut().trigger(SavePlayer { entity });
    app.world_mut().flush();
    // The account's second character is played on the same entity.
    app.set(entity, PersistentPlayer(id("bob")));
    app.until("bob is loaded", |world| {
        world.entity(entity).contains::<PlayerSession>()
            && world.get::<PersistentPlayer>(entity).unwrap().0 == id("bob")
    });
    gate.commits.open();
    app.until_heard(
        "ada's save is answered",
        |told| matches!(told, Told::Saved { player, is_final: false, .. } if *player == id("ada")),
    );
    assert!(
        app.component::<SaveBlocked>(entity).is_none(),
        "nothing of bob's was refused"
    );
    assert_eq!(buy(&mut app, "p1", "bob", "coins_100"), PurchaseGranted);
}

#[test]
fn nothing_is_sold_to_a_player_whose_data_the_store_rejects() {
    let (mut app, gate) = gated();
    let ada = app.join_and_load("ada");
    gate.reject(id("ada"));
    app.set(ada, Coins(1));
    assert!(app.save(ada, "ada").is_err());
    assert!(app.component::<SaveBlocked>(ada).is_some());
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    assert_eq!(
        coins(&app, ada),
        1,
        "it would be in memory only, for nobody knows how long"
    );
    assert_eq!(state(&gate.rows, "p1"), ReceiptState::Pending);
}

#[test]
fn a_store_that_panics_while_it_reads_receipts_stops_no_purchases() {
    let (mut app, gate) = gated();
    let ada = app.join_and_load("ada");
    gate.panics_next();
    let callback = receipt("p1", "ada", "coins_100");
    wait(inbox(&mut app).paid(callback)).unwrap();
    app.until("it is granted all the same", |world| {
        world.get::<Coins>(ada).unwrap().0 == 100
    });
    assert!(gate.has_panicked());
    gate.polls_panic_next();
    pay(&gate.rows, "p2", "ada", "coins_100");
    app.until("the poll goes on", |world| {
        world.get::<Coins>(ada).unwrap().0 == 200
    });
}

#[test]
fn a_save_before_a_trade_that_is_refused_is_not_skipped_on_exit() {
    let (mut app, gate) = gated();
    let [ada, bob] = ["ada", "bob"].map(|name| app.join_and_load(name));
    app.save(ada, "ada").unwrap();
    steal(&gate.rows, "bob");
    gate.commits.close();
    for coins in [1, 50] {
        app.set(ada, Coins(coins));
        app.world_mut().trigger(SavePlayer { entity: ada });
        app.world_mut().flush();
    }
    trade(&mut app, [ada, bob]);
    gate.commits.open_once_waiting_for(Duration::from_millis(200));
    app.exit();
    assert_eq!(stored_value::<Coins>(&gate.rows, "ada"), Some(Coins(50)));
}

#[test]
fn a_trade_that_landed_is_told_as_one_though_its_answer_was_lost_and_somebody_took_one_player_over() {
    #[derive(Resource, Default)]
    struct Ends(Vec<Result<(), TradeError>>);
    let settings = quick("a");
    let pause = Duration::from_millis(500);
    let settings = ServerSettings {
        retry: RetryPolicy {
            first: pause,
            max: pause,
            jitter: 0.0,
            ..settings.retry
        },
        ..settings
    };
    let (mut app, rows, faults) = shaky(settings);
    app.init_resource::<Ends>()
        .add_observer(|on: On<TradeSettled>, mut ends: ResMut<Ends>| ends.0.push(on.result.clone()));
    let [ada, bob] = ["ada", "bob"].map(|name| app.join_and_load(name));
    faults.fail_next(Op::Commit, 1, Fault::After);
    trade(&mut app, [ada, bob]);
    app.until("it landed", |_| row(&rows, "ada").unwrap().document.is_some());
    steal(&rows, "bob");
    app.until("it ends", |world| world.resource::<Ends>().0.len() == 2);
    assert_eq!(app.world().resource::<Ends>().0, [Ok(()), Ok(())]);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(7)));
    assert_eq!(stored_value::<Coins>(&rows, "bob"), Some(Coins(7)));
    // Bob, whom another server has, is told so without having to save; ada plays on.
    let ended = app.until_heard("a session ends", |told| matches!(told, Told::Ended { .. }));
    let (player, reason) = (id("bob"), SessionEnd::LockLost);
    assert_eq!(ended, Told::Ended { player, reason });
    app.set(ada, Coins(8));
    assert_eq!(app.save(ada, "ada"), Ok(()));
}

#[test]
fn a_purchase_behind_a_trade_that_can_not_be_committed_is_answered() {
    let settings = quick("a");
    let settings = ServerSettings {
        retry: RetryPolicy {
            attempts: Attempts::Limited(2),
            ..settings.retry
        },
        ..settings
    };
    let (mut app, rows, faults) = shaky(settings);
    let [ada, bob] = ["ada", "bob"].map(|name| app.join_and_load(name));
    faults.fail_next(Op::Commit, 1_000_000, Fault::Before);
    trade(&mut app, [ada, bob]);
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    faults.clear();
    until_processed(&mut app, "p1", &PurchaseGranted);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(107)));
}

#[test]
fn receipts_that_can_not_be_granted_now_are_not_read_in_every_update() {
    let purchases = PurchaseSettings {
        first_retry: Duration::from_secs(2),
        longest_retry: Duration::from_secs(2),
        poll: Duration::MAX,
        ..default()
    };
    let settings = ServerSettings {
        purchases,
        ..quick("a")
    };
    let (mut app, rows, faults) = shaky(settings);
    app.add_product(Product::new("later", |_: In<Receipt>| -> Result {
        Err("not now".into())
    }));
    for n in 0..300 {
        pay(&rows, &format!("p{n}"), "ada", "later");
    }
    app.join_and_load("ada");
    app.until("all were tried", |world| {
        world.resource::<Processed>().0.len() >= 300
    });
    let before = faults.calls(Op::Receipts);
    app.until("all were tried three times more", |world| {
        world.resource::<Processed>().0.len() >= 1200
    });
    let reads = faults.calls(Op::Receipts) - before;
    assert!(reads <= 8, "{reads} reads of all receipts");
    // And they hold up no other.
    assert_eq!(buy(&mut app, "new", "ada", "coins_100"), PurchaseGranted);
}

#[test]
fn a_game_that_saves_again_when_a_save_was_refused_overflows_no_stack() {
    let (mut app, _, _) = shaky(quick("a"));
    app.add_observer(|on: On<PlayerSaved>, mut commands: Commands| {
        if on.result.is_err() {
            commands.trigger(SavePlayer { entity: on.entity });
        }
    });
    let ada = app.join_and_load("ada");
    app.set(ada, Guild("x".repeat(5 * 1024 * 1024)));
    app.world_mut().trigger(SavePlayer { entity: ada });
    app.world_mut().flush();
    app.until("it has been refused a few times", |world| {
        world.resource::<ServerStats>().save_failures > 5
    });
}

// What is put back

/// Optional, like the two below.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Badge(u32);
impl PlayerData for Badge {
    const KEY: &'static str = "badge";
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[require(Badge)]
struct Title(String);
impl PlayerData for Title {
    const KEY: &'static str = "title";
}

/// A map without an order.
#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Bag(std::collections::HashMap<String, u32>);
impl PlayerData for Bag {
    const KEY: &'static str = "bag";
}

#[test]
fn putting_back_brings_no_required_component_into_being() {
    let (mut app, _, _) = shaky(quick("a"));
    app.persist_optional::<Badge>().persist_optional::<Title>();
    let ennoble = |In(receipt): In<Receipt>, mut titles: Query<&mut Title>| -> Result {
        titles.get_mut(receipt.entity)?.0 = "duke".to_owned();
        Err("not now".into())
    };
    app.add_product(Product::new("title", ennoble));
    let ada = app.join_and_load("ada");
    let earl = Title("earl".to_owned());
    app.set(ada, earl.clone());
    app.world_mut().entity_mut(ada).remove::<Badge>();
    assert_eq!(buy(&mut app, "p1", "ada", "title"), NotProcessedYet);
    assert_eq!(app.component::<Title>(ada), Some(earl));
    assert_eq!(app.component::<Badge>(ada), None);
}

#[test]
fn a_map_without_an_order_is_put_back_and_ends_no_session() {
    let (mut app, _, _) = shaky(quick("a"));
    app.persist::<Bag>();
    let brew = |In(receipt): In<Receipt>, mut bags: Query<&mut Bag>| -> Result {
        bags.get_mut(receipt.entity)?.0.insert("potion".to_owned(), 1);
        Err("not now".into())
    };
    app.add_product(Product::new("potion", brew));
    let ada = app.join_and_load("ada");
    let bag = Bag((0..20).map(|n| (format!("item {n}"), n)).collect());
    app.set(ada, bag.clone());
    app.save(ada, "ada").unwrap();
    assert_eq!(buy(&mut app, "p1", "ada", "potion"), NotProcessedYet);
    assert!(app.component::<PlayerSession>(ada).is_some(), "ada plays on");
    assert_eq!(app.component::<Bag>(ada), Some(bag));
}

#[derive(Component, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Rank {
    level: u32,
}
impl PlayerData for Rank {
    const KEY: &'static str = "rank";
}

/// What newer code makes of it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct RankTwo {
    level: u32,
    title: String,
}

#[test]
fn putting_back_does_not_turn_newer_data_into_older() {
    let (mut app, rows, _) = shaky(quick("a"));
    let newer = RankTwo {
        level: 3,
        title: "duke".to_owned(),
    };
    let mut document = Document::new();
    let entry = Entry::Value {
        version: 2,
        oldest_reader: 1,
        value: StoredValue::encode(&newer).unwrap(),
    };
    document.set("rank", entry);
    put(&rows, "ada", &document);
    app.persist::<Rank>();
    let promote = |In(receipt): In<Receipt>, mut ranks: Query<&mut Rank>| -> Result {
        ranks.get_mut(receipt.entity)?.level += 1;
        Err("not now".into())
    };
    app.add_product(Product::new("level", promote));
    let ada = app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "level"), NotProcessedYet);
    assert_eq!(app.component::<Rank>(ada), Some(Rank { level: 3 }));
    app.set(ada, Coins(1));
    app.save(ada, "ada").unwrap();
    assert_eq!(decoded::<RankTwo>(&stored(&rows, "ada"), "rank"), (2, newer));
}

#[test]
fn what_observers_change_of_others_when_somebody_can_not_be_put_back_is_saved() {
    let (mut app, rows, _) = shaky(quick("a"));
    app.add_observer(|insert: On<Insert, Coins>, mut coins: Query<&mut Coins>| {
        if let Ok(mut coins) = coins.get_mut(insert.entity)
            && coins.0 > 0
        {
            coins.0 += 1;
        }
    });
    // Whoever stays gets what whoever goes leaves behind.
    app.add_observer(
        |ended: On<PlayerSessionEnded>, mut coins: Query<(Entity, &mut Coins)>| {
            for (entity, mut coins) in &mut coins {
                if entity != ended.entity {
                    coins.0 = 777;
                }
            }
        },
    );
    let never = |In(receipt): In<Receipt>, mut coins: Query<&mut Coins>| -> Result {
        coins.get_mut(receipt.entity)?.0 += 1000;
        Err("not now".into())
    };
    app.add_product(Product::new("never", never));
    let [bob, ada] = ["bob", "ada"].map(|name| app.join_and_load(name));
    app.world_mut().get_mut::<Coins>(ada).unwrap().0 = 5;
    app.save(ada, "ada").unwrap();
    app.save(bob, "bob").unwrap();
    assert_eq!(buy(&mut app, "p1", "ada", "never"), NotProcessedYet);
    assert!(app.world().get_entity(ada).is_err(), "ada could not be put back");
    assert_eq!(coins(&app, bob), 777);
    app.save(bob, "bob").unwrap();
    assert_eq!(stored_value::<Coins>(&rows, "bob"), Some(Coins(777)));
}

// Third parties

#[test]
fn a_trade_that_takes_from_a_third_player_and_sends_them_away_does_not_come_about() {
    let (mut app, rows, _) = shaky(quick("a"));
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(|name| app.join_and_load(name));
    app.set(eve, Inventory([("sword".to_owned(), 1)].into()));
    app.save(eve, "eve").unwrap();
    let robbery = move |In(trade): In<Trade>, world: &mut World| -> Result {
        world
            .get_mut::<Inventory>(eve)
            .ok_or("eve has nothing")?
            .0
            .clear();
        let mut inventory = world.get_mut::<Inventory>(trade.a).ok_or("ada has nothing")?;
        inventory.0.insert("sword".to_owned(), 1);
        world.despawn(eve);
        Ok(())
    };
    app.world_mut().commands().trade([ada, bob], robbery);
    app.world_mut().flush();
    app.until("eve has left", |_| !is_locked(&rows, "eve"));
    app.save(ada, "ada").unwrap();
    let has = |name: &str| {
        stored_value::<Inventory>(&rows, name)
            .unwrap()
            .0
            .contains_key("sword")
    };
    assert_eq!((has("ada"), has("eve")), (false, true));
}

/// Can't be stored while it is `true`.
#[derive(Component, Clone, Debug, Default, PartialEq)]
struct Cursed(bool);
impl PlayerData for Cursed {
    const KEY: &'static str = "cursed";
}
impl Serialize for Cursed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 {
            return Err(serde::ser::Error::custom("cursed"));
        }
        serializer.serialize_bool(self.0)
    }
}
impl<'de> Deserialize<'de> for Cursed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer).map(Cursed)
    }
}

#[test]
fn who_is_sent_away_in_the_middle_and_can_not_be_stored_is_not_saved_by_half() {
    let (mut app, rows, _) = shaky(quick("a"));
    app.persist::<Cursed>();
    let kick =
        |_: In<Receipt>, mut commands: Commands, players: Query<(Entity, &PersistentPlayer)>| -> Result {
            let eve = players.iter().find(|(_, player)| player.0 == id("eve"));
            commands.entity(eve.ok_or("eve is not here")?.0).despawn();
            Ok(())
        };
    app.add_product(Product::new("kick", kick));
    app.join_and_load("ada");
    let eve = app.join_and_load("eve");
    app.set(eve, Coins(50));
    app.save(eve, "eve").unwrap();
    // Eve spends 50 coins on a sword; between the two keys there is one that can't be encoded.
    app.set(eve, Coins(0));
    app.set(eve, Cursed(true));
    app.set(eve, Inventory([("sword".to_owned(), 1)].into()));
    buy(&mut app, "p1", "ada", "kick");
    app.until("eve has left", |_| !is_locked(&rows, "eve"));
    let has_sword = stored_value::<Inventory>(&rows, "eve")
        .unwrap_or_default()
        .0
        .contains_key("sword");
    let coins = stored_value::<Coins>(&rows, "eve");
    assert_eq!(
        (has_sword, coins),
        (false, Some(Coins(50))),
        "all of it, or nothing"
    );
}
