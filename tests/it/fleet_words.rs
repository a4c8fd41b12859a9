//! What operators say to a fleet: it is not lost by whatever happens to a process or its files, it is refused if the
//! others could not be told, and a reload changes how much of it one peer may bring about.

use std::time::Duration;

use isobar::fleet::facts::snapshot::{self, Image, Loaded};

use crate::support::eventually::eventually;
use crate::support::fleet::{Peer, Plan, await_each};
use crate::support::origin::Origin;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One peer that knows an endpoint that was added, and one of its file that drains.
fn alone(plan: &Plan, added: &Origin, of_file: &Origin) -> Peer {
    let mut peer = plan.prepare().remove(0);
    peer.start();
    peer.add(added.addr());
    peer.set_state(of_file.addr(), "drain");
    peer
}

fn is_told(peer: &Peer, added: &Origin, of_file: &Origin) -> bool {
    peer.effective(added.addr()) == "active 1" && peer.effective(of_file.addr()) == "drain 1"
}

/// Answered is kept: the facts of the fleet are saved a little later than that.
#[test]
fn what_was_answered_is_known_after_a_kill() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let plan = Plan::over(1, &[a.addr()], "");
    let mut peer = alone(&plan, &b, &a);
    peer.kill();
    peer.start();
    assert!(is_told(&peer, &b, &a));
    // The same once more, with what was said before in the file.
    peer.set_weight(b.addr(), 7);
    peer.kill();
    peer.start();
    assert_eq!(peer.effective(b.addr()), "active 7");
}

#[test]
fn damaged_facts_lose_no_word_of_operators() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let plan = Plan::over(1, &[a.addr()], "");
    let mut peer = alone(&plan, &b, &a);
    let state = peer.folder().join("state");
    eventually("facts are saved", || state.join("fleet.facts").exists());
    peer.stop();
    for text in ["", "not what it was"] {
        std::fs::write(state.join("fleet.facts"), text).unwrap();
        peer.start();
        assert!(is_told(&peer, &b, &a), "{text:?}");
        peer.stop();
    }
    assert!(state.join("fleet.facts.bad").exists(), "kept for people");
}

/// Whoever was alone, and off for a weekend, knows what it knew; and does so again when it is started once more.
#[test]
fn lone_peer_that_was_off_for_longer_than_anything_is_remembered_forgets_nothing() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let plan = Plan::over(1, &[a.addr()], "");
    let mut peer = alone(&plan, &b, &a);
    peer.stop();
    // Two days pass: for the files, all that is in them is so much older.
    let state = peer.folder().join("state");
    std::fs::remove_file(state.join("overrides.json")).unwrap();
    let Loaded::Known(saved) = snapshot::load(&state, &plan.name, 0).unwrap() else {
        panic!("a file of just now");
    };
    let by_ms = 2 * DAY.as_millis() as u64;
    let mut facts = saved.facts;
    for fact in &mut facts {
        fact.stamp = fact.stamp.earlier(by_ms);
    }
    let at = saved.saved_unix_ms - by_ms;
    let image = Image::with(saved.peer, &plan.name, at, facts.iter().collect());
    snapshot::save(&state, &image).unwrap();
    for _ in 0..2 {
        peer.start();
        assert!(is_told(&peer, &b, &a));
        assert_eq!(peer.id(), saved.peer.to_string());
        let aside = &peer.fleet()["aside"];
        assert_eq!(
            (&aside["count"], &aside["since_unix_ms"]),
            (&2.into(), &at.into())
        );
        let words: Vec<String> = (0..2)
            .map(|n| {
                format!(
                    "{} {}",
                    aside["words"][n]["endpoint"], aside["words"][n]["what"]
                )
            })
            .collect();
        assert!(
            words.iter().any(|word| word.contains("drain (uid:")),
            "{words:?}"
        );
        let (code, text, error) = peer.isobar(&["fleet", "status"]);
        assert_eq!(code, 0, "{error}");
        assert!(text.contains("HOLDS HERE ALONE"), "{text}");
        assert!(text.contains("2 words of operators kept aside"), "{text}");
        peer.stop();
        let _ = std::fs::remove_file(state.join("overrides.json"));
    }
    // What is taken back meanwhile stays taken back.
    peer.start();
    peer.set_state(a.addr(), "active");
    assert_eq!(peer.effective(a.addr()), "active 1");
    peer.stop();
    let _ = std::fs::remove_file(state.join("overrides.json"));
    peer.start();
    assert_eq!(peer.effective(a.addr()), "active 1");
    assert_eq!(peer.effective(b.addr()), "active 1");
}

#[test]
fn what_the_others_cannot_be_told_is_refused() {
    let a = Origin::named("a");
    let peer = {
        let mut peers = Plan::over(1, &[a.addr()], "").prepare();
        peers[0].start();
        peers.remove(0)
    };
    let body = "{\"address\": \"[fe80::1%1]:80\"}";
    let answer = peer
        .control
        .ask("POST", "/v1/upstreams/app/endpoints", body);
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert!(answer.body.contains("not-told"), "{}", answer.body);
    assert!(answer.body.contains("without a zone"), "{}", answer.body);
    let view = peer.control.get("/v1/upstreams/app").body;
    assert!(!view.contains("fe80"), "nothing has changed: {view}");
}

#[test]
fn reload_changes_what_one_peer_may_take_away() {
    let origins = ["a", "b", "c", "d"].map(Origin::named);
    let addrs = origins.each_ref().map(Origin::addr);
    let mut plan = Plan::over(2, &addrs, "");
    plan.fleet = "guard.max_remove = '25%'".to_owned();
    let fleet = plan.start();
    for addr in &addrs[..3] {
        fleet.peers[1].set_state(*addr, "drain");
    }
    let other = &fleet.peers[0];
    let drained = |peer: &Peer| {
        let drains = |addr: &&std::net::SocketAddr| peer.effective(**addr) == "drain 1";
        addrs.iter().filter(drains).count()
    };
    await_each(&[other], "the share of one peer", |peer| {
        drained(peer) == 1 && peer.fleet()["held"].as_array().unwrap().len() == 2
    });
    let seeds = [fleet.peers[0].gossip, fleet.peers[1].gossip];
    plan.fleet = "guard.max_remove = '100%'\nhealth.probers = 1".to_owned();
    other.write(&plan.toml(&seeds));
    other.reload();
    await_each(&[other], "all of it", |peer| drained(peer) == 3);
    assert_eq!(other.fleet()["held"].as_array().unwrap().len(), 0);
}
