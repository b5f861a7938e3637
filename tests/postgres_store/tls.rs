//! TLS: who is trusted.

use std::{path::Path, process::Command};

use super::*;

/// An authority, and a certificate for `name` that it has signed, beside its key.
fn certificates(folder: &Path, name: &str) {
    std::fs::write(folder.join("names"), format!("subjectAltName=DNS:{name}")).unwrap();
    for line in [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt".to_owned(),
        format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout server.key -out server.csr"),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt"
            .to_owned(),
    ] {
        let made = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(folder)
            .output()
            .expect("this test needs the program `openssl`: install the package `openssl`");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

fn secured(name: &str) -> Cluster {
    let mut cluster = Cluster::create();
    let made = tempfile::tempdir().unwrap();
    certificates(made.path(), name);
    for file in ["server.key", "server.crt", "ca.crt"] {
        cluster.put(file, &std::fs::read(made.path().join(file)).unwrap());
    }
    cluster.serve(&["fsync=off", "ssl=on"]);
    cluster
}

#[test]
fn a_required_certificate_has_to_be_signed_by_whom_we_trust_and_for_that_host() {
    let cluster = secured("localhost");
    let trusted = cluster
        .data()
        .join("ca.crt")
        .display()
        .to_string()
        .replace('/', "%2F");
    let url =
        |host: &str, options: &str| format!("postgres://postgres@{host}:{}/postgres?{options}", cluster.port);
    let open = |url: &str| PostgresStore::connect_with(url, settings());

    for mode in ["require", "verify-full"] {
        open(&url(
            "localhost",
            &format!("sslmode={mode}&sslrootcert={trusted}"),
        ))
        .expect("it is trusted");
        let stranger = open(&url("localhost", &format!("sslmode={mode}"))).unwrap_err();
        assert!(matches!(stranger, StoreError::Rejected { .. }), "{stranger}");
        assert_mentions(&stranger, &["TLS", "sslrootcert"]);
        let elsewhere = open(&url(
            "127.0.0.1",
            &format!("sslmode={mode}&sslrootcert={trusted}"),
        ))
        .unwrap_err();
        assert_mentions(&elsewhere, &["TLS", "certificate"]);
    }
    open(&url("127.0.0.1", "sslmode=prefer")).expect("nothing is verified");
    open(&url("127.0.0.1", "sslmode=disable")).expect("nothing is encrypted");
    let unreadable = open(&url("localhost", "sslmode=require&sslrootcert=%2Fno%2Fsuch.pem")).unwrap_err();
    assert_mentions(&unreadable, &["/no/such.pem", "PEM"]);
}

#[tokio::test]
async fn what_can_be_encrypted_is() {
    let cluster = secured("localhost");
    let ask = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'bevy_player_data' AND ssl";
    let admin = stranger(&format!(
        "postgres://postgres@127.0.0.1:{}/postgres",
        cluster.port
    ))
    .await;
    let plain = connect(&format!(
        "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable",
        cluster.port
    ));
    plain.list(None, 1).await.unwrap();
    assert_eq!(number(&admin, ask).await, 0);
    let encrypted = connect(&format!(
        "postgres://postgres@127.0.0.1:{}/postgres",
        cluster.port
    ));
    encrypted.list(None, 1).await.unwrap();
    assert!(number(&admin, ask).await > 0);
}
