//! What other transactions must not be able to slip in between.

use bevy_player_data::store::{NewReceipt, Notice};

use super::*;

/// Makes every change of a table take a moment.
async fn slow_down(admin: &tokio_postgres::Client, table: &str) {
    let script = format!(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(0.5);
             RETURN NULL;
         END $$;
         CREATE TRIGGER slowly AFTER INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION slowly()"
    );
    admin.batch_execute(&script).await.unwrap();
}

#[tokio::test]
async fn who_has_seen_a_beat_has_seen_every_lock_that_was_granted_before_it() {
    let url = shared().new_schema();
    let server = Arc::new(Server::start(connect(&url), "a").await);
    let admin = stranger(&url).await;
    slow_down(&admin, "players").await;
    let granted = {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let request = bevy_player_data::store::Acquire {
                until_beat: 1,
                ..server.request(ADA)
            };
            server.store.acquire(request).await
        })
    };
    let is_sleeping = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'
        AND application_name = 'bevy_player_data')";
    wait_until(&admin, is_sleeping).await;
    server.beat().await.unwrap();
    let record = server.store.peek(ADA).await.unwrap();
    assert!(
        record.is_some_and(|record| record.lock.is_some()),
        "a lock that was good until beat 1 became visible after beat 2"
    );
    granted.await.unwrap().unwrap();
}

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
async fn who_listens_gets_a_hint_when_a_receipt_arrives() {
    // Of its own: whoever uses the same database gives the same hints.
    let cluster = Cluster::start(&["fsync=off"]);
    let url = cluster.new_schema();
    let (sender, listener) = (connect(&url), connect(&url));
    let is_listening = "SELECT count(*) > 1 FROM pg_stat_activity WHERE query = 'SELECT 1'
        AND application_name = 'bevy_player_data'";
    wait_until(&stranger(&url).await, is_listening).await;
    // One that has just connected has heard a hint about what it may have missed.
    while sender.hints() == 0 || listener.hints() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (before, own) = (listener.hints(), sender.hints());
    let receipt = NewReceipt::new("p1".parse().unwrap(), ADA, "hat".parse().unwrap());
    sender.enqueue(receipt, Notice::Paid).await.unwrap();
    for _ in 0..1000 {
        if listener.hints() > before {
            return assert_eq!(sender.hints(), own, "what one hands in oneself is no news");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody was told");
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
