//! The times that leases, loads and retries keep to, and which combinations of them can work.

use std::time::Duration;

use super::retry::RetryPolicy;
use crate::document::Compression;

/// How a server's sessions behave. Start from [`SessionSettings::default`], which suits most games.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// The server's name, by which other servers and players hear who holds a lock. It outlives restarts, and no two
    /// running servers may share one: a predecessor, which may still be flushing, is waited for, but not for much longer
    /// than two TTLs. Default: `server`.
    pub name: String,
    /// How often the lease is refreshed. Default: 10 s.
    pub beat: Duration,
    /// How long a lease must have stood still before others may take its locks. The same on every server of the
    /// store, and at least twice the beat. Default: 30 s.
    pub lease_ttl: Duration,
    /// How long a load may take in all, including its wait for a lock that another server holds. Longer than
    /// `lease_ttl`, so that a player whose server crashed gets in at the first try. Default: 40 s.
    pub load_timeout: Duration,
    /// Whether a load that meets another server's lock asks that server for the player. One that doesn't waits until
    /// the lock is free, and looks for that once a second. Default: yes.
    pub ask: bool,
    /// How often to look who wishes for a player of whom, if that is [asked for](super::Sessions::watch_wishes): with
    /// each hand-off, both servers wait for half of it on average. Default: 10 ms.
    pub wish_poll: Duration,
    /// How saves are retried. Loads retry until `load_timeout` and closes until they land, with the same backoff.
    pub retry: RetryPolicy,
    /// How documents are compressed before they are stored. Default: not at all.
    pub compression: Compression,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            name: "server".to_owned(),
            beat: Duration::from_secs(10),
            lease_ttl: Duration::from_secs(30),
            load_timeout: Duration::from_secs(40),
            ask: true,
            wish_poll: Duration::from_millis(10),
            retry: RetryPolicy::default(),
            compression: Compression::None,
        }
    }
}

impl SessionSettings {
    /// The longest time that can be set: a year. Longer ones might not fit the clocks that they are added to.
    pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// Checks that the settings can work together.
    ///
    /// # Errors
    /// A sentence that says which setting cannot work, and why.
    pub fn validate(&self) -> Result<(), String> {
        if self.name.trim().is_empty() {
            return Err("the server's `name` is empty: give each server a name of its own".to_owned());
        }
        for (what, duration) in [
            ("beat", self.beat),
            ("lease_ttl", self.lease_ttl),
            ("load_timeout", self.load_timeout),
            ("wish_poll", self.wish_poll),
        ] {
            if duration.is_zero() {
                return Err(format!("`{what}` is zero: it must be a positive time"));
            }
            if duration > Self::LONGEST {
                return Err(format!("`{what}` is longer than a year"));
            }
        }
        if self.beat > self.lease_ttl / 2 {
            return Err(format!(
                "`beat` ({:?}) is slower than half of `lease_ttl` ({:?}): one beat that comes late would let the \
                 lease lapse; beat at least twice per TTL",
                self.beat, self.lease_ttl
            ));
        }
        self.retry.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut SessionSettings)) -> String {
        let mut settings = SessionSettings::default();
        change(&mut settings);
        settings.validate().expect_err("these settings cannot work")
    }

    #[test]
    fn the_defaults_can_work() {
        assert_eq!(SessionSettings::default().validate(), Ok(()));
    }

    #[test]
    fn a_beat_slower_than_half_the_ttl_is_refused() {
        assert!(refused(|s| s.beat = s.lease_ttl / 2 + Duration::from_millis(1)).contains("beat"));
        let on_the_edge = SessionSettings {
            beat: Duration::from_secs(15),
            ..SessionSettings::default()
        };
        assert_eq!(on_the_edge.validate(), Ok(()));
    }

    #[test]
    fn empty_names_and_zero_times_are_refused_by_name() {
        assert!(refused(|s| s.name = " ".to_owned()).contains("name"));
        assert!(refused(|s| s.beat = Duration::ZERO).contains("`beat`"));
        assert!(refused(|s| s.lease_ttl = Duration::ZERO).contains("`lease_ttl`"));
        assert!(refused(|s| s.load_timeout = Duration::ZERO).contains("`load_timeout`"));
        assert!(refused(|s| s.retry.attempt_timeout = Duration::ZERO).contains("`attempt_timeout`"));
    }
}
