//! Five equal endpoints: nobody far below its share after few requests, whoever picks. Policies that
//! hash go by keys, and `first` by the order: they are not meant.

use super::outliers::POLICIES;
use super::*;

#[test]
fn after_1500_requests_none_of_five_is_below_70_percent_of_its_share() {
    for policy in POLICIES {
        let mut least = f64::MAX;
        each_seed(3, 30, |seed| {
            // One at a time, a fifth, four fifths of what they bear.
            for (rate, workers) in [(5.0, 1), (1_000.0, 4), (4_000.0, 8)] {
                let upstream = format!("balance = '{policy}'");
                let setup = Setup {
                    workers,
                    upstream: &upstream,
                    ..Setup::default()
                };
                let mut sim = setup.sim(seed);
                sim.offer(rate);
                let mut until = 0.0;
                while sim.attempts.len() < 1_500 {
                    until += 100.0 / rate;
                    sim.run_until(until);
                }
                sim.attempts.truncate(1_500);
                let shares = (0..5).map(|i| sim.share(i, 0.0, until));
                let smallest = shares.fold(f64::MAX, f64::min);
                least = least.min(smallest);
                assert!(
                    smallest >= 0.7,
                    "{policy}, {rate} a second, seed {seed}: {smallest}"
                );
            }
        });
        eprintln!("{policy}: smallest share {least:.3} of a fair one");
    }
}
