//! A value that tasks wait for.
//!
//! Whoever waits is woken in the order in which they came. (tokio's `watch` wakes them in a random order, with which no
//! history could be told twice.)

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Notify::new(),
        }
    }

    pub(crate) fn get(&self) -> T {
        *self.lock()
    }

    /// Lets `change` look at the value and say whether it has changed it; if so, whoever waits is woken.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = change(&mut self.lock());
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }

    /// Waits until the value is as wanted.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(T) -> bool) -> T {
        loop {
            // Registered before looking, so that no change goes unnoticed in between.
            let changed = self.changed.notified();
            let value = self.get();
            if wanted(value) {
                return value;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
