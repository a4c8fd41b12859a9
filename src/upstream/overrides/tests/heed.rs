//! What a fleet says, and what operators may say of those that registered.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const PEER: &str = "00000000000000aa";

#[expect(clippy::unnecessary_wraps, reason = "as it stands in what is told")]
fn heard<T>(value: T, owner: &str) -> Option<Heard<Said<T>>> {
    Some(Heard {
        value: Some(Said {
            value,
            by: by(owner),
        }),
        peer: PEER.to_owned(),
        why: None,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "as it stands in what is told")]
fn gone<T>(why: Option<&str>) -> Option<Heard<T>> {
    Some(Heard {
        value: None,
        peer: PEER.to_owned(),
        why: why.map(str::to_owned),
    })
}

fn registered(weight: u32) -> Spoken {
    Spoken {
        registered: Some(Heard {
            value: Some(Registered {
                weight,
                zone: Some("a".into()),
                by: format!("registered at {PEER}"),
            }),
            peer: PEER.to_owned(),
            why: None,
        }),
        ..Spoken::default()
    }
}

fn told(all: impl IntoIterator<Item = (&'static str, Spoken)>) -> Told {
    let all = all.into_iter();
    all.map(|(text, spoken)| (addr(text), spoken)).collect()
}

fn spec<'a>(config: &'a Config, name: &str) -> &'a config::Upstream {
    config.upstreams.iter().find(|u| &*u.name == name).unwrap()
}

/// What is told of `pool`, or of another upstream of [`config`].
fn heed(overrides: &mut Overrides, upstream: &str, told: Told) -> Vec<String> {
    let heeded = overrides.heed(told, spec(&config(), upstream));
    assert_eq!(heeded.left_out, 0);
    heeded.effects.into_iter().map(|e| e.text).collect()
}

/// `pool` with NEW registered, weight 5.
fn with_registered() -> Overrides {
    let mut overrides = Overrides::default();
    heed(&mut overrides, "pool", told([(NEW, registered(5))]));
    overrides
}

fn apply(overrides: &mut Overrides, verb: Verb) -> Result<Applied, String> {
    let applied = overrides.apply(wish("pool", NEW, verb), &config(), NOW);
    applied.map_err(|refused| refused.to_string())
}

#[test]
fn every_effect_names_the_peer_and_what_it_did() {
    let mut overrides = Overrides::default();
    let drained = Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        weight: heard(7, "ci"),
        ..Spoken::default()
    };
    let joins = Spoken {
        member: heard(Membership::Joins(3), "uid:0"),
        ..Spoken::default()
    };
    let leaves = Spoken {
        member: heard(Membership::Leaves, "uid:0"),
        ..Spoken::default()
    };
    let heeded = overrides.heed(
        told([
            (A, drained.clone()),
            (B, leaves),
            (NEW, joins),
            ("10.0.0.8:80", registered(5)),
        ]),
        spec(&config(), "pool"),
    );
    let texts: Vec<_> = heeded.effects.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "upstream `pool`, endpoint 10.0.0.1:80: active -> drain, by uid:0 at peer 00000000000000aa",
            "upstream `pool`, endpoint 10.0.0.1:80: weight 1 -> 7, by ci at peer 00000000000000aa",
            "upstream `pool`, endpoint 10.0.0.2:80: leaves, by uid:0 at peer 00000000000000aa",
            "upstream `pool`, endpoint 10.0.0.8:80: joins with weight 5, registered at 00000000000000aa",
            "upstream `pool`, endpoint 10.0.0.9:80: joins with weight 3, by uid:0 at peer 00000000000000aa",
        ]
    );
    assert!(
        heeded
            .effects
            .iter()
            .all(|e| e.peer.as_deref() == Some(PEER))
    );
    let words = |e: &Effect| (e.field, e.from.clone(), e.to.clone());
    assert_eq!(
        words(&heeded.effects[0]),
        (Field::State, "active".to_owned(), "drain".to_owned())
    );
    assert_eq!(
        words(&heeded.effects[1]),
        (Field::Weight, "1".to_owned(), "7".to_owned())
    );
    assert_eq!(
        words(&heeded.effects[2]),
        (Field::Member, "member".to_owned(), "none".to_owned())
    );
    assert_eq!(
        members("pool", &overrides, &config()),
        [
            "10.0.0.1:80 7 drain file",
            "10.0.0.8:80 5 active registered",
            "10.0.0.9:80 3 active operator"
        ]
    );
    // All is taken back, each in its way; B says nothing new.
    let undrained = Spoken {
        state: gone(Some("it has expired")),
        weight: drained.weight,
        ..Spoken::default()
    };
    let unregistered = Spoken {
        registered: gone(Some("its registrar has been away for 1m30s")),
        ..Spoken::default()
    };
    let parted = Spoken {
        member: gone(None),
        ..Spoken::default()
    };
    let back = Spoken {
        member: gone(None),
        ..Spoken::default()
    };
    let texts = heed(
        &mut overrides,
        "pool",
        told([
            (A, undrained),
            (B, back),
            (NEW, parted),
            ("10.0.0.8:80", unregistered),
        ]),
    );
    assert_eq!(
        texts,
        [
            "upstream `pool`, endpoint 10.0.0.1:80: drain -> active, said at peer 00000000000000aa: it has expired",
            "upstream `pool`, endpoint 10.0.0.2:80: joins with weight 2, taken back at peer 00000000000000aa",
            "upstream `pool`, endpoint 10.0.0.8:80: leaves, registered at peer 00000000000000aa: its registrar has been away for 1m30s",
            "upstream `pool`, endpoint 10.0.0.9:80: leaves, taken back at peer 00000000000000aa",
        ]
    );
}

#[test]
fn what_a_fleet_no_longer_says_is_gone_and_the_same_again_is_no_news() {
    let mut overrides = Overrides::default();
    let drained = || Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        ..Spoken::default()
    };
    assert_eq!(heed(&mut overrides, "app", told([(A, drained())])).len(), 1);
    assert!(heed(&mut overrides, "app", told([(A, drained())])).is_empty());
    assert_eq!(
        heed(&mut overrides, "app", Told::new()),
        ["upstream `app`, endpoint 10.0.0.1:80: drain -> active"]
    );
    assert!(overrides.is_empty());
    assert_eq!(
        members("app", &overrides, &config()),
        members("app", &Overrides::default(), &config())
    );
}

/// An operator here was first, or the fleet repeats what was said here: no second entry in the history.
#[test]
fn what_an_operator_said_here_comes_back_from_the_fleet_without_news() {
    let mut overrides = with_registered();
    apply(&mut overrides, Verb::Drain).unwrap();
    let again = Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        ..registered(5)
    };
    assert!(heed(&mut overrides, "pool", told([(NEW, again)])).is_empty());
    assert_eq!(
        overrides.parts("pool", &addr(NEW)).state.unwrap().value,
        AdminState::Drain
    );
}

#[test]
fn registered_endpoint_is_drained_weighed_and_cleared_like_one_of_the_file() {
    let mut overrides = with_registered();
    let drain = apply(&mut overrides, Verb::Drain).unwrap();
    assert_eq!(
        drain.text,
        "upstream `pool`, endpoint 10.0.0.9:80: active -> drain"
    );
    apply(&mut overrides, Verb::SetWeight(9)).unwrap();
    assert_eq!(
        members("pool", &overrides, &config())[2],
        "10.0.0.9:80 9 drain registered"
    );
    apply(&mut overrides, Verb::Disable).unwrap();
    apply(&mut overrides, Verb::Undrain).unwrap();
    let clear = apply(&mut overrides, Verb::Clear).unwrap();
    assert_eq!(clear.after.unwrap().weight, 5);
    assert!(
        overrides.is_empty(),
        "registrations are not what operators say"
    );
    assert_eq!(
        apply(&mut overrides, Verb::Add { weight: None }).unwrap_err(),
        "upstream `pool` has the endpoint 10.0.0.9:80 already; `isobar set` changes its weight"
    );
}

#[test]
fn removal_wins_over_registrations_until_it_is_taken_back() {
    let mut overrides = with_registered();
    apply(&mut overrides, Verb::SetWeight(9)).unwrap();
    let before = overrides.clone();
    let removed = apply(&mut overrides, Verb::Remove).unwrap();
    assert_eq!(
        removed.notes,
        [
            "it is registered at 00000000000000aa, and stays out all the same until it is added again",
            "weight 9 by uid:0 since 2026-11-21T15:04:05Z is dropped with it"
        ]
    );
    let changed = changed_parts(&before, &overrides, "pool", &addr(NEW));
    assert_eq!(
        changed,
        [
            (Field::Member, Some((Word::Leaves, by("uid:0")))),
            (Field::Weight, None)
        ]
    );
    // It registers anew, elsewhere, and is still out.
    let leaves = Spoken {
        member: heard(Membership::Leaves, "uid:0"),
        ..registered(6)
    };
    assert!(heed(&mut overrides, "pool", told([(NEW, leaves)])).is_empty());
    assert_eq!(members("pool", &overrides, &config()).len(), 2);
    assert_eq!(
        apply(&mut overrides, Verb::Drain).unwrap_err(),
        "the endpoint 10.0.0.9:80 of upstream `pool` was removed by \
         uid:0 since 2026-11-21T15:04:05Z; add it to bring it back"
    );
    assert_eq!(apply(&mut overrides, Verb::Remove).unwrap().after, None);
    let back = apply(&mut overrides, Verb::Add { weight: None }).unwrap();
    assert_eq!(back.after.unwrap().weight, 6);
    assert!(overrides.is_empty(), "the registration says it all");
}

/// One that an operator added and that registered too is removed by a word, not by taking the addition back.
#[test]
fn removal_of_one_that_joined_and_registered_is_said() {
    let mut overrides = Overrides::default();
    apply(&mut overrides, Verb::Add { weight: Some(3) }).unwrap();
    let both = Spoken {
        member: heard(Membership::Joins(3), "uid:0"),
        ..registered(5)
    };
    assert!(heed(&mut overrides, "pool", told([(NEW, both)])).is_empty());
    assert_eq!(
        members("pool", &overrides, &config())[2],
        "10.0.0.9:80 3 active operator",
        "the operator's weight wins"
    );
    assert_eq!(apply(&mut overrides, Verb::Remove).unwrap().after, None);
    let parts = overrides.parts("pool", &addr(NEW));
    assert_eq!(parts.member.unwrap().value, Membership::Leaves);
}

#[test]
fn words_wait_for_an_endpoint_that_is_not_there_and_can_be_cleared() {
    let mut overrides = Overrides::default();
    let waits = || Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        ..Spoken::default()
    };
    assert!(heed(&mut overrides, "pool", told([(NEW, waits())])).is_empty());
    let both = Spoken {
        state: waits().state,
        ..registered(5)
    };
    assert_eq!(
        heed(&mut overrides, "pool", told([(NEW, both)])),
        [
            "upstream `pool`, endpoint 10.0.0.9:80: joins with weight 5, drain, registered at 00000000000000aa"
        ]
    );
    heed(&mut overrides, "pool", told([(NEW, waits())]));
    let layers = layers(spec(&config(), "pool"), &overrides);
    assert_eq!(layers.len(), 3);
    assert_eq!(layers[2].effective, None);
    assert_eq!(
        layers[2].wins[0].why,
        "neither does the file list it nor has it registered: what is said of it waits for that"
    );
    apply(&mut overrides, Verb::Clear).unwrap();
    assert!(overrides.is_empty());
    assert_eq!(
        apply(&mut overrides, Verb::Clear).unwrap_err(),
        "upstream `pool` has no endpoint 10.0.0.9:80; `isobar get upstream/pool` lists them"
    );
}

#[test]
fn static_upstream_ignores_who_comes_and_goes_and_heeds_the_rest() {
    let mut overrides = Overrides::default();
    let leaves = Spoken {
        member: heard(Membership::Leaves, "uid:0"),
        state: heard(AdminState::Disable, "uid:0"),
        ..registered(9)
    };
    let joins = Spoken {
        member: heard(Membership::Joins(3), "uid:0"),
        ..registered(9)
    };
    assert_eq!(
        heed(&mut overrides, "app", told([(A, leaves), (NEW, joins)])),
        [
            "upstream `app`, endpoint 10.0.0.1:80: active -> disable, by uid:0 at peer 00000000000000aa"
        ]
    );
    assert_eq!(
        members("app", &overrides, &config()),
        ["10.0.0.1:80 1 disable file", "10.0.0.2:80 2 active file"]
    );
    // What is there can be changed all the same, and what has no effect is not lost by that.
    let undrain = wish("app", A, Verb::Undrain);
    overrides.apply(undrain, &config(), NOW).unwrap();
    let parts = overrides.parts("app", &addr(A));
    assert_eq!(parts.member.unwrap().value, Membership::Leaves);
    let shown = layers(spec(&config(), "app"), &overrides);
    assert_eq!(shown[0].wins[0].why, "the file lists it");
    assert_eq!(
        shown[2].wins[0].why,
        "it has registered, and the upstream is not dynamic"
    );
}

#[test]
fn reload_keeps_what_a_fleet_said_and_it_has_effect_again_when_the_upstream_is_dynamic_again() {
    let mut overrides = Overrides::default();
    let drained = Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        ..registered(5)
    };
    let leaves = Spoken {
        member: heard(Membership::Leaves, "uid:0"),
        ..Spoken::default()
    };
    heed(&mut overrides, "pool", told([(NEW, drained), (B, leaves)]));
    let dynamic = members("pool", &overrides, &config());
    let still = written(&format!(
        "[upstreams.app]\nendpoints = ['{A}']\n[upstreams.pool]\nendpoints = ['{A}', '{B}']\n"
    ));
    let before = overrides.clone();
    let reconciled = overrides.reconcile(Some(&config()), &still);
    assert_eq!(overrides, before);
    let texts: Vec<_> = reconciled.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "upstream `pool`, endpoint 10.0.0.2:80: the removal by uid:0 since 2026-11-21T15:04:05Z is kept: the fleet says so",
            "upstream `pool`, endpoint 10.0.0.9:80: drain by uid:0 since 2026-11-21T15:04:05Z is kept: the fleet says so",
        ]
    );
    assert_eq!(
        members("pool", &overrides, &still),
        ["10.0.0.1:80 1 active file", "10.0.0.2:80 1 active file"]
    );
    overrides.reconcile(Some(&still), &config());
    assert_eq!(members("pool", &overrides, &config()), dynamic);
    // An upstream that is gone takes all with it.
    let gone = written(&format!("[upstreams.app]\nendpoints = ['{A}']\n"));
    let reconciled = overrides.reconcile(Some(&config()), &gone);
    assert!(reconciled.iter().all(|r| r.fate == Fate::Orphaned));
    assert_eq!(overrides, Overrides::default());
}

#[test]
fn registrations_are_not_in_the_file_of_overrides() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap().store;
    let mut overrides = Overrides::default();
    let drained = Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        member: heard(Membership::Leaves, "uid:0"),
        ..registered(5)
    };
    heed(
        &mut overrides,
        "pool",
        told([(NEW, drained), (B, registered(1))]),
    );
    store.save(&overrides).unwrap();
    let next = Store::open(folder.path()).unwrap();
    assert!(next.set_aside.is_none());
    let next = next.overrides;
    assert_eq!(next.registered("pool", &addr(NEW)), None);
    assert_eq!(
        next.parts("pool", &addr(NEW)),
        overrides.parts("pool", &addr(NEW))
    );
    assert_eq!(next.len(), 1);
}

#[test]
fn layers_show_where_a_registered_endpoint_comes_from_and_at_which_peer_things_were_said() {
    let mut overrides = Overrides::default();
    let spoken = Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        held: vec![Held {
            word: Word::Weight(0),
            by: by("mallory"),
            peer: "00000000000000bb".to_owned(),
            since_unix_ms: NOW,
        }],
        ..registered(5)
    };
    heed(&mut overrides, "pool", told([(NEW, spoken)]));
    let config = config();
    let shown = layers(spec(&config, "pool"), &overrides);
    assert_eq!(
        serde_json::to_value(&shown[2]).unwrap(),
        json!({
            "endpoint": NEW,
            "origin": "registered",
            "file": null,
            "registered": { "weight": 5, "zone": "a", "by": "registered at 00000000000000aa" },
            "operator": {
                "state": {
                    "value": "drain",
                    "by": { "owner": "uid:0", "reason": "", "since_unix_ms": NOW },
                },
            },
            "held": [{
                "field": "weight",
                "since_unix_ms": NOW,
                "why": "weight 0 by mallory since 2026-11-21T15:04:05Z at peer 00000000000000bb has no effect: \
                        it is more than one peer may take away",
            }],
            "effective": { "weight": 5, "state": "drain" },
            "wins": [
                { "field": "member", "layer": "fleet", "why": "registered at 00000000000000aa" },
                {
                    "field": "state",
                    "layer": "operator",
                    "why": "drain by uid:0 since 2026-11-21T15:04:05Z at peer 00000000000000aa",
                },
                { "field": "weight", "layer": "fleet", "why": "weight 5 of the registration" },
            ],
        })
    );
    let member = &effective_members(spec(&config, "pool"), &overrides)[2];
    assert_eq!(member.zone.as_deref(), Some("a"));
    // Said here since: no longer at that peer.
    apply(&mut overrides, Verb::Disable).unwrap();
    let shown = layers(spec(&config, "pool"), &overrides);
    assert_eq!(
        shown[2].wins[1].why,
        "disable by uid:0 since 2026-11-21T15:04:05Z"
    );
    assert_eq!(shown[2].held.len(), 1, "nobody spoke of the weight");
}

#[test]
fn operator_takes_back_what_is_held() {
    let held = |word| Held {
        word,
        by: by("mallory"),
        peer: PEER.to_owned(),
        since_unix_ms: NOW,
    };
    let spoken = || Spoken {
        held: vec![held(Word::Drain), held(Word::Weight(0))],
        ..registered(5)
    };
    let mut overrides = Overrides::default();
    heed(&mut overrides, "pool", told([(NEW, spoken())]));
    let before = overrides.clone();
    let undrain = apply(&mut overrides, Verb::Undrain).unwrap();
    assert_eq!(undrain.before, undrain.after);
    let changed = changed_parts(&before, &overrides, "pool", &addr(NEW));
    assert_eq!(changed, [(Field::State, None)]);
    assert_eq!(overrides.held("pool", &addr(NEW)), [held(Word::Weight(0))]);
    let before = overrides.clone();
    apply(&mut overrides, Verb::Clear).unwrap();
    let changed = changed_parts(&before, &overrides, "pool", &addr(NEW));
    assert_eq!(changed, [(Field::Weight, None)]);
    assert!(overrides.held("pool", &addr(NEW)).is_empty());
}

#[test]
fn expiry_of_an_addition_leaves_what_is_said_of_a_registered_endpoint() {
    let mut overrides = Overrides::default();
    let until = |at| By {
        expires_unix_ms: Some(at),
        ..by("uid:0")
    };
    let mut spoken = Spoken {
        member: heard(Membership::Joins(3), "uid:0"),
        state: heard(AdminState::Drain, "uid:0"),
        ..registered(5)
    };
    let said = spoken.member.as_mut().unwrap().value.as_mut().unwrap();
    said.by = until(NOW + 10);
    heed(&mut overrides, "pool", told([(NEW, spoken)]));
    assert_eq!(overrides.next_expiry(), Some(NOW + 10));
    assert_eq!(overrides.expire(NOW + 10).len(), 1);
    assert_eq!(
        members("pool", &overrides, &config())[2],
        "10.0.0.9:80 5 drain registered"
    );
}

#[test]
fn what_cannot_be_is_passed_over() {
    let mut overrides = Overrides::default();
    let config = config();
    let unsound = [
        ("10.0.0.1:80", registered(MAX_WEIGHT + 1)),
        (
            "10.0.0.2:80",
            Spoken {
                weight: heard(MAX_WEIGHT + 1, "uid:0"),
                ..Spoken::default()
            },
        ),
        (
            "10.0.0.3:80",
            Spoken {
                member: heard(Membership::Joins(MAX_WEIGHT + 1), "uid:0"),
                ..Spoken::default()
            },
        ),
        (
            "10.0.0.4:80",
            Spoken {
                state: heard(AdminState::Drain, "a\nb"),
                ..Spoken::default()
            },
        ),
    ];
    let mut all = told(unsound);
    let any = EndpointAddr::Ip("0.0.0.0:80".parse().unwrap());
    all.insert(any, registered(1));
    let heeded = overrides.heed(all, spec(&config, "pool"));
    assert_eq!((heeded.left_out, heeded.effects.len()), (5, 0));
    assert!(overrides.is_empty());
}

#[test]
fn flood_is_bounded_and_does_not_displace_what_was_there() {
    let config = config();
    let numbered = |n: usize| {
        addr(&format!(
            "10.{}.{}.{}:80",
            n / 62_500 + 1,
            n / 250 % 250,
            n % 250 + 1
        ))
    };
    let drained = || Spoken {
        state: heard(AdminState::Drain, "uid:0"),
        ..registered(1)
    };
    let mut overrides = after(&[("app", A, Verb::Drain)]);
    let last = addr("250.0.0.1:80");
    let first = overrides.heed([(last.clone(), drained())].into(), spec(&config, "pool"));
    assert_eq!(first.left_out, 0);
    let mut flood: Told = (0..MAX_REGISTERED + 5)
        .map(|n| (numbered(n), drained()))
        .collect();
    flood.insert(last.clone(), drained());
    let heeded = overrides.heed(flood, spec(&config, "pool"));
    // 6 registrations, and what is said of 7: `app` has an entry of its own.
    assert_eq!(heeded.left_out, 6 + 7);
    assert_eq!(overrides.len(), MAX_ENTRIES);
    assert!(overrides.registered("pool", &last).is_some());
    assert!(overrides.parts("pool", &last).state.is_some());
    assert!(overrides.parts("app", &addr(A)).state.is_some());
}

fn spoken() -> impl Strategy<Value = Spoken> {
    let membership = prop_oneof![
        Just(Membership::Leaves),
        (0..4u32).prop_map(Membership::Joins)
    ];
    let state = prop_oneof![Just(AdminState::Drain), Just(AdminState::Disable)];
    (
        prop::option::of(0..4u32),
        prop::option::of(membership),
        prop::option::of(state),
        prop::option::of(0..4u32),
    )
        .prop_map(|(weight, member, state, own)| Spoken {
            registered: weight.and_then(|w| registered(w).registered),
            member: member.and_then(|m| heard(m, "uid:0")),
            state: state.and_then(|s| heard(s, "uid:0")),
            weight: own.and_then(|w| heard(w, "uid:0")),
            held: Vec::new(),
            is_unproven: false,
        })
}

proptest! {
    /// What is told says it all: it does not matter what was there before; and the effects are exactly what changed.
    #[test]
    fn the_last_told_alone_counts(rounds in prop::collection::vec(prop::collection::vec(spoken(), 3), 1..5)) {
        let config = config();
        for upstream in ["app", "pool"] {
            let spec = spec(&config, upstream);
            let mut overrides = Overrides::default();
            for round in &rounds {
                let all = told([A, B, NEW].into_iter().zip(round.iter().cloned()));
                let before = effective_members(spec, &overrides);
                let heeded = overrides.heed(all.clone(), spec);
                let after = effective_members(spec, &overrides);
                let mut fresh = Overrides::default();
                fresh.heed(all, spec);
                prop_assert_eq!(&fresh, &overrides);
                let find = |all: &[Member], addr: &EndpointAddr| {
                    all.iter().find(|m| m.addr == *addr).map(|m| (m.weight, m.state))
                };
                let mut differ = 0;
                for text in [A, B, NEW] {
                    let (was, is) = (find(&before, &addr(text)), find(&after, &addr(text)));
                    differ += match (was, is) {
                        (Some(was), Some(is)) => usize::from(was.0 != is.0) + usize::from(was.1 != is.1),
                        (was, is) => usize::from(was != is),
                    };
                }
                prop_assert_eq!(heeded.effects.len(), differ);
                // Both views agree.
                let shown = layers(spec, &overrides);
                let shown: Vec<_> = shown.iter().filter_map(|l| {
                    let is = l.effective?;
                    Some((l.endpoint.clone(), is.weight, is.state, l.origin))
                }).collect();
                let members: Vec<_> = after.iter().map(|m| (m.addr.clone(), m.weight, m.state, m.origin)).collect();
                prop_assert_eq!(shown, members);
            }
        }
    }
}
