//! The tables: who makes them, whose they are, and what other tools rely on.

use super::*;

#[test]
fn ten_servers_that_start_at_once_prepare_the_database_once() {
    for _ in 0..5 {
        let url = shared().new_schema();
        let servers: Vec<_> = (0..10)
            .map(|_| {
                let url = url.clone();
                std::thread::spawn(move || PostgresStore::connect_with(&url, settings()))
            })
            .collect();
        let stores: Vec<_> = servers
            .into_iter()
            .map(|server| server.join().unwrap().expect("each of them finds the tables"))
            .collect();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            for store in stores {
                assert_eq!(store.list(None, 1).await.unwrap(), []);
            }
            let client = stranger(&url).await;
            assert_eq!(number(&client, "SELECT version FROM bevy_player_data").await, 1);
            assert_eq!(number(&client, "SELECT count(*) FROM counters").await, 1);
        });
    }
}

#[tokio::test]
async fn the_tables_have_the_columns_that_tools_rely_on() {
    let url = shared().new_schema();
    drop(connect(&url));
    let columns = text(
        &stranger(&url).await,
        "SELECT string_agg(table_name || '.' || column_name || ' ' || data_type, E'\\n'
             ORDER BY table_name, ordinal_position)
         FROM information_schema.columns WHERE table_schema = current_schema()",
    )
    .await;
    let expected = "\
bevy_player_data.id integer
bevy_player_data.version bigint
counters.id integer
counters.receipts bigint
counters.arrivals bigint
players.player_id uuid
players.version bigint
players.fence bigint
players.last_seq bigint
players.lock_id uuid
players.server uuid
players.created_at bigint
players.saved_at bigint
players.document bytea
receipts.purchase_id text
receipts.number bigint
receipts.player_id uuid
receipts.product_id text
receipts.state text
receipts.refund_requested boolean
receipts.settled_fence bigint
receipts.payload bytea
receipts.received_at bigint
receipts.settled_at bigint
receipts.note text
receipts.arrival bigint
servers.boot_id uuid
servers.name text
servers.started_at bigint
servers.beat bigint
wishes.player_id uuid
wishes.lock_id uuid
wishes.held uuid
wishes.server uuid
wishes.until_beat bigint";
    assert_eq!(columns, expected);
}

/// What other databases that speak the protocol have not, or have otherwise.
#[tokio::test]
async fn there_are_no_triggers_and_no_sequences() {
    let url = shared().new_schema();
    let server = Server::start(connect(&url), "a").await;
    server.session(ADA).await.save("coins").await.unwrap();
    let admin = stranger(&url).await;
    let of_ours = "JOIN pg_class AS of ON of.oid = $ WHERE of.relnamespace = current_schema()::regnamespace";
    for (what, key) in [
        ("pg_trigger", "tgrelid"),
        ("pg_rewrite", "ev_class"),
        ("pg_sequence", "seqrelid"),
    ] {
        let query = format!("SELECT count(*) FROM {what} {}", of_ours.replace('$', key));
        assert_eq!(number(&admin, &query).await, 0, "{what}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let url = shared().new_schema();
    drop(connect(&url));
    let admin = stranger(&url).await;
    admin
        .batch_execute("UPDATE bevy_player_data SET version = 99; DROP TABLE players")
        .await
        .unwrap();
    let refused = PostgresStore::connect_with(&url, settings()).unwrap_err();
    assert!(matches!(refused, StoreError::Rejected { .. }), "{refused}");
    assert_mentions(&refused, &["newer version", "99", "upgrade"]);
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()";
    assert_eq!(number(&admin, tables).await, 5, "the table stays away");
}

#[tokio::test]
async fn another_applications_tables_are_refused_and_left_alone() {
    for table in ["players", "servers", "receipts", "counters", "wishes"] {
        let url = shared().new_schema();
        let admin = stranger(&url).await;
        let script = format!("CREATE TABLE {table} (name text)");
        admin.batch_execute(&script).await.unwrap();
        let refused = PostgresStore::connect_with(&url, settings()).unwrap_err();
        assert!(matches!(refused, StoreError::Rejected { .. }), "{refused}");
        assert_mentions(&refused, &[&format!("`{table}`"), "of its own"]);
        let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()";
        assert_eq!(number(&admin, tables).await, 1);
    }
}

#[tokio::test]
async fn the_receipts_of_a_player_and_what_is_new_are_found_by_an_index() {
    let url = shared().new_schema();
    drop(connect(&url));
    let client = stranger(&url).await;
    let rows = "INSERT INTO receipts (purchase_id, number, arrival, player_id, product_id, state, received_at)
        SELECT 'p' || n, n, n, md5((n % 500)::text)::uuid, 'hat', CASE WHEN n % 50 = 0 THEN 'pending' ELSE 'granted' END, 0
        FROM generate_series(1, 10000) AS n; ANALYZE receipts";
    client.batch_execute(rows).await.unwrap();
    for (query, index) in [
        (
            "SELECT * FROM receipts WHERE player_id = md5('7')::uuid AND number < 9000 ORDER BY number DESC",
            "receipts_by_player",
        ),
        (
            "SELECT * FROM receipts WHERE player_id = md5('7')::uuid
                 AND (state = 'pending' OR (state = 'granted' AND refund_requested)) ORDER BY number",
            "open_receipts",
        ),
        (
            "SELECT arrival FROM receipts WHERE arrival > 9990 ORDER BY arrival LIMIT 10",
            "receipts_arrival_key",
        ),
    ] {
        let rows = client.query(&format!("EXPLAIN {query}"), &[]).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{query}: {plan:?}");
    }
}

#[tokio::test]
async fn a_table_that_has_grown_since_it_was_first_asked_is_not_read_as_a_whole() {
    let url = shared().new_schema();
    let server = Server::start(connect(&url), "a").await;
    let _ada = server.session(ADA).await;
    let admin = stranger(&url).await;
    // As it is found in the first minute of a new game.
    admin
        .batch_execute("ANALYZE players; ANALYZE servers")
        .await
        .unwrap();
    for n in 0..300 {
        let mut session = server.session(BOB.slot(n)).await;
        session.save("coins").await.unwrap();
    }
    // What a connection has counted is known together, a while later.
    wait_until(
        &admin,
        "SELECT n_tup_ins = 301 AND n_tup_upd >= 300 FROM pg_stat_user_tables
             WHERE relname = 'players' AND schemaname = current_schema()",
    )
    .await;
    let read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables
        WHERE relname = 'players' AND schemaname = current_schema()";
    let read = number(&admin, read).await;
    assert!(
        read < 3000,
        "{read} rows of players were read in loading and saving 300"
    );
}
