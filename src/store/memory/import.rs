//! Taking in rows of another store.

use super::{
    super::{
        Import, StoreError,
        taking::{self, Taking},
    },
    Row, Tables,
};

impl Tables {
    pub(super) fn import(&mut self, rows: Import) -> Result<(), StoreError> {
        // Judged first: all of it is taken in, or none.
        for record in &rows.records {
            let known = self.players.get(&record.player);
            let held = known.and_then(|row| row.state.held);
            let name = held
                .and_then(|held| self.lease_of(held.server))
                .map(|lease| lease.name);
            let known = known.map(|row| (row.state, row.document.as_deref()));
            taking::judge_record(known, name, record)?;
        }
        let mut new = Vec::new();
        for receipt in rows.receipts {
            let known = self.receipts.get(&receipt.purchase);
            match taking::judge_receipt(known, &receipt)? {
                Taking::Again => {}
                Taking::Insert if receipt.number <= self.last_number && self.has_number(receipt.number) => {
                    return Err(taking::number_taken(&receipt));
                }
                taking => new.push((receipt, taking)),
            }
        }
        for record in rows.records {
            self.players.insert(
                record.player,
                Row {
                    state: taking::taken_in(&record),
                    created_at: record.created_at,
                    saved_at: record.saved_at,
                    document: record.document,
                },
            );
        }
        for (receipt, taking) in new {
            self.last_number = self.last_number.max(receipt.number);
            if taking == Taking::Insert {
                self.arrivals.extend(receipt.player);
            }
            self.receipts.insert(receipt.purchase.clone(), receipt);
        }
        Ok(())
    }

    fn has_number(&self, number: u64) -> bool {
        self.receipts.values().any(|receipt| receipt.number == number)
    }
}
