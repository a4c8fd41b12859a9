//! Peers that die, end and come back: they are missed, and know what they knew.

use std::time::{Duration, SystemTime};

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::fleet::{Peer, Plan, await_each};
use crate::support::origin::Origin;

/// In turn, so that whoever is a member answers soon.
const IN_TURN: &str = "balance = 'round_robin'";

/// Waits until it has saved what it knows now.
#[track_caller]
fn await_saved(peer: &Peer) {
    let begun = SystemTime::now();
    let file = peer.folder().join("state/fleet.facts");
    eventually("a snapshot", || {
        let saved = std::fs::metadata(&file).and_then(|m| m.modified());
        saved.is_ok_and(|at| at >= begun)
    });
}

/// Waits until this endpoint answers there.
#[track_caller]
fn await_answer(peer: &Peer, name: &str) {
    eventually(&format!("an answer of {name}"), || {
        Client::get(peer.web, "/").text() == name
    });
}

#[test]
fn peer_that_died_is_missed_and_one_that_ends_says_so() {
    let a = Origin::named("a");
    let mut fleet = Plan::over(3, &[a.addr()], IN_TURN).start();
    let ids: Vec<String> = fleet.peers.iter().map(Peer::id).collect();
    let is = |of: usize, state: &'static str| {
        let id = ids[of].clone();
        move |peer: &Peer| peer.state_of(&id) == state && peer.alive() == 2
    };
    fleet.peers[1].kill();
    let others = [&fleet.peers[0], &fleet.peers[2]];
    let took = await_each(&others, "the others miss it", is(1, "down"));
    eprintln!("a peer that was killed is missed after {took:?}");
    // The others go on, and it is told what it missed.
    let b = Origin::named("b");
    fleet.peers[0].add(b.addr());
    await_each(&[&fleet.peers[2]], "the others go on", |peer| {
        peer.has(b.addr())
    });
    fleet.peers[1].start();
    let took = fleet.await_all("what it missed", |peer| peer.has(b.addr()));
    eprintln!("a peer that came back knows what it missed {took:?} after it serves");
    fleet.await_whole();
    assert_eq!(fleet.peers[1].id(), ids[1], "the same peer as before");

    fleet.peers[2].stop();
    let others = [&fleet.peers[0], &fleet.peers[1]];
    let took = await_each(&others, "the others know that it ended", is(2, "left"));
    eprintln!("a peer that ended is gone after {took:?}");
    assert!(
        took < Duration::from_secs(10),
        "{took:?}: nobody has to be suspected"
    );
    fleet.peers[2].start();
    fleet.await_whole();
    fleet.await_equal();
    let ids_now: Vec<String> = fleet.peers.iter().map(Peer::id).collect();
    assert_eq!(ids_now, ids);
}

#[test]
fn peer_without_any_other_serves_what_it_knew() {
    let origins = ["a", "b"].map(Origin::named);
    let [of_file, added] = origins.each_ref().map(Origin::addr);
    let mut fleet = Plan::over(3, &[of_file], IN_TURN).start();
    fleet.peers[0].add(added);
    fleet.peers[1].set_state(of_file, "drain");
    let is_told =
        |peer: &Peer| peer.effective(added) == "active 1" && peer.effective(of_file) == "drain 1";
    fleet.await_all("what was said", is_told);
    let id = fleet.peers[2].id();
    await_saved(&fleet.peers[2]);
    for peer in &mut fleet.peers {
        peer.kill();
    }
    let state = fleet.peers[2].folder().join("state");
    // What operators said is kept twice; here it is to come from what the fleet knew.
    let _ = std::fs::remove_file(state.join("overrides.json"));
    let alone = &mut fleet.peers[2];
    alone.start();
    assert!(is_told(alone), "at once, with nobody to ask");
    assert_eq!(Client::get(alone.web, "/").text(), "b");
    assert_eq!((alone.id(), alone.alive()), (id, 1));
    // The others find it, and all are as before.
    for peer in &mut fleet.peers[..2] {
        peer.spawn();
    }
    fleet.await_whole();
    fleet.await_all("what was said", is_told);
    fleet.await_equal();
}

#[test]
fn alone_it_works_as_without_a_fleet_and_tells_who_comes() {
    let origins = ["a", "b"].map(Origin::named);
    let [of_file, added] = origins.each_ref().map(Origin::addr);
    let plan = Plan::over(2, &[of_file], IN_TURN);
    let mut peers = plan.prepare();
    peers[0].start();
    assert_eq!(peers[0].alive(), 1);
    peers[0].add(added);
    await_answer(&peers[0], "b");
    peers[1].start();
    await_each(&[&peers[1]], "what was said before it came", |peer| {
        peer.has(added)
    });
    await_answer(&peers[1], "b");
    // The first to come is gone, and what it said stays.
    peers[0].stop();
    assert!(peers[1].has(added));
    await_answer(&peers[1], "b");
}
