//! Connections that end, hang or can't be had.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn a_database_that_restarts_is_found_again_by_itself() {
    let mut cluster = Cluster::start(&["fsync=off"]);
    let server = Server::start(connect(&cluster.new_schema()), "a").await;
    let mut session = server.session(ADA).await;
    session.save("before").await.unwrap();
    cluster.stop();
    let write = session.write("after");
    assert_unavailable(server.store.commit(write.clone().into()).await);
    cluster.serve(&["fsync=off"]);
    assert_eq!(server.store.commit(write.into()).await.unwrap().versions, [2]);
}

#[tokio::test]
async fn a_database_that_hangs_keeps_nobody_waiting_without_an_end() {
    let cluster = Cluster::start(&["fsync=off"]);
    let server = Server::start(connect(&cluster.new_schema()), "a").await;
    let mut session = server.session(ADA).await;
    cluster.signal_all("STOP");
    let start = Instant::now();
    let write = session.write("coins");
    let (saved, looked, beaten) = tokio::join!(
        server.store.commit(write.clone().into()),
        server.store.peek(ADA),
        server.beat()
    );
    for error in [
        assert_unavailable(saved),
        assert_unavailable(looked),
        assert_unavailable(beaten),
    ] {
        assert_mentions(&error, &[&cluster.port.to_string()]);
    }
    assert!(start.elapsed() < TIMEOUT * 3, "it took {:?}", start.elapsed());
    // New connections hang as well: the kernel takes them, and nobody says a word.
    let refused = assert_unavailable(server.store.peek(ADA).await);
    assert_mentions(&refused, &["did not answer within"]);
    cluster.signal_all("CONT");
    loop {
        match server.store.commit(write.clone().into()).await {
            Ok(committed) => break assert_eq!(committed.versions, [1]),
            Err(error) => drop(assert_unavailable::<()>(Err(error))),
        }
    }
}

#[tokio::test]
async fn a_network_that_is_cut_and_mended_costs_one_attempt() {
    let url = shared().new_schema();
    let proxy = Proxy::to(shared().port);
    let server = Server::start(connect(&through(&proxy, shared(), &url)), "a").await;
    // So that several connections are open and have to be found dead.
    let looks = (0..20).map(|n| {
        let store = Arc::clone(&server.store);
        tokio::spawn(async move { store.peek(ADA.slot(n)).await.unwrap() })
    });
    for look in looks.collect::<Vec<_>>() {
        look.await.unwrap();
    }
    proxy.set(Mode::Hangs);
    assert_unavailable(server.store.peek(ADA).await);
    proxy.set(Mode::IsCut);
    let refused = assert_unavailable(server.store.peek(ADA).await);
    assert_mentions(&refused, &[&proxy.port.to_string()]);
    proxy.set(Mode::Carries);
    assert_eq!(server.store.peek(ADA).await, Ok(None));
}

#[tokio::test]
async fn when_one_connection_is_found_dead_the_others_are_not_tried_one_by_one() {
    let url = shared().new_schema();
    let proxy = Proxy::to(shared().port);
    let server = Server::start(connect(&through(&proxy, shared(), &url)), "a").await;
    let mut admin = stranger(&url).await;
    let transaction = admin.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE players").await.unwrap();
    let looks = (0..4).map(|n| {
        let store = Arc::clone(&server.store);
        tokio::spawn(async move { store.peek(ADA.slot(n)).await })
    });
    let looks: Vec<_> = looks.collect();
    // All of them are open, and each is waiting.
    let all_wait = "SELECT count(*) = 4 FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE NOT granted AND relation = 'players'::regclass";
    wait_until(&stranger(&url).await, all_wait).await;
    transaction.rollback().await.unwrap();
    for look in looks {
        look.await.unwrap().unwrap();
    }
    proxy.forget_connections();
    assert_unavailable(server.store.peek(ADA).await);
    assert_eq!(server.store.peek(ADA).await, Ok(None));
}

#[tokio::test]
async fn when_every_connection_is_busy_it_is_said_so() {
    let url = shared().new_schema();
    let settings = PostgresSettings {
        connections: 1,
        timeout: Duration::from_millis(600),
    };
    let store = Arc::new(PostgresStore::connect_with(&url, settings).unwrap());
    let mut admin = stranger(&url).await;
    let transaction = admin.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE players").await.unwrap();
    let looks: Vec<_> = (0..8)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.peek(ADA.slot(n)).await })
        })
        .collect();
    let mut texts = Vec::new();
    for look in looks {
        texts.push(assert_unavailable(look.await.unwrap()).to_string());
    }
    let exhausted = "all 1 connections to the database `postgres` at";
    assert!(
        texts
            .iter()
            .any(|text| text.contains(exhausted) && text.contains("raise `PostgresSettings::connections`")),
        "{texts:?}"
    );
    transaction.rollback().await.unwrap();
    assert_eq!(store.peek(ADA).await, Ok(None));
}

#[tokio::test]
async fn the_next_host_is_used_when_the_first_is_down_or_hangs() {
    let url = shared().new_schema();
    let proxy = Proxy::to(shared().port);
    let both = url.replace(
        &format!("127.0.0.1:{}", shared().port),
        &format!("127.0.0.1:{},127.0.0.1:{}", proxy.port, shared().port),
    );
    for mode in [Mode::IsCut, Mode::Hangs, Mode::Carries] {
        proxy.set(mode);
        let store = connect(&both);
        assert_eq!(store.peek(ADA).await, Ok(None), "while the first host {mode:?}");
    }
}
