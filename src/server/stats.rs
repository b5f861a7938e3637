//! Counters for a status line or a metrics exporter.

use std::time::Duration;

use bevy::prelude::*;

/// What the server has done since it started.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Loads that ended with a session.
    pub loads: u64,
    /// Loads that failed.
    pub load_failures: u64,
    /// Saves that are durable, final ones included.
    pub saves: u64,
    /// How long those took together, each from when it was captured until it was durable. Divided by
    /// [`saves`](Self::saves) it is the mean latency.
    pub save_time: Duration,
    /// Saves that failed. Many of them are tried again by a later save.
    pub save_failures: u64,
    /// Purchases that were granted, durably.
    pub purchases_granted: u64,
    /// Purchases that were refused for good.
    pub purchases_refused: u64,
    /// Purchases that were refunded.
    pub purchases_refunded: u64,
    /// Trades that are durable.
    pub trades: u64,
    /// Trades that did not come about.
    pub trades_refused: u64,
    /// Players who went on to another server, with everything saved: those who were asked for, and those who were sent.
    pub hand_offs: u64,
    /// How often a server that asked for a player was refused, by the game or because the data can't be saved.
    pub hand_offs_refused: u64,
}
