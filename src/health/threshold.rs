//! What a row of results means: up or down.
//!
//! HAProxy's counter (`check_notify_success` and `check_notify_failure` in its `check.c`): one number
//! from 0 to rise + fall - 1, up from `rise` on. Results count in rows: the first one of the other
//! kind starts the count again.

use crate::config::{HealthSpec, InitState};
use crate::upstream::Health;

/// The state of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// HAProxy's `health`.
    health: u32,
    rise: u32,
    fall: u32,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It failed.
    Failed,
    /// It passed.
    Passed,
}

// === impl Threshold ===

impl Threshold {
    /// The state of an endpoint that was never checked.
    pub fn new(spec: &HealthSpec) -> Self {
        Self::begun(spec, spec.init_state)
    }

    /// The same, of one that is taken for this.
    pub(super) fn begun(spec: &HealthSpec, as_what: InitState) -> Self {
        let mut state = Self::of(spec);
        state.health = match as_what {
            InitState::FullyDown => 0,
            InitState::Down => state.rise - 1,
            InitState::Up => state.rise,
            InitState::FullyUp => state.full(),
        };
        state
    }

    /// The state of an endpoint whose health is known from before: nothing counts yet for a change.
    pub fn kept(spec: &HealthSpec, health: Health) -> Self {
        let mut state = Self::of(spec);
        state.health = match health {
            Health::Down => 0,
            Health::Unchecked | Health::Up => state.full(),
        };
        state
    }

    /// The same, where one failure is enough.
    pub(super) fn with_fall_of_one(self) -> Self {
        let health = self.health();
        let mut state = Self { fall: 1, ..self };
        if health == Health::Up {
            state.health = state.full();
        }
        state
    }

    fn of(spec: &HealthSpec) -> Self {
        // At least 1 each: with 0 it would never be down, or never up.
        Self {
            health: 0,
            rise: spec.rise.max(1),
            fall: spec.fall.max(1),
        }
    }

    fn full(&self) -> u32 {
        self.rise.saturating_add(self.fall) - 1
    }

    /// What the endpoint is now.
    pub fn health(&self) -> Health {
        if self.health >= self.rise {
            Health::Up
        } else {
            Health::Down
        }
    }

    /// Takes a result in; what the endpoint has become, if that is something else.
    pub fn observe(&mut self, evidence: Evidence) -> Option<Health> {
        let before = self.health();
        self.health = match evidence {
            Evidence::Passed if self.health + 1 >= self.rise => self.full(),
            Evidence::Passed => self.health + 1,
            Evidence::Failed if self.health > self.rise => self.health - 1,
            Evidence::Failed => 0,
        };
        let now = self.health();
        (now != before).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::rng::Rng;
    use crate::config::Check;
    use Evidence::{Failed, Passed};

    fn spec(rise: u32, fall: u32, init_state: InitState) -> HealthSpec {
        HealthSpec {
            interval: Duration::from_secs(2),
            down_interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise,
            fall,
            jitter: 0.0,
            init_state,
            ..HealthSpec::usual(Check::Tcp)
        }
    }

    /// `P` passes, `F` fails; the health after each: `u` or `d`.
    fn run(state: &mut Threshold, results: &str) -> String {
        results
            .chars()
            .map(|c| {
                let before = state.health();
                let told = state.observe(if c == 'P' { Passed } else { Failed });
                let now = state.health();
                assert_eq!(told, (now != before).then_some(now));
                if now == Health::Up { 'u' } else { 'd' }
            })
            .collect()
    }

    #[test]
    fn rows_change_the_state_and_a_break_starts_them_again() {
        let mut state = Threshold::new(&spec(2, 3, InitState::FullyUp));
        assert_eq!(run(&mut state, "FFPFFPFFF"), "uuuuuuuud");
        assert_eq!(run(&mut state, "PFPFPP"), "dddddu");
        assert_eq!(run(&mut state, "FFF"), "uud");
    }

    #[test]
    fn the_four_initial_states() {
        let start = |init| Threshold::new(&spec(3, 4, init));
        let after = |init, results| run(&mut start(init), results);
        assert_eq!(start(InitState::Up).health(), Health::Up);
        assert_eq!(start(InitState::FullyUp).health(), Health::Up);
        assert_eq!(start(InitState::Down).health(), Health::Down);
        assert_eq!(start(InitState::FullyDown).health(), Health::Down);
        assert_eq!(after(InitState::Up, "F"), "d");
        assert_eq!(after(InitState::Up, "PFFFF"), "uuuud");
        assert_eq!(after(InitState::FullyUp, "FFFF"), "uuud");
        assert_eq!(after(InitState::Down, "P"), "u");
        assert_eq!(after(InitState::Down, "FPPP"), "dddu");
        assert_eq!(after(InitState::FullyDown, "PPP"), "ddu");
        // Up means up in full: a row of `fall` takes it down again.
        assert_eq!(after(InitState::Down, "PFFFF"), "uuuud");
    }

    #[test]
    fn one_of_each_is_the_least() {
        for init in [InitState::Up, InitState::FullyUp] {
            assert_eq!(run(&mut Threshold::new(&spec(1, 1, init)), "FPFP"), "dudu");
        }
        for init in [InitState::Down, InitState::FullyDown] {
            assert_eq!(run(&mut Threshold::new(&spec(1, 1, init)), "PFPF"), "udud");
        }
        // What no text can say does not panic.
        assert_eq!(
            run(&mut Threshold::new(&spec(0, 0, InitState::Down)), "PF"),
            "ud"
        );
    }

    #[test]
    fn what_is_kept_starts_its_count_again() {
        let spec = spec(2, 3, InitState::FullyDown);
        assert_eq!(run(&mut Threshold::kept(&spec, Health::Up), "FFF"), "uud");
        assert_eq!(run(&mut Threshold::kept(&spec, Health::Down), "PP"), "du");
        let unchecked = Threshold::kept(&spec, Health::Unchecked);
        assert_eq!(unchecked.health(), Health::Up);
    }

    /// Against the rule in words: a row of `fall` failures takes an up one down, a row of `rise`
    /// passes brings a down one up.
    #[test]
    fn counter_is_the_rule_of_rows() {
        let mut rng = Rng::new(0x15_0ba2);
        for round in 0..200 {
            let (rise, fall) = (1 + rng.below(5) as u32, 1 + rng.below(5) as u32);
            let mut state = Threshold::kept(&spec(rise, fall, InitState::Up), Health::Up);
            let (mut up, mut passed, mut failed) = (true, 0, 0);
            for _ in 0..200 {
                let evidence = if rng.below(2) == 0 { Passed } else { Failed };
                (passed, failed) = match evidence {
                    Passed => (passed + 1, 0),
                    Failed => (0, failed + 1),
                };
                if up && failed >= fall {
                    up = false;
                } else if !up && passed >= rise {
                    up = true;
                }
                state.observe(evidence);
                assert_eq!(
                    state.health() == Health::Up,
                    up,
                    "round {round}: rise {rise}, fall {fall}"
                );
            }
        }
    }
}
