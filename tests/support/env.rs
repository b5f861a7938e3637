//! What a run of a test is told by environment variables.

use core::str::FromStr;

/// The number in a variable.
///
/// # Panics
/// When there is something else in it.
#[track_caller]
pub fn number<N: FromStr>(variable: &str) -> Option<N> {
    let text = std::env::var(variable).ok()?;
    let Ok(number) = text.parse() else {
        panic!("`{variable}` is \"{text}\", and has to be a number");
    };
    Some(number)
}
