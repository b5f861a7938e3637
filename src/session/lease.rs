//! Whose lease has lapsed, found out without comparing clocks.
//!
//! [`LeaseWatch`] is fed with every read of the leases and judges by this process's own monotonic clock alone:
//! a lease has lapsed when its beat was seen standing still for a whole TTL. It decides nothing: the store checks a
//! lapsed lease again when it is used.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use crate::store::{LapsedLease, Leases, ServerId};

/// Watches everybody's beats.
///
/// It only counts time during which we could see the leases, and could have seen them move. A read that failed
/// starts everything over, because whatever kept us from the store may have kept the holders from it too. So does a gap
/// between reads longer than half the TTL: this process stood still (a hung loop, a suspended machine), and the
/// holders may have done so with it. With beats at least twice per TTL, an outage of half a TTL leaves every
/// living server time for one beat before its lease is called lapsed.
///
/// All this caution is for taking players over. Who is to be *given* one is held to a stricter standard, see
/// [`silent`](Self::silent).
#[derive(Clone, Debug)]
pub struct LeaseWatch {
    ttl: Duration,
    last_read: Option<Instant>,
    still: BTreeMap<ServerId, Still>,
}

/// A beat that has not moved.
#[derive(Clone, Copy, Debug)]
struct Still {
    beat: u64,
    /// When the reply that showed it first had arrived.
    first: Instant,
    /// The same, of those since when nothing had to start over.
    since: Option<Instant>,
    lapsed: bool,
    silent: bool,
}

impl LeaseWatch {
    /// A watch that has seen nothing yet.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            last_read: None,
            still: BTreeMap::new(),
        }
    }

    /// Takes in a read of the leases that was `asked` for and `answered` at these moments.
    ///
    /// The store looked at some moment in between. A beat counts as standing still from the answer that showed it first
    /// to the question that was answered with it again, which is never longer than the truth. `false` if there was a
    /// gap since the last read, or in this one, so that everything starts over.
    pub fn read(&mut self, asked: Instant, answered: Instant, leases: &Leases) -> bool {
        let is_gap = |from: Instant, to: Instant| to.saturating_duration_since(from) > self.longest_gap();
        // Between two reads, or while this one was under way.
        let has_gap = self.last_read.is_some_and(|last| is_gap(last, asked)) || is_gap(asked, answered);
        if has_gap {
            self.start_over();
        }
        self.last_read = Some(answered);
        let before = std::mem::take(&mut self.still);
        self.still = leases
            .servers
            .iter()
            .map(|lease| {
                let still = match before.get(&lease.server) {
                    Some(&still) if still.beat == lease.beat => {
                        let for_ttl = |since| asked.saturating_duration_since(since) >= self.ttl;
                        Still {
                            since: still.since.or(Some(answered)),
                            lapsed: still.lapsed || still.since.is_some_and(for_ttl),
                            silent: still.silent || for_ttl(still.first),
                            ..still
                        }
                    }
                    _ => Still {
                        beat: lease.beat,
                        first: answered,
                        since: Some(answered),
                        lapsed: false,
                        silent: false,
                    },
                };
                (lease.server, still)
            })
            .collect();
        !has_gap
    }

    /// Takes in that a read failed: everything starts over.
    pub fn failed(&mut self) {
        self.last_read = None;
        self.start_over();
    }

    fn start_over(&mut self) {
        for still in self.still.values_mut() {
            still.since = None;
            still.lapsed = false;
        }
    }

    /// The leases that had lapsed when they were last read.
    #[must_use]
    pub fn lapsed(&self) -> Vec<LapsedLease> {
        let lapsed = self.still.iter().filter(|(_, still)| still.lapsed);
        lapsed
            .map(|(&server, still)| LapsedLease {
                server,
                beat: still.beat,
            })
            .collect()
    }

    /// The servers whose beat had not moved for a whole TTL when it was last read, whatever may have kept them, or us,
    /// from the store meanwhile. Each stays among them until its beat moves, or its lease is gone.
    ///
    /// It is no proof that they are dead, so nothing may be taken from them; but nobody should be given up to them
    /// either: a server that lives is out of it with its next beat.
    #[must_use]
    pub fn silent(&self) -> Vec<ServerId> {
        let silent = self.still.iter().filter(|(_, still)| still.silent);
        silent.map(|(&server, _)| server).collect()
    }

    /// Half the TTL, and an eighth of it on top: a beat every half TTL is allowed, and starts with the first tick of the
    /// game loop after it is due.
    fn longest_gap(&self) -> Duration {
        self.ttl / 2 + self.ttl / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ServerLease;

    const TTL: Duration = Duration::from_secs(30);

    struct Observer {
        watch: LeaseWatch,
        start: Instant,
        holder: ServerId,
    }

    impl Observer {
        fn new() -> Self {
            Self {
                watch: LeaseWatch::new(TTL),
                start: Instant::now(),
                holder: ServerId::random(),
            }
        }

        fn reads(&mut self, second: u64, beat: u64) -> bool {
            self.reads_slowly(second, second, beat)
        }

        fn reads_slowly(&mut self, asked: u64, answered: u64, beat: u64) -> bool {
            let at = |second| self.start + Duration::from_secs(second);
            let lease = ServerLease {
                server: self.holder,
                name: "arena".to_owned(),
                beat,
            };
            self.watch
                .read(at(asked), at(answered), &Leases { servers: vec![lease] });
            self.watch.lapsed()
                == [LapsedLease {
                    server: self.holder,
                    beat,
                }]
        }
    }

    #[test]
    fn a_lease_lapses_when_its_beat_stands_still_for_a_whole_ttl() {
        let mut observer = Observer::new();
        assert!(!observer.reads(0, 7));
        assert!(!observer.reads(10, 7));
        assert!(!observer.reads(20, 7));
        assert!(!observer.reads(29, 7));
        assert!(observer.reads(30, 7));
        assert!(
            observer.reads(40, 7),
            "a lapsed lease stays lapsed while it is still"
        );
    }

    #[test]
    fn a_beat_that_moves_starts_over_even_after_the_lease_had_lapsed() {
        let mut observer = Observer::new();
        for second in [0, 10, 20] {
            assert!(!observer.reads(second, 7));
        }
        assert!(!observer.reads(30, 8));
        for second in [40, 50] {
            assert!(!observer.reads(second, 8));
        }
        assert!(observer.reads(60, 8));
        assert!(!observer.reads(70, 9), "the holder is back");
    }

    #[test]
    fn a_failed_read_starts_over_because_the_holder_may_have_failed_too() {
        let mut observer = Observer::new();
        observer.reads(0, 7);
        observer.reads(10, 7);
        observer.watch.failed();
        assert!(!observer.reads(20, 7));
        assert!(!observer.reads(30, 7));
        assert!(!observer.reads(40, 7));
        assert!(observer.reads(50, 7));
    }

    #[test]
    fn a_gap_between_reads_starts_over_because_the_holder_may_have_stood_still_with_us() {
        let mut observer = Observer::new();
        observer.reads(0, 7);
        assert!(
            !observer.reads(3600, 7),
            "an hour of suspended machine is no proof"
        );
        observer.reads(3610, 7);
        observer.reads(3620, 7);
        assert!(observer.reads(3630, 7));
    }

    #[test]
    fn a_gap_while_a_read_is_under_way_starts_over_as_well() {
        let mut observer = Observer::new();
        observer.reads(0, 7);
        assert!(!observer.reads_slowly(10, 100, 7));
        assert!(!observer.reads(101, 7), "nobody knows when the store looked");
        assert!(!observer.reads(115, 7));
        assert!(observer.reads(130, 7));
    }

    #[test]
    fn a_beat_every_half_ttl_is_no_gap_even_if_the_tick_comes_late() {
        let mut observer = Observer::new();
        observer.reads(0, 7);
        observer.reads(16, 7);
        assert!(observer.reads(32, 7));
    }

    #[test]
    fn a_server_that_was_seen_silent_stays_so_until_its_beat_moves_whatever_happens_to_us() {
        let mut observer = Observer::new();
        let silent = |observer: &Observer| !observer.watch.silent().is_empty();
        observer.reads(0, 7);
        observer.reads(10, 7);
        observer.watch.failed();
        observer.reads(20, 7);
        assert!(!silent(&observer));
        assert!(!observer.reads(30, 7), "which proves nothing about its lease");
        assert!(silent(&observer), "but nobody has heard of it for a TTL");
        observer.watch.failed();
        assert!(silent(&observer));
        observer.reads(3600, 7);
        assert!(silent(&observer));
        observer.reads(3610, 8);
        assert!(!silent(&observer));
        observer
            .watch
            .read(observer.start, observer.start, &Leases::default());
        assert!(!silent(&observer));
    }

    #[test]
    fn a_slow_answer_shortens_what_was_seen_and_never_lengthens_it() {
        let mut observer = Observer::new();
        observer.reads_slowly(0, 9, 7);
        observer.reads(18, 7);
        observer.reads(30, 7);
        assert!(!observer.reads(38, 7), "seen from 9 to 38 at most");
        assert!(observer.reads(39, 7));
    }

    #[test]
    fn a_server_that_retired_is_forgotten() {
        let mut observer = Observer::new();
        for second in [0, 10, 20, 30] {
            observer.reads(second, 7);
        }
        let now = observer.start + Duration::from_secs(40);
        observer.watch.read(now, now, &Leases::default());
        assert_eq!(observer.watch.lapsed(), []);
    }
}
