//! Who was asked for how often.

use std::time::Duration;

use bevy::platform::collections::HashMap;

use crate::{id::PlayerId, store::LockId};

/// Who was asked for lately, in whatever session: since when, and by which wishes, told apart by the locks that they
/// are for.
#[derive(Default)]
pub(super) struct WishLog(HashMap<PlayerId, (Duration, Vec<LockId>)>);

/// How many wishes for a player within [`LATELY`] are more than somebody who changes servers can account for.
pub(super) const MANY_WISHES: usize = 10;
pub(super) const LATELY: Duration = Duration::from_secs(10 * 60);

impl WishLog {
    /// Takes a wish down. If it is a new one, it is the so many-th; of too many, not all are told apart.
    pub(super) fn note(&mut self, player: PlayerId, lock: LockId, now: Duration) -> Option<usize> {
        if !self.0.contains_key(&player) {
            self.0.retain(|_, (since, _)| now.saturating_sub(*since) < LATELY);
        }
        let (since, locks) = self.0.entry(player).or_insert_with(|| (now, Vec::new()));
        if now.saturating_sub(*since) >= LATELY {
            (*since, *locks) = (now, Vec::new());
        }
        if locks.len() == MANY_WISHES || locks.contains(&lock) {
            return None;
        }
        locks.push(lock);
        Some(locks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_pulled_back_and_forth_is_noticed_though_each_session_hears_one_wish() {
        let ada = PlayerId::from_name("ada");
        let mut log = WishLog::default();
        let mut count = 0;
        for n in 0..20 {
            let (now, lock) = (Duration::from_secs(10 * n), LockId::random());
            for _ in 0..600 {
                // It stands for a while.
                count = log.note(ada, lock, now).unwrap_or(count);
            }
            assert_eq!(count, (n as usize + 1).min(MANY_WISHES), "which is told once");
        }
        let later = LATELY + Duration::from_secs(1);
        assert_eq!(log.note(ada, LockId::random(), later), Some(1));
    }

    #[test]
    fn nothing_is_kept_of_who_was_asked_for_long_ago() {
        let mut log = WishLog::default();
        for n in 0..100 {
            let player = PlayerId::from_name(&n.to_string());
            log.note(player, LockId::random(), LATELY * n);
        }
        assert_eq!(log.0.len(), 1);
    }
}
