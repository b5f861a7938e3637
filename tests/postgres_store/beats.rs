//! Beats beside locks that are being granted: neither may overtake the other, and no beat waits for good.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bevy_player_data::store::{Acquire, LapsedLease};

use super::*;

/// The same server, by another way to the database.
fn beside(server: &Server, url: &str) -> Server {
    Server {
        store: connect(url),
        id: server.id,
        name: server.name.clone(),
    }
}

#[tokio::test]
async fn who_has_seen_a_beat_has_seen_every_lock_that_was_granted_before_it() {
    let url = shared().new_schema();
    let server = Arc::new(Server::start(connect(&url), "a").await);
    let admin = stranger(&url).await;
    // Every change of a player takes a moment.
    let script = "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(0.5);
            RETURN NULL;
        END $$;
        CREATE TRIGGER slowly AFTER INSERT OR UPDATE ON players FOR EACH STATEMENT EXECUTE FUNCTION slowly()";
    admin.batch_execute(script).await.unwrap();
    let granted = {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let request = Acquire {
                until_beat: 1,
                ..server.request(ADA)
            };
            server.store.acquire(request).await
        })
    };
    let is_sleeping = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'
        AND application_name = 'bevy_player_data')";
    wait_until(&admin, is_sleeping).await;
    beside(&server, &url).beat().await.unwrap();
    let record = server.store.peek(ADA).await.unwrap();
    assert!(
        record.is_some_and(|record| record.lock.is_some()),
        "a lock that was good until beat 1 became visible after beat 2"
    );
    granted.await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_loses_a_lock_to_a_lapse_that_a_beat_has_ended_meanwhile() {
    let url = shared().new_schema();
    let holder = Server::start(connect(&url), "a").await;
    let mut session = holder.session(ADA).await;
    let other = Server::start(connect(&url), "b").await;
    let mut admin = stranger(&url).await;
    let beat = admin.transaction().await.unwrap();
    beat.batch_execute("UPDATE servers SET beat = beat + 1 WHERE name = 'a'")
        .await
        .unwrap();
    let takeover = {
        let request = Acquire {
            lapsed: vec![LapsedLease {
                server: holder.id,
                beat: 1,
            }],
            ..other.request(ADA)
        };
        let store = Arc::clone(&other.store);
        tokio::spawn(async move { store.acquire(request).await })
    };
    wait_until(&stranger(&url).await, SOMEBODY_WAITS_FOR_A_ROW).await;
    beat.commit().await.unwrap();
    let refused = takeover.await.unwrap();
    assert!(
        matches!(refused, Err(StoreError::SessionLocked { .. })),
        "{refused:?}"
    );
    assert_eq!(session.save("coins").await, Ok(1));
}

#[tokio::test]
async fn a_beat_waits_for_nobody_who_would_like_to_have_its_players() {
    let url = shared().new_schema();
    let holder = Server::start(connect(&url), "a").await;
    holder.session(ADA).await;
    // Patient enough to keep its transaction open while the other one's beat gives up.
    let settings = PostgresSettings {
        connections: 1,
        timeout: TIMEOUT * 10,
    };
    let store = Arc::new(PostgresStore::connect_with(&url, settings).unwrap());
    let other = Server::start(store, "b").await;
    let known = ADA.slot(1);
    other.session(known).await.release().await.unwrap();

    let mut admin = stranger(&url).await;
    let observer = stranger(&url).await;
    let script = "CREATE TABLE gate ();
        CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            LOCK TABLE gate IN SHARE MODE;
            RETURN NULL;
        END $$;
        CREATE TRIGGER pass AFTER INSERT ON players FOR EACH STATEMENT EXECUTE FUNCTION pass()";
    admin.batch_execute(script).await.unwrap();
    let mut closed = admin.transaction().await.unwrap();
    closed.batch_execute("LOCK TABLE gate").await.unwrap();
    // Behind this one two requests come to share a transaction: one for a player whom the other server has, and one for
    // somebody new, who keeps it open.
    let barrier = closed.transaction().await.unwrap();
    barrier.batch_execute("LOCK TABLE players").await.unwrap();
    let ask = |player| {
        let (store, request) = (Arc::clone(&other.store), other.request(player));
        tokio::spawn(async move { store.acquire(request).await })
    };
    let first = ask(known);
    wait_until(&observer, SOMEBODY_WAITS).await;
    let (locked, new) = (ask(ADA), ask(BOB));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    barrier.rollback().await.unwrap();
    let is_at_the_gate =
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass)";
    wait_until(&observer, is_at_the_gate).await;
    holder
        .beat()
        .await
        .expect("others' requests for its players are not in its way");
    assert!(!locked.is_finished() && !new.is_finished(), "they still wait");
    closed.rollback().await.unwrap();
    first.await.unwrap().unwrap();
    new.await.unwrap().unwrap();
    assert!(matches!(
        locked.await.unwrap(),
        Err(StoreError::SessionLocked { .. })
    ));
}

#[tokio::test]
async fn a_server_that_grants_locks_without_a_pause_beats_all_the_same() {
    let url = shared().new_schema();
    let settings = PostgresSettings {
        connections: 32,
        timeout: TIMEOUT,
    };
    let store = Arc::new(PostgresStore::connect_with(&url, settings).unwrap());
    let server = Arc::new(Server::start(store, "a").await);
    // Commits take long enough that there are always some.
    let script = "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(0.02);
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON players DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION linger()";
    stranger(&url).await.batch_execute(script).await.unwrap();
    let (is_over, granted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let crowd: Vec<_> = (0..16)
        .map(|_| {
            let (server, is_over, granted) =
                (Arc::clone(&server), Arc::clone(&is_over), Arc::clone(&granted));
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let player = ADA.slot(granted.fetch_add(1, Ordering::SeqCst));
                    server.acquire(player).await.unwrap();
                }
            })
        })
        .collect();
    while granted.load(Ordering::SeqCst) < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for beat in 2..=6 {
        let leases = server.beat().await.expect("a beat gets its turn");
        assert_eq!(leases.servers[0].beat, beat);
    }
    is_over.store(true, Ordering::SeqCst);
    for member in crowd {
        member.await.unwrap();
    }
}
