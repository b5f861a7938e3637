//! Passing a store's requests on, for stores of the tests that change only some of them.

/// Implements these methods of `Store` by asking the same of a field.
macro_rules! forward {
    ($field:ident: $($method:ident($($name:ident: $kind:ty),*) -> $answer:ty,)*) => {
        $(fn $method(&self, $($name: $kind),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            self.$field.$method($($name),*)
        })*
    };
}
pub(crate) use forward;
