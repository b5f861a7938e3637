//! Session-locked, autosaved player data for Bevy, replicated to its owner over `bevy_renet`.
//!
//! A player's data are ordinary components on the player's entity. This crate loads them when the player joins, saves
//! them while and after they play, and shows them to their owner, under these promises:
//!
//! - A player is in **one session at a time**, whatever number of servers share the store. A server that lost a player
//!   to another one can't write that player any more, even if it was only paused.
//! - What was **acknowledged is durable**: `kill -9` or a power cut right after loses none of it.
//! - Data that **could not be loaded is never overwritten**: the player plays on defaults that are never saved.
//! - **Private components never leave the server**, and nobody receives another player's data.
//! - **What was paid for is granted exactly once**, and what two players trade is in both players' saved data or in
//!   neither's.
//!
//! # Quick start
//!
//! From nothing to a component that survives a restart:
//!
//! ```
//! use bevy::prelude::*;
//! use bevy_player_data::prelude::*;
//! use serde::{Deserialize, Serialize};
//! # use bevy_player_data::testing::{headless_app, update_until};
//! # fn main() -> Result {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("players.db");
//!
//! #[derive(Component, Serialize, Deserialize, Default, Debug, PartialEq)]
//! struct Coins(u64);
//!
//! impl PlayerData for Coins {
//!     const KEY: &'static str = "coins";
//! }
//!
//! fn server(store: SqliteStore) -> App {
//!     let mut app = App::new();
//! #   let mut app = headless_app(); // in place of `MinimalPlugins`, so that the example can drive the updates itself
//!     app.add_plugins(PlayerDataPlugin::server(store)).persist::<Coins>();
//!     app
//! }
//!
//! // Ada joins, earns something, and the server exits.
//! let mut app = server(SqliteStore::open(&path)?);
//! let ada = app.world_mut().spawn(PersistentPlayer(PlayerId::from_name("ada"))).id();
//! # update_until(&mut app, "ada is loaded", |world| world.entity(ada).contains::<PlayerSession>());
//! app.world_mut().get_mut::<Coins>(ada).expect("every loaded player has some").0 += 412;
//! app.world_mut().write_message(AppExit::Success);
//! app.update(); // `App::run` does all this in a real server
//! # drop(app);
//!
//! // The next server finds it.
//! let mut app = server(SqliteStore::open(&path)?);
//! let ada = app.world_mut().spawn(PersistentPlayer(PlayerId::from_name("ada"))).id();
//! # update_until(&mut app, "ada is loaded", |world| world.entity(ada).contains::<PlayerSession>());
//! assert_eq!(app.world().get::<Coins>(ada), Some(&Coins(412)));
//! # Ok(())
//! # }
//! ```
//!
//! `examples/minimal.rs` is the same as a program; `examples/server` and `examples/client` are a small game over real
//! UDP.
//!
//! # Concepts
//!
//! **Which components.** Implement [`PlayerData`] for a component and call
//! [`app.persist::<T>()`](registry::PersistAppExt::persist) on the server and the client;
//! [`persist_optional`](registry::PersistAppExt::persist_optional) for one that not everybody has, and
//! [`persist_with`](registry::PersistAppExt::persist_with) for a type from another crate. A type that is
//! [`PRIVATE`](PlayerData::PRIVATE) is stored but never sent.
//!
//! **Joining and leaving.** Spawning a [`PersistentPlayer`](player::PersistentPlayer) starts a load; despawning it is
//! leaving: a last snapshot, a final save, and the lock is given back. Connecting clients get such an entity by
//! themselves. The entity is always in exactly one state:
//!
//! | component | means |
//! |---|---|
//! | [`PlayerLoading`](player::PlayerLoading) | the data is on its way; no persisted component is there yet |
//! | [`PlayerSession`](player::PlayerSession) | all of it is there, the session lock is held, it will be saved |
//! | [`PlayerFallback`](player::PlayerFallback) | loading failed; these are defaults, and they are never saved |
//!
//! On load, all components arrive in one structural change, so an observer of `On<Add, Coins>` sees the stored value and
//! everything beside it. Code that moves value between players must ask for `With<PlayerSession>` on both sides.
//!
//! **Saving.** Every [autosave interval](server::ServerSettings::autosave), when the player leaves, when the app exits,
//! and when you trigger [`SavePlayer`](player::SavePlayer). Only what changed is encoded, and what equals the stored data
//! is not written. [`PlayerSaved`](player::PlayerSaved) tells how it went.
//!
//! **Purchases.** A [`Product`](server::Product) is an id and a system that awards it. Payment providers' callbacks go
//! into a [`ReceiptInbox`](inbox::ReceiptInbox), in any process; the server that has the player's session runs the
//! product's system and saves the award in one transaction with the receipt's settlement.
//! [`PurchaseProcessed`](player::PurchaseProcessed) tells what has become of it, on the server and on the client.
//!
//! **Trades.** Whatever moves value from one player to another belongs into
//! [`commands.trade`](server::TradeCommandsExt::trade): two saves of their own can be torn apart by a crash.
//!
//! **Going from server to server.** A player who joins another server on the same store is asked for there and given up
//! here: saved, released, and loaded on the other side within some hundredths of a second. The game may refuse
//! ([`HandOffRequested`](player::HandOffRequested)), and send a player on itself
//! ([`TransferPlayer`](player::TransferPlayer)). [`HandOffSettings`](server::HandOffSettings) keep anybody from taking
//! players from a server by asking over and over.
//!
//! **Versions.** A new field with `#[serde(default)]` needs nothing. Any other change needs a higher
//! [`VERSION`](PlayerData::VERSION) and a step in [`migrate`](PlayerData::migrate). Data from newer code is refused and
//! left as it is, and keys that this server doesn't know survive, so servers can be updated one by one.
//!
//! **On the client.** The same types, [`PlayerDataPlugin::client`], and an entity with [`OwnPlayer`](player::OwnPlayer)
//! whose components follow the server's. The same events are triggered on it. What a player should be told is on it,
//! too: [`LoadDelayed`](player::LoadDelayed), [`SaveUnderWay`](player::SaveUnderWay),
//! [`SaveBlocked`](player::SaveBlocked), `LastSaveFailed`, and what became of [purchases](player::OwnPurchases).
//!
//! **Shutting down.** A signal, or [`ShutDown`](server::ShutDown), tells the clients and then exits; on exit everybody is
//! saved.
//!
//! **Watching it run.** [`PlayerDataDiagnosticsPlugin`](diagnostics::PlayerDataDiagnosticsPlugin) feeds Bevy's
//! diagnostics.
//!
//! # If you know the Roblox modules
//!
//! | there | here |
//! |---|---|
//! | `get_value` | `Query<&Coins>` |
//! | `set_value`, `update_value` | `Query<&mut Coins>` |
//! | `remove_value` | `commands.entity(player).remove::<Guild>()` |
//! | `player_data_updated` | `Changed<Coins>`, `On<Insert, Coins>` |
//! | `has_loaded` | `With<PlayerSession>`, [`PlayerLoaded`](player::PlayerLoaded) |
//! | `has_errored` | `With<PlayerFallback>`, [`PlayerLoadFailed`](player::PlayerLoadFailed) |
//! | wait until loaded | [`wait_for_load`](server::PlayerDataServer::wait_for_load) |
//! | save now, saved signal | [`SavePlayer`](player::SavePlayer), [`PlayerSaved`](player::PlayerSaved) |
//! | session locked by another server | [`LoadError::SessionLocked`](player::LoadError::SessionLocked) |
//! | a session ended from elsewhere | [`HandOffRequested`](player::HandOffRequested), [`SessionEnd::HandedOff`](player::SessionEnd::HandedOff) |
//! | `TeleportService`, after a save | [`TransferPlayer`](player::TransferPlayer), [`TransferredTo`](client::TransferredTo) |
//! | `ProcessReceipt`, developer products | [`Product`](server::Product), [`submit_receipt`](server::PlayerDataServer::submit_receipt) |
//! | `PurchaseGranted`, `NotProcessedYet` | [`PurchaseDecision`](player::PurchaseDecision) |
//! | mock store | [`MemoryStore`](store::MemoryStore), and `FaultyStore` in `testing` |
//!
//! # Cargo features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `server` | yes | loading and saving; brings `tokio` |
//! | `client` | yes | the mirror; a build with this feature alone compiles neither `tokio` nor SQLite |
//! | `sqlite` | yes | [`SqliteStore`](store::SqliteStore), with SQLite compiled in |
//! | `postgres` | no | `store::PostgresStore`: many machines on one PostgreSQL database, TLS by rustls |
//! | `testing` | no | [`testing`]: helpers for a game's own tests, a store with faults among them |
//!
//! # Troubleshooting
//!
//! **"…is still in use by a session on server…"**: the player is in a session elsewhere, or a server crashed less than
//! a [lease's TTL](server::ServerSettings::lease_ttl) ago. A server that restarts under its old
//! [name](server::ServerSettings::name) takes its players up again at once (on PostgreSQL, which can't prove it dead,
//! after that TTL); give each server a name of its own.
//!
//! **Everybody is on defaults**: look at the log, each failed load says why. The stored data is untouched.
//!
//! **A component doesn't come back as it was**: in debug builds, the first save of each type checks that, and logs which
//! field and which serde attribute is to blame. [`testing::assert_round_trip`] does the same in a test.
//!
//! **A purchase stays pending**: the player has to be in a session on a server that knows the product; the log says each
//! time why a handler could not award it.
//!
//! **The client sees nothing**: both sides have to persist the same public types with the same versions, and both
//! `ConnectionConfig`s need the crate's channels; the log of either side says what is missing.
//!
//! # Layout
//!
//! From the top down; each file imports only from below.
//!
//! | module | concern | knows |
//! |---|---|---|
//! | [`diagnostics`] | figures for Bevy's `DiagnosticsStore` | what server and client count |
//! | [`server`], [`client`] | Bevy systems that own sessions; the mirror | everything below |
//! | [`replication`] | what crosses the wire | neither store nor session |
//! | [`registry`] | which components are persisted, and how each becomes bytes | Bevy, documents |
//! | [`player`], [`systems`] | states, events and errors; system sets | Bevy |
//! | [`inbox`] | where payment providers' callbacks go | the store |
//! | [`session`] | the lock, the lease and the ordered queue | no Bevy |
//! | [`store`] | durable rows | no Bevy |
//! | [`document`] | one player's stored form | no Bevy, no I/O |
//! | `id` | the ids of players, products and purchases | nothing |
//!
//! Beside them are small ones with one purpose each: `plugin`, `reflect`, `watched`, `chance`, `steps`, and [`testing`].

#[cfg(feature = "server")]
mod chance;
#[cfg(feature = "client")]
pub mod client;
pub mod diagnostics;
pub mod document;
mod id;
#[cfg(feature = "server")]
pub mod inbox;
pub mod player;
mod plugin;
mod reflect;
pub mod registry;
pub mod replication;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod session;
#[cfg(all(feature = "server", feature = "step-points"))]
#[doc(hidden)]
pub mod steps;
#[cfg(all(feature = "server", not(feature = "step-points")))]
mod steps;
#[cfg(feature = "server")]
pub mod store;
pub mod systems;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "server")]
mod watched;

pub use id::{InvalidId, PlayerId, ProductId, PurchaseId};
pub use plugin::PlayerDataPlugin;
pub use registry::PlayerData;

/// What a game needs in scope.
pub mod prelude {
    #[cfg(feature = "client")]
    pub use crate::client::{
        DisconnectedByServer, LastSaveFailed, PlayerDataClientPlugin, ReplicationRefused, TransferredTo,
    };
    #[cfg(feature = "postgres")]
    pub use crate::store::PostgresStore;
    #[cfg(feature = "sqlite")]
    pub use crate::store::SqliteStore;
    pub use crate::{
        PlayerDataPlugin, PlayerId, ProductId, PurchaseId,
        diagnostics::PlayerDataDiagnosticsPlugin,
        document::{MigrateError, StoredValue},
        player::{
            DisconnectKind, ErrorKind, LoadDelayed, LoadError, OwnPlayer, OwnPurchases, PersistentPlayer,
            PlayerClient, PlayerFallback, PlayerLoadFailed, PlayerLoaded, PlayerLoading, PlayerSaved,
            PlayerSession, PlayerSessionEnded, PurchaseDecision, PurchaseProcessed, SaveBlocked, SaveError,
            SavePlayer, SaveUnderWay, SessionEnd,
        },
        registry::{PersistAppExt, PlayerData, Rule},
        replication::{ConnectionConfigExt, ReplicationSettings},
        systems::PlayerDataSystems,
    };
    #[cfg(feature = "server")]
    pub use crate::{
        inbox::ReceiptInbox,
        player::{HandOffRequested, PlayerTransferred, TradeError, TradeSettled, TransferPlayer},
        replication::ReplicationStats,
        server::{
            HandOffSettings, Identify, OnLoadFailure, OnSessionLost, PlayerDataFlushed, PlayerDataServer,
            PlayerDataServerPlugin, Product, PurchaseAppExt, PurchaseSettings, Receipt, Refuse, Revoked,
            ServerSettings, ServerStats, ShutDown, Trade, TradeCommandsExt,
        },
        store::{MemoryStore, NewReceipt},
    };
}
