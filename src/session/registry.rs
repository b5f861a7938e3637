//! Which locks of this process are in use, who has a session, and which loads wait for one to end.
//!
//! [`Registry`] is bookkeeping: it calls nobody and enqueues nothing, so its lock is never held while other code runs.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Sessions, opening::Load};
use crate::{id::PlayerId, store::LockId};

#[derive(Default)]
pub(super) struct Registry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// No load is admitted any more.
    refusing: bool,
    /// Loads that have not been answered, by their numbers.
    loads: BTreeMap<u64, Arc<Load>>,
    /// Players whose session the game holds.
    seats: BTreeMap<PlayerId, Seat>,
    /// Locks that a load, a session or a queued close of this process answers for.
    in_use: HashSet<LockId>,
}

/// A player whose session the game holds, and the loads that wait for its end.
struct Seat {
    lock: LockId,
    parked: VecDeque<Arc<Load>>,
}

/// Marks a lock as in use for as long as it lives. A lock of our own boot that nobody marks is an orphan.
pub(super) struct InUse {
    sessions: Sessions,
    lock: LockId,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a load until it is answered. `false` if none is admitted any more.
    pub(super) fn admit(&self, load: &Arc<Load>) -> bool {
        let mut state = self.lock();
        if !state.refusing {
            state.loads.insert(load.number(), Arc::clone(load));
        }
        !state.refusing
    }

    /// Forgets a load that was answered.
    pub(super) fn forget(&self, load: &Load) {
        let mut state = self.lock();
        let admitted = state.loads.remove(&load.number());
        let parked = state.seats.get_mut(&load.player()).and_then(|seat| {
            let place = seat
                .parked
                .iter()
                .position(|parked| parked.number() == load.number())?;
            seat.parked.remove(place)
        });
        drop(state);
        drop((admitted, parked));
    }

    /// Admits no further load; those that have not been answered.
    pub(super) fn refuse_openings(&self) -> Vec<Arc<Load>> {
        let mut state = self.lock();
        state.refusing = true;
        state.loads.values().cloned().collect()
    }

    /// Makes a load wait for the end of the session that the game still holds of its player. `false` if it holds none.
    pub(super) fn park(&self, load: &Arc<Load>) -> bool {
        let mut state = self.lock();
        let seat = state.seats.get_mut(&load.player());
        seat.map(|seat| seat.parked.push_back(Arc::clone(load))).is_some()
    }

    /// The loads that wait for the end of a session.
    pub(super) fn parked(&self) -> Vec<Arc<Load>> {
        self.lock()
            .seats
            .values()
            .flat_map(|seat| seat.parked.iter().cloned())
            .collect()
    }

    /// Takes down that the game holds a session of this player from now on.
    pub(super) fn seat(&self, player: PlayerId, lock: LockId) {
        let seat = Seat {
            lock,
            parked: VecDeque::new(),
        };
        let before = self.lock().seats.insert(player, seat);
        debug_assert!(
            before.is_none(),
            "a load runs only while the game holds no session of its player"
        );
    }

    /// Takes down that the game gave a session back; the loads that waited for it, in their order.
    pub(super) fn unseat(&self, player: PlayerId, lock: LockId) -> VecDeque<Arc<Load>> {
        let mut state = self.lock();
        match state.seats.get(&player) {
            Some(seat) if seat.lock == lock => state
                .seats
                .remove(&player)
                .map(|seat| seat.parked)
                .unwrap_or_default(),
            _ => VecDeque::new(),
        }
    }

    /// Whether the game holds any session.
    pub(super) fn has_seats(&self) -> bool {
        !self.lock().seats.is_empty()
    }

    pub(super) fn is_in_use(&self, lock: LockId) -> bool {
        self.lock().in_use.contains(&lock)
    }
}

impl InUse {
    pub(super) fn mark(sessions: &Sessions, lock: LockId) -> Self {
        sessions.inner.registry.lock().in_use.insert(lock);
        Self {
            sessions: sessions.clone(),
            lock,
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.sessions.inner.registry.lock().in_use.remove(&self.lock);
    }
}
