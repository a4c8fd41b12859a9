//! The admin server: metrics, liveness, readiness. Read-only, for operators and their machines.
//!
//! It runs on the control runtime, so it neither waits for a worker nor makes one wait: a scrape
//! reads the workers' cells from a thread of the blocking pool.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the Prometheus text format |
//! | `/livez` | 200 as long as the control runtime turns |
//! | `/readyz` | 200 `ready`, or 503 with the reason |
//! | `/` | what is here |

mod answer;

mod serve;

pub use serve::{AdminState, serve};

#[cfg(test)]
mod tests;
