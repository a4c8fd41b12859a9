//! The program of a peer is replaced while its fleet runs: it is the same peer, and nothing is lost.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::asking::Asking;
use crate::support::binary::{free_port, program};
use crate::support::eventually::eventually;
use crate::support::fleet::{Fleet, Peer, Plan, TOKEN, await_each};
use crate::support::origin::Origin;
use crate::support::unreachable::Refusing;

/// Peers that take registrations.
fn start(origin: &Origin) -> Fleet {
    Plan::over(3, &[origin.addr()], "").start_to_register()
}

#[test]
fn successor_is_the_same_peer_and_nothing_is_lost() {
    let (origin, added, registered) = (Origin::named("a"), Origin::named("a"), Origin::named("a"));
    let mut fleet = start(&origin);
    let ids: Vec<String> = fleet.peers.iter().map(Peer::id).collect();
    fleet.peers[0].add(added.addr());
    let path = format!("/v1/upstreams/app/endpoints/{}?ttl=60s", registered.addr());
    let answer = fleet.peers[0].registrar("PUT", &path, TOKEN);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let is_told = |peer: &Peer| peer.has(added.addr()) && peer.has(registered.addr());
    fleet.await_all("what was said", is_told);
    let proxies: Vec<_> = fleet.peers.iter().map(|peer| peer.web).collect();
    let load = Asking::start(&proxies);
    load.await_more(10);

    let began = fleet.peers[0].fleet()["members"].clone();
    fleet.peers[0].upgrade();
    eprintln!(
        "before {began}, after {}",
        fleet.peers[1].fleet()["members"]
    );
    assert_eq!(fleet.peers[0].id(), ids[0], "the same peer");
    assert!(fleet.peers.iter().all(is_told));
    // It speaks with the others as before, and they with it.
    let new = Refusing::new();
    fleet.peers[0].add(new.addr);
    let took = fleet.await_all("what the successor says", |peer| peer.has(new.addr));
    fleet.peers[0].remove(new.addr);
    fleet.await_all("what the successor says", |peer| !peer.has(new.addr));
    eprintln!("what the successor says is so at all after {took:?}");
    let new = Refusing::new();
    fleet.peers[1].add(new.addr);
    fleet.await_all("what the successor is told", |peer| peer.has(new.addr));
    fleet.peers[1].remove(new.addr);
    fleet.await_whole();
    // Endpoints go on registering there.
    let again = fleet.peers[0].registrar("PUT", &path, TOKEN);
    assert_eq!(again.status(), 200, "{}", again.text());
    assert!(fleet.peers.iter().all(is_told));
    for peer in &fleet.peers {
        assert_eq!(peer.members().len(), 3);
    }
    load.await_more(10);
    let (answers, failures) = load.end();
    eprintln!("{answers} requests");
    assert!(failures.is_empty(), "{failures:#?}");
    fleet.await_equal();
}

/// A server at many addresses of this machine that takes connections and ends them.
struct Server {
    port: u16,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Server ===

impl Server {
    fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("a port that is free");
        let ends = Arc::new(AtomicBool::new(false));
        let has_ended = ends.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if has_ended.load(Ordering::Relaxed) {
                    return;
                }
                drop(stream);
            }
        });
        Self {
            port,
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many endpoints of `app` are down there.
fn down(peer: &Peer) -> usize {
    let view = peer.control.json("/v1/upstreams/app");
    let endpoints = view["endpoints"].as_array().expect("a list");
    let is_down = |e: &&serde_json::Value| e["observed"]["health"] == "down";
    endpoints.iter().filter(is_down).count()
}

/// While a successor starts nothing is taken in. It does not come up: what was said, found and given to do meanwhile
/// was lost, until it was said anew.
#[test]
fn what_happens_during_an_upgrade_that_fails_is_not_lost() {
    const ENDPOINTS: usize = 12;
    let port = free_port();
    let server = Server::start(port);
    let addrs = (1..=ENDPOINTS as u8).map(|n| SocketAddr::from(([127, 0, 9, n], port)));
    let addrs: Vec<SocketAddr> = addrs.collect();
    let mut plan = Plan::over(
        3,
        &addrs,
        "health = { check = 'tcp', interval = '1s', rise = 1 }",
    );
    plan.tables = format!("[fleet.health]\nprobers = 2\n{}", plan.tables);
    let mut peers = plan.prepare();
    // The first one runs by a link that will lead to a successor that waits, and fails.
    let link = peers[0].folder().join("isobar");
    symlink(program(), &link).expect("a link in a folder of the test");
    let run = format!("shift && exec '{}' \"$@\"", link.display());
    peers[0].within = ["/bin/sh", "-c", run.as_str(), "sh"]
        .map(ToOwned::to_owned)
        .into();
    peers.iter_mut().for_each(Peer::spawn);
    let mut fleet = Fleet { peers };
    fleet.await_whole();
    let mine = |peer: &Peer| peer.fleet()["duties"]["mine"].as_u64().expect("a number") as usize;
    eventually("votes of all", || {
        let all: usize = fleet.peers.iter().map(mine).sum();
        let voted = |peer: &Peer| peer.fleet()["facts"]["vote"] == 2 * ENDPOINTS;
        all == 2 * ENDPOINTS && fleet.peers.iter().all(voted)
    });
    assert!(fleet.peers.iter().all(|peer| down(peer) == 0));

    let (begun, may_end) = (link.with_extension("begun"), link.with_extension("end"));
    let waiting = format!(
        "#!/bin/sh\n: > '{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done\nexit 1\n",
        begun.display(),
        may_end.display()
    );
    let script = link.with_extension("sh");
    std::fs::write(&script, waiting).expect("a file in a folder of the test");
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("it is there");
    std::fs::rename(&script, &link).expect("both are there");
    let pid = Pid::from_raw(fleet.peers[0].process().pid() as i32).expect("it runs");
    kill_process(pid, Signal::USR2).expect("it runs");
    eventually("a successor that starts", || begun.exists());
    // An endpoint is added, all others die, and one who asks them ends.
    let added = SocketAddr::from(([127, 0, 9, 99], port));
    fleet.peers[1].add(added);
    drop(server);
    let others = [&fleet.peers[1], &fleet.peers[2]];
    await_each(&others, "what happened", |peer| {
        peer.has(added) && down(peer) >= ENDPOINTS
    });
    fleet.peers[2].stop();
    let has_heard = fleet.peers[0].has(added);
    let output = fleet.peers[0].process().output();
    // A successor has a minute.
    let is_over = output.contains("this process serves on");
    assert!(!has_heard || is_over, "it takes nothing in");

    std::fs::write(&may_end, "").expect("a file in a folder of the test");
    let process = fleet.peers[0].process();
    process.await_line("this process serves on");
    let left = [&fleet.peers[0], &fleet.peers[1]];
    await_each(&left, "what happened", |peer| {
        peer.has(added) && down(peer) == ENDPOINTS + 1
    });
    // It asks for the one that ended, too: one vote alone brings nothing back.
    let _server = Server::start(port);
    await_each(&left, "all are well", |peer| down(peer) == 0);
    assert!(left.iter().all(|peer| mine(peer) == ENDPOINTS + 1));
}
