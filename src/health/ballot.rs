//! What one process makes of an endpoint for its fleet: a vote.
//!
//! The first failure is a failing vote: that several peers must agree stands in for the row of failures that
//! convinces one alone, and is there sooner. It passes again after `rise` checks in a row (distributed.md 1.6.3
//! and 1.6.4).

use crate::upstream::Health;

use super::threshold::{Evidence, Threshold};

/// The vote on one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// With `fall` = 1.
    threshold: Threshold,
    cast: Option<bool>,
}

// === impl Ballot ===

impl Ballot {
    /// No vote yet, on an endpoint of which so much is known: what is down must pass `rise` checks also where
    /// somebody else begins to ask.
    pub fn new(known: Threshold) -> Self {
        Self {
            threshold: known.with_fall_of_one(),
            cast: None,
        }
    }

    /// The vote; `None` = none yet.
    pub fn cast(&self) -> Option<bool> {
        self.cast
    }

    /// Takes a result in; the vote, if that is another one than before. While an endpoint is on its way up there may
    /// be none.
    pub fn observe(&mut self, evidence: Evidence) -> Option<bool> {
        self.threshold.observe(evidence);
        let passes = self.threshold.health() == Health::Up;
        if !passes && evidence == Evidence::Passed {
            return None;
        }
        (self.cast.replace(passes) != Some(passes)).then_some(passes)
    }
}
