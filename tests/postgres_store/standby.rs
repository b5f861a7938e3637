//! What a commit waits for: a standby that has to have it.

use super::*;

#[tokio::test]
async fn a_commit_that_was_cut_short_before_the_standby_had_it_is_not_acknowledged() {
    let cluster = Cluster::start(&["fsync=off"]);
    let server = Server::start(connect(&cluster.new_schema()), "a").await;
    let mut session = server.session(ADA).await;
    let admin = stranger(&cluster.url("public")).await;
    // From now on every commit waits for a standby that isn't there.
    cluster.tell("ALTER SYSTEM SET synchronous_standby_names = 'missing'");
    cluster.tell("SELECT pg_reload_conf()");
    wait_until(
        &admin,
        "SELECT current_setting('synchronous_standby_names') = 'missing'",
    )
    .await;

    let write = session.write("coins");
    let attempt = {
        let (store, write) = (Arc::clone(&server.store), write.clone());
        tokio::spawn(async move { store.commit(write.into()).await })
    };
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep')";
    wait_until(&admin, waits).await;
    // PostgreSQL calls it a success, with a warning.
    let cancel = "SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    admin.query_one(cancel, &[]).await.unwrap();
    let answer = attempt.await.unwrap();
    let refused = assert_unavailable(answer);
    assert_mentions(&refused, &["standby"]);

    // It is there by now, which doesn't make it safe: a repetition waits for the standby as well.
    assert_eq!(server.store.peek(ADA).await.unwrap().unwrap().version, 1);
    let repeated = {
        let (store, write) = (Arc::clone(&server.store), write.clone());
        tokio::spawn(async move { store.commit(write.into()).await })
    };
    assert_unavailable(repeated.await.unwrap());

    cluster.tell("ALTER SYSTEM RESET synchronous_standby_names");
    cluster.tell("SELECT pg_reload_conf()");
    let committed = loop {
        match server.store.commit(write.clone().into()).await {
            Ok(committed) => break committed,
            Err(error) => drop(assert_unavailable::<()>(Err(error))),
        }
    };
    assert_eq!(committed.versions, [1]);
}

#[tokio::test]
async fn a_beat_that_was_cut_short_before_the_standby_had_it_is_not_acknowledged() {
    let cluster = Cluster::start(&["fsync=off"]);
    let server = Arc::new(Server::start(connect(&cluster.new_schema()), "a").await);
    let admin = stranger(&cluster.url("public")).await;
    cluster.tell("ALTER SYSTEM SET synchronous_standby_names = 'missing'");
    cluster.tell("SELECT pg_reload_conf()");
    wait_until(
        &admin,
        "SELECT current_setting('synchronous_standby_names') = 'missing'",
    )
    .await;
    let beat = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.beat().await })
    };
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep')";
    wait_until(&admin, waits).await;
    let cancel = "SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    admin.query_one(cancel, &[]).await.unwrap();
    let refused = assert_unavailable(beat.await.unwrap());
    assert_mentions(&refused, &["cut short", "standby"]);
}

#[tokio::test]
async fn what_a_role_sets_makes_no_commit_less_durable_and_cuts_none_short() {
    let cluster = Cluster::start(&["fsync=off"]);
    let url = cluster.new_schema();
    cluster.tell("ALTER ROLE postgres SET synchronous_commit = off");
    cluster.tell("ALTER ROLE postgres SET statement_timeout = '1ms'");
    cluster.tell("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'");
    cluster.tell("ALTER ROLE postgres SET client_min_messages = 'error'");
    let admin = stranger(&url).await;
    admin.batch_execute("SET statement_timeout = 0").await.unwrap();
    let first = Server::start(connect(&url), "a").await;
    // What holds for the transaction, written down by the transaction.
    let script = "CREATE TABLE seen (setting text);
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen VALUES (current_setting('synchronous_commit') || ' '
                || current_setting('statement_timeout') || ' ' || current_setting('transaction_isolation') || ' '
                || current_setting('client_min_messages'));
            RETURN NULL;
        END $$;
        CREATE TRIGGER look AFTER INSERT ON players FOR EACH STATEMENT EXECUTE FUNCTION look()";
    admin.batch_execute(script).await.unwrap();
    first.acquire(ADA).await.unwrap();
    let seen = "SELECT string_agg(setting, ', ') FROM seen";
    assert_eq!(text(&admin, seen).await, "on 0 read committed warning");

    // With these, a standby needs not have, or keep, what is acknowledged; with the last, it has even applied it.
    for (setting, name) in [("local", "b"), ("remote_write", "c"), ("remote_apply", "d")] {
        cluster.tell(&format!("ALTER ROLE postgres SET synchronous_commit = {setting}"));
        admin
            .batch_execute("DELETE FROM seen; DELETE FROM players")
            .await
            .unwrap();
        Server::start(connect(&url), name)
            .await
            .acquire(ADA)
            .await
            .unwrap();
        let kept = if setting == "remote_apply" { setting } else { "on" };
        assert_eq!(
            text(&admin, seen).await,
            format!("{kept} 0 read committed warning"),
            "`{setting}`"
        );
    }
}

#[tokio::test]
async fn an_old_primary_that_comes_back_is_left_alone() {
    let mut old = Cluster::start(&["fsync=off"]);
    let url = old.new_schema();
    let mut new = Cluster::standby_of(old.port, "standby", None);
    new.serve(&["fsync=off"]);
    let both = url.replace(
        &format!("127.0.0.1:{}", old.port),
        &format!("127.0.0.1:{},127.0.0.1:{}", old.port, new.port),
    );
    let server = Server::start(connect(&both), "a").await;
    let mut session = server.session(ADA).await;
    session.save("on the old one").await.unwrap();
    let replayed = "SELECT pg_last_wal_replay_lsn() >= '";
    let written = old.tell("SELECT pg_current_wal_lsn()");
    new.wait_until("the standby has it", || {
        new.ask(&format!("{replayed}{written}'")).as_deref() == Some("t")
    });
    old.kill();
    new.promote();
    let saved = async |session: &mut Session, text: &str| {
        let write = session.write(text);
        loop {
            match session.store().commit(write.clone().into()).await {
                Ok(committed) => break committed.versions[0],
                Err(error) => drop(assert_unavailable::<()>(Err(error))),
            }
        }
    };
    assert_eq!(saved(&mut session, "on the new one").await, 2);

    // It takes writes as well, and it is the first that is asked.
    old.serve(&["fsync=off"]);
    new.tell(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bevy_player_data'",
    );
    assert_eq!(saved(&mut session, "on the new one again").await, 3);
    let schema = url.rsplit("%3D").next().unwrap();
    let versions = format!("SELECT max(version) FROM {schema}.players");
    assert_eq!(
        (old.tell(&versions), new.tell(&versions)),
        ("1".to_owned(), "3".to_owned())
    );
}
