//! How much shares a transaction, or a statement.

use bevy_player_data::store::{Acquire, Commit, Import, ReceiptState, Record, StoredReceipt, Write};

use super::*;

/// How many players' rows the transaction with the most of them has written last.
const LARGEST_GROUP: &str =
    "SELECT max(rows) FROM (SELECT count(*) AS rows FROM players GROUP BY xmin::text) AS groups";

#[tokio::test]
async fn large_documents_are_not_all_loaded_in_one_transaction() {
    const SIZE: usize = 512 * 1024;
    let url = shared().new_schema();
    let server = Server::start(connect(&url), "a").await;
    let mut sessions = Vec::new();
    for n in 0..32 {
        let mut session = server.session(ADA.slot(n)).await;
        session.save(&"x".repeat(SIZE)).await.unwrap();
        sessions.push(session);
    }
    // What loads weigh is learned from loads.
    for _ in 0..40 {
        let again = Acquire {
            lock: sessions[0].lock,
            ..server.request(sessions[0].player)
        };
        server.store.acquire(again).await.unwrap();
    }
    for session in &mut sessions {
        session.release().await.unwrap();
    }
    let mut admin = stranger(&url).await;
    let observer = stranger(&url).await;
    let barrier = admin.transaction().await.unwrap();
    barrier.batch_execute("LOCK TABLE players").await.unwrap();
    let loads: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (store, request) = (Arc::clone(&server.store), server.request(session.player));
            tokio::spawn(async move { store.acquire(request).await })
        })
        .collect();
    wait_until(&observer, SOMEBODY_WAITS).await;
    barrier.rollback().await.unwrap();
    for load in loads {
        assert_eq!(load.await.unwrap().unwrap().document.unwrap().len(), SIZE);
    }
    let most = number(&observer, LARGEST_GROUP).await;
    assert!(
        most <= 17,
        "{most} players of {SIZE} bytes were loaded in one transaction"
    );
}

#[tokio::test]
async fn a_large_save_shares_its_transaction_with_nobody() {
    let url = shared().new_schema();
    let server = Server::start(connect(&url), "a").await;
    let mut sessions = Vec::new();
    for n in 0..20 {
        sessions.push(server.session(ADA.slot(n)).await);
    }
    let mut admin = stranger(&url).await;
    let observer = stranger(&url).await;
    let barrier = admin.transaction().await.unwrap();
    barrier.batch_execute("LOCK TABLE players").await.unwrap();
    let saves: Vec<_> = sessions
        .iter_mut()
        .enumerate()
        .map(|(n, session)| {
            let write = session.write(&"x".repeat(if n == 9 { 9 * 1024 * 1024 } else { 10 }));
            let store = Arc::clone(&server.store);
            tokio::spawn(async move { store.commit(write.into()).await })
        })
        .collect();
    wait_until(&observer, SOMEBODY_WAITS).await;
    barrier.rollback().await.unwrap();
    for save in saves {
        assert_eq!(save.await.unwrap().unwrap().versions, [1]);
    }
    let with_the_large_one = "SELECT count(*) FROM players WHERE xmin::text IN
        (SELECT xmin::text FROM players WHERE octet_length(document) > 1000000)";
    assert_eq!(number(&observer, with_the_large_one).await, 1);
    let most = number(&observer, LARGEST_GROUP).await;
    assert!(most > 2, "the others shared theirs");
}

#[tokio::test]
async fn documents_that_are_too_large_together_are_rejected_unsent() {
    let url = shared().new_schema();
    let server = Server::start(connect(&url), "a").await;
    let mut writes = Vec::new();
    for player in [ADA, BOB] {
        let mut session = server.session(player).await;
        writes.push(Write {
            document: Some(vec![0; 130 * 1024 * 1024].into()),
            ..session.write("")
        });
    }
    let refused = server.store.commit(Commit { writes }).await.unwrap_err();
    assert!(matches!(refused, StoreError::Rejected { .. }), "{refused}");
    assert_mentions(&refused, &["smaller", &ADA.to_string(), &BOB.to_string()]);
}

#[tokio::test]
async fn a_page_of_a_copy_is_few_statements() {
    let url = shared().new_schema();
    let store = connect(&url);
    let admin = stranger(&url).await;
    let script = "CREATE SEQUENCE statements;
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM nextval('statements');
            RETURN NULL;
        END $$;
        CREATE TRIGGER note AFTER INSERT ON players FOR EACH STATEMENT EXECUTE FUNCTION note();
        CREATE TRIGGER note AFTER INSERT ON receipts FOR EACH STATEMENT EXECUTE FUNCTION note();
        CREATE TRIGGER note_too AFTER UPDATE ON players FOR EACH STATEMENT EXECUTE FUNCTION note();
        CREATE TRIGGER note_too AFTER UPDATE ON receipts FOR EACH STATEMENT EXECUTE FUNCTION note()";
    admin.batch_execute(script).await.unwrap();
    let page = |version: u64| Import {
        records: (0..200)
            .map(|n| Record {
                player: ADA.slot(n),
                version,
                fence: 1,
                last_seq: 1,
                lock: None,
                document: document("coins").filter(|_| n % 2 == 0),
                created_at: 1,
                saved_at: (n % 2 == 0).then_some(2),
            })
            .collect(),
        receipts: (1..=200)
            .map(|number| StoredReceipt {
                number,
                purchase: format!("p{number}").parse().unwrap(),
                player: (number % 3 != 0).then_some(ADA),
                product: (number % 3 != 0).then(|| "hat".parse().unwrap()),
                state: ReceiptState::Granted,
                refund_requested: number % 5 == 0,
                settled_fence: Some(version),
                note: (number % 7 == 0).then(|| "40 coins\0".to_owned()),
                payload: document("an order").filter(|_| number % 2 == 0),
                received_at: 1,
                settled_at: Some(2),
            })
            .collect(),
    };
    for version in [1, 2] {
        let rows = page(version);
        store.import(rows.clone()).await.unwrap();
        for record in rows.records {
            assert_eq!(store.peek(record.player).await.unwrap(), Some(record));
        }
        assert_eq!(store.all_receipts(None, 1000).await.unwrap(), rows.receipts);
    }
    let statements = number(&admin, "SELECT last_value FROM statements").await;
    assert!(statements <= 8, "{statements} statements for 800 rows");
}
