//! What the stores' tests share: servers and sessions as a store sees them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use bevy_player_data::{
    PlayerId,
    store::{
        Acquire, Acquired, LapsedLease, Lease, Leases, LockId, Record, ServerId, Store, StoreError, Then,
        Write,
    },
};
use bytes::Bytes;

pub(crate) const ADA: PlayerId = PlayerId::from_bytes(*b"ada, a player...");
pub(crate) const BOB: PlayerId = PlayerId::from_bytes(*b"bob, a player...");

pub(crate) fn boot(name: &str) -> Lease {
    Lease {
        server: ServerId::random(),
        name: name.to_owned(),
        lapsed: Vec::new(),
    }
}

pub(crate) fn document(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn lock_lost(player: PlayerId) -> StoreError {
    StoreError::LockLost { player }
}

/// A server with a lease.
pub(crate) struct Server {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) id: ServerId,
    pub(crate) name: String,
}

impl Server {
    /// Leases the name on this store.
    pub(crate) async fn start(store: Arc<dyn Store>, name: &str) -> Self {
        let server = Self {
            store,
            id: ServerId::random(),
            name: name.to_owned(),
        };
        server.beat().await.expect("nobody else has the name");
        server
    }

    /// Leases the name after a predecessor whose lease has lapsed.
    pub(crate) async fn succeed(store: Arc<dyn Store>, name: &str) -> Self {
        let leases = store.leases().await.expect("the store can be read");
        let predecessors = leases.servers.into_iter().filter(|lease| lease.name == name);
        let lapsed = predecessors.map(|lease| LapsedLease {
            server: lease.server,
            beat: lease.beat,
        });
        let lease = Lease {
            lapsed: lapsed.collect(),
            ..boot(name)
        };
        let (id, name) = (lease.server, name.to_owned());
        store.lease(lease).await.expect("the predecessor is dead");
        Self { store, id, name }
    }

    pub(crate) async fn beat(&self) -> Result<Leases, StoreError> {
        self.store
            .lease(Lease {
                server: self.id,
                name: self.name.clone(),
                lapsed: Vec::new(),
            })
            .await
    }

    pub(crate) fn request(&self, player: PlayerId) -> Acquire {
        Acquire {
            player,
            lock: LockId::random(),
            server: self.id,
            lapsed: Vec::new(),
            orphan: None,
            until_beat: u64::MAX,
        }
    }

    pub(crate) async fn acquire(&self, player: PlayerId) -> Result<Acquired, StoreError> {
        self.store.acquire(self.request(player)).await
    }

    pub(crate) async fn session(&self, player: PlayerId) -> Session {
        let acquire = self.request(player);
        let acquired = self
            .store
            .acquire(acquire.clone())
            .await
            .expect("the lock is free");
        Session::new(self, &acquire, acquired.fence)
    }
}

/// A session as the store sees it: it counts its writes and names its lock and fence.
pub(crate) struct Session {
    /// `None` after a crash.
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) player: PlayerId,
    pub(crate) lock: LockId,
    pub(crate) fence: u64,
    pub(crate) seq: u64,
}

impl Session {
    pub(crate) fn new(server: &Server, acquire: &Acquire, fence: u64) -> Self {
        let store = Some(Arc::clone(&server.store));
        Self {
            store,
            player: acquire.player,
            lock: acquire.lock,
            fence,
            seq: 0,
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &**self.store.as_ref().expect("the session's server has not crashed")
    }

    /// The session's next write.
    pub(crate) fn write(&mut self, text: &str) -> Write {
        self.seq += 1;
        Write {
            player: self.player,
            lock: self.lock,
            fence: self.fence,
            seq: self.seq,
            document: document(text),
            settle: Vec::new(),
            then: Then::Keep,
        }
    }

    pub(crate) async fn save(&mut self, text: &str) -> Result<u64, StoreError> {
        let write = self.write(text);
        Ok(self.store().commit(write.into()).await?.versions[0])
    }

    pub(crate) async fn release(&mut self) -> Result<(), StoreError> {
        let write = Write {
            document: None,
            settle: Vec::new(),
            then: Then::Release,
            ..self.write("")
        };
        self.store().commit(write.into()).await.map(|_| ())
    }

    pub(crate) async fn record(&self) -> Record {
        let found = self
            .store()
            .peek(self.player)
            .await
            .expect("the store can be read");
        found.expect("the player has a row")
    }
}
