//! When to try again: exponential backoff with jitter, capped.
//!
//! [`RetryPolicy`] owns the arithmetic (a pure function of how often it failed and of a random number) and the loop
//! that a request runs inside its slot. It leaves to the caller what an attempt is, and what its errors mean.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use super::queue::{Turn, catch_panic};
use crate::{chance::random, store::StoreError};

/// How a request that met an unavailable store is repeated.
///
/// The pause after the *n*-th failure is `first * factor^(n - 1)`, at most `max`, of which a random part of up to
/// `jitter` is left out, so that a thousand players whose saves failed together don't come back together. A `jitter` of
/// 1 is the "full jitter" of Marc Brooker, *Exponential Backoff and Jitter* (AWS Architecture Blog, 2015).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The pause after the first failure, before jitter. Default: 100 ms.
    pub first: Duration,
    /// By how much each pause is longer than the one before; at least 1. Default: 2.
    pub factor: f64,
    /// The longest pause. Default: 5 s.
    pub max: Duration,
    /// The part of a pause that chance may take away, from 0 (none) to 1 (all of it). Default: 0.5.
    pub jitter: f64,
    /// How often a save is tried. Default: 6 times.
    pub attempts: Attempts,
    /// How long one attempt may take. A slower one counts as unavailable, with an unknown outcome. Default: 10 s.
    pub attempt_timeout: Duration,
}

/// How often a request is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// This often, the first attempt included; at least once.
    Limited(u32),
    /// Until it is answered.
    Unlimited,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(5),
            jitter: 0.5,
            attempts: Attempts::Limited(6),
            attempt_timeout: Duration::from_secs(10),
        }
    }
}

impl RetryPolicy {
    /// The pause after `failures` failures in a row (counted from 1), given a random number from 0 to 1.
    #[must_use]
    pub fn pause(&self, failures: u32, random: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let longest = self.max.as_secs_f64();
        // `min` also maps a power that overflowed to infinity, or 0 * infinity, to the cap.
        let capped = (self.first.as_secs_f64() * self.factor.powi(exponent)).min(longest);
        Duration::try_from_secs_f64(capped * (1.0 - self.jitter * random.clamp(0.0, 1.0))).unwrap_or(self.max)
    }

    /// The same policy without an end.
    #[must_use]
    pub fn unlimited(&self) -> Self {
        Self {
            attempts: Attempts::Unlimited,
            ..self.clone()
        }
    }

    /// Checks that the policy can work.
    ///
    /// # Errors
    /// A sentence that says which setting cannot work, and why.
    pub fn validate(&self) -> Result<(), String> {
        for (what, duration) in [
            ("first", self.first),
            ("max", self.max),
            ("attempt_timeout", self.attempt_timeout),
        ] {
            if duration.is_zero() {
                return Err(format!(
                    "the retry policy's `{what}` is zero: it must be a positive time"
                ));
            }
        }
        if !(self.factor.is_finite() && self.factor >= 1.0) {
            return Err(format!(
                "the retry policy's `factor` is {}: it must be at least 1",
                self.factor
            ));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(format!(
                "the retry policy's `jitter` is {}: it must be from 0 to 1",
                self.jitter
            ));
        }
        if self.attempts == Attempts::Limited(0) {
            return Err(
                "the retry policy's `attempts` are limited to 0: a save needs at least one".to_owned(),
            );
        }
        Ok(())
    }

    /// Makes one attempt, bounded by [`attempt_timeout`](Self::attempt_timeout), of which a panic is an error as well.
    pub(crate) async fn careful_attempt<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        catch_panic(self.attempt(call))
            .await
            .unwrap_or_else(|panic| Err(StoreError::unavailable(panic)))
    }

    /// Makes one attempt, bounded by [`attempt_timeout`](Self::attempt_timeout).
    pub(super) async fn attempt<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(self.attempt_timeout, call).await.unwrap_or_else(|_| {
            Err(StoreError::unavailable(format_args!(
                "no answer within {:?}",
                self.attempt_timeout
            )))
        })
    }

    /// Repeats an attempt while it meets an unavailable store, backing off in between.
    ///
    /// # Errors
    /// The first error that is not worth a retry, or the last one when the attempts are used up.
    pub(super) async fn retry<T, F>(
        &self,
        turn: &mut Turn,
        mut call: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut failures = 0;
        loop {
            match self.attempt(call()).await {
                Err(error) if error.is_worth_a_retry() => {
                    failures += 1;
                    tracing::debug!(failures, "an attempt failed: {error}");
                    if self.attempts.are_used_up(failures) {
                        return Err(error);
                    }
                    turn.backoff(self.pause(failures, random())).await;
                }
                answer => return answer,
            }
        }
    }
}

impl Attempts {
    pub(super) fn are_used_up(self, failures: u32) -> bool {
        matches!(self, Self::Limited(limit) if failures >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(policy: &RetryPolicy, random: f64) -> Vec<u64> {
        let millis =
            |failures| u64::try_from(policy.pause(failures, random).as_millis()).expect("short pauses");
        (1..=8).map(millis).collect()
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_chance_takes_at_most_the_jitter_away() {
        let policy = RetryPolicy {
            jitter: 0.5,
            ..RetryPolicy::default()
        };
        assert_eq!(pauses(&policy, 0.0), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pauses(&policy, 1.0), [50, 100, 200, 400, 800, 1600, 2500, 2500]);
    }

    #[test]
    fn no_number_of_failures_makes_a_pause_longer_than_the_cap() {
        let policy = RetryPolicy {
            factor: 1e30,
            max: Duration::MAX,
            ..RetryPolicy::default()
        };
        for failures in [0, 1, 2, 40, u32::MAX] {
            let capped = RetryPolicy {
                max: Duration::from_secs(1),
                ..policy.clone()
            };
            assert!(
                capped.pause(failures, 0.3) <= Duration::from_secs(1),
                "after {failures} failures"
            );
            assert!(
                policy.pause(failures, 0.3) <= Duration::MAX,
                "after {failures} failures"
            );
        }
    }

    #[test]
    fn policies_that_cannot_work_are_refused() {
        let cases = [
            RetryPolicy {
                first: Duration::ZERO,
                ..RetryPolicy::default()
            },
            RetryPolicy {
                max: Duration::ZERO,
                ..RetryPolicy::default()
            },
            RetryPolicy {
                factor: 0.5,
                ..RetryPolicy::default()
            },
            RetryPolicy {
                factor: f64::NAN,
                ..RetryPolicy::default()
            },
            RetryPolicy {
                jitter: 1.5,
                ..RetryPolicy::default()
            },
            RetryPolicy {
                jitter: f64::NAN,
                ..RetryPolicy::default()
            },
            RetryPolicy {
                attempts: Attempts::Limited(0),
                ..RetryPolicy::default()
            },
        ];
        for policy in cases {
            assert!(policy.validate().is_err(), "{policy:?} was accepted");
        }
    }
}
