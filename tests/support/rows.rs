//! The rows that the server's flows are tested on: in memory or, if the variable `PLAYER_STORE` says `sqlite` or
//! `postgres`, in a real database, where the same has to hold.

#[cfg(all(unix, feature = "postgres"))]
#[path = "postgres.rs"]
mod postgres;

use std::{sync::Arc, time::Duration};

use bevy_player_data::{
    PlayerId, PurchaseId,
    server::ServerSettings,
    store::{
        Acquire, Acquired, Arrivals, BoxFuture, Commit, Committed, Enqueued, Lease, Leases, LockId,
        MemoryStore, NewReceipt, Notice, Record, ServerId, Store, StoreError, StoredReceipt, Wish, Wishes,
    },
};

/// A handle of one connection. [`connect`](Self::connect) opens another one, as another server process would.
#[derive(Clone)]
pub struct Rows {
    store: Arc<dyn Store>,
    open: Arc<dyn Fn() -> Arc<dyn Store> + Send + Sync>,
}

impl Rows {
    pub fn connect(&self) -> Self {
        Self {
            store: (self.open)(),
            open: Arc::clone(&self.open),
        }
    }
}

/// Times that suit these rows: a crashed server's name is free when its lease has lapsed, if nothing else proves it dead.
pub fn times() -> ServerSettings {
    let mut settings = ServerSettings::default();
    if kind() == "postgres" {
        settings.beat = Duration::from_millis(500);
        settings.exit_deadline = Duration::from_secs(5);
        settings.lease_ttl = Duration::from_secs(6);
    }
    settings
}

/// Which rows `PLAYER_STORE` names.
pub fn kind() -> String {
    std::env::var("PLAYER_STORE").unwrap_or_else(|_| "memory".to_owned())
}

/// The command that runs a test again on such rows, with these variables.
pub fn command(variables: &str, test: &str) -> String {
    let (store, features) = match kind().as_str() {
        "memory" => (String::new(), ""),
        "postgres" => ("PLAYER_STORE=postgres ".to_owned(), "--features postgres "),
        store => (format!("PLAYER_STORE={store} "), ""),
    };
    format!("{store}{variables} cargo test {features}--test {test}")
}

impl Default for Rows {
    fn default() -> Self {
        Self::of(&kind(), Duration::from_secs(4))
    }
}

impl Rows {
    /// New rows of this kind, whose database may take so long to answer, if it is a server.
    #[allow(unused_variables, reason = "only a server's client stops to wait")]
    pub fn of(kind: &str, timeout: Duration) -> Self {
        let open: Arc<dyn Fn() -> Arc<dyn Store> + Send + Sync> = match kind {
            "memory" => {
                let rows = MemoryStore::default();
                Arc::new(move || Arc::new(rows.connect()))
            }
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let folder = fast_folder();
                Arc::new(move || {
                    let opened = bevy_player_data::store::SqliteStore::open(folder.path().join("players.db"));
                    Arc::new(opened.expect("the file can be opened"))
                })
            }
            #[cfg(all(unix, feature = "postgres"))]
            "postgres" => {
                let schema = Schema(postgres::shared().new_schema());
                let settings = bevy_player_data::store::PostgresSettings {
                    timeout,
                    ..Default::default()
                };
                Arc::new(move || {
                    let connected = bevy_player_data::store::PostgresStore::connect_with(&schema.0, settings);
                    Arc::new(connected.expect("the database can be reached"))
                })
            }
            other => panic!("`PLAYER_STORE` is \"{other}\", which this build of the tests doesn't have"),
        };
        Self { store: open(), open }
    }
}

/// In memory, where the system has such a place: nothing that these rows are for is about disks.
#[cfg(feature = "sqlite")]
fn fast_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder can be made")
}

/// The URL of a schema, which goes with the last who would connect to it.
#[cfg(all(unix, feature = "postgres"))]
struct Schema(String);

#[cfg(all(unix, feature = "postgres"))]
impl Drop for Schema {
    fn drop(&mut self) {
        if let Some((_, name)) = self.0.rsplit_once("%3D") {
            postgres::shared().ask(&format!("DROP SCHEMA {name} CASCADE"));
        }
    }
}

impl Store for Rows {
    fn lease(&self, lease: Lease) -> BoxFuture<'_, Result<Leases, StoreError>> {
        self.store.lease(lease)
    }

    fn leases(&self) -> BoxFuture<'_, Result<Leases, StoreError>> {
        self.store.leases()
    }

    fn retire(&self, server: ServerId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.retire(server)
    }

    fn acquire(&self, acquire: Acquire) -> BoxFuture<'_, Result<Acquired, StoreError>> {
        self.store.acquire(acquire)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        self.store.commit(commit)
    }

    fn peek(&self, player: PlayerId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.store.peek(player)
    }

    fn list(
        &self,
        after: Option<PlayerId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<PlayerId>, StoreError>> {
        self.store.list(after, limit)
    }

    fn erase(&self, player: PlayerId) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.store.erase(player)
    }

    fn enqueue(&self, receipt: NewReceipt, notice: Notice) -> BoxFuture<'_, Result<Enqueued, StoreError>> {
        self.store.enqueue(receipt, notice)
    }

    fn receipt(&self, purchase: PurchaseId) -> BoxFuture<'_, Result<Option<StoredReceipt>, StoreError>> {
        self.store.receipt(purchase)
    }

    fn open_receipts(&self, player: PlayerId) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        self.store.open_receipts(player)
    }

    fn receipts_of(
        &self,
        player: PlayerId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredReceipt>, StoreError>> {
        self.store.receipts_of(player, before, limit)
    }

    fn arrivals(&self, since: Option<u64>) -> BoxFuture<'_, Result<Arrivals, StoreError>> {
        self.store.arrivals(since)
    }

    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.store.wish(wish)
    }

    fn withdraw(&self, player: PlayerId, lock: LockId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.withdraw(player, lock)
    }

    fn wishes(&self, server: ServerId) -> BoxFuture<'_, Result<Wishes, StoreError>> {
        self.store.wishes(server)
    }

    fn hints(&self) -> u64 {
        self.store.hints()
    }
}
