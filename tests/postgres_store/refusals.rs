//! What is wrong with a database or with our way to it, in one sentence each, without a password.

use std::process::Command;

use bevy::{
    log::{Level, LogPlugin},
    prelude::App,
};

use super::*;

/// Has a user `ada` who needs a password, and a user `guest` without rights.
fn with_passwords() -> Cluster {
    let mut cluster = Cluster::create();
    cluster.serve(&["fsync=off"]);
    cluster.tell("CREATE ROLE ada LOGIN SUPERUSER PASSWORD 'correct horse'");
    cluster.tell("CREATE ROLE guest LOGIN");
    cluster.tell("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0");
    cluster.stop();
    let hba = "host all ada 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(cluster.data().join("pg_hba.conf"), hba).unwrap();
    cluster.serve(&["fsync=off"]);
    cluster
}

fn refusal(url: &str) -> StoreError {
    let error = PostgresStore::connect_with(url, settings()).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        !text.contains("horse") && !text.contains("hunter2"),
        "a password in: {text}"
    );
    assert_eq!(error.to_string(), format!("{error:?}"), "one sentence either way");
    error
}

#[track_caller]
fn assert_rejected(error: StoreError, words: &[&str]) {
    assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
    assert_mentions(&error, words);
}

#[test]
fn everything_that_can_be_wrong_at_the_start_is_said_in_one_sentence() {
    let cluster = with_passwords();
    let place = format!("127.0.0.1:{}", cluster.port);

    PostgresStore::connect_with(
        &format!("postgres://ada:correct%20horse@{place}/postgres"),
        settings(),
    )
    .expect("the right password");
    assert_rejected(
        refusal(&format!("postgres://ada:hunter2@{place}/postgres")),
        &[&place, "`ada`", "password", "PGPASSWORD"],
    );
    assert_rejected(
        refusal(&format!("postgres://ada@{place}/postgres")),
        &[&place, "password", "PGPASSWORD"],
    );
    assert_rejected(
        refusal(&format!("postgres://nobody@{place}/postgres")),
        &[&place, "`nobody`"],
    );
    assert_rejected(
        refusal(&format!("postgres://postgres@{place}/players")),
        &[&place, "no database `players`", "createdb players"],
    );
    assert_rejected(
        refusal(&format!("postgres://postgres@{place}/postgres?sslmode=require")),
        &[&place, "TLS", "sslmode"],
    );
    assert_mentions(
        &assert_unavailable(Err::<(), _>(refusal(&format!(
            "postgres://crowded@{place}/postgres"
        )))),
        &[&place, "max_connections"],
    );
    assert_mentions(
        &assert_unavailable(Err::<(), _>(refusal(&format!(
            "postgres://guest@{place}/postgres"
        )))),
        &["`guest`", "right", "grant"],
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_mentions(
        &assert_unavailable(Err::<(), _>(refusal(&format!(
            "postgres://ada:hunter2@127.0.0.1:{closed}/x"
        )))),
        &[&closed.to_string(), "reached", "check that it runs"],
    );
    assert_mentions(
        &assert_unavailable(Err::<(), _>(refusal(
            "postgres://ada:hunter2@no.such.host.invalid/x",
        ))),
        &["no.such.host.invalid"],
    );
    assert_rejected(refusal("players.db?hunter2"), &["postgres://"]);
    let nothing = PostgresSettings {
        connections: 0,
        ..settings()
    };
    assert_rejected(
        PostgresStore::connect_with(&format!("postgres://postgres@{place}/postgres"), nothing).unwrap_err(),
        &["PostgresSettings"],
    );
}

/// Where the test below, which runs this binary again, has it log in.
const PLACE: &str = "POSTGRES_STORE_LOGS_IN_AT";

#[test]
fn somebody_logs_in_with_a_right_and_a_wrong_password() {
    let Ok(place) = std::env::var(PLACE) else { return };
    App::new().add_plugins(LogPlugin {
        level: Level::TRACE,
        filter: "trace".to_owned(),
        ..LogPlugin::default()
    });
    for password in ["correct%20horse", "hunter2"] {
        let url = format!("postgres://ada:{password}@{place}/postgres");
        eprintln!("{}", PostgresStore::connect_with(&url, settings()).is_ok());
    }
}

#[test]
fn no_log_has_a_password_however_much_is_logged() {
    let cluster = with_passwords();
    let said = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "refusals::somebody_logs_in_with_a_right_and_a_wrong_password",
            "--nocapture",
        ])
        .env(PLACE, format!("127.0.0.1:{}", cluster.port))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    for sign in ["connected player data store", "tokio_postgres", "true", "false"] {
        assert!(said.contains(sign), "`{sign}` is not in: {said}");
    }
    for secret in ["horse", "hunter2"] {
        assert!(!said.contains(secret), "`{secret}` is in: {said}");
    }
}

#[test]
fn a_database_that_cannot_hold_every_text_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("in_{}", encoding.to_lowercase());
        shared().tell(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        ));
        let url = format!("postgres://postgres@127.0.0.1:{}/{name}", shared().port);
        assert_rejected(refusal(&url), &["the encoding", encoding, "`UTF8`", "template0"]);
    }
}

#[tokio::test]
async fn a_right_that_is_lost_on_the_way_is_missed_until_it_is_granted_again() {
    let cluster = with_passwords();
    cluster.tell("CREATE SCHEMA game AUTHORIZATION guest");
    let url = cluster.url("game").replace("postgres@", "guest@");
    let server = Server::start(connect(&url), "a").await;
    let mut session = server.session(ADA).await;
    let admin = stranger(&cluster.url("game")).await;
    // Its own tables: the owner has to change, too.
    admin
        .batch_execute("ALTER TABLE players OWNER TO postgres")
        .await
        .unwrap();
    let write = session.write("coins");
    let refused = assert_unavailable(server.store.commit(write.clone().into()).await);
    assert_mentions(&refused, &["`guest`", "right", "players"]);
    admin
        .batch_execute("GRANT ALL ON players TO guest")
        .await
        .unwrap();
    assert_eq!(server.store.commit(write.into()).await.unwrap().versions, [1]);
}

#[tokio::test]
async fn a_database_that_turns_read_only_takes_nothing_until_it_is_writable_again() {
    let cluster = Cluster::start(&["fsync=off"]);
    let server = Server::start(connect(&cluster.new_schema()), "a").await;
    let mut session = server.session(ADA).await;
    cluster.tell("ALTER SYSTEM SET default_transaction_read_only = on");
    cluster.tell("SELECT pg_reload_conf()");
    let admin = stranger(&cluster.url("public")).await;
    wait_until(
        &admin,
        "SELECT current_setting('default_transaction_read_only') = 'on'",
    )
    .await;
    let refused = loop {
        // A connection that is open may not have heard of it yet.
        if let Err(error) = server.beat().await {
            break assert_unavailable::<()>(Err(error));
        }
    };
    assert_mentions(&refused, &["no writes"]);
    cluster.tell("BEGIN READ WRITE; ALTER ROLE postgres SET default_transaction_read_only = off; COMMIT");
    assert_eq!(session.save("coins").await, Ok(1));
}
