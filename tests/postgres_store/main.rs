//! What only a PostgreSQL store has: other servers' transactions, connections that end, a database with an
//! administrator. The rules that it shares with every store are in `store_conformance.rs`.

#![cfg(all(feature = "postgres", feature = "sqlite", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/store.rs"]
mod support;

mod beats;
mod connections;
mod groups;
mod hints;
mod locks;
mod names;
mod outcomes;
mod races;
mod refusals;
mod schema;
mod sizes;
mod standby;
mod tls;

use std::{sync::Arc, time::Duration};

use bevy_player_data::store::{PostgresSettings, PostgresStore, Store, StoreError};
use postgres::{Cluster, shared};
use proxy::{Mode, Proxy};
use support::{ADA, BOB, Server, Session, document};

/// Short enough for a test to wait for, long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(2);

fn settings() -> PostgresSettings {
    PostgresSettings {
        connections: 4,
        timeout: TIMEOUT,
    }
}

fn connect(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect_with(url, settings()).unwrap())
}

/// The URL of the same schema, through a cable.
fn through(proxy: &Proxy, cluster: &Cluster, url: &str) -> String {
    url.replace(&format!(":{}/", cluster.port), &format!(":{}/", proxy.port))
}

/// A client of the driver's own, as an administrator or another program has one.
async fn stranger(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn number(client: &tokio_postgres::Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn text(client: &tokio_postgres::Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// Waits until a query returns `true`.
async fn wait_until(client: &tokio_postgres::Client, query: &str) {
    for _ in 0..2000 {
        if client.query_one(query, &[]).await.unwrap().get(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never became true that {query}");
}

/// How many transactions are waiting for a lock in this test's schema.
const SOMEBODY_WAITS: &str = "SELECT EXISTS (
    SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND application_name = 'bevy_player_data'
        AND pid IN (SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                    WHERE c.relnamespace = current_schema()::regnamespace))";

/// Whether somebody waits for the lock of a row in this test's schema.
const SOMEBODY_WAITS_FOR_A_ROW: &str = "SELECT EXISTS (
    SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND locktype IN ('transactionid', 'tuple') AND application_name = 'bevy_player_data'
        AND pid IN (SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                    WHERE c.relnamespace = current_schema()::regnamespace))";

#[track_caller]
fn assert_mentions(error: &StoreError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> StoreError {
    match answer {
        Err(error @ StoreError::Unavailable { .. }) => error,
        other => panic!("expected the store to be unavailable, but got {other:?}"),
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reconnecting() {
    let url = shared().new_schema();
    {
        let server = Server::start(connect(&url), "a").await;
        let mut session = server.session(ADA).await;
        session.save("coins").await.unwrap();
    }
    let record = connect(&url).peek(ADA).await.unwrap().unwrap();
    assert_eq!(record.document, document("coins"));
    assert_eq!(record.version, 1);
}

#[tokio::test]
async fn a_store_is_shown_without_its_password() {
    let url = shared().new_schema().replace("postgres@", "postgres:hunter2@");
    let store = connect(&url);
    assert!(!format!("{store:?}").contains("hunter2"));
}

#[test]
fn a_store_needs_no_runtime_of_its_callers_and_its_drop_waits_for_nothing() {
    let cluster = Cluster::start(&["fsync=off"]);
    let proxy = Proxy::to(cluster.port);
    let url = through(&proxy, &cluster, &cluster.new_schema());
    let store = PostgresStore::connect_with(&url, settings()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(store.list(None, 1).await.unwrap(), []);
        proxy.set(Mode::Hangs);
        let asked = tokio::time::timeout(Duration::from_millis(50), store.list(None, 1)).await;
        assert!(asked.is_err(), "the database hangs");
    });
    let start = std::time::Instant::now();
    drop(store);
    assert!(
        start.elapsed() < TIMEOUT / 2,
        "dropping the store waited for the database"
    );
}
