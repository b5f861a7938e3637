//! How many requests shared a transaction, as the store's own traces tell.

use std::{
    fmt::Debug,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

static TRANSACTIONS: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Forgets what was counted, and counts from here on.
pub fn count() {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| tracing::subscriber::set_global_default(Listener).expect("nobody else listens"));
    TRANSACTIONS.store(0, Ordering::Relaxed);
    REQUESTS.store(0, Ordering::Relaxed);
}

/// The requests of a transaction since [`count`], on average.
pub fn mean() -> usize {
    let transactions = TRANSACTIONS.load(Ordering::Relaxed).max(1);
    usize::try_from(REQUESTS.load(Ordering::Relaxed).div_ceil(transactions)).unwrap_or(usize::MAX)
}

/// Hears of transactions and of nothing else, which costs nothing.
struct Listener;

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() == Level::TRACE
            && metadata.target() == "bevy_player_data::store::sqlite::writer"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Requests);
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

struct Requests;

impl Visit for Requests {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "requests" {
            TRANSACTIONS.fetch_add(1, Ordering::Relaxed);
            REQUESTS.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}
}
