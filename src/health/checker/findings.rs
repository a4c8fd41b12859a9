//! What the checker finds, and hands on.

use std::sync::Arc;

use crate::config::Name;
use crate::upstream::{Endpoint, Health};

use super::super::agent::Heard;

/// An endpoint is no longer what it was.
#[derive(Debug)]
pub struct Verdict {
    /// Its upstream.
    pub upstream: Name,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What it is now.
    pub health: Health,
    /// Why, for people.
    pub why: String,
    /// Who found it.
    pub by: Found,
}

/// Who found out what an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Peers of the fleet, by their votes: their names.
    Fleet(String),
    /// This process, by asking. Where votes rule, that it finds the endpoint down holds for itself alone, and that
    /// it finds it well means no more than that it does not.
    Here,
}

/// What this process says of an endpoint to its fleet: another vote than before.
#[derive(Clone, Debug)]
pub struct Vote {
    /// The upstream.
    pub upstream: Name,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Hash of what was asked; see [`check_hash`](super::super::check_hash::check_hash).
    pub check: u64,
    /// Whether it passes.
    pub passed: bool,
    /// Why, for people.
    pub why: String,
}

/// What was found and is to be handed on, oldest first.
#[derive(Debug, Default)]
pub struct Findings {
    /// Of checks.
    pub verdicts: Vec<Verdict>,
    /// Of agents.
    pub heard: Vec<Heard>,
    /// Of checks, for the fleet.
    pub votes: Vec<Vote>,
}

// === impl Verdict ===

impl Verdict {
    /// Why, and by whose finding if it is not this process's own.
    pub fn told(&self) -> String {
        match &self.by {
            Found::Fleet(peers) => format!("{} (found by {peers})", self.why),
            Found::Here => self.why.clone(),
        }
    }
}

// === impl Findings ===

impl Findings {
    /// Whether there is nothing to be handed on.
    pub fn is_empty(&self) -> bool {
        self.verdicts.is_empty() && self.heard.is_empty() && self.votes.is_empty()
    }
}
