//! Taking in rows of another store.

use rusqlite::{OptionalExtension, named_params};

use super::{
    super::{
        Import, Record, StoredReceipt,
        taking::{self, Taking},
    },
    error::Failure,
    receipts::receipt,
    row::FREE,
    tables::{Tables, sql},
};

impl Tables<'_> {
    pub(super) fn import(&mut self, rows: &Import) -> Result<(), Failure> {
        for record in &rows.records {
            self.import_record(record)?;
        }
        for receipt in &rows.receipts {
            self.import_receipt(receipt)?;
        }
        Ok(())
    }

    fn import_record(&mut self, record: &Record) -> Result<(), Failure> {
        let (state, document) = self.state_and_document(record.player)?.unzip();
        let document = document.flatten();
        let lease = match state.and_then(|state| state.held) {
            Some(held) => self.lease_of(held.server)?,
            None => None,
        };
        let known = state.map(|state| (state, document.as_deref()));
        if taking::judge_record(known, lease.map(|lease| lease.name), record)? == Taking::Again {
            return Ok(());
        }
        let state = taking::taken_in(record);
        self.connection
            .prepare_cached(
                "INSERT INTO players (player_id, version, fence, last_seq, lock_id, server, created_at, saved_at, document)
                 VALUES (:player_id, :version, :fence, :last_seq, :free, :free, :created_at, :saved_at, :document)
                 ON CONFLICT (player_id) DO UPDATE SET version = :version, fence = :fence, last_seq = :last_seq,
                     lock_id = :free, server = :free, created_at = :created_at, saved_at = :saved_at,
                     document = :document",
            )?
            .execute(named_params! {
                ":player_id": record.player.into_bytes(),
                ":version": sql(state.version)?,
                ":fence": sql(state.fence)?,
                ":last_seq": sql(state.last_seq)?,
                ":free": FREE,
                ":created_at": record.created_at,
                ":saved_at": record.saved_at,
                ":document": record.document.as_deref(),
            })?;
        Ok(())
    }

    fn import_receipt(&self, new: &StoredReceipt) -> Result<(), Failure> {
        let known = receipt(self.connection, &new.purchase)?;
        let taking = taking::judge_receipt(known.as_ref(), new)?;
        let number = sql(new.number)?;
        if taking == Taking::Insert {
            let is_taken: Option<i64> = self
                .connection
                .prepare_cached("SELECT 1 FROM receipts WHERE rowid = ?1")?
                .query_row([number], |row| row.get(0))
                .optional()?;
            if is_taken.is_some() {
                return Err(taking::number_taken(new).into());
            }
        }
        if taking == Taking::Again {
            return Ok(());
        }
        self.connection
            .prepare_cached(
                "INSERT INTO receipts (rowid, purchase_id, player_id, product_id, state, refund_requested, settled_fence,
                     note, payload, received_at, settled_at)
                 VALUES (:number, :purchase_id, :player_id, :product_id, :state, :refund_requested, :settled_fence,
                     :note, :payload, :received_at, :settled_at)
                 ON CONFLICT (purchase_id) DO UPDATE SET player_id = :player_id, product_id = :product_id,
                     state = :state, refund_requested = :refund_requested, settled_fence = :settled_fence,
                     note = :note, payload = :payload, received_at = :received_at, settled_at = :settled_at",
            )?
            .execute(named_params! {
                ":number": number,
                ":purchase_id": new.purchase.as_str(),
                ":player_id": new.player.map(crate::id::PlayerId::into_bytes),
                ":product_id": new.product.as_ref().map(crate::id::ProductId::as_str),
                ":state": new.state.name(),
                ":refund_requested": new.refund_requested,
                ":settled_fence": new.settled_fence.map(sql).transpose()?,
                ":note": new.note.as_deref(),
                ":payload": new.payload.as_deref(),
                ":received_at": new.received_at,
                ":settled_at": new.settled_at,
            })?;
        Ok(())
    }
}
