//! Servers and clients on one thread, whose clocks move only when a test says so.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use bevy::{
    app::MainScheduleOrder,
    ecs::schedule::{ScheduleLabel, Schedules, SingleThreadedExecutor},
    prelude::*,
};
use bevy_player_data::{
    prelude::*,
    server::{FlushPlayerData, WaitForPurchase},
};
use tokio::runtime::{Builder, Runtime};

/// A runtime without threads, on a paused clock, for `driven_by`.
pub fn paused_runtime() -> Arc<Runtime> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    Arc::new(runtime.expect("a runtime without threads"))
}

/// The same order each time, and no time spent on what takes most of it: schedules that have nothing to do, and handing
/// work to threads.
pub fn run_on_one_thread(app: &mut App) {
    let busy = [
        First.intern(),
        PreUpdate.intern(),
        PostUpdate.intern(),
        Last.intern(),
        FlushPlayerData.intern(),
    ];
    app.world_mut()
        .resource_mut::<MainScheduleOrder>()
        .labels
        .retain(|label| busy.contains(label));
    for (_, schedule) in app.world_mut().resource_mut::<Schedules>().iter_mut() {
        schedule.set_executor(SingleThreadedExecutor::new());
    }
}

/// How a player is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Loading,
    InSession,
    OnFallback,
}

/// Everybody who is a player on a server, in whatever state.
pub fn players(server: &mut World) -> Vec<(Entity, PlayerId, Presence)> {
    let mut players = server.query::<(Entity, &PersistentPlayer, Has<PlayerSession>, Has<PlayerFallback>)>();
    players
        .iter(server)
        .map(|(entity, &PersistentPlayer(player), in_session, on_fallback)| {
            let presence = match (in_session, on_fallback) {
                (true, _) => Presence::InSession,
                (_, true) => Presence::OnFallback,
                _ => Presence::Loading,
            };
            (entity, player, presence)
        })
        .collect()
}

/// Where payment providers' callbacks to a server go.
pub fn inbox(server: &mut World) -> ReceiptInbox {
    let inbox = server.run_system_cached(|server: PlayerDataServer| server.inbox());
    inbox.expect("the plugin is there")
}

/// How many requests are in a server's queues.
pub fn queue_len(server: &mut World) -> usize {
    let len = server.run_system_cached(|server: PlayerDataServer| server.queue_len());
    len.expect("the plugin is there")
}

/// Has a receipt stored and processed by the game.
pub fn submit(server: &mut World, receipt: NewReceipt) -> WaitForPurchase {
    let submit = |In(receipt): In<NewReceipt>, server: PlayerDataServer| server.submit_receipt(receipt);
    let answer = server.run_system_cached_with(submit, receipt);
    answer.expect("the plugin is there")
}
