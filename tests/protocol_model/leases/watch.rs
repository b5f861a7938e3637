//! What an observer concludes from the beats that it read, in units of half a TTL.

use crate::store::{LeaseRow, SERVERS};

/// The TTL, in units.
pub const TTL: u8 = 2;

/// `session/lease.rs` in small. That the two agree is tested below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watch {
    /// How long ago the last read was; counted up to the TTL. `None` after one that failed.
    since_read: Option<u8>,
    still: [Option<Still>; SERVERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Still {
    boot: u8,
    beat: u8,
    /// For how long the beat has been known; counted up to the TTL.
    age: u8,
    lapsed: bool,
}

impl Watch {
    /// One unit of time passes.
    pub fn tick(&mut self) {
        self.since_read = self.since_read.map(|age| TTL.min(age + 1));
        for still in self.still.iter_mut().flatten() {
            still.age = TTL.min(still.age + 1);
        }
    }

    pub fn read(&mut self, leases: &[LeaseRow; SERVERS]) {
        if self.since_read == Some(TTL) {
            // More than five eighths of the TTL: the holders may have stood still with us.
            self.still = [None; SERVERS];
        }
        self.since_read = Some(0);
        for (still, row) in self.still.iter_mut().zip(leases) {
            *still = row.boot.map(|boot| match *still {
                Some(seen) if (seen.boot, seen.beat) == (boot, row.beat) => Still {
                    lapsed: seen.lapsed || seen.age >= TTL,
                    ..seen
                },
                _ => Still {
                    boot,
                    beat: row.beat,
                    age: 0,
                    lapsed: false,
                },
            });
        }
    }

    pub fn failed(&mut self) {
        *self = Self::default();
    }

    /// The same, with the servers in another order.
    pub fn renamed(&self, order: &[usize; SERVERS]) -> Self {
        Self {
            still: order.map(|from| self.still[from]),
            ..*self
        }
    }

    /// Which boot of a server lapsed, and at which beat.
    pub fn lapsed(&self, server: usize) -> Option<(u8, u8)> {
        let still = self.still[server].filter(|still| still.lapsed)?;
        Some((still.boot, still.beat))
    }
}

#[cfg(test)]
mod tests {
    use bevy_player_data::{
        session::LeaseWatch,
        store::{LapsedLease, Leases, ServerId, ServerLease},
    };
    use tokio::time::{Duration, Instant};

    use super::*;

    const UNIT: Duration = Duration::from_secs(15);
    const STEPS: u32 = 9;

    /// Every history of nine steps out of four: read the same beat, read a new one, fail to read, wait.
    #[test]
    fn the_watch_of_the_model_concludes_what_the_real_one_does() {
        let mut lapses = 0;
        for history in 0..4_u32.pow(STEPS) {
            let mut model = Watch::default();
            let mut real = LeaseWatch::new(UNIT * u32::from(TTL));
            let (server, mut now, mut beat) = (ServerId::from_bytes([7; 16]), Instant::now(), 1);
            for step in 0..STEPS {
                match history / 4_u32.pow(step) % 4 {
                    0 => {
                        now += UNIT;
                        model.tick();
                        continue;
                    }
                    1 => {
                        model.failed();
                        real.failed();
                        continue;
                    }
                    2 => beat += 1,
                    _ => {}
                }
                let row = LeaseRow { boot: Some(1), beat };
                model.read(&[row; SERVERS]);
                let lease = ServerLease {
                    server,
                    name: String::new(),
                    beat: beat.into(),
                };
                real.read(now, now, &Leases { servers: vec![lease] });
                let lapsed = model.lapsed(0).map(|(_, beat)| LapsedLease {
                    server,
                    beat: beat.into(),
                });
                assert_eq!(
                    real.lapsed(),
                    Vec::from_iter(lapsed),
                    "history {history}, step {step}"
                );
                lapses += u32::from(lapsed.is_some());
            }
        }
        println!("{} histories, {lapses} lapses", 4_u32.pow(STEPS));
        assert!(lapses > 0);
    }
}
