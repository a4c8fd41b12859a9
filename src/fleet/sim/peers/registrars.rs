//! Registrations and those who keep them.

use super::*;

const TTL: Duration = Duration::from_secs(10);

#[test]
fn endpoint_outlives_its_registrar_and_another_adopts_it() {
    each_seed(2, 200, |seed| {
        let mut net = Common::new(seed).fleet(5);
        let spec = upstream(0);
        register(&mut net, 0, 1, TTL);
        register(&mut net, 0, 2, TTL);
        net.run(seconds(5));
        for index in 1..5 {
            assert_eq!(registered_at(&mut net, index, &spec), 2);
        }
        net.crash(0);
        let gone = net.run_until(seconds(60), |net| {
            net.running().all(|(_, m)| m.peer.live().len() == 3)
        });
        assert!(gone.is_some());
        net.run(seconds(20));
        for index in 1..5 {
            assert_eq!(registered_at(&mut net, index, &spec), 2, "not yet");
        }
        // The first asks another peer from now on, the second is no more.
        for _ in 0..20 {
            register(&mut net, 3, 1, TTL);
            net.run(seconds(3));
        }
        for index in 1..5 {
            assert_eq!(registered_at(&mut net, index, &spec), 1);
        }
        net.run(seconds(30));
        for index in 1..5 {
            assert_eq!(registered_at(&mut net, index, &spec), 0, "its lease ended");
        }
    });
}

#[test]
fn who_is_alone_keeps_what_it_knows_of() {
    let mut net = Common::new(1).fleet(2);
    let spec = upstream(0);
    register(&mut net, 0, 1, TTL);
    net.run(seconds(5));
    net.crash(0);
    for _ in 0..60 {
        net.run(seconds(60));
        assert_eq!(registered_at(&mut net, 1, &spec), 1);
    }
    let stalled = net.get(1).unwrap().peer.counts().stalled;
    assert_eq!(stalled, 0);
}

/// What it has to tell waits for somebody to come; that it waited is no stall.
#[test]
fn waiting_for_company_is_no_stall() {
    let common = Common::new(1);
    let mut net = Net::new(1, OVERHEAD);
    net.add(addr(0), common.start(0, Facts::default()));
    register(&mut net, 0, 1, seconds(3600));
    net.run(seconds(123));
    net.add(addr(1), common.start(1, Facts::default()));
    assert!(net.run_until(seconds(10), is_equal).is_some());
    net.run(seconds(10));
    for index in 0..2 {
        assert_eq!(net.get(index).unwrap().peer.counts().stalled, 0);
    }
}

#[test]
fn lease_survives_that_its_registrar_stood_still() {
    let mut net = Common::new(1).fleet(3);
    let spec = upstream(0);
    register(&mut net, 0, 1, TTL);
    net.run(seconds(5));
    net.freeze(0, seconds(12));
    net.run(seconds(14));
    for index in 0..3 {
        assert_eq!(registered_at(&mut net, index, &spec), 1, "{index}");
    }
    net.run(seconds(6));
    for index in 0..3 {
        assert_eq!(registered_at(&mut net, index, &spec), 0, "{index}");
    }
}
