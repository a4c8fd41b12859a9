//! The file of overrides: whole or set aside, never lost.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn sample() -> Overrides {
    let (config, mut overrides) = (
        config(),
        after(&[
            ("app", A, Verb::SetWeight(5)),
            ("pool", B, Verb::Remove),
            ("pool", NEW, Verb::Add { weight: None }),
            ("pool", NEW, Verb::Disable),
            ("pool", "unix:/run/app.sock", Verb::Add { weight: Some(0) }),
        ]),
    );
    let change = Change {
        owner: "ci \"nightly\"".to_owned(),
        reason: "é\\\u{2028}".to_owned(),
        expires_unix_ms: Some(u64::MAX),
        ..wish("app", A, Verb::Drain)
    };
    overrides.apply(change, &config, NOW).unwrap();
    overrides
}

fn set_aside(folder: &Path) -> SetAside {
    let opened = Store::open(folder).unwrap();
    assert!(opened.overrides.is_empty());
    opened.set_aside.unwrap()
}

#[test]
fn no_file_and_no_folder_are_no_overrides() {
    let folder = folder();
    for state_dir in [folder.path().to_owned(), folder.path().join("missing")] {
        let opened = Store::open(&state_dir).unwrap();
        assert!(opened.overrides.is_empty() && opened.set_aside.is_none());
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn next_process_reads_what_this_one_saved() {
    let folder = folder();
    let store = Store::open(folder.path()).unwrap().store;
    for overrides in [sample(), Overrides::default(), sample()] {
        store.save(&overrides).unwrap();
        let next = Store::open(folder.path()).unwrap();
        assert_eq!(next.overrides, overrides);
        assert!(next.set_aside.is_none());
    }
    assert_eq!(names(folder.path()), ["overrides.json"]);
    let mode = fs::metadata(folder.path().join("overrides.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// The format is a promise to the next version: changing this text takes a new `VERSION`.
#[test]
fn format_is_version_1() {
    let folder = folder();
    let store = Store::open(folder.path()).unwrap().store;
    store
        .save(&after(&[
            ("app", A, Verb::Drain),
            ("pool", NEW, Verb::Add { weight: Some(3) }),
        ]))
        .unwrap();
    let text = fs::read_to_string(folder.path().join("overrides.json")).unwrap();
    let expected = r#"{
  "version": 1,
  "upstreams": {
    "app": {
      "10.0.0.1:80": {
        "state": {
          "value": "drain",
          "by": {
            "owner": "uid:0",
            "reason": "",
            "since_unix_ms": 1795273445000
          }
        }
      }
    },
    "pool": {
      "10.0.0.9:80": {
        "added": {
          "value": 3,
          "by": {
            "owner": "uid:0",
            "reason": "",
            "since_unix_ms": 1795273446000
          }
        }
      }
    }
  }
}
"#;
    assert_eq!(text, expected);
}

/// The bound that `MAX_ENTRIES` and the largest file read are derived from.
#[test]
fn longest_entry_takes_less_than_3200_bytes() {
    fn said<T>(value: T) -> Said<T> {
        // Quotes double in JSON; control characters, which would grow more, are refused.
        let by = By {
            owner: "\"".repeat(MAX_OWNER),
            reason: "\"".repeat(MAX_REASON),
            since_unix_ms: u64::MAX,
            expires_unix_ms: Some(u64::MAX),
        };
        Said { value, by }
    }
    let mut overrides = Overrides::default();
    let parts = Parts {
        member: Some(said(Membership::Joins(MAX_WEIGHT))),
        state: Some(said(AdminState::Disable)),
        weight: Some(said(MAX_WEIGHT)),
    };
    let endpoint = addr(&format!("unix:/{}", "\"".repeat(106)));
    // 128: the longest name of an upstream.
    overrides.put(&"u".repeat(128).into(), &endpoint, parts);
    let folder = folder();
    let store = Store::open(folder.path()).unwrap().store;
    store.save(&overrides).unwrap();
    let bytes = fs::metadata(folder.path().join("overrides.json"))
        .unwrap()
        .len();
    assert!(bytes < 3200, "{bytes}");
    assert_eq!(Store::open(folder.path()).unwrap().overrides, overrides);
}

#[test]
fn file_cut_at_any_byte_is_set_aside_whole() {
    let folder = folder();
    let path = folder.path().join("overrides.json");
    Store::open(folder.path())
        .unwrap()
        .store
        .save(&sample())
        .unwrap();
    let text = fs::read(&path).unwrap();
    let kept = folder.path().join("overrides.json.bad");
    // But for its last byte, the line's end, which means nothing.
    for end in 0..text.len() - 1 {
        fs::write(&path, &text[..end]).unwrap();
        let aside = set_aside(folder.path());
        assert!(matches!(aside.why, Why::Damaged(_)), "{aside}");
        assert_eq!((&aside.path, &aside.kept), (&path, &kept));
        assert!(!path.exists());
        assert_eq!(fs::read(&kept).unwrap(), &text[..end]);
        fs::remove_file(&kept).unwrap();
    }
    fs::write(&path, &text[..text.len() - 1]).unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().overrides, sample());
}

#[test]
fn files_set_aside_are_never_written_over() {
    let folder = folder();
    let path = folder.path().join("overrides.json");
    for text in ["first", "second", "third"] {
        fs::write(&path, text).unwrap();
        set_aside(folder.path());
    }
    let store = Store::open(folder.path()).unwrap().store;
    store.save(&sample()).unwrap();
    let bad = [
        "overrides.json.bad",
        "overrides.json.bad.2",
        "overrides.json.bad.3",
    ];
    assert_eq!(names(folder.path())[1..], bad);
    let texts = bad.map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
    assert_eq!(texts, ["first", "second", "third"]);
}

#[test]
fn message_names_the_file_what_is_wrong_and_what_to_do() {
    let folder = folder();
    let path = folder.path().join("overrides.json");
    fs::write(&path, r#"{"version": 2, "shape": "unknown"}"#).unwrap();
    assert_eq!(
        set_aside(folder.path()).to_string(),
        format!(
            "the overrides in {path} are not in force: its format has version 2, this program knows 1; \
             the file is kept as {path}.bad: repair it, move it back and restart, or set the overrides again",
            path = path.display()
        )
    );
}

#[test]
fn what_no_operator_could_have_said_is_set_aside() {
    let by = r#""by": {"owner": "uid:0", "reason": "", "since_unix_ms": 1}"#;
    let wrap = |endpoint: &str, layer: &str| {
        format!(r#"{{"version": 1, "upstreams": {{"app": {{"{endpoint}": {layer}}}}}}}"#)
    };
    let weight = |value: &str| format!(r#"{{"weight": {{"value": {value}, {by}}}}}"#);
    let owner = "o".repeat(65);
    for (text, expected) in [
        (wrap(A, &weight("1001")), "a weight above 1000"),
        (
            wrap("app:80", &weight("1")),
            "is not the address of an endpoint",
        ),
        (wrap(A, "{}"), "says nothing, or contradicts itself"),
        (
            wrap(
                A,
                &format!(
                    r#"{{"removed": {{"owner": "a", "reason": "", "since_unix_ms": 1}}, "added": {{"value": 1, {by}}}}}"#
                ),
            ),
            "says nothing, or contradicts itself",
        ),
        (
            wrap(
                A,
                &format!(
                    r#"{{"removed": {{"owner": "{owner}", "reason": "", "since_unix_ms": 1}}}}"#
                ),
            ),
            "`removed` has an owner or reason that cannot be",
        ),
        (wrap(A, &weight("-1")), "it is damaged"),
        (wrap(A, r#"{"priority": 1}"#), "unknown field `priority`"),
    ] {
        let folder = folder();
        fs::write(folder.path().join("overrides.json"), &text).unwrap();
        let message = set_aside(folder.path()).to_string();
        assert!(message.contains(expected), "{message}\n{text}");
    }
}

#[test]
fn unreadable_file_gives_no_store() {
    let folder = folder();
    fs::create_dir(folder.path().join("overrides.json")).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Read { .. }), "{error}");
    assert!(error.source().is_some());
}

#[test]
fn file_that_cannot_be_set_aside_gives_no_store() {
    let folder = folder();
    let path = folder.path().join("overrides.json");
    fs::write(&path, "damaged").unwrap();
    fs::write(folder.path().join("overrides.json.bad"), "").unwrap();
    for n in 2..=100 {
        fs::write(folder.path().join(format!("overrides.json.bad.{n}")), "").unwrap();
    }
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::SetAside { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"damaged");
}

/// As on a full disk: nothing can be created in the folder.
#[test]
fn failed_save_leaves_the_file_as_it_was() {
    let folder = folder();
    let store = Store::open(folder.path()).unwrap().store;
    store.save(&sample()).unwrap();
    let path = folder.path().join("overrides.json");
    let before = fs::read(&path).unwrap();

    let read_only = fs::Permissions::from_mode(0o500);
    fs::set_permissions(folder.path(), read_only).unwrap();
    // Root may write all the same; the tests below fail for root too.
    if !rustix::process::geteuid().is_root() {
        let error = store.save(&Overrides::default()).unwrap_err();
        assert!(matches!(error, SaveError::Write { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, "damaged").unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, OpenError::SetAside { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"damaged");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn save_that_cannot_begin_says_where() {
    let folder = folder();
    let state_dir = folder.path().join("missing");
    let store = Store::open(&state_dir).unwrap().store;
    let error = store.save(&sample()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot write the overrides to {}/overrides.json; `state_dir` must exist, have room, \
             and be writable for the user that isobar runs as",
            state_dir.display()
        )
    );
}

#[test]
fn save_that_cannot_end_leaves_no_trace() {
    let folder = folder();
    let store = Store::open(folder.path()).unwrap().store;
    // A folder cannot be replaced by a file: the rename fails, for root too.
    fs::create_dir(folder.path().join("overrides.json")).unwrap();
    let error = store.save(&sample()).unwrap_err();
    assert!(matches!(error, SaveError::Write { .. }), "{error}");
    assert_eq!(names(folder.path()), ["overrides.json"]);
}

#[test]
fn remains_of_a_crash_do_not_hinder() {
    let folder = folder();
    let remains = folder
        .path()
        .join(format!(".overrides.json.{}", std::process::id()));
    fs::write(&remains, "x".repeat(100_000)).unwrap();
    let opened = Store::open(folder.path()).unwrap();
    assert!(opened.overrides.is_empty());
    opened.store.save(&sample()).unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().overrides, sample());
    assert_eq!(names(folder.path()), ["overrides.json"]);
}

fn change() -> impl Strategy<Value = Change> {
    let verb = prop_oneof![
        prop::option::of(0..=MAX_WEIGHT).prop_map(|weight| Verb::Add { weight }),
        Just(Verb::Clear),
        Just(Verb::Disable),
        Just(Verb::Drain),
        Just(Verb::Remove),
        (0..=MAX_WEIGHT).prop_map(Verb::SetWeight),
        Just(Verb::Undrain),
    ];
    let text = |least| {
        let character = any::<char>().prop_filter("no control", |c| !c.is_control());
        prop::collection::vec(character, least..12).prop_map(String::from_iter)
    };
    let upstream = prop_oneof![Just("app"), Just("pool")];
    let endpoint = prop_oneof![
        Just(A),
        Just(B),
        Just(NEW),
        Just("[::1]:80"),
        Just("unix:/a b")
    ];
    let expires = prop::option::of(NOW + 1..NOW + 100_000);
    (upstream, endpoint, verb, text(1), text(0), expires).prop_map(
        |(upstream, endpoint, verb, owner, reason, expires_unix_ms)| Change {
            owner,
            reason,
            expires_unix_ms,
            ..wish(upstream, endpoint, verb)
        },
    )
}

proptest! {
    // Flushes a disk for each case.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever operators say, the next process knows it; and what `apply` told is what the members are.
    #[test]
    fn anything_said_survives(changes in prop::collection::vec(change(), 0..40)) {
        let (config, mut overrides) = (config(), Overrides::default());
        for change in changes {
            let (name, endpoint) = (change.upstream.clone(), change.endpoint.clone());
            let before = overrides.clone();
            let applied = overrides.apply(change, &config, NOW);
            let Ok(applied) = applied else {
                prop_assert_eq!(&overrides, &before);
                continue;
            };
            let spec = config.upstreams.iter().find(|u| u.name == name).unwrap();
            let members = effective_members(spec, &overrides);
            let found = members.iter().find(|m| m.addr == endpoint);
            let found = found.map(|m| Effective { weight: m.weight, state: m.state });
            prop_assert_eq!(found, applied.after);
        }
        let folder = folder();
        let store = Store::open(folder.path()).unwrap().store;
        store.save(&overrides).unwrap();
        let next = Store::open(folder.path()).unwrap();
        prop_assert!(next.set_aside.is_none());
        prop_assert_eq!(&next.overrides, &overrides);

        // All is told of all, and only what is dropped goes.
        let mut settled = overrides.clone();
        let told = settled.reconcile(None, &config);
        let parts = |o: &Overrides| o.upstreams.values().flatten().map(|(_, e)| e.said().count()).sum::<usize>();
        prop_assert_eq!(told.len(), parts(&overrides));
        prop_assert_eq!(told.iter().filter(|r| r.fate.is_kept()).count(), parts(&settled));

        // Time ends what has an end, nothing else, and tells.
        let mut late = overrides.clone();
        late.expire(u64::MAX - 1);
        prop_assert_eq!(late.next_expiry(), None);
        let lasting = |e: &Parts| e.said().all(|(_, by)| by.expires_unix_ms.is_none());
        let entries = late.upstreams.values().flat_map(BTreeMap::values);
        prop_assert!(entries.into_iter().all(lasting));
    }

    #[test]
    fn any_bytes_are_read_or_set_aside(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = folder();
        fs::write(folder.path().join("overrides.json"), &bytes).unwrap();
        prop_assert!(Store::open(folder.path()).unwrap().set_aside.is_some());
    }
}
