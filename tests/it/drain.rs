//! How the program ends: what a signal stops, what it finishes, what it cuts, and how it says so.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use super::support::binary::{Binary, free_port};
use super::support::client::Client;
use super::support::gate::Gate;
use super::support::origin::{self, Origin, Step};
use super::support::{deadline, remaining};

/// The program over one origin, with an access log.
struct Running {
    isobar: Binary,
    web: SocketAddr,
    admin: SocketAddr,
}

fn start(origin: &Origin, process: &str) -> Running {
    let (web, admin) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "[process]\n{process}\n[admin]\nbind = '127.0.0.1:{admin}'\n\
         [log]\naccess = {{ format = 'json', to = '{log}' }}\n\
         [listeners.web]\nbind = '127.0.0.1:{web}'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{origin}']\n",
        log = folder.path().join("access.log").display(),
        origin = origin.addr(),
    );
    let file = folder.path().join("isobar.toml");
    std::fs::write(&file, toml).unwrap();
    let isobar = Binary::spawn(&["run", &file.to_string_lossy()], folder);
    isobar.await_line("try: curl");
    Running {
        isobar,
        web: ([127, 0, 0, 1], web).into(),
        admin: ([127, 0, 0, 1], admin).into(),
    }
}

impl Running {
    fn ready(&self) -> u16 {
        Client::get(self.admin, "/readyz").status()
    }

    fn metric(&self, series: &str) -> f64 {
        let text = Client::get(self.admin, "/metrics").text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    #[track_caller]
    fn await_draining(&self) {
        let end = deadline();
        while self.ready() != 503 {
            remaining(end, "readiness to go");
        }
    }

    #[track_caller]
    fn await_metric(&self, series: &str, value: f64) {
        let end = deadline();
        while self.metric(series) != value {
            remaining(end, &format!("{series} {value}"));
        }
    }

    #[track_caller]
    fn await_exit(&mut self) -> Option<i32> {
        self.isobar.wait().code()
    }

    fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.isobar.folder.path().join("access.log")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

/// An origin whose answer waits for the gate.
fn gated(gate: &Gate) -> Origin {
    let mut steps = origin::reply(200, "late");
    steps.insert(1, Step::Pass(gate.clone()));
    Origin::always(steps)
}

#[test]
fn each_stop_signal_finishes_what_is_in_flight_and_exits_0() {
    for signal in [Signal::TERM, Signal::QUIT, Signal::INT] {
        let gate = Gate::new();
        let origin = gated(&gate);
        let mut running = start(&origin, "workers = 2");
        assert_eq!(running.ready(), 200);
        let mut idle = Client::connect(running.web);
        let mut client = Client::connect(running.web);
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        gate.await_reached(1);
        running.isobar.signal(signal);
        running.await_draining();
        assert_eq!(Client::get(running.admin, "/readyz").text(), "draining\n");
        assert_eq!(Client::get(running.admin, "/livez").status(), 200);
        // A connection without a request is closed; the request in flight keeps us here.
        idle.expect_closed();
        assert!(running.isobar.is_running());
        gate.open();
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (200, "late"));
        assert_eq!(response.field("connection"), Some("close"));
        client.expect_closed();
        assert_eq!(running.await_exit(), Some(0), "{signal:?}");
        let log = running.log();
        assert_eq!(log.len(), 1);
        assert_eq!(log[0]["outcome"], "ok");
    }
}

#[test]
fn new_connections_are_refused_while_draining() {
    let gate = Gate::new();
    let origin = gated(&gate);
    let mut running = start(&origin, "");
    let mut client = Client::connect(running.web);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    gate.await_reached(1);
    running.isobar.signal(Signal::TERM);
    running.await_draining();
    let end = deadline();
    loop {
        match Client::try_connect(running.web) {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => break,
            // A handshake that was under way: it is served, and told that it was the last.
            Ok(mut late) => {
                late.send("GET /late HTTP/1.1\r\nHost: t\r\n\r\n");
                remaining(end, "a refusal");
            }
            Err(e) => panic!("neither refused nor served: {e}"),
        }
    }
    gate.open();
    assert_eq!(client.response().status(), 200);
    assert_eq!(running.await_exit(), Some(0));
}

#[test]
fn idle_keep_alive_connection_is_closed_and_delays_nothing() {
    let origin = Origin::named("a");
    let mut running = start(&origin, "grace = '60s'");
    let mut client = Client::connect(running.web);
    assert_eq!(client.request("GET", "/").field("connection"), None);
    running.isobar.signal(Signal::TERM);
    client.expect_closed();
    assert_eq!(running.await_exit(), Some(0));
}

#[test]
fn upload_and_tunnel_go_on_until_their_own_end() {
    let origin = Origin::start(|request| match request.head.method() {
        "POST" => origin::reply(200, "stored"),
        _ => origin::tunnel(),
    });
    let mut running = start(&origin, "grace = '60s'");
    let mut upload = Client::connect(running.web);
    upload.send("POST /up HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
    let mut tunnel = Client::connect(running.web);
    tunnel.send("GET /ws HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nab");
    assert_eq!(tunnel.head().status(), 101);
    assert_eq!(tunnel.exactly(2), b"ab");
    origin.await_requests(2);
    running.isobar.signal(Signal::TERM);
    running.await_draining();
    tunnel.send("more");
    assert_eq!(tunnel.exactly(4), b"more");
    upload.send("world");
    let response = upload.response();
    assert_eq!(
        (response.status(), response.text().as_str()),
        (200, "stored")
    );
    assert_eq!(response.field("connection"), Some("close"));
    assert!(running.isobar.is_running());
    tunnel.send("last");
    assert_eq!(tunnel.exactly(4), b"last");
    tunnel.finish();
    tunnel.expect_closed();
    assert_eq!(running.await_exit(), Some(0));
    let log = running.log();
    assert_eq!(log.len(), 2);
    assert!(log.iter().all(|line| line["outcome"] == "ok"), "{log:?}");
}

/// An upload without an end, a response without an end, a tunnel, an answer awaited, a head half
/// sent: all are cut, each has its line, and the exit code says that not all was well.
#[track_caller]
fn everything_is_cut(process: &str, cut: impl FnOnce(&Running)) {
    let origin = Origin::start(|request| match request.head.target() {
        "/down" => vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec()),
            Step::AwaitClose,
        ],
        "/tunnel" => origin::tunnel(),
        _ => vec![Step::AwaitClose],
    });
    let mut running = start(&origin, process);
    let mut clients: Vec<Client> = [
        "POST /up HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello",
        "GET /down HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /tunnel HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        "GET /wait HTTP/1.1\r\nHost: t\r\n\r\n",
    ]
    .iter()
    .map(|request| {
        let mut client = Client::connect(running.web);
        client.send(request);
        client
    })
    .collect();
    assert_eq!(clients[1].head().status(), 200);
    assert_eq!(clients[2].head().status(), 101);
    origin.await_requests(4);
    running.await_metric("isobar_http_requests_in_flight{route=\"web\"}", 4.0);
    running.isobar.signal(Signal::TERM);
    running.await_draining();
    cut(&running);
    for client in &mut clients {
        client.until_closed();
    }
    assert_eq!(running.await_exit(), Some(1));
    running.isobar.await_line("cut");
    let log = running.log();
    let mut seen: Vec<_> = log
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (text("target"), text("outcome"), text("reason"), text("who"))
        })
        .collect();
    seen.sort();
    let want = ["/down", "/tunnel", "/up", "/wait"].map(|target| {
        let [outcome, reason, who] = ["failed", "draining", "proxy"].map(str::to_owned);
        (target.to_owned(), outcome, reason, who)
    });
    assert_eq!(seen, want);
}

#[test]
fn end_of_grace_cuts_and_exits_1() {
    everything_is_cut("grace = '400ms'", |_| {});
}

#[test]
fn second_signal_cuts_and_exits_1() {
    everything_is_cut("grace = '60s'", |running| {
        running.isobar.signal(Signal::TERM);
    });
}

#[test]
fn connections_in_the_accept_queue_are_answered() {
    let origin = Origin::named("a");
    let mut running = start(&origin, "workers = 2");
    // Stopped, the program accepts nothing: the kernel completes the handshakes and queues them,
    // and takes the requests' bytes.
    running.isobar.signal(Signal::STOP);
    let mut clients: Vec<Client> = (0..500).map(|_| Client::connect(running.web)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    running.isobar.signal(Signal::TERM);
    running.isobar.signal(Signal::CONT);
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.response();
        assert_eq!(response.status(), 200, "connection {n}");
        // Even one answered before the drain began is closed after it.
        client.expect_closed();
    }
    assert_eq!(running.await_exit(), Some(0));
    assert_eq!(running.log().len(), 500);
}

/// The promise: while clients send, request after request, on kept and on new connections, a drain
/// loses none. A connection that was made is served; a request that was sent on it is answered; the
/// last answer on each says `Connection: close`, and only then the connection ends.
#[test]
fn drain_under_load_loses_no_request() {
    let origin = Origin::named("a");
    let mut running = start(&origin, "workers = 2");
    let web = running.web;
    let warm = Gate::new();
    let kept: Vec<_> = (0..4)
        .map(|_| {
            let warm = warm.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(web);
                warm.open();
                for n in 0.. {
                    let response = client.request("GET", "/kept");
                    assert_eq!(response.status(), 200);
                    if response.field("connection") == Some("close") {
                        client.expect_closed();
                        return n + 1;
                    }
                }
                unreachable!()
            })
        })
        .collect();
    let fresh: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for n in 0.. {
                    match Client::try_connect(web) {
                        Ok(mut client) => {
                            assert_eq!(client.request("GET", "/new").status(), 200, "{n}");
                        }
                        Err(e) => {
                            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionRefused, "{e}");
                            return n;
                        }
                    }
                }
                unreachable!()
            })
        })
        .collect();
    warm.pass();
    origin.await_requests(200);
    running.isobar.signal(Signal::TERM);
    let kept: usize = kept.into_iter().map(|t| t.join().unwrap()).sum();
    let fresh: usize = fresh.into_iter().map(|t| t.join().unwrap()).sum();
    assert_eq!(running.await_exit(), Some(0));
    assert_eq!(running.log().len(), kept + fresh);
    assert_eq!(origin.requests().len(), kept + fresh);
}

#[test]
fn reopening_the_log_after_a_rename_loses_no_line() {
    let origin = Origin::named("a");
    let mut running = start(&origin, "workers = 1");
    let log = running.isobar.folder.path().join("access.log");
    let old = running.isobar.folder.path().join("access.log.1");
    let mut client = Client::connect(running.web);
    for n in 0..50 {
        client.request("GET", &format!("/{n}"));
    }
    std::fs::rename(&log, &old).unwrap();
    running.isobar.signal(Signal::USR1);
    let end = deadline();
    while !log.exists() {
        remaining(end, "the new log file");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    for n in 50..100 {
        client.request("GET", &format!("/{n}"));
    }
    running.isobar.signal(Signal::TERM);
    assert_eq!(running.await_exit(), Some(0));
    let both = std::fs::read_to_string(&old).unwrap() + &std::fs::read_to_string(&log).unwrap();
    let targets: Vec<String> = both
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["target"].to_string())
        .collect();
    let want: Vec<String> = (0..100).map(|n| format!("\"/{n}\"")).collect();
    assert_eq!(targets, want);
    assert!(std::fs::metadata(&log).unwrap().len() > 0);
}

/// Seen red: the signal was taken for no second stop and forgotten.
#[test]
fn log_is_reopened_while_draining_too() {
    let gate = Gate::new();
    let origin = gated(&gate);
    let mut running = start(&origin, "workers = 1");
    let log = running.isobar.folder.path().join("access.log");
    let mut client = Client::connect(running.web);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    gate.await_reached(1);
    running.isobar.signal(Signal::TERM);
    running.await_draining();
    std::fs::rename(&log, running.isobar.folder.path().join("access.log.1")).unwrap();
    running.isobar.signal(Signal::USR1);
    let end = deadline();
    while !log.exists() {
        remaining(end, "the new log file");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    gate.open();
    assert_eq!(client.response().text(), "late");
    assert_eq!(running.await_exit(), Some(0));
    assert_eq!(running.log().len(), 1);
}
