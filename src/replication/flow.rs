//! How much is on its way to one client, counted by what the client says it has applied.
//!
//! renet's own acknowledgements don't serve: packets are acknowledged even when a stalled game never reads them, and
//! then they pile up in its receive buffer until renet gives the connection up.

use std::collections::VecDeque;

/// What a frame costs beside its bytes, on either side.
const OVERHEAD: usize = 64;
/// The most frames on their way. A client that reads again after a pause wants the newest value, not a history.
const MAX_FRAMES: usize = 256;
/// The largest piece into which a message is cut, in bytes: small enough for something else to go in between.
const MAX_PART: usize = 16 * 1024;
/// The part of the budget that a message in parts may fill, so that small changes don't queue behind megabytes.
const MAX_PARTS_OUTSTANDING: usize = 256 * 1024;

/// The account of one connection.
pub(super) struct Flow {
    sent: u64,
    acknowledged: u64,
    /// The sizes of the frames between the two, oldest first.
    sizes: VecDeque<usize>,
    outstanding: usize,
    budget: usize,
}

impl Flow {
    /// An account for a channel that holds `channel` bytes.
    pub(super) fn new(max_outstanding: usize, channel: usize) -> Self {
        Self {
            sent: 0,
            acknowledged: 0,
            sizes: VecDeque::new(),
            outstanding: 0,
            budget: max_outstanding.min(channel / 2),
        }
    }

    /// The largest piece of a message that goes into one frame, in bytes.
    pub(super) fn part(&self) -> usize {
        (self.budget / 4).saturating_sub(2 * OVERHEAD).clamp(1, MAX_PART)
    }

    /// Whether a frame with a part of the largest size may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.sizes.len() < MAX_FRAMES && self.outstanding + self.part() + 2 * OVERHEAD <= self.budget
    }

    /// Whether there will be room for a while even if nothing is acknowledged, for messages in parts as well.
    pub(super) fn has_plenty(&self) -> bool {
        self.sizes.len() < MAX_FRAMES / 4 && self.outstanding < MAX_PARTS_OUTSTANDING.min(self.budget / 2) / 2
    }

    /// Whether that frame may be one of a message in parts.
    pub(super) fn has_room_for_part(&self) -> bool {
        self.has_room() && self.outstanding < MAX_PARTS_OUTSTANDING.min(self.budget / 2)
    }

    /// Enters a frame of `bytes` bytes, and returns its number.
    pub(super) fn record(&mut self, bytes: usize) -> u64 {
        self.sizes.push_back(bytes + OVERHEAD);
        self.outstanding += bytes + OVERHEAD;
        self.sent += 1;
        self.sent
    }

    /// Strikes off everything up to frame `number`. Returns false for what an honest client never says: a number that
    /// was already acknowledged, or was never sent.
    pub(super) fn acknowledge(&mut self, number: u64) -> bool {
        if number <= self.acknowledged || number > self.sent {
            return false;
        }
        while self.acknowledged < number {
            let size = self
                .sizes
                .pop_front()
                .expect("one for each frame that was sent and not acknowledged");
            self.outstanding -= size;
            self.acknowledged += 1;
        }
        true
    }

    pub(super) fn is_acknowledged(&self, number: u64) -> bool {
        number <= self.acknowledged
    }

    /// What is on its way, in bytes.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn never_more_than_half_a_channel_is_on_its_way() {
        for channel in [64 * 1024, 100_000, MIB, 5 * MIB] {
            let mut flow = Flow::new(usize::MAX, channel);
            while flow.has_room() {
                flow.record(flow.part());
            }
            assert!(
                flow.outstanding() <= channel / 2,
                "{} of {channel}",
                flow.outstanding()
            );
            assert!(
                flow.outstanding() > 0,
                "a channel of {channel} bytes is of some use"
            );
        }
    }

    #[test]
    fn an_acknowledgement_makes_room_again() {
        let mut flow = Flow::new(MIB, 5 * MIB);
        let mut last = 0;
        while flow.has_room() {
            last = flow.record(100);
        }
        assert_eq!(
            last, 256,
            "however small the frames, there is an end to their number"
        );
        assert!(flow.acknowledge(1));
        assert!(flow.has_room());
        assert!(flow.acknowledge(last));
        assert_eq!(flow.outstanding(), 0);
    }

    #[test]
    fn an_acknowledgement_of_nothing_new_is_no_acknowledgement() {
        let mut flow = Flow::new(MIB, MIB);
        assert!(!flow.acknowledge(1), "nothing was sent");
        flow.record(1);
        assert!(!flow.acknowledge(0));
        assert!(!flow.acknowledge(u64::MAX));
        assert!(flow.acknowledge(1));
        assert!(!flow.acknowledge(1), "twice");
    }
}
