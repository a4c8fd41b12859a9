//! Many endpoints that one peer adds at once: at the others they are used as soon as a check has found them up, and those
//! that never live are not used at all.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::fleet::{Fleet, Peer, Plan, await_each};
use crate::support::origin::{Origin, reply};

/// Endpoints that answer clients with `name`, and checks well as long as `is_well`.
fn origins(count: usize, name: &'static str, is_well: &Arc<AtomicBool>) -> Vec<Origin> {
    let one = |_| {
        let is_well = is_well.clone();
        Origin::start(move |request| {
            let is_check = request.head.target() == "/health";
            if is_check && !is_well.load(Ordering::Relaxed) {
                return reply(503, "not yet");
            }
            reply(200, name)
        })
    };
    (0..count).map(one).collect()
}

fn addrs(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(Origin::addr).collect()
}

/// Two peers of which the first is past the time in which it believes all that it hears.
fn start(of_file: &[Origin], health: &str) -> Fleet {
    let fleet = Plan::over(2, &addrs(of_file), health).start();
    fleet.await_all("they have compared", |peer| {
        peer.fleet()["learning"] == false
    });
    // Something that is said later is in force: what was known until then has been looked at.
    let file = of_file[0].addr();
    for state in ["drain", "active"] {
        fleet.peers[1].set_state(file, state);
        let state = format!("{state} 1");
        fleet.await_all("a word", |peer| peer.effective(file) == state);
    }
    fleet
}

/// Heavier than anything one peer may add without a check.
fn add(peer: &Peer, endpoints: &[SocketAddr]) {
    for endpoint in endpoints {
        let body = format!("{{\"address\": \"{endpoint}\", \"weight\": 1000}}");
        peer.say("POST", None, &body);
    }
}

fn held(peer: &Peer) -> usize {
    peer.fleet()["held"].as_array().map_or(0, Vec::len)
}

/// What became of these endpoints, as the history has it: `up -> down`.
fn turns(peer: &Peer, of: &[SocketAddr]) -> Vec<String> {
    let history = peer.control.json("/v1/history?limit=1000");
    let events = history["events"].as_array().unwrap().iter();
    let whats = events.map(|event| &event["what"]).filter(|what| {
        let is_of = |addr: &SocketAddr| what["endpoint"] == addr.to_string();
        what["kind"] == "endpoint" && of.iter().any(is_of)
    });
    let text = |what: &serde_json::Value| format!("{} -> {}", what["from"], what["to"]);
    whats.map(text).map(|text| text.replace('"', "")).collect()
}

#[test]
fn burst_of_additions_is_used_once_checks_have_found_it_up() {
    let [yes, no, later] = [true, false, false].map(|is| Arc::new(AtomicBool::new(is)));
    let of_file = origins(4, "file", &yes);
    let (new, dead) = (origins(8, "new", &later), origins(4, "dead", &no));
    let health = "health = { check = 'http', path = '/health', interval = '1s', timeout = '1s' }";
    let fleet = start(&of_file, health);
    let (one, other) = (&fleet.peers[0], &fleet.peers[1]);
    let (new_addrs, dead_addrs) = (addrs(&new), addrs(&dead));
    add(other, &new_addrs);
    add(other, &dead_addrs);
    let all: Vec<SocketAddr> = [&new_addrs[..], &dead_addrs].concat();
    await_each(&[one], "members", |peer| all.iter().all(|a| peer.has(*a)));
    assert_eq!(held(one), all.len());
    for addr in &all {
        let view = one.endpoint(*addr);
        assert_eq!(view["observed"]["health"], "down", "{view}");
        assert_eq!(one.effective(*addr), "active 1000");
    }
    let answers = |count: usize| {
        let mut client = Client::connect(one.web);
        let answers = (0..count).map(|_| {
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            client.response().text()
        });
        answers.collect::<Vec<_>>()
    };
    let is_other = |answer: &String| answer != "new" && answer != "dead";
    assert!(answers(100).iter().all(is_other));
    // They live now, but for some.
    later.store(true, Ordering::Relaxed);
    await_each(&[one], "those that live are let in", |peer| {
        new_addrs.iter().all(|addr| peer.health(*addr) == "up") && held(peer) == dead.len()
    });
    eventually("an answer of them", || {
        answers(10).iter().any(|a| a == "new")
    });
    assert!(answers(200).iter().all(|answer| answer != "dead"));
    for addr in &dead_addrs {
        assert_eq!(one.health(*addr), "down");
    }
    // None of them was taken for up before that.
    assert!(turns(one, &dead_addrs).is_empty());
    for addr in &new_addrs {
        assert_eq!(turns(one, &[*addr])[0], "down -> up");
    }
}

/// Nobody could ever tell whether they live.
#[test]
fn burst_of_additions_is_believed_where_nobody_checks() {
    let yes = Arc::new(AtomicBool::new(true));
    let (of_file, new) = (origins(2, "file", &yes), origins(6, "new", &yes));
    let fleet = start(&of_file, "");
    let new_addrs = addrs(&new);
    add(&fleet.peers[1], &new_addrs);
    let one = &fleet.peers[0];
    await_each(&[one], "members", |peer| {
        new_addrs
            .iter()
            .all(|addr| peer.effective(*addr) == "active 1000")
    });
    assert_eq!(held(one), 0);
    eventually("an answer of them", || {
        Client::get(one.web, "/").text() == "new"
    });
}
