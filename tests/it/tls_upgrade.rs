//! Replacing the binary under TLS: the same sockets, the same sessions, nobody cut off.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use rustls::HandshakeKind;

use crate::support::binary::{Binary, free_port};
use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::origin::{self, Origin};
use crate::support::tls::{Offer, V12, V13};

/// A program and its successors; all of them are killed at the end.
struct Line {
    first: Binary,
    web: SocketAddr,
    _state: tempfile::TempDir,
}

impl Line {
    fn start(ca: &Ca, origin: &Origin) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("isobar.toml");
        let toml = format!(
            "[process]\nworkers = 2\ngrace = '20s'\nstate_dir = '{}'\n\
             [listeners.web]\nbind = '127.0.0.1:{port}'\nupstream = 'app'\n{}\n\
             [upstreams.app]\nendpoints = ['{}']\n",
            state.path().display(),
            listener_tls(&[&ca.server()], ""),
            origin.addr()
        );
        std::fs::write(&file, toml).unwrap();
        let first = Binary::spawn(&["run", &file.to_string_lossy()], folder);
        first.await_line("try: curl");
        Self {
            first,
            web: ([127, 0, 0, 1], port).into(),
            _state: state,
        }
    }

    /// The processes that took over, in turn.
    fn successors(&self) -> Vec<Pid> {
        let output = self.first.output();
        let lines = output.lines().filter(|l| l.contains("successor serves"));
        lines
            .filter_map(|line| line.split("pid=").nth(1)?.split(' ').next()?.parse().ok())
            .filter_map(Pid::from_raw)
            .collect()
    }

    #[track_caller]
    fn upgrade(&self) {
        let before = self.successors();
        let newest = before.last().copied();
        let pid = newest.or_else(|| Pid::from_raw(self.first.pid() as i32));
        kill_process(pid.unwrap(), Signal::USR2).unwrap();
        eventually("a successor that serves", || {
            self.successors().len() > before.len()
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for pid in self.successors() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn successor_resumes_sessions_and_its_predecessor_says_goodbye() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let mut line = Line::start(&ca, &origin);
    let offers = [V12, V13].map(|versions| Offer::of(&ca, versions));
    let mut kept: Vec<Client> = offers
        .iter()
        .map(|offer| {
            let mut client = Client::secure(line.web, offer, "localhost");
            assert_eq!(client.request("GET", "/").text(), "a");
            assert_eq!(client.tls().handshake_kind(), Some(HandshakeKind::Full));
            client
        })
        .collect();
    line.upgrade();
    for client in &mut kept {
        client.expect_closed();
    }
    assert_eq!(line.first.wait().code(), Some(0));
    for _ in 0..3 {
        for offer in &offers {
            let mut client = Client::secure(line.web, offer, "localhost");
            assert_eq!(client.request("GET", "/").text(), "a");
            assert_eq!(client.tls().handshake_kind(), Some(HandshakeKind::Resumed));
        }
        line.upgrade();
    }
}

#[test]
fn tunnel_over_tls_lives_on_in_the_predecessor() {
    let (ca, origin) = (Ca::new(), Origin::always(origin::tunnel()));
    let mut line = Line::start(&ca, &origin);
    let mut tunnel = Client::secure(line.web, &Offer::trusting(&ca), "localhost");
    tunnel.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(tunnel.head().status(), 101);
    line.upgrade();
    for n in 0..10 {
        let text = format!("still here {n}");
        tunnel.send(&text);
        assert_eq!(tunnel.exactly(text.len()), text.as_bytes());
    }
    assert!(line.first.is_running());
    tunnel.finish();
    tunnel.expect_closed();
    assert_eq!(line.first.wait().code(), Some(0));
}

/// Clients come all the time, each with a handshake of its own, while two successors take over.
#[test]
fn no_handshake_and_no_request_is_lost() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let line = Line::start(&ca, &origin);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = [V12, V13]
        .into_iter()
        .map(|versions| {
            let (offer, web) = (Offer::of(&ca, versions), line.web);
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::secure(web, &offer, "localhost");
                    client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
                    assert_eq!(client.response().text(), "a");
                    client.expect_closed();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let some = |wanted: usize| {
        let before = answered.load(Ordering::Relaxed);
        eventually("clients are answered", || {
            answered.load(Ordering::Relaxed) >= before + wanted
                || threads.iter().any(std::thread::JoinHandle::is_finished)
        });
    };
    some(20);
    for _ in 0..2 {
        line.upgrade();
        some(20);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("no client was let down");
    }
}
