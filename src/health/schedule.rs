//! When checks are due.
//!
//! First checks are spread evenly, and each interval is a little shorter or longer than configured:
//! ten thousand endpoints of one file are neither asked in one instant at the start, nor drift
//! together later.

use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::{AgentSpec, HealthSpec};
use crate::upstream::Health;

use super::duty::Phase;

/// No first check waits longer: an endpoint that was just added is soon known, whatever the interval.
pub const SPREAD: Duration = Duration::from_secs(5);

/// How far apart first checks are at most, on average: a server with few endpoints knows them at
/// once, and hundreds of endpoints are not asked in one instant.
const APART: Duration = Duration::from_millis(10);

/// What HAProxy's manual advises for `spread-checks`; agents have no key for it.
const AGENT_JITTER: f64 = 0.2;

/// How long after it became known an endpoint is asked first, if it is to be asked every `interval`
/// and is one of `fellows` that became known together.
pub fn first(interval: Duration, fellows: usize, rng: &mut Rng) -> Nanos {
    let fellows = u32::try_from(fellows).unwrap_or(u32::MAX);
    let spread = interval.min(SPREAD).min(APART.saturating_mul(fellows));
    share(nanos(spread), rng.unit())
}

/// The time from the beginning of one check to that of the next.
pub fn next(spec: &HealthSpec, health: Health, rng: &mut Rng) -> Nanos {
    around(interval(spec, health), spec.jitter, rng)
}

/// The time from a check that began at `unix` (nanoseconds since 1970) to the next one in `phase`: half an interval
/// away or more, so that one out of phase is not asked twice in a row. By the wall clock, which peers share: they
/// take turns, whenever each of them began. There is no jitter: the phase is what keeps endpoints apart.
pub fn next_in_phase(spec: &HealthSpec, health: Health, phase: Phase, unix: Nanos) -> Nanos {
    let interval = nanos(interval(spec, health)).max(1);
    let half = interval / 2;
    let into = unix
        .saturating_add(half)
        .saturating_add(interval - phase.of(interval));
    half + (interval - into % interval) % interval
}

fn interval(spec: &HealthSpec, health: Health) -> Duration {
    match health {
        Health::Down => spec.down_interval,
        Health::Unchecked | Health::Up => spec.interval,
    }
}

/// The time from one question to an agent to the next.
pub fn next_agent(spec: &AgentSpec, rng: &mut Rng) -> Nanos {
    around(spec.interval, AGENT_JITTER, rng)
}

/// From interval * (1 - jitter) to interval * (1 + jitter), evenly.
fn around(interval: Duration, jitter: f64, rng: &mut Rng) -> Nanos {
    share(nanos(interval), 1.0 + jitter * (2.0 * rng.unit() - 1.0))
}

fn share(of: Nanos, share: f64) -> Nanos {
    (of as f64 * share) as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Check, InitState};

    const MS: u64 = 1_000_000;

    fn spec(interval_ms: u64, down_ms: u64, jitter: f64) -> HealthSpec {
        HealthSpec {
            interval: Duration::from_millis(interval_ms),
            down_interval: Duration::from_millis(down_ms),
            timeout: Duration::from_millis(100),
            rise: 2,
            jitter,
            init_state: InitState::Up,
            ..HealthSpec::usual(Check::Tcp)
        }
    }

    #[test]
    fn without_jitter_intervals_are_exact() {
        let (spec, mut rng) = (spec(2000, 7000, 0.0), Rng::new(1));
        for _ in 0..100 {
            assert_eq!(next(&spec, Health::Up, &mut rng), 2000 * MS);
            assert_eq!(next(&spec, Health::Unchecked, &mut rng), 2000 * MS);
            assert_eq!(next(&spec, Health::Down, &mut rng), 7000 * MS);
        }
    }

    #[test]
    fn jitter_is_even_on_both_sides_and_within_its_bounds() {
        let (spec, mut rng) = (spec(1000, 1000, 0.2), Rng::new(7));
        let all: Vec<_> = (0..10_000)
            .map(|_| next(&spec, Health::Up, &mut rng))
            .collect();
        assert!(all.iter().all(|n| (800 * MS..=1200 * MS).contains(n)));
        let mean = all.iter().sum::<u64>() / all.len() as u64;
        assert!((990 * MS..1010 * MS).contains(&mean), "seed 7: {mean}");
        assert!(all.iter().any(|n| *n < 810 * MS) && all.iter().any(|n| *n > 1190 * MS));
    }

    #[test]
    fn phases_are_kept_by_the_wall_clock() {
        let spec = spec(1000, 4000, 0.5);
        let next =
            |health, phase, at_ms: u64| next_in_phase(&spec, health, Phase(phase), at_ms * MS) / MS;
        let quarter = 1 << 62;
        // At 250 ms of each second, and half a second away at least.
        assert_eq!(next(Health::Up, quarter, 7_250), 1000);
        assert_eq!(next(Health::Up, quarter, 7_300), 950);
        assert_eq!(next(Health::Unchecked, quarter, 7_750), 500);
        assert_eq!(next(Health::Up, quarter, 7_751), 1499);
        assert_eq!(next(Health::Up, quarter, 7_200), 1050);
        assert_eq!(next(Health::Up, 0, 7_000), 1000);
        // At 1 s of each four.
        assert_eq!(next(Health::Down, quarter, 8_000), 5000);
        assert_eq!(next(Health::Down, quarter, 9_000), 4000);
    }

    #[test]
    fn first_checks_are_spread_over_the_interval() {
        let mut rng = Rng::new(3);
        let mut tenths = [0u32; 10];
        for _ in 0..10_000 {
            let at = first(Duration::from_secs(2), 10_000, &mut rng);
            tenths[(at / (200 * MS)) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|n| (900..1100).contains(n)),
            "seed 3: {tenths:?}"
        );
        // A long interval does not leave an endpoint unknown for long.
        let day = Duration::from_secs(86_400);
        let late = (0..1000).map(|_| first(day, usize::MAX, &mut rng));
        assert!(late.max().is_some_and(|max| max < nanos(SPREAD)));
        // Nor do few endpoints wait for each other.
        let late = (0..1000).map(|_| first(day, 3, &mut rng));
        assert!(late.max().is_some_and(|max| max < 30 * MS));
    }
}
