//! One endpoint as all workers share it.

use std::sync::Arc;

use crate::base::addr::EndpointAddr;
use crate::base::load::Load;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::EndpointCells;

use super::IdleLimit;

/// One address of an upstream. Its identity is (upstream, address): load, learned limits and idle
/// connections survive generations.
#[derive(Debug)]
pub struct Endpoint {
    /// The address as text: name in logs and metrics, identity for hash policies.
    pub name: Box<str>,
    /// Where to connect.
    pub addr: EndpointAddr,
    /// In-flight count and latency, shared by workers.
    pub load: Arc<Load>,
    /// How long it keeps idle connections.
    pub idle_limit: IdleLimit,
    /// Its metrics.
    pub cells: Arc<PerWorker<EndpointCells>>,
}
