//! Asking about players, and waiting for their loads outside the schedule.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use bevy::{
    ecs::{entity::EntityHashMap, system::SystemParam},
    prelude::*,
};
use tokio::sync::oneshot;

use super::{
    Server,
    purchases::answer::{self, WaitForPurchase},
    report::Report,
};
use crate::{
    id::PlayerId,
    inbox::ReceiptInbox,
    player::{LoadError, PersistentPlayer, PlayerFallback, PlayerLoaded, PlayerSession},
    store::NewReceipt,
};

/// Asks about the players of this server.
#[derive(SystemParam)]
pub struct PlayerDataServer<'w, 's> {
    server: Res<'w, Server>,
    waiters: ResMut<'w, Waiters>,
    players: Query<
        'w,
        's,
        (
            &'static PersistentPlayer,
            Option<&'static PlayerSession>,
            Option<&'static PlayerFallback>,
        ),
    >,
}

impl PlayerDataServer<'_, '_> {
    /// The entity that speaks for `player` on this server, from the update after its spawn until it leaves; `None` also
    /// for a player whose session was lost.
    #[must_use]
    pub fn entity_of(&self, player: PlayerId) -> Option<Entity> {
        self.server.entity_of.get(&player).copied()
    }

    /// How many requests of all players are waiting for the store or being answered by it.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.server.sessions.total_len()
    }

    /// How many requests of one player are waiting for the store or being answered by it.
    #[must_use]
    pub fn queue_len_of(&self, player: PlayerId) -> usize {
        self.server.sessions.queue_len(player)
    }

    /// Where payment providers' callbacks go. Clone it into a web server or any other thread.
    #[must_use]
    pub fn inbox(&self) -> ReceiptInbox {
        let reporter = Mutex::new(self.server.reporter.clone());
        ReceiptInbox::within(self.server.store.clone(), move |player| {
            let reporter = reporter.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody is left to hear it after the app is gone; the receipt is stored all the same.
            let _ = reporter.send(Report::Arrived(player));
        })
    }

    /// Stores a receipt and processes it, for platforms that ask the game itself whether a purchase was granted, and for
    /// tests. The receipt is durable before anything is awarded. It may be submitted as often as you like.
    ///
    /// The future needs no particular executor, and may be dropped. Don't block the main thread on it. It ends with
    /// [`NotProcessedYet`](crate::player::PurchaseDecision::NotProcessedYet) when the player is not in a session here,
    /// leaves first, or can't be given it now; the receipt then waits and is granted later.
    /// [`PurchaseProcessed`](crate::player::PurchaseProcessed) tells the same.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](crate::store::StoreError::Conflict) when the purchase is known with another player or
    /// product, and [`StoreError::Rejected`](crate::store::StoreError::Rejected) for a payload that is too large.
    pub fn submit_receipt(&self, receipt: NewReceipt) -> WaitForPurchase {
        answer::submit(&self.server, receipt)
    }

    /// A future for code outside the schedule that ends with the player's load. It needs no particular executor.
    ///
    /// Don't block the main thread on it: the load ends in an update.
    ///
    /// # Errors
    /// The future gives the [`LoadError`] of a failed load, and [`LoadError::Left`] when the entity is no player or
    /// leaves first.
    pub fn wait_for_load(&mut self, entity: Entity) -> WaitForLoad {
        let (sender, receiver) = oneshot::channel();
        let outcome = match self.players.get(entity) {
            Ok((&PersistentPlayer(player), Some(session), _)) => Some(Ok(PlayerLoaded {
                entity,
                player,
                first_join: session.first_join(),
            })),
            Ok((_, None, Some(fallback))) => Some(Err(fallback.reason().clone())),
            Ok((_, None, None)) => None,
            Err(_) => Some(Err(LoadError::Left)),
        };
        match outcome {
            // The receiver is right here.
            Some(outcome) => drop(sender.send(outcome)),
            None => self.waiters.0.entry(entity).or_default().push(sender),
        }
        WaitForLoad(receiver)
    }
}

/// The future of [`PlayerDataServer::wait_for_load`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct WaitForLoad(oneshot::Receiver<Result<PlayerLoaded, LoadError>>);

impl Future for WaitForLoad {
    type Output = Result<PlayerLoaded, LoadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The other end is dropped unanswered only with the whole app.
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(LoadError::Left)))
    }
}

/// Who waits for which entity's load.
#[derive(Resource, Default)]
pub(super) struct Waiters(EntityHashMap<Vec<oneshot::Sender<Result<PlayerLoaded, LoadError>>>>);

impl Waiters {
    /// Answers everybody who waits for `entity`.
    pub(super) fn resolve(&mut self, entity: Entity, outcome: &Result<PlayerLoaded, LoadError>) {
        for waiter in self.0.remove(&entity).into_iter().flatten() {
            // Somebody who stopped waiting needs no answer.
            let _ = waiter.send(outcome.clone());
        }
    }
}
