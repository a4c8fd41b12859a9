//! What is saved, and what a reload changes.

use std::net::SocketAddr;
use std::thread;

use super::*;
use crate::config::Seed;
use crate::fleet::fact::Word;
use crate::fleet::facts::snapshot::{self, Loaded};
use crate::runtime::fleet_keys::tests::fleet;
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::overrides::{By, Field};

/// A peer with a folder for what it knows.
fn peer() -> (tempfile::TempDir, config::Fleet, Fleet) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("fleet.key");
    std::fs::write(&secret, "the secret of these tests\n").unwrap();
    let spec = config::Fleet {
        state_dir: Some(folder.path().to_owned()),
        ..fleet("edge", &secret)
    };
    let begun = begin(Arc::new(spec.clone()), spec.bind, &Registry::new(1)).unwrap();
    (folder, spec, begun.fleet)
}

fn drain(fleet: &Fleet, n: u16) {
    let endpoint = EndpointAddr::Ip(SocketAddr::from(([10, 0, 0, 1], n)));
    let by = By {
        owner: "uid:0".to_owned(),
        reason: String::new(),
        since_unix_ms: 1,
        expires_unix_ms: None,
    };
    let parts = vec![(Field::State, Some((Word::Drain, by)))];
    fleet.could_say(&"app".into(), &endpoint, &parts).unwrap();
    fleet.say(&"app".into(), &endpoint, parts);
}

/// The timer, an upgrade and an end may all save at once: one of them would write into the file of another, or put
/// an older state over a newer one.
#[test]
fn saves_at_once_leave_the_last_state_whole() {
    const EACH: u16 = 20;
    let (folder, spec, fleet) = peer();
    thread::scope(|scope| {
        for writer in 0..4 {
            let fleet = &fleet;
            scope.spawn(move || {
                for n in 1..=EACH {
                    drain(fleet, writer * EACH + n);
                    fleet.save();
                }
            });
        }
    });
    let loaded = snapshot::load(folder.path(), &spec.name, 0).unwrap();
    let Loaded::Known(known) = loaded else {
        panic!("{loaded:?}");
    };
    let root = |facts: Vec<_>| {
        let mut store = crate::fleet::facts::Facts::default();
        for fact in facts {
            store.merge(fact, 0);
        }
        store.root()
    };
    assert_eq!(
        known.facts.len(),
        4 * usize::from(EACH) + 1,
        "and who it is"
    );
    assert_eq!(root(known.facts), fleet.state().peer.facts().root());
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 2, "the secret and the facts");
}

#[test]
fn reload_changes_what_hangs_on_no_socket() {
    let (_folder, spec, fleet) = peer();
    let next = config::Fleet {
        probers: 5,
        max_remove: 0.1,
        zone: Some("b".into()),
        seeds: vec![Seed::Addr("10.0.0.9:7946".parse().unwrap())],
        ..spec.clone()
    };
    let next = Arc::new(next);
    fleet.reconfigure(&next, &BTreeSet::new());
    assert_eq!(fleet.wanted(), next);
    let state = fleet.state();
    assert!(state.is_to_be_resolved);
    let me = state.peer.facts().get(&Key::Peer(state.peer.id())).unwrap();
    let Value::Peer(about) = &me.value else {
        panic!("{me:?}");
    };
    assert_eq!(about.zone, Some("b".into()), "said to the others");
}
