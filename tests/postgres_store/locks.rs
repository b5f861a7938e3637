//! What other transactions must not be able to slip in between.

use bevy_player_data::store::{NewReceipt, Notice};

use super::*;

#[tokio::test]
async fn no_arrival_is_passed_over_however_many_hand_receipts_in() {
    const EACH: u32 = 150;
    let url = shared().new_schema();
    let poller = connect(&url);
    // However long a commit takes after the number was given out.
    let script = "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(random() * 0.004);
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON receipts DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION linger()";
    stranger(&url).await.batch_execute(script).await.unwrap();
    let start = poller.arrivals(None).await.unwrap().newest;
    let mut senders = Vec::new();
    for sender in 0..4 {
        let store = connect(&url);
        senders.push(tokio::spawn(async move {
            let mut enqueued = Vec::new();
            for n in 0..EACH {
                let player = ADA.slot(sender * EACH + n);
                let id = format!("p{sender}-{n}").parse().unwrap();
                let receipt = NewReceipt::new(id, player, "hat".parse().unwrap());
                let store = Arc::clone(&store);
                enqueued.push(tokio::spawn(
                    async move { store.enqueue(receipt, Notice::Paid).await },
                ));
                if n % 10 == 9 {
                    for answer in enqueued.drain(..) {
                        answer.await.unwrap().unwrap();
                    }
                }
            }
        }));
    }
    let mut since = start;
    let mut seen = std::collections::BTreeSet::new();
    let mut look = async |seen: &mut std::collections::BTreeSet<_>| {
        let arrivals = poller.arrivals(Some(since)).await.unwrap();
        since = arrivals.newest;
        seen.extend(arrivals.players);
    };
    for sender in senders {
        while !sender.is_finished() {
            look(&mut seen).await;
        }
        sender.await.unwrap();
    }
    look(&mut seen).await;
    assert_eq!(
        seen.len(),
        4 * EACH as usize,
        "some receipts arrived behind the poller's back"
    );
}

#[tokio::test]
async fn one_purchase_that_many_processes_hand_in_at_once_is_one_receipt() {
    let url = shared().new_schema();
    let stores: Vec<_> = (0..6).map(|_| connect(&url)).collect();
    for round in 0..20 {
        let id: bevy_player_data::PurchaseId = format!("p{round}").parse().unwrap();
        let tasks: Vec<_> = stores
            .iter()
            .map(|store| {
                let (store, id) = (Arc::clone(store), id.clone());
                let receipt = NewReceipt::new(id, ADA, "hat".parse().unwrap());
                tokio::spawn(async move { store.enqueue(receipt, Notice::Paid).await.unwrap() })
            })
            .collect();
        let mut new = 0;
        for task in tasks {
            new += u32::from(task.await.unwrap().is_new);
        }
        assert_eq!(new, 1, "round {round}");
    }
}

#[tokio::test]
async fn a_player_whom_many_servers_want_at_once_is_in_one_session() {
    let url = shared().new_schema();
    let mut servers = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        servers.push(Arc::new(Server::start(connect(&url), name).await));
    }
    for round in 0..20 {
        let player = ADA.slot(round);
        // The first time there is no row of theirs yet.
        for fence in 1..=3 {
            let tasks: Vec<_> = servers
                .iter()
                .map(|server| {
                    let (server, request) = (Arc::clone(server), server.request(player));
                    tokio::spawn(
                        async move { (server.store.acquire(request.clone()).await, server, request) },
                    )
                })
                .collect();
            let mut granted = Vec::new();
            for task in tasks {
                match task.await.unwrap() {
                    (Ok(acquired), server, request) => {
                        assert_eq!(acquired.fence, fence);
                        granted.push(Session::new(&server, &request, acquired.fence));
                    }
                    (Err(StoreError::SessionLocked { .. }), ..) => {}
                    (Err(other), ..) => panic!("{other}"),
                }
            }
            assert_eq!(granted.len(), 1, "round {round}, fence {fence}");
            granted[0].release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn trades_of_the_same_two_players_in_both_orders_never_stand_in_each_others_way() {
    let url = shared().new_schema();
    let server = Server::start(connect(&url), "a").await;
    let other = connect(&url);
    let (mut ada, mut bob) = (server.session(ADA).await, server.session(BOB).await);
    for round in 1..=50u64 {
        let forwards = bevy_player_data::store::Commit {
            writes: vec![ada.write("forwards"), bob.write("forwards")],
        };
        let mut backwards = forwards.clone();
        backwards.writes.reverse();
        let (first, second) = tokio::join!(server.store.commit(forwards), other.commit(backwards));
        assert_eq!(first.unwrap().versions, [round, round]);
        assert_eq!(second.unwrap().versions, [round, round]);
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(number(&stranger(&url).await, deadlocks).await, 0);
}
