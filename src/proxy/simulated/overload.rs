//! Clients that do not slow down send twice what the endpoints bear.

use super::*;

/// Four endpoints of five places, 10 ms each: 2,000 a second.
const CAPACITY: f64 = 2_000.0;

/// What was measured while it lasted.
#[derive(Debug)]
struct Measured {
    /// Answers a second.
    goodput: f64,
    /// In milliseconds.
    p99: f64,
    /// With those who were let in after it was over.
    p99_of_all: f64,
}

fn sim(upstream: &str, service: Service, seed: u64) -> Sim {
    let setup = Setup {
        endpoints: 4,
        upstream,
        ..Setup::default()
    };
    let mut sim = setup.sim(seed);
    for server in &mut sim.servers {
        server.free_at = vec![0; 5];
        server.service = service;
    }
    sim
}

/// `rate` a second for 10 s, after `warm_up` seconds of the same.
fn measure(mut sim: Sim, rate: f64, warm_up: f64) -> Measured {
    sim.offer(rate);
    sim.run_until(warm_up + 10.0);
    let answers = sim.done.iter().filter(|d| d.end == End::Answered);
    let goodput = answers.filter(|d| d.at >= time(warm_up)).count() as f64 / 10.0;
    let p99 = latency_ms(&sim.arrived(warm_up, warm_up + 10.0), 99.0);
    sim.finish();
    Measured {
        goodput,
        p99,
        p99_of_all: latency_ms(&sim.arrived(warm_up, warm_up + 10.0), 99.0),
    }
}

const SERVICES: [Service; 2] = [Service::Exponential(10 * MS), Service::Constant(10 * MS)];

/// From an idle proxy into ten seconds of it: the first 100 ms, in which the line still is in order,
/// count too.
#[test]
fn twice_the_capacity_leaves_goodput_and_keeps_the_p99_of_who_is_let_in() {
    each_seed(1, 10, |seed| {
        for service in SERVICES {
            let short = "max_connections = 5\nqueue = { length = 100 }";
            let long = "max_connections = 5";
            let over = |upstream, in_order: bool| {
                let mut sim = sim(upstream, service, seed);
                sim.fifo = in_order.then(VecDeque::new);
                measure(sim, CAPACITY * 2.0, 0.0)
            };
            let unloaded = measure(sim(long, service, seed), CAPACITY / 5.0, 0.0);
            let newest_first = [over(short, false), over(long, false)];
            let in_order = [over(short, true), over(long, true)];
            let without = over("", false);
            eprintln!("{service:?}: unloaded {unloaded:?}");
            eprintln!(
                "line of 100: newest first {:?}, in order {:?}",
                newest_first[0], in_order[0]
            );
            eprintln!(
                "line of 1000: newest first {:?}, in order {:?}",
                newest_first[1], in_order[1]
            );
            eprintln!("no limit {without:?}");
            for over in &newest_first {
                assert!(
                    over.goodput >= 0.9 * CAPACITY,
                    "{service:?}, seed {seed}: {over:?}"
                );
                assert!(
                    over.p99 <= 3.0 * unloaded.p99,
                    "{service:?}, seed {seed}: {over:?}"
                );
            }
            // A long line is served to its oldest when the overload is over; a short one has none so old.
            let [short, long] = newest_first;
            assert!(
                short.p99_of_all < 100.0,
                "{service:?}, seed {seed}: {short:?}"
            );
            assert!(
                long.p99_of_all > 3.0 * unloaded.p99,
                "{service:?}, seed {seed}: {long:?}"
            );
            assert!(
                in_order[1].p99 > 3.0 * unloaded.p99,
                "{service:?}, seed {seed}"
            );
            assert!(without.p99 > 3.0 * unloaded.p99, "{service:?}, seed {seed}");
        }
    });
}

#[test]
fn learnt_limits_do_as_well_without_knowing_the_capacity() {
    each_seed(1, 10, |seed| {
        for service in SERVICES {
            let limit = "adaptive_concurrency = true\nqueue = { length = 100, timeout = '1s' }";
            let unloaded = measure(sim(limit, service, seed), CAPACITY / 5.0, 0.0);
            let over = measure(sim(limit, service, seed), CAPACITY * 2.0, 10.0);
            let cold = measure(sim(limit, service, seed), CAPACITY * 2.0, 0.0);
            eprintln!("{service:?}: unloaded {unloaded:?}\nover {over:?}\ncold {cold:?}");
            assert!(
                over.goodput >= 0.9 * CAPACITY,
                "{service:?}, seed {seed}: {over:?}"
            );
            assert!(
                over.p99 <= 3.0 * unloaded.p99,
                "{service:?}, seed {seed}: {over:?}, {unloaded:?}"
            );
        }
    });
}
