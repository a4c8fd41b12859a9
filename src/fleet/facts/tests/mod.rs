//! What the tests of facts share; one file for each thing that stores of facts do.

mod check;
mod compare;
mod merge;
mod snapshot;

use proptest::prelude::*;

use super::*;
use crate::fleet::fact::{About, Word};
use crate::fleet::stamp::Stamp;
use crate::upstream::overrides::By;

/// 2026-11-21T15:04:05Z
pub(super) const NOW: u64 = 1_795_273_445_000;
pub(super) const DAY: u64 = GC_AFTER_MS;

pub(super) fn ip(n: u32) -> EndpointAddr {
    let [_, a, b, c] = n.to_be_bytes();
    EndpointAddr::Ip(SocketAddr::from(([10, a, b, c], 80)))
}

pub(super) fn by(expires_unix_ms: Option<u64>) -> By {
    By {
        owner: "uid:0".to_owned(),
        reason: "deploy".to_owned(),
        since_unix_ms: NOW,
        expires_unix_ms,
    }
}

pub(super) fn override_key(upstream: &str, endpoint: u32, part: Part) -> Key {
    Key::Override {
        upstream: upstream.into(),
        endpoint: ip(endpoint),
        part,
    }
}

pub(super) fn drain(endpoint: u32, unix_ms: u64, origin: u64) -> Fact {
    said(Part::State, Word::Drain, endpoint, unix_ms, origin)
}

pub(super) fn said(part: Part, word: Word, endpoint: u32, unix_ms: u64, origin: u64) -> Fact {
    Fact {
        key: override_key("app", endpoint, part),
        value: Value::Said { word, by: by(None) },
        stamp: Stamp::at(unix_ms),
        origin: PeerId(origin),
    }
}

pub(super) fn registered(upstream: &str, endpoint: u32, registrar: u64, unix_ms: u64) -> Fact {
    Fact {
        key: Key::Registration {
            upstream: upstream.into(),
            endpoint: ip(endpoint),
            registrar: PeerId(registrar),
        },
        value: Value::Registered {
            weight: 1,
            zone: Some("a".into()),
            ttl_ms: 30_000,
        },
        stamp: Stamp::at(unix_ms),
        origin: PeerId(registrar),
    }
}

pub(super) fn vote(upstream: &str, endpoint: u32, prober: u64, unix_ms: u64) -> Fact {
    Fact {
        key: Key::Vote {
            upstream: upstream.into(),
            endpoint: ip(endpoint),
            prober: PeerId(prober),
        },
        value: Value::Vote {
            passed: true,
            check: 7,
            why: "200 OK".to_owned(),
        },
        stamp: Stamp::at(unix_ms),
        origin: PeerId(prober),
    }
}

pub(super) fn gone(fact: &Fact, unix_ms: u64) -> Fact {
    Fact {
        value: Value::Gone,
        stamp: Stamp::at(unix_ms),
        ..fact.clone()
    }
}

pub(super) fn store(facts: &[Fact]) -> Facts {
    let mut store = Facts::default();
    for fact in facts {
        store.merge(fact.clone(), NOW);
    }
    store
}

pub(super) fn list(facts: &Facts) -> Vec<Fact> {
    facts.iter().cloned().collect()
}

/// Facts of few keys, few stamps and few origins, so that they meet: all kinds, all of them checked.
pub(super) fn any_fact() -> impl Strategy<Value = Fact> {
    let key = (0..4_u8, 0..2_u8, 0..3_u32, 0..3_u64, 0..3_u8);
    let rest = (0..5_u8, 0..3_u32, 0..4_u64, 0..3_u64);
    (key, rest).prop_map(
        |((kind, upstream, endpoint, peer, part), (word, n, stamp, origin))| {
            let upstream: Name = ["app", "pool"][usize::from(upstream)].into();
            let (endpoint, peer) = (ip(endpoint), PeerId(peer));
            let part = [Part::Member, Part::State, Part::Weight][usize::from(part)];
            let key = match kind {
                0 => Key::Peer(peer),
                1 => Key::Registration {
                    upstream,
                    endpoint,
                    registrar: peer,
                },
                2 => Key::Override {
                    upstream,
                    endpoint,
                    part,
                },
                _ => Key::Vote {
                    upstream,
                    endpoint,
                    prober: peer,
                },
            };
            let value = match (&key, word) {
                (_, 0) => Value::Gone,
                (Key::Peer(_), _) => Value::Peer(About {
                    version: n.to_string(),
                    ..About::default()
                }),
                (Key::Registration { .. }, _) => Value::Registered {
                    weight: n,
                    zone: None,
                    ttl_ms: 1000 + u32::from(word),
                },
                (Key::Override { .. }, _) => Value::Said {
                    word: match (part, word % 2) {
                        (Part::Member, 0) => Word::Joins(n),
                        (Part::Member, _) => Word::Leaves,
                        (Part::State, 0) => Word::Drain,
                        (Part::State, _) => Word::Disable,
                        (Part::Weight, _) => Word::Weight(n),
                    },
                    by: by(None),
                },
                (Key::Vote { .. }, _) => Value::Vote {
                    passed: word % 2 == 0,
                    check: u64::from(n),
                    why: String::new(),
                },
            };
            Fact {
                origin: key.writer().unwrap_or(PeerId(origin)),
                key,
                value,
                stamp: Stamp(Stamp::at(NOW).0 + stamp),
            }
        },
    )
}

/// The digests anew, from nothing but the facts.
pub(super) fn assert_digests(facts: &Facts) {
    let mut anew = Digests::default();
    for fact in facts.iter() {
        let bytes = postcard::to_allocvec(fact).unwrap();
        anew.add(bucket_of(&fact.key), hash(&bytes));
    }
    assert_eq!(facts.root(), anew.root());
    assert_eq!(facts.groups(), anew.groups());
    let mut sum = 0_usize;
    for group in 0..GROUPS {
        assert_eq!(facts.buckets(group), anew.buckets(group));
    }
    for bucket in 0..BUCKETS as u16 {
        for fact in facts.in_bucket(bucket) {
            assert_eq!(bucket_of(&fact.key), bucket);
            assert_eq!(facts.get(&fact.key), Some(fact));
            sum += 1;
        }
    }
    assert_eq!(sum, facts.len());
    assert_eq!(facts.counts().total(), facts.len());
    let named: BTreeSet<&Name> = facts.iter().filter_map(|f| f.key.upstream()).collect();
    assert!(named.into_iter().eq(facts.upstreams()));
}
