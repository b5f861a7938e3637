//! The other side: bare `tokio-postgres`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Row, Statement, types::ToSql};
use uuid::Uuid;

use super::{CONNECTIONS, PLAYERS, document, player};

const FIND: &str = "SELECT player_id, version, fence, last_seq, lock_id, server FROM players
    WHERE player_id = ANY($1) ORDER BY player_id FOR UPDATE";
const FIND_WITH_DOCUMENT: &str =
    "SELECT player_id, version, fence, last_seq, lock_id, server, document FROM players
    WHERE player_id = ANY($1) ORDER BY player_id FOR UPDATE";
const FIND_SERVER: &str = "SELECT boot_id, name, beat FROM servers
    WHERE boot_id = $1 OR boot_id IN (SELECT server FROM players WHERE player_id = ANY($2))";
const HOLD_LEASE: &str = "SELECT 1 FROM servers WHERE boot_id = $1 AND beat = 1 FOR SHARE";
const SAVE: &str =
    "UPDATE players SET version = version + 1, last_seq = $2, document = new.document, saved_at = 0
    FROM unnest($1::uuid[], $3::bytea[]) AS new (player_id, document)
    WHERE players.player_id = new.player_id AND players.player_id = ANY($1)";
const INSERT: &str = "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at)
    SELECT player_id, 0, 1, 0, lock_id, $3, 0 FROM unnest($1::uuid[], $2::uuid[]) AS new (player_id, lock_id)
    ORDER BY player_id ON CONFLICT (player_id) DO NOTHING RETURNING player_id";
const FIND_RECEIPTS: &str = "SELECT number, player_id, product_id, state FROM receipts
    WHERE purchase_id = ANY($1) ORDER BY purchase_id FOR UPDATE";
const RECEIVE: &str = "
    WITH taken AS (
        UPDATE counters SET receipts = receipts + cardinality($1::text[]), arrivals = arrivals + cardinality($1::text[])
        WHERE id = 1
        RETURNING receipts - cardinality($1::text[]) AS receipts, arrivals - cardinality($1::text[]) AS arrivals
    )
    INSERT INTO receipts (purchase_id, number, arrival, player_id, product_id, state, received_at)
    SELECT new.purchase_id, taken.receipts + new.place, taken.arrivals + new.place, new.player_id, 'hat', 'pending', 0
    FROM taken, unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS new (purchase_id, player_id, place)
    ON CONFLICT (purchase_id) DO NOTHING RETURNING number";

type Params<'a, const N: usize> = [&'a (dyn ToSql + Sync); N];

/// One task a connection, each of which sends `group` requests a transaction, one transaction after the other.
pub async fn run(deed: &str, group: usize, url: &str, process: usize, time: Duration) -> f64 {
    let server = Uuid::new_v4();
    let mut lanes = Vec::new();
    for number in 0..CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        // As the crate has it: otherwise this is about which plan the database happened to make while the tables were
        // empty.
        let plans = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off";
        client.batch_execute(plans).await.unwrap();
        lanes.push(Lane::new(client, process, number, server).await);
    }
    lanes[0].settle_in().await;
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let end = began + time;
    let mut tasks = JoinSet::new();
    for lane in lanes {
        let (deed, done) = (deed.to_owned(), Arc::clone(&done));
        tasks.spawn(async move {
            let mut turn = 0;
            while Instant::now() < end {
                let numbers: Vec<usize> = (turn * group..(turn + 1) * group).collect();
                turn += 1;
                match deed.as_str() {
                    "saves" => lane.save(&numbers, turn).await,
                    "loads" => lane.load(&numbers).await,
                    _ => lane.receive(&numbers).await,
                }
                done.fetch_add(u64::try_from(group).unwrap(), Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

/// A connection, with players and receipts of its own, as each lane of the crate has requests of its own.
struct Lane {
    client: Client,
    process: usize,
    number: usize,
    server: Uuid,
    find: Statement,
    find_with_document: Statement,
    find_server: Statement,
    save: Statement,
    insert: Statement,
    hold_lease: Statement,
    find_receipts: Statement,
    receive: Statement,
}

impl Lane {
    async fn new(client: Client, process: usize, number: usize, server: Uuid) -> Self {
        Self {
            find: client.prepare(FIND).await.unwrap(),
            find_with_document: client.prepare(FIND_WITH_DOCUMENT).await.unwrap(),
            find_server: client.prepare(FIND_SERVER).await.unwrap(),
            save: client.prepare(SAVE).await.unwrap(),
            insert: client.prepare(INSERT).await.unwrap(),
            hold_lease: client.prepare(HOLD_LEASE).await.unwrap(),
            find_receipts: client.prepare(FIND_RECEIPTS).await.unwrap(),
            receive: client.prepare(RECEIVE).await.unwrap(),
            client,
            process,
            number,
            server,
        }
    }

    /// Takes a lease, and gives all players of the process a row.
    async fn settle_in(&self) {
        let lease = "INSERT INTO servers (boot_id, name, started_at, beat) VALUES ($1, $2, 0, 1)";
        let name = format!("server {}", self.process);
        let params: Params<'_, 2> = [&self.server, &name];
        self.client.execute(lease, &params).await.unwrap();
        let players: Vec<Uuid> = (0..PLAYERS).map(|n| player(self.process, n).uuid()).collect();
        let locks: Vec<Uuid> = players.iter().map(|_| Uuid::new_v4()).collect();
        let params: Params<'_, 3> = [&players, &locks, &self.server];
        self.client.query(&self.insert, &params).await.unwrap();
    }

    /// This connection's players by their numbers, in the order in which their rows are locked.
    fn players(&self, numbers: impl Iterator<Item = usize>) -> Vec<Uuid> {
        let players = numbers.map(|n| player(self.process, self.number + CONNECTIONS * n).uuid());
        let mut players: Vec<Uuid> = players.collect();
        players.sort_unstable();
        players
    }

    async fn begin(&self) {
        self.client.batch_execute("BEGIN").await.unwrap();
    }

    async fn commit(&self) {
        self.client.batch_execute("COMMIT").await.unwrap();
    }

    async fn query<const N: usize>(&self, statement: &Statement, params: &Params<'_, N>) -> Vec<Row> {
        self.client.query(statement, params).await.unwrap()
    }

    async fn save(&self, numbers: &[usize], turn: usize) {
        let players = self.players(numbers.iter().map(|n| n % (PLAYERS / CONNECTIONS)));
        let whom: Params<'_, 1> = [&players];
        let ((), found) = tokio::join!(biased; self.begin(), self.query(&self.find, &whom));
        assert_eq!(found.len(), players.len());
        let seq = i64::try_from(turn).unwrap();
        let documents: Vec<Vec<u8>> = numbers
            .iter()
            .map(|&n| document(u64::try_from(n).unwrap()))
            .collect();
        let params: Params<'_, 3> = [&players, &seq, &documents];
        let saved = self.client.execute(&self.save, &params);
        let (saved, ()) = tokio::join!(biased; saved, self.commit());
        assert_eq!(saved.unwrap(), numbers.len() as u64);
    }

    /// Players who have no row yet.
    async fn load(&self, numbers: &[usize]) {
        let players = self.players(numbers.iter().map(|n| n + PLAYERS));
        let (whom, own): (Params<'_, 1>, Params<'_, 1>) = ([&players], [&self.server]);
        let holders: Params<'_, 2> = [&self.server, &players];
        let ((), found, servers) = tokio::join!(
            biased;
            self.begin(),
            self.query(&self.find_with_document, &whom),
            self.query(&self.find_server, &holders),
        );
        assert_eq!((found.len(), servers.len()), (0, 1));
        let locks: Vec<Uuid> = players.iter().map(|_| Uuid::new_v4()).collect();
        let params: Params<'_, 3> = [&players, &locks, &self.server];
        let (held, inserted, ()) = tokio::join!(
            biased;
            self.query(&self.hold_lease, &own),
            self.query(&self.insert, &params),
            self.commit(),
        );
        assert_eq!(held.len(), 1);
        assert_eq!(inserted.len(), players.len());
    }

    async fn receive(&self, numbers: &[usize]) {
        let ids: Vec<String> = numbers
            .iter()
            .map(|n| format!("{}-{}-{n}", self.process, self.number))
            .collect();
        let which: Params<'_, 1> = [&ids];
        let ((), found) = tokio::join!(biased; self.begin(), self.query(&self.find_receipts, &which));
        assert_eq!(found.len(), 0);
        let players = self.players(numbers.iter().map(|n| n % (PLAYERS / CONNECTIONS)));
        let params: Params<'_, 2> = [&ids, &players];
        let (received, ()) = tokio::join!(biased; self.query(&self.receive, &params), self.commit());
        assert_eq!(received.len(), ids.len());
    }
}
