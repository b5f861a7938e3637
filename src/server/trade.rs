//! Trades: something moves from one player's data to another's, and is never in both, nor in neither.
//!
//! The game's own system makes the exchange in memory, all or nothing ([`attempt`]), and one commit of both documents
//! ([`Session::save_together`]) makes it durable. That request takes its place in both players' queues while nobody else
//! can save either of them, and whatever is saved later, on leave or exit included, waits for it.

use std::time::Duration;

use bevy::{ecs::system::BoxedSystem, prelude::*};
use tracing::{info, warn};

use super::{
    Player, Server, ServerStats,
    attempt::{attempt, run_system},
    leave,
    purchases::answer,
    report::Report,
    save::{self, LiveSession, TradeState},
};
use crate::{
    id::PlayerId,
    player::{SaveError, SessionEnd, TradeError, TradeSettled},
    session::Session,
    steps,
    store::Settlement,
};

/// Who trades: what a trade's system is given. Both are in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trade {
    /// The first player's entity.
    pub a: Entity,
    /// The second player's entity.
    pub b: Entity,
}

/// Trades between players.
pub trait TradeCommandsExt {
    /// Moves something between two players' data, so that it is in both players' saved data or in neither's.
    ///
    /// `exchange` is a system that changes the persisted components of these two players, and of nobody else. When it
    /// returns an error, panics or is skipped, or when one of the two could not be saved afterwards, every persisted
    /// component of both is put back as it was. Then both are saved in one commit, and everything that is saved of
    /// either later waits for that. [`TradeSettled`] tells both how it ended.
    ///
    /// ```
    /// # use bevy::prelude::*;
    /// # use bevy_player_data::prelude::*;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Component, Serialize, Deserialize, Default)] struct Relics(Vec<u64>);
    /// # impl PlayerData for Relics { const KEY: &'static str = "relics"; }
    /// fn give(mut commands: Commands, from: Entity, to: Entity, serial: u64) {
    ///     commands.trade([from, to], move |In(trade): In<Trade>, mut relics: Query<&mut Relics>| -> Result {
    ///         let [mut from, mut to] = relics.get_many_mut([trade.a, trade.b])?;
    ///         let place = from.0.iter().position(|&relic| relic == serial).ok_or("it is gone")?;
    ///         let relic = from.0.remove(place);
    ///         to.0.push(relic);
    ///         Ok(())
    ///     });
    /// }
    /// ```
    fn trade<M>(
        &mut self,
        players: [Entity; 2],
        exchange: impl IntoSystem<In<Trade>, Result, M> + Send + Sync + 'static,
    ) -> &mut Self;
}

impl TradeCommandsExt for Commands<'_, '_> {
    fn trade<M>(
        &mut self,
        players: [Entity; 2],
        exchange: impl IntoSystem<In<Trade>, Result, M> + Send + Sync + 'static,
    ) -> &mut Self {
        let system: BoxedSystem<In<Trade>, Result> = Box::new(IntoSystem::into_system(exchange));
        self.queue(move |world: &mut World| trade(world, players, system));
        self
    }
}

/// One side of a trade that is on its way to the store.
#[derive(Clone)]
pub(super) struct Party {
    entity: Entity,
    player: PlayerId,
    ticket: u64,
    /// What the commit settles beside.
    carried: Vec<Settlement>,
}

fn trade(world: &mut World, entities: [Entity; 2], mut system: BoxedSystem<In<Trade>, Result>) {
    let mut server = world.resource_mut::<Server>();
    if let Some(deferred) = &mut server.deferred {
        // In the middle of an award or another trade, which asks for this one, and is undone with all that if it fails.
        deferred.push(Box::new(move |world, stands| {
            if stands {
                return trade(world, entities, system);
            }
            let message = "what asked for it has failed".to_owned();
            refuse(world, entities, &TradeError::Failed { message });
        }));
        return;
    }
    if let Err(error) = check(&server, entities) {
        return refuse(world, entities, &error);
    }
    system.initialize(world);
    let [a, b] = entities;
    let exchanged = attempt(
        world,
        &entities,
        |world| run_system(&mut system, Trade { a, b }, world),
        |world, ()| {
            steps::reached("trade.done");
            commit(world, entities);
            steps::reached("trade.queued");
        },
    );
    match exchanged {
        Ok(()) => {
            // Not before: observers have no place in an attempt.
            for entity in entities {
                save::show_saving(world, entity);
            }
        }
        Err(failure) => {
            let message = failure.to_string();
            refuse(world, entities, &TradeError::Failed { message });
        }
    }
}

/// Whether both can trade now.
fn check(server: &Server, entities: [Entity; 2]) -> Result<(), TradeError> {
    if entities[0] == entities[1] {
        return Err(TradeError::SamePlayer);
    }
    for entity in entities {
        let Some(Player::Live(live)) = server.players.get(&entity) else {
            return Err(TradeError::NoSession { entity });
        };
        let player = live.player;
        if live.session.is_over() {
            return Err(TradeError::NoSession { entity });
        }
        if live.blocked.is_some() {
            return Err(TradeError::SaveBlocked { player });
        }
        if live.trade != TradeState::No {
            return Err(TradeError::Busy { player });
        }
    }
    Ok(())
}

/// Queues the commit of both, as they were just captured.
fn commit(world: &mut World, entities: [Entity; 2]) {
    let mut server = world.resource_mut::<Server>();
    let (reporter, asked) = (server.reporter.clone(), server.runtime.now());
    let [Some(mut a), Some(mut b)] = entities.map(|entity| server.take_live(entity)) else {
        unreachable!("both were judged to be in a session a moment ago");
    };
    let parties = [(entities[0], &a), (entities[1], &b)].map(|(entity, live)| Party {
        entity,
        player: live.player,
        ticket: live.ticket,
        carried: live.ledger.unsettled().to_vec(),
    });
    let snapshots = [&mut a, &mut b].map(|live| {
        live.trade = TradeState::Queued;
        live.is_queued();
        live.snapshot()
    });
    let [snapshot_a, snapshot_b] = snapshots;
    let (slow_reporter, slow_parties) = (reporter.clone(), parties.clone());
    Session::save_together(
        [(&mut a.session, snapshot_a), (&mut b.session, snapshot_b)],
        move |error| {
            // Nobody is left to hear it after the app is gone; nor below.
            let _ = slow_reporter.send(Report::TradeDelayed {
                parties: slow_parties,
                error: error.into(),
            });
        },
        move |result| {
            let result = result.map(|_| ()).map_err(|errors| errors.map(SaveError::from));
            let took = asked.elapsed();
            let _ = reporter.send(Report::Traded {
                parties,
                result,
                took,
            });
        },
    );
    server.players.insert(entities[0], Player::Live(a));
    server.players.insert(entities[1], Player::Live(b));
}

/// Takes in that the store can't be reached for now. The commit goes on being tried.
pub(super) fn apply_delayed(world: &mut World, parties: [Party; 2], error: SaveError) {
    for party in parties {
        let mut server = world.resource_mut::<Server>();
        if let Some(live) = server.session_mut(party.entity, party.ticket) {
            live.trade = TradeState::Delayed;
            let unsettled = live.ledger.unsettled().to_vec();
            let result = Err(error.clone());
            answer::apply_saved(world, party.entity, party.ticket, unsettled, &result);
            save::answer(
                world,
                party.entity,
                party.player,
                party.ticket,
                Err(error.clone()),
                Duration::ZERO,
            );
        }
    }
}

/// Takes in how the commit of a trade has ended.
pub(super) fn apply(
    world: &mut World,
    parties: [Party; 2],
    result: Result<(), [SaveError; 2]>,
    took: Duration,
) {
    for (n, party) in parties.iter().enumerate() {
        let result = result.as_ref().copied().map_err(|errors| errors[n].clone());
        let mut server = world.resource_mut::<Server>();
        let Some(live) = server.session_mut(party.entity, party.ticket) else {
            // Who has left is answered by the final save, which waited for this one.
            continue;
        };
        live.trade = TradeState::No;
        save::apply(
            world,
            party.entity,
            party.player,
            party.ticket,
            party.carried.clone(),
            result.clone(),
            took,
        );
        if result.is_err() && world.resource::<Server>().is_live(party.entity, party.ticket) {
            // Nothing of what is in memory can be saved any more, whatever the reason was.
            leave::end(world, party.entity, SessionEnd::CommitRefused);
        }
    }
    steps::reached("trade.settled");
    let [a, b] = parties;
    let mut stats = world.resource_mut::<ServerStats>();
    match &result {
        Ok(()) => stats.trades += 1,
        Err(_) => stats.trades_refused += 1,
    }
    let result = result.map_err(|[first, second]| TradeError::CommitRefused {
        // The one that says why, and not only that it was the other.
        message: match second {
            SaveError::LockLost | SaveError::Unconfirmed => second.to_string(),
            _ => first.to_string(),
        },
    });
    if let Err(error) = &result {
        warn!(
            "the sessions of players {} and {} end with their trade: {error}",
            a.player, b.player
        );
    }
    tell(world, [(a.entity, a.player), (b.entity, b.player)], &result);
}

/// A trade that has changed nothing.
fn refuse(world: &mut World, entities: [Entity; 2], error: &TradeError) {
    info!("no trade between {} and {}: {error}", entities[0], entities[1]);
    world.resource_mut::<ServerStats>().trades_refused += 1;
    let server = world.resource::<Server>();
    let player = |entity| server.players.get(&entity).map(Player::id);
    // Who is no player is told nothing.
    let [a, b] = entities.map(player);
    let sides = [(entities[0], a.or(b)), (entities[1], b.or(a))];
    if let [(entity_a, Some(a)), (entity_b, Some(b))] = sides {
        tell(world, [(entity_a, a), (entity_b, b)], &Err(error.clone()));
    }
}

fn tell(world: &mut World, parties: [(Entity, PlayerId); 2], result: &Result<(), TradeError>) {
    let [a, b] = parties;
    for ((entity, player), (_, partner)) in [(a, b), (b, a)] {
        world.trigger(TradeSettled {
            entity,
            player,
            partner,
            result: result.clone(),
        });
        world.flush();
    }
}

impl Server {
    fn take_live(&mut self, entity: Entity) -> Option<Box<LiveSession>> {
        match self.players.remove(&entity)? {
            Player::Live(live) => Some(live),
            other => {
                self.players.insert(entity, other);
                None
            }
        }
    }
}
