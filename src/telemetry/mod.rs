//! What is seen from outside: metrics, the access log, the program's own log.
//!
//! Everything here is owned by a server, nothing is global (the program's log excepted, because
//! `tracing` has one subscriber per process): two servers in one process count apart.

pub mod abuse;
pub mod access_log;
pub mod history;
pub mod log;
pub mod metrics;
pub mod reason;
