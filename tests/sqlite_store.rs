//! What is particular to the SQLite store: durability, sharing, group commit, and files that are not what they should be.

#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/store.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bevy_player_data::store::{
    Acquire, Commit, LockId, NewReceipt, Notice, SqliteSettings, SqliteStore, Store, StoreError, Wish, Write,
};
use bytes::Bytes;
use rusqlite::{Connection, config::DbConfig};
use support::{ADA, BOB, Server, Session, boot, document, lock_lost};
use tempfile::TempDir;

// Durability and sharing

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut session = server.session(ADA).await;
    session.save("coins").await.unwrap();
    session.release().await.unwrap();
    let before = session.record().await;
    drop((server, session));

    assert_eq!(
        folder.files(),
        ["players.db", "players.db-server-arena"],
        "closing tidies the log up"
    );
    assert_eq!(folder.open().peek(ADA).await.unwrap(), Some(before));
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_the_successor_starts_at_once() {
    let folder = Folder::new();
    let mut child = folder.helper("child_that_saves_until_it_is_killed");
    let mut acknowledged = 0;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for version in lines.filter_map(|line| line.unwrap().strip_prefix("saved ")?.parse::<u64>().ok()) {
        acknowledged = version;
        if acknowledged == 25 {
            let refused = folder.open().lease(boot("arena")).await.unwrap_err();
            assert_eq!(
                refused,
                StoreError::NameTaken {
                    name: "arena".to_owned()
                },
                "the child is alive"
            );
        }
        if acknowledged == 50 {
            break;
        }
    }
    assert_eq!(acknowledged, 50, "the child ended before it was killed");
    child.kill().unwrap();
    child.wait().unwrap();

    let server = folder.server("arena").await;
    let acquired = server
        .acquire(ADA)
        .await
        .expect("the predecessor's locks are free");
    assert!(
        acquired.version >= acknowledged,
        "version {} was acknowledged",
        acknowledged
    );
    assert_eq!(acquired.document, document(&format!("save {}", acquired.version)));
}

#[tokio::test]
#[ignore = "run as a process of its own by other tests"]
async fn child_that_saves_until_it_is_killed() {
    let Some(path) = std::env::var_os(HELPER_DATABASE) else {
        return;
    };
    let server = Server::start(Arc::new(SqliteStore::open(path).unwrap()), "arena").await;
    let mut session = server.session(ADA).await;
    for n in 1_u64.. {
        let version = session.save(&format!("save {n}")).await.unwrap();
        println!("saved {version}");
    }
}

#[tokio::test]
async fn a_receipt_that_another_process_was_told_is_stored_arrives_here_and_survives_its_kill() {
    let folder = Folder::new();
    let store = folder.open();
    let base = store.arrivals(None).await.unwrap().newest;
    let mut child = folder.helper("child_that_hands_receipts_in_until_it_is_killed");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut since = base;
    for id in lines.filter_map(|line| line.unwrap().strip_prefix("stored ").map(str::to_owned)) {
        acknowledged.push(id);
        since = store.arrivals(Some(since)).await.unwrap().newest;
        // What is told of only later may have arrived as well.
        assert!(since >= base + acknowledged.len() as u64, "{acknowledged:?}");
        if acknowledged.len() == 50 {
            break;
        }
    }
    assert_eq!(acknowledged.len(), 50, "the child ended before it was killed");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(store);

    let successor = folder.open();
    let open = successor.open_receipts(ADA).await.unwrap();
    let open: Vec<_> = open.iter().map(|receipt| receipt.purchase.as_str()).collect();
    assert_eq!(open[..50], acknowledged, "each of them, in their order");
    assert_eq!(successor.arrivals(Some(base)).await.unwrap().players, [ADA]);
}

#[tokio::test]
#[ignore = "run as a process of its own by other tests"]
async fn child_that_hands_receipts_in_until_it_is_killed() {
    let Some(path) = std::env::var_os(HELPER_DATABASE) else {
        return;
    };
    let store = SqliteStore::open(path).unwrap();
    for n in 1_u64.. {
        let purchase = format!("p{n}").parse().unwrap();
        let new = NewReceipt::new(purchase, ADA, "coins_100".parse().unwrap());
        store.enqueue(new, Notice::Paid).await.unwrap();
        println!("stored p{n}");
    }
}

#[tokio::test]
async fn a_copy_of_the_files_of_a_running_server_can_be_opened() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut session = server.session(ADA).await;
    session.save(&"coins ".repeat(10_000)).await.unwrap();
    let copy = Folder::new();
    for file in ["players.db", "players.db-wal"] {
        fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let record = copy
        .open()
        .peek(ADA)
        .await
        .unwrap()
        .expect("the row is in the copied log");
    assert_eq!(record.document, document(&"coins ".repeat(10_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_one_file_serve_at_the_same_time() {
    let folder = Folder::new();
    let (a, b) = (
        Arc::new(folder.server("a").await),
        Arc::new(folder.server("b").await),
    );
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let server = Arc::clone(if n % 2 == 0 { &a } else { &b });
            tokio::spawn(async move {
                let mut session = server.session(ADA.slot(n)).await;
                for version in 1..=10 {
                    assert_eq!(session.save("coins").await, Ok(version));
                }
                session.release().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..40 {
        let seen = b.store.peek(ADA.slot(n)).await.unwrap().unwrap();
        assert_eq!((seen.version, seen.lock), (11, None));
    }
}

/// Looks that wait together share a snapshot, which has to be newer than the last of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_look_sees_what_was_acknowledged_before_however_many_look_at_once() {
    let folder = Folder::new();
    let server = Arc::new(folder.server("arena").await);
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut session = server.session(ADA.slot(n)).await;
                for _ in 0..100 {
                    let acknowledged = session.save("coins").await.unwrap();
                    let seen = session.record().await.version;
                    assert_eq!(seen, acknowledged, "the look is out of date");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Readers that never rest keep SQLite from starting its log over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_bounded_while_everybody_reads_and_writes() {
    const SESSIONS: u32 = 64;
    let folder = Folder::new();
    let server = Arc::new(folder.server("arena").await);
    let readers: Vec<_> = (0..600)
        .map(|n| {
            let store = Arc::clone(&server.store);
            tokio::spawn(async move {
                loop {
                    store.peek(ADA.slot(n % SESSIONS)).await.unwrap();
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..SESSIONS)
        .map(|n| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut session = server.session(ADA.slot(n)).await;
                for coin in 0..150 {
                    session.save(&coin.to_string().repeat(10_000)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let log = folder.path().join("players.db-wal");
    let mebibytes = fs::metadata(log).unwrap().len() / (1024 * 1024);
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(
        mebibytes < 96,
        "some 190 MiB were saved, and the log has {mebibytes}"
    );
}

#[test]
fn many_processes_may_create_the_file_at_once() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        let openings: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| SqliteStore::open(folder.database())))
            .collect();
        for opening in openings {
            opening
                .join()
                .unwrap()
                .expect("each of them gets the same database");
        }
    });
}

#[tokio::test]
async fn a_name_is_taken_by_whichever_path_the_database_is_reached() {
    let folder = Folder::new();
    let _server = folder.server("arena").await;
    let roundabout = folder.path().join("sub").join("..").join("players.db");
    fs::create_dir(folder.path().join("sub")).unwrap();
    let refused = SqliteStore::open(roundabout).unwrap().lease(boot("arena")).await;
    assert_eq!(
        refused.unwrap_err(),
        StoreError::NameTaken {
            name: "arena".to_owned()
        }
    );

    #[cfg(unix)]
    {
        let link = folder.path().join("sub").join("link.db");
        std::os::unix::fs::symlink(folder.database(), &link).unwrap();
        let refused = SqliteStore::open(link).unwrap().lease(boot("arena")).await;
        assert_eq!(
            refused.unwrap_err(),
            StoreError::NameTaken {
                name: "arena".to_owned()
            }
        );
    }
}

#[tokio::test]
async fn the_names_of_files_stay_in_the_folder() {
    let folder = Folder::new();
    folder.server("../../escape").await;
    let inside = folder.path().join("players.db-server-..%2F..%2Fescape");
    assert!(inside.exists(), "{:?}", folder.files());
}

#[tokio::test]
async fn an_external_write_lock_is_waited_for() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut session = server.session(ADA).await;
    let intruder = folder.lock();
    let write = session.write("coins");
    let store = Arc::clone(&server.store);
    let save = tokio::spawn(async move { store.commit(write.into()).await });
    let seen = server.store.peek(ADA).await.unwrap().unwrap();
    assert_eq!(seen.document, None, "reading is not held up");
    assert!(!save.is_finished(), "the save waits");
    drop(intruder);
    assert_eq!(save.await.unwrap().unwrap().versions, [1]);
}

#[tokio::test]
async fn an_external_write_lock_that_stays_makes_the_store_unavailable_until_it_goes() {
    let folder = Folder::new();
    let settings = SqliteSettings {
        busy_timeout: Duration::from_millis(50),
        ..SqliteSettings::default()
    };
    let store = SqliteStore::open_with(folder.database(), settings).unwrap();
    let server = Server::start(Arc::new(store), "arena").await;
    let mut session = server.session(ADA).await;
    let intruder = folder.lock();
    let write = session.write("coins");
    let since = Instant::now();
    let refused = server.store.commit(write.clone().into()).await.unwrap_err();
    assert!(
        since.elapsed() >= Duration::from_millis(50),
        "it waited as long as it was told to"
    );
    assert!(refused.is_worth_a_retry(), "{refused}");
    assert_mentions(
        &refused,
        &["write lock", &folder.database().display().to_string()],
    );
    let opening = SqliteStore::open_with(folder.database(), settings);
    opening.expect("opening a database that is up to date needs no write lock");

    drop(intruder);
    assert_eq!(server.store.commit(write.into()).await.unwrap().versions, [1]);
}

// Group commit

#[tokio::test]
async fn requests_that_queue_up_share_transactions() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut sessions = Vec::new();
    for n in 0..500 {
        sessions.push(server.session(ADA.slot(n)).await);
    }
    let before = folder.transactions();
    let intruder = folder.lock();
    let mut saves = Vec::new();
    for session in &mut sessions {
        let (store, write) = (Arc::clone(&server.store), session.write("coins"));
        saves.push(tokio::spawn(async move { store.commit(write.into()).await }));
    }
    // On this runtime's one thread, all of them have been sent once this task gets its next turn.
    tokio::task::yield_now().await;
    drop(intruder);
    for save in saves {
        save.await.unwrap().unwrap();
    }
    let transactions = folder.transactions() - before;
    assert!(transactions <= 3, "500 saves took {transactions} transactions");
}

#[tokio::test]
async fn a_refused_request_takes_nothing_of_its_group_with_it() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let (mut ada, mut bob) = (server.session(ADA).await, server.session(BOB).await);
    let carl = ADA.slot(7);
    let stale = Write {
        fence: 9,
        ..bob.write("stolen")
    };
    let trade = Commit {
        writes: vec![
            Write {
                seq: 2,
                ..ada.write("sold")
            },
            stale.clone(),
        ],
    };

    let intruder = folder.lock();
    let (plug, first, refused, trade, acquired, last) = tokio::join!(
        // Keeps the writer busy until the others have queued up behind it.
        async {
            let plug = server.beat();
            tokio::pin!(plug);
            tokio::select! { biased; outcome = &mut plug => return outcome, () = tokio::task::yield_now() => {} }
            plug.await
        },
        server.store.commit(ada.write("one").into()),
        server.store.commit(stale.clone().into()),
        server.store.commit(trade),
        server.acquire(carl),
        async {
            let (bought, dropped) = (bob.write("bought"), intruder);
            let commit = server.store.commit(bought.into());
            tokio::pin!(commit);
            tokio::select! { biased; outcome = &mut commit => return outcome, () = tokio::task::yield_now() => {} }
            drop(dropped);
            commit.await
        },
    );
    plug.unwrap();
    assert_eq!(first.unwrap().versions, [1]);
    assert_eq!(refused, Err(lock_lost(BOB)));
    assert_eq!(
        trade,
        Err(lock_lost(BOB)),
        "its first write had already been applied"
    );
    assert_eq!(acquired.unwrap().fence, 1);
    assert_eq!(last.unwrap().versions, [1]);
    assert_eq!(
        ada.record().await.document,
        document("one"),
        "the refused trade was undone"
    );
    assert_eq!(bob.record().await.document, document("bought"));
}

#[tokio::test]
async fn a_full_disk_makes_saves_unavailable_and_loses_nothing() {
    let folder = Folder::new();
    let settings = SqliteSettings {
        max_bytes: Some(256 * 1024),
        ..SqliteSettings::default()
    };
    let store = SqliteStore::open_with(folder.database(), settings).unwrap();
    let server = Server::start(Arc::new(store), "arena").await;
    let (mut ada, mut bob) = (server.session(ADA).await, server.session(BOB).await);
    bob.save("bob").await.unwrap();
    ada.save("ada").await.unwrap();

    let big = Write {
        document: Some(Bytes::from(vec![7; 1024 * 1024])),
        ..ada.write("")
    };
    for _ in 0..3 {
        let (refused, neighbour) = tokio::join!(
            server.store.commit(big.clone().into()),
            bob.save("a neighbour's save")
        );
        let refused = refused.unwrap_err();
        assert!(refused.is_worth_a_retry(), "{refused}");
        assert_mentions(&refused, &["full", &folder.database().display().to_string()]);
        // Whether it shared the fate of the big one or not, the answer has to be true.
        let stored = bob.record().await.last_seq == bob.seq;
        assert_eq!(neighbour.is_ok(), stored, "{neighbour:?}");
    }
    assert_eq!(ada.record().await.document, document("ada"));
    ada.save("smaller").await.expect("what fits is saved");
    bob.save("bob again").await.expect("the writer goes on");
    drop((server, ada, bob));

    let store = folder.open();
    assert_eq!(
        store.peek(ADA).await.unwrap().unwrap().document,
        document("smaller")
    );
    assert_eq!(
        store.peek(BOB).await.unwrap().unwrap().document,
        document("bob again")
    );
}

// What other tools rely on

#[tokio::test]
async fn the_tables_have_the_columns_that_tools_rely_on() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut session = server.session(ADA).await;
    session.save("coins").await.unwrap();

    let connection = folder.connection();
    let columns = |table: &str| {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let names: Vec<_> = statement.column_names().map(str::to_owned).collect();
        assert!(statement.query([]).is_ok());
        names
    };
    assert_eq!(
        columns("players"),
        [
            "player_id",
            "version",
            "fence",
            "last_seq",
            "lock_id",
            "server",
            "created_at",
            "saved_at",
            "document"
        ]
    );
    assert_eq!(columns("servers"), ["boot_id", "name", "started_at", "beat"]);
    assert_eq!(
        columns("receipts"),
        [
            "purchase_id",
            "player_id",
            "product_id",
            "state",
            "refund_requested",
            "settled_fence",
            "payload",
            "received_at",
            "settled_at",
            "note",
            "arrival"
        ]
    );

    let lock = |connection: &Connection| {
        connection
            .query_row(
                "SELECT lock_id, server FROM players WHERE player_id = ?1",
                [ADA.into_bytes()],
                |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)),
            )
            .unwrap()
    };
    let held = (
        session.lock.into_bytes().to_vec(),
        server.id.into_bytes().to_vec(),
    );
    assert_eq!(lock(&connection), held);
    session.release().await.unwrap();
    assert_eq!(lock(&connection), (vec![0; 16], vec![0; 16]), "zeros when free");
}

#[tokio::test]
async fn a_receipts_state_is_one_of_four() {
    let folder = Folder::new();
    let _store = folder.open();
    let connection = folder.connection();
    let insert = |state: &str| {
        connection.execute(
            "INSERT INTO receipts (purchase_id, player_id, product_id, state, received_at)
             VALUES (?1, ?2, 'coins_100', ?1, 0)",
            (state, ADA.into_bytes()),
        )
    };
    for state in ["pending", "granted", "refused", "refunded"] {
        insert(state).unwrap();
    }
    insert("stolen").unwrap_err();
    insert("pending").expect_err("a purchase id is unique");
}

#[tokio::test]
async fn a_receipt_that_another_program_inserts_arrives_like_any_other() {
    let folder = Folder::new();
    let store = folder.open();
    let base = store.arrivals(None).await.unwrap().newest;
    let connection = folder.connection();
    let insert = "INSERT INTO receipts (purchase_id, player_id, product_id, state, received_at)
        VALUES (?1, ?2, 'coins_100', 'pending', 0)";
    for id in ["p1", "p2"] {
        connection.execute(insert, (id, ADA.into_bytes())).unwrap();
    }
    let arrivals = store.arrivals(Some(base)).await.unwrap();
    assert_eq!(arrivals.players, [ADA]);
    assert_eq!(store.open_receipts(ADA).await.unwrap().len(), 2);
    let mark = "UPDATE receipts SET refund_requested = 1 WHERE purchase_id = 'p1'";
    connection.execute(mark, []).unwrap();
    assert_eq!(
        store.arrivals(Some(arrivals.newest)).await.unwrap().players,
        [ADA]
    );
}

#[tokio::test]
async fn a_look_reports_a_thousand_arrivals_at_most() {
    let folder = Folder::new();
    let store = folder.open();
    let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
        INSERT INTO receipts (purchase_id, player_id, product_id, state, received_at)
        SELECT 'p' || n, ?1, 'coins_100', 'pending', 0 FROM n";
    folder.connection().execute(many, [ADA.into_bytes()]).unwrap();
    for (since, newest) in [(0, 1000), (1000, 2000), (2000, 2500), (2500, 2500)] {
        let look = store.arrivals(Some(since)).await.unwrap();
        assert_eq!(look.newest, newest);
        assert_eq!(look.players.is_empty(), newest == since);
    }
}

/// Takes back what the schema's third step has added.
const WITHOUT_WISHES: &str = "
    DROP TABLE wishes;
    DROP TRIGGER lock_is_granted;
    DROP TRIGGER player_is_erased;
    DROP TRIGGER server_is_gone;
    PRAGMA user_version = 2;";

/// The schema that the first version of the crate wrote, with its index.
const FIRST_RECEIPTS: &str = "
    DROP TABLE receipts;
    CREATE TABLE receipts (
        purchase_id TEXT NOT NULL PRIMARY KEY, player_id BLOB CHECK (length(player_id) = 16), product_id TEXT,
        state TEXT NOT NULL CHECK (state IN ('pending', 'granted', 'refused', 'refunded')),
        refund_requested INTEGER NOT NULL DEFAULT 0 CHECK (refund_requested IN (0, 1)),
        settled_fence INTEGER, payload BLOB, received_at INTEGER NOT NULL, settled_at INTEGER
    );
    CREATE INDEX pending_receipts ON receipts (player_id) WHERE state = 'pending';
    PRAGMA user_version = 1;";

#[tokio::test]
async fn a_file_of_the_first_schema_is_brought_up_to_date_with_its_receipts() {
    let folder = Folder::new();
    drop(folder.open());
    let connection = folder.connection();
    connection.execute_batch(WITHOUT_WISHES).unwrap();
    connection.execute_batch(FIRST_RECEIPTS).unwrap();
    let insert = "INSERT INTO receipts (purchase_id, player_id, product_id, state, received_at)
        VALUES (?1, ?2, 'coins_100', ?3, 0)";
    for (id, state) in [("p1", "granted"), ("p2", "pending")] {
        connection.execute(insert, (id, ADA.into_bytes(), state)).unwrap();
    }
    drop(connection);

    let store = folder.open();
    let open = store.open_receipts(ADA).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].purchase.as_str(), open[0].number), ("p2", 2));
    let newest = store.arrivals(None).await.unwrap().newest;
    assert_eq!(newest, 2, "what is there has arrived");
    let new = NewReceipt::new("p3".parse().unwrap(), ADA, "coins_100".parse().unwrap());
    store.enqueue(new, Notice::Paid).await.unwrap();
    assert_eq!(store.arrivals(Some(newest)).await.unwrap().players, [ADA]);
    let old_index = "SELECT count(*) FROM sqlite_schema WHERE name = 'pending_receipts'";
    let left: i64 = folder
        .connection()
        .query_row(old_index, [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0, "`open_receipts` takes its place");
    drop(store);
    drop(folder.open());
}

/// A wish of the second server for the player whom the first one has.
fn wish(server: &Server, held: &Session) -> Wish {
    Wish {
        player: held.player,
        held: held.lock,
        lock: LockId::random(),
        server: server.id,
        until_beat: 100,
    }
}

#[tokio::test]
async fn a_file_without_wishes_is_brought_up_to_date_with_its_players() {
    let folder = Folder::new();
    let store = Arc::new(folder.open());
    let a = Server::start(store.clone(), "a").await;
    let mut ada = a.session(ADA).await;
    ada.save("one").await.unwrap();
    drop((a, ada, store));
    folder.connection().execute_batch(WITHOUT_WISHES).unwrap();

    let store = Arc::new(folder.open());
    let record = store.peek(ADA).await.unwrap().unwrap();
    assert_eq!(record.document, document("one"));
    let (a, b) = (
        Server::start(store.clone(), "a").await,
        Server::start(store.clone(), "b").await,
    );
    let ada = a.session(ADA).await;
    let wish = wish(&b, &ada);
    assert_eq!(store.wish(wish).await, Ok(true));
    assert_eq!(store.wishes(b.id).await.unwrap().ours, [wish.lock]);
}

#[tokio::test]
async fn a_wish_that_cannot_be_read_stands_in_nobodys_way() {
    let folder = Folder::new();
    let store = Arc::new(folder.open());
    let (a, b) = (
        Server::start(store.clone(), "a").await,
        Server::start(store.clone(), "b").await,
    );
    let (ada, bob) = (a.session(ADA).await, a.session(BOB).await);
    let (odd, sound) = (wish(&b, &ada), wish(&b, &bob));
    for wish in [odd, sound] {
        assert_eq!(store.wish(wish).await, Ok(true));
    }
    let spoil = "UPDATE wishes SET lock_id = 'sixteen letters!' WHERE player_id = ?1";
    folder.connection().execute(spoil, [ADA.into_bytes()]).unwrap();
    let seen = store.wishes(a.id).await.unwrap().for_us;
    assert_eq!(seen.iter().map(|wished| wished.wish).collect::<Vec<_>>(), [sound]);
}

#[tokio::test]
async fn a_receipt_that_cannot_be_read_stands_in_nobodys_way() {
    let folder = Folder::new();
    let store = folder.open();
    let connection = folder.connection();
    let insert = "INSERT INTO receipts (purchase_id, player_id, product_id, state, received_at)
        VALUES ('p1', ?1, ?2, 'pending', 0)";
    connection
        .execute(insert, (ADA.into_bytes(), "x".repeat(300)))
        .unwrap();
    let odd = "INSERT INTO receipts (purchase_id, player_id, product_id, state, received_at)
        VALUES ('p2', 'sixteen letters!', 'coins_100', 'pending', 0)";
    connection.execute(odd, []).unwrap();
    let new = NewReceipt::new("p3".parse().unwrap(), ADA, "coins_100".parse().unwrap());
    store.enqueue(new, Notice::Paid).await.unwrap();
    let open = store.open_receipts(ADA).await.unwrap();
    assert_eq!(open.len(), 1, "the other one is found");
    assert_eq!(open[0].purchase, "p3");
    assert_eq!(store.arrivals(Some(0)).await.unwrap().players, [ADA]);
    let error = store.receipt("p1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_mentions(&error, &["p1", "product_id"]);
}

#[tokio::test]
async fn the_file_is_in_wal_mode_and_marked_as_ours() {
    let folder = Folder::new();
    let _store = folder.open();
    let connection = folder.connection();
    let text = |pragma| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, String>(0))
            .unwrap()
    };
    let number = |pragma| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(text("journal_mode"), "wal");
    assert_eq!(number("page_size"), 4096);
    assert_eq!(number("application_id"), 0x6270_6431);
    assert_eq!(number("user_version"), 3);
}

// Bad files

#[tokio::test]
async fn a_path_that_cannot_be_a_database_is_refused() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = [
        (folder.path().to_owned(), "is a directory"),
        (folder.path().join("missing").join("players.db"), "does not exist"),
        (file.join("players.db"), "not a folder"),
        (PathBuf::new(), "empty"),
        #[cfg(unix)]
        (PathBuf::from("/dev/null"), "not a regular file"),
    ];
    for (path, reason) in refused {
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
        assert_mentions(&error, &[reason, &path.display().to_string()]);
    }
    assert_eq!(folder.files(), ["file"], "nothing was created");
}

#[tokio::test]
async fn a_file_that_is_not_sqlite_is_refused_and_left_alone() {
    for content in [
        &b"x"[..],
        b"SQLite format 3\0",
        &[0; 5000],
        "a text ".repeat(2000).as_bytes(),
    ] {
        let folder = Folder::new();
        fs::write(folder.database(), content).unwrap();
        folder.refuses_unchanged(
            |error| matches!(error, StoreError::Rejected { .. }),
            &["not an SQLite database"],
        );
    }
}

#[tokio::test]
async fn a_file_that_is_not_sqlite_is_left_alone_whatever_lies_beside_it() {
    for suffix in ["-journal", "-wal"] {
        let folder = Folder::new();
        fs::write(folder.database(), "a text ".repeat(2000)).unwrap();
        let mut beside = folder.database().into_os_string();
        beside.push(suffix);
        fs::write(beside, "what happened today ".repeat(200)).unwrap();
        folder.refuses_unchanged(
            |error| matches!(error, StoreError::Rejected { .. }),
            &["not an SQLite database"],
        );
    }
}

#[tokio::test]
async fn another_applications_database_is_refused_and_left_alone() {
    for (statements, journal) in [
        ("CREATE TABLE notes (text)", "delete"),
        ("PRAGMA application_id = 77", "delete"),
        ("PRAGMA user_version = 1", "delete"),
        ("CREATE TABLE notes (text)", "wal"),
        ("CREATE TABLE players (name)", "wal"),
    ] {
        let folder = Folder::new();
        let theirs = folder.connection();
        // As after a crash: what they wrote is still in their log.
        theirs
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .unwrap();
        theirs
            .pragma_update_and_check(None, "journal_mode", journal, |_| Ok(()))
            .unwrap();
        theirs.execute_batch(statements).unwrap();
        drop(theirs);
        folder.refuses_unchanged(
            |error| matches!(error, StoreError::Rejected { .. }),
            &["another application"],
        );
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    for journal in ["wal", "delete"] {
        let folder = Folder::new();
        drop(folder.open());
        let newer = folder.connection();
        newer
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .unwrap();
        newer
            .pragma_update_and_check(None, "journal_mode", journal, |_| Ok(()))
            .unwrap();
        newer.execute_batch("PRAGMA user_version = 4").unwrap();
        drop(newer);
        folder.refuses_unchanged(
            |error| matches!(error, StoreError::Rejected { .. }),
            &["schema version 4", "newer"],
        );
    }
}

#[tokio::test]
async fn a_truncated_file_is_refused_and_left_alone() {
    let whole = Folder::new();
    let server = whole.server("arena").await;
    let mut session = server.session(ADA).await;
    session.save(&"coins ".repeat(10_000)).await.unwrap();
    drop((server, session));
    let bytes = fs::read(whole.database()).unwrap();
    for length in [
        1,
        99,
        100,
        1000,
        4095,
        4096,
        4097,
        3 * 4096,
        bytes.len() - 4096,
        bytes.len() - 1,
    ] {
        let folder = Folder::new();
        fs::write(folder.database(), &bytes[..length]).unwrap();
        let refused = |error: &StoreError| !error.is_worth_a_retry();
        folder.refuses_unchanged(refused, &["restore it from a backup", "not an SQLite database"]);
    }
}

#[tokio::test]
async fn a_truncated_file_beside_its_log_is_refused_and_left_alone() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut session = server.session(ADA).await;
    session.save(&"coins ".repeat(100_000)).await.unwrap();
    session.save(&"gold ".repeat(100_000)).await.unwrap();
    folder
        .connection()
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    session.save("few").await.unwrap();

    for length in [0, 4096, 10 * 4096] {
        let copy = Folder::new();
        let database = fs::read(folder.database()).unwrap();
        fs::write(copy.database(), &database[..length]).unwrap();
        fs::copy(
            folder.path().join("players.db-wal"),
            copy.path().join("players.db-wal"),
        )
        .unwrap();
        copy.refuses_unchanged(|error| matches!(error, StoreError::Corrupt { .. }), &["restore"]);
    }
}

#[tokio::test]
async fn a_file_without_our_tables_is_refused_and_left_alone() {
    for (table, column) in [
        ("players", "fence"),
        ("receipts", "note"),
        ("receipts", "arrival"),
    ] {
        let folder = Folder::new();
        drop(folder.open());
        folder
            .connection()
            .execute_batch(&format!(
                "ALTER TABLE {table} RENAME COLUMN {column} TO elsewhere"
            ))
            .unwrap();
        folder.refuses_unchanged(
            |error| {
                assert_mentions(error, &[column, "backup"]);
                matches!(error, StoreError::Corrupt { .. })
            },
            &[column],
        );
    }
}

#[tokio::test]
async fn a_schema_that_is_damaged_in_the_log_is_refused_and_left_alone() {
    let folder = Folder::new();
    drop(folder.open());
    let vandal = folder.connection();
    vandal
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    vandal
        .set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)
        .unwrap();
    vandal
        .execute_batch("PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE TABLE ('")
        .unwrap();
    drop(vandal);
    folder.refuses_unchanged(
        |error| matches!(error, StoreError::Corrupt { .. }),
        &["restore it from a backup"],
    );
}

#[tokio::test]
async fn a_crash_while_the_log_was_being_folded_in_loses_nothing() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut session = server.session(ADA).await;
    let coins = "coins ".repeat(10_000);
    session.save(&coins).await.unwrap();
    let crashed = Folder::new();
    fs::copy(
        folder.path().join("players.db-wal"),
        crashed.path().join("players.db-wal"),
    )
    .unwrap();
    let before = fs::read(folder.database()).unwrap();
    folder
        .connection()
        .execute_batch("PRAGMA wal_checkpoint")
        .unwrap();
    let after = fs::read(folder.database()).unwrap();
    assert!(after.len() > before.len(), "the file has grown");

    // The pages are folded in from the first on, and the first one says how many there should be.
    for pages in 1..after.len() / 4096 {
        let mut database = after[..pages * 4096].to_vec();
        database.extend(before.get(database.len()..).unwrap_or_default());
        let mut torn = database.clone();
        torn[..512].fill(0xA5);
        for (first_sector, database) in [("whole", database), ("torn", torn)] {
            fs::write(crashed.database(), database).unwrap();
            let copy = Folder::new();
            for (file, bytes) in crashed.contents() {
                fs::write(copy.path().join(file), bytes).unwrap();
            }
            let record = copy.open().peek(ADA).await.unwrap().unwrap();
            assert_eq!(
                record.document,
                document(&coins),
                "after {pages} pages, the first sector {first_sector}"
            );
        }
    }
}

#[tokio::test]
async fn an_empty_file_becomes_a_database() {
    let folder = Folder::new();
    fs::write(folder.database(), "").unwrap();
    folder.server("arena").await.acquire(ADA).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_said_so() {
    let folder = Folder::new();
    let settings = SqliteSettings {
        max_bytes: Some(4096),
        ..SqliteSettings::default()
    };
    let error = SqliteStore::open_with(folder.database(), settings).unwrap_err();
    assert!(error.is_worth_a_retry(), "{error}");
    assert_mentions(&error, &["full", "make room"]);
    folder
        .server("arena")
        .await
        .acquire(ADA)
        .await
        .expect("once there is room, it opens");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_said_so() {
    let folder = Folder::new();
    drop(folder.open());
    for forbidden in [folder.database(), folder.path().to_owned()] {
        let before = fs::metadata(&forbidden).unwrap().permissions();
        let mut read_only = before.clone();
        read_only.set_readonly(true);
        fs::set_permissions(&forbidden, read_only).unwrap();
        let may_write_anyway = fs::OpenOptions::new()
            .append(true)
            .open(folder.database())
            .is_ok()
            && fs::write(folder.path().join("probe"), "").is_ok();
        let outcome = SqliteStore::open(folder.database()).map(|_| ());
        fs::set_permissions(&forbidden, before).unwrap();
        if may_write_anyway {
            // Permissions mean nothing to a superuser.
            let _ = fs::remove_file(folder.path().join("probe"));
            continue;
        }
        let error = outcome.expect_err(&format!("`{}` is read-only", forbidden.display()));
        assert!(error.is_worth_a_retry(), "{error}");
        assert_mentions(&error, &["permission", &folder.database().display().to_string()]);
    }
}

#[tokio::test]
async fn odd_paths_are_paths() {
    let folder = Folder::new();
    for name in [
        "with space.db",
        "100%.db",
        "what?.db",
        "a#b.db",
        "ä☃.db",
        "file:x.db",
        ":memory:",
        "%41.db",
    ] {
        let path = folder.path().join(name);
        for _ in 0..2 {
            let server = Server::start(Arc::new(SqliteStore::open(&path).unwrap()), "arena").await;
            server.acquire(ADA).await.unwrap();
        }
        assert!(
            path.is_file(),
            "`{name}` is not where it was asked for: {:?}",
            folder.files()
        );
    }
}

// Bad rows

#[tokio::test]
async fn a_row_that_cannot_be_read_is_corrupt_and_left_alone() {
    for damage in [
        "lock_id = x'01'",
        "lock_id = 'a text of 16 ch.'",
        "server = x''",
        "fence = -1",
        "version = 'many'",
        "last_seq = 0.5",
        "document = 'a text'",
    ] {
        let folder = Folder::new();
        let server = folder.server("arena").await;
        let mut session = server.session(ADA).await;
        session.save("coins").await.unwrap();
        let healthy = server.session(BOB).await;
        let connection = folder.connection();
        connection
            .pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        connection
            .execute(
                &format!("UPDATE players SET {damage} WHERE player_id = ?1"),
                [ADA.into_bytes()],
            )
            .unwrap();

        let is_corrupt = |error: &StoreError| matches!(error, StoreError::Corrupt { .. });
        let peeked = server.store.peek(ADA).await.unwrap_err();
        assert!(is_corrupt(&peeked), "{damage}: {peeked}");
        assert_mentions(&peeked, &[damage.split(' ').next().unwrap(), &ADA.to_string()]);
        let again = Acquire {
            lock: session.lock,
            ..server.request(ADA)
        };
        let acquired = server.store.acquire(again).await.unwrap_err();
        assert!(is_corrupt(&acquired), "{damage}: {acquired}");
        if !damage.starts_with("document") {
            let saved = session.save("more coins").await.unwrap_err();
            assert!(is_corrupt(&saved), "{damage}: {saved}");
        }
        assert!(healthy.record().await.lock.is_some(), "other rows are served");
    }
}

#[tokio::test]
async fn a_player_whose_document_cannot_be_read_is_not_locked_and_nobody_else_notices() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut ada = server.session(ADA).await;
    ada.save("coins").await.unwrap();
    ada.release().await.unwrap();
    let mut bob = server.session(BOB).await;
    let connection = folder.connection();
    let damage = "UPDATE players SET document = 'a text' WHERE player_id = ?1";
    connection.execute(damage, [ADA.into_bytes()]).unwrap();

    let intruder = folder.lock();
    let (acquired, saved, ()) = tokio::join!(server.acquire(ADA), bob.save("coins"), async {
        tokio::task::yield_now().await;
        drop(intruder);
    });
    let error = acquired.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(saved, Ok(1), "bob may have shared the transaction");
    let is_free = "SELECT lock_id = zeroblob(16) FROM players WHERE player_id = ?1";
    let is_free: bool = connection
        .query_row(is_free, [ADA.into_bytes()], |row| row.get(0))
        .unwrap();
    assert!(is_free, "nobody could give the lock back");
}

#[tokio::test]
async fn a_receipt_that_makes_no_sense_is_corrupt_and_left_alone() {
    for damage in [
        "state = 'lost'",
        "player_id = x'01'",
        "product_id = ''",
        "settled_fence = -1",
        "received_at = 'today'",
        "note = x'ff'",
    ] {
        let folder = Folder::new();
        let store = folder.open();
        let new = |id: &str| NewReceipt::new(id.parse().unwrap(), ADA, "coins_100".parse().unwrap());
        store.enqueue(new("p1"), Notice::Paid).await.unwrap();
        store.enqueue(new("p2"), Notice::Paid).await.unwrap();
        let connection = folder.connection();
        connection
            .pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        let damaging = format!("UPDATE receipts SET {damage} WHERE purchase_id = 'p1'");
        connection.execute(&damaging, []).unwrap();

        let read = store.receipt("p1".parse().unwrap()).await.unwrap_err();
        let repeated = store.enqueue(new("p1"), Notice::Refund).await.unwrap_err();
        for error in [read, repeated] {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{damage}: {error}");
            assert_mentions(&error, &[damage.split(' ').next().unwrap(), "`p1`"]);
        }
        let healthy = store.receipt("p2".parse().unwrap()).await.unwrap();
        assert!(healthy.is_some(), "other rows are served");
    }
}

#[tokio::test]
async fn a_number_at_its_end_is_not_wrapped() {
    let folder = Folder::new();
    let server = folder.server("arena").await;
    let mut session = server.session(ADA).await;
    session.release().await.unwrap();
    folder
        .connection()
        .execute("UPDATE players SET fence = ?1", [i64::MAX])
        .unwrap();
    let before = session.record().await;
    let refused = server.acquire(ADA).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert_eq!(session.record().await, before);
}

#[tokio::test]
async fn an_error_prints_the_same_sentence_either_way() {
    let error = SqliteStore::open("").unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
}

// Helpers

/// Names the database to a helper process.
const HELPER_DATABASE: &str = "PLAYER_DATA_HELPER_DATABASE";

/// A folder with (perhaps) a database in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn database(&self) -> PathBuf {
        self.path().join("players.db")
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(self.database()).unwrap()
    }

    async fn server(&self, name: &str) -> Server {
        Server::start(Arc::new(self.open()), name).await
    }

    /// Another program's connection.
    fn connection(&self) -> Connection {
        Connection::open(self.database()).unwrap()
    }

    /// Another program's write lock, held until it is dropped.
    fn lock(&self) -> Connection {
        let connection = self.connection();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }

    /// Runs one of this file's ignored tests as a process of its own, on this database.
    fn helper(&self, test: &str) -> std::process::Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(HELPER_DATABASE, self.database())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// How many transactions the log holds: each ends with a frame that states the database's size.
    fn transactions(&self) -> usize {
        let log = fs::read(self.path().join("players.db-wal")).unwrap();
        let frames = log[32..].chunks_exact(24 + 4096);
        frames
            .filter(|frame| frame[8..16] == log[16..24] && frame[4..8] != [0; 4])
            .count()
    }

    fn files(&self) -> Vec<String> {
        self.contents().into_keys().collect()
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path()).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.path().is_file());
        files
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    fs::read(entry.path()).unwrap(),
                )
            })
            .collect()
    }

    /// Opening fails with such an error, which mentions one of these, and every file is as it was before.
    #[track_caller]
    fn refuses_unchanged(&self, expected: impl FnOnce(&StoreError) -> bool, one_of: &[&str]) {
        let before = self.contents();
        let error = SqliteStore::open(self.database()).unwrap_err();
        let mut after = self.contents();
        // The index of the log holds no data; it's rebuilt whenever somebody looks.
        after.retain(|name, _| before.contains_key(name) || !name.ends_with("-shm"));
        for (name, bytes) in &before {
            assert!(
                name.ends_with("-shm") || after.get(name) == Some(bytes),
                "`{name}` was changed ({error})"
            );
        }
        assert!(
            after.keys().all(|name| before.contains_key(name)),
            "files were added: {:?}",
            self.files()
        );
        assert!(expected(&error), "{error}");
        assert_mentions(&error, &[&self.database().display().to_string()]);
        let text = error.to_string();
        assert!(
            one_of.iter().any(|words| text.contains(words)),
            "none of {one_of:?} is in: {text}"
        );
    }
}

#[track_caller]
fn assert_mentions(error: &StoreError, words: &[&str]) {
    for word in words {
        assert!(
            error.to_string().contains(word),
            "`{word}` is missing in: {error}"
        );
    }
}
