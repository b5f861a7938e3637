//! Wishes: asking the server that has a player to give them up, and hearing who asks that of us.
//!
//! [`Wishing`] is a waiting load's end of it: it leaves the wish, repeats it as long as it has to, is woken when the wish
//! has come true, and takes it back when the load ends without a session. [`watch`] is the look that a server takes many
//! times a second, for both ends at once. A lock of ours that nobody answers for is given back when somebody wishes for it. Whether a wish is heeded is left to whoever [`watch`] reports it to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::Notify, time::sleep};
use tracing::debug;

use super::{Inner, Sessions, heartbeat::LeaseState, queue::Turn, settle};
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
                // The next refusal tries again.
                self.told = Some(Wish {
                    until_beat: 0,
                    ..wish
                });
                false
            }
        }
    }

    /// Waits until the wish doesn't stand any more.
    pub(super) async fn came_true(&self) {
        self.came_true.notified().await;
    }

    /// Takes the wish back: nobody waits any more.
    pub(super) async fn withdraw(mut self, turn: &mut Turn) {
        if self.told.take().is_none() {
            return;
        }
        let inner = &self.sessions.inner;
        let withdraw = || inner.store.withdraw(self.player, self.lock);
        // It ends by itself as well, though not as soon.
        if let Err(error) = inner.settings.retry.retry(turn, withdraw).await {
            debug!("a wish could not be taken back: {error}");
        }
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
        let for_us = match look.await {
            Some(for_us) => {
                failures = 0;
                for_us
            }
            // Whoever is not known to wait now is not heeded.
            None => {
                failures += 1;
                Vec::new()
            }
        };
        give_back_what_is_nobodys(&sessions, &for_us).await;
        if for_us != known {
            known.clone_from(&for_us);
            seen(for_us);
        }
    }
}

/// A lock of ours that no session answers for, because it was granted after it had been given up, is no reason to wait.
async fn give_back_what_is_nobodys(sessions: &Weak<Inner>, for_us: &[Wished]) {
    for Wished { wish, .. } in for_us {
        let Some(inner) = sessions.upgrade() else { return };
        if !inner.registry.is_in_use(wish.held)
            && let Err(error) = settle::look(&Sessions { inner }, wish.player, wish.held).await
        {
            debug!("a late session lock could not be given back: {error}");
        }
    }
}

/// Takes one look: wakes loads whose wishes don't stand any more, and returns others' wishes, if the store answers. It holds
/// on to the store alone.
fn look(inner: &Arc<Inner>) -> impl Future<Output = Option<Vec<Wished>>> + Send + use<> {
    // Who joins them during the look may not be seen by it.
    let waiting: Vec<_> = inner
        .wishes
        .lock()
        .iter()
        .map(|(&lock, came_true)| (lock, Arc::clone(came_true)))
        .collect();
    let has_locks = inner.registry.has_seats() || inner.suspects.has_any();
    let is_of_interest = has_locks || !waiting.is_empty();
    let is_at_work = inner.heartbeat.phase() == LeaseState::Held && is_of_interest;
    let (store, server, retry) = (
        Arc::clone(&inner.store),
        inner.server,
        inner.settings.retry.clone(),
    );
    let lapsed = inner.heartbeat.lapsed();
    async move {
        if !is_at_work {
            return Some(Vec::new());
        }
        let Wishes { mut for_us, ours } = retry
            .careful_attempt(async { store.wishes(server).await })
            .await
            .inspect_err(|error| debug!("could not look for wishes: {error}"))
            .ok()?;
        for (lock, came_true) in waiting {
            if ours.binary_search(&lock).is_err() {
                came_true.notify_one();
            }
        }
        // Nobody can use a player there.
        for_us.retain(|Wished { wish, .. }| lapsed.iter().all(|lapsed| lapsed.server != wish.server));
        Some(for_us)
    }
}
