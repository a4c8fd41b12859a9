//! Who has another secret or another fleet's name is nobody here; a secret is replaced without losing anybody.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use crate::support::eventually::eventually;
use crate::support::fleet::{Fleet, Peer, Plan};
use crate::support::origin::Origin;
use crate::support::unreachable::Refusing;

const OTHER: &str = "another secret than that of the fleet in tests\n";

fn refused(peer: &Peer, reason: &str) -> f64 {
    peer.metric(&format!(
        "isobar_fleet_datagrams_refused_total{{reason=\"{reason}\"}}"
    ))
}

/// A fleet of two and a stranger who knows where they are, and they where it is.
fn with_stranger(secret: &str, is_namesake: bool) -> (Fleet, Peer) {
    let origin = Origin::named("a");
    let plan = Plan::over(3, &[origin.addr()], "");
    let mut peers = plan.prepare();
    let mut stranger = peers.pop().unwrap();
    let toml = std::fs::read_to_string(&stranger.file).unwrap();
    if !is_namesake {
        stranger.write(&toml.replace(&plan.name, "other"));
    }
    stranger.write_secret(secret);
    stranger.start();
    for peer in &mut peers {
        peer.spawn();
    }
    let fleet = Fleet { peers };
    fleet.await_whole();
    (fleet, stranger)
}

/// Neither side takes anything of the other's, and both say why.
#[track_caller]
fn assert_strange(fleet: &Fleet, stranger: &Peer, reason: &str) {
    fleet.await_all("refused at the peers", |peer| refused(peer, reason) > 0.0);
    eventually("refused at the stranger", || {
        refused(stranger, reason) > 0.0
    });
    let (of_stranger, of_fleet) = (Refusing::new(), Refusing::new());
    stranger.add(of_stranger.addr);
    fleet.peers[0].add(of_fleet.addr);
    fleet.await_all("what a peer says", |peer| peer.has(of_fleet.addr));
    // A few more attempts of each side, after what was said.
    let before: Vec<f64> = fleet
        .peers
        .iter()
        .map(|peer| refused(peer, reason))
        .collect();
    fleet.await_all("further attempts", |peer| {
        let n = fleet
            .peers
            .iter()
            .position(|p| p.gossip == peer.gossip)
            .unwrap();
        refused(peer, reason) >= before[n] + 2.0
    });
    for peer in &fleet.peers {
        assert!(!peer.has(of_stranger.addr));
        assert_eq!(peer.members().len(), 2, "those that are gone among them");
    }
    assert!(!stranger.has(of_fleet.addr));
    assert_eq!((stranger.alive(), stranger.members().len()), (1, 1));
    for peer in fleet.peers.iter().chain([stranger]) {
        let (code, status, _) = peer.isobar(&["fleet", "status"]);
        assert_eq!(code, 0);
        let line = status
            .lines()
            .find(|l| l.starts_with("datagrams not listened to: "));
        let line = line.unwrap_or_else(|| panic!("{status}"));
        assert!(line.ends_with(&format!(" {reason}")), "{line}");
    }
}

#[test]
fn who_has_another_secret_is_nobody() {
    let (fleet, stranger) = with_stranger(OTHER, true);
    assert_strange(&fleet, &stranger, "key");
}

#[test]
fn who_is_of_another_fleet_is_nobody() {
    let (fleet, stranger) = with_stranger(crate::support::fleet::SECRET, false);
    assert_strange(&fleet, &stranger, "fleet");
}

#[test]
fn secret_is_replaced_peer_by_peer_and_nobody_is_lost() {
    let origin = Origin::named("a");
    let plan = Plan::over(4, &[origin.addr()], "");
    let mut peers = plan.prepare();
    let mut late = peers.pop().unwrap();
    for peer in &mut peers {
        peer.spawn();
    }
    let mut fleet = Fleet { peers };
    fleet.await_whole();
    let (old, new) = (crate::support::fleet::SECRET, OTHER);
    let steps = [format!("{old}{new}"), format!("{new}{old}"), new.to_owned()];
    for (n, secrets) in steps.iter().enumerate() {
        for at in 0..3 {
            fleet.peers[at].write_secret(secrets);
            fleet.peers[at].reload();
            // All understand each other at every point of the way.
            let said = Refusing::new();
            fleet.peers[at].add(said.addr);
            fleet.await_all(&format!("step {n}, peer {at}"), |peer| peer.has(said.addr));
            fleet.await_all("all are there", |peer| peer.alive() == 3);
        }
    }
    for peer in &fleet.peers {
        assert_eq!(refused(peer, "key"), 0.0);
    }
    // Who comes with the new one alone is one of them.
    late.write_secret(new);
    late.spawn();
    fleet.peers.push(late);
    fleet.await_whole();
    fleet.await_equal();
}
