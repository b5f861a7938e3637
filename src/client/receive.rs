//! Talking to the server: saying hello, passing on what it says, and acknowledging it.

use bevy::prelude::*;
use bevy_renet::RenetClient;
use tracing::{debug, error, info, warn};

use super::{
    DisconnectedByServer, MirrorStats, ReplicationClient, ReplicationRefused, TransferredTo,
    connection::{Connection, Mirror, Told},
    mirror::{self, Foreign},
};
use crate::replication::{
    PublicTypes,
    protocol::{self, FromClient, ToClient},
};

/// Reads everything that has arrived and queues its effects as commands.
pub(super) fn receive(
    mut replication: ResMut<ReplicationClient>,
    client: Option<ResMut<RenetClient>>,
    own_players: Query<(), Foreign>,
    mut stats: ResMut<MirrorStats>,
    mut commands: Commands,
) {
    let replication = &mut *replication;
    let is_usable = replication.channel.is_usable();
    let client = client.filter(|client| is_usable && client.is_connected());
    if client.is_none() || std::mem::take(&mut replication.is_replaced) {
        hang_up(replication.connection.take(), &mut commands);
    }
    let (Some(mut client), Some(types)) = (client, &replication.types) else {
        return;
    };
    let connection = replication.connection.get_or_insert_default();
    let channels = replication.settings.channels;
    if !connection.has_said_hello {
        let hello = protocol::encode(&FromClient::Hello {
            protocol: protocol::VERSION,
            types: types.hash(),
            game_version: replication.settings.game_version.clone(),
        });
        if !client.can_send_message(channels.to_server, hello.len()) {
            return;
        }
        client.send_message(channels.to_server, hello);
        connection.has_said_hello = true;
    }
    while let Some(frame) = client.receive_message(channels.to_client) {
        stats.received_messages += 1;
        stats.received_bytes += frame.len() as u64;
        match connection.take_in(&frame) {
            Ok(None) => {}
            Ok(Some(told)) => {
                let mut undecodable = |index| replication.undecodable.insert(index);
                let has_foreign = !own_players.is_empty();
                take_in(
                    connection,
                    types,
                    &mut undecodable,
                    has_foreign,
                    told,
                    &mut commands,
                );
            }
            Err(problem) => {
                if !std::mem::replace(&mut connection.has_complained, true) {
                    error!("a message from the server is left out: {problem}");
                }
            }
        }
    }
    acknowledge(connection, &mut client, channels.to_server);
}

fn hang_up(connection: Option<Connection>, commands: &mut Commands) {
    if let Some(Connection {
        mirror: Some(mirror), ..
    }) = connection
    {
        mirror::despawn(commands, mirror.entity);
    }
}

fn acknowledge(connection: &mut Connection, client: &mut RenetClient, channel: u8) {
    if connection.frames == connection.acknowledged {
        return;
    }
    let ack = protocol::encode(&FromClient::Ack {
        epoch: connection.epoch,
        frame: connection.frames,
    });
    if client.can_send_message(channel, ack.len()) {
        client.send_message(channel, ack);
        connection.acknowledged = connection.frames;
    }
}

fn take_in(
    connection: &mut Connection,
    types: &PublicTypes,
    is_first: &mut dyn FnMut(u16) -> bool,
    has_foreign: bool,
    told: Told,
    commands: &mut Commands,
) {
    let message = match told {
        Told::Message(message) => message,
        Told::Changed(values) => {
            if let Some(mirror) = connection.mirror {
                mirror::change(commands, mirror.entity, types, is_first, values);
            }
            return;
        }
    };
    match message {
        ToClient::Welcome => debug!("the server knows the same player data"),
        ToClient::Refused {
            reason,
            types: theirs,
        } => {
            let reason = format!("{reason}{}", differences(&types.keys(), &theirs));
            error!("the server refuses this client: {reason}");
            commands.trigger(ReplicationRefused { reason });
        }
        ToClient::Goodbye { kind, reason } => {
            warn!("the server disconnects this client: {reason}");
            commands.trigger(DisconnectedByServer { kind, reason });
        }
        ToClient::GoTo { server } => {
            info!("the server sends this client to server `{server}`");
            commands.trigger(TransferredTo { server });
        }
        ToClient::Loading { player, .. } => {
            if let Some(older) = connection.mirror.take() {
                mirror::despawn(commands, older.entity);
            }
            if has_foreign {
                debug!("an entity with `OwnPlayer` is there already: no mirror of player {player} is made");
            } else {
                connection.mirror = Some(Mirror {
                    entity: mirror::spawn(commands),
                    player,
                });
            }
        }
        about_mirror => {
            let Some(mirror) = connection.mirror else { return };
            if matches!(about_mirror, ToClient::Ended { .. }) {
                connection.mirror = None;
            }
            mirror::update(commands, mirror, types, is_first, about_mirror);
        }
    }
}

/// In which keys client and server differ, as the end of a sentence.
fn differences(ours: &[(String, u32)], theirs: &[(String, u32)]) -> String {
    let find = |list: &[(String, u32)], key: &str| {
        list.iter()
            .find(|(other, _)| other == key)
            .map(|&(_, version)| version)
    };
    let on_server = theirs.iter().filter_map(|(key, version)| match find(ours, key) {
        None => Some(format!("only the server has `{key}`")),
        Some(other) if other != *version => Some(format!(
            "`{key}` has version {version} on the server and {other} here"
        )),
        Some(_) => None,
    });
    let only_here = ours
        .iter()
        .filter(|(key, _)| find(theirs, key).is_none())
        .map(|(key, _)| format!("only this client has `{key}`"));
    let all: Vec<String> = on_server.chain(only_here).collect();
    if all.is_empty() {
        String::new()
    } else {
        format!(": {}", all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let keys = |keys: &[(&str, u32)]| {
            keys.iter()
                .map(|(key, version)| ((*key).to_owned(), *version))
                .collect()
        };
        let ours: Vec<_> = keys(&[("coins", 1), ("level", 1), ("pet", 1)]);
        let theirs: Vec<_> = keys(&[("coins", 1), ("guild", 1), ("level", 2)]);
        assert_eq!(
            differences(&ours, &theirs),
            ": only the server has `guild`, `level` has version 2 on the server and 1 here, only this client has `pet`"
        );
        assert_eq!(differences(&ours, &ours), "");
    }
}
