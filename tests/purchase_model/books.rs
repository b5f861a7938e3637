//! What has to be so, whatever happens: the rows of the receipts, the stored documents, and what both say of each other.

use std::collections::BTreeMap;

use bevy_player_data::{
    PlayerId, PurchaseId,
    document::Document,
    store::{ReceiptState, Store, StoredReceipt},
};
use bytes::Bytes;

use crate::{
    market::{Order, PLAYERS},
    servers::Cluster,
    shop::{Bought, GEMS, NEVER_WHY, PRODUCTS, Purse},
    stored::{look, value},
};

pub type Check = Result<(), String>;

/// A purchase, as the provider knows it, and the row as it was seen last.
pub struct Purchase {
    pub id: PurchaseId,
    pub order: Order,
    /// Whether its payment is known to be stored: if not, the provider goes on saying so.
    pub paid_is_known: bool,
    /// Whether it was refunded, and whether that is known to be stored.
    pub refunded: bool,
    pub refund_is_known: bool,
    pub row: Option<StoredReceipt>,
}

/// Everything that is checked after each step.
pub struct Books {
    pub players: [PlayerId; PLAYERS],
    pub purchases: BTreeMap<u8, Purchase>,
    pages: [Page; PLAYERS],
}

/// A player's stored document.
#[derive(Default)]
struct Page {
    bytes: Option<Bytes>,
    bought: BTreeMap<String, i64>,
    purse: BTreeMap<String, i64>,
}

impl Books {
    pub fn new(players: [PlayerId; PLAYERS]) -> Self {
        Self {
            players,
            purchases: BTreeMap::new(),
            pages: Default::default(),
        }
    }

    /// Compares everything that is stored with everything else.
    pub fn check(&mut self, cluster: &Cluster) -> Check {
        for purchase in self.purchases.values_mut() {
            purchase.look(cluster)?;
        }
        for (n, page) in self.pages.iter_mut().enumerate() {
            let record = look(cluster.rows.peek(self.players[n])).expect("the rows can be read");
            page.read(record.and_then(|record| record.document))?;
            let purchases = self
                .purchases
                .values()
                .filter(|purchase| purchase.order.player == n);
            page.agrees_with(purchases).map_err(|problem| {
                format!("the stored document of player {n} and the receipts disagree: {problem}")
            })?;
        }
        Ok(())
    }

    /// How many commits the players' records have seen.
    pub fn commits(&self, cluster: &Cluster) -> u64 {
        let records = self
            .players
            .iter()
            .filter_map(|&player| look(cluster.rows.peek(player)).ok()?);
        records.map(|record| record.version).sum()
    }

    /// Whether some session still has something to do about a player's receipts.
    pub fn has_open(&self, player: usize) -> bool {
        let mut purchases = self
            .purchases
            .values()
            .filter(|purchase| purchase.order.player == player);
        purchases.any(|purchase| purchase.row.as_ref().is_none_or(StoredReceipt::is_open))
    }

    /// After everything has settled: granted is what was paid, less what was refunded and what was refused.
    pub fn close(&self, cluster: &Cluster) -> Check {
        for (n, purchase) in &self.purchases {
            purchase
                .has_ended_well()
                .map_err(|problem| format!("purchase {n} has ended badly: {problem}"))?;
        }
        for (player, page) in self.pages.iter().enumerate() {
            for (product, name) in PRODUCTS.iter().enumerate() {
                let mine = |purchase: &&Purchase| {
                    (purchase.order.player, purchase.order.product) == (player, product)
                };
                let bought = self.purchases.values().filter(mine);
                let paid = bought.clone().count();
                let refunded = bought.clone().filter(|purchase| purchase.refunded).count();
                let refused = bought
                    .clone()
                    .filter(|purchase| purchase.order.never && !purchase.refunded)
                    .count();
                let ids: Vec<&str> = bought.map(|purchase| purchase.id.as_str()).collect();
                let granted = page.bought.iter().filter(|(id, _)| ids.contains(&id.as_str()));
                let granted = granted.map(|(_, times)| times).sum::<i64>();
                if granted != (paid - refunded - refused) as i64 {
                    return Err(format!(
                        "player {player} has {granted} of `{name}`, though {paid} were paid, of which {refunded} were \
                         refunded and {refused} refused"
                    ));
                }
            }
            let rows = look(cluster.rows.receipts_of(self.players[player], None, usize::MAX));
            let rows = rows.expect("the rows can be read").len();
            let bought = self
                .purchases
                .values()
                .filter(|purchase| purchase.order.player == player)
                .count();
            if rows != bought {
                return Err(format!(
                    "player {player} has {rows} receipts, and bought {bought} times"
                ));
            }
        }
        Ok(())
    }
}

impl Purchase {
    /// Looks at the row, and whether it may have become what it is.
    fn look(&mut self, cluster: &Cluster) -> Check {
        let row = cluster.receipt(&self.id);
        let Some(now) = &row else {
            return match &self.row {
                Some(before) => Err(format!("a receipt has vanished: {before:?}")),
                None if self.paid_is_known => {
                    Err(format!("`{}` was acknowledged, and is not stored", self.id))
                }
                None => Ok(()),
            };
        };
        let before = self.row.as_ref();
        let was = before.map_or(ReceiptState::Pending, |before| before.state);
        let may_become = match (was, now.state) {
            (was, is) if was == is => true,
            (ReceiptState::Pending, ReceiptState::Granted | ReceiptState::Refused) => true,
            (ReceiptState::Pending | ReceiptState::Granted, ReceiptState::Refunded) => now.refund_requested,
            _ => false,
        };
        let is_the_same = before.is_none_or(|before| {
            (before.number, before.player, &before.product) == (now.number, now.player, &now.product)
                && before.refund_requested <= now.refund_requested
                && before.settled_fence <= now.settled_fence
                && (before.state != now.state || before.note == now.note)
        });
        let refund_is_right = now.refund_requested || !self.refund_is_known;
        if !may_become || !is_the_same || !refund_is_right || (now.refund_requested && !self.refunded) {
            return Err(format!("a receipt has gone from {before:?} to {now:?}"));
        }
        self.row = row;
        Ok(())
    }

    fn is_granted(&self) -> bool {
        self.row
            .as_ref()
            .is_some_and(|row| row.state == ReceiptState::Granted)
    }

    fn has_ended_well(&self) -> Check {
        let Some(row) = &self.row else {
            return Err("it was never stored".to_owned());
        };
        let note = row.note.as_deref();
        let is_well = match row.state {
            ReceiptState::Granted => !self.refunded && !self.order.never && note.is_none(),
            // Once it was refused, a refund changes nothing: the money has to go back anyway.
            ReceiptState::Refused => self.order.never && note == Some(NEVER_WHY),
            ReceiptState::Refunded => {
                let may_be_short = PRODUCTS[self.order.product] == GEMS;
                self.refunded && (note.is_none() || may_be_short)
            }
            ReceiptState::Pending => false,
        };
        if is_well {
            Ok(())
        } else {
            Err(format!("{row:?}; {:?}, refunded: {}", self.order, self.refunded))
        }
    }
}

impl Page {
    fn read(&mut self, bytes: Option<Bytes>) -> Check {
        if bytes == self.bytes {
            return Ok(());
        }
        if let Some(bytes) = &bytes {
            let document = Document::decode(bytes).map_err(|error| error.to_string())?;
            self.bought = value::<Bought>(&document)?.0;
            self.purse = value::<Purse>(&document)?.0;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// A receipt is granted exactly if its award is in the document, and what was awarded is in the purse.
    fn agrees_with<'a>(&self, purchases: impl Iterator<Item = &'a Purchase>) -> Check {
        let mut expected = BTreeMap::new();
        let mut purse = BTreeMap::<&str, i64>::new();
        for purchase in purchases.filter(|purchase| purchase.is_granted()) {
            expected.insert(purchase.id.as_str(), 1);
            *purse.entry(PRODUCTS[purchase.order.product]).or_default() += 1;
        }
        let same = |a: &BTreeMap<&str, i64>, b: &BTreeMap<String, i64>| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (*a.0, a.1) == (b.0.as_str(), b.1))
        };
        if !same(&expected, &self.bought) {
            return Err(format!("granted are {expected:?}, and bought {:?}", self.bought));
        }
        // Gems are spent, and given away.
        purse.remove(GEMS);
        let mut mine = self.purse.clone();
        mine.remove(GEMS);
        if !same(&purse, &mine) {
            return Err(format!("granted are {purse:?}, and the purse has {mine:?}"));
        }
        Ok(())
    }
}
