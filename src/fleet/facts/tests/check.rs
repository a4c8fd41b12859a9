//! What cannot be so is refused, and kept for those who ask.

use std::path::PathBuf;

use super::*;
use crate::fleet::fact::{MAX_FACT, MAX_WHY};
use crate::upstream::overrides::{MAX_OWNER, MAX_REASON, MAX_WEIGHT};

fn with(fact: Fact, change: impl FnOnce(&mut Fact)) -> Fact {
    let mut fact = fact;
    change(&mut fact);
    fact
}

fn at(addr: EndpointAddr) -> Fact {
    with(drain(1, NOW, 1), |f| {
        f.key = Key::Override {
            upstream: "app".into(),
            endpoint: addr,
            part: Part::State,
        };
    })
}

fn words(owner: &str, reason: &str) -> Fact {
    with(drain(1, NOW, 1), |f| {
        f.value = Value::Said {
            word: Word::Drain,
            by: By {
                owner: owner.to_owned(),
                reason: reason.to_owned(),
                ..by(None)
            },
        };
    })
}

fn why(text: &str) -> Fact {
    with(vote("app", 1, 1, NOW), |f| {
        f.value = Value::Vote {
            passed: false,
            check: 0,
            why: text.to_owned(),
        };
    })
}

fn registration(weight: u32, zone: &str, ttl_ms: u32) -> Fact {
    with(registered("app", 1, 1, NOW), |f| {
        f.value = Value::Registered {
            weight,
            zone: Some(zone.into()),
            ttl_ms,
        };
    })
}

fn about(zone: &str, version: &str) -> Fact {
    let about = About {
        zone: Some(zone.into()),
        version: version.to_owned(),
        ..About::default()
    };
    Fact {
        key: Key::Peer(PeerId(1)),
        value: Value::Peer(about),
        stamp: Stamp::at(NOW),
        origin: PeerId(1),
    }
}

fn ip_at(text: &str) -> Fact {
    at(EndpointAddr::Ip(text.parse().unwrap()))
}

#[test]
fn what_can_be_so_is_taken_and_comes_back_from_the_wire() {
    let longest = with(
        words(&"o".repeat(MAX_OWNER), &"r".repeat(MAX_REASON)),
        |f| {
            f.key = Key::Override {
                upstream: "u".repeat(128).as_str().into(),
                endpoint: EndpointAddr::Unix(PathBuf::from(format!("/{}", "p".repeat(106)))),
                part: Part::State,
            };
        },
    );
    for fact in [
        longest,
        why(&"w".repeat(MAX_WHY)),
        registration(MAX_WEIGHT, &"z".repeat(128), 1000),
        registration(0, "z", 86_400_000),
        about("a", &"v".repeat(MAX_VERSION)),
        said(Part::Member, Word::Leaves, 1, NOW, 1),
        said(Part::Member, Word::Joins(1000), 1, NOW, 1),
        said(Part::Weight, Word::Weight(0), 1, NOW, 1),
        gone(&vote("A-b_c.9", 1, 1, NOW), NOW),
        ip_at("[fe80::1]:80"),
    ] {
        assert_eq!(fact.check(), Ok(()), "{fact:?}");
        let bytes = postcard::to_allocvec(&fact).unwrap();
        assert!(bytes.len() <= MAX_FACT);
        assert_eq!(postcard::from_bytes::<Fact>(&bytes).unwrap(), fact);
    }
}

#[test]
fn what_cannot_be_so_is_refused() {
    let named = |name: &str| vote(name, 1, 1, NOW);
    let path = |path: &str| at(EndpointAddr::Unix(PathBuf::from(path)));
    let of_other = |fact: Fact| with(fact, |f| f.origin = PeerId(9));
    let valued = |fact: Fact, value: &Value| with(fact, |f| f.value = value.clone());
    let passing = vote("app", 1, 1, NOW).value;
    let drains = drain(1, NOW, 1).value;
    let long_name = "n".repeat(129);
    for (flaw, fact) in [
        (Flaw::Address, ip_at("0.0.0.0:80")),
        (Flaw::Address, ip_at("[::]:80")),
        (Flaw::Address, ip_at("10.0.0.1:0")),
        (Flaw::Address, ip_at("[fe80::1%3]:80")),
        (Flaw::Address, path("run/app.sock")),
        (Flaw::Address, path("/")),
        (Flaw::Address, path("/run/\n")),
        (Flaw::Address, path(&format!("/{}", "p".repeat(107)))),
        (Flaw::ControlCharacter, words("uid:0\n", "")),
        (Flaw::ControlCharacter, words("uid:0", "\u{1b}[2J")),
        (Flaw::ControlCharacter, why("\r")),
        (Flaw::ControlCharacter, about("a", "\0")),
        (Flaw::Name, named("")),
        (Flaw::Name, named("a b")),
        (Flaw::Name, named("é")),
        (Flaw::Name, named(&long_name)),
        (Flaw::Name, gone(&named("a/b"), NOW)),
        (Flaw::Name, registration(1, "", 1000)),
        (Flaw::Name, about("a b", "1")),
        (Flaw::NoOwner, words("", "why")),
        (Flaw::Origin, of_other(vote("app", 1, 1, NOW))),
        (Flaw::Origin, of_other(registered("app", 1, 1, NOW))),
        (Flaw::Origin, of_other(about("a", "1"))),
        (Flaw::Origin, of_other(gone(&vote("app", 1, 1, NOW), NOW))),
        (Flaw::TooLong, words(&"o".repeat(MAX_OWNER + 1), "")),
        (Flaw::TooLong, words("o", &"r".repeat(MAX_REASON + 1))),
        (Flaw::TooLong, why(&"w".repeat(MAX_WHY + 1))),
        (Flaw::TooLong, about("a", &"v".repeat(MAX_VERSION + 1))),
        (Flaw::Ttl, registration(1, "a", 999)),
        (Flaw::Ttl, registration(1, "a", 86_400_001)),
        (Flaw::Value, valued(drain(1, NOW, 1), &passing)),
        (Flaw::Value, valued(vote("app", 1, 1, NOW), &drains)),
        (Flaw::Value, valued(registered("app", 1, 1, NOW), &passing)),
        (Flaw::Value, valued(about("a", "1"), &passing)),
        (Flaw::Value, said(Part::Member, Word::Drain, 1, NOW, 1)),
        (Flaw::Value, said(Part::State, Word::Leaves, 1, NOW, 1)),
        (Flaw::Value, said(Part::Weight, Word::Joins(1), 1, NOW, 1)),
        (Flaw::Value, said(Part::Member, Word::Weight(1), 1, NOW, 1)),
        (
            Flaw::Weight,
            said(Part::Weight, Word::Weight(1001), 1, NOW, 1),
        ),
        (
            Flaw::Weight,
            said(Part::Member, Word::Joins(1001), 1, NOW, 1),
        ),
        (Flaw::Weight, registration(u32::MAX, "a", 1000)),
    ] {
        assert_eq!(fact.check(), Err(flaw), "{fact:?}");
        let mut facts = Facts::default();
        assert_eq!(facts.merge(fact, NOW), Merged::Refused(flaw));
        assert!(facts.is_empty() && facts.root() == 0 && facts.upstreams().next().is_none());
    }
}

#[test]
fn flaws_are_sorted_labels() {
    let words = Flaw::ALL.map(Flaw::as_str);
    assert!(words.is_sorted());
    for (i, flaw) in Flaw::ALL.into_iter().enumerate() {
        assert_eq!(flaw as usize, i);
        assert!(!flaw.to_string().is_empty());
    }
}

#[test]
fn quarantine_keeps_the_last_and_counts_all() {
    let mut quarantine = Quarantine::default();
    let bad = vote(&format!("\u{1b}{}", "x".repeat(1000)), 1, 1, NOW);
    for n in 0..100 {
        quarantine.note(&bad, Flaw::Name, PeerId(2), n);
    }
    quarantine.note(&drain(1, NOW, 3), Flaw::Full, PeerId(4), 100);
    assert_eq!((quarantine.last().len(), quarantine.total()), (KEPT, 101));
    let last: Vec<&Flawed> = quarantine.last().collect();
    let newest = Flawed {
        key: "state of upstream app, endpoint 10.0.0.1:80".to_owned(),
        origin: PeerId(3),
        from: PeerId(4),
        flaw: Flaw::Full,
        unix_ms: 100,
    };
    assert_eq!(last[0], &newest);
    assert_eq!(last[1].unix_ms, 99);
    assert!(last[1].key.len() <= 320 && !last[1].key.contains(char::is_control));
    let counts: Vec<(Flaw, u64)> = quarantine.counts().filter(|(_, n)| *n > 0).collect();
    assert_eq!(counts, [(Flaw::Full, 1), (Flaw::Name, 100)]);
}
