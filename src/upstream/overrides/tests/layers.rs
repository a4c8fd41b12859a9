//! The layers as `isobar get upstream/NAME` shows them.

use serde_json::{Value, json};

use super::*;

fn shown(upstream: &str, overrides: &Overrides) -> Value {
    let config = config();
    let spec = config
        .upstreams
        .iter()
        .find(|u| &*u.name == upstream)
        .unwrap();
    serde_json::to_value(layers(spec, overrides)).unwrap()
}

#[test]
fn file_alone_wins_everything() {
    assert_eq!(
        shown("app", &Overrides::default())[1],
        json!({
            "endpoint": B,
            "origin": "file",
            "file": { "weight": 2 },
            "operator": null,
            "effective": { "weight": 2, "state": "active" },
            "wins": [
                { "field": "member", "layer": "file", "why": "the file lists it" },
                { "field": "state", "layer": "file", "why": "active: no operator says otherwise" },
                { "field": "weight", "layer": "file", "why": "weight 2 of the file" },
            ],
        })
    );
}

#[test]
fn operator_wins_with_who_and_why() {
    let config = config();
    let mut overrides = after(&[("app", A, Verb::SetWeight(5))]);
    let change = Change {
        reason: "deploy".to_owned(),
        expires_unix_ms: Some(NOW + 60_000),
        ..wish("app", A, Verb::Drain)
    };
    overrides.apply(change, &config, NOW).unwrap();
    assert_eq!(
        shown("app", &overrides)[0],
        json!({
            "endpoint": A,
            "origin": "file",
            "file": { "weight": 1 },
            "operator": {
                "state": {
                    "value": "drain",
                    "by": {
                        "owner": "uid:0",
                        "reason": "deploy",
                        "since_unix_ms": NOW,
                        "expires_unix_ms": NOW + 60_000,
                    },
                },
                "weight": {
                    "value": 5,
                    "by": { "owner": "uid:0", "reason": "", "since_unix_ms": NOW },
                },
            },
            "effective": { "weight": 5, "state": "drain" },
            "wins": [
                { "field": "member", "layer": "file", "why": "the file lists it" },
                {
                    "field": "state",
                    "layer": "operator",
                    "why": "drain by uid:0 since 2026-11-21T15:04:05Z until 2026-11-21T15:05:05Z (deploy)",
                },
                {
                    "field": "weight",
                    "layer": "operator",
                    "why": "weight 5 by uid:0 since 2026-11-21T15:04:05Z; the file says 1",
                },
            ],
        })
    );
}

#[test]
fn members_that_join_and_leave_are_both_shown() {
    let overrides = after(&[
        ("pool", NEW, Verb::Add { weight: Some(3) }),
        ("pool", A, Verb::Remove),
    ]);
    let shown = shown("pool", &overrides);
    assert_eq!(shown.as_array().unwrap().len(), 3);
    assert_eq!(shown[0]["effective"], Value::Null);
    assert_eq!(
        shown[0]["wins"],
        json!([{
            "field": "member",
            "layer": "operator",
            "why": "removed by uid:0 since 2026-11-21T15:04:06Z",
        }])
    );
    assert_eq!(shown[2]["endpoint"], NEW);
    assert_eq!(shown[2]["origin"], "operator");
    assert_eq!(shown[2]["file"], Value::Null);
    assert_eq!(
        shown[2]["effective"],
        json!({ "weight": 3, "state": "active" })
    );
    assert_eq!(
        shown[2]["wins"][0]["why"],
        "added by uid:0 since 2026-11-21T15:04:05Z"
    );
    assert_eq!(shown[2]["wins"][2]["why"], "weight 3 of the addition");
    assert_eq!(
        members("pool", &overrides, &config()),
        ["10.0.0.2:80 2 active file", "10.0.0.9:80 3 active operator"]
    );
}

/// Whatever is said, the two views agree, and every member says who decided what.
#[test]
fn views_agree() {
    let overrides = after(&[
        ("app", B, Verb::Disable),
        ("pool", NEW, Verb::Add { weight: None }),
        ("pool", NEW, Verb::SetWeight(0)),
        ("pool", B, Verb::Remove),
    ]);
    for spec in &config().upstreams {
        let layers = layers(spec, &overrides);
        let told = layers.iter().filter_map(|l| {
            let Effective { weight, state } = l.effective?;
            assert_eq!(l.wins.len(), 3);
            Some(Member {
                addr: l.endpoint.clone(),
                weight,
                state,
                origin: l.origin,
                zone: None,
                is_unproven: false,
            })
        });
        let told: Vec<Member> = told.collect();
        assert_eq!(told, effective_members(spec, &overrides));
    }
}

/// Between a reload and its reconciliation nobody reads the set, but if: nothing surprising.
#[test]
fn override_of_an_unlisted_endpoint_makes_no_member() {
    let overrides = after(&[("app", B, Verb::SetWeight(4))]);
    let config = written(&format!("[upstreams.app]\nendpoints = ['{A}']\n"));
    assert_eq!(
        members("app", &overrides, &config),
        ["10.0.0.1:80 1 active file"]
    );
    let layers = layers(&config.upstreams[0], &overrides);
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[1].effective, None);
}
