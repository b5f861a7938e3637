//! What lies between a server and its store: a place to stop at, and the broken stores of the controls.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bevy_player_data::store::{
    Acquire, Acquired, BoxFuture, Commit, Committed, LapsedLease, Lease, Leases, ServerId, SqliteStore,
    Store, StoreError, Write,
};

use super::{
    forward::forward,
    server::{TTL, stop_at},
};

/// The store, and how it is broken.
pub struct Wrapped {
    store: SqliteStore,
    broken: Option<Broken>,
}

enum Broken {
    /// Every write is taken for one of the session that has the lock.
    NoFence,
    /// A lease that was judged once is taken for lapsed, whatever it has done since.
    StaleVerdict,
    /// A lease lasts until a time of day. The folder has a file for each server with the time of its last beat.
    WallClock(PathBuf),
}

pub fn wrap(store: SqliteStore, database: &str, broken: Option<&str>) -> Wrapped {
    let broken = broken.map(|broken| match broken {
        "no-fence" => Broken::NoFence,
        "stale-verdict" => Broken::StaleVerdict,
        "wall-clock" => Broken::WallClock(Path::new(database).parent().unwrap().to_owned()),
        other => panic!("nothing is broken as `{other}`"),
    });
    Wrapped { store, broken }
}

impl Wrapped {
    async fn unfenced(&self, write: Write) -> Result<Write, StoreError> {
        let Some(row) = self.store.peek(write.player).await? else {
            return Ok(write);
        };
        Ok(match row.lock {
            Some(holder) if row.fence != write.fence => Write {
                lock: holder.lock,
                fence: row.fence,
                seq: row.last_seq + 1,
                ..write
            },
            _ => write,
        })
    }

    /// All leases of others for which `is_over` holds, with the beats that they have right now.
    async fn lapsed(
        &self,
        acquire: &Acquire,
        is_over: impl Fn(ServerId) -> bool,
    ) -> Result<Vec<LapsedLease>, StoreError> {
        let leases = self.store.leases().await?;
        let others = leases
            .servers
            .into_iter()
            .filter(|lease| lease.server != acquire.server);
        let over = others.filter(|lease| is_over(lease.server));
        Ok(over
            .map(|lease| LapsedLease {
                server: lease.server,
                beat: lease.beat,
            })
            .collect())
    }
}

impl Store for Wrapped {
    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        Box::pin(async move {
            let mut acquire = acquire;
            if !acquire.lapsed.is_empty() {
                stop_at("acquire.judged");
            }
            match &self.broken {
                Some(Broken::StaleVerdict) => {
                    let judged = acquire.lapsed.clone();
                    let was_judged = |server| judged.iter().any(|lapsed| lapsed.server == server);
                    acquire.lapsed = self.lapsed(&acquire, was_judged).await?;
                }
                Some(Broken::WallClock(folder)) => {
                    let is_over = |server| {
                        last_beat(folder, server).is_some_and(|last| seconds() > last + TTL.as_secs_f64())
                    };
                    acquire.lapsed = self.lapsed(&acquire, is_over).await?;
                }
                _ => {}
            }
            self.store.acquire(acquire).await
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            let mut commit = commit;
            if let Some(Broken::NoFence) = self.broken {
                let mut writes = Vec::new();
                for write in commit.writes {
                    writes.push(self.unfenced(write).await?);
                }
                commit.writes = writes;
            }
            self.store.commit(commit).await
        })
    }

    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        if let Some(Broken::WallClock(folder)) = &self.broken {
            // Whole, or not at all: somebody may be reading it.
            let (path, new) = (
                clock(folder, lease.server),
                folder.join(format!("{}.new", lease.server)),
            );
            fs::write(&new, seconds().to_string())
                .and_then(|()| fs::rename(&new, path))
                .unwrap();
        }
        Box::pin(async move {
            let leases = self.store.lease(lease).await;
            stop_at("lease.answered");
            leases
        })
    }

    forward! {
        store: leases, retire, peek, list, erase, enqueue, receipt, open_receipts, receipts_of,
        arrivals, wish, withdraw, wishes
    }
}

fn clock(folder: &Path, server: ServerId) -> PathBuf {
    folder.join(format!("{server}.clock"))
}

fn last_beat(folder: &Path, server: ServerId) -> Option<f64> {
    fs::read_to_string(clock(folder, server)).ok()?.parse().ok()
}

fn seconds() -> f64 {
    let now: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64()
}
