//! A proxy whose metrics and access log are looked at: for what is refused, and how it is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use isobar::telemetry::reason::Reason;
use serde_json::Value;

use super::client::{Client, Response};
use super::proxy::Proxy;
use super::{deadline, remaining};

/// A proxy with a JSON access log in a folder of its own.
#[derive(Debug)]
pub struct Watched {
    pub proxy: Proxy,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

// === impl Watched ===

impl Watched {
    /// One listener `web` with these keys, one worker; `more` is further TOML.
    #[track_caller]
    pub fn start(listener: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let proxy = Proxy::start(&format!(
            "[process]\nworkers = 1\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n\
             [log]\naccess = {{ format = \"json\", to = \"{}\" }}\n\n\
             [listeners.web]\nbind = \"127.0.0.1:0\"\n{listener}\n\n{more}\n",
            log.display()
        ));
        Self {
            proxy,
            log,
            _folder: folder,
        }
    }

    /// The same over one endpoint; `upstream` are keys of the upstream and what follows it.
    #[track_caller]
    pub fn over(endpoint: SocketAddr, listener: &str, upstream: &str) -> Self {
        Self::start(
            &format!("upstream = \"app\"\n{listener}"),
            &format!("[upstreams.app]\nendpoints = [\"{endpoint}\"]\n{upstream}"),
        )
    }

    pub fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.addr())
    }

    /// The lines of the access log once `n` are there, and no more than those.
    #[track_caller]
    pub fn log(&self, n: usize) -> Vec<Value> {
        let lines = self.await_log(&format!("{n} lines"), |lines| lines.len() >= n);
        assert_eq!(lines.len(), n, "{lines:#?}");
        lines
    }

    /// The lines of the access log once `done` with them.
    #[track_caller]
    pub fn await_log(&self, what: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = deadline();
        loop {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            // A line may be half written.
            let lines: Vec<Value> = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            if done(&lines) {
                return lines;
            }
            let _ = remaining(end, &format!("{what} in the access log; so far:\n{text}"));
            std::thread::yield_now();
        }
    }

    /// Waits until the series has this value.
    #[track_caller]
    pub fn await_metric(&self, series: &str, value: f64) {
        let end = deadline();
        loop {
            let is = self.proxy.metric(series);
            if is == value {
                return;
            }
            let _ = remaining(end, &format!("{series} to be {value}; it is {is}"));
        }
    }

    /// The refusal is counted once, under the route it had or else the listener, and logged once.
    /// Returns its line.
    #[track_caller]
    pub fn expect_recorded(&self, reason: Reason, route: Option<&str>) -> Value {
        let series = match route {
            Some(route) => {
                format!("isobar_http_refusals_total{{route=\"{route}\",reason=\"{reason}\"}}")
            }
            None => {
                format!("isobar_listener_refusals_total{{listener=\"web\",reason=\"{reason}\"}}")
            }
        };
        self.await_metric(&series, 1.0);
        let is_it = |line: &Value| line["reason"] == reason.as_str();
        let lines = self.await_log(reason.as_str(), |lines| lines.iter().any(is_it));
        let lines: Vec<_> = lines.into_iter().filter(is_it).collect();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_eq!(lines[0]["who"], reason.who().as_str());
        assert_eq!(lines[0]["listener"], "web");
        lines[0].clone()
    }

    /// The refusal that `client` gets, as it is told everywhere: status, body, `Proxy-Status`,
    /// metric, log line.
    #[track_caller]
    pub fn expect_refusal(&self, client: &mut Client, reason: Reason, route: Option<&str>) {
        let response = client.response();
        expect_answer(&response, reason);
        let line = self.expect_recorded(reason, route);
        assert_eq!(line["status"], reason.status());
        assert_eq!(
            line["request_id"].as_str(),
            response.field("x-request-id"),
            "the id that the client was told is in the log"
        );
    }
}

/// An answer of the proxy's own with this reason (RFC 9209).
#[track_caller]
pub fn expect_answer(response: &Response, reason: Reason) {
    assert_eq!(response.status(), reason.status(), "{}", response.text());
    let body = response.text();
    let begins = format!("{} {reason}", reason.status());
    assert!(body.starts_with(&begins), "{body:?}, not {begins:?}");
    let told = format!(
        "isobar; error={}; details=\"{reason}\"",
        reason.proxy_error()
    );
    assert_eq!(response.field("proxy-status"), Some(told.as_str()));
}
