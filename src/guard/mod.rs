//! What keeps endpoints from being overrun and clients from waiting on the lost: pure; no I/O, no
//! tokio, time and randomness are arguments.

pub mod gcra;
pub mod gradient;
pub mod keys;
pub mod quantile;
pub mod tiers;
