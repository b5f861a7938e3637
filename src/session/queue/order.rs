//! The bookkeeping of the ordered queue: who waits behind whom, and who may start.
//!
//! [`Order`] is pure: it hands out ids and jobs, and starts, drops and tells nobody. It promises that a request can
//! start exactly when it is at the head of the queues of all its keys, and that a job is handed out once.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::Hash,
    mem,
};

use super::{NotRun, Request, Skip};

pub(super) struct Order<K, J> {
    next_id: u64,
    /// The ids that wait for each key, or run. A key without any has no entry.
    queues: HashMap<K, VecDeque<u64>>,
    requests: HashMap<u64, Queued<K, J>>,
}

struct Queued<K, J> {
    request: Request<K>,
    /// In how many of its keys' queues it is not at the head.
    blocked: usize,
    /// Taken when the request starts, or is dropped.
    job: Option<J>,
}

impl<K: Eq + Hash + Clone, J> Order<K, J> {
    pub(super) fn new() -> Self {
        Self {
            next_id: 0,
            queues: HashMap::new(),
            requests: HashMap::new(),
        }
    }

    pub(super) fn len(&self, key: &K) -> usize {
        self.queues.get(key).map_or(0, VecDeque::len)
    }

    pub(super) fn total_len(&self) -> usize {
        self.requests.len()
    }

    /// Puts a request at the end of its keys' queues; its id, and whether it can start at once.
    pub(super) fn push(&mut self, mut request: Request<K>, job: J) -> (u64, bool) {
        forget_repetitions(&mut request.keys);
        let id = self.next_id;
        self.next_id += 1;
        let mut blocked = 0;
        for key in &request.keys {
            let queue = self.queues.entry(key.clone()).or_default();
            blocked += usize::from(!queue.is_empty());
            queue.push_back(id);
        }
        self.requests.insert(
            id,
            Queued {
                request,
                blocked,
                job: Some(job),
            },
        );
        (id, blocked == 0)
    }

    /// Hands the job out, once: to whoever starts the request, or to whoever drops it.
    pub(super) fn take_job(&mut self, id: u64) -> Option<J> {
        self.requests.get_mut(&id)?.job.take()
    }

    /// Takes a request out of its queues; the ids of those that can start now.
    pub(super) fn remove(&mut self, id: u64) -> Vec<u64> {
        let mut ready = Vec::new();
        let keys = self
            .requests
            .remove(&id)
            .map(|ended| ended.request.keys)
            .unwrap_or_default();
        for key in keys {
            if let Some(next) = self.leave(key, id)
                && let Some(next_request) = self.requests.get_mut(&next)
            {
                next_request.blocked -= 1;
                if next_request.blocked == 0 {
                    ready.push(next);
                }
            }
        }
        ready
    }

    /// Takes all requests out, as they are. Ids go on from where they were: a ticket never names a later request.
    pub(super) fn clear(&mut self) -> Self {
        let empty = Self {
            next_id: self.next_id,
            ..Self::new()
        };
        mem::replace(self, empty)
    }

    /// Takes a request out of one queue; the id of the one that is at its head instead.
    fn leave(&mut self, key: K, id: u64) -> Option<u64> {
        let Entry::Occupied(mut entry) = self.queues.entry(key) else {
            return None;
        };
        let queue = entry.get_mut();
        let place = queue.iter().position(|&queued| queued == id)?;
        queue.remove(place);
        let head = queue.front().copied();
        if head.is_none() {
            entry.remove();
        }
        head.filter(|_| place == 0)
    }

    /// What may be dropped at shutdown, in the order in which it was asked for.
    pub(super) fn skippable(&self) -> Vec<(u64, NotRun)> {
        let mut dropped = Vec::new();
        for queue in self.queues.values() {
            let mut followed = HashSet::new();
            for (&id, queued) in queue
                .iter()
                .rev()
                .filter_map(|id| Some((id, self.requests.get(id)?)))
            {
                if let Some(reason) = queued.reason_to_skip(&followed) {
                    dropped.push((id, reason));
                }
                if queued.request.keys.len() > 1 {
                    // It may be refused and take all that is behind it along: what lands before it is not made up for.
                    followed.clear();
                }
                followed.extend(queued.request.series);
            }
        }
        // A map has no order of its own.
        dropped.sort_unstable_by_key(|&(id, _)| id);
        dropped
    }
}

/// Leaves each key once. There are one or two.
fn forget_repetitions<K: Eq>(keys: &mut Vec<K>) {
    let mut place = 1;
    while place < keys.len() {
        if keys[..place].contains(&keys[place]) {
            keys.remove(place);
        } else {
            place += 1;
        }
    }
}

impl<K, J> Queued<K, J> {
    /// Whether it may be dropped, given the series that have a request behind it.
    fn reason_to_skip(&self, followed: &HashSet<u64>) -> Option<NotRun> {
        if self.job.is_none() || self.request.keys.len() > 1 {
            return None;
        }
        match self.request.skip {
            Skip::Never => None,
            Skip::IfFollowed => {
                let is_followed = self
                    .request
                    .series
                    .is_some_and(|series| followed.contains(&series));
                is_followed.then_some(NotRun::Skipped)
            }
            Skip::Always => Some(NotRun::Cancelled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_requests_costs_nothing() {
        let mut order = Order::new();
        let ids: Vec<u64> = (0..1000)
            .map(|key| order.push(Request::of_all([key, key + 1]), ()).0)
            .collect();
        for id in ids {
            order.remove(id);
        }
        assert!(order.queues.is_empty() && order.requests.is_empty());
    }
}
