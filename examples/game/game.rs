//! *Coin Rush*, as its server and its clients both know it.
//!
//! Players walk about a field of cells, pick up what lies there, and rise in level. The server alone decides what
//! happens: clients say where they want to go, and see their own data and the field. This module owns what both sides
//! have to agree on; the rules are the server's.

pub mod data;
pub mod login;
pub mod net;
pub mod usage;
pub mod web;
