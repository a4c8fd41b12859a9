//! The admin servers: metrics, liveness and readiness on a TCP address, read-only, for machines; and
//! on a Unix socket the control API ([`api`]), for operators.
//!
//! Both run on the control runtime, so they neither wait for a worker nor make one wait: what takes
//! time (a scrape, a reload) is done by a thread of the blocking pool. The TCP address:
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the Prometheus text format |
//! | `/livez` | 200 as long as the control runtime turns |
//! | `/readyz` | 200 `ready`, or 503 with the reason |
//! | `/` | what is here |

mod answer;
pub mod api;
mod connections;
pub mod register;
mod serve;

pub use serve::{AdminState, serve};

#[cfg(test)]
mod tests;
