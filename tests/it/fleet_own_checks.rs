//! A peer whose own checks of an endpoint fail sends nothing there, however its fellows vote, and tells nobody else
//! not to.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::support::eventually::eventually;
use crate::support::fleet::{Fleet, Peer, Plan};

/// A server on a Unix socket that takes connections and ends them. Endpoints are links to it in the folders in which
/// peers run, all with one name: one is cut off from an endpoint by taking the link away.
struct Server {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

// === impl Server ===

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.sock");
        let listener = UnixListener::bind(&path).unwrap();
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
            path,
            ends,
            thread: Some(thread),
            _folder: folder,
        }
    }

    /// The peer reaches endpoint `n`.
    fn link(&self, peer: &Peer, n: usize) {
        symlink(&self.path, link_of(peer, n)).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn link_of(peer: &Peer, n: usize) -> PathBuf {
    peer.folder().join(format!("{n}.sock"))
}

/// The peer does not reach endpoint `n` any more.
fn cut(peer: &Peer, n: usize) {
    std::fs::remove_file(link_of(peer, n)).unwrap();
}

/// Endpoint `n`, the same at every peer.
fn endpoint(n: usize) -> String {
    format!("unix:/proc/self/cwd/{n}.sock")
}

/// Peers that are to run in their folders, `probers` of which ask each endpoint; none runs yet.
fn prepare(peers: usize, endpoints: usize, probers: usize) -> Vec<Peer> {
    let list: Vec<String> = (0..endpoints)
        .map(|n| format!("'{}'", endpoint(n)))
        .collect();
    let mut plan = Plan::over(peers, &[], "");
    plan.tables = format!(
        "[fleet.health]\nprobers = {probers}\n[upstreams.app]\nendpoints = [{}]\nwhen_unhealthy = 'fail_open'\n\
         health = {{ check = 'tcp', interval = '1s', rise = 2, fall = 3 }}\n",
        list.join(", ")
    );
    let mut peers = plan.prepare();
    for peer in &mut peers {
        let run = format!("cd '{}' && exec \"$@\"", peer.folder().display());
        peer.within = ["/bin/sh", "-c", run.as_str(), "sh"]
            .map(ToOwned::to_owned)
            .into();
    }
    peers
}

fn observed(peer: &Peer) -> Vec<Value> {
    let view = peer.control.json("/v1/upstreams/app");
    let endpoints = view["endpoints"].as_array().unwrap();
    endpoints.iter().map(|e| e["observed"].clone()).collect()
}

fn down(peer: &Peer) -> usize {
    let all = observed(peer);
    all.iter().filter(|seen| seen["health"] == "down").count()
}

fn why(peer: &Peer) -> String {
    observed(peer)[0]["since"]["why"].to_string()
}

/// Waits until it has made so many checks more, whatever they found.
fn await_checks(peer: &Peer, count: f64) {
    let made = || peer.metrics(|series| series.starts_with("isobar_health_checks_total{"));
    let before = made();
    eventually("checks", || made() >= before + count);
}

/// One of two, and one of three, is cut off from the only endpoint: votes are one each, or two against it.
#[test]
fn endpoint_that_one_peer_does_not_reach_is_down_there_alone() {
    for count in [2, 3] {
        let server = Server::start();
        let mut peers = prepare(count, 1, 3);
        for peer in &mut peers {
            server.link(peer, 0);
            peer.spawn();
        }
        let fleet = Fleet { peers };
        fleet.await_whole();
        fleet.await_all("votes of all", |peer| {
            peer.fleet()["facts"]["vote"] == count
        });
        assert!(fleet.peers.iter().all(|peer| down(peer) == 0));
        let (alone, others) = fleet.peers.split_first().unwrap();
        cut(alone, 0);
        eventually("it is down where it is not reached", || down(alone) == 1);
        // By its own checks, that is, and not by votes.
        assert!(why(alone).contains("tcp check"), "{}", why(alone));
        // There is no other: it is used all the same.
        assert_eq!(observed(alone)[0]["ready"], true);
        let history = alone.control.json("/v1/history");
        let events = history["events"].as_array().unwrap();
        let last = events.iter().rfind(|e| e["what"]["kind"] == "endpoint");
        assert_eq!(last.unwrap()["cause"]["kind"], "probe", "{history}");
        // So it stays, and nobody else is told that it is down.
        for peer in &fleet.peers {
            await_checks(peer, 10.0);
        }
        assert_eq!(down(alone), 1);
        assert!(others.iter().all(|peer| down(peer) == 0));
        server.link(alone, 0);
        eventually("it is reached again", || down(alone) == 0);

        if let [second, third] = others {
            // The reverse does not hold: who reaches it goes by the majority.
            cut(alone, 0);
            cut(second, 0);
            fleet.await_all("it is down", |peer| down(peer) == 1);
            assert!(why(third).contains("peers"), "{}", why(third));
            await_checks(third, 10.0);
            // Unless it has lost sight of the others, as on a machine without time.
            assert!(down(third) == 1 || third.alive() < count);
        }
    }
}

/// Of forty endpoints that one peer does not reach those are down there that it asks. Another peer comes, and it is
/// not to ask some of them any more: what the others find of them holds.
#[test]
fn what_a_peer_finds_by_itself_ends_with_its_duty() {
    let (server, endpoints) = (Server::start(), 40);
    let mut peers = prepare(4, endpoints, 2);
    for peer in &peers[1..] {
        (0..endpoints).for_each(|n| server.link(peer, n));
    }
    let mut last = peers.pop().unwrap();
    peers.iter_mut().for_each(Peer::spawn);
    let mut fleet = Fleet { peers };
    fleet.await_whole();
    let mine = |peer: &Peer| peer.fleet()["duties"]["mine"].as_u64().unwrap() as usize;
    let is_settled = |fleet: &Fleet| {
        let all: usize = fleet.peers.iter().map(mine).sum();
        let (alone, others) = fleet.peers.split_first().unwrap();
        all == 2 * endpoints && down(alone) == mine(alone) && others.iter().all(|p| down(p) == 0)
    };
    eventually("what it asks is down there", || is_settled(&fleet));
    let before = mine(&fleet.peers[0]);
    last.start();
    fleet.peers.push(last);
    fleet.await_whole();
    eventually("what it asks still is down there", || is_settled(&fleet));
    eprintln!("{before} endpoints before, {} after", mine(&fleet.peers[0]));
    // How others check is not told as if it were known here.
    let id = Value::from(fleet.peers[0].id());
    eventually("it says who checks what", || {
        observed(&fleet.peers[0]).iter().all(|seen| {
            let by = seen["checked_by"].as_array().unwrap();
            let asks = by.contains(&id);
            by.len() == 2
                && seen["last_check"].is_null() != asks
                && (seen["health"] == "down") == asks
        })
    });
}
