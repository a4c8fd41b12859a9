//! What keeps failures from spreading: pure decisions, no I/O, no clock, no tokio.

pub mod breaker;
pub mod budget;
pub mod outlier;
pub mod window;
