//! What the game's server and a payment provider have agreed on, and how a provider goes about it.
//!
//! A provider calls the server back when somebody has paid, or got their money back, and repeats each callback until it
//! is answered well. The server and the storefront share this module; the game's clients have nothing to do with it.

pub mod callback;
pub mod provider;
pub mod secret;
