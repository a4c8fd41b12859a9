//! All endpoints fail at once: what retries add, and how soon everything is as before.

use super::*;

const RATE: f64 = 1_000.0;

/// Well for 15 s, so that the budget has had time to fill; out for 25 s; well again for 3 s.
fn outage(how: Does, seed: u64) -> Sim {
    let setup = Setup {
        upstream: "outlier = {}",
        retry: "attempts = 3\non = ['connect', 'reset', 'timeout', '5xx']\nper_try_timeout = '500ms'",
        ..Setup::default()
    };
    let mut sim = setup.sim(seed);
    sim.offer(RATE);
    sim.at(15.0, move |sim| sim.all_do(how));
    sim.at(40.0, |sim| sim.all_do(Does::Serve));
    sim.run_until(43.0);
    sim.finish();
    sim
}

/// Of any ten seconds: the greatest of attempts over what there may be, and of attempts over arrivals.
/// There may be the arrivals, a fifth of those of the ten seconds that pay for retries, and what the
/// floor has saved up and gets meanwhile.
fn worst(sim: &Sim) -> (f64, f64) {
    /// Tenths of a second in ten seconds.
    const WINDOW: usize = 100;
    let in_tenths = |times: &mut dyn Iterator<Item = Nanos>| {
        let mut tenths = vec![0.0; 600];
        times.for_each(|at| tenths[((at - BEGIN) / (100 * MS)) as usize] += 1.0);
        tenths
    };
    let arrivals = in_tenths(&mut sim.done.iter().map(|d| d.arrived));
    let attempts = in_tenths(&mut sim.attempts.iter().map(|(at, _)| *at));
    let sum = |tenths: &[f64], from: usize, length: usize| -> f64 {
        tenths[from..from + length].iter().sum()
    };
    let (mut of_bound, mut of_arrivals) = (0.0f64, 0.0f64);
    for from in WINDOW..330 {
        let (made, came) = (sum(&attempts, from, WINDOW), sum(&arrivals, from, WINDOW));
        let paying = (from - WINDOW..=from).map(|from| sum(&arrivals, from, WINDOW + 1));
        let may = came + 0.2 * paying.fold(0.0, f64::max) + 10.0 * 20.0;
        of_bound = of_bound.max(made / may);
        of_arrivals = of_arrivals.max(made / came);
    }
    (of_bound, of_arrivals)
}

#[test]
fn retries_add_a_fifth_whatever_fails_and_recovery_is_immediate() {
    for how in [Does::Refuse, Does::Fail, Does::Hang] {
        each_seed(1, 10, |seed| {
            let sim = outage(how, seed);
            let (worst, plain) = worst(&sim);
            let during: usize = sim.attempts_by_server(15.0, 40.0).iter().sum();
            let offered = sim.arrived(15.0, 40.0).len();
            let ratio = during as f64 / offered as f64;
            eprintln!(
                "{how:?}: attempts {ratio:.3} x offered, worst 10 s {plain:.3} x ({worst:.3} of the bound)"
            );
            assert!(worst <= 1.0, "{how:?}, seed {seed}: {worst}");
            // And they do get what the budget has.
            assert!(ratio >= 1.15, "{how:?}, seed {seed}: {ratio}");
            let after = sim.arrived(40.0, 43.0);
            assert_eq!(
                count(&after, End::Answered),
                after.len(),
                "{how:?}, seed {seed}"
            );
        });
    }
}
