//! What went over the wire, for an operator to look at.

use bevy::{platform::collections::HashMap, prelude::*};
use bevy_renet::renet::ClientId;

/// The server's counters of what this crate sent and received, over all clients since the app started and for each
/// client that is connected now.
#[derive(Resource, Clone, Debug, Default)]
pub struct ReplicationStats {
    /// Over all clients, those that are gone included.
    pub total: ClientStats,
    /// How many clients were disconnected because what they sent made no sense.
    pub disconnected_for_nonsense: u64,
    /// How many clients were refused because they were built with other data, or another game version.
    pub refused: u64,
    pub(super) clients: HashMap<ClientId, ClientStats>,
}

/// The counters of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Messages handed to renet.
    pub sent_messages: u64,
    /// Their size in bytes.
    pub sent_bytes: u64,
    /// Messages received, including those that made no sense.
    pub received_messages: u64,
    /// Their size in bytes.
    pub received_bytes: u64,
    /// Messages that made no sense: too long, undecodable, or out of order.
    pub nonsense: u64,
    /// What was sent and not yet applied by the client, in bytes. That it was applied is noticed up to 15 updates later.
    pub outstanding_bytes: u64,
}

impl ReplicationStats {
    /// The counters of a client, if it is connected.
    #[must_use]
    pub fn client(&self, client: ClientId) -> Option<ClientStats> {
        self.clients.get(&client).copied()
    }

    pub(super) fn count(&mut self, client: ClientId, count: impl Fn(&mut ClientStats)) {
        count(&mut self.total);
        count(self.clients.entry(client).or_default());
    }

    pub(super) fn set_outstanding(&mut self, client: ClientId, bytes: usize) {
        let bytes = bytes as u64;
        let entry = self.clients.entry(client).or_default();
        self.total.outstanding_bytes = self.total.outstanding_bytes + bytes - entry.outstanding_bytes;
        entry.outstanding_bytes = bytes;
    }

    pub(super) fn forget(&mut self, client: ClientId) {
        if let Some(gone) = self.clients.remove(&client) {
            self.total.outstanding_bytes -= gone.outstanding_bytes;
        }
    }
}
