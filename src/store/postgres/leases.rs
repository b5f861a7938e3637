//! Servers' leases and names.
//!
//! A name belongs to the one boot whose row has it, which a unique index sees to. PostgreSQL can't prove a predecessor
//! dead, as an operating system's lock can: its name is free once its beat was seen standing still for a TTL, and still
//! does.

use uuid::Uuid;

use super::{
    super::{Lease, Leases, ServerId, StoreError, now, rules},
    connection::Connection,
    error::Failure,
    row::{Columns as _, id, to_text},
};

/// Raises the beat and reads everybody's.
pub(super) async fn lease(connection: &Connection, lease: &Lease) -> Result<Leases, Failure> {
    // Nearly always there is nothing to settle. One statement locks its row for no longer than it takes.
    let raise = connection
        .prepare_cached(
            "WITH raised AS (
                 UPDATE servers SET beat = beat + 1 WHERE boot_id = $1 AND name = $2 RETURNING boot_id, name, beat
             )
             SELECT boot_id, name, beat FROM raised
             UNION ALL SELECT boot_id, name, beat FROM servers WHERE boot_id <> $1
             ORDER BY boot_id",
        )
        .await?;
    let name = to_text(&lease.name);
    let rows = {
        let _turn = connection.turns.write().await;
        let server = id(lease.server.into_bytes());
        connection
            .durably(connection.query(&raise, &[&server, &name]))
            .await?
    };
    let leases = read(&rows)?;
    if leases.servers.iter().any(|known| known.server == lease.server) {
        return Ok(leases);
    }
    register(connection, lease).await
}

/// Gives the boot a row of its own, and with it the name.
async fn register(connection: &Connection, lease: &Lease) -> Result<Leases, Failure> {
    let boot_id = id(lease.server.into_bytes());
    let name = to_text(&lease.name);
    connection.begin().await?;
    let rows = connection
        .query(
            "SELECT boot_id, name, beat FROM servers WHERE boot_id = $1 OR md5(name) = md5($2)
             ORDER BY boot_id FOR UPDATE",
            &[&boot_id, &name],
        )
        .await?;
    let found = read(&rows)?.servers;
    let registered = found.iter().find(|known| known.server == lease.server);
    rules::check_name(
        lease.server,
        registered.map(|known| known.name.as_str()),
        &lease.name,
    )?;
    let namesake = found.iter().find(|known| known.server != lease.server);
    if let Some(namesake) = namesake {
        if !rules::has_lapsed(namesake, &lease.lapsed) {
            return Err(StoreError::NameTaken {
                name: lease.name.clone(),
            }
            .into());
        }
        let dead: Uuid = id(namesake.server.into_bytes());
        connection
            .execute("DELETE FROM servers WHERE boot_id = $1", &[&dead])
            .await?;
        connection
            .execute("DELETE FROM wishes WHERE server = $1", &[&dead])
            .await?;
    }
    // Another boot of the name that does the same fails on the index, and finds this one's row when it tries again.
    connection
        .execute(
            "INSERT INTO servers (boot_id, name, started_at, beat) VALUES ($1, $2, $3, 1)
             ON CONFLICT (boot_id) DO UPDATE SET beat = servers.beat + 1",
            &[&boot_id, &name, &now()],
        )
        .await?;
    let leases = leases(connection).await?;
    connection.commit().await?;
    Ok(leases)
}

/// Every server's lease.
pub(super) async fn leases(connection: &Connection) -> Result<Leases, Failure> {
    let query = "SELECT boot_id, name, beat FROM servers ORDER BY boot_id";
    let statement = connection.prepare_cached(query).await?;
    read(&connection.query(&statement, &[]).await?)
}

/// Deletes the boot's row, and with it its hold on the name.
pub(super) async fn retire(connection: &Connection, server: ServerId) -> Result<(), Failure> {
    let _turn = connection.turns.write().await;
    connection.begin().await?;
    connection
        .execute(
            "DELETE FROM servers WHERE boot_id = $1",
            &[&id(server.into_bytes())],
        )
        .await?;
    connection
        .execute(
            "DELETE FROM wishes WHERE server = $1",
            &[&id(server.into_bytes())],
        )
        .await?;
    connection.commit().await
}

fn read(rows: &[tokio_postgres::Row]) -> Result<Leases, Failure> {
    let servers = rows
        .iter()
        .map(|row| row.server_lease())
        .collect::<Result<_, _>>()?;
    Ok(Leases { servers })
}
