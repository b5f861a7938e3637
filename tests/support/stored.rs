//! What is stored, and whether it is what somebody was told.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use bevy_player_data::{
    PlayerData,
    document::{Document, Entry},
    prelude::PurchaseDecision,
    store::{ReceiptState, StoredReceipt},
};
use serde::de::DeserializeOwned;

/// The answer of a store that is asked directly, which has it at once.
pub fn look<T>(answer: impl Future<Output = T>) -> T {
    match pin!(answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("memory answers at once"),
    }
}

/// A stored component, or its default.
pub fn value<T: PlayerData + Default + DeserializeOwned>(document: &Document) -> Result<T, String> {
    match document.get(T::KEY) {
        Some(Entry::Value { value, .. }) => value.decode().map_err(|error| error.to_string()),
        Some(Entry::Tombstone) | None => Ok(T::default()),
    }
}

pub fn name_of(decision: &PurchaseDecision) -> &'static str {
    match decision {
        PurchaseDecision::PurchaseGranted => "granted",
        PurchaseDecision::NotProcessedYet => "not processed yet",
        PurchaseDecision::Refused { .. } => "refused",
        PurchaseDecision::Refunded { .. } => "refunded",
        _ => "another",
    }
}

/// Whether a decision that somebody was told is durable. (A refund may have followed already.)
pub fn is_true(decision: &PurchaseDecision, row: Option<&StoredReceipt>) -> Result<(), String> {
    let Some(row) = row else {
        return Err("there is no such receipt".to_owned());
    };
    let is_true = match decision {
        PurchaseDecision::NotProcessedYet => true,
        PurchaseDecision::PurchaseGranted => {
            row.state == ReceiptState::Granted
                || (row.state == ReceiptState::Refunded && row.refund_requested)
        }
        PurchaseDecision::Refused { reason } => {
            row.state == ReceiptState::Refused && row.note.as_ref() == Some(reason)
        }
        PurchaseDecision::Refunded { shortfall } => {
            row.state == ReceiptState::Refunded && row.note == *shortfall
        }
        _ => false,
    };
    if is_true {
        Ok(())
    } else {
        Err(format!("it is stored as {row:?}"))
    }
}
