//! Passing a store's requests on, for stores of the tests that change only some of them.

/// Implements these methods of `Store` by asking the same of a field: `forward! { rows: lease, leases }`.
macro_rules! forward {
    ($field:ident: $($method:ident),*) => {
        $(forward!(@ $method $field);)*
    };
    (@ fn $field:ident $method:ident($($name:ident: $kind:ty),*) -> $answer:ty) => {
        fn $method(
            &self,
            $($name: $kind),*
        ) -> bevy_player_data::store::BoxFuture<'_, Result<$answer, bevy_player_data::store::StoreError>> {
            self.$field.$method($($name),*)
        }
    };
    (@ lease $field:ident) => {
        forward!(@ fn $field lease(lease: bevy_player_data::store::Lease) -> bevy_player_data::store::Leases);
    };
    (@ leases $field:ident) => {
        forward!(@ fn $field leases() -> bevy_player_data::store::Leases);
    };
    (@ retire $field:ident) => {
        forward!(@ fn $field retire(server: bevy_player_data::store::ServerId) -> ());
    };
    (@ acquire $field:ident) => {
        forward!(@ fn $field acquire(acquire: bevy_player_data::store::Acquire) -> bevy_player_data::store::Acquired);
    };
    (@ commit $field:ident) => {
        forward!(@ fn $field commit(commit: bevy_player_data::store::Commit) -> bevy_player_data::store::Committed);
    };
    (@ peek $field:ident) => {
        forward!(@ fn $field peek(player: bevy_player_data::PlayerId) -> Option<bevy_player_data::store::Record>);
    };
    (@ list $field:ident) => {
        forward!(@ fn $field list(after: Option<bevy_player_data::PlayerId>, limit: usize) -> Vec<bevy_player_data::PlayerId>);
    };
    (@ erase $field:ident) => {
        forward!(@ fn $field erase(player: bevy_player_data::PlayerId) -> bool);
    };
    (@ enqueue $field:ident) => {
        forward!(@ fn $field enqueue(receipt: bevy_player_data::store::NewReceipt, notice: bevy_player_data::store::Notice) -> bevy_player_data::store::Enqueued);
    };
    (@ receipt $field:ident) => {
        forward!(@ fn $field receipt(purchase: bevy_player_data::PurchaseId) -> Option<bevy_player_data::store::StoredReceipt>);
    };
    (@ open_receipts $field:ident) => {
        forward!(@ fn $field open_receipts(player: bevy_player_data::PlayerId) -> Vec<bevy_player_data::store::StoredReceipt>);
    };
    (@ receipts_of $field:ident) => {
        forward!(@ fn $field receipts_of(player: bevy_player_data::PlayerId, before: Option<u64>, limit: usize) -> Vec<bevy_player_data::store::StoredReceipt>);
    };
    (@ arrivals $field:ident) => {
        forward!(@ fn $field arrivals(since: Option<u64>) -> bevy_player_data::store::Arrivals);
    };
    (@ wish $field:ident) => {
        forward!(@ fn $field wish(wish: bevy_player_data::store::Wish) -> bool);
    };
    (@ withdraw $field:ident) => {
        forward!(@ fn $field withdraw(player: bevy_player_data::PlayerId, lock: bevy_player_data::store::LockId) -> ());
    };
    (@ wishes $field:ident) => {
        forward!(@ fn $field wishes(server: bevy_player_data::store::ServerId) -> bevy_player_data::store::Wishes);
    };
}
pub(crate) use forward;
