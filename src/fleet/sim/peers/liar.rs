//! One peer that has the secret, and lies.

use super::prober::World;
use super::*;
use crate::fleet::push;
use crate::fleet::seal::{Kind, MAX_PAYLOAD, Sealer};
use crate::fleet::stamp::Stamp;

#[test]
fn liar_takes_away_no_more_than_its_share() {
    each_seed(1, 100, |seed| {
        let endpoints = 20;
        let world = World::new(endpoints, seconds(2));
        let common = Common {
            world: Some(world.clone()),
            ..Common::new(seed)
        };
        let mut net = common.fleet(8);
        net.run(seconds(30));
        let spec = upstream(endpoints);
        let liar = 7;
        for n in 0..endpoints {
            say(&mut net, liar, n, Some(Word::Disable));
            net.with(liar, |machine, clock| {
                let prober = machine.prober.as_ref().unwrap();
                let check = prober.check();
                let why = "it looked at me".to_owned();
                machine
                    .peer
                    .vote(app(), endpoint(n), false, check, why, clock);
            });
        }
        // Facts that it may not say, or that cannot be.
        let clock = net.clock(liar);
        let mut sealer = Sealer::new(&common.keyring, peer(liar), [9; 8]);
        let registered = |registrar: usize, ttl_ms: u32| Fact {
            key: Key::Registration {
                upstream: app(),
                endpoint: endpoint(99),
                registrar: peer(registrar),
            },
            value: Value::Registered {
                weight: 1,
                zone: None,
                ttl_ms,
            },
            stamp: Stamp::at(clock.unix_ms),
            origin: peer(liar),
        };
        let ahead = Fact {
            stamp: Stamp::at(clock.unix_ms + 60_000),
            ..registered(liar, 30_000)
        };
        let mut nonsense = Vec::new();
        for fact in [registered(1, 30_000), registered(liar, 0), ahead] {
            assert!(push::pack(&fact, MAX_PAYLOAD, &mut nonsense));
        }
        nonsense.extend_from_slice(&[0, 3, 255, 255, 255]);
        let mut bytes = Vec::new();
        let sealed = sealer.seal(Kind::Facts, clock.unix_ms, &nonsense, &mut bytes);
        sealed.unwrap();
        let to = addr(0);
        net.with(liar, |machine, _| {
            machine.extra.push_back(Sent::Datagram { to, bytes });
        });
        for _ in 0..10 {
            net.run(seconds(1));
            for index in 0..liar {
                let told = told_at(&mut net, index, &spec);
                let is_off = |spoken: &&Spoken| {
                    let state = spoken.state.as_ref();
                    state.is_some_and(|heard| heard.value.is_some())
                };
                let off = told.values().filter(is_off).count();
                assert!(off <= endpoints / 2, "{off} at {index}");
                let machine = net.get(index).unwrap();
                assert_eq!(machine.prober.as_ref().unwrap().down(), 0);
            }
        }
        let peer = &net.get(0).unwrap().peer;
        assert!(peer.brake().held().count() >= endpoints / 2);
        let flaws = &peer.counts().flaws;
        for why in ["origin", "ttl", "ahead", "encoding"] {
            assert_eq!(flaws.get(why), Some(&1), "{why}: {flaws:?}");
        }
        assert!(is_one(&net));
    });
}
