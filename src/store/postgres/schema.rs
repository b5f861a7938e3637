//! Whose database it is, and its tables.
//!
//! The schema is the sum of numbered migrations; the one row of `bevy_player_data` says how many a database has seen.
//! Servers that start together wait for each other at that row. Tools outside the crate read these tables: a column
//! keeps its name and its meaning.

use tokio_postgres::error::SqlState;

use super::{
    super::StoreError,
    connection::{Connection, Connections},
    error::{Consequence, Failure},
    row::Columns as _,
};

/// One step of the schema each. Never change one that was released: add another.
///
/// No triggers and no sequences: what is given out in an order comes from the row of `counters`, whose lock is held until
/// the commit, so that numbers become visible in their order.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE players (
        player_id  uuid   NOT NULL PRIMARY KEY,
        version    bigint NOT NULL,  -- one more per commit
        fence      bigint NOT NULL,  -- one more per granted lock, never lowered
        last_seq   bigint NOT NULL,  -- of the session's last accepted write
        lock_id    uuid   NOT NULL,  -- zeros when free
        server     uuid   NOT NULL,  -- servers.boot_id, zeros when free
        created_at bigint NOT NULL,  -- milliseconds since the Unix epoch, like every time here
        saved_at   bigint,
        document   bytea
    );
    CREATE TABLE servers (
        boot_id    uuid   NOT NULL PRIMARY KEY,
        name       text   NOT NULL,
        started_at bigint NOT NULL,
        beat       bigint NOT NULL
    );
    -- Hashed, because names may be longer than what an index holds.
    CREATE UNIQUE INDEX servers_by_name ON servers (md5(name));
    CREATE TABLE receipts (
        purchase_id      text    NOT NULL PRIMARY KEY,
        number           bigint  NOT NULL UNIQUE,  -- its place among all that were handed in
        -- Null once the player is erased: the bare id stays, so that it is still known when it is delivered again.
        player_id        uuid,
        product_id       text,
        state            text    NOT NULL CHECK (state IN ('pending', 'granted', 'refused', 'refunded')),
        refund_requested boolean NOT NULL DEFAULT false,
        settled_fence    bigint,
        payload          bytea,
        received_at      bigint  NOT NULL,
        settled_at       bigint,
        note             text,  -- for support: why it was refused, what could not be taken back
        -- One more for each new receipt and each mark for a refund: what servers look from.
        arrival          bigint  NOT NULL UNIQUE
    );
    CREATE INDEX receipts_by_player ON receipts (player_id, number);
    CREATE INDEX open_receipts ON receipts (player_id)
        WHERE state = 'pending' OR (state = 'granted' AND refund_requested);
    CREATE TABLE counters (
        id       integer NOT NULL PRIMARY KEY CHECK (id = 1),
        receipts bigint  NOT NULL,  -- the last number that was given out
        arrivals bigint  NOT NULL   -- the last arrival
    );
    INSERT INTO counters (id, receipts, arrivals) VALUES (1, 0, 0);
    -- Who would like to have a player whom another server has. Empty but for those who wait.
    CREATE TABLE wishes (
        player_id  uuid   NOT NULL,
        lock_id    uuid   NOT NULL,  -- the lock that is going to be asked for
        held       uuid   NOT NULL,  -- stands while it is players.lock_id
        server     uuid   NOT NULL,  -- whose wish it is: servers.boot_id
        until_beat bigint NOT NULL,  -- stands while servers.beat is not past it
        PRIMARY KEY (player_id, lock_id)
    );
"];

/// The schema version that this crate writes.
const LATEST: i64 = MIGRATIONS.len() as i64;

/// How often a migration is started over when another server is just doing the same.
const ATTEMPTS: usize = 20;

/// Brings a database that is ours or nobody's up to date.
///
/// # Errors
/// [`StoreError::Rejected`] for a database of a newer version of this crate, or with tables that are not ours.
pub(super) async fn migrate(connections: &Connections) -> Result<(), StoreError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match connections.with(|connection| Box::pin(step(connection))).await {
            Ok(()) => return Ok(()),
            Err(failure) if attempts < ATTEMPTS && is_a_race(&failure) => {
                tracing::debug!("another server is preparing the database as well");
            }
            Err(failure) => return Err(failure.explain(&connections.target)),
        }
    }
}

async fn step(connection: &Connection) -> Result<(), Failure> {
    // A database that is up to date is only looked at: its servers need no right to create anything.
    if let Some(version) = version(connection, "").await? {
        judge(version)?;
        if version == LATEST {
            return Ok(());
        }
    } else if is_somebody_elses(connection).await? {
        return Err(StoreError::rejected(
            "the database has a table `players`, `servers`, `receipts`, `counters` or `wishes` that is not this crate's: \
             give it a database, or a schema in the user's `search_path`, of its own",
        )
        .into());
    }
    connection
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS bevy_player_data (
                 id      integer NOT NULL PRIMARY KEY CHECK (id = 1),
                 version bigint  NOT NULL  -- how many migrations were applied
             );
             INSERT INTO bevy_player_data (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING",
        )
        .await?;
    connection.begin().await?;
    // Whoever gets this row first applies them, and the others see that they did.
    let applied = version(connection, " FOR UPDATE").await?.unwrap_or_default();
    judge(applied)?;
    let missing = usize::try_from(applied)
        .ok()
        .and_then(|applied| MIGRATIONS.get(applied..));
    for migration in missing.unwrap_or_default() {
        connection.batch_execute(migration).await?;
    }
    connection
        .execute(
            "UPDATE bevy_player_data SET version = $1 WHERE id = 1",
            &[&LATEST],
        )
        .await?;
    connection.commit().await
}

/// How many migrations the database has seen, if it is ours.
async fn version(connection: &Connection, locking: &str) -> Result<Option<i64>, Failure> {
    let query = format!("SELECT version FROM bevy_player_data WHERE id = 1{locking}");
    match connection.query_opt(&query, &[]).await {
        Ok(row) => row.map(|row| row.column(0, "the schema")).transpose(),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn judge(version: i64) -> Result<(), StoreError> {
    if version > LATEST {
        return Err(StoreError::rejected(format_args!(
            "the database was prepared by a newer version of this crate (schema {version}, and this one knows \
             {LATEST}): upgrade this server"
        )));
    }
    Ok(())
}

async fn is_somebody_elses(connection: &Connection) -> Result<bool, Failure> {
    let row = connection
        .query_one(
            "SELECT count(*) FROM information_schema.tables
             WHERE table_schema = current_schema()
                 AND table_name IN ('players', 'servers', 'receipts', 'counters', 'wishes')
                 AND NOT EXISTS (
                     SELECT 1 FROM information_schema.tables
                     WHERE table_schema = current_schema() AND table_name = 'bevy_player_data'
                 )",
            &[],
        )
        .await?;
    Ok(row.column::<i64>(0, "the schema")? > 0)
}

/// Whether another server did the same a moment before.
fn is_a_race(failure: &Failure) -> bool {
    if failure.consequence() == Consequence::RunAgain {
        return true;
    }
    let Failure::Database(error) = failure else {
        return false;
    };
    // Creating a table "if it doesn't exist" is not safe against somebody who is creating it.
    error.code().is_some_and(|code| {
        [
            SqlState::UNIQUE_VIOLATION,
            SqlState::DUPLICATE_TABLE,
            SqlState::DUPLICATE_OBJECT,
            SqlState::LOCK_NOT_AVAILABLE,
        ]
        .contains(code)
    })
}
