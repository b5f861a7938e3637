//! Server and client in one process, linked by renet without sockets.

use bevy::prelude::*;
use bevy_renet::{
    RenetClient, RenetServer,
    renet::{ClientId, ConnectionConfig},
};

/// A connection between a server app and a client app in the same process. Nothing gets lost, and nothing moves except
/// when [`deliver`](Self::deliver) is called, so that a test decides what arrives when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConnection {
    client: ClientId,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the server to the client.
    ToClient,
    /// From the client to the server.
    ToServer,
}

impl LocalConnection {
    /// Connects `client`, as the renet client `id`, with a new `RenetClient` made from `config`. The server app needs
    /// its `RenetServer`, made from the same.
    ///
    /// # Panics
    /// When the server app has no `RenetServer`.
    #[must_use]
    pub fn open(server: &mut App, client: &mut App, id: ClientId, config: ConnectionConfig) -> Self {
        let mut renet = RenetClient::new(config);
        renet.set_connected();
        client.insert_resource(renet);
        server
            .world_mut()
            .resource_mut::<RenetServer>()
            .add_connection(id);
        Self { client: id }
    }

    /// The renet client's id.
    #[must_use]
    pub const fn client(&self) -> ClientId {
        self.client
    }

    /// Hands over the packets that both sides have ready, and tells each when the other has disconnected.
    pub fn deliver(&self, server: &mut App, client: &mut App) {
        self.deliver_watched(server, client, |_, _| ());
    }

    /// The same, showing each packet to `watch` on its way.
    pub fn deliver_watched(&self, server: &mut App, client: &mut App, mut watch: impl FnMut(Way, &[u8])) {
        let id = self.client;
        let Some(mut server) = server.world_mut().get_resource_mut::<RenetServer>() else {
            return;
        };
        let Some(mut client) = client.world_mut().get_resource_mut::<RenetClient>() else {
            return;
        };
        for packet in server.get_packets_to_send(id).unwrap_or_default() {
            watch(Way::ToClient, &packet);
            client.process_packet(&packet);
        }
        for packet in client.get_packets_to_send() {
            watch(Way::ToServer, &packet);
            // An error says that the server has dropped the connection, which the client hears below.
            let _ = server.process_packet_from(&packet, id);
        }
        if client.is_disconnected() || !server.is_connected(id) {
            client.disconnect_due_to_transport();
            server.remove_connection(id);
        }
    }

    /// Updates both apps once and hands over what each has sent: the server's word arrives in this very step, the
    /// client's answer in the next.
    pub fn step(&self, server: &mut App, client: &mut App) {
        server.update();
        self.deliver(server, client);
        client.update();
        self.deliver(server, client);
    }
}
