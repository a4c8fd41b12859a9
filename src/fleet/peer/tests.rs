use super::*;
use crate::base::addr::EndpointAddr;
use crate::fleet::fact::{Part, Word};
use crate::fleet::facts::{Flaw, MAX_OF_ORIGIN};
use crate::fleet::stamp::Stamp;
use crate::upstream::overrides::By;

const ME: PeerId = PeerId(7);
const NOW: Now = Now {
    now: 1_000_000_000,
    unix_ms: 1_800_000_000_000,
};

fn peer(facts: Facts) -> Peer {
    let secret: Box<[u8]> = (*b"a secret of the fleet of these tests").into();
    let settings = Settings {
        peer: ME,
        addr: "10.0.0.7:7946".parse().unwrap(),
        keyring: Keyring::new("test", [secret]).unwrap(),
        session: [1; 8],
        about: About::default(),
        max_clock_skew: Duration::from_secs(5),
        facts,
        probers: 3,
        max_remove: 0.5,
        seed: 1,
    };
    Peer::new(settings, NOW)
}

fn endpoint() -> EndpointAddr {
    EndpointAddr::Ip("10.1.0.1:80".parse().unwrap())
}

/// It was saved before the endpoint took its registration back, and the others know better.
#[test]
fn endpoint_registers_again_after_a_life_that_saved_too_early() {
    let terms = crate::fleet::standing::Terms {
        weight: 1,
        zone: None,
        ttl: Duration::from_secs(30),
    };
    let app: Name = "app".into();
    let mut before = peer(Facts::default());
    before
        .register(&app, &endpoint(), terms.clone(), NOW)
        .unwrap();
    let mut saved = Facts::default();
    for fact in before.facts().iter() {
        saved.merge(fact.clone(), NOW.unix_ms);
    }
    assert!(before.deregister(&app, &endpoint(), NOW));
    let key = Key::Registration {
        upstream: app.clone(),
        endpoint: endpoint(),
        registrar: ME,
    };
    let gone = before.facts().get(&key).unwrap().clone();
    assert_eq!(gone.value, Value::Gone);

    let mut after = peer(saved);
    after.take(&gone, PeerId(9), NOW);
    assert_eq!(after.facts().get(&key).unwrap().value, Value::Gone);
    after.register(&app, &endpoint(), terms, NOW).unwrap();
    let held = &after.facts().get(&key).unwrap().value;
    assert!(matches!(held, Value::Registered { .. }), "{held}");
}

/// What an operator said before there was a fleet is as old as it is.
#[test]
fn what_is_recalled_does_not_win_over_what_was_said_since() {
    let key = |part| Key::Override {
        upstream: "app".into(),
        endpoint: endpoint(),
        part,
    };
    let said = |word| Value::Said {
        word,
        by: By {
            owner: "uid:0".to_owned(),
            reason: String::new(),
            since_unix_ms: NOW.unix_ms - 1000,
            expires_unix_ms: None,
        },
    };
    let mut peer = peer(Facts::default());
    peer.say(key(Part::State), Value::Gone, NOW).unwrap();
    for (part, word) in [(Part::State, Word::Drain), (Part::Weight, Word::Weight(5))] {
        let at = NOW.unix_ms - 1000;
        peer.recall(key(part), said(word), at, NOW).unwrap();
    }
    let value = |part| &peer.facts().get(&key(part)).unwrap().value;
    assert_eq!(*value(Part::State), Value::Gone);
    assert_eq!(*value(Part::Weight), said(Word::Weight(5)));
    // Nor is it of a time to come.
    let later = NOW.unix_ms + 1_000_000;
    peer.recall(key(Part::Member), said(Word::Leaves), later, NOW)
        .unwrap();
    let stamp = peer.facts().get(&key(Part::Member)).unwrap().stamp;
    assert_eq!(stamp, Stamp::at(NOW.unix_ms));
}

/// What an endpoint says of itself with each renewal is not all told, but the last of it is.
#[test]
fn weight_that_changes_all_the_time_is_told_at_a_pace() {
    let app: Name = "app".into();
    let mut peer = peer(Facts::default());
    let key = Key::Registration {
        upstream: app.clone(),
        endpoint: endpoint(),
        registrar: ME,
    };
    let at = |ms: u64| Now {
        now: NOW.now + ms * 1_000_000,
        unix_ms: NOW.unix_ms + ms,
    };
    let mut told = BTreeSet::new();
    for n in 0..200 {
        let terms = crate::fleet::standing::Terms {
            weight: n,
            zone: None,
            ttl: Duration::from_secs(30),
        };
        let now = at(u64::from(n) * 100);
        peer.wake(now);
        peer.register(&app, &endpoint(), terms, now).unwrap();
        told.insert(peer.facts().get(&key).unwrap().stamp);
    }
    assert_eq!(told.len(), 4, "20 s");
    while peer.wake_at() < at(40_000).now {
        let ms = (peer.wake_at() - NOW.now).div_ceil(1_000_000);
        peer.wake(at(ms));
    }
    let held = &peer.facts().get(&key).unwrap().value;
    assert!(
        matches!(held, Value::Registered { weight: 199, .. }),
        "{held}"
    );
}

/// What could not be told is found out before anything has changed.
#[test]
fn what_cannot_be_told_is_known_beforehand() {
    let peer = peer(Facts::default());
    let key = |endpoint: &str| Key::Override {
        upstream: "app".into(),
        endpoint: EndpointAddr::Ip(endpoint.parse().unwrap()),
        part: Part::State,
    };
    assert_eq!(peer.could_say(key("10.0.0.1:80"), Value::Gone), Ok(()));
    let zoned = peer.could_say(key("[fe80::1%1]:80"), Value::Gone);
    assert_eq!(zoned, Err(Flaw::Address));
    assert!(peer.facts().get(&key("10.0.0.1:80")).is_none());
}

/// A peer that goes wrong fills its own part of the store, and no other's.
#[test]
fn one_peer_leaves_room_for_the_others() {
    let mut peer = peer(Facts::default());
    let drain = |n: u32, origin: PeerId| {
        let [_, a, b, c] = n.to_be_bytes();
        Fact {
            key: Key::Override {
                upstream: "app".into(),
                endpoint: EndpointAddr::Ip(([10, a, b, c], 80).into()),
                part: Part::State,
            },
            value: Value::Said {
                word: Word::Drain,
                by: By {
                    owner: "uid:0".to_owned(),
                    reason: String::new(),
                    since_unix_ms: NOW.unix_ms,
                    expires_unix_ms: None,
                },
            },
            stamp: Stamp::at(NOW.unix_ms),
            origin,
        }
    };
    let most = MAX_OF_ORIGIN as u32;
    for n in 0..most + 10 {
        peer.take(&drain(n, PeerId(9)), PeerId(9), NOW);
    }
    assert_eq!(peer.counts().flaws.get("quota"), Some(&10));
    assert_eq!(peer.quarantine().last().next().unwrap().flaw, Flaw::Quota);
    assert_eq!(peer.noisy, BTreeSet::from([PeerId(9)]));
    peer.take(&drain(most + 20, PeerId(8)), PeerId(9), NOW);
    let own = drain(most + 21, ME);
    peer.say(own.key.clone(), own.value, NOW).unwrap();
    assert_eq!(peer.facts().len(), MAX_OF_ORIGIN + 3);
}
