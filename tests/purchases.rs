//! Purchases: each paid receipt is granted exactly once, and a handler that fails has changed nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/purchases.rs"]
mod shop;
#[path = "support/server.rs"]
mod support;

use std::time::Duration;

use bevy::prelude::*;
use bevy_player_data::{
    PurchaseId,
    player::PurchaseDecision::{NotProcessedYet, PurchaseGranted, Refunded, Refused},
    prelude::*,
    session::{Attempts, RetryPolicy},
    store::{Fault, Op, ReceiptState, Store, StoreError},
    testing::{Faults, FaultyStore},
};
use shop::*;
use support::*;

/// A server with the small game and its shop, and the rows that it works on.
fn start() -> (App, Rows) {
    let (app, rows, _) = start_on_shaky_ground(quick("a"));
    (app, rows)
}

fn start_on_shaky_ground(settings: ServerSettings) -> (App, Rows, Faults) {
    let rows = Rows::default();
    let store = FaultyStore::new(rows.connect(), 7);
    let faults = store.faults();
    (shop(store, settings), rows, faults)
}

fn shop(store: impl Store, settings: ServerSettings) -> App {
    let mut app = server(store, settings);
    app.add_plugins(with_coins);
    app
}

/// Gives a failed save up soon, and looks for receipts only when it is told to.
fn impatient() -> ServerSettings {
    let settings = quick("a");
    ServerSettings {
        retry: RetryPolicy {
            attempts: Attempts::Limited(2),
            ..settings.retry
        },
        purchases: PurchaseSettings {
            poll: Duration::from_secs(365 * 24 * 60 * 60),
            ..default()
        },
        ..settings
    }
}

/// Joins, and waits until nothing is going on any more that could find a receipt before the test expects it.
fn arrive(app: &mut App, name: &str) -> Entity {
    app.add_product(Product::new("nothing", |_: In<Receipt>| -> Result { Ok(()) }));
    let entity = app.join_and_load(name);
    assert_eq!(buy(app, "warm-up", name, "nothing"), PurchaseGranted);
    entity
}

fn coins(app: &App, player: Entity) -> u64 {
    app.component::<Coins>(player).expect("the player has a wallet").0
}

#[test]
fn a_purchase_is_granted_and_saved_before_it_is_answered() {
    let (mut app, rows) = start();
    let ada = app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    assert_eq!(coins(&app, ada), 100);
    assert_eq!(
        stored_value::<Coins>(&rows, "ada"),
        Some(Coins(100)),
        "it is durable"
    );
    assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
    let told = app.world().resource::<Processed>().0.clone();
    assert_eq!(told, [("p1".to_owned(), PurchaseGranted)]);
    assert_eq!(app.world().resource::<ServerStats>().purchases_granted, 1);
}

#[test]
fn a_purchase_that_is_delivered_again_is_granted_once_at_once_after_a_restart_and_on_another_server() {
    let (mut app, rows) = start();
    let ada = app.join_and_load("ada");
    for _ in 0..3 {
        assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    }
    pay(&rows, "p1", "ada", "coins_100");
    for n in 2..1000 {
        pay(&rows, &format!("p{n}"), "ada", "coins_100");
    }
    assert_eq!(buy(&mut app, "p1000", "ada", "coins_100"), PurchaseGranted);
    app.until("all are granted", |world| {
        world.get::<Coins>(ada).unwrap().0 >= 100_000
    });
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    assert_eq!(coins(&app, ada), 100_000);
    assert_eq!(app.exit(), AppExit::Success);

    // Nobody is there.
    let mut other = shop(rows.connect(), quick("b"));
    assert_eq!(buy(&mut other, "p1", "ada", "coins_100"), PurchaseGranted);
    let ada = other.join_and_load("ada");
    assert_eq!(buy(&mut other, "p1", "ada", "coins_100"), PurchaseGranted);
    assert_eq!(buy(&mut other, "p500", "ada", "coins_100"), PurchaseGranted);
    assert_eq!(coins(&other, ada), 100_000);
}

#[test]
fn a_purchase_id_that_comes_back_with_another_player_or_product_is_a_conflict() {
    let (mut app, rows) = start();
    let ada = app.join_and_load("ada");
    let bob = app.join_and_load("bob");
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    for (name, product) in [("bob", "coins_100"), ("ada", "coins_500")] {
        let asked = submit(&mut app, receipt("p1", name, product));
        let refused = answer(&mut app, asked);
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
    assert_eq!((coins(&app, ada), coins(&app, bob)), (100, 0));
    assert_eq!(stored_receipt(&rows, "p1").player, Some(id("ada")));
}

#[test]
fn a_purchase_whose_save_fails_is_not_processed_yet_and_granted_once_after_recovery() {
    for fault in [Fault::Before, Fault::After] {
        let (mut app, rows, faults) = start_on_shaky_ground(impatient());
        let ada = arrive(&mut app, "ada");
        faults.fail_next(Op::Commit, 2, fault);
        assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
        assert_eq!(coins(&app, ada), 100, "it is in memory");
        assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
        assert_eq!(coins(&app, ada), 100, "it was awarded twice");
        assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(100)));
        assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
        assert!(faults.injected(Op::Commit) >= 2);
    }
}

#[test]
fn a_purchase_whose_save_failed_is_saved_again_though_nobody_asks() {
    let (mut app, rows, faults) = start_on_shaky_ground(impatient());
    arrive(&mut app, "ada");
    faults.fail_next(Op::Commit, 2, Fault::Before);
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    until_processed(&mut app, "p1", &PurchaseGranted);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(100)));
}

#[test]
fn whichever_save_lands_first_settles_the_award_it_carries() {
    let (mut app, rows, faults) = start_on_shaky_ground(impatient());
    let ada = arrive(&mut app, "ada");
    faults.fail_next(Op::Commit, 2, Fault::Before);
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    app.save(ada, "ada").expect("the store is back");
    assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
    until_processed(&mut app, "p1", &PurchaseGranted);

    faults.fail_next(Op::Commit, 2, Fault::Before);
    assert_eq!(buy(&mut app, "p2", "ada", "coins_100"), NotProcessedYet);
    app.leave_and_save(ada, "ada").expect("the store is back");
    assert_eq!(state(&rows, "p2"), ReceiptState::Granted);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(200)));
    until_processed(&mut app, "p2", &PurchaseGranted);
}

#[test]
fn a_crash_between_the_award_and_its_save_grants_it_once_after_the_restart() {
    let (mut app, rows, faults) = start_on_shaky_ground(quick("a"));
    let ada = app.join_and_load("ada");
    faults.fail_next(Op::Commit, 1, Fault::Hang);
    let asked = submit(&mut app, receipt("p1", "ada", "coins_100"));
    app.until("it is awarded in memory", |world| {
        world.get::<Coins>(ada).unwrap().0 == 100
    });
    drop((app, asked));
    assert_eq!(state(&rows, "p1"), ReceiptState::Pending);

    let mut app = shop(rows.connect(), quick("a"));
    let ada = app.join_and_load("ada");
    until_processed(&mut app, "p1", &PurchaseGranted);
    assert_eq!(coins(&app, ada), 100);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(100)));
}

#[test]
fn an_autosave_between_the_award_and_the_purchases_own_save_settles_it_too() {
    let settings = ServerSettings {
        autosave: Some(Duration::from_millis(100)),
        ..impatient()
    };
    let (mut app, rows, faults) = start_on_shaky_ground(settings);
    let ada = arrive(&mut app, "ada");
    faults.fail_next(Op::Commit, 2, Fault::Before);
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    app.until("an autosave lands", |_| stored_coins(&rows) == Some(100));
    // The very commit that has the award has the settlement, so a crash now changes nothing.
    assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
    drop(app);
    let mut app = shop(rows.connect(), quick("a"));
    let ada_again = app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    assert_eq!(coins(&app, ada_again), 100);
    let _ = ada;
}

fn stored_coins(rows: &Rows) -> Option<u64> {
    row(rows, "ada")?.document?;
    stored_value::<Coins>(rows, "ada").map(|coins| coins.0)
}

#[test]
fn a_player_who_leaves_before_the_load_ends_gets_it_next_time_and_nothing_hangs() {
    let (mut app, rows, faults) = start_on_shaky_ground(quick("a"));
    app.join_and_load("somebody else"); // so that the lease is not what fails
    faults.fail_next(Op::Acquire, 1, Fault::Hang);
    let ada = app.join("ada");
    let mut asked = submit(&mut app, receipt("p1", "ada", "coins_100"));
    app.until("the receipt is stored", |_| {
        wait(rows.receipt("p1".parse().unwrap())).unwrap().is_some()
    });
    app.update();
    assert_eq!(asked.poll(), None, "it waits for the load");
    app.leave(ada);
    assert_eq!(answer(&mut app, asked), Ok(NotProcessedYet));
    faults.resume();
    let ada = app.join_and_load("ada");
    until_processed(&mut app, "p1", &PurchaseGranted);
    assert_eq!(coins(&app, ada), 100);
}

#[test]
fn a_purchase_for_a_player_whose_load_fails_waits_for_better_days_and_nobody_waits_for_it() {
    let settings = ServerSettings {
        load_timeout: Duration::from_millis(200),
        ..quick("a")
    };
    let (mut app, rows, _) = start_on_shaky_ground(settings);
    let other = OtherServer::start(&rows, "b");
    other.lock(&rows, "ada");
    app.join("ada");
    app.update();
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    assert_eq!(state(&rows, "p1"), ReceiptState::Pending);
}

#[test]
fn a_purchase_for_a_player_who_is_loading_is_granted_when_they_are_there() {
    let (mut app, _) = start();
    app.join("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
}

#[test]
fn a_player_on_defaults_is_granted_nothing() {
    let (mut app, rows) = start();
    put_bytes(&rows, "ada", b"nonsense".to_vec());
    let ada = app.join("ada");
    app.until_heard("the load fails", |told| matches!(told, Told::LoadFailed { .. }));
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    assert_eq!(coins(&app, ada), 0);
    assert_eq!(
        state(&rows, "p1"),
        ReceiptState::Pending,
        "it waits for better days"
    );
}

#[test]
fn a_purchase_for_an_offline_player_is_granted_at_the_next_join() {
    let (mut app, rows) = start();
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    pay(&rows, "p2", "ada", "coins_100");
    let ada = app.join_and_load("ada");
    until_processed(&mut app, "p1", &PurchaseGranted);
    until_processed(&mut app, "p2", &PurchaseGranted);
    assert_eq!(coins(&app, ada), 200);
}

#[test]
fn a_purchase_that_is_submitted_while_many_wait_their_turn_makes_none_of_them_forgotten() {
    let (mut app, rows) = start();
    for n in 0..2000 {
        pay(&rows, &format!("p{n}"), "ada", "coins_100");
    }
    let ada = app.join_and_load("ada");
    app.until("the first are awarded", |world| {
        world.get::<Coins>(ada).unwrap().0 > 0
    });
    assert!(coins(&app, ada) < 200_000, "none of them waits any more");
    assert_eq!(buy(&mut app, "late", "ada", "coins_100"), PurchaseGranted);
    app.until("all are awarded", |world| {
        world.get::<Coins>(ada).unwrap().0 == 200_100
    });
}

#[test]
fn what_another_process_hands_in_is_found_by_the_slow_poll() {
    let (mut app, rows) = start();
    app.join_and_load("ada");
    app.update();
    pay(&rows, "p1", "ada", "coins_100");
    until_processed(&mut app, "p1", &PurchaseGranted);
    refund(&rows, "p1", "ada", "coins_100");
    until_processed(&mut app, "p1", &Refunded { shortfall: None });
}

#[test]
fn what_this_process_hands_in_is_delivered_at_once() {
    let (mut app, _, _) = start_on_shaky_ground(impatient());
    app.join_and_load("ada");
    let inbox = inbox(&mut app);
    assert!(
        wait(inbox.paid(receipt("p1", "ada", "coins_100")))
            .unwrap()
            .is_new
    );
    until_processed(&mut app, "p1", &PurchaseGranted);
    assert!(
        !wait(inbox.paid(receipt("p1", "ada", "coins_100")))
            .unwrap()
            .is_new
    );
    let history = wait(inbox.receipts_of(id("ada"), None, 10)).unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].state, ReceiptState::Granted);
}

#[test]
fn many_submissions_of_one_purchase_at_once_are_one_award_and_one_answer() {
    let (mut app, _) = start();
    let ada = app.join_and_load("ada");
    let asked: Vec<Asked> = (0..20)
        .map(|_| submit(&mut app, receipt("p1", "ada", "coins_100")))
        .collect();
    for asked in asked {
        assert_eq!(answer(&mut app, asked), Ok(PurchaseGranted));
    }
    assert_eq!(coins(&app, ada), 100);
}

#[test]
fn a_store_that_is_down_is_not_processed_yet_and_nothing_is_awarded() {
    let (mut app, rows, faults) = start_on_shaky_ground(impatient());
    let ada = arrive(&mut app, "ada");
    faults.down();
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    assert_eq!(
        coins(&app, ada),
        0,
        "nothing is awarded before its receipt is durable"
    );
    faults.up();
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
}

#[test]
fn receipts_that_can_not_be_read_at_the_join_are_read_later() {
    let (mut app, rows, faults) = start_on_shaky_ground(impatient());
    pay(&rows, "p1", "ada", "coins_100");
    faults.fail_next(Op::Receipts, 1, Fault::Before);
    app.join_and_load("ada");
    until_processed(&mut app, "p1", &PurchaseGranted);
    assert_eq!(faults.injected(Op::Receipts), 1);
}

#[test]
fn an_unknown_product_waits_for_a_grace_and_is_then_refused_for_good() {
    let mut settings = quick("a");
    settings.purchases.unknown_product_grace = Duration::from_secs(2);
    let (mut app, rows, _) = start_on_shaky_ground(settings);
    let ada = app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "hat"), NotProcessedYet);
    assert_eq!(
        state(&rows, "p1"),
        ReceiptState::Pending,
        "another server may know it"
    );
    let refused = Refused {
        reason: "there is no product `hat`".to_owned(),
    };
    until_processed(&mut app, "p1", &refused);
    let row = stored_receipt(&rows, "p1");
    assert_eq!(row.state, ReceiptState::Refused);
    assert_eq!(
        row.note.as_deref(),
        Some("there is no product `hat`"),
        "support sees it"
    );
    assert_eq!(coins(&app, ada), 0);
    assert_eq!(buy(&mut app, "p1", "ada", "hat"), refused, "and it stays so");
}

#[cfg(feature = "sqlite")]
#[test]
fn a_commit_that_finds_its_receipt_settled_by_somebody_else_ends_the_session_at_its_last_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("players.db");
    let rows = SqliteStore::open(&path).unwrap();
    let store = FaultyStore::new(rows.clone(), 7);
    let faults = store.faults();
    let mut app = shop(store, quick("a"));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(7));
    app.save(ada, "ada").unwrap();
    // Each attempt, however long it takes until the receipt is settled by somebody else.
    faults.fail_next(Op::Commit, 1000, Fault::Hang);
    let asked = submit(&mut app, receipt("p1", "ada", "coins_100"));
    app.until("it is awarded in memory", |world| {
        world.get::<Coins>(ada).unwrap().0 == 107
    });
    // Only the holder of the lock may do that; somebody with a database shell did.
    let shell = rusqlite::Connection::open(&path).unwrap();
    shell
        .execute("UPDATE receipts SET state = 'granted'", [])
        .unwrap();
    faults.clear();
    assert_eq!(answer(&mut app, asked), Ok(NotProcessedYet));
    let ended = app.until_heard("the session ends", |told| matches!(told, Told::Ended { .. }));
    let reason = SessionEnd::CommitRefused;
    let player = id("ada");
    assert_eq!(ended, Told::Ended { player, reason });
    app.until("the lock is given back", |_| !is_locked(&rows, "ada"));
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(7)));
}

// Refunds

#[test]
fn a_refund_before_the_grant_means_that_nothing_is_ever_granted() {
    let (mut app, rows) = start();
    pay(&rows, "p1", "ada", "coins_100");
    refund(&rows, "p1", "ada", "coins_100");
    refund(&rows, "late", "ada", "coins_100"); // its "paid" comes second
    pay(&rows, "late", "ada", "coins_100");
    let ada = app.join_and_load("ada");
    until_processed(&mut app, "p1", &Refunded { shortfall: None });
    until_processed(&mut app, "late", &Refunded { shortfall: None });
    assert_eq!(coins(&app, ada), 0);
    assert_eq!(state(&rows, "p1"), ReceiptState::Refunded);
    assert_eq!(state(&rows, "late"), ReceiptState::Refunded);
}

#[test]
fn a_refund_after_the_grant_takes_it_back_once_however_often_it_is_told() {
    let (mut app, rows) = start();
    let ada = app.join_and_load("ada");
    for purchase in ["p1", "p2"] {
        assert_eq!(buy(&mut app, purchase, "ada", "coins_100"), PurchaseGranted);
    }
    let inbox = inbox(&mut app);
    for _ in 0..3 {
        wait(inbox.refunded(receipt("p1", "ada", "coins_100"))).unwrap();
    }
    until_processed(&mut app, "p1", &Refunded { shortfall: None });
    wait(inbox.refunded(receipt("p1", "ada", "coins_100"))).unwrap();
    assert_eq!(
        buy(&mut app, "p1", "ada", "coins_100"),
        Refunded { shortfall: None },
        "paid, told once more"
    );
    app.save(ada, "ada").unwrap();
    assert_eq!(coins(&app, ada), 100);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(100)));
    assert_eq!(state(&rows, "p1"), ReceiptState::Refunded);
    assert_eq!(state(&rows, "p2"), ReceiptState::Granted);
}

#[test]
fn a_refund_for_an_offline_player_is_taken_back_at_the_next_join() {
    let (mut app, rows) = start();
    let ada = app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    app.leave_and_save(ada, "ada").unwrap();
    refund(&rows, "p1", "ada", "coins_100");
    assert_eq!(
        stored_value::<Coins>(&rows, "ada"),
        Some(Coins(100)),
        "nobody touches it meanwhile"
    );
    let ada = app.join_and_load("ada");
    until_processed(&mut app, "p1", &Refunded { shortfall: None });
    assert_eq!(coins(&app, ada), 0);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(0)));
}

#[test]
fn what_was_spent_can_not_be_taken_back_and_support_is_told() {
    let (mut app, rows) = start();
    let ada = app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    app.set(ada, Coins(60));
    refund(&rows, "p1", "ada", "coins_100");
    let shortfall = "40 of 100 coins were spent".to_owned();
    let refunded = Refunded {
        shortfall: Some(shortfall.clone()),
    };
    until_processed(&mut app, "p1", &refunded);
    assert_eq!(coins(&app, ada), 0, "what could be taken back was");
    let row = stored_receipt(&rows, "p1");
    assert_eq!((row.state, row.note), (ReceiptState::Refunded, Some(shortfall)));
}

#[test]
fn a_refund_of_a_product_without_a_handler_says_that_nothing_was_taken_back() {
    let (mut app, rows) = start();
    app.add_product(Product::new("gift", grant_coins));
    let ada = app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "gift"), PurchaseGranted);
    refund(&rows, "p1", "ada", "gift");
    app.until("it is refunded", |_| state(&rows, "p1") == ReceiptState::Refunded);
    let note = stored_receipt(&rows, "p1").note.unwrap_or_default();
    assert!(note.contains("nothing was taken back"), "{note}");
    assert_eq!(coins(&app, ada), 100);
}

#[test]
fn a_refund_that_arrives_while_the_grant_is_being_saved_follows_it() {
    let (mut app, rows, faults) = start_on_shaky_ground(impatient());
    let ada = arrive(&mut app, "ada");
    faults.fail_next(Op::Commit, 1, Fault::Hang);
    let asked = submit(&mut app, receipt("p1", "ada", "coins_100"));
    app.until("it is awarded in memory", |world| {
        world.get::<Coins>(ada).unwrap().0 == 100
    });
    let inbox = inbox(&mut app);
    wait(inbox.refunded(receipt("p1", "ada", "coins_100"))).unwrap();
    for _ in 0..20 {
        app.update();
    }
    assert_eq!(coins(&app, ada), 100, "its grant is not settled yet");
    faults.resume();
    assert_eq!(answer(&mut app, asked), Ok(PurchaseGranted));
    until_processed(&mut app, "p1", &Refunded { shortfall: None });
    assert_eq!(coins(&app, ada), 0);
    app.until("the refund is settled", |_| {
        state(&rows, "p1") == ReceiptState::Refunded
    });
}

// Handlers that fail

/// What `hat`'s handler does, before it fails in the way that a test wants.
fn mess_up(world: &mut World, player: Entity) {
    let mut entity = world.entity_mut(player);
    entity.get_mut::<Coins>().unwrap().0 = 1_000_000;
    entity
        .get_mut::<Inventory>()
        .unwrap()
        .0
        .insert("hat".to_owned(), 1);
    entity.insert(Guild("the hatters".to_owned()));
    entity.remove::<CheatScore>();
}

fn belongings(
    app: &App,
    player: Entity,
) -> (
    Option<Coins>,
    Option<Inventory>,
    Option<Guild>,
    Option<CheatScore>,
) {
    (
        app.component(player),
        app.component(player),
        app.component(player),
        app.component(player),
    )
}

/// Lets a handler fail after it has changed everything, and looks at what is left of it.
fn fails<M>(
    handler: impl IntoSystem<In<Receipt>, Result, M> + Clone + Send + Sync + 'static,
    expected: &PurchaseDecision,
) {
    let (mut app, rows) = start();
    app.add_product(Product::new("hat", handler));
    let ada = arrive(&mut app, "ada");
    app.set(ada, Coins(5));
    app.set(ada, CheatScore(0.5));
    app.set(ada, Inventory([("apple".to_owned(), 3)].into()));
    let before = belongings(&app, ada);
    assert_eq!(buy(&mut app, "p1", "ada", "hat"), *expected);
    assert_eq!(belongings(&app, ada), before, "in memory");
    app.save(ada, "ada").unwrap();
    assert_eq!(
        (
            stored_value(&rows, "ada"),
            stored_value(&rows, "ada"),
            stored_value::<Guild>(&rows, "ada"),
            stored_value(&rows, "ada")
        ),
        before,
        "in the store"
    );
    assert_eq!(
        buy(&mut app, "p2", "ada", "coins_100"),
        PurchaseGranted,
        "others can be bought"
    );
    assert_eq!(coins(&app, ada), 105);
}

#[test]
fn a_handler_that_errs_has_changed_nothing_and_is_asked_again() {
    fn errs(In(receipt): In<Receipt>, world: &mut World) -> Result {
        mess_up(world, receipt.entity);
        Err("the hat is out of stock".into())
    }
    fails(errs, &NotProcessedYet);
}

#[test]
fn a_handler_that_refuses_has_changed_nothing_and_is_never_asked_again() {
    fn refuses(In(receipt): In<Receipt>, world: &mut World) -> Result {
        mess_up(world, receipt.entity);
        Err(Refuse("you have a hat"))?
    }
    let reason = "you have a hat".to_owned();
    fails(refuses, &Refused { reason });
}

#[test]
fn a_handler_that_errs_after_queueing_commands_has_changed_nothing() {
    fn errs(In(receipt): In<Receipt>, mut commands: Commands) -> Result {
        let player = receipt.entity;
        commands.queue(move |world: &mut World| mess_up(world, player));
        commands.entity(player).insert(Coins(77));
        Err("the hat is out of stock".into())
    }
    fails(errs, &NotProcessedYet);
}

#[test]
fn a_handler_that_panics_has_changed_nothing() {
    fn panics(In(receipt): In<Receipt>, world: &mut World) -> Result {
        mess_up(world, receipt.entity);
        panic!("the hat is on fire")
    }
    fails(panics, &NotProcessedYet);
}

#[test]
fn a_handler_one_of_whose_commands_panics_has_changed_nothing_and_the_rest_never_comes_into_effect() {
    fn panics(In(receipt): In<Receipt>, mut commands: Commands) -> Result {
        let player = receipt.entity;
        commands.entity(player).insert(Coins(76));
        commands.queue(|_: &mut World| panic!("the hat is on fire"));
        commands.entity(player).insert(Coins(77));
        Ok(())
    }
    fails(panics, &NotProcessedYet);
}

#[test]
fn a_handler_one_of_whose_worlds_commands_panics_has_changed_nothing_and_the_rest_never_comes_into_effect() {
    fn panics(In(receipt): In<Receipt>, world: &mut World) -> Result {
        let mut commands = world.commands();
        commands.queue(|_: &mut World| panic!("the hat is on fire"));
        commands.entity(receipt.entity).insert(Coins(77));
        Ok(())
    }
    fails(panics, &NotProcessedYet);
}

#[test]
fn a_handler_that_bevy_skips_has_awarded_nothing() {
    #[derive(Component)]
    struct Nowhere;
    fn is_skipped(In(receipt): In<Receipt>, _: Single<&Nowhere>, mut coins: Query<&mut Coins>) -> Result {
        coins.get_mut(receipt.entity)?.0 += 100;
        Ok(())
    }
    fails(is_skipped, &NotProcessedYet);
}

#[test]
fn a_handler_that_saves_in_the_middle_and_then_errs_has_saved_nothing_of_it() {
    fn errs(In(receipt): In<Receipt>, world: &mut World) -> Result {
        mess_up(world, receipt.entity);
        world.trigger(SavePlayer {
            entity: receipt.entity,
        });
        world.flush();
        Err("the hat is out of stock".into())
    }
    fails(errs, &NotProcessedYet);
}

#[test]
fn a_handler_whose_award_makes_the_data_too_large_to_be_saved_has_changed_nothing() {
    fn too_much(In(receipt): In<Receipt>, mut guilds: Commands) -> Result {
        guilds
            .entity(receipt.entity)
            .insert(Guild("x".repeat(5 * 1024 * 1024)));
        Ok(())
    }
    fails(too_much, &NotProcessedYet);
}

#[test]
fn a_handler_that_despawns_its_player_has_awarded_nothing() {
    fn despawns(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>, mut commands: Commands) -> Result {
        coins.get_mut(receipt.entity)?.0 += 100;
        commands.entity(receipt.entity).despawn();
        Ok(())
    }
    let (mut app, rows) = start();
    app.add_product(Product::new("hat", despawns));
    let ada = app.join_and_load("ada");
    app.set(ada, Coins(5));
    assert_eq!(buy(&mut app, "p1", "ada", "hat"), NotProcessedYet);
    app.until("ada's lock is free", |_| !is_locked(&rows, "ada"));
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(5)));
    assert_eq!(state(&rows, "p1"), ReceiptState::Pending);
}

#[test]
fn a_handler_that_changes_somebody_else_has_changed_nobody() {
    fn gives_to_all(
        _: In<Receipt>,
        mut coins: Query<&mut Coins>,
        mut commands: Commands,
        players: Query<Entity, With<PlayerSession>>,
    ) -> Result {
        coins.iter_mut().for_each(|mut coins| coins.0 += 100);
        for player in &players {
            commands.entity(player).insert(Guild("the rich".to_owned()));
        }
        Ok(())
    }
    let (mut app, rows) = start();
    app.add_product(Product::new("rain", gives_to_all));
    let ada = app.join_and_load("ada");
    let bob = app.join_and_load("bob");
    app.set(ada, Coins(1));
    app.set(bob, Coins(2));
    assert_eq!(buy(&mut app, "p1", "ada", "rain"), NotProcessedYet);
    assert_eq!((coins(&app, ada), coins(&app, bob)), (1, 2));
    assert_eq!(app.component::<Guild>(ada), None);
    assert_eq!(app.component::<Guild>(bob), None);
    app.save(bob, "bob").unwrap();
    assert_eq!(stored_value::<Coins>(&rows, "bob"), Some(Coins(2)));
    assert_eq!(state(&rows, "p1"), ReceiptState::Pending);
}

#[test]
fn what_observers_do_when_data_is_put_back_is_put_back_as_well() {
    fn errs(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
        coins.get_mut(receipt.entity)?.0 += 100;
        Err("not now".into())
    }
    let (mut app, rows) = start();
    app.add_product(Product::new("hat", errs)).add_observer(
        |insert: On<Insert, Coins>, mut inventories: Query<&mut Inventory>| {
            if let Ok(mut inventory) = inventories.get_mut(insert.entity) {
                *inventory.0.entry("achievement".to_owned()).or_default() += 1;
            }
        },
    );
    let ada = app.join_and_load("ada");
    let before = belongings(&app, ada);
    assert_eq!(buy(&mut app, "p1", "ada", "hat"), NotProcessedYet);
    assert_eq!(belongings(&app, ada), before);
    app.save(ada, "ada").unwrap();
    assert_eq!(stored_value::<Inventory>(&rows, "ada"), before.1);
}

#[test]
fn data_that_observers_do_not_let_be_put_back_is_saved_as_it_was_before_and_the_session_ends() {
    fn errs(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
        coins.get_mut(receipt.entity)?.0 += 100;
        Err("not now".into())
    }
    let (mut app, rows) = start();
    app.add_product(Product::new("hat", errs)).add_observer(
        |insert: On<Insert, Coins>, mut coins: Query<&mut Coins>| {
            if let Ok(mut coins) = coins.get_mut(insert.entity) {
                coins.0 += 1;
            }
        },
    );
    let ada = app.join_and_load("ada");
    app.world_mut().get_mut::<Coins>(ada).unwrap().0 = 5;
    assert_eq!(buy(&mut app, "p1", "ada", "hat"), NotProcessedYet);
    let ended = app.until_heard("the session ends", |told| matches!(told, Told::Ended { .. }));
    let (player, reason) = (id("ada"), SessionEnd::CommitRefused);
    assert_eq!(ended, Told::Ended { player, reason });
    app.until("ada's lock is free", |_| !is_locked(&rows, "ada"));
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(5)));
    assert_eq!(state(&rows, "p1"), ReceiptState::Pending);
}

#[test]
fn a_handler_that_said_not_now_is_asked_again_after_a_growing_pause() {
    #[derive(Resource, Default)]
    struct Asked(Vec<Duration>);
    fn third_time(
        In(receipt): In<Receipt>,
        mut asked: ResMut<Asked>,
        time: Res<Time<Real>>,
        mut coins: Query<&mut Coins>,
    ) -> Result {
        asked.0.push(time.elapsed());
        if asked.0.len() < 5 {
            return Err("not yet".into());
        }
        coins.get_mut(receipt.entity)?.0 += 100;
        Ok(())
    }
    let (mut app, rows) = start();
    app.init_resource::<Asked>()
        .add_product(Product::new("wine", third_time));
    let ada = app.join_and_load("ada");
    pay(&rows, "p1", "ada", "wine");
    until_processed(&mut app, "p1", &PurchaseGranted);
    assert_eq!(coins(&app, ada), 100);
    let asked = &app.world().resource::<Asked>().0;
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 1, 2, 4 and 8 seconds, of which chance takes away up to a half.
    for (pause, longest) in pauses.iter().zip([1, 2, 4, 8]) {
        let longest = Duration::from_secs(longest);
        assert!(
            *pause >= longest / 2 && *pause <= longest + Duration::from_millis(100),
            "{pauses:?}"
        );
    }
}

#[test]
fn nothing_is_sold_to_a_player_whose_data_the_store_refuses() {
    let settings = ServerSettings {
        document_limit: 1000,
        ..quick("a")
    };
    let (mut app, rows, _) = start_on_shaky_ground(settings);
    let ada = app.join_and_load("ada");
    app.set(ada, Guild("x".repeat(2000)));
    assert!(app.save(ada, "ada").is_err());
    assert!(app.component::<SaveBlocked>(ada).is_some());
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), NotProcessedYet);
    assert_eq!(coins(&app, ada), 0);
    app.set(ada, Guild("x".to_owned()));
    app.save(ada, "ada").unwrap();
    assert_eq!(buy(&mut app, "p1", "ada", "coins_100"), PurchaseGranted);
    assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
}

#[test]
fn a_save_that_a_handler_asks_for_carries_the_award_and_its_settlement() {
    fn grants(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>, mut commands: Commands) -> Result {
        coins.get_mut(receipt.entity)?.0 += 100;
        commands.trigger(SavePlayer {
            entity: receipt.entity,
        });
        Ok(())
    }
    let (mut app, rows) = start();
    app.add_product(Product::new("hat", grants));
    app.join_and_load("ada");
    assert_eq!(buy(&mut app, "p1", "ada", "hat"), PurchaseGranted);
    assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
    assert_eq!(stored_value::<Coins>(&rows, "ada"), Some(Coins(100)));
}

#[test]
#[should_panic(expected = "the product `coins_100` is added twice")]
fn a_product_can_not_be_added_twice() {
    let (mut app, _) = start();
    app.add_product(Product::new("coins_100", grant_coins));
}

#[test]
fn a_purchase_that_is_saved_on_exit_is_told_to_whoever_waits() {
    let (mut app, rows, faults) = start_on_shaky_ground(quick("a"));
    let ada = app.join_and_load("ada");
    faults.fail_next(Op::Commit, 1, Fault::Before);
    let mut asked = submit(&mut app, receipt("p1", "ada", "coins_100"));
    app.until("it is awarded in memory", |world| {
        world.get::<Coins>(ada).unwrap().0 == 100
    });
    assert_eq!(app.exit(), AppExit::Success);
    assert_eq!(asked.poll(), Some(Ok(PurchaseGranted)));
    assert_eq!(state(&rows, "p1"), ReceiptState::Granted);
}

#[test]
fn ids_that_can_not_be_ids_are_refused_by_name() {
    for text in ["", "a\nb", &"x".repeat(256)] {
        let refused = PurchaseId::new(text).unwrap_err().to_string();
        assert!(
            refused.contains("a purchase id must have 1 to 255 bytes"),
            "{refused}"
        );
    }
}
