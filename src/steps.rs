//! Named steps on the way of a purchase, a trade and a commit, for tests that end a process at each of them.
//!
//! Without the feature `step-points`, which no game needs, a step is nothing at all.

#[cfg(feature = "step-points")]
use std::sync::OnceLock;

#[cfg(feature = "step-points")]
static ON_STEP: OnceLock<fn(&str)> = OnceLock::new();

/// Calls `on_step` with the name of each step that this process reaches from now on, on the thread that reaches it.
/// Only the first call counts.
#[cfg(feature = "step-points")]
pub fn on_step(on_step: fn(&str)) {
    // A second call changes nothing, as documented.
    let _ = ON_STEP.set(on_step);
}

/// Says that this step is reached.
#[inline]
pub(crate) fn reached(step: &str) {
    #[cfg(feature = "step-points")]
    if let Some(on_step) = ON_STEP.get() {
        on_step(step);
    }
    #[cfg(not(feature = "step-points"))]
    let _ = step;
}
