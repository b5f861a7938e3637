//! Hints at receipts that have arrived, and how they come back.

use bevy_player_data::store::{NewReceipt, Notice};

use super::*;

/// Waits until a store has heard another hint than these.
async fn wait_for_a_hint(store: &PostgresStore, heard: u64) {
    for _ in 0..2000 {
        if store.hints() > heard {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody was told");
}

async fn hand_in(store: &PostgresStore, id: &str) {
    let receipt = NewReceipt::new(id.parse().unwrap(), ADA, "hat".parse().unwrap());
    store.enqueue(receipt, Notice::Paid).await.unwrap();
}

#[tokio::test]
async fn who_listens_gets_a_hint_when_a_receipt_arrives() {
    // Of its own: whoever uses the same database gives the same hints.
    let cluster = Cluster::start(&["fsync=off"]);
    let url = cluster.new_schema();
    let (sender, listener) = (connect(&url), connect(&url));
    // One that has just begun to listen has heard a hint about what it may have missed.
    wait_for_a_hint(&sender, 0).await;
    wait_for_a_hint(&listener, 0).await;
    let (before, own) = (listener.hints(), sender.hints());
    hand_in(&sender, "p1").await;
    wait_for_a_hint(&listener, before).await;
    assert_eq!(sender.hints(), own, "what one hands in oneself is no news");
}

#[tokio::test]
async fn whose_connection_has_ended_listens_again_and_looks_at_what_was_missed() {
    let cluster = Cluster::start(&["fsync=off"]);
    let url = cluster.new_schema();
    let (sender, listener) = (connect(&url), connect(&url));
    wait_for_a_hint(&sender, 0).await;
    wait_for_a_hint(&listener, 0).await;
    for round in 0..3 {
        let (one, other) = (sender.hints(), listener.hints());
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE query LIKE 'LISTEN%' OR query = 'SELECT 1'";
        assert_eq!(cluster.tell(end), "2");
        wait_for_a_hint(&sender, one).await;
        wait_for_a_hint(&listener, other).await;
        let before = listener.hints();
        hand_in(&sender, &format!("p{round}")).await;
        wait_for_a_hint(&listener, before).await;
    }
}

#[tokio::test]
async fn who_was_refused_to_listen_asks_again() {
    let cluster = Cluster::start(&["fsync=off"]);
    let url = cluster.new_schema();
    let proxy = Proxy::to(cluster.port);
    proxy.set(Mode::GarblesListening);
    let listener = connect(&through(&proxy, &cluster, &url));
    cluster.wait_until("it was refused", || proxy.losses() > 0);
    assert_eq!(listener.hints(), 0);
    proxy.set(Mode::Carries);
    wait_for_a_hint(&listener, 0).await;
    let before = listener.hints();
    let sender = connect(&url);
    wait_for_a_hint(&sender, 0).await;
    hand_in(&sender, "p1").await;
    wait_for_a_hint(&listener, before).await;
}
