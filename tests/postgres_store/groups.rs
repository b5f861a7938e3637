//! Group commit: what shares a transaction, and what doesn't suffer from it.

use std::time::Instant;

use bevy_player_data::store::{Notice, Write};

use super::*;

/// A server with sessions of so many players.
async fn crowd(url: &str, count: u32) -> (Server, Vec<Session>) {
    let server = Server::start(connect(url), "a").await;
    let mut sessions = Vec::new();
    for n in 0..count {
        sessions.push(server.session(ADA.slot(n)).await);
    }
    (server, sessions)
}

/// Saves everybody's text at once.
async fn save_all(sessions: &mut [Session], text: impl Fn(usize) -> String) -> Vec<Result<u64, StoreError>> {
    let saves: Vec<_> = sessions
        .iter_mut()
        .enumerate()
        .map(|(n, session)| {
            let store = Arc::clone(session.store.as_ref().unwrap());
            let write = session.write(&text(n));
            tokio::spawn(async move { Ok(store.commit(write.into()).await?.versions[0]) })
        })
        .collect();
    let mut answers = Vec::new();
    for save in saves {
        answers.push(save.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn requests_that_queue_up_share_transactions() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 300).await;
    let answers = save_all(&mut sessions, |n| format!("coins {n}")).await;
    assert!(answers.iter().all(|answer| *answer == Ok(1)));
    let transactions = number(
        &stranger(&url).await,
        "SELECT count(DISTINCT xmin::text) FROM players",
    )
    .await;
    assert!(transactions < 100, "300 saves took {transactions} transactions");
}

#[tokio::test]
async fn a_refused_request_takes_nothing_of_its_group_with_it() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 50).await;
    sessions[7].fence += 1;
    let answers = save_all(&mut sessions, |n| format!("coins {n}")).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match n {
            7 => assert_eq!(answer, Err(support::lock_lost(ADA.slot(7)))),
            _ => assert_eq!(answer, Ok(1), "player {n}"),
        }
    }
}

#[tokio::test]
async fn a_write_that_the_database_refuses_fails_alone() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 50).await;
    let admin = stranger(&url).await;
    let check = "ALTER TABLE players ADD CHECK (octet_length(document) < 100)";
    admin.batch_execute(check).await.unwrap();
    let answers = save_all(&mut sessions, |n| "x".repeat(if n == 7 { 100 } else { 10 })).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match (n, answer) {
            (7, Err(StoreError::Rejected { .. })) => {}
            (7, other) => panic!("expected the one that is too long to be rejected, but got {other:?}"),
            (_, answer) => assert_eq!(answer, Ok(1), "player {n}"),
        }
    }
    let stored = number(&admin, "SELECT count(*) FROM players WHERE version = 1").await;
    assert_eq!(stored, 49);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_corrupt_and_nobody_else_notices() {
    let url = shared().new_schema();
    let (server, mut sessions) = crowd(&url, 20).await;
    let admin = stranger(&url).await;
    admin
        .execute(
            "UPDATE players SET version = -5 WHERE player_id = $1",
            &[&ADA.slot(7).uuid()],
        )
        .await
        .unwrap();
    let answers = save_all(&mut sessions, |n| format!("coins {n}")).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match (n, answer) {
            (7, Err(error @ StoreError::Corrupt { .. })) => assert_mentions(&error, &["version", "backup"]),
            (7, other) => panic!("expected the row to be corrupt, but got {other:?}"),
            (_, answer) => assert_eq!(answer, Ok(1), "player {n}"),
        }
    }
    assert!(matches!(
        server.store.peek(ADA.slot(7)).await,
        Err(StoreError::Corrupt { .. })
    ));
    assert_eq!(
        number(&admin, "SELECT min(version) FROM players").await,
        -5,
        "left as it was"
    );
}

#[tokio::test]
async fn a_row_that_somebody_has_locked_holds_nobody_else_up() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 20).await;
    let mut admin = stranger(&url).await;
    let transaction = admin.transaction().await.unwrap();
    let lock = "SELECT 1 FROM players WHERE player_id = $1 FOR UPDATE";
    transaction.query(lock, &[&ADA.slot(7).uuid()]).await.unwrap();

    let start = Instant::now();
    let held_up = {
        let store = Arc::clone(sessions[7].store.as_ref().unwrap());
        let write = sessions[7].write("late");
        tokio::spawn(async move { store.commit(write.into()).await })
    };
    sessions.remove(7);
    let answers = save_all(&mut sessions, |n| format!("coins {n}")).await;
    assert!(answers.iter().all(|answer| *answer == Ok(1)));
    assert!(
        start.elapsed() < TIMEOUT / 2,
        "the others waited for the locked row"
    );
    let observer = stranger(&url).await;
    wait_until(&observer, SOMEBODY_WAITS).await;
    transaction.rollback().await.unwrap();
    held_up
        .await
        .unwrap()
        .expect("it is written as soon as the lock is gone");
}

#[tokio::test]
async fn a_lock_that_somebody_keeps_makes_that_save_unavailable_until_it_goes() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 1).await;
    let mut admin = stranger(&url).await;
    let transaction = admin.transaction().await.unwrap();
    transaction
        .query("SELECT 1 FROM players FOR UPDATE", &[])
        .await
        .unwrap();
    let write = sessions[0].write("coins");
    let refused = assert_unavailable(sessions[0].store().commit(write.clone().into()).await);
    assert_mentions(&refused, &["lock", "pg_locks"]);
    transaction.rollback().await.unwrap();
    assert_eq!(
        sessions[0].store().commit(write.into()).await.unwrap().versions,
        [1]
    );
}

/// Makes the database refuse the next so many writes to a table with this SQLSTATE.
async fn refuse(admin: &tokio_postgres::Client, table: &str, times: u32, code: &str) {
    // A sequence goes on when its transaction is rolled back.
    let script = format!(
        "CREATE SEQUENCE tries_{table};
         CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('tries_{table}') <= {times} THEN
                 RAISE EXCEPTION 'injected' USING ERRCODE = '{code}';
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_{table}()"
    );
    admin.batch_execute(&script).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_met_another_one_is_run_again() {
    for code in ["40001", "40P01"] {
        let url = shared().new_schema();
        let (server, mut sessions) = crowd(&url, 5).await;
        let admin = stranger(&url).await;
        for table in ["players", "receipts", "servers"] {
            refuse(&admin, table, 3, code).await;
        }
        let answers = save_all(&mut sessions, |n| format!("coins {n}")).await;
        assert!(
            answers.iter().all(|answer| *answer == Ok(1)),
            "{code}: {answers:?}"
        );
        server.beat().await.unwrap();
        let receipt =
            bevy_player_data::store::NewReceipt::new("p1".parse().unwrap(), ADA, "hat".parse().unwrap());
        assert!(server.store.enqueue(receipt, Notice::Paid).await.unwrap().is_new);
    }
}

#[tokio::test]
async fn a_transaction_that_meets_others_for_ever_is_unavailable() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 2).await;
    refuse(&stranger(&url).await, "players", 1_000_000, "40001").await;
    for answer in save_all(&mut sessions, |n| format!("coins {n}")).await {
        assert_unavailable(answer);
    }
}

#[tokio::test]
async fn a_limit_of_the_whole_database_refuses_no_save_for_good() {
    // Transaction ids that run out or a queue that is full, the disk, the memory.
    for code in ["54000", "53100", "53200"] {
        let url = shared().new_schema();
        let (_server, mut sessions) = crowd(&url, 2).await;
        let admin = stranger(&url).await;
        refuse(&admin, "players", 1_000_000, code).await;
        let writes: Vec<Write> = sessions
            .iter_mut()
            .map(|session| session.write("final"))
            .collect();
        let store = Arc::clone(sessions[0].store.as_ref().unwrap());
        let (one, other) = tokio::join!(
            store.commit(writes[0].clone().into()),
            store.commit(writes[1].clone().into())
        );
        assert_unavailable(one);
        assert_unavailable(other);
        admin
            .batch_execute("DROP TRIGGER refuse ON players")
            .await
            .unwrap();
        for write in writes {
            assert_eq!(
                store.commit(write.into()).await.unwrap().versions,
                [1],
                "after {code}"
            );
        }
    }
}

#[tokio::test]
async fn a_damaged_page_is_called_corrupt_and_takes_saves_once_it_is_mended() {
    for code in ["XX001", "XX002"] {
        let url = shared().new_schema();
        let (server, mut sessions) = crowd(&url, 1).await;
        let admin = stranger(&url).await;
        refuse(&admin, "players", 1_000_000, code).await;
        let write = sessions[0].write("final");
        let refused = server.store.commit(write.clone().into()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
        assert_mentions(&refused, &["damaged", "backup"]);
        let load = server.acquire(BOB).await.unwrap_err();
        assert!(matches!(load, StoreError::Corrupt { .. }), "{load}");
        admin
            .batch_execute("DROP TRIGGER refuse ON players")
            .await
            .unwrap();
        assert_eq!(server.store.commit(write.into()).await.unwrap().versions, [1]);
    }
}

#[tokio::test]
async fn writes_that_vanish_below_us_are_not_acknowledged() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 1).await;
    let admin = stranger(&url).await;
    let script = "CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER vanish BEFORE UPDATE ON players FOR EACH ROW EXECUTE FUNCTION vanish()";
    admin.batch_execute(script).await.unwrap();
    let write: Write = sessions[0].write("coins");
    let refused = assert_unavailable(sessions[0].store().commit(write.into()).await);
    assert_mentions(&refused, &["another number of rows", "triggers"]);
}

#[tokio::test]
async fn a_document_beyond_all_limits_is_rejected_unsent() {
    let url = shared().new_schema();
    let (_server, mut sessions) = crowd(&url, 1).await;
    let write = Write {
        document: Some(vec![0; 256 * 1024 * 1024 + 1].into()),
        ..sessions[0].write("")
    };
    let refused = sessions[0].store().commit(write.into()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Rejected { .. }), "{refused}");
    assert_mentions(&refused, &["smaller"]);
}
