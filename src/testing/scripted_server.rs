//! A server without a store, where the test says what happens to the players.

use std::time::Duration;

use bevy::prelude::*;
use bevy_renet::renet::ClientId;

use crate::{
    id::{ProductId, PurchaseId},
    player::{
        DisconnectKind, LoadDelayed, LoadError, PersistentPlayer, PlayerFallback, PlayerLoadFailed,
        PlayerLoaded, PlayerLoading, PlayerSaved, PlayerSession, PlayerSessionEnded, PurchaseDecision,
        PurchaseProcessed, SaveBlocked, SaveError, SaveUnderWay, SessionEnd,
    },
    replication::{self, ReplicationSettings},
};

/// Replicates players to their clients like the real server plugin, but loads and saves nothing: spawn entities with
/// [`PersistentPlayer`] and [`PlayerClient`](crate::player::PlayerClient), and say what becomes of them with
/// [`ScriptPlayer`]. For trying a game's client, its loading screen and error messages above all, against everything
/// that can happen.
#[derive(Default)]
pub struct ScriptedServerPlugin {
    /// What concerns the connection.
    pub replication: ReplicationSettings,
}

impl Plugin for ScriptedServerPlugin {
    fn build(&self, app: &mut App) {
        replication::install_server(app, self.replication.clone());
    }
}

/// What happens to a player on a [scripted server](ScriptedServerPlugin).
pub trait ScriptPlayer {
    /// The load succeeds with these components.
    fn finish_load(&mut self, player: Entity, first_join: bool, values: impl Bundle);
    /// The load takes long.
    fn delay_load(&mut self, player: Entity, reason: LoadError, gives_up_in: Duration);
    /// The load fails, and the player plays on these components.
    fn fail_load(&mut self, player: Entity, error: LoadError, defaults: impl Bundle);
    /// A save is on its way.
    fn start_save(&mut self, player: Entity);
    /// A save ends, and none is on its way any more.
    fn finish_save(&mut self, player: Entity, result: Result<(), SaveError>);
    /// The store refuses the player's data from now on, or accepts it again.
    fn block_saves(&mut self, player: Entity, reason: Option<SaveError>);
    /// A purchase is processed, or could not be.
    fn process_purchase(
        &mut self,
        player: Entity,
        purchase: PurchaseId,
        product: ProductId,
        decision: PurchaseDecision,
    );
    /// The session ends; the entity stays.
    fn end_session(&mut self, player: Entity, reason: SessionEnd);
    /// The server disconnects a client and says why.
    fn disconnect_client(&mut self, client: ClientId, kind: DisconnectKind, reason: &str);
}

impl ScriptPlayer for World {
    fn finish_load(&mut self, player: Entity, first_join: bool, values: impl Bundle) {
        let id = id_of(self, player);
        self.entity_mut(player)
            .remove::<(PlayerLoading, LoadDelayed)>()
            .insert((PlayerSession::new(first_join), values));
        self.trigger(PlayerLoaded {
            entity: player,
            player: id,
            first_join,
        });
        self.flush();
    }

    fn delay_load(&mut self, player: Entity, reason: LoadError, gives_up_in: Duration) {
        self.entity_mut(player)
            .insert(LoadDelayed::new(reason, gives_up_in));
    }

    fn fail_load(&mut self, player: Entity, error: LoadError, defaults: impl Bundle) {
        let id = id_of(self, player);
        self.entity_mut(player)
            .remove::<(PlayerLoading, LoadDelayed)>()
            .insert((PlayerFallback::new(error.clone()), defaults));
        self.trigger(PlayerLoadFailed {
            entity: player,
            player: id,
            error,
        });
        self.flush();
    }

    fn start_save(&mut self, player: Entity) {
        self.entity_mut(player).insert(SaveUnderWay::new());
    }

    fn finish_save(&mut self, player: Entity, result: Result<(), SaveError>) {
        let id = id_of(self, player);
        self.entity_mut(player).remove::<SaveUnderWay>();
        self.trigger(PlayerSaved {
            entity: player,
            player: id,
            is_final: false,
            result,
        });
        self.flush();
    }

    fn block_saves(&mut self, player: Entity, reason: Option<SaveError>) {
        let mut player = self.entity_mut(player);
        match reason {
            Some(reason) => player.insert(SaveBlocked::new(reason)),
            None => player.remove::<SaveBlocked>(),
        };
    }

    fn process_purchase(
        &mut self,
        player: Entity,
        purchase: PurchaseId,
        product: ProductId,
        decision: PurchaseDecision,
    ) {
        let id = id_of(self, player);
        self.trigger(PurchaseProcessed {
            entity: player,
            player: id,
            purchase,
            product,
            decision,
        });
        self.flush();
    }

    fn end_session(&mut self, player: Entity, reason: SessionEnd) {
        let id = id_of(self, player);
        self.trigger(PlayerSessionEnded {
            entity: player,
            player: id,
            reason,
        });
        self.entity_mut(player).remove::<PlayerSession>();
        self.flush();
    }

    fn disconnect_client(&mut self, client: ClientId, kind: DisconnectKind, reason: &str) {
        replication::disconnect_after_send(self, client, kind, reason);
    }
}

fn id_of(world: &World, player: Entity) -> crate::PlayerId {
    world
        .get::<PersistentPlayer>(player)
        .expect("players on a scripted server have a `PersistentPlayer`")
        .0
}
