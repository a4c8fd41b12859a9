//! Overrides after a reload: kept or dropped, and said.

use super::*;

/// The fates and texts after [`config`] was replaced by one with these upstreams, in which `app` and
/// `pool` are dynamic or not as they say.
fn reconciled(overrides: &mut Overrides, upstreams: &str) -> Vec<(Fate, String)> {
    let old = config();
    let told = overrides.reconcile(Some(&old), &written(upstreams));
    told.into_iter().map(|r| (r.fate, r.text)).collect()
}

fn app(list: &str) -> String {
    format!("[upstreams.app]\nendpoints = [{list}]\n")
}

fn pool(list: &str) -> String {
    let app = app(&format!("'{A}'"));
    format!("{app}[upstreams.pool]\ndynamic = true\nendpoints = [{list}]\n")
}

#[test]
fn unchanged_file_keeps_everything_and_says_so() {
    let mut overrides = after(&[
        ("app", A, Verb::SetWeight(5)),
        ("app", A, Verb::Drain),
        ("pool", NEW, Verb::Add { weight: Some(3) }),
        ("pool", B, Verb::Remove),
    ]);
    let before = overrides.clone();
    for old in [Some(config()), None] {
        let told = overrides.reconcile(old.as_ref(), &config());
        assert_eq!(overrides, before);
        assert!(told.iter().all(|r| r.fate == Fate::Kept));
        let texts: Vec<_> = told.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "upstream `app`, endpoint 10.0.0.1:80: drain by uid:0 since 2026-11-21T15:04:06Z is kept: it still applies",
                "upstream `app`, endpoint 10.0.0.1:80: weight 5 by uid:0 since 2026-11-21T15:04:05Z is kept: it still wins over weight 1 of the file",
                "upstream `pool`, endpoint 10.0.0.2:80: the removal by uid:0 since 2026-11-21T15:04:08Z is kept: it still applies",
                "upstream `pool`, endpoint 10.0.0.9:80: the addition with weight 3 by uid:0 since 2026-11-21T15:04:07Z is kept: it still applies",
            ]
        );
    }
}

#[test]
fn operator_wins_over_a_change_of_the_file() {
    let mut overrides = after(&[("app", A, Verb::SetWeight(5))]);
    let list = app(&format!("{{ address = '{A}', weight = 3 }}"));
    assert_eq!(
        reconciled(&mut overrides, &list),
        [(
            Fate::KeptAgainstFile,
            "upstream `app`, endpoint 10.0.0.1:80: weight 5 by uid:0 since 2026-11-21T15:04:05Z \
             is kept: it still wins, the file changed weight 1 -> 3"
                .to_owned()
        )]
    );
    assert_eq!(
        members("app", &overrides, &written(&list)),
        ["10.0.0.1:80 5 active file"]
    );
}

#[test]
fn weight_that_the_file_has_taken_over_is_dropped() {
    let mut overrides = after(&[("app", A, Verb::SetWeight(5)), ("app", A, Verb::Drain)]);
    let list = app(&format!("{{ address = '{A}', weight = 5 }}"));
    let told = reconciled(&mut overrides, &list);
    let fates: Vec<Fate> = told.iter().map(|(fate, _)| *fate).collect();
    assert_eq!(fates, [Fate::Kept, Fate::Redundant]);
    assert_eq!(
        told[1].1,
        "upstream `app`, endpoint 10.0.0.1:80: weight 5 by uid:0 since 2026-11-21T15:04:05Z \
         is dropped: the file now says weight 5 too"
    );
    let said = overrides.of("app", &addr(A)).unwrap();
    assert!(said.weight.is_none() && said.state.is_some());
}

#[test]
fn endpoint_that_is_gone_takes_its_override_along() {
    let mut overrides = after(&[("app", B, Verb::Drain)]);
    let told = reconciled(&mut overrides, &app(&format!("'{A}'")));
    assert_eq!(
        told,
        [(
            Fate::Orphaned,
            "upstream `app`, endpoint 10.0.0.2:80: drain by uid:0 since 2026-11-21T15:04:05Z \
             is dropped: the endpoint is gone from the file"
                .to_owned()
        )]
    );
    assert!(overrides.is_empty());
    // Listed again, it starts as the file says.
    assert!(overrides.reconcile(None, &config()).is_empty());
    assert_eq!(
        members("app", &overrides, &config())[1],
        "10.0.0.2:80 2 active file"
    );
}

#[test]
fn upstream_that_is_gone_takes_everything_along() {
    let mut overrides = after(&[
        ("pool", A, Verb::Drain),
        ("pool", B, Verb::Remove),
        ("pool", NEW, Verb::Add { weight: None }),
        ("app", A, Verb::Drain),
    ]);
    let told = reconciled(&mut overrides, &app(&format!("'{A}'")));
    let fates: Vec<Fate> = told.iter().map(|(fate, _)| *fate).collect();
    assert_eq!(
        fates,
        [Fate::Kept, Fate::Orphaned, Fate::Orphaned, Fate::Orphaned]
    );
    assert!(
        told[1]
            .1
            .ends_with("is dropped: the upstream is gone from the file"),
        "{}",
        told[1].1
    );
    assert_eq!(overrides.len(), 1);
}

#[test]
fn addition_that_the_file_has_taken_over_is_dropped() {
    let add = |weight| {
        (
            "pool",
            NEW,
            Verb::Add {
                weight: Some(weight),
            },
        )
    };
    let list = pool(&format!("'{A}', '{NEW}'"));
    let mut same = after(&[add(1)]);
    let told = reconciled(&mut same, &list);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, Fate::Redundant);
    assert!(
        told[0]
            .1
            .ends_with("is dropped: the file now lists it with the same weight"),
        "{}",
        told[0].1
    );
    assert!(same.is_empty());

    let mut other = after(&[add(3), ("pool", NEW, Verb::Drain)]);
    let told = reconciled(&mut other, &list);
    let fates: Vec<Fate> = told.iter().map(|(fate, _)| *fate).collect();
    assert_eq!(fates, [Fate::Redundant, Fate::Kept, Fate::Kept]);
    assert_eq!(
        told[2].1,
        "upstream `pool`, endpoint 10.0.0.9:80: weight 3 by uid:0 since 2026-11-21T15:04:05Z \
         is kept: it still wins over weight 1 of the file"
    );
    assert_eq!(
        members("pool", &other, &written(&list)),
        ["10.0.0.1:80 1 active file", "10.0.0.9:80 3 drain file"]
    );

    let mut overridden = after(&[add(3), ("pool", NEW, Verb::SetWeight(1))]);
    let told = reconciled(&mut overridden, &list);
    let fates: Vec<Fate> = told.iter().map(|(fate, _)| *fate).collect();
    assert_eq!(fates, [Fate::Redundant, Fate::Redundant]);
    assert!(overridden.is_empty());
}

#[test]
fn removal_that_the_file_has_taken_over_is_dropped() {
    let mut overrides = after(&[("pool", B, Verb::Remove)]);
    let told = reconciled(&mut overrides, &pool(&format!("'{A}'")));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, Fate::Redundant);
    assert!(
        told[0]
            .1
            .ends_with("is dropped: the file no longer lists it either"),
        "{}",
        told[0].1
    );
    assert!(overrides.is_empty());
}

#[test]
fn fixed_upstream_has_the_members_of_the_file() {
    let mut overrides = after(&[
        ("pool", A, Verb::Drain),
        ("pool", B, Verb::Remove),
        ("pool", NEW, Verb::Add { weight: None }),
        ("pool", NEW, Verb::Drain),
    ]);
    let list = pool(&format!("'{A}', '{B}'")).replace("true", "false");
    let told = reconciled(&mut overrides, &list);
    let fates: Vec<Fate> = told.iter().map(|(fate, _)| *fate).collect();
    assert_eq!(
        fates,
        [
            Fate::Kept,
            Fate::NotDynamic,
            Fate::NotDynamic,
            Fate::NotDynamic
        ]
    );
    assert_eq!(
        members("pool", &overrides, &written(&list)),
        ["10.0.0.1:80 1 drain file", "10.0.0.2:80 1 active file"]
    );
}

#[test]
fn second_reconciliation_with_the_same_file_changes_nothing() {
    let mut overrides = after(&[
        ("app", A, Verb::SetWeight(5)),
        ("app", B, Verb::Drain),
        ("pool", NEW, Verb::Add { weight: Some(3) }),
    ]);
    let new = written(&pool(&format!("'{NEW}'")));
    overrides.reconcile(Some(&config()), &new);
    let settled = overrides.clone();
    let told = overrides.reconcile(Some(&new), &new);
    assert!(told.iter().all(|r| r.fate == Fate::Kept), "{told:?}");
    assert_eq!(overrides, settled);
}
