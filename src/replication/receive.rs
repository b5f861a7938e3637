//! Reading what clients say.

use bevy::{platform::time::Instant, prelude::*};
use bevy_renet::{RenetServer, renet::ClientId};
use tracing::{debug, warn};

use super::{
    ReplicationStats,
    link::{Handshake, Heard},
    protocol::{self, ToClient},
    public_types::PublicTypes,
    watch::ReplicationServer,
};

/// Reads what has arrived, a bounded number of messages a client, and disconnects whom there is nothing more to say to.
///
/// What nothing waits for is read up to 15 updates later, see [`Link::listens`](super::link::Link::listens).
pub(super) fn receive(
    mut replication: ResMut<ReplicationServer>,
    server: Option<ResMut<RenetServer>>,
    mut stats: ResMut<ReplicationStats>,
) {
    let Some(mut server) = server else { return };
    if replication.links.is_empty() {
        return;
    }
    let replication = &mut *replication;
    let now = Instant::now();
    let channel = replication.settings.channels.to_server;
    let mut heard = Vec::new();
    for (&client, link) in &mut replication.links {
        if link.is_over(now) {
            server.disconnect(client);
        } else if replication.channel.is_usable() && !link.is_muted() && link.listens() {
            link.has_more = true;
            for _ in 0..replication.settings.messages_per_tick {
                let Some(message) = server.receive_message(client, channel) else {
                    link.has_more = false;
                    break;
                };
                stats.count(client, |client| {
                    client.received_messages += 1;
                    client.received_bytes += message.len() as u64;
                });
                match link.hear(&message) {
                    Heard::Progress => stats.set_outstanding(client, link.flow.outstanding()),
                    Heard::Hello {
                        protocol,
                        types,
                        game_version,
                    } => {
                        // Until it is judged, at the end of this system, a second one is out of place.
                        link.handshake = Handshake::Accepted;
                        heard.push((
                            client,
                            Verdict::Hello {
                                protocol,
                                types,
                                game_version,
                            },
                        ));
                    }
                    Heard::Nonsense => {
                        stats.count(client, |client| client.nonsense += 1);
                        link.patience = link.patience.saturating_sub(1);
                        if link.patience == 0 {
                            heard.push((client, Verdict::ThrowOut));
                            break;
                        }
                    }
                }
            }
        }
    }
    for (client, verdict) in heard {
        match verdict {
            Verdict::Hello {
                protocol,
                types,
                game_version,
            } => {
                judge(replication, &mut stats, client, protocol, types, &game_version);
            }
            Verdict::ThrowOut => {
                debug!("client {client} sends nonsense: disconnecting it");
                stats.disconnected_for_nonsense += 1;
                replication.throw_out(client, "the client sends messages that make no sense");
            }
        }
    }
}

/// What has to be done about a client.
enum Verdict {
    Hello {
        protocol: u16,
        types: u64,
        game_version: String,
    },
    ThrowOut,
}

fn judge(
    replication: &mut ReplicationServer,
    stats: &mut ReplicationStats,
    client: ClientId,
    protocol: u16,
    types: u64,
    game_version: &str,
) {
    let Some(ours) = &replication.types else { return };
    match mismatch(
        ours,
        &replication.settings.game_version,
        protocol,
        types,
        game_version,
    ) {
        None => replication.mark(client),
        Some(reason) => {
            warn!("client {client} can't be told its player's data: {reason}");
            stats.refused += 1;
            let message = ToClient::Refused {
                reason,
                types: ours.keys(),
            };
            if let Some(link) = replication.links.get_mut(&client) {
                link.handshake = Handshake::Refused;
            }
            replication.say_goodbye(client, message);
        }
    }
}

/// What doesn't fit, in words for both sides.
fn mismatch(
    ours: &PublicTypes,
    our_version: &str,
    protocol: u16,
    types: u64,
    game_version: &str,
) -> Option<String> {
    if protocol != protocol::VERSION {
        let ours = protocol::VERSION;
        Some(format!(
            "the server speaks version {ours} of the player data protocol, the client version {protocol}"
        ))
    } else if game_version != our_version {
        Some(format!(
            "the server runs game version {our_version:?}, the client {game_version:?}"
        ))
    } else if types != ours.hash() {
        Some(
            "server and client were built with different keys, or versions of keys, of player data"
                .to_owned(),
        )
    } else {
        None
    }
}
