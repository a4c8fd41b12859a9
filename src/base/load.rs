//! The load of an endpoint: the one thing all workers write on the request path.

use std::sync::atomic::{AtomicU32, AtomicU64};

/// The load of one endpoint, shared by all workers; on cache lines of its own, because every
/// exchange writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    /// Exchanges in flight, all workers together.
    pub in_flight: AtomicU32,
    /// Owned by the `peak_ewma` policy: packed cost and time of the last sample.
    pub ewma: AtomicU64,
}
