//! What a control takes out: one mechanism of what the product's files stand on, for one test.

use real_std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A `Notified` hears what is notified from the moment it is made, and not only once it is awaited.
    NotifiedIsRegisteredWhenMade,
    /// A task that is spawned after the runtime was shut down is dropped.
    LateTasksAreDropped,
    /// A channel's receiver drops what is queued when it is dropped itself.
    ReceiverDropsWhatIsQueued,
    /// Joining a thread waits for its end.
    JoinWaits,
    /// A thread knows that it is itself.
    ThreadsHaveIds,
}

thread_local! {
    // One test is one thread: shuttle runs all its tasks on the thread that explores.
    static TAKEN_OUT: Cell<Option<Mechanism>> = const { Cell::new(None) };
}

pub fn take_out(mechanism: Mechanism) {
    TAKEN_OUT.set(Some(mechanism));
}

pub fn works(mechanism: Mechanism) -> bool {
    TAKEN_OUT.get() != Some(mechanism)
}
