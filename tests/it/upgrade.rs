//! Replacing the binary: the same sockets, another process, no request lost.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::DEADLINE;
use crate::support::binary::{Binary, free_port, program};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::origin::{Origin, Step};

/// A program and its successors; all of them are killed at the end.
struct Line {
    first: Binary,
    web: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
}

const ASK: &str =
    "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const ANSWER: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

impl Line {
    fn start(upstream: SocketAddr) -> Self {
        let (web, admin) = (free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("isobar.toml");
        let toml = format!(
            "[process]\nworkers = 2\ngrace = '20s'\n[admin]\nbind = '127.0.0.1:{admin}'\n\
             [listeners.web]\nbind = '127.0.0.1:{web}'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['{upstream}']\n"
        );
        std::fs::write(&file, toml).unwrap();
        let first = Binary::spawn(&["run", &file.to_string_lossy()], folder);
        first.await_line("try: curl");
        Self {
            first,
            web: ([127, 0, 0, 1], web).into(),
            admin: ([127, 0, 0, 1], admin).into(),
            file,
        }
    }

    /// One whose only listener is a socket of systemd.
    fn activated(socket: OwnedFd, bind: &str, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("isobar.toml");
        let toml = format!(
            "[process]\nworkers = 2\ngrace = '20s'\n\
             [listeners.web]\nbind = '{bind}'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['{upstream}']\n"
        );
        std::fs::write(&file, toml).unwrap();
        let first = Binary::activated(socket, &["run", &file.to_string_lossy()], folder);
        first.await_line("stop with Ctrl-C");
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            first,
            web: bind.parse().unwrap_or(none),
            admin: none,
            file,
        }
    }

    /// Upgrades it if asked to, ends the newest process, and waits until all have ended.
    #[track_caller]
    fn end(mut self, is_upgraded: bool) {
        if is_upgraded {
            self.upgrade();
            assert_eq!(self.first.wait().code(), Some(0));
        }
        match self.successors().last() {
            Some(pid) => kill_process(Pid::from_raw(*pid).unwrap(), Signal::TERM).unwrap(),
            None => self.first.signal(Signal::TERM),
        }
        let ends = 1 + self.successors().len();
        eventually("the end of the last process", || {
            let output = self.first.output();
            output.lines().filter(|l| l.contains("drained")).count() == ends
        });
        assert_eq!(self.first.wait().code(), Some(0));
    }

    /// The processes that took over, in turn.
    fn successors(&self) -> Vec<i32> {
        let output = self.first.output();
        let lines = output.lines().filter(|l| l.contains("successor serves"));
        lines
            .filter_map(|line| line.split("pid=").nth(1)?.split(' ').next()?.parse().ok())
            .collect()
    }

    /// Asks the newest process to upgrade, and waits until it has a successor.
    #[track_caller]
    fn upgrade(&self) {
        let before = self.successors();
        let pid = match before.last() {
            Some(pid) => Pid::from_raw(*pid).unwrap(),
            None => Pid::from_raw(self.first.pid() as i32).unwrap(),
        };
        kill_process(pid, Signal::USR2).unwrap();
        eventually("a successor that serves", || {
            self.successors().len() > before.len()
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for pid in self.successors() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

#[test]
fn successor_takes_over_the_sockets_and_the_predecessor_ends_with_0() {
    let origin = Origin::named("a");
    let mut line = Line::start(origin.addr());
    let mut kept = Client::connect(line.web);
    assert_eq!(kept.request("GET", "/").status(), 200);
    line.upgrade();
    assert_eq!(line.first.wait().code(), Some(0));
    kept.expect_closed();
    assert_eq!(Client::get(line.web, "/").text(), "a");
    assert_eq!(Client::get(line.admin, "/readyz").status(), 200);
    // The successor of a successor: it hands on what it was handed.
    line.upgrade();
    assert_eq!(Client::get(line.web, "/").text(), "a");
    let last = *line.successors().last().unwrap();
    kill_process(Pid::from_raw(last).unwrap(), Signal::TERM).unwrap();
    eventually("the last one ends and frees the port", || {
        Client::try_connect(line.web).is_err()
    });
}

#[test]
fn tunnel_lives_on_in_the_predecessor() {
    let origin = Origin::always(vec![Step::Send(ANSWER.into()), Step::Echo]);
    let mut line = Line::start(origin.addr());
    let mut tunnel = Client::connect(line.web);
    tunnel.send(ASK);
    assert_eq!(tunnel.head().status(), 101);
    line.upgrade();
    tunnel.send("still here");
    assert_eq!(tunnel.exactly(10), b"still here");
    assert!(line.first.is_running());
    tunnel.finish();
    tunnel.expect_closed();
    assert_eq!(line.first.wait().code(), Some(0));
}

#[test]
fn successor_that_cannot_start_changes_nothing() {
    let origin = Origin::named("a");
    let mut line = Line::start(origin.addr());
    let mut kept = Client::connect(line.web);
    assert_eq!(kept.request("GET", "/").status(), 200);
    std::fs::write(&line.file, "[listeners.web]\nbind = 'nonsense'\n").unwrap();
    line.first.signal(Signal::USR2);
    line.first.await_line("this process serves on");
    assert!(line.first.output().contains("nonsense"), "it says why");
    assert_eq!(kept.request("GET", "/").status(), 200);
    assert_eq!(Client::get(line.web, "/").text(), "a");
    assert!(line.first.is_running());
    // And a reload is refused with the same words, and then possible again.
    line.first.signal(Signal::HUP);
    line.first.await_line("the configuration was not reloaded");
    assert_eq!(kept.request("GET", "/").status(), 200);
}

/// The file of a Unix socket belongs to the process that serves: a successor that fails leaves it,
/// one that takes over removes it at its end.
#[test]
fn unix_socket_stays_reachable_through_failed_and_good_upgrades() {
    let origin = Origin::named("a");
    let mut line = Line::start(origin.addr());
    let path = line.file.with_extension("sock");
    let good = std::fs::read_to_string(&line.file).unwrap();
    let unix = format!(
        "{good}[listeners.unix]\nbind = 'unix:{}'\nupstream = 'app'\n",
        path.display()
    );
    let ask = || {
        let mut stream = UnixStream::connect(&path)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        std::io::Result::Ok(())
    };
    std::fs::write(&line.file, &unix).unwrap();
    line.first.signal(Signal::HUP);
    line.first.await_line("reloaded");
    ask().unwrap();
    // It adopts the socket, and then fails: another program has the second port.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = format!(
        "{unix}[listeners.zz]\nbind = '{}'\nupstream = 'app'\n",
        taken.local_addr().unwrap()
    );
    std::fs::write(&line.file, bad).unwrap();
    line.first.signal(Signal::USR2);
    line.first.await_line("this process serves on");
    ask().unwrap();
    std::fs::write(&line.file, &unix).unwrap();
    line.upgrade();
    assert_eq!(line.first.wait().code(), Some(0));
    ask().unwrap();
    let last = *line.successors().last().unwrap();
    kill_process(Pid::from_raw(last).unwrap(), Signal::TERM).unwrap();
    eventually("the file goes with the last process", || !path.exists());
}

/// systemd keeps its copy of the socket, and whatever was done to it: after a drain no connection
/// ever came to it again. Who connects while nobody serves is served by the next start.
#[test]
fn socket_of_systemd_outlives_each_process_as_it_was() {
    let origin = Origin::named("a");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let mut waiting = Client::connect(addr);
    for is_upgraded in [false, true, true, false] {
        let copy = socket.try_clone().unwrap().into();
        let line = Line::activated(copy, &addr.to_string(), origin.addr());
        assert_eq!(waiting.request("GET", "/").text(), "a");
        assert_eq!(Client::get(line.web, "/").text(), "a");
        line.end(is_upgraded);
        waiting = Client::connect(addr);
    }
}

#[test]
fn socket_of_systemd_outlives_a_reload_that_gives_its_address_up() {
    let origin = Origin::named("a");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let start = || Line::activated(socket.try_clone().unwrap().into(), &addr, origin.addr());
    let line = start();
    assert_eq!(Client::get(line.web, "/").text(), "a");
    let toml = std::fs::read_to_string(&line.file).unwrap();
    let other = format!("127.0.0.1:{}", free_port());
    std::fs::write(&line.file, toml.replace(&addr, &other)).unwrap();
    line.first.signal(Signal::HUP);
    line.first.await_line("reloaded");
    line.end(false);
    let mut waiting = Client::connect(addr.parse().unwrap());
    let _line = start();
    assert_eq!(waiting.request("GET", "/").text(), "a");
}

#[test]
fn unix_socket_of_systemd_keeps_its_file() {
    let origin = Origin::named("a");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let mut waiting = UnixStream::connect(&path).unwrap();
    for is_upgraded in [false, true, false] {
        let copy = socket.try_clone().unwrap().into();
        let bind = format!("unix:{}", path.display());
        let line = Line::activated(copy, &bind, origin.addr());
        waiting.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        waiting.write_all(request).unwrap();
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        line.end(is_upgraded);
        waiting = UnixStream::connect(&path).unwrap();
    }
}

/// It says that it serves, and is gone, or as good as gone, when it is told that all is its own. The
/// predecessor ended all the same once, and nobody served.
#[test]
fn successor_that_does_not_hear_its_word_changes_nothing() {
    let origin = Origin::named("a");
    let folder = tempfile::tempdir().unwrap();
    let (link, file) = (
        folder.path().join("isobar"),
        folder.path().join("isobar.toml"),
    );
    let port = free_port();
    let toml = format!(
        "[listeners.web]\nbind = '127.0.0.1:{port}'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{}']\n",
        origin.addr()
    );
    std::fs::write(&file, toml).unwrap();
    symlink(program(), &link).unwrap();
    let first = Binary::spawn_at(&link, &["run", &file.to_string_lossy()], folder);
    first.await_line("try: curl");
    let web = SocketAddr::from(([127, 0, 0, 1], port));
    let mut line = Line {
        first,
        web,
        admin: web, // not asked
        file,
    };
    let mut kept = Client::connect(web);
    assert_eq!(kept.request("GET", "/").status(), 200);
    let deaf = format!(
        "#!/bin/sh\n{}=deaf exec '{}' handover::child --exact --nocapture\n",
        super::handover::ROLE,
        std::env::current_exe().unwrap().display()
    );
    std::fs::remove_file(&link).unwrap();
    std::fs::write(&link, deaf).unwrap();
    std::fs::set_permissions(&link, Permissions::from_mode(0o755)).unwrap();
    line.first.signal(Signal::USR2);
    line.first.await_line("this process serves on");
    assert_eq!(kept.request("GET", "/").status(), 200);
    assert_eq!(Client::get(web, "/").text(), "a");
    // And the next one, which hears, takes over.
    std::fs::remove_file(&link).unwrap();
    symlink(program(), &link).unwrap();
    line.upgrade();
    assert_eq!(line.first.wait().code(), Some(0));
    assert_eq!(Client::get(web, "/").text(), "a");
}

/// The promise: clients on kept and on new connections notice no upgrade. Short: 4 upgrades and at
/// least 8,000 requests; long (`tests/run --all`): 20 and at least 100,000.
#[test]
fn upgrades_under_load_lose_no_request() {
    let (upgrades, least) = crate::support::scaled((4, 8_000), (20, 100_000));
    let origin = Origin::named("a");
    let line = Line::start(origin.addr());
    let web = line.web;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let client = |is_kept: bool| {
        let (stop, served) = (stop.clone(), served.clone());
        std::thread::spawn(move || {
            let mut client = Client::connect(web);
            while !stop.load(Ordering::Relaxed) {
                let response = client.request("GET", "/");
                assert_eq!(response.status(), 200);
                served.fetch_add(1, Ordering::Relaxed);
                let is_last = response.field("connection") == Some("close");
                if is_last || !is_kept {
                    client = Client::connect(web);
                }
            }
        })
    };
    let clients: Vec<_> = [true, true, true, false, false, false]
        .map(client)
        .into_iter()
        .collect();
    for n in 1..=upgrades {
        line.upgrade();
        let due = least * n / upgrades;
        eventually("requests between two upgrades", || {
            served.load(Ordering::Relaxed) >= due || clients.iter().any(JoinHandle::is_finished)
        });
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let served = served.load(Ordering::Relaxed);
    println!("{upgrades} upgrades, {served} requests, none failed");
    assert!(served >= least);
}
