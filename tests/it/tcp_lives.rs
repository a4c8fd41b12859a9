//! Long connections of TCP while the configuration changes, the program is replaced, and it ends.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually::eventually;
use crate::support::now;
use crate::support::running::Running;
use crate::support::tcp::{Came, End, Endpoint};

/// Connections with traffic, each of a client and its endpoint's end.
struct Traffic {
    is_over: Arc<AtomicBool>,
    words: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<(End, End)>>>,
    count: usize,
}

/// Between two rounds: the traffic is to be there, not to be heavy, as others test too.
const PAUSE: Duration = Duration::from_millis(20);

// === impl Traffic ===

impl Traffic {
    fn start(pairs: Vec<(End, End)>) -> Self {
        let (is_over, words) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let count = pairs.len();
        let mut pairs = pairs.into_iter().peekable();
        let mut threads = Vec::new();
        while pairs.peek().is_some() {
            let mut mine: Vec<_> = pairs.by_ref().take(50).collect();
            let (is_over, words) = (is_over.clone(), words.clone());
            threads.push(std::thread::spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    for (client, server) in &mut mine {
                        client.talks_to(server);
                        words.fetch_add(1, Ordering::SeqCst);
                    }
                    std::thread::park_timeout(PAUSE);
                }
                mine
            }));
        }
        Self {
            is_over,
            words,
            threads,
            count,
        }
    }

    /// Waits until each connection has carried words once more.
    fn await_words(&self) {
        let due = self.words.load(Ordering::SeqCst) + 2 * self.count;
        eventually("words on every connection", || {
            self.words.load(Ordering::SeqCst) >= due
                || self.threads.iter().any(JoinHandle::is_finished)
        });
    }

    fn end(self) -> Vec<(End, End)> {
        self.is_over.store(true, Ordering::SeqCst);
        let threads = self.threads.into_iter();
        threads.flat_map(|t| t.join().unwrap()).collect()
    }
}

/// Two endpoints; a step changes the file here and there.
fn config(a: &Endpoint, b: &Endpoint, step: usize, grace: &str) -> String {
    let (weight, idle) = (1 + step % 3, 3600 + step);
    // One of the two leaves, and comes back.
    let second = if step % 4 == 3 {
        String::new()
    } else {
        format!("{{ address = '{}', weight = {} }}", b.addr(), 1 + step % 2)
    };
    let other = if step.is_multiple_of(2) {
        "[listeners.other]\nbind = 'unix:other.sock'\nupstream = 'app'\n"
    } else {
        ""
    };
    format!(
        "[process]\nworkers = 2\ngrace = '300ms'\n[admin]\nbind = 'ADMIN'\n\
         [listeners.web]\nbind = 'WEB'\nprotocol = 'tcp'\nupstream = 'app'\n\
         idle_timeout = '{idle}s'\nhalf_close_timeout = '{}s'\ngrace = '{grace}'\n\
         [upstreams.app]\nbalance = 'weighted'\n\
         endpoints = [{{ address = '{}', weight = {weight} }}, {second}]\n{other}",
        60 + step,
        a.addr(),
    )
}

/// So many connections, half of them to each endpoint or as it comes.
fn join(running: &Running, endpoints: [&Endpoint; 2], count: usize) -> Vec<(End, End)> {
    let mut pairs = Vec::new();
    for _ in 0..count {
        let mut client = End::connect(running.web);
        client.send("?");
        let mut found = None;
        eventually("its endpoint", || {
            found = endpoints.iter().find_map(|e| e.waiting());
            found.is_some()
        });
        let mut server = found.unwrap();
        assert_eq!(server.exactly(1), b"?");
        pairs.push((client, server));
    }
    pairs
}

#[test]
fn two_hundred_connections_outlive_twenty_reloads_and_an_upgrade() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let mut running = Running::start(&config(&a, &b, 0, "1h"));
    let traffic = Traffic::start(join(&running, [&a, &b], 200));
    for step in 1..=20 {
        running.reload(&config(&a, &b, step, "1h"));
        traffic.await_words();
    }
    assert_eq!(running.connections(), 200);
    running.isobar.signal(Signal::USR2);
    let line = running.isobar.await_line("successor serves");
    let pid = line
        .split("pid=")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let successor = Successor(Pid::from_raw(pid.parse().unwrap()).unwrap());
    // Longer than `process.grace`.
    let end = now() + Duration::from_secs(1);
    eventually("time passes", || now() >= end);
    traffic.await_words();
    // New ones are the successor's.
    let mut fresh = join(&running, [&a, &b], 1);
    eventually("the successor tells of its own", || {
        running.connections() == 1
    });
    assert!(running.isobar.is_running());
    let mut pairs = traffic.end();
    let last = pairs.pop().unwrap();
    drop(pairs);
    let (mut client, mut server) = last;
    client.talks_to(&mut server);
    assert!(running.isobar.is_running());
    drop((client, server));
    assert_eq!(running.isobar.wait().code(), Some(0));
    let (client, server) = &mut fresh[0];
    client.talks_to(server);
    drop(successor);
}

/// A process that nobody else would end.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn a_drain_refuses_who_is_new_and_waits_for_who_is_there() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let mut running = Running::start(&config(&a, &b, 0, "1h"));
    let traffic = Traffic::start(join(&running, [&a, &b], 20));
    running.isobar.signal(Signal::TERM);
    eventually("new ones are refused", || {
        TcpStream::connect(running.web).is_err()
    });
    let end = now() + Duration::from_secs(1);
    eventually("time passes", || now() >= end);
    traffic.await_words();
    assert!(running.isobar.is_running());
    drop(traffic.end());
    // Those that were let in at the last moment have no answer to wait for.
    drop((a, b));
    assert_eq!(running.isobar.wait().code(), Some(0));
}

#[test]
fn a_drain_ends_with_the_grace_of_the_listener() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let mut running = Running::start(&config(&a, &b, 0, "700ms"));
    let mut pairs = join(&running, [&a, &b], 4);
    running.isobar.signal(Signal::TERM);
    for (client, server) in &mut pairs {
        assert_eq!(client.next(), Came::Reset);
        assert_eq!(server.next(), Came::Reset);
    }
    // 1 = not everything was finished.
    assert_eq!(running.isobar.wait().code(), Some(1));
}
