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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Evidence::{Failed, Passed};
    use super::*;
    use crate::config::{Check, HealthSpec, InitState};

    fn spec(rise: u32, init_state: InitState) -> HealthSpec {
        HealthSpec {
            interval: Duration::from_secs(5),
            down_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise,
            jitter: 0.0,
            init_state,
            ..HealthSpec::usual(Check::Tcp)
        }
    }

    /// What is said after each check: `+`, `-`, or nothing (`.`).
    fn said(known: Threshold, results: &str) -> String {
        let mut ballot = Ballot::new(known);
        let said = results.chars().map(|c| {
            let vote = ballot.observe(if c == 'P' { Passed } else { Failed });
            match vote {
                Some(passed) => {
                    assert_eq!(ballot.cast(), Some(passed));
                    if passed { '+' } else { '-' }
                }
                None => '.',
            }
        });
        said.collect()
    }

    #[test]
    fn one_failure_is_a_vote_and_rise_passes_are_another() {
        let spec = spec(2, InitState::FullyUp);
        let up = Threshold::new(&spec);
        assert_eq!(said(up, "PPPFFFPP"), "+..-...+");
        assert_eq!(said(up, "FPFPFPPP"), "-.....+.");
        assert_eq!(said(Threshold::kept(&spec, Health::Up), "PF"), "+-");
        assert_eq!(said(Threshold::kept(&spec, Health::Unchecked), "PF"), "+-");
    }

    #[test]
    fn what_is_down_passes_no_sooner_at_who_begins_to_ask() {
        let of = |init| Threshold::new(&spec(3, init));
        assert_eq!(said(of(InitState::FullyDown), "PPPP"), "..+.");
        assert_eq!(said(of(InitState::FullyDown), "PPFPPP"), "..-..+");
        // As its `init_state` says.
        assert_eq!(said(of(InitState::Down), "PFP"), "+-.");
        let kept = Threshold::kept(&spec(3, InitState::Up), Health::Down);
        assert_eq!(said(kept, "PPP"), "..+");
        assert_eq!(Ballot::new(kept).cast(), None);
    }
}
