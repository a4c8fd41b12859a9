//! What keeps endpoints from being overrun and clients from waiting on the lost.
//!
//! Pure: no I/O, no tokio; time and randomness are arguments. [`gcra`] and [`keys`] limit rates,
//! [`gradient`] learns how much an endpoint takes, [`window`], [`outlier`] and [`breaker`] judge by
//! what fails, [`budget`] bounds retries, [`quantile`] says when a response is late, [`tiers`] shares
//! traffic between priorities and zones.

pub mod breaker;
pub mod budget;
pub mod gcra;
pub mod gradient;
pub mod keys;
pub mod outlier;
pub mod quantile;
pub mod tiers;
pub mod window;
