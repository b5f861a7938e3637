//! What a client hears of its player's purchases, and that nothing it says has anything to do with them.

#[path = "support/net.rs"]
mod support;

use bevy::prelude::*;
use bevy_player_data::{
    client::own_player_can_purchase,
    player::PurchaseDecision::{NotProcessedYet, PurchaseGranted, Refused},
    prelude::*,
    replication::PlayerDataChannels,
    store::{Store, StoredReceipt},
    testing::{ScriptPlayer as _, headless_app},
};
use bevy_renet::{RenetClient, RenetServer, RenetServerPlugin};
use support::*;

/// What the client was told, and how many coins it saw at that moment.
#[derive(Resource, Default)]
struct Told(Vec<(String, String, PurchaseDecision, Option<u64>)>);

fn listen(client: &mut Client) {
    client.app.init_resource::<Told>().add_observer(
        |on: On<PurchaseProcessed>, own: Query<Option<&Coins>, With<OwnPlayer>>, mut told: ResMut<Told>| {
            let coins = own.get(on.entity).expect("it is about the own player");
            told.0.push((
                on.purchase.to_string(),
                on.product.to_string(),
                on.decision.clone(),
                coins.map(|coins| coins.0),
            ));
        },
    );
}

fn told(client: &Client) -> Vec<(String, String, PurchaseDecision, Option<u64>)> {
    client.app.world().resource::<Told>().0.clone()
}

fn process(server: &mut App, player: Entity, purchase: &str, decision: PurchaseDecision) {
    server.world_mut().process_purchase(
        player,
        purchase.parse().expect("a purchase id"),
        "coins_100".parse().expect("a product id"),
        decision,
    );
}

#[test]
fn a_purchase_is_told_to_its_player_alone_once_what_was_bought_is_there() {
    let mut server = server();
    let (mut ada, player) = Client::join_and_load(&mut server, 1, "ada", Coins(0));
    let (mut eve, _) = Client::join_and_load(&mut server, 2, "eve", Coins(0));
    listen(&mut ada);
    listen(&mut eve);
    server.world_mut().get_mut::<Coins>(player).unwrap().0 = 100;
    process(&mut server, player, "pi_of_ada", PurchaseGranted);
    let reason = "wallet full".to_owned();
    process(
        &mut server,
        player,
        "pi_2",
        Refused {
            reason: reason.clone(),
        },
    );
    for _ in 0..5 {
        ada.step(&mut server);
        eve.step(&mut server);
    }
    let product = || "coins_100".to_owned();
    assert_eq!(
        told(&ada),
        [
            ("pi_of_ada".to_owned(), product(), PurchaseGranted, Some(100)),
            ("pi_2".to_owned(), product(), Refused { reason }, Some(100)),
        ]
    );
    assert_eq!(told(&eve), []);
    let remembered: OwnPurchases = ada.get().expect("she is loaded");
    let granted = "pi_of_ada".parse().expect("a purchase id");
    assert_eq!(
        remembered.decision(&granted),
        Some(&PurchaseGranted),
        "a shop that asks later finds it"
    );
    assert_eq!(
        eve.get::<OwnPurchases>().expect("she is loaded"),
        OwnPurchases::default()
    );
    assert!(ada.was_sent(b"pi_of_ada") && !eve.was_sent(b"pi_of_ada"));
}

#[test]
fn a_client_that_does_not_listen_costs_no_more_than_the_newest_purchases() {
    let mut server = server();
    let (mut ada, player) = Client::join_and_load(&mut server, 1, "ada", Coins(0));
    listen(&mut ada);
    for n in 0..10_000 {
        process(&mut server, player, &format!("pi_{n}"), NotProcessedYet);
    }
    ada.settle(&mut server);
    let told = told(&ada);
    assert_eq!(told.len(), 64);
    assert_eq!(told.last().map(|told| told.0.as_str()), Some("pi_9999"));
    assert!(ada.is_connected(&server));
}

#[test]
fn a_purchase_that_was_processed_while_the_player_was_loading_is_told_after_the_load() {
    let mut server = server();
    let (mut ada, player) = Client::join(&mut server, 1, "ada");
    listen(&mut ada);
    ada.settle(&mut server);
    server.world_mut().finish_load(player, false, Coins(100));
    process(&mut server, player, "pi_1", PurchaseGranted);
    ada.settle(&mut server);
    assert_eq!(told(&ada).len(), 1);
    assert_eq!(told(&ada)[0].3, Some(100));
}

/// A real server with a product, and ada's client.
fn shop(store: impl Store) -> (App, Client) {
    fn grant(In(receipt): In<Receipt>, mut coins: Query<&mut Coins>) -> Result {
        coins.get_mut(receipt.entity)?.0 += 100;
        Ok(())
    }
    let mut server = headless_app();
    let settings = ServerSettings {
        identify: Identify::by(|_, _| Some(PlayerId::from_name("ada"))),
        handle_signals: false,
        ..default()
    };
    server
        .insert_resource(bevy::time::TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            RenetServerPlugin,
            PlayerDataPlugin::server(store).with_settings(settings),
        ))
        .insert_resource(RenetServer::new(config()))
        .add_plugins(shared_data)
        .add_product(Product::new("coins_100", grant));
    let mut client = Client::connect(&mut server, 1);
    listen(&mut client);
    (server, client)
}

fn receipt() -> NewReceipt {
    NewReceipt::new(
        "pi_1".parse().expect("a purchase id"),
        PlayerId::from_name("ada"),
        "coins_100".parse().expect("a product id"),
    )
}

fn submit(server: &mut App) {
    let submit = |In(receipt): In<NewReceipt>, server: PlayerDataServer| drop(server.submit_receipt(receipt));
    server
        .world_mut()
        .run_system_cached_with(submit, receipt())
        .expect("the plugin is there");
}

#[test]
fn a_purchase_on_the_real_server_is_shown_and_told() {
    let (mut server, mut client) = shop(MemoryStore::default());
    client.until_in_time(&mut server, "ada is loaded", |client| {
        client.has::<PlayerSession>()
    });
    submit(&mut server);
    client.until_in_time(&mut server, "the purchase is told", |client| {
        !told(client).is_empty()
    });
    assert_eq!(
        told(&client),
        [(
            "pi_1".to_owned(),
            "coins_100".to_owned(),
            PurchaseGranted,
            Some(100)
        )]
    );
}

#[test]
fn a_player_on_defaults_is_told_that_they_can_not_buy_and_is_granted_nothing() {
    let store = MemoryStore::default();
    {
        // Somebody's bytes that nobody can read.
        use bevy_player_data::store::{Acquire, Lease, LockId, ServerId, Then, Write};
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (server, lock, player) = (ServerId::random(), LockId::random(), PlayerId::from_name("ada"));
            let name = "somebody else".to_owned();
            store
                .lease(Lease {
                    server,
                    name,
                    lapsed: Vec::new(),
                })
                .await
                .unwrap();
            let acquire = Acquire {
                player,
                lock,
                server,
                lapsed: Vec::new(),
                orphan: None,
                until_beat: u64::MAX,
            };
            let fence = store.acquire(acquire).await.unwrap().fence;
            let write = Write {
                player,
                lock,
                fence,
                seq: 1,
                document: Some(bytes::Bytes::from_static(b"nonsense")),
                settle: Vec::new(),
                then: Then::Release,
            };
            store.commit(write.into()).await.unwrap();
            store.retire(server).await.unwrap();
        });
    }
    let (mut server, mut client) = shop(store);
    client.until_in_time(&mut server, "the load has failed", |client| {
        client.has::<PlayerFallback>()
    });
    let can_purchase = client.app.world_mut().run_system_cached(own_player_can_purchase);
    assert!(!can_purchase.unwrap(), "the client knows that it can't buy");
    submit(&mut server);
    for _ in 0..100 {
        client.step(&mut server);
    }
    assert_eq!(client.get(), Some(Coins(0)));
}

#[test]
fn nothing_that_a_client_sends_creates_grants_or_alters_a_receipt() {
    let rows = MemoryStore::default();
    let (mut server, mut client) = shop(rows.connect());
    client.until_in_time(&mut server, "ada is loaded", |client| {
        client.has::<PlayerSession>()
    });
    submit(&mut server);
    client.until_in_time(&mut server, "the purchase is told", |client| {
        !told(client).is_empty()
    });
    let before = receipts(&rows);
    // Everything that it ever received or sent, the news of the purchase among it, on every channel, whole and in parts.
    let packets: Vec<Vec<u8>> = client.packets.iter().map(|(_, packet)| packet.clone()).collect();
    let channels = PlayerDataChannels::default();
    let mut random = fastrand::Rng::with_seed(7);
    for n in 0..2000 {
        let packet = &packets[n % packets.len()];
        let start = random.usize(0..packet.len());
        let mut bytes = packet[start..].to_vec();
        if random.bool() {
            let place = random.usize(0..bytes.len());
            bytes[place] = random.u8(..);
        }
        bytes.truncate(250);
        if let Some(mut connection) = client.app.world_mut().get_resource_mut::<RenetClient>() {
            connection.send_message(channels.to_server, bytes);
        }
        client.step(&mut server);
    }
    assert_eq!(receipts(&rows), before);
    assert_eq!(server.world().resource::<ServerStats>().purchases_granted, 1);
}

fn receipts(rows: &MemoryStore) -> Vec<StoredReceipt> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime for one request");
    runtime
        .block_on(rows.receipts_of(PlayerId::from_name("ada"), None, 100))
        .expect("the store answers")
}
