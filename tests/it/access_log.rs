//! The access log from end to end: one line an exchange, and the words on it.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::support::client::Client;
use super::support::gate::Gate;
use super::support::origin::{self, Origin, Step};
use super::support::proxy::Proxy;
use super::support::unreachable::Refusing;
use super::support::{deadline, remaining};

/// A proxy with a log, and the folder of its log.
struct Logged {
    proxy: Option<Proxy>,
    folder: tempfile::TempDir,
}

impl Logged {
    /// `access` is the inside of the log's table, without `to`.
    fn over(endpoints: &[SocketAddr], access: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("access.log");
        let toml = Proxy::config_over(endpoints, "")
            + &format!("[log]\naccess = {{ {access}, to = '{}' }}\n", to.display());
        Self {
            proxy: Some(Proxy::start(&toml)),
            folder,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.proxy.as_ref().unwrap().addr()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// All lines there are, after the proxy has ended.
    fn text(&mut self) -> String {
        if let Some(proxy) = self.proxy.take() {
            proxy.shutdown();
        }
        std::fs::read_to_string(self.file()).unwrap()
    }

    fn lines(&mut self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The only line.
    #[track_caller]
    fn line(&mut self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

/// Outcome, phase, reason and who of a line; an absent word is "".
fn words(line: &Value) -> [&str; 4] {
    ["outcome", "phase", "reason", "who"].map(|key| line[key].as_str().unwrap_or(""))
}

#[test]
fn a_line_tells_the_whole_exchange() {
    let origin = Origin::always(origin::reply(200, "hello"));
    let mut log = Logged::over(&[origin.addr()], "format = 'json'");
    let mut client = Client::connect(log.addr());
    let peer = client.local_addr().to_string();
    client.send(
        "POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: ua \"1\"\r\n\
         Referer: http://r/\r\nContent-Length: 3\r\n\r\nabc",
    );
    let response = client.response();
    assert_eq!(response.status(), 200);
    let line = log.line();
    assert_eq!(words(&line), ["ok", "done", "", ""]);
    for (key, want) in [
        ("status", Value::from(200)),
        ("client", "127.0.0.1".into()),
        ("peer", peer.into()),
        ("listener", "web".into()),
        ("method", "POST".into()),
        ("host", "shop.example".into()),
        ("target", "/a?b=c".into()),
        ("protocol", "HTTP/1.1".into()),
        ("route", "web".into()),
        ("upstream", "app".into()),
        ("endpoint", origin.addr().to_string().into()),
        ("attempts", 1.into()),
        ("bytes_in", 3.into()),
        ("bytes_out", 5.into()),
        ("user_agent", "ua \"1\"".into()),
        ("referer", "http://r/".into()),
    ] {
        assert_eq!(line[key], want, "{key} in {line}");
    }
    // In the order in which they happened, all there.
    let moments = [
        "head_ms",
        "picked_ms",
        "connected_ms",
        "first_byte_ms",
        "total_ms",
    ]
    .map(|key| {
        line[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key} in {line}"))
    });
    assert!(moments.is_sorted(), "{moments:?}");
    // The same id as the endpoint got.
    let seen = origin.await_done(0);
    assert_eq!(line["request_id"].as_str(), seen.head.field("x-request-id"));
    assert_eq!(line["request_id"].as_str().unwrap().len(), 32);
}

#[test]
fn pipelined_requests_have_a_line_each_with_their_own_words() {
    let origin = Origin::start(|r| origin::reply(200, r.head.target()));
    let mut log = Logged::over(&[origin.addr()], "format = 'json'");
    let mut client = Client::connect(log.addr());
    let request = |n| format!("GET /{n} HTTP/1.1\r\nHost: h{n}\r\n\r\n");
    client.send((0..5).map(request).collect::<String>());
    for n in 0..5 {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
    let lines = log.lines();
    let seen: Vec<_> = lines
        .iter()
        .map(|l| (l["target"].clone(), l["host"].clone()))
        .collect();
    let want: Vec<_> = (0..5)
        .map(|n| (Value::from(format!("/{n}")), Value::from(format!("h{n}"))))
        .collect();
    assert_eq!(seen, want);
}

#[test]
fn refused_head_has_a_line_without_a_route() {
    let origin = Origin::named("a");
    let mut log = Logged::over(&[origin.addr()], "format = 'json'");
    let mut client = Client::connect(log.addr());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    drop(client);
    let line = log.line();
    assert_eq!(
        words(&line),
        ["refused", "request_head", "bad_host", "client"]
    );
    assert_eq!(
        (&line["status"], &line["route"]),
        (&400.into(), &Value::Null)
    );
    assert_eq!(
        (&line["attempts"], &line["endpoint"]),
        (&0.into(), &Value::Null)
    );
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn client_that_goes_away_is_a_499() {
    let gate = Gate::new();
    let mut steps = origin::reply(200, "late");
    steps.insert(1, Step::Pass(gate.clone()));
    let origin = Origin::always(steps);
    let mut log = Logged::over(&[origin.addr()], "format = 'json'");
    let mut client = Client::connect(log.addr());
    client.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    gate.await_reached(1);
    client.reset();
    let end = deadline();
    while std::fs::metadata(log.file()).unwrap().len() == 0 {
        remaining(end, "the line of the client that left");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    gate.open();
    let line = log.line();
    assert_eq!(words(&line), ["cancelled", "wait", "client_gone", "client"]);
    assert_eq!(
        (&line["status"], &line["target"]),
        (&499.into(), &"/x".into())
    );
}

#[test]
fn endpoint_that_refuses_is_named_with_every_attempt() {
    let nobody = Refusing::new();
    let mut log = Logged::over(&[nobody.addr], "format = 'json'");
    assert_eq!(Client::get(log.addr(), "/").status(), 502);
    let line = log.line();
    assert_eq!(
        words(&line),
        ["failed", "connect", "connect_refused", "endpoint"]
    );
    assert_eq!(line["endpoint"], nobody.addr.to_string());
    assert!(line["attempts"].as_u64() >= Some(1), "{line}");
    assert_eq!(line["first_byte_ms"], Value::Null);
}

#[test]
fn response_cut_by_the_endpoint_counts_what_the_client_got() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec();
    let origin = Origin::always(vec![Step::Send(head), Step::Close]);
    let mut log = Logged::over(&[origin.addr()], "format = 'json'");
    let mut client = Client::connect(log.addr());
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.until_closed();
    let line = log.line();
    assert_eq!(
        words(&line),
        ["failed", "response", "response_incomplete", "endpoint"]
    );
    assert_eq!(
        (&line["status"], &line["bytes_out"]),
        (&200.into(), &3.into())
    );
}

#[test]
fn tunnel_has_one_line_at_its_end() {
    let origin = Origin::always(origin::tunnel());
    let mut log = Logged::over(&[origin.addr()], "format = 'json'");
    let mut client = Client::connect(log.addr());
    client.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello");
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.exactly(5), b"hello");
    client.finish();
    client.expect_closed();
    let line = log.line();
    assert_eq!(words(&line), ["ok", "done", "", ""]);
    for (key, want) in [("bytes_in", 5), ("bytes_out", 5), ("status", 101)] {
        assert_eq!(line[key], want, "{key} in {line}");
    }
    assert_eq!(
        (&line["tunnel"], &line["target"]),
        (&true.into(), &"/ws".into())
    );
}

#[test]
fn common_combined_and_text_have_their_shapes() {
    let origin = Origin::named("hello");
    let request = "GET /a HTTP/1.1\r\nHost: h\r\nUser-Agent: ua\r\nReferer: r\r\n\r\n";
    for (format, tail) in [
        ("common", "] \"GET /a HTTP/1.1\" 200 5\n"),
        ("combined", "] \"GET /a HTTP/1.1\" 200 5 \"r\" \"ua\"\n"),
    ] {
        let mut log = Logged::over(&[origin.addr()], &format!("format = '{format}'"));
        let mut client = Client::connect(log.addr());
        client.send(request);
        client.response();
        let text = log.text();
        assert!(
            text.starts_with("127.0.0.1 - - [") && text.ends_with(tail),
            "{format}: {text}"
        );
    }
    let mut log = Logged::over(&[origin.addr()], "format = 'text'");
    Client::get(log.addr(), "/a");
    let text = log.text();
    for word in [
        " 127.0.0.1 \"GET /a HTTP/1.1\" 200 ",
        " outcome=ok phase=done",
        " route=web",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn sample_of_none_logs_nothing_and_of_half_logs_half() {
    let origin = Origin::named("a");
    for (sample, range) in [("0.0", 0..=0), ("0.5", 60..=140)] {
        let access = format!("format = 'json', sample = {sample}");
        let mut log = Logged::over(&[origin.addr()], &access);
        let mut client = Client::connect(log.addr());
        for _ in 0..200 {
            client.request("GET", "/");
        }
        // 200 draws at one half: 100, give or take 7; beyond 40 is nothing that ever happens (5.6
        // standard deviations).
        let lines = log.lines().len();
        assert!(range.contains(&lines), "{sample}: {lines}");
    }
}

/// A FIFO that nobody reads takes 64 KiB; then the writer stands, and traffic does not.
#[test]
fn stuck_log_blocks_no_traffic_and_counts_its_drops() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let origin = Origin::named("a");
    let toml = Proxy::config_over(&[origin.addr()], "")
        + &format!(
            "[log]\naccess = {{ format = 'json', to = '{}' }}\n",
            fifo.display()
        );
    let proxy = Proxy::start(&toml);
    let dropped = "isobar_access_log_lines_total{result=\"dropped\"}";
    let mut client = Client::connect(proxy.addr());
    // Lines of 3 KiB: the pipe and the worker's 512 KiB are full after some 200.
    let request = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(3000));
    for _ in 0..400 {
        client.send(&request);
        assert_eq!(client.response().status(), 200);
    }
    assert!(proxy.metric(dropped) > 0.0);
    // Somebody reads again: the writer goes on, and the proxy ends without waiting in vain.
    let reader = std::fs::File::open(&fifo).unwrap();
    let reading = std::thread::spawn(move || {
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
        lines.next().unwrap().unwrap()
    });
    assert!(reading.join().unwrap().contains("\"outcome\":\"ok\""));
    drop(proxy);
}
