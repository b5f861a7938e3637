//! What a session knows about its player's receipts.
//!
//! The [`Ledger`] is what makes "once" true within a session: each receipt has a stage in it from the first attempt to
//! the session's end, so a row that was read a moment too early, and still says "pending", is not awarded again. Across
//! sessions the store sees to it.

use std::time::Duration;

use bevy::platform::collections::HashMap;

use crate::{
    chance::random,
    id::{ProductId, PurchaseId},
    player::PurchaseDecision,
    store::{Outcome, ReceiptState, Settlement, StoredReceipt},
};

pub(in crate::server) struct Ledger {
    entries: HashMap<PurchaseId, Entry>,
    /// What the data in memory contains and the store has not acknowledged, in the order in which it happened.
    unsettled: Vec<Settlement>,
    /// Whether the store is being asked for open receipts.
    pub(super) fetching: Fetching,
    /// Receipts that were read and have to wait for the next update.
    pub(super) rest: Vec<StoredReceipt>,
    /// When the first of those that were read before them is due.
    pub(super) next_due: Option<Duration>,
    /// How often reading them has failed in a row.
    pub(super) fetch_failures: u32,
    /// How often saving what is unsettled has failed in a row.
    pub(super) save_failures: u32,
    /// When the receipts are looked at again, if that is planned.
    pub(super) alarm: Option<Duration>,
    /// By how much the pauses of this session are shorter than they might be, from 0 to 1.
    pub(super) jitter: f64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            entries: HashMap::default(),
            unsettled: Vec::new(),
            fetching: Fetching::No,
            rest: Vec::new(),
            next_due: None,
            fetch_failures: 0,
            save_failures: 0,
            alarm: None,
            jitter: random(),
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fetching {
    #[default]
    No,
    Yes,
    /// And once more afterwards: something has arrived since.
    YesAndAgain,
}

struct Entry {
    product: ProductId,
    /// Whether it was awarded in this session. It never is again, whatever a row that was read too early says.
    is_awarded: bool,
    /// When its product was found to be unknown.
    unknown_since: Option<Duration>,
    stage: Stage,
}

enum Stage {
    /// It could not be processed, so often in a row; it is tried again at this time.
    NotNow { failures: u32, due: Duration },
    /// It is in memory, and some save has to carry it.
    Unsettled { refund_waits: bool },
    /// It is settled in the store.
    Settled(Outcome),
}

/// What a receipt's row calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Processing it.
    Process(ToDo),
    /// Reading it once more: it is to be refunded, and the row is older than its award.
    ReadAgain,
}

/// What there is to do about a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToDo {
    /// Award it.
    Grant,
    /// Take it back.
    Revoke,
    /// Note that it was never granted: the refund came first.
    Forget,
}

impl Ledger {
    /// Whether receipts are being read or processed, or an award has yet to be saved.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.fetching != Fetching::No || !self.rest.is_empty() || !self.unsettled.is_empty()
    }

    /// What is to be done about a receipt as it was read from the store at some time during this session.
    pub(super) fn decide(&mut self, receipt: &StoredReceipt, now: Duration, is_urgent: bool) -> Option<Next> {
        let refund = receipt.refund_requested;
        let mut was_awarded = false;
        match self.entries.get_mut(&receipt.purchase) {
            None => {}
            Some(entry) => match &mut entry.stage {
                Stage::NotNow { due, .. } if now < *due && !is_urgent => return None,
                Stage::NotNow { .. } | Stage::Settled(Outcome::Granted) => was_awarded = entry.is_awarded,
                Stage::Settled(_) => return None,
                Stage::Unsettled { refund_waits } => {
                    // It is settled first, and then looked at again.
                    *refund_waits |= refund;
                    return None;
                }
            },
        }
        match (receipt.state, refund) {
            (ReceiptState::Pending, _) if was_awarded => refund.then_some(Next::ReadAgain),
            (ReceiptState::Pending, true) => Some(Next::Process(ToDo::Forget)),
            (ReceiptState::Pending, false) => Some(Next::Process(ToDo::Grant)),
            (ReceiptState::Granted, true) => Some(Next::Process(ToDo::Revoke)),
            _ => None,
        }
    }

    /// Takes down that a receipt could not be processed; how often in a row.
    pub(super) fn not_now(&mut self, receipt: &StoredReceipt, product: &ProductId) -> u32 {
        let entry = self.entry(&receipt.purchase, product);
        let failures = match entry.stage {
            Stage::NotNow { failures, .. } => failures.saturating_add(1),
            _ => 1,
        };
        let due = Duration::MAX;
        entry.stage = Stage::NotNow { failures, due };
        failures
    }

    /// Sets when a receipt is to be tried again.
    pub(super) fn try_again(&mut self, purchase: &PurchaseId, at: Duration) {
        if let Some(Stage::NotNow { due, .. }) = self.entries.get_mut(purchase).map(|entry| &mut entry.stage)
        {
            *due = at;
        }
    }

    /// When a receipt that could not be processed is to be tried again.
    pub(super) fn due(&self, purchase: &PurchaseId) -> Option<Duration> {
        match self.entries.get(purchase)?.stage {
            Stage::NotNow { due, .. } => Some(due),
            Stage::Unsettled { .. } | Stage::Settled(_) => None,
        }
    }

    /// Since when the session knows that its server doesn't know a receipt's product.
    pub(super) fn unknown_since(
        &mut self,
        receipt: &StoredReceipt,
        product: &ProductId,
        now: Duration,
    ) -> Duration {
        *self
            .entry(&receipt.purchase, product)
            .unknown_since
            .get_or_insert(now)
    }

    fn entry(&mut self, purchase: &PurchaseId, product: &ProductId) -> &mut Entry {
        self.entries.entry(purchase.clone()).or_insert_with(|| Entry {
            product: product.clone(),
            is_awarded: false,
            unknown_since: None,
            stage: Stage::NotNow {
                failures: 0,
                due: Duration::ZERO,
            },
        })
    }

    /// Takes down what is in memory from now on: the next snapshot carries it.
    pub(super) fn settle(&mut self, purchase: PurchaseId, product: ProductId, outcome: Outcome) {
        let entry = self.entry(&purchase, &product);
        entry.is_awarded |= outcome == Outcome::Granted;
        entry.stage = Stage::Unsettled { refund_waits: false };
        self.unsettled.push(Settlement { purchase, outcome });
    }

    /// What a save of the data in memory has to settle.
    pub(in crate::server) fn unsettled(&self) -> &[Settlement] {
        &self.unsettled
    }

    /// Takes in that these are settled. Returns those for which that is news, with their products, and whether a refund
    /// has been waiting for one of them.
    pub(super) fn acknowledge(&mut self, settled: Vec<Settlement>) -> (Vec<(ProductId, Settlement)>, bool) {
        let mut news = Vec::new();
        let mut refund_waits = false;
        for settlement in settled {
            let Some(place) = self
                .unsettled
                .iter()
                .position(|unsettled| *unsettled == settlement)
            else {
                continue;
            };
            self.unsettled.remove(place);
            let Some(entry) = self.entries.get_mut(&settlement.purchase) else {
                continue;
            };
            refund_waits |= matches!(entry.stage, Stage::Unsettled { refund_waits: true });
            entry.stage = Stage::Settled(settlement.outcome.clone());
            news.push((entry.product.clone(), settlement));
        }
        (news, refund_waits)
    }

    /// What has become of a receipt that was settled in this session.
    pub(super) fn decision(&self, purchase: &PurchaseId) -> Option<PurchaseDecision> {
        match &self.entries.get(purchase)?.stage {
            Stage::Settled(outcome) => Some(outcome.clone().into()),
            Stage::NotNow { .. } | Stage::Unsettled { .. } => None,
        }
    }

    /// What is still unsettled at the end of the session, with its products.
    pub(in crate::server) fn into_unsettled(self) -> Vec<(ProductId, Settlement)> {
        let products = self.entries;
        let with_product = |settlement: Settlement| {
            let product = products.get(&settlement.purchase)?.product.clone();
            Some((product, settlement))
        };
        self.unsettled.into_iter().filter_map(with_product).collect()
    }

    /// The product of a receipt that the session has met.
    pub(super) fn product_of(&self, purchase: &PurchaseId) -> Option<&ProductId> {
        self.entries.get(purchase).map(|entry| &entry.product)
    }
}

impl From<Outcome> for PurchaseDecision {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Granted => Self::PurchaseGranted,
            Outcome::Refused { reason } => Self::Refused { reason },
            Outcome::Refunded { shortfall } => Self::Refunded { shortfall },
        }
    }
}

/// What a stored receipt's state says by itself; `None` when a session has to process it first.
pub(super) fn decision_of(receipt: &StoredReceipt) -> Option<PurchaseDecision> {
    let note = receipt.note.clone();
    match receipt.state {
        ReceiptState::Pending if receipt.player.is_none() => Some(PurchaseDecision::Refused {
            reason: "the player was erased".to_owned(),
        }),
        ReceiptState::Pending => None,
        ReceiptState::Granted => Some(PurchaseDecision::PurchaseGranted),
        ReceiptState::Refused => Some(PurchaseDecision::Refused {
            reason: note.unwrap_or_default(),
        }),
        ReceiptState::Refunded => Some(PurchaseDecision::Refunded { shortfall: note }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PlayerId;

    const NOW: Duration = Duration::from_secs(10);

    fn row(state: ReceiptState, refund_requested: bool) -> StoredReceipt {
        StoredReceipt {
            number: 1,
            purchase: "p1".parse().unwrap(),
            player: Some(PlayerId::from_name("ada")),
            product: Some("hat".parse().unwrap()),
            state,
            refund_requested,
            settled_fence: None,
            note: None,
            payload: None,
            received_at: 0,
            settled_at: None,
        }
    }

    fn settle(ledger: &mut Ledger, outcome: Outcome) {
        ledger.settle("p1".parse().unwrap(), "hat".parse().unwrap(), outcome);
    }

    /// The save that carries everything lands; whether a refund has been waiting for that.
    fn lands(ledger: &mut Ledger) -> bool {
        let (news, refund_waits) = ledger.acknowledge(ledger.unsettled().to_vec());
        assert_eq!(news.len(), 1);
        assert!(ledger.unsettled().is_empty());
        refund_waits
    }

    #[test]
    fn a_row_that_was_read_too_early_is_not_awarded_again() {
        let pending = row(ReceiptState::Pending, false);
        let mut ledger = Ledger::default();
        assert_eq!(
            ledger.decide(&pending, NOW, false),
            Some(Next::Process(ToDo::Grant))
        );
        settle(&mut ledger, Outcome::Granted);
        assert_eq!(ledger.decide(&pending, NOW, true), None, "awarded, and not saved");
        lands(&mut ledger);
        assert_eq!(ledger.decide(&pending, NOW, true), None, "saved");
        let marked = row(ReceiptState::Pending, true);
        assert_eq!(
            ledger.decide(&marked, NOW, true),
            Some(Next::ReadAgain),
            "older than the award"
        );
    }

    #[test]
    fn a_row_that_was_read_before_a_refund_that_failed_is_not_awarded_again() {
        let mut ledger = Ledger::default();
        settle(&mut ledger, Outcome::Granted);
        lands(&mut ledger);
        let granted = row(ReceiptState::Granted, true);
        assert_eq!(
            ledger.decide(&granted, NOW, false),
            Some(Next::Process(ToDo::Revoke))
        );
        ledger.not_now(&granted, &"hat".parse().unwrap());
        assert_eq!(ledger.decide(&row(ReceiptState::Pending, false), NOW, true), None);
        assert_eq!(
            ledger.decide(&granted, NOW, true),
            Some(Next::Process(ToDo::Revoke))
        );
        settle(&mut ledger, Outcome::Refunded { shortfall: None });
        assert_eq!(
            ledger.decide(&granted, NOW, true),
            None,
            "taken back, and not saved"
        );
        lands(&mut ledger);
        assert_eq!(ledger.decide(&granted, NOW, true), None, "taken back once");
    }

    #[test]
    fn a_refund_that_arrives_before_the_award_is_saved_waits_for_that() {
        let mut ledger = Ledger::default();
        settle(&mut ledger, Outcome::Granted);
        assert_eq!(ledger.decide(&row(ReceiptState::Pending, true), NOW, false), None);
        assert!(lands(&mut ledger));
    }

    #[test]
    fn what_could_not_be_processed_is_tried_again_when_it_is_due_or_somebody_waits() {
        let pending = row(ReceiptState::Pending, false);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.not_now(&pending, &"hat".parse().unwrap()), 1);
        assert_eq!(ledger.not_now(&pending, &"hat".parse().unwrap()), 2);
        ledger.try_again(&pending.purchase, NOW);
        assert_eq!(
            ledger.decide(&pending, NOW - Duration::from_nanos(1), false),
            None
        );
        assert_eq!(
            ledger.decide(&pending, Duration::ZERO, true),
            Some(Next::Process(ToDo::Grant))
        );
        assert_eq!(
            ledger.decide(&pending, NOW, false),
            Some(Next::Process(ToDo::Grant))
        );
    }

    #[test]
    fn what_is_settled_otherwise_needs_nothing() {
        let mut ledger = Ledger::default();
        for (state, refund) in [
            (ReceiptState::Granted, false),
            (ReceiptState::Refused, false),
            (ReceiptState::Refused, true),
            (ReceiptState::Refunded, true),
        ] {
            assert_eq!(ledger.decide(&row(state, refund), NOW, true), None);
        }
        assert_eq!(
            ledger.decide(&row(ReceiptState::Pending, true), NOW, false),
            Some(Next::Process(ToDo::Forget))
        );
        assert_eq!(
            ledger.decide(&row(ReceiptState::Granted, true), NOW, false),
            Some(Next::Process(ToDo::Revoke))
        );
    }
}
