//! Where this crate has chance from: random ids, and the jitter of pauses.
//!
//! It promises that ids don't repeat: they are UUIDs of version 4, from the system's randomness. With the feature
//! `testing` a test can let everything that is random on its thread follow from a seed instead
//! ([`testing::follow_seed`](crate::testing::follow_seed)), so that a history can be told again word for word.

use uuid::Uuid;

#[cfg(feature = "testing")]
pub(crate) use seeded::{SplitMix64, follow_seed};

/// A new random id.
pub(crate) fn uuid() -> Uuid {
    #[cfg(feature = "testing")]
    if let Some(bytes) = seeded::bytes() {
        return uuid::Builder::from_random_bytes(bytes).into_uuid();
    }
    Uuid::new_v4()
}

/// A random number from 0 to 1.
pub(crate) fn random() -> f64 {
    // The first 32 bits of such an id are all random.
    let (high, ..) = uuid().as_fields();
    f64::from(high) / f64::from(u32::MAX)
}

#[cfg(feature = "testing")]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static SOURCE: Cell<Option<SplitMix64>> = const { Cell::new(None) };
    }

    /// A small generator of numbers that look random: `SplitMix64`, by Steele, Lea and Flood (2014).
    #[derive(Clone, Copy)]
    pub(crate) struct SplitMix64(pub(crate) u64);

    impl SplitMix64 {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    pub(crate) fn follow_seed(seed: Option<u64>) {
        SOURCE.set(seed.map(SplitMix64));
    }

    /// The next 16 bytes, if this thread follows a seed.
    pub(super) fn bytes() -> Option<[u8; 16]> {
        let mut source = SOURCE.get()?;
        let bits = u128::from(source.next()) << 64 | u128::from(source.next());
        SOURCE.set(Some(source));
        Some(bits.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_stay_between_0_and_1_and_differ() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number)));
        assert!(
            numbers.windows(2).any(|pair| pair[0] != pair[1]),
            "a hundred equal random numbers"
        );
    }

    #[cfg(feature = "testing")]
    #[test]
    fn what_follows_from_a_seed_is_the_same_each_time_and_ids_still_differ() {
        let ids = |seed| {
            follow_seed(seed);
            let ids: Vec<Uuid> = (0..100).map(|_| uuid()).collect();
            follow_seed(None);
            ids
        };
        let first = ids(Some(7));
        assert_eq!(first, ids(Some(7)));
        assert_ne!(first, ids(Some(8)));
        assert_ne!(ids(None), ids(None));
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 100);
    }
}
