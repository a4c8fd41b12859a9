//! `isobar fleet` asked of real peers: what it shows, and its exit codes.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::binary::run;
use crate::support::eventually::eventually;
use crate::support::fleet::{Fleet, Peer, Plan};
use crate::support::relay::Relay;
use crate::support::unreachable::Refusing;

/// Two peers that reach each other by relays only.
struct Bed {
    name: String,
    fleet: Fleet,
    relays: Vec<Relay>,
}

impl Bed {
    fn start() -> Self {
        let nobody = Refusing::new();
        let plan = Plan::over(2, &[nobody.addr], "");
        let mut peers = plan.prepare();
        let relays: Vec<Relay> = peers.iter().map(|peer| Relay::to(peer.gossip)).collect();
        let seeds: Vec<SocketAddr> = relays.iter().map(Relay::addr).collect();
        for (peer, own) in peers.iter_mut().zip(&seeds) {
            let mut plan = plan.clone();
            plan.fleet = format!("advertise = '{own}'");
            peer.write(&plan.toml(&seeds));
            peer.spawn();
        }
        let fleet = Fleet { peers };
        fleet.await_whole();
        fleet.await_equal();
        Self {
            name: plan.name,
            fleet,
            relays,
        }
    }

    fn open(&self, udp: bool, tcp: bool) {
        for relay in &self.relays {
            relay.open(udp, tcp);
        }
    }

    fn one(&self) -> &Peer {
        &self.fleet.peers[0]
    }

    /// Where the first peer reaches the second.
    fn other(&self) -> String {
        self.relays[1].addr().to_string()
    }
}

#[test]
fn status_and_members_show_the_fleet() {
    let bed = Bed::start();
    let (one, two) = (bed.one(), &bed.fleet.peers[1]);
    let (ids, other) = ([one.id(), two.id()], bed.other());

    // On a busy machine one may doubt the other for a moment.
    let own = format!(
        "fleet {}: this is peer {} at {}\n2 peers: 2 alive, 0 suspect, 0 down, 0 left\n",
        bed.name,
        ids[0],
        bed.relays[0].addr()
    );
    eventually("two peers", || {
        let (code, status, error) = one.isobar(&["fleet", "status"]);
        assert_eq!((code, &*error), (0, ""), "{status}");
        assert!(!status.contains("it is alone"), "{status}");
        status.starts_with(&own)
    });
    let (code, json, _) = one.isobar(&["fleet", "status", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &json["peer"], &json["name"]),
        (0, &ids[0].as_str().into(), &bed.name.as_str().into())
    );

    eventually("two peers that answer", || {
        let (code, members, error) = one.isobar(&["fleet", "members"]);
        assert_eq!((code, &*error), (0, ""), "{members}");
        let lines: Vec<&str> = members.lines().collect();
        assert!(
            lines[1].starts_with(&ids[0]) && lines[1].contains("this peer"),
            "{members}"
        );
        assert!(
            lines[2].starts_with(&ids[1]) && lines[2].contains(&other),
            "{members}"
        );
        lines[2].contains(" alive ")
    });
    let (code, json, _) = one.isobar(&["fleet", "members", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json.as_array().map(Vec::len)), (0, Some(2)));
    assert_eq!(json[1]["peer"], ids[1].as_str());
}

#[test]
fn diff_shows_what_one_of_two_knows() {
    let bed = Bed::start();
    let other = bed.other();
    let diff = |args: &[&str]| {
        bed.one()
            .isobar(&[&["fleet", "diff", &*other], args].concat())
    };
    eventually("nothing differs", || diff(&[]).0 == 0);
    // Datagrams are lost, and the two can still be compared. If they have exchanged it meanwhile, or one has given
    // up the other, once more.
    let mut said = None;
    eventually("a difference", || {
        bed.open(true, true);
        if bed.fleet.peers.iter().any(|peer| peer.alive() != 2) {
            return false;
        }
        bed.open(false, true);
        let new = Refusing::new();
        bed.one().add(new.addr);
        let (code, text, _) = diff(&[]);
        let is_shown = code == 1 && text.contains(&new.addr.to_string());
        if is_shown {
            let (_, json, _) = diff(&["--json"]);
            said = Some((new.addr, text, json));
        }
        is_shown
    });
    let (endpoint, text, json) = said.unwrap();
    let line = text
        .lines()
        .find(|line| line.contains(&endpoint.to_string()));
    let line = line.unwrap_or_default();
    assert!(
        line.starts_with("membership of upstream app, endpoint "),
        "{text}"
    );
    assert!(line.contains("the addition with weight 1 (uid:"), "{text}");
    if let Ok(json) = serde_json::from_str::<Value>(&json)
        && json["equal"] == false
    {
        let facts = json["differences"].to_string();
        assert!(facts.contains(&endpoint.to_string()), "{facts}");
    }
    bed.open(true, true);
    eventually("nothing differs", || diff(&[]).0 == 0);
}

#[test]
fn who_cannot_be_compared_is_named() {
    let bed = Bed::start();
    let (code, text, error) = bed.one().isobar(&["fleet", "diff", "127.0.0.1:1"]);
    assert_eq!((code, &*text), (1, ""), "{error}");
    assert!(error.contains("127.0.0.1:1"), "{error}");
    let own = bed.one().id();
    let (code, _, error) = bed.one().isobar(&["fleet", "diff", &own]);
    assert_eq!(code, 1, "{error}");
    // It is there, and does not answer.
    eventually("no answer", || {
        bed.open(true, false);
        let (code, _, error) = bed.one().isobar(&["fleet", "diff", &bed.other()]);
        code == 1 && error.contains("no answer")
    });
}

#[test]
fn server_without_a_fleet_says_so() {
    let nobody = Refusing::new();
    let plan = Plan::over(1, &[nobody.addr], "");
    let folder = tempfile::tempdir().unwrap();
    let mut peers = plan.prepare();
    let toml = std::fs::read_to_string(&peers[0].file).unwrap();
    let (before, rest) = toml.split_once("[fleet]").unwrap();
    let (_, after) = rest.split_once("[upstreams.app]").unwrap();
    peers[0].write(&format!("{before}[upstreams.app]{after}"));
    peers[0].start();
    for command in [
        &["fleet", "status"][..],
        &["fleet", "members"],
        &["fleet", "diff", "1"],
    ] {
        let (code, text, error) = peers[0].isobar(command);
        assert_eq!((code, &*text), (1, ""), "{command:?}: {error}");
        assert!(error.contains("[fleet]"), "{command:?}: {error}");
    }
    let nowhere = folder.path().join("none.sock");
    let out = run(&["fleet", "status", "--socket", &nowhere.to_string_lossy()]);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn secret_that_keygen_makes_is_one_that_peers_take() {
    let nobody = Refusing::new();
    let mut plan = Plan::over(2, &[nobody.addr], "");
    let made = run(&["fleet", "keygen"]);
    assert_eq!(made.status.code(), Some(0));
    plan.secret = String::from_utf8(made.stdout).unwrap();
    let fleet = plan.start();
    fleet.await_equal();
}
