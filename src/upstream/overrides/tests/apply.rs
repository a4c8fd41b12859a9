//! What operators may ask for, and what it does.

use super::*;

fn refused(overrides: &mut Overrides, change: Change) -> String {
    let before = overrides.clone();
    let refused = overrides.apply(change, &config(), NOW).unwrap_err();
    assert_eq!(*overrides, before, "a refusal changes nothing");
    refused.to_string()
}

fn applied(overrides: &mut Overrides, change: Change) -> Applied {
    overrides.apply(change, &config(), NOW).unwrap()
}

#[test]
fn nothing_said_is_the_file() {
    let overrides = Overrides::default();
    assert!(overrides.is_empty());
    assert_eq!(overrides.next_expiry(), None);
    assert_eq!(overrides.of("app", &addr(A)), None);
    assert_eq!(
        members("app", &overrides, &config()),
        ["10.0.0.1:80 1 active file", "10.0.0.2:80 2 active file"]
    );
}

#[test]
fn weight_and_state_stand_beside_each_other() {
    let mut overrides = Overrides::default();
    let weight = applied(&mut overrides, wish("app", A, Verb::SetWeight(5)));
    assert_eq!(
        weight.text,
        "upstream `app`, endpoint 10.0.0.1:80: weight 1 -> 5"
    );
    let change = Change {
        owner: "ci".to_owned(),
        reason: "deploy".to_owned(),
        expires_unix_ms: Some(NOW + 60_000),
        ..wish("app", A, Verb::Drain)
    };
    let drain = applied(&mut overrides, change);
    assert_eq!(
        drain.text,
        "upstream `app`, endpoint 10.0.0.1:80: active -> drain, until 2026-11-21T15:05:05Z"
    );
    let (before, after) = (drain.before.unwrap(), drain.after.unwrap());
    assert_eq!((before.weight, before.state), (5, None));
    assert_eq!((after.weight, after.state), (5, Some(AdminState::Drain)));
    let said = overrides.of("app", &addr(A)).unwrap();
    assert_eq!(said.weight.unwrap().by.owner, "uid:0");
    assert_eq!(
        said.state.unwrap().by.to_string(),
        "ci since 2026-11-21T15:04:05Z until 2026-11-21T15:05:05Z (deploy)"
    );
    assert_eq!(overrides.len(), 1);
    assert_eq!(
        members("app", &overrides, &config()),
        ["10.0.0.1:80 5 drain file", "10.0.0.2:80 2 active file"]
    );
}

#[test]
fn disable_replaces_drain_and_undrain_ends_both() {
    let mut overrides = after(&[("app", A, Verb::Drain)]);
    let disable = applied(&mut overrides, wish("app", A, Verb::Disable));
    assert_eq!(disable.after.unwrap().state, Some(AdminState::Disable));
    assert!(
        disable.text.ends_with("drain -> disable"),
        "{}",
        disable.text
    );
    let undrain = applied(&mut overrides, wish("app", A, Verb::Undrain));
    assert_eq!(undrain.after.unwrap().state, None);
    assert!(overrides.is_empty());
}

#[test]
fn undrain_leaves_the_weight() {
    let mut overrides = after(&[("app", A, Verb::SetWeight(0)), ("app", A, Verb::Drain)]);
    let undrain = applied(&mut overrides, wish("app", A, Verb::Undrain));
    assert_eq!(
        undrain.after,
        Some(Effective {
            weight: 0,
            state: None
        })
    );
}

#[test]
fn saying_it_again_is_no_change_but_renews() {
    let mut overrides = after(&[("app", A, Verb::Drain)]);
    let change = Change {
        owner: "ci".to_owned(),
        ..wish("app", A, Verb::Drain)
    };
    let again = applied(&mut overrides, change);
    assert_eq!(again.before, again.after);
    assert!(
        again.text.ends_with("weight 1, drain, as before"),
        "{}",
        again.text
    );
    assert_eq!(
        overrides
            .of("app", &addr(A))
            .unwrap()
            .state
            .unwrap()
            .by
            .owner,
        "ci"
    );
    // For scripts: what is undone already is no error.
    let mut nothing = Overrides::default();
    for verb in [Verb::Undrain, Verb::Clear] {
        let done = applied(&mut nothing, wish("app", A, verb));
        assert_eq!(done.before, done.after);
        assert!(nothing.is_empty());
    }
}

#[test]
fn clear_brings_the_file_back() {
    let mut overrides = after(&[
        ("pool", A, Verb::SetWeight(7)),
        ("pool", A, Verb::Drain),
        ("pool", B, Verb::Remove),
    ]);
    applied(&mut overrides, wish("pool", A, Verb::Clear));
    applied(&mut overrides, wish("pool", B, Verb::Clear));
    assert!(overrides.is_empty());
    assert_eq!(
        members("pool", &overrides, &config()),
        members("app", &overrides, &config())
    );
}

#[test]
fn added_endpoint_is_a_member_until_it_is_removed() {
    let mut overrides = Overrides::default();
    let add = applied(
        &mut overrides,
        wish("pool", NEW, Verb::Add { weight: Some(3) }),
    );
    assert_eq!(add.before, None);
    assert_eq!(
        add.text,
        "upstream `pool`, endpoint 10.0.0.9:80: joins with weight 3"
    );
    applied(&mut overrides, wish("pool", NEW, Verb::SetWeight(4)));
    applied(&mut overrides, wish("pool", NEW, Verb::Drain));
    assert_eq!(
        members("pool", &overrides, &config()),
        [
            "10.0.0.1:80 1 active file",
            "10.0.0.2:80 2 active file",
            "10.0.0.9:80 4 drain operator"
        ]
    );
    let clear = applied(&mut overrides, wish("pool", NEW, Verb::Clear));
    assert_eq!(
        clear.after,
        Some(Effective {
            weight: 3,
            state: None
        })
    );
    assert_eq!(
        clear.notes,
        ["the endpoint was added by an operator and stays; remove it to end that"]
    );
    let remove = applied(&mut overrides, wish("pool", NEW, Verb::Remove));
    assert_eq!(remove.after, None);
    assert!(remove.text.ends_with("leaves"), "{}", remove.text);
    assert!(overrides.is_empty());
}

#[test]
fn removed_endpoint_is_out_until_it_is_added() {
    let mut overrides = after(&[("pool", B, Verb::SetWeight(9))]);
    let remove = applied(&mut overrides, wish("pool", B, Verb::Remove));
    assert_eq!(
        remove.notes,
        ["weight 9 by uid:0 since 2026-11-21T15:04:05Z is dropped with it"]
    );
    assert_eq!(
        members("pool", &overrides, &config()),
        ["10.0.0.1:80 1 active file"]
    );
    assert_eq!(
        refused(&mut overrides, wish("pool", B, Verb::Drain)),
        "the endpoint 10.0.0.2:80 of upstream `pool` was removed by \
         uid:0 since 2026-11-21T15:04:05Z; add it to bring it back"
    );
    // Twice is once.
    let again = applied(&mut overrides, wish("pool", B, Verb::Remove));
    assert_eq!((again.before, again.after), (None, None));
    let mut other = overrides.clone();
    let back = applied(&mut overrides, wish("pool", B, Verb::Add { weight: None }));
    assert_eq!(
        back.after,
        Some(Effective {
            weight: 2,
            state: None
        })
    );
    assert!(overrides.is_empty(), "the file says it all");
    let back = applied(&mut other, wish("pool", B, Verb::Add { weight: Some(6) }));
    assert_eq!(
        back.after,
        Some(Effective {
            weight: 6,
            state: None
        })
    );
    assert_eq!(other.of("pool", &addr(B)).unwrap().weight.unwrap().value, 6);
}

#[test]
fn notes_tell_what_the_verb_does_not() {
    let mut overrides = Overrides::default();
    let mut notes =
        |upstream, endpoint, verb| applied(&mut overrides, wish(upstream, endpoint, verb)).notes;
    assert_eq!(
        notes("app", A, Verb::SetWeight(1)),
        ["the file says weight 1 too: the next reload drops the override as redundant"]
    );
    assert!(notes("app", A, Verb::SetWeight(0)).is_empty());
    assert_eq!(
        notes("app", B, Verb::SetWeight(0)),
        ["every active endpoint of upstream `app` has weight 0: they share evenly"]
    );
    assert!(notes("app", B, Verb::SetWeight(1)).is_empty());
    assert_eq!(
        notes("app", B, Verb::Drain),
        ["every active endpoint of upstream `app` has weight 0: they share evenly"]
    );
    assert_eq!(
        notes("app", A, Verb::Disable),
        ["no endpoint of upstream `app` takes new picks: new requests get 503"]
    );
    let config = written(&format!(
        "[upstreams.app]\nbalance = 'round_robin'\nendpoints = ['{A}']\n"
    ));
    let change = wish("app", A, Verb::SetWeight(2));
    let ignored = Overrides::default().apply(change, &config, NOW).unwrap();
    assert_eq!(
        ignored.notes,
        [
            "the policy of upstream `app` ignores weights; `balance = \"weighted\"` takes turns by weight"
        ]
    );
}

#[test]
fn refusals_teach() {
    let mut overrides = after(&[("pool", NEW, Verb::Add { weight: None })]);
    let base = || wish("app", A, Verb::Drain);
    let cases = [
        (
            wish("ap\n", A, Verb::Drain),
            "there is no upstream `ap\\n`; `isobar status` lists them",
        ),
        (
            wish("app", NEW, Verb::Drain),
            "upstream `app` has no endpoint 10.0.0.9:80; `isobar get upstream/app` lists them",
        ),
        (
            wish("app", NEW, Verb::Clear),
            "upstream `app` has no endpoint 10.0.0.9:80; `isobar get upstream/app` lists them",
        ),
        (
            wish("pool", "10.0.0.8:80", Verb::Remove),
            "upstream `pool` has no endpoint 10.0.0.8:80; `isobar get upstream/pool` lists them",
        ),
        (
            wish("app", NEW, Verb::Add { weight: None }),
            "upstream `app` is not dynamic: set `dynamic = true` in the file, or drain or disable the endpoint",
        ),
        (
            wish("app", A, Verb::Remove),
            "upstream `app` is not dynamic: set `dynamic = true` in the file, or drain or disable the endpoint",
        ),
        (
            wish("pool", NEW, Verb::Add { weight: None }),
            "upstream `pool` has the endpoint 10.0.0.9:80 already; `isobar set` changes its weight",
        ),
        (
            wish("pool", A, Verb::Add { weight: Some(2) }),
            "upstream `pool` has the endpoint 10.0.0.1:80 already; `isobar set` changes its weight",
        ),
        (
            wish("app", A, Verb::SetWeight(1001)),
            "weight 1001 is too large; a weight is a share from 0 to 1000",
        ),
        (
            wish(
                "pool",
                "10.0.0.8:80",
                Verb::Add {
                    weight: Some(u32::MAX),
                },
            ),
            "weight 4294967295 is too large; a weight is a share from 0 to 1000",
        ),
        (
            Change {
                owner: String::new(),
                ..base()
            },
            "a change needs an owner: who asks for it",
        ),
        (
            Change {
                owner: "o".repeat(65),
                ..base()
            },
            "the owner has 65 bytes; at most 64 fit",
        ),
        (
            Change {
                reason: "r".repeat(257),
                ..base()
            },
            "the reason has 257 bytes; at most 256 fit",
        ),
        (
            Change {
                reason: "red\u{1b}[31m".to_owned(),
                ..base()
            },
            "the reason has a control character; write it in one line of plain text",
        ),
        (
            Change {
                expires_unix_ms: Some(NOW),
                ..base()
            },
            "the expiry is not in the future: 1795273445000 against 1795273445000 (milliseconds since 1970)",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(refused(&mut overrides, change), expected);
    }
}

#[test]
fn bounds_themselves_are_allowed() {
    let mut overrides = Overrides::default();
    let change = Change {
        owner: "o".repeat(MAX_OWNER),
        reason: "r".repeat(MAX_REASON),
        expires_unix_ms: Some(NOW + 1),
        ..wish("app", A, Verb::SetWeight(MAX_WEIGHT))
    };
    applied(&mut overrides, change);
    assert_eq!(overrides.next_expiry(), Some(NOW + 1));
}

#[test]
fn weight_has_the_bound_of_the_file() {
    let parse = |weight: u32| {
        let text = format!(
            "[listeners.web]\nbind = ':8080'\nupstream = 'app'\n[upstreams.app]\n\
             endpoints = [{{ address = '{A}', weight = {weight} }}]\n"
        );
        config::parse("test", &text).is_ok()
    };
    assert!(parse(MAX_WEIGHT));
    assert!(!parse(MAX_WEIGHT + 1));
}

#[test]
fn set_is_bounded() {
    let (config, mut overrides) = (config(), Overrides::default());
    // Through the map: `apply` tells the state of the whole upstream each time.
    for n in 0..MAX_ENTRIES as u32 {
        let text = format!("10.1.{}.{}:80", n / 250, n % 250 + 1);
        let mut parts = Parts::default();
        parts.say(Word::Leaves, by("uid:0"));
        overrides.put(&"pool".into(), &addr(&text), parts);
    }
    assert_eq!(overrides.len(), MAX_ENTRIES);
    let full = overrides.apply(wish("app", A, Verb::Drain), &config, NOW);
    assert_eq!(
        full.unwrap_err().to_string(),
        "there are overrides for 10000 endpoints, the most there can be; clear some, or write them into the file"
    );
    // What is there may be said anew, and one that goes makes room.
    overrides.put(&"pool".into(), &addr("10.1.0.1:80"), Parts::default());
    overrides
        .apply(wish("app", A, Verb::Drain), &config, NOW)
        .unwrap();
    overrides
        .apply(wish("app", A, Verb::Disable), &config, NOW)
        .unwrap();
    assert_eq!(overrides.len(), MAX_ENTRIES);
}

#[test]
fn each_part_expires_on_its_own() {
    let (config, mut overrides) = (config(), Overrides::default());
    let mut say = |upstream, endpoint, verb, end| {
        let change = Change {
            expires_unix_ms: Some(NOW + end),
            ..wish(upstream, endpoint, verb)
        };
        overrides.apply(change, &config, NOW).unwrap();
    };
    say("app", A, Verb::SetWeight(5), 2000);
    say("app", A, Verb::Drain, 1000);
    say("pool", NEW, Verb::Add { weight: None }, 3000);
    say("pool", NEW, Verb::Disable, 4000);
    say("pool", A, Verb::Remove, 2000);
    let mut ended = |now| {
        let ended = overrides.expire(NOW + now);
        let ended: Vec<_> = ended
            .iter()
            .map(|e| (e.part, e.endpoint.to_string()))
            .collect();
        (ended, overrides.next_expiry().map(|at| at - NOW))
    };
    let of = |part, endpoint: &str| (part, endpoint.to_owned());
    assert_eq!(ended(999), (vec![], Some(1000)));
    assert_eq!(ended(1000), (vec![of(Part::State, A)], Some(2000)));
    assert_eq!(
        ended(2500),
        (vec![of(Part::Weight, A), of(Part::Removed, A)], Some(3000))
    );
    // What was said of an added endpoint ends with it, expired or not.
    assert_eq!(ended(3000), (vec![of(Part::Added, NEW)], None));
    assert!(overrides.is_empty());
}

#[test]
fn expiry_says_whose() {
    let mut overrides = Overrides::default();
    let change = Change {
        reason: "deploy".to_owned(),
        expires_unix_ms: Some(NOW + 1000),
        ..wish("app", A, Verb::Drain)
    };
    applied(&mut overrides, change);
    let texts: Vec<_> = overrides
        .expire(u64::MAX)
        .into_iter()
        .map(|e| e.text)
        .collect();
    assert_eq!(
        texts,
        [
            "upstream `app`, endpoint 10.0.0.1:80: drain by uid:0 since 2026-11-21T15:04:05Z \
             until 2026-11-21T15:04:06Z (deploy) has expired"
        ]
    );
}

#[test]
fn addresses_are_those_of_the_file() {
    for text in [A, "[::1]:80", "[fe80::1%3]:80", "unix:/run/app.sock"] {
        assert_eq!(address(text).unwrap().to_string(), text);
    }
    let long = format!("unix:/{}", "a".repeat(107));
    for text in [
        "",
        "10.0.0.1",
        "10.0.0.1:0",
        "0.0.0.0:80",
        "[::]:80",
        "app:80",
        "unix:",
        "unix:/",
        "unix:run/app.sock",
        "unix:/a\nb",
        "http://10.0.0.1:80",
        &long,
    ] {
        let refused = address(text).unwrap_err().to_string();
        assert!(
            refused.contains("is not the address of an endpoint"),
            "{refused}"
        );
        assert!(!refused.contains(char::is_control));
    }
    let (config, mut overrides) = (config(), Overrides::default());
    let change = Change {
        endpoint: EndpointAddr::Unix("relative.sock".into()),
        ..wish("pool", A, Verb::Add { weight: None })
    };
    assert!(matches!(
        overrides.apply(change, &config, NOW),
        Err(Refused::Address { .. })
    ));
}
