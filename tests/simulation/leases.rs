//! Whose lease has really lapsed, by the time of the world and not by anybody's clock.

use std::collections::BTreeMap;

use bevy_player_data::store::{Acquire, Leases, LockHolder, ServerId};

use crate::{
    oracle::Check,
    server::{LEASE_TTL, TICK},
};

/// What is seen where beats take effect.
#[derive(Default)]
pub struct TrueLeases {
    /// In ticks.
    now: u64,
    beats: BTreeMap<ServerId, Beat>,
}

struct Beat {
    beat: u64,
    /// Since when it stands still.
    since: u64,
}

impl TrueLeases {
    pub fn tick(&mut self) {
        self.now += 1;
    }

    pub fn read(&mut self, leases: &Leases) {
        let before = std::mem::take(&mut self.beats);
        for lease in &leases.servers {
            let known = before.get(&lease.server).filter(|known| known.beat == lease.beat);
            let since = known.map_or(self.now, |known| known.since);
            let beat = lease.beat;
            self.beats.insert(lease.server, Beat { beat, since });
        }
    }

    pub fn retired(&mut self, server: ServerId) {
        self.beats.remove(&server);
    }

    /// Whether a lock may be taken from its holder: not while that server beats.
    ///
    /// Who asks has watched for a whole TTL by a clock that may be a callback's timeout ahead of the world's, and from
    /// when an answer came: half the TTL is what is certain.
    pub fn may_be_taken(&self, from: &LockHolder, acquire: &Acquire) -> Check {
        let is_orphan = from.server == acquire.server && acquire.orphan == Some(from.lock);
        let Some(beat) = self.beats.get(&from.server).filter(|_| !is_orphan) else {
            return Ok(());
        };
        let ticks = self.now - beat.since;
        if TICK * u32::try_from(ticks).unwrap_or(u32::MAX) >= LEASE_TTL / 2 {
            Ok(())
        } else {
            Err(format!(
                "I1: the lock of {} was taken from server {}, whose last beat was {ticks} ticks ago",
                acquire.player, from.server
            ))
        }
    }
}
