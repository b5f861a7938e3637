//! By what a server is seen alive.

use super::ServerId;
#[cfg(doc)]
use super::Store;

/// A server's request to be seen alive, see [`Store::lease`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// This boot of the server.
    pub server: ServerId,
    /// The server's name, which outlives its boots.
    pub name: String,
    /// Leases known to have lapsed: one that a predecessor left under this name is no hindrance.
    pub lapsed: Vec<LapsedLease>,
}

/// Every server's lease, as one transaction saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// One row per server that is running, or that crashed and was not cleaned up after; ours included.
    pub servers: Vec<ServerLease>,
}

/// One row of the `servers` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLease {
    /// The boot that the lease belongs to.
    pub server: ServerId,
    /// That server's name.
    pub name: String,
    /// Raised by one each time that the server calls [`Store::lease`].
    pub beat: u64,
}

/// A lease that an observer has watched standing still for a whole TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LapsedLease {
    /// Whose lease.
    pub server: ServerId,
    /// The beat at which it stood still. The store checks that it still does.
    pub beat: u64,
}
