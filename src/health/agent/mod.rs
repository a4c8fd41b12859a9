//! Endpoints that speak for themselves: what they say ([`line`](mod@line)), and asking their agents.

pub mod line;

use std::sync::Arc;

use crate::config::Name;
use crate::upstream::Endpoint;
use crate::upstream::said::Said;

/// An endpoint says something else of itself than before.
#[derive(Debug)]
pub struct Heard {
    /// Its upstream.
    pub upstream: Name,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What it says now, all in all.
    pub said: Said,
    /// Where it said so, with its own description, for people.
    pub why: String,
}
