//! What is stored, and whether it is what somebody was told.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use bevy_player_data::{
    PlayerData,
    document::{Document, Entry},
    prelude::PurchaseDecision,
    store::{ReceiptState, StoredReceipt},
};
use serde::de::DeserializeOwned;
use tokio::task::unconstrained;

/// How long a store may take for one answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The answer of a store that is asked directly. Memory has it at once; for that of another one this thread waits, and
/// with it every clock that moves only when it says so. (The stores have threads of their own for their work and their
/// timers.)
pub fn look<T>(answer: impl Future<Output = T>) -> T {
    // Within a task of a runtime, its budget must not keep an answer back that is there.
    let mut answer = pin!(unconstrained(answer));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the store has not answered within {PATIENCE:?}");
        thread::park_timeout(left);
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
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
