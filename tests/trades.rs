//! Trades: what moves between two players is in both players' saved data or in neither's, whatever happens in between.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/server.rs"]
mod support;

use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy_player_data::{
    player::TradeError,
    prelude::*,
    session::{Attempts, RetryPolicy},
    store::{Fault, Op, Store},
    testing::{Faults, FaultyStore},
};
use support::*;

/// What the game was told about trades, in order.
#[derive(Resource, Default)]
struct Settled(Vec<(PlayerId, PlayerId, Result<(), TradeError>)>);

struct Market {
    app: App,
    rows: Rows,
    faults: Faults,
    ada: Entity,
    bob: Entity,
}

/// Ada, who has the sword, and bob.
fn open() -> Market {
    open_with(quick("a"))
}

fn open_with(settings: ServerSettings) -> Market {
    let rows = Rows::default();
    let store = FaultyStore::new(rows.connect(), 7);
    let faults = store.faults();
    let mut app = market(store, settings);
    let ada = app.join_and_load("ada");
    let bob = app.join_and_load("bob");
    app.set(ada, Inventory([("sword".to_owned(), 1)].into()));
    app.save(ada, "ada").expect("the store works");
    app.save(bob, "bob").expect("the store works");
    app.forget();
    Market {
        app,
        rows,
        faults,
        ada,
        bob,
    }
}

fn market(store: impl Store, settings: ServerSettings) -> App {
    let mut app = server(store, settings);
    app.init_resource::<Settled>()
        .add_observer(|on: On<TradeSettled>, mut settled: ResMut<Settled>| {
            settled.0.push((on.player, on.partner, on.result.clone()));
        });
    app
}

fn impatient() -> ServerSettings {
    let settings = quick("a");
    ServerSettings {
        retry: RetryPolicy {
            attempts: Attempts::Limited(2),
            ..settings.retry
        },
        ..settings
    }
}

fn hand_over(In(trade): In<Trade>, mut inventories: Query<&mut Inventory>) -> Result {
    let [mut from, mut to] = inventories.get_many_mut([trade.a, trade.b])?;
    let sword = from.0.remove("sword").ok_or("there is no sword")?;
    *to.0.entry("sword".to_owned()).or_default() += sword;
    Ok(())
}

impl Market {
    fn trade(&mut self) {
        let players = [self.ada, self.bob];
        self.app.world_mut().commands().trade(players, hand_over);
        self.app.world_mut().flush();
    }

    #[track_caller]
    fn outcome(&mut self) -> Result<(), TradeError> {
        let mut outcome = None;
        self.app.until("the trade ends", |world| {
            let settled = &mut world.resource_mut::<Settled>().0;
            if settled.len() < 2 {
                return false;
            }
            assert_eq!(settled[0].2, settled[1].2, "both are told the same");
            outcome = Some(settled[0].2.clone());
            settled.clear();
            true
        });
        outcome.expect("the condition held")
    }

    fn in_memory(&self) -> [bool; 2] {
        [self.ada, self.bob].map(|player| {
            self.app
                .component::<Inventory>(player)
                .is_some_and(|inventory| has_sword(&inventory))
        })
    }

    fn in_store(&self) -> [bool; 2] {
        swords(&self.rows)
    }
}

fn has_sword(inventory: &Inventory) -> bool {
    inventory.0.contains_key("sword")
}

/// Who has the sword, as stored. The two are read one after the other: until they are the same twice, the commit of a
/// trade may have come in between.
fn swords(rows: &Rows) -> [bool; 2] {
    let read = || {
        ["ada", "bob"]
            .map(|name| has_sword(&stored_value::<Inventory>(rows, name).expect("something was saved")))
    };
    loop {
        let (once, twice) = (read(), read());
        if once == twice {
            return once;
        }
    }
}

const ADA: [bool; 2] = [true, false];
const BOB: [bool; 2] = [false, true];

#[test]
fn a_trade_is_durable_on_both_sides_before_it_is_told() {
    let mut market = open();
    market.trade();
    assert_eq!(market.in_memory(), BOB, "it is in memory at once");
    assert_eq!(market.outcome(), Ok(()));
    assert_eq!(market.in_store(), BOB);
    assert_eq!(market.app.world().resource::<ServerStats>().trades, 1);
}

#[test]
fn a_save_of_one_side_before_the_trade_is_committed_never_lands_without_the_other() {
    for fault in [Fault::Before, Fault::After] {
        let mut market = open_with(impatient());
        // More failures than a save is tried.
        market.faults.fail_next(Op::Commit, 5, fault);
        market.trade();
        market.app.world_mut().trigger(SavePlayer { entity: market.bob });
        market.app.world_mut().flush();
        let mut seen = Vec::new();
        let rows = market.rows.clone();
        market.app.until_heard("bob's save lands", |told| {
            let now = swords(&rows);
            assert!(now == ADA || now == BOB, "half a trade was saved: {now:?}");
            matches!(told, Told::Saved { player, result: Ok(()), .. } if *player == id("bob"))
        });
        seen.push(market.in_store());
        assert_eq!(seen, [BOB]);
        assert!(market.faults.injected(Op::Commit) >= 5);
    }
}

#[test]
fn a_crash_after_one_side_saved_or_left_leaves_the_item_exactly_once() {
    type Deed = fn(&mut Market);
    let deeds: [(&str, Deed); 4] = [
        ("bob saves", |market| {
            market.app.world_mut().trigger(SavePlayer { entity: market.bob });
        }),
        ("ada saves", |market| {
            market.app.world_mut().trigger(SavePlayer { entity: market.ada });
        }),
        ("ada leaves", |market| market.app.leave(market.ada)),
        ("bob leaves", |market| market.app.leave(market.bob)),
    ];
    for (what, deed) in deeds {
        // The commit of the trade never reaches the store; everything else would.
        let mut market = open();
        market.faults.fail_next(Op::Commit, 1, Fault::Hang);
        market.trade();
        deed(&mut market);
        for _ in 0..30 {
            market.app.update();
        }
        assert_eq!(market.in_store(), ADA, "{what}: nothing overtakes the trade");
        let Market { app, rows, .. } = market;
        drop(app);
        let mut app = market_again(&rows);
        let [ada, bob] = ["ada", "bob"].map(|name| app.join_and_load(name));
        let count = [ada, bob]
            .iter()
            .filter(|&&player| has_sword(&app.component(player).unwrap()))
            .count();
        assert_eq!(count, 1, "{what}");
    }
}

fn market_again(rows: &Rows) -> App {
    market(rows.connect(), quick("a"))
}

#[test]
fn leaving_right_after_a_trade_saves_it_on_both_sides() {
    let mut market = open();
    market.trade();
    market.app.leave(market.ada);
    market.app.leave(market.bob);
    assert_eq!(market.outcome(), Ok(()));
    let rows = market.rows.clone();
    market.app.until("both have left", |_| {
        !is_locked(&rows, "ada") && !is_locked(&rows, "bob")
    });
    assert_eq!(market.in_store(), BOB);
}

#[test]
fn an_exit_right_after_a_trade_saves_it_on_both_sides() {
    let mut market = open_with(impatient());
    market.faults.fail_next(Op::Commit, 5, Fault::Before);
    market.trade();
    assert_eq!(market.app.exit(), AppExit::Success);
    assert_eq!(market.in_store(), BOB);
    assert!(!is_locked(&market.rows, "ada") && !is_locked(&market.rows, "bob"));
}

#[test]
fn an_exit_that_can_not_commit_the_trade_saves_neither_side() {
    let mut market = open_with(ServerSettings {
        exit_deadline: Duration::from_millis(300),
        ..quick("a")
    });
    market.faults.fail_next(Op::Commit, 1, Fault::Hang);
    market.trade();
    assert_ne!(market.app.exit(), AppExit::Success);
    assert_eq!(market.in_store(), ADA, "neither has it");
}

#[test]
fn when_one_players_lock_was_lost_neither_document_has_the_trade_and_both_sessions_end() {
    for thief in ["ada", "bob"] {
        let mut market = open();
        steal(&market.rows, thief);
        market.trade();
        let refused = market.outcome();
        assert!(
            matches!(refused, Err(TradeError::CommitRefused { .. })),
            "{refused:?}"
        );
        assert_eq!(market.in_store(), ADA);
        let ended = |name: &str| {
            market
                .app
                .heard()
                .into_iter()
                .filter(|told| matches!(told, Told::Ended { player, .. } if *player == id(name)))
                .count()
        };
        assert_eq!((ended("ada"), ended("bob")), (1, 1));
        assert!(market.app.world().get_entity(market.ada).is_err());
        assert!(market.app.world().get_entity(market.bob).is_err());
        let innocent = if thief == "ada" { "bob" } else { "ada" };
        let rows = market.rows.clone();
        market
            .app
            .until("the other's lock is given back", |_| !is_locked(&rows, innocent));
        assert_eq!(market.in_store(), ADA);
    }
}

#[test]
fn who_was_saved_before_a_trade_that_is_refused_is_told_of_the_trade_and_of_no_lost_lock() {
    let mut market = open();
    steal(&market.rows, "bob");
    market.app.set(market.ada, Coins(3));
    market.app.world_mut().trigger(SavePlayer { entity: market.ada });
    market.trade();
    market.app.until_answered();
    assert!(market.outcome().is_err());
    let told = market.app.heard();
    let of_ada = |reason| {
        let player = id("ada");
        Told::Ended { player, reason }
    };
    assert!(told.contains(&of_ada(SessionEnd::CommitRefused)), "{told:?}");
    assert!(!told.contains(&of_ada(SessionEnd::LockLost)), "{told:?}");
    assert_eq!(stored_value::<Coins>(&market.rows, "ada"), Some(Coins(3)));
}

#[test]
fn a_game_may_keep_players_whose_trade_was_refused_on_data_that_is_never_saved() {
    let mut market = open_with(ServerSettings {
        on_session_lost: OnSessionLost::KeepAsFallback,
        ..quick("a")
    });
    steal(&market.rows, "bob");
    market.trade();
    assert!(market.outcome().is_err());
    let reason = |player| {
        market
            .app
            .component::<PlayerFallback>(player)
            .map(|fallback| fallback.reason().clone())
    };
    assert!(
        matches!(reason(market.ada), Some(LoadError::Unavailable { .. })),
        "{:?}",
        reason(market.ada)
    );
    assert!(
        matches!(reason(market.bob), Some(LoadError::SessionLocked { .. })),
        "{:?}",
        reason(market.bob)
    );
    let rows = market.rows.clone();
    market
        .app
        .until("ada's lock is given back", |_| !is_locked(&rows, "ada"));
    market.app.set(market.bob, Coins(5));
    market.app.exit();
    assert_eq!(market.in_store(), ADA);
    assert_eq!(
        stored_value::<Coins>(&market.rows, "bob"),
        Some(Coins(0)),
        "never saved"
    );
}

#[test]
fn whoever_left_after_a_trade_that_is_refused_has_saved_nothing_of_it() {
    let mut market = open();
    steal(&market.rows, "bob");
    market.trade();
    market.app.leave(market.ada);
    assert!(market.outcome().is_err());
    let rows = market.rows.clone();
    market
        .app
        .until("ada's lock is given back", |_| !is_locked(&rows, "ada"));
    assert_eq!(market.in_store(), ADA);
    let told = market.app.until_heard(
        "ada's final save ends",
        |told| matches!(told, Told::Saved { player, is_final: true, .. } if *player == id("ada")),
    );
    let Told::Saved { result, .. } = told else {
        unreachable!()
    };
    assert!(matches!(result, Err(SaveError::Forfeited { .. })), "{result:?}");
}

#[test]
fn a_trade_while_the_store_is_down_is_told_as_a_failed_save_and_lands_when_it_is_back() {
    let mut market = open_with(impatient());
    market.faults.down();
    market.trade();
    for name in ["ada", "bob"] {
        market.app.until_heard(
            "the trouble is told",
            |told| matches!(told, Told::Saved { player, result: Err(SaveError::Unavailable { .. }), .. } if *player == id(name)),
        );
    }
    assert_eq!(market.in_store(), ADA);
    market.faults.up();
    assert_eq!(market.outcome(), Ok(()));
    assert_eq!(market.in_store(), BOB);
}

#[test]
fn a_second_trade_waits_for_the_first_to_be_durable() {
    let mut market = open();
    market.faults.fail_next(Op::Commit, 1, Fault::Hang);
    market.trade();
    let carol = market.app.join_and_load("carol");
    market
        .app
        .world_mut()
        .commands()
        .trade([market.bob, carol], hand_over);
    market.app.world_mut().flush();
    let busy = Err(TradeError::Busy { player: id("bob") });
    assert_eq!(market.outcome(), busy);
    market.faults.resume();
    assert_eq!(market.outcome(), Ok(()));
    market
        .app
        .world_mut()
        .commands()
        .trade([market.bob, carol], hand_over);
    market.app.world_mut().flush();
    assert_eq!(market.outcome(), Ok(()));
    assert_eq!(market.in_store(), [false, false]);
    assert!(has_sword(&stored_value(&market.rows, "carol").unwrap()));
}

#[test]
fn a_trade_that_fails_has_changed_nobody() {
    fn errs(In(trade): In<Trade>, mut inventories: Query<&mut Inventory>, mut commands: Commands) -> Result {
        for mut inventory in &mut inventories {
            inventory.0.insert("shield".to_owned(), 1);
        }
        commands.entity(trade.a).insert(Guild("the traders".to_owned()));
        commands.entity(trade.b).remove::<Coins>();
        Err("they fell out with each other".into())
    }
    fn panics(In(trade): In<Trade>, mut inventories: Query<&mut Inventory>) -> Result {
        inventories.get_mut(trade.a)?.0.clear();
        panic!("they fell out with each other")
    }
    fn robs_carol(In(trade): In<Trade>, mut coins: Query<&mut Coins>) -> Result {
        coins.iter_mut().for_each(|mut coins| coins.0 = 0);
        coins.get_mut(trade.a)?.0 = 100;
        Ok(())
    }
    let mut market = open();
    let carol = market.app.join_and_load("carol");
    market.app.set(carol, Coins(100));
    for n in 0..3 {
        let players = [market.ada, market.bob];
        let mut commands = market.app.world_mut().commands();
        match n {
            0 => commands.trade(players, errs),
            1 => commands.trade(players, panics),
            _ => commands.trade(players, robs_carol),
        };
        market.app.world_mut().flush();
        let failed = market.outcome();
        assert!(matches!(failed, Err(TradeError::Failed { .. })), "{failed:?}");
        assert_eq!(market.in_memory(), ADA);
        for player in [market.ada, market.bob] {
            assert_eq!(market.app.component(player), Some(Coins(0)));
            assert_eq!(market.app.component::<Guild>(player), None);
            assert!(
                !market
                    .app
                    .component::<Inventory>(player)
                    .unwrap()
                    .0
                    .contains_key("shield")
            );
        }
        assert_eq!(market.app.component(carol), Some(Coins(100)));
    }
    market.app.save(market.ada, "ada").unwrap();
    market.app.save(market.bob, "bob").unwrap();
    assert_eq!(market.in_store(), ADA);
}

#[test]
fn players_who_hold_no_session_or_can_not_be_saved_do_not_trade() {
    let mut market = open_with(ServerSettings {
        document_limit: 1000,
        ..quick("a")
    });
    let outcome_with = |market: &mut Market, partner: Entity| {
        market
            .app
            .world_mut()
            .commands()
            .trade([market.ada, partner], hand_over);
        market.app.world_mut().flush();
        market.outcome()
    };
    let ada = market.ada;
    assert_eq!(outcome_with(&mut market, ada), Err(TradeError::SamePlayer));

    put_bytes(&market.rows, "dora", b"nonsense".to_vec());
    let dora = market.app.join("dora");
    market
        .app
        .until_heard("the load fails", |told| matches!(told, Told::LoadFailed { .. }));
    assert_eq!(
        outcome_with(&mut market, dora),
        Err(TradeError::NoSession { entity: dora })
    );

    market.app.set(market.bob, Guild("x".repeat(2000)));
    assert!(market.app.save(market.bob, "bob").is_err());
    let bob = market.bob;
    assert_eq!(
        outcome_with(&mut market, bob),
        Err(TradeError::SaveBlocked { player: id("bob") })
    );
    assert_eq!(market.in_memory(), ADA);
}

#[test]
fn a_trade_settles_the_purchases_that_both_documents_contain() {
    fn grant(In(receipt): In<Receipt>, mut inventories: Query<&mut Inventory>) -> Result {
        inventories.get_mut(receipt.entity)?.0.insert("hat".to_owned(), 1);
        Ok(())
    }
    let mut market = open_with(impatient());
    market.app.add_product(Product::new("hat", grant));
    market.faults.fail_next(Op::Commit, 2, Fault::Before);
    let receipt = NewReceipt::new("p1".parse().unwrap(), id("ada"), "hat".parse().unwrap());
    let submit = |In(receipt): In<NewReceipt>, server: PlayerDataServer| drop(server.submit_receipt(receipt));
    market
        .app
        .world_mut()
        .run_system_cached_with(submit, receipt)
        .unwrap();
    market.app.until_heard("the purchase's save fails", |told| {
        matches!(told, Told::Saved { result: Err(_), .. })
    });
    market.trade();
    assert_eq!(market.outcome(), Ok(()));
    let row = wait(market.rows.receipt("p1".parse().unwrap())).unwrap().unwrap();
    assert_eq!(row.state, bevy_player_data::store::ReceiptState::Granted);
    assert!(
        stored_value::<Inventory>(&market.rows, "ada")
            .unwrap()
            .0
            .contains_key("hat")
    );
    assert_eq!(market.in_store(), BOB);
}

#[test]
fn a_trade_that_a_failing_handler_asks_for_does_not_come_about() {
    fn asks_and_errs(
        In(receipt): In<Receipt>,
        mut commands: Commands,
        players: Query<(Entity, &PersistentPlayer)>,
    ) -> Result {
        let partner = players.iter().find(|(_, player)| player.0 == id("bob"));
        let (partner, _) = partner.ok_or("bob is not here")?;
        commands.trade([receipt.entity, partner], hand_over);
        Err("not now".into())
    }
    let mut market = open();
    market.app.add_product(Product::new("deal", asks_and_errs));
    let receipt = NewReceipt::new("p1".parse().unwrap(), id("ada"), "deal".parse().unwrap());
    let submit = |In(receipt): In<NewReceipt>, server: PlayerDataServer| drop(server.submit_receipt(receipt));
    market
        .app
        .world_mut()
        .run_system_cached_with(submit, receipt)
        .unwrap();
    let refused = market.outcome();
    assert!(matches!(refused, Err(TradeError::Failed { .. })), "{refused:?}");
    assert_eq!(market.in_memory(), ADA);
}

#[test]
fn a_trade_on_its_way_is_shown_and_counts_as_two_saves_that_take_time() {
    let mut market = open();
    let before = *market.app.world().resource::<ServerStats>();
    market.app.set(market.ada, OwnPlayer);
    market.faults.hang();
    market.trade();
    assert!(market.app.component::<SaveUnderWay>(market.ada).is_some());
    let held_up = Instant::now();
    while held_up.elapsed() < Duration::from_millis(100) {
        market.app.update();
    }
    market.faults.resume();
    market.outcome().expect("the store works");
    assert!(market.app.component::<SaveUnderWay>(market.ada).is_none());
    let after = *market.app.world().resource::<ServerStats>();
    assert_eq!(after.saves - before.saves, 2);
    let took = after.save_time - before.save_time;
    assert!(took >= Duration::from_millis(200), "{took:?}");
}
