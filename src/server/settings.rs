//! Everything that can be set about the server side, with its defaults.

use std::{fmt, sync::Arc, time::Duration};

use bevy::prelude::*;
use bevy_renet::{netcode::NetcodeServerTransport, renet::ClientId};

use super::{HandOffSettings, PurchaseSettings};
use crate::{
    document::Compression,
    id::PlayerId,
    player::LoadError,
    replication::ReplicationSettings,
    session::{RetryPolicy, SessionSettings},
};

/// The server's settings.
///
/// ```
/// # use bevy_player_data::prelude::*;
/// # use std::time::Duration;
/// let settings = ServerSettings {
///     name: "arena-1".to_owned(),
///     autosave: Some(Duration::from_secs(60)),
///     ..Default::default()
/// };
/// ```
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The server's name, by which it is known to other servers on the same store: unique among those that run at one
    /// time, and the same after a restart, so that with SQLite a crashed server takes up its players again at once.
    /// (PostgreSQL can't prove it dead: there it loads nobody until its old lease has lapsed.) Default: `server`.
    pub name: String,
    /// How often the server shows the others that it lives. Default: 10 s.
    pub beat: Duration,
    /// How long the others wait without a beat before they take its players over. At least twice
    /// [`beat`](Self::beat), and more than [`exit_deadline`](Self::exit_deadline). Default: 30 s.
    pub lease_ttl: Duration,
    /// How often each changed player is saved; `None` turns autosave off. Default: 30 s.
    pub autosave: Option<Duration>,
    /// How long a load may take, counted from the spawn, waiting for another server's session included. Make it longer
    /// than [`lease_ttl`](Self::lease_ttl), so that a player whose server has crashed gets in at the first try.
    /// Default: 40 s.
    pub load_timeout: Duration,
    /// How long saving everybody may take when the app exits. Default: 25 s.
    pub exit_deadline: Duration,
    /// The largest document that is saved, in bytes before compression. Default: 4 MiB.
    pub document_limit: usize,
    /// Whether documents are compressed. Default: no, since it costs throughput.
    pub compression: Compression,
    /// How a failed attempt to read or write is repeated.
    pub retry: RetryPolicy,
    /// Whether each client that connects gets a player entity, and loses it when it disconnects. Default: yes.
    pub auto_join: bool,
    /// How auto-join learns which player a client is. Default: [`Identify::by_netcode_user_data`].
    pub identify: Identify,
    /// What happens to a player whose data can't be loaded. Default: [`OnLoadFailure::Fallback`], whatever the error.
    pub on_load_failure: fn(&LoadError) -> OnLoadFailure,
    /// What happens to a player whose session ended though they are still here: another server or another entity has
    /// taken it over, another server has asked for them, or the store has refused a trade. Default:
    /// [`OnSessionLost::Disconnect`].
    pub on_session_lost: OnSessionLost,
    /// Whether SIGINT and SIGTERM (on Windows: Ctrl-C) [shut the app down](super::ShutDown), so that clients are told and
    /// everybody is saved. They are handled from `App::run` on; a second signal does not interrupt saving. Default: yes.
    pub handle_signals: bool,
    /// What concerns players who go on on another server.
    pub hand_off: HandOffSettings,
    /// What concerns receipts of purchases.
    pub purchases: PurchaseSettings,
    /// What concerns sending data to its owner.
    pub replication: ReplicationSettings,
}

impl Default for ServerSettings {
    fn default() -> Self {
        let session = SessionSettings::default();
        Self {
            name: "server".to_owned(),
            beat: session.beat,
            lease_ttl: session.lease_ttl,
            autosave: Some(Duration::from_secs(30)),
            load_timeout: session.load_timeout,
            exit_deadline: Duration::from_secs(25),
            document_limit: 4 * 1024 * 1024,
            compression: session.compression,
            retry: session.retry,
            auto_join: true,
            identify: Identify::by_netcode_user_data(),
            on_load_failure: |_| OnLoadFailure::Fallback,
            on_session_lost: OnSessionLost::Disconnect,
            handle_signals: true,
            hand_off: HandOffSettings::default(),
            purchases: PurchaseSettings::default(),
            replication: ReplicationSettings::default(),
        }
    }
}

impl ServerSettings {
    /// The part that sessions need.
    pub(super) fn session(&self) -> SessionSettings {
        SessionSettings {
            name: self.name.clone(),
            beat: self.beat,
            lease_ttl: self.lease_ttl,
            load_timeout: self.load_timeout,
            ask: self.hand_off.ask,
            wish_poll: self.hand_off.poll,
            retry: self.retry.clone(),
            compression: self.compression,
        }
    }

    /// Says what cannot work about these settings.
    pub(super) fn validate(&self) -> Result<(), String> {
        self.hand_off.validate()?;
        self.session().validate()?;
        self.purchases.validate()?;
        if self.exit_deadline >= self.lease_ttl {
            return Err(format!(
                "`exit_deadline` ({:?}) must be shorter than `lease_ttl` ({:?}), or another server takes players over \
                 while this one is still saving them",
                self.exit_deadline, self.lease_ttl
            ));
        }
        if self
            .autosave
            .is_some_and(|interval| interval.is_zero() || interval > SessionSettings::LONGEST)
        {
            return Err("`autosave` is zero or longer than a year: use `None` to turn it off".to_owned());
        }
        Ok(())
    }
}

/// What happens to a player whose data can't be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoadFailure {
    /// They play on default values, which are never saved.
    Fallback,
    /// They are told why, disconnected and despawned.
    Disconnect,
}

/// What happens to a player whose session ended though they are still here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSessionLost {
    /// They are told why, disconnected and despawned.
    Disconnect,
    /// The entity stays as a [`PlayerFallback`](crate::player::PlayerFallback): what happens to it is never saved,
    /// unless an observer of the session's end inserts the [`PersistentPlayer`](crate::player::PersistentPlayer) again,
    /// which loads them anew. (After [`SessionEnd::Replaced`](crate::player::SessionEnd::Replaced) that would throw the
    /// newer login out.)
    KeepAsFallback,
}

/// How auto-join learns which player a client is.
#[derive(Clone)]
pub struct Identify(Arc<IdentifyFn>);

type IdentifyFn = dyn Fn(ClientId, &World) -> Option<PlayerId> + Send + Sync;

impl Identify {
    /// Asks `identify` when a client connects. It answers `None` for a client it doesn't know, which is then
    /// disconnected.
    ///
    /// Only ever answer with what somebody trustworthy vouches for (a signed token, a platform's session ticket that
    /// was checked), never with what the client merely says.
    pub fn by(identify: impl Fn(ClientId, &World) -> Option<PlayerId> + Send + Sync + 'static) -> Self {
        Self(Arc::new(identify))
    }

    /// Reads the id from the netcode connect token's user data, where the login service put it with
    /// [`PlayerId::to_user_data`] and which the game's secret key signs.
    ///
    /// It proves nothing when the transport runs with `ServerAuthentication::Unsecure`: there anybody can claim to be
    /// anybody.
    #[must_use]
    pub fn by_netcode_user_data() -> Self {
        Self::by(|client, world| {
            let transport = world.get_resource::<NetcodeServerTransport>()?;
            PlayerId::from_user_data(&transport.user_data(client)?)
        })
    }

    /// Takes the client id itself for a player's 64-bit Steam id, as `renet_steam` authenticates it.
    #[must_use]
    pub fn by_steam_id() -> Self {
        Self::by(|client, _| Some(PlayerId::from_steam(client)))
    }

    pub(super) fn ask(&self, client: ClientId, world: &World) -> Option<PlayerId> {
        (self.0)(client, world)
    }
}

impl fmt::Debug for Identify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identify(..)")
    }
}
