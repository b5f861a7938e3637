//! What the example game sells, and what it trades: its own systems on a real `App`, without a network.

#![cfg(all(feature = "sqlite", feature = "client"))]
#![allow(dead_code, reason = "the example's modules have more than these tests need")]

use bevy::{ecs::system::RunSystemOnce, prelude::*};
use bevy_player_data::{
    PlayerData,
    prelude::*,
    store::{ReceiptState, StoredReceipt},
    testing::{headless_app, update_until},
};

#[path = "../examples/server/catalogue.rs"]
mod catalogue;
#[path = "../examples/server/cheating.rs"]
mod cheating;
#[path = "../examples/game/game.rs"]
mod game;
#[path = "../examples/server/products.rs"]
mod products;
#[path = "../examples/server/relics.rs"]
mod relics;
#[path = "../examples/server/rules.rs"]
mod rules;
#[path = "../examples/server/view.rs"]
mod view;

use catalogue::Catalogue;
use game::data::{Bought, Coins, Relic, Relics, Title, shared_data};

/// A server on which the example's products are for sale.
struct Shop {
    app: App,
    inbox: ReceiptInbox,
    runtime: tokio::runtime::Runtime,
}

impl Shop {
    fn open() -> Self {
        let mut app = headless_app();
        app.add_plugins((
            PlayerDataPlugin::server(MemoryStore::default()),
            shared_data,
            relics::plugin,
        ));
        products::sell(&mut app, &Catalogue::load(None).expect("it is built in"));
        // In the game the rules do that, which need a network.
        app.add_observer(|loaded: On<PlayerLoaded>, mut commands: Commands| {
            commands.entity(loaded.entity).insert(rules::OpenToTrade);
        });
        let inbox = app
            .world_mut()
            .run_system_once(|server: PlayerDataServer| server.inbox())
            .expect("the plugin is there");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        Self { app, inbox, runtime }
    }

    fn join(&mut self, name: &str) -> Entity {
        let player = PersistentPlayer(PlayerId::from_name(name));
        let entity = self.app.world_mut().spawn(player).id();
        update_until(&mut self.app, "the player is welcomed", |world| {
            world.entity(entity).contains::<Relics>()
        });
        entity
    }

    fn hand_in(&mut self, name: &str, product: &str, purchase: &str, is_refund: bool) {
        let receipt = NewReceipt::new(
            id(purchase),
            PlayerId::from_name(name),
            product.parse().expect("an id"),
        );
        let handed_in = if is_refund {
            self.runtime.block_on(self.inbox.refunded(receipt))
        } else {
            self.runtime.block_on(self.inbox.paid(receipt))
        };
        handed_in.expect("the store works");
    }

    /// Waits until a purchase is in this state, and returns what the store knows of it.
    fn wait_until(&mut self, purchase: &str, state: ReceiptState) -> StoredReceipt {
        let mut found = None;
        let Self { app, inbox, runtime } = self;
        update_until(app, &format!("`{purchase}` is {state}"), |_| {
            let receipt = runtime.block_on(inbox.receipt(id(purchase)));
            found = receipt
                .expect("the store works")
                .filter(|receipt| receipt.state == state);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    fn buy(&mut self, name: &str, product: &str, purchase: &str) -> StoredReceipt {
        self.hand_in(name, product, purchase, false);
        self.wait_until(purchase, ReceiptState::Granted)
    }

    /// Returns what could not be taken back.
    fn refund(&mut self, name: &str, product: &str, purchase: &str) -> Option<String> {
        self.hand_in(name, product, purchase, true);
        self.wait_until(purchase, ReceiptState::Refunded).note
    }

    fn get<T: PlayerData + Clone>(&self, player: Entity) -> Option<T> {
        self.app.world().get(player).cloned()
    }

    fn set_coins(&mut self, player: Entity, coins: u64) {
        *self.app.world_mut().get_mut(player).expect("everybody has some") = Coins(coins);
    }

    fn bought(&self, player: Entity) -> String {
        self.get::<Bought>(player).expect("everybody has it").to_string()
    }

    fn relics(&self, player: Entity) -> Vec<Relic> {
        self.get::<Relics>(player).expect("they were welcomed").0
    }
}

fn id(purchase: &str) -> PurchaseId {
    purchase.parse().expect("an id")
}

#[test]
fn each_kind_of_product_is_granted_once_and_counted() {
    let mut shop = Shop::open();
    let ada = shop.join("ada");
    shop.buy("ada", "coins_100", "p1");
    shop.buy("ada", "coins_100", "p2");
    shop.buy("ada", "title_patron", "p3");
    shop.buy("ada", "relic", "p4");
    shop.hand_in("ada", "coins_100", "p1", false);
    shop.buy("ada", "coins_1000", "p5");
    assert_eq!(shop.get(ada), Some(Coins(1200)), "two purses and a chest");
    assert_eq!(shop.get(ada), Some(Title("Patron of the Field".to_owned())));
    assert_eq!(
        shop.relics(ada).len(),
        4,
        "three to begin with, and the one that was bought"
    );
    assert_eq!(
        shop.bought(ada),
        "2 coins_100, 1 coins_1000, 1 relic, 1 title_patron"
    );
}

#[test]
fn a_refund_takes_back_what_was_bought() {
    let mut shop = Shop::open();
    let ada = shop.join("ada");
    let relics = shop.relics(ada);
    shop.set_coins(ada, 7);
    for (product, purchase) in [("coins_100", "p1"), ("title_patron", "p2"), ("relic", "p3")] {
        shop.buy("ada", product, purchase);
        assert_eq!(
            shop.refund("ada", product, purchase),
            None,
            "all of {product} is there"
        );
    }
    assert_eq!(shop.get(ada), Some(Coins(7)));
    assert_eq!(shop.get::<Title>(ada), None);
    assert_eq!(shop.relics(ada), relics);
    assert_eq!(shop.bought(ada), "nothing");
}

#[test]
fn a_refund_says_what_was_spent_or_traded_away_and_takes_the_rest() {
    let mut shop = Shop::open();
    let ada = shop.join("ada");
    shop.buy("ada", "coins_100", "p1");
    shop.set_coins(ada, 60);
    assert_eq!(
        shop.refund("ada", "coins_100", "p1").as_deref(),
        Some("40 of 100 coins were spent")
    );
    assert_eq!(shop.get(ada), Some(Coins(0)), "what was left is taken");

    shop.buy("ada", "relic", "p2");
    let relic = relics::bought_relic(&id("p2"));
    let mut relics = shop.app.world_mut().get_mut::<Relics>(ada).expect("she has some");
    relics.0.retain(|own| *own != relic);
    assert_eq!(
        shop.refund("ada", "relic", "p2"),
        Some(format!("the relic {relic} was traded away"))
    );
    assert_eq!(shop.relics(ada).len(), 3, "her other relics are hers");
    assert_eq!(shop.bought(ada), "nothing");
}

#[test]
fn a_refund_leaves_a_title_that_was_earned_since() {
    let mut shop = Shop::open();
    let ada = shop.join("ada");
    shop.buy("ada", "title_patron", "p1");
    let earned = Title("Coin Baron".to_owned());
    shop.app.world_mut().entity_mut(ada).insert(earned.clone());
    shop.refund("ada", "title_patron", "p1");
    assert_eq!(shop.get(ada), Some(earned));
}

#[test]
fn a_full_wallet_refuses_the_purchase_for_good() {
    let mut shop = Shop::open();
    let ada = shop.join("ada");
    shop.set_coins(ada, u64::MAX - 99);
    shop.hand_in("ada", "coins_100", "p1", false);
    let refused = shop.wait_until("p1", ReceiptState::Refused);
    assert_eq!(refused.note.as_deref(), Some("wallet full"));
    assert_eq!(shop.get(ada), Some(Coins(u64::MAX - 99)));
    assert_eq!(shop.bought(ada), "nothing");
}

#[test]
fn a_relic_that_was_bought_before_the_first_visit_comes_on_top_of_the_welcome() {
    let mut shop = Shop::open();
    shop.hand_in("ada", "relic", "p1", false);
    let ada = shop.join("ada");
    shop.wait_until("p1", ReceiptState::Granted);
    let mut expected: Vec<Relic> = relics::relics_of_newcomer(PlayerId::from_name("ada")).collect();
    expected.push(relics::bought_relic(&id("p1")));
    assert_eq!(shop.relics(ada), expected);
}

#[test]
fn a_trade_swaps_one_relic_of_each_and_both_hear_of_it() {
    #[derive(Resource, Default)]
    struct Settled(Vec<Entity>);

    let mut shop = Shop::open();
    shop.app.init_resource::<Settled>().add_observer(
        |settled: On<TradeSettled>, mut all: ResMut<Settled>| {
            assert_eq!(settled.result, Ok(()));
            all.0.push(settled.entity);
        },
    );
    let (ada, bob) = (shop.join("ada"), shop.join("bob"));
    let (adas, bobs) = (shop.relics(ada), shop.relics(bob));
    shop.app
        .world_mut()
        .run_system_once_with(relics::trade_with_somebody, ada)
        .expect("it runs");
    update_until(&mut shop.app, "the trade is saved", |world| {
        world.resource::<Settled>().0.len() == 2
    });
    let from =
        |relics: &[Relic], origin: &[Relic]| relics.iter().filter(|relic| origin.contains(relic)).count();
    for (player, own, others) in [(ada, &adas, &bobs), (bob, &bobs, &adas)] {
        let relics = shop.relics(player);
        assert_eq!((from(&relics, own), from(&relics, others)), (2, 1), "{relics:?}");
        assert!(shop.app.world().resource::<Settled>().0.contains(&player));
    }
}

#[test]
fn nobody_trades_with_somebody_who_is_not_open_to_it() {
    let mut shop = Shop::open();
    let (ada, bob) = (shop.join("ada"), shop.join("bob"));
    let (adas, bobs) = (shop.relics(ada), shop.relics(bob));
    shop.app
        .world_mut()
        .entity_mut(bob)
        .remove::<rules::OpenToTrade>();
    shop.app
        .world_mut()
        .run_system_once_with(relics::trade_with_somebody, ada)
        .expect("it runs");
    shop.app.update();
    assert_eq!((shop.relics(ada), shop.relics(bob)), (adas, bobs));
}
