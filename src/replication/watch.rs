//! Who is connected, which players they play, and what happens to these: everything that gives the server something
//! to send.
//!
//! Observers only note *that* something happened; [`send`](super::send) then looks at what is so now. However much
//! happens in a tick, or while a client is slow, there is never more to remember than one note of each kind.

use std::time::Duration;

use bevy::{
    ecs::entity::EntityHashMap,
    platform::{collections::HashMap, time::Instant},
    prelude::*,
    utils::once,
};
use bevy_renet::{
    RenetServer, RenetServerEvent, RenetServerPlugin,
    netcode::{NetcodeServerPlugin, NetcodeServerTransport},
    renet::{ClientId, ServerEvent},
};
use tracing::{debug, warn};

use super::{
    ReplicationSettings, ReplicationStats,
    channel::{ChannelCheck, MIN_TO_CLIENT_MEMORY, server_channels, warn_about_channels},
    flow::Flow,
    link::{Farewell, Link, News},
    plugins::NeedsPlugin,
    protocol::{PurchaseNews, ToClient},
    public_types::PublicTypes,
    receive,
    send::{self, Encoder},
};
use crate::{
    id::PlayerId,
    player::{
        DisconnectKind, PlayerClient, PlayerLoadFailed, PlayerSaved, PlayerSessionEnded, PurchaseProcessed,
        SessionEnd, States,
    },
    registry::{self, ChangeLog, Registry},
    systems::{self, PlayerDataSystems},
};

/// Makes `app` send each player's public data to its client.
///
/// # Panics
/// When the settings can't work, saying why.
pub(crate) fn install_server(app: &mut App, settings: ReplicationSettings) {
    settings.assert_sound();
    systems::configure(app);
    registry::freeze_at_first_update(app);
    app.insert_resource(ReplicationServer::new(settings))
        .init_resource::<ReplicationStats>()
        .init_resource::<ChangeLog>()
        .add_plugins((
            NeedsPlugin::<RenetServer, RenetServerPlugin>::new("RenetServer", "RenetServerPlugin"),
            NeedsPlugin::<NetcodeServerTransport, NetcodeServerPlugin>::new(
                "NetcodeServerTransport",
                "NetcodeServerPlugin",
            ),
        ))
        .add_systems(PreStartup, track_public_types.after(registry::freeze_registry))
        .add_systems(PreUpdate, receive::receive.in_set(PlayerDataSystems::Receive))
        .add_systems(
            PostUpdate,
            send::send
                .in_set(PlayerDataSystems::Send)
                .run_if(send::has_something_to_do),
        )
        .add_observer(take_up_server)
        .add_observer(drop_server)
        .add_observer(follow_connections)
        .add_observer(attach)
        .add_observer(detach)
        .add_observer(note_new_state)
        .add_observer(note_lost_state)
        .add_observer(note_load_failure)
        .add_observer(note_save)
        .add_observer(note_end)
        .add_observer(note_purchase);
    // The game may have inserted it before adding the plugin.
    if let Some(server) = app.world().get_resource::<RenetServer>() {
        let channels = app.world().resource::<ReplicationServer>().settings.channels;
        let check = check_channels(server, channels);
        app.world_mut().resource_mut::<ReplicationServer>().channel = check;
    }
}

/// Tells `client` why it is about to be disconnected, and disconnects it as soon as it has read that, or after the
/// [timeout](ReplicationSettings::farewell_timeout).
pub(crate) fn disconnect_after_send(world: &mut World, client: ClientId, kind: DisconnectKind, reason: &str) {
    disconnect(world, client, LastWord::Goodbye(kind, reason));
}

/// What a client is told before it is disconnected.
#[derive(Clone, Copy)]
pub(crate) enum LastWord<'a> {
    /// Why.
    Goodbye(DisconnectKind, &'a str),
    /// To which server it is to go.
    GoTo(&'a str),
}

/// One connection of a client: somebody else may have its id later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    client: ClientId,
    /// `None` while there is none.
    number: Option<u64>,
}

/// The connection that a client has now.
pub(crate) fn connection_of(world: &World, client: ClientId) -> Connection {
    let link = world
        .get_resource::<ReplicationServer>()
        .and_then(|replication| replication.links.get(&client));
    Connection {
        client,
        number: link.map(|link| link.number),
    }
}

/// The same for a client who has no player any more. One that has been given another meanwhile stays, and so does
/// whoever has connected since under the same id.
pub(crate) fn disconnect_unless_back(world: &mut World, connection: Connection, word: LastWord<'_>) {
    let client = connection.client;
    let has_player = world
        .get_resource::<ReplicationServer>()
        .is_some_and(|replication| replication.players.contains_key(&client));
    if !has_player && connection_of(world, client) == connection {
        disconnect(world, client, word);
    }
}

fn disconnect(world: &mut World, client: ClientId, word: LastWord<'_>) {
    let message = match word {
        LastWord::Goodbye(kind, reason) => ToClient::Goodbye {
            kind,
            reason: reason.to_owned(),
        },
        LastWord::GoTo(server) => ToClient::GoTo {
            server: server.to_owned(),
        },
    };
    if let Some(mut replication) = world.get_resource_mut::<ReplicationServer>()
        && replication.say_goodbye(client, message)
    {
        return;
    }
    if let Some(mut server) = world.get_resource_mut::<RenetServer>() {
        server.disconnect(client);
    }
}

/// The connections and their players.
#[derive(Resource)]
pub(crate) struct ReplicationServer {
    pub(super) settings: ReplicationSettings,
    /// Set at the first update.
    pub(super) types: Option<PublicTypes>,
    pub(super) channel: ChannelCheck,
    pub(super) links: HashMap<ClientId, Link>,
    /// How many there were so far.
    connections: u64,
    /// The entity with each [`PlayerClient`].
    pub(super) players: HashMap<ClientId, Entity>,
    /// The reverse, and the entities that clients have yet to be told the end of.
    pub(super) clients: EntityHashMap<ClientId>,
    /// Links with something to send.
    pub(super) pending: Vec<ClientId>,
    pub(super) encoder: Encoder,
    /// Set when the server is about to go: until when its clients may read that.
    leaving: Option<Instant>,
}

impl ReplicationServer {
    fn new(settings: ReplicationSettings) -> Self {
        Self {
            settings,
            types: None,
            channel: ChannelCheck::Unknown,
            links: HashMap::default(),
            connections: 0,
            players: HashMap::default(),
            clients: EntityHashMap::default(),
            pending: Vec::new(),
            encoder: Encoder::default(),
            leaving: None,
        }
    }

    /// Has `client` looked at by the next [`send`](super::send).
    pub(super) fn mark(&mut self, client: ClientId) {
        if let Some(link) = self.links.get_mut(&client)
            && !link.is_pending
        {
            link.is_pending = true;
            self.pending.push(client);
        }
    }

    fn mark_player(&mut self, entity: Entity) {
        if let Some(&client) = self.clients.get(&entity) {
            self.mark(client);
        }
    }

    /// Notes news about a player that its client knows of.
    fn note(&mut self, entity: Entity, player: PlayerId, owners: &Owners, note: impl FnOnce(&mut News)) {
        let Some(&client) = self.clients.get(&entity) else {
            return;
        };
        // The last news of an entity that is gone are for whoever had it. One that was only taken away goes on, and what
        // happens to it then is nobody's business any more.
        if owners
            .get(entity)
            .is_ok_and(|owner| owner != Some(&PlayerClient(client)))
        {
            return;
        }
        let watched = self.links.get_mut(&client).and_then(|link| link.watched.as_mut());
        if let Some(watched) = watched.filter(|watched| watched.entity == entity && watched.is_about(player))
        {
            note(&mut watched.news);
            self.mark(client);
        }
    }

    /// Has the client disconnected after it was sent `message`; false if there is no such client. The first message
    /// counts.
    pub(super) fn say_goodbye(&mut self, client: ClientId, message: ToClient) -> bool {
        let timeout = if self.channel.is_usable() {
            self.settings.farewell_timeout
        } else {
            Duration::ZERO
        };
        let until = Instant::now() + timeout;
        self.set_farewell(
            client,
            Farewell {
                message,
                frame: None,
                until,
                is_muted: false,
                stays: false,
            },
        )
    }

    /// Has all clients, and those that still come, told that the server is shutting down. They stay connected until it
    /// does.
    pub(crate) fn announce_exit(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Instant::now() + self.settings.farewell_timeout);
        let clients: Vec<ClientId> = self.links.keys().copied().collect();
        for client in clients {
            self.announce_exit_to(client);
        }
    }

    fn announce_exit_to(&mut self, client: ClientId) {
        let Some(until) = self.leaving else { return };
        let message = ToClient::Goodbye {
            kind: DisconnectKind::ServerExit,
            reason: SessionEnd::ServerExit.to_string(),
        };
        self.set_farewell(
            client,
            Farewell {
                message,
                frame: None,
                until,
                is_muted: false,
                stays: true,
            },
        );
    }

    /// Whether every client has read that the server is shutting down, or has had its time to.
    pub(crate) fn all_have_taken_leave(&self) -> bool {
        let now = Instant::now();
        !self.channel.is_usable() || self.links.values().all(|link| link.has_taken_leave(now))
    }

    /// Has a client that is no longer listened to disconnected after the next send.
    pub(super) fn throw_out(&mut self, client: ClientId, reason: &str) {
        let message = ToClient::Goodbye {
            kind: DisconnectKind::Other,
            reason: reason.to_owned(),
        };
        self.set_farewell(
            client,
            Farewell {
                message,
                frame: None,
                until: Instant::now(),
                is_muted: true,
                stays: false,
            },
        );
    }

    fn set_farewell(&mut self, client: ClientId, farewell: Farewell) -> bool {
        let Some(link) = self.links.get_mut(&client) else {
            return false;
        };
        match &mut link.farewell {
            // Where to go matters more than that everybody has to.
            Some(earlier) if earlier.stays && !farewell.stays => *earlier = farewell,
            Some(earlier) => {
                earlier.until = earlier.until.min(farewell.until);
                earlier.is_muted |= farewell.is_muted;
                earlier.stays &= farewell.stays;
            }
            None => link.farewell = Some(farewell),
        }
        self.mark(client);
        true
    }

    /// Forgets an entity that no client knows of any more, unless it has become a player again.
    pub(super) fn forget_entity(&mut self, client: ClientId, entity: Entity) {
        // Another client may have it by now.
        if self.clients.get(&entity) == Some(&client) && self.players.get(&client) != Some(&entity) {
            self.clients.remove(&entity);
        }
    }

    fn disconnected(&mut self, client: ClientId) {
        if let Some(Link {
            watched: Some(watched),
            ..
        }) = self.links.remove(&client)
        {
            self.forget_entity(client, watched.entity);
        }
    }
}

/// Numbers the public types and starts to watch them.
fn track_public_types(world: &mut World) {
    let types = PublicTypes::new(Registry::freeze(world));
    let mut schedules = world.resource_mut::<Schedules>();
    for (index, data_type) in types.iter() {
        data_type.codec.track_changes(&mut schedules, index);
    }
    world.resource_mut::<ReplicationServer>().types = Some(types);
}

fn check_channels(server: &RenetServer, channels: super::PlayerDataChannels) -> ChannelCheck {
    let check = server_channels(server, channels);
    if check == ChannelCheck::Missing {
        warn_about_channels("RenetServer", channels);
    }
    check
}

/// A `RenetServer` is inserted, or replaces another.
fn take_up_server(
    _: On<Insert, RenetServer>,
    server: Res<RenetServer>,
    mut replication: ResMut<ReplicationServer>,
) {
    replication.channel = check_channels(&server, replication.settings.channels);
}

fn drop_server(
    _: On<Discard, RenetServer>,
    mut replication: ResMut<ReplicationServer>,
    mut stats: ResMut<ReplicationStats>,
) {
    let clients: Vec<ClientId> = replication.links.keys().copied().collect();
    for client in clients {
        replication.disconnected(client);
        stats.forget(client);
    }
}

fn follow_connections(
    event: On<RenetServerEvent>,
    server: Option<Res<RenetServer>>,
    mut replication: ResMut<ReplicationServer>,
    mut stats: ResMut<ReplicationStats>,
) {
    match **event {
        ServerEvent::ClientConnected { client_id } => {
            let settings = &replication.settings;
            let channel = match server {
                // Nothing is in it yet.
                Some(server) if replication.channel.is_usable() => {
                    server.channel_available_memory(client_id, settings.channels.to_client)
                }
                _ => 0,
            };
            if replication.channel.is_usable() && channel < MIN_TO_CLIENT_MEMORY {
                once!(warn!(
                    "the channel to client {client_id} has room for {channel} bytes, too few for player data: give it \
                     a `max_memory_usage_bytes` of {MIN_TO_CLIENT_MEMORY} or more"
                ));
            }
            let mut link = Link::new(
                client_id,
                Flow::new(settings.max_outstanding, channel),
                settings.strikes,
            );
            replication.connections += 1;
            link.number = replication.connections;
            replication.disconnected(client_id);
            replication.links.insert(client_id, link);
            replication.announce_exit_to(client_id);
        }
        ServerEvent::ClientDisconnected { client_id, .. } => {
            replication.disconnected(client_id);
            stats.forget(client_id);
        }
    }
}

fn attach(
    insert: On<Insert, PlayerClient>,
    clients: Query<&PlayerClient>,
    mut replication: ResMut<ReplicationServer>,
) {
    let entity = insert.entity;
    let Ok(&PlayerClient(client)) = clients.get(entity) else {
        return;
    };
    if let Some(older) = replication.players.insert(client, entity)
        && older != entity
    {
        debug!("client {client} is now shown the player on {entity}, and no longer that on {older}");
    }
    replication.clients.insert(entity, client);
    replication.mark(client);
}

fn detach(
    discard: On<Discard, PlayerClient>,
    clients: Query<&PlayerClient>,
    mut replication: ResMut<ReplicationServer>,
) {
    let entity = discard.entity;
    let Ok(&PlayerClient(client)) = clients.get(entity) else {
        return;
    };
    if replication.players.get(&client) == Some(&entity) {
        replication.players.remove(&client);
    }
    let watched = replication
        .links
        .get(&client)
        .and_then(|link| link.watched.as_ref());
    if watched.is_some_and(|watched| watched.entity == entity) {
        // The client has to be told; what happens until then still concerns it.
        replication.mark(client);
    } else {
        replication.clients.remove(&entity);
    }
}

fn note_new_state(insert: On<Insert, States>, mut replication: ResMut<ReplicationServer>) {
    replication.mark_player(insert.entity);
}

fn note_lost_state(remove: On<Remove, States>, mut replication: ResMut<ReplicationServer>) {
    replication.mark_player(remove.entity);
}

/// Whose each entity is.
type Owners<'w, 's> = Query<'w, 's, Option<&'static PlayerClient>>;

fn note_load_failure(
    failed: On<PlayerLoadFailed>,
    owners: Owners,
    mut replication: ResMut<ReplicationServer>,
) {
    replication.note(failed.entity, failed.player, &owners, |news| {
        news.load_failed = Some(failed.error.for_player());
    });
}

fn note_save(saved: On<PlayerSaved>, owners: Owners, mut replication: ResMut<ReplicationServer>) {
    let result = saved.result.clone().map_err(|error| error.for_player());
    replication.note(saved.entity, saved.player, &owners, |news| {
        news.saved = Some((saved.is_final, result));
    });
}

fn note_purchase(
    processed: On<PurchaseProcessed>,
    owners: Owners,
    mut replication: ResMut<ReplicationServer>,
) {
    replication.note(processed.entity, processed.player, &owners, |news| {
        news.add_purchase(PurchaseNews {
            purchase: processed.purchase.clone(),
            product: processed.product.clone(),
            decision: processed.decision.clone(),
        });
    });
}

fn note_end(ended: On<PlayerSessionEnded>, owners: Owners, mut replication: ResMut<ReplicationServer>) {
    replication.note(ended.entity, ended.player, &owners, |news| {
        news.ended = Some(ended.reason);
    });
}
