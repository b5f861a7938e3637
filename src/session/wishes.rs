//! Wishes: asking the server that has a player to give them up, and hearing who asks that of us.
//!
//! [`Wishing`] is a waiting load's end of it: it leaves the wish, repeats it as long as it has to, is woken when the
//! wish has come true, and takes it back when the load ends without a session. [`watch`] is the look that a server
//! takes many times a second, for both ends at once. A lock of ours that nobody answers for is given back when somebody
//! wishes for it. Whether a wish is heeded is left to whoever [`watch`] reports it to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::Notify, task::JoinHandle, time::sleep};
use tracing::debug;

use super::{Inner, Sessions, heartbeat::LeaseState, settle};
use crate::{
    chance::random,
    id::PlayerId,
    store::{LockId, Wish, Wished, Wishes},
};

/// The wishes of this server's loads that were left and have not come true, each with who waits for it.
#[derive(Default)]
pub(super) struct WishList(Mutex<BTreeMap<LockId, Arc<Notify>>>);

impl WishList {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<LockId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Vec<LockId> {
        self.lock().keys().copied().collect()
    }

    /// Wakes the load whose wish this was, once.
    fn has_come_true(&self, lock: LockId) {
        let waiting = self.lock().remove(&lock);
        if let Some(came_true) = waiting {
            came_true.notify_one();
        }
    }
}

/// A load's wish.
pub(super) struct Wishing<'a> {
    sessions: &'a Sessions,
    player: PlayerId,
    lock: LockId,
    /// What the store was told last, and may know.
    told: Option<Wish>,
    came_true: Arc<Notify>,
}

impl<'a> Wishing<'a> {
    pub(super) fn new(sessions: &'a Sessions, player: PlayerId, lock: LockId) -> Self {
        Self {
            sessions,
            player,
            lock,
            told: None,
            came_true: Arc::default(),
        }
    }

    /// Sees to it that the holder of the lock `held` knows, and says whether it is time to ask for the lock again.
    pub(super) async fn leave(&mut self, held: LockId) -> bool {
        let inner = &self.sessions.inner;
        let wish = Wish {
            player: self.player,
            held,
            lock: self.lock,
            server: inner.server,
            until_beat: inner.heartbeat.until_beat(),
        };
        if self.told == Some(wish) {
            return false;
        }
        let answer = inner.settings.retry.careful_attempt(inner.store.wish(wish)).await;
        // Also of one that was not answered, the store may know.
        let is_first = self.told.replace(wish).is_none_or(|before| before.held != held);
        match answer {
            Ok(true) => {
                inner.wishes.lock().insert(self.lock, Arc::clone(&self.came_true));
                false
            }
            Ok(false) => is_first,
            Err(error) => {
                debug!("a wish could not be left: {error}");
                self.forget();
                false
            }
        }
    }

    /// Waits until the wish doesn't stand any more.
    pub(super) async fn came_true(&mut self) {
        self.came_true.notified().await;
        // If the lock is in the way still, or again, nobody is told that unless the wish is left anew.
        self.forget();
    }

    /// Has the next refusal leave the wish again, though the store may know of it.
    fn forget(&mut self) {
        if let Some(told) = &mut self.told {
            told.until_beat = 0;
        }
    }

    /// Takes the wish back: nobody waits any more. It takes its time beside the player's queue, where nobody waits for
    /// it: a wish names the lock that it is for, so a later one for the same player is another.
    pub(super) fn withdraw(mut self) {
        if self.told.take().is_none() {
            return;
        }
        let inner = &self.sessions.inner;
        let (store, retry) = (Arc::clone(&inner.store), inner.settings.retry.clone());
        let (sessions, player, lock) = (Arc::downgrade(inner), self.player, self.lock);
        inner.runtime.spawn(async move {
            let mut failures = 0;
            // It ends by itself as well, though not as soon; with the sessions it has ended.
            while let Err(error) = retry
                .careful_attempt(async { store.withdraw(player, lock).await })
                .await
            {
                debug!("a wish could not be taken back: {error}");
                failures += 1;
                if retry.attempts.are_used_up(failures) || !error.is_worth_a_retry() {
                    return;
                }
                sleep(retry.pause(failures, random())).await;
                if sessions.strong_count() == 0 {
                    return;
                }
            }
        });
    }
}

impl Drop for Wishing<'_> {
    fn drop(&mut self) {
        self.sessions.inner.wishes.lock().remove(&self.lock);
    }
}

/// Looks at the wishes for as long as the sessions live, and reports others' whenever they are not the same as before.
pub(super) async fn watch(sessions: Weak<Inner>, mut seen: impl FnMut(Vec<Wished>) + Send) {
    let mut known = Vec::new();
    let mut failures = 0;
    let mut nobodys = Nobodys::default();
    loop {
        let Some(pause) = sessions.upgrade().map(|inner| match failures {
            0 => inner.settings.wish_poll,
            _ => inner.settings.retry.pause(failures, random()),
        }) else {
            return;
        };
        sleep(pause).await;
        let Some(look) = sessions.upgrade().map(|inner| look(&inner)) else {
            return;
        };
        let answer = look.await;
        let Some(inner) = sessions.upgrade() else { return };
        let for_us = match answer {
            Some((waiting, Wishes { mut for_us, ours })) => {
                failures = 0;
                for lock in waiting {
                    if ours.binary_search(&lock).is_err() {
                        inner.wishes.has_come_true(lock);
                    }
                }
                // Nobody can use a player where nobody is.
                let silent = inner.heartbeat.silent();
                for_us.retain(|Wished { wish, .. }| !silent.contains(&wish.server));
                for_us
            }
            // Whoever is not known to wait now is not heeded.
            None => {
                failures += 1;
                Vec::new()
            }
        };
        if for_us != known {
            known.clone_from(&for_us);
            seen(for_us);
        }
        nobodys.give_back(inner, &known).await;
    }
}

/// Takes one look, if there is anything to look for: who waited when it was taken, and which wishes stand, if the store
/// answers. It holds on to the store alone.
fn look(inner: &Arc<Inner>) -> impl Future<Output = Option<(Vec<LockId>, Wishes)>> + Send + use<> {
    // Who joins them during the look may not be seen by it.
    let waiting = inner.wishes.waiting();
    let has_locks = inner.registry.has_seats() || inner.suspects.has_any();
    let is_of_interest = has_locks || !waiting.is_empty();
    let is_at_work = inner.heartbeat.phase() == LeaseState::Held && is_of_interest;
    let (store, server, retry) = (
        Arc::clone(&inner.store),
        inner.server,
        inner.settings.retry.clone(),
    );
    async move {
        if !is_at_work {
            return Some((Vec::new(), Wishes::default()));
        }
        retry
            .careful_attempt(async { store.wishes(server).await })
            .await
            .inspect_err(|error| debug!("could not look for wishes: {error}"))
            .ok()
            .map(|wishes| (waiting, wishes))
    }
}

/// Gives locks back that no session answers for, because they were granted after they had been given up: they are no
/// reason to let anybody wait. It happens beside the looks, which it must not hold up.
#[derive(Default)]
struct Nobodys {
    /// Whether the last try has failed.
    running: Option<JoinHandle<bool>>,
    failures: u32,
}

impl Nobodys {
    async fn give_back(&mut self, inner: Arc<Inner>, for_us: &[Wished]) {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            let has_failed = running.await.unwrap_or(true);
            self.failures = if has_failed { self.failures + 1 } else { 0 };
        }
        if self.running.is_some() {
            return;
        }
        let is_nobodys = |wished: &&Wished| !inner.registry.is_in_use(wished.wish.held);
        let nobodys: Vec<Wish> = for_us
            .iter()
            .filter(is_nobodys)
            .map(|wished| wished.wish)
            .collect();
        if nobodys.is_empty() {
            return;
        }
        let retry = &inner.settings.retry;
        let pause = match self.failures {
            0 => None,
            failures => Some(retry.pause(failures, random())),
        };
        let (sessions, runtime) = (Arc::downgrade(&inner), inner.runtime.clone());
        self.running = Some(runtime.spawn(async move {
            if let Some(pause) = pause {
                sleep(pause).await;
            }
            let mut has_failed = false;
            for wish in nobodys {
                let Some(inner) = sessions.upgrade() else { break };
                if !inner.registry.is_in_use(wish.held)
                    && let Err(error) = settle::look(&Sessions { inner }, wish.player, wish.held).await
                {
                    debug!("a late session lock could not be given back: {error}");
                    has_failed = true;
                }
            }
            has_failed
        }));
    }
}
