//! What is judged on rows that turn out to be others by the time that something is written.

use bevy_player_data::store::{Import, LockId, NewReceipt, Notice, ReceiptState, Record, StoredReceipt};

use super::*;

fn new_receipt(id: &str, player: bevy_player_data::PlayerId) -> NewReceipt {
    NewReceipt::new(id.parse().unwrap(), player, "hat".parse().unwrap())
}

#[tokio::test]
async fn a_commit_is_never_judged_on_a_row_that_may_not_come_about() {
    let url = shared().new_schema();
    let settings = PostgresSettings {
        connections: 1,
        timeout: TIMEOUT,
    };
    let store = Arc::new(PostgresStore::connect_with(&url, settings).unwrap());
    let server = Server::start(store, "a").await;
    let other = Server::start(connect(&url), "b").await;
    let request = server.request(ADA);
    let acquired = server.store.acquire(request.clone()).await.unwrap();
    let write = Session::new(&server, &request, acquired.fence).write("late");

    // Somebody else is just taking her over: her row is there, and not to be seen.
    let mut admin = stranger(&url).await;
    let observer = stranger(&url).await;
    let mut takeover = admin.transaction().await.unwrap();
    takeover
        .execute(
            "UPDATE players SET version = 7, fence = 2, lock_id = $1, server = $2 WHERE player_id = $3",
            &[
                &uuid::Uuid::from_bytes(LockId::random().into_bytes()),
                &uuid::Uuid::from_bytes(other.id.into_bytes()),
                &ADA.uuid(),
            ],
        )
        .await
        .unwrap();
    // Behind this one the late repetition of her acquire and the commit come to share a transaction.
    let barrier = takeover.transaction().await.unwrap();
    barrier.batch_execute("LOCK TABLE players").await.unwrap();
    let first = {
        let (store, request) = (Arc::clone(&server.store), server.request(BOB));
        tokio::spawn(async move { store.acquire(request).await })
    };
    wait_until(&observer, SOMEBODY_WAITS).await;
    let late = {
        let store = Arc::clone(&server.store);
        tokio::spawn(async move { tokio::join!(biased; store.acquire(request), store.commit(write.into())) })
    };
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    barrier.rollback().await.unwrap();
    wait_until(&observer, SOMEBODY_WAITS_FOR_A_ROW).await;
    takeover.commit().await.unwrap();

    let (acquired, committed) = late.await.unwrap();
    assert_eq!(committed, Err(support::lock_lost(ADA)));
    assert!(
        matches!(acquired, Err(StoreError::SessionLocked { .. })),
        "{acquired:?}"
    );
    let record = other.store.peek(ADA).await.unwrap().unwrap();
    assert_eq!(
        (record.version, record.fence),
        (7, 2),
        "as whoever took her over left it"
    );
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_copy_overwrites_nobody_who_comes_into_being_meanwhile() {
    let url = shared().new_schema();
    let store = connect(&url);
    let record = Record {
        player: ADA,
        version: 3,
        fence: 3,
        last_seq: 1,
        lock: None,
        document: document("copied"),
        created_at: 1,
        saved_at: Some(2),
    };
    let receipt = StoredReceipt {
        number: 1,
        purchase: "p1".parse().unwrap(),
        player: Some(ADA),
        product: Some("hat".parse().unwrap()),
        state: ReceiptState::Pending,
        refund_requested: false,
        settled_fence: None,
        note: None,
        payload: None,
        received_at: 1,
        settled_at: None,
    };
    let zeros = uuid::Uuid::nil();
    let mut admin = stranger(&url).await;
    let observer = stranger(&url).await;
    for is_player in [true, false] {
        let live = admin.transaction().await.unwrap();
        if is_player {
            let played = "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at, document)
                VALUES ($1, 9, 5, 4, $2, $2, 1, 'played')";
            live.execute(played, &[&ADA.uuid(), &zeros]).await.unwrap();
        } else {
            let handed_in =
                "INSERT INTO receipts (purchase_id, number, arrival, player_id, product_id, state,
                refund_requested, received_at) VALUES ('p1', 50, 50, $1, 'hat', 'pending', true, 1)";
            live.execute(handed_in, &[&ADA.uuid()]).await.unwrap();
        }
        let rows = match is_player {
            true => Import {
                records: vec![record.clone()],
                receipts: Vec::new(),
            },
            false => Import {
                records: Vec::new(),
                receipts: vec![receipt.clone()],
            },
        };
        let import = {
            let (store, rows) = (Arc::clone(&store), rows.clone());
            tokio::spawn(async move { store.import(rows).await })
        };
        wait_until(&observer, SOMEBODY_WAITS_FOR_A_ROW).await;
        live.commit().await.unwrap();
        let refused = assert_unavailable(import.await.unwrap());
        assert_mentions(&refused, &["copy again"]);
        let again = store.import(rows).await.unwrap_err();
        assert!(matches!(again, StoreError::Rejected { .. }), "{again}");
    }
    let kept = store.peek(ADA).await.unwrap().unwrap();
    assert_eq!((kept.version, kept.document), (9, document("played")));
    let kept = store.receipt("p1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((kept.number, kept.refund_requested), (50, true));
}

#[tokio::test]
async fn who_comes_into_being_while_nobody_of_the_name_is_erased_stays() {
    let url = shared().new_schema();
    let server = Server::start(connect(&url), "a").await;
    server
        .store
        .enqueue(new_receipt("p1", ADA), Notice::Paid)
        .await
        .unwrap();
    let mut admin = stranger(&url).await;
    let joining = admin.transaction().await.unwrap();
    joining
        .query("SELECT 1 FROM receipts FOR UPDATE", &[])
        .await
        .unwrap();
    let joined = "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at)
        VALUES ($1, 0, 1, 0, $2, $3, 1)";
    let lock = uuid::Uuid::from_bytes(LockId::random().into_bytes());
    let boot = uuid::Uuid::from_bytes(server.id.into_bytes());
    joining
        .execute(joined, &[&ADA.uuid(), &lock, &boot])
        .await
        .unwrap();
    let erase = {
        let store = Arc::clone(&server.store);
        tokio::spawn(async move { store.erase(ADA).await })
    };
    wait_until(&stranger(&url).await, SOMEBODY_WAITS_FOR_A_ROW).await;
    joining.commit().await.unwrap();
    assert_eq!(erase.await.unwrap(), Ok(false), "there was nobody");
    let record = server.store.peek(ADA).await.unwrap();
    assert!(
        record.is_some_and(|record| record.fence == 1),
        "a session lost its row"
    );
}

#[tokio::test]
async fn arrivals_whose_numbers_are_given_out_again_are_not_passed_over() {
    let url = shared().new_schema();
    let store = connect(&url);
    for (n, id) in (0..).zip(["p1", "p2", "p3"]) {
        store
            .enqueue(new_receipt(id, ADA.slot(n)), Notice::Paid)
            .await
            .unwrap();
    }
    let since = store.arrivals(Some(0)).await.unwrap().newest;
    assert_eq!(since, 3);
    // A failover that lost the last two, or a backup.
    let admin = stranger(&url).await;
    let lose = "DELETE FROM receipts WHERE arrival > 1; UPDATE counters SET receipts = 1, arrivals = 1";
    admin.batch_execute(lose).await.unwrap();
    let since = store.arrivals(Some(since)).await.unwrap().newest;
    assert_eq!(since, 1);
    store.enqueue(new_receipt("p4", BOB), Notice::Paid).await.unwrap();
    let found = store.arrivals(Some(since)).await.unwrap();
    assert_eq!((found.players, found.newest), (vec![BOB], 2));
}
