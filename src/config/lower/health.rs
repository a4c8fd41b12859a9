//! `[upstreams.NAME.health]`

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::base::addr::EndpointAddr;

use super::super::diagnostic::Diagnostic;
use super::super::model::{
    BodyPattern, Check, Endpoint, GrpcCheck, HealthSpec, HttpCheck, InitState, MysqlCheck,
    ProxyVersion,
};
use super::super::node::{Located, Node};
use super::super::reader::Table;
use super::super::units::format_duration;
use super::check_tls;
use super::headers::{self, Side};
use super::matchers;
use super::process::set;
use super::trust::Clients;
use super::upstream_tls;

/// What `check` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Grpc,
    Http,
    Mysql,
    Postgres,
    Redis,
    Smtp,
    Tcp,
}

const KINDS: [(&str, Kind); 7] = [
    ("tcp", Kind::Tcp),
    ("http", Kind::Http),
    ("grpc", Kind::Grpc),
    ("redis", Kind::Redis),
    ("postgres", Kind::Postgres),
    ("mysql", Kind::Mysql),
    ("smtp", Kind::Smtp),
];

const INIT_STATES: [(&str, InitState); 4] = [
    ("up", InitState::Up),
    ("down", InitState::Down),
    ("fully-up", InitState::FullyUp),
    ("fully-down", InitState::FullyDown),
];

/// Checks in a row: with more, an endpoint that is down for minutes is not noticed.
const MAX_COUNT: u64 = 1000;

/// Shortest interval: below it a check of the same machine would hardly end.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Half of the interval either way, as HAProxy's `spread-checks`; more, and checks come in pairs.
const MAX_JITTER: f64 = 0.5;

/// Any answer that is neither an error nor an interim one, as HAProxy's `httpchk`.
const WELL: (u16, u16) = (200, 399);

/// Reads the table; `None` = it has no usable `check`, which was reported.
///
/// Checks (http, grpc) speak TLS as the upstream does, `of_upstream`, unless the table says how, or they go
/// to another port: HAProxy's `check-ssl` has the same rule.
pub(super) fn lower(
    table: Table<'_>,
    endpoints: &[Endpoint],
    of_upstream: Option<&upstream_tls::Draft<'_>>,
    send_proxy_protocol: Option<ProxyVersion>,
    clients: &Clients,
) -> Option<Arc<HealthSpec>> {
    let kind = table.require("check").and_then(|node| node.word(&KINDS));
    let http = http(&table, kind);
    let service = of_kind(&table, kind, "service", &[Kind::Grpc]).and_then(|n| n.text());
    let mysql = mysql(&table, kind);
    let tls = of_kind(&table, kind, "tls", &[Kind::Http, Kind::Grpc]);
    let interval = interval(&table, "interval");
    let mut spec = HealthSpec::usual(match kind {
        Some(Kind::Grpc) => Check::Grpc(GrpcCheck {
            service: service.map_or_else(String::new, |text| (*text).to_owned()),
            host: http.host,
        }),
        Some(Kind::Http) | None => Check::Http(http),
        Some(Kind::Mysql) => Check::Mysql(mysql),
        Some(Kind::Postgres) => Check::Postgres,
        Some(Kind::Redis) => Check::Redis,
        Some(Kind::Smtp) => Check::Smtp,
        Some(Kind::Tcp) => Check::Tcp,
    });
    // What listens at another port is another server.
    spec.send_proxy_protocol = send_proxy_protocol.filter(|_| !table.has("port"));
    if matches!(kind, Some(Kind::Grpc | Kind::Http)) {
        spec.tls = match tls {
            Some(node) => check_tls::lower(node, &table.what, protocol(kind), clients),
            None if table.has("port") => None,
            None => of_upstream.and_then(|tls| tls.for_checks(protocol(kind))),
        };
    }
    set(&mut spec.interval, interval);
    spec.down_interval = spec.interval;
    let down_interval = self::interval(&table, "down_interval");
    set(&mut spec.down_interval, down_interval);
    times(&table, &mut spec);
    for (key, slot) in [("rise", &mut spec.rise), ("fall", &mut spec.fall)] {
        if let Some(n) = table.integer(key, 1..=MAX_COUNT) {
            *slot = *n as u32;
        }
    }
    if let Some(jitter) = table.get("jitter").and_then(|n| n.ratio()) {
        if *jitter <= MAX_JITTER {
            spec.jitter = *jitter;
        } else {
            let message = format!("`jitter` of {} must be at most 0.5", table.what);
            let d = Diagnostic::error("out-of-range", jitter.at, message);
            let help = "0.2 makes each interval up to a fifth shorter or longer";
            table.report.push(d.help(help));
        }
    }
    if let Some(port) = table.integer("port", 1..=u64::from(u16::MAX)) {
        spec.port = NonZeroU16::new(*port as u16);
        let unix = |e: &&Endpoint| matches!(e.addr, EndpointAddr::Unix(_));
        if let Some(unix) = endpoints.iter().find(unix) {
            let message = format!("`port` of {}: `{}` has no port", table.what, unix.addr);
            let d = Diagnostic::error("no-port", port.at, message);
            let help = "leave `port` out: a Unix socket is checked where it is";
            table.report.push(d.help(help));
        }
    }
    if let Some(node) = table.get("init_state") {
        spec.init_state = node.word(&INIT_STATES).unwrap_or(spec.init_state);
    }
    spec.traffic = table.flag("traffic").unwrap_or(spec.traffic);
    table.finish();
    kind.map(|_| Arc::new(spec))
}

pub(super) fn interval<'a>(table: &Table<'a>, key: &'static str) -> Option<Located<'a, Duration>> {
    let interval = table.timeout(key)?;
    if *interval < MIN_INTERVAL {
        let message = format!("`{key}` of {} must be at least 10ms", table.what);
        let d = Diagnostic::error("out-of-range", interval.at, message);
        table
            .report
            .push(d.help("every endpoint is asked this often: \"2s\" is usual"));
        return None;
    }
    Some(interval)
}

/// `timeout`, which ends before the next check begins.
fn times(table: &Table<'_>, spec: &mut HealthSpec) {
    let shortest = spec.interval.min(spec.down_interval);
    let Some(timeout) = table.timeout("timeout") else {
        spec.timeout = spec.timeout.min(shortest);
        return;
    };
    spec.timeout = *timeout;
    for (key, interval) in [
        ("interval", spec.interval),
        ("down_interval", spec.down_interval),
    ] {
        if spec.timeout > interval {
            let message = format!(
                "`timeout` of {} is {}, longer than its `{key}` of {}",
                table.what,
                format_duration(spec.timeout),
                format_duration(interval)
            );
            let d = Diagnostic::error("timeout-order", timeout.at, message);
            let help = format!(
                "a check ends before the next begins: lower `timeout` to \"{}\", or raise `{key}`",
                format_duration(interval)
            );
            table.report.push(d.help(help));
            // With the default of the other it is one mistake.
            return;
        }
    }
}

/// A key that only checks of these kinds have.
fn of_kind<'a>(
    table: &Table<'a>,
    kind: Option<Kind>,
    key: &'static str,
    kinds: &[Kind],
) -> Option<Node<'a>> {
    let node = table.get(key)?;
    if kind.is_some_and(|kind| !kinds.contains(&kind)) {
        let words: Vec<&str> = KINDS
            .iter()
            .filter(|(_, kind)| kinds.contains(kind))
            .map(|(word, _)| *word)
            .collect();
        let message = format!(
            "`{key}` of {} works with {} checks only",
            table.what,
            words.join(" and ")
        );
        let d = node.error("wrong-check", message);
        let help = format!("remove `{key}`, or write check = \"{}\"", words[0]);
        table.report.push(d.help(help));
    }
    Some(node)
}

/// What is offered in TLS.
fn protocol(kind: Option<Kind>) -> &'static [u8] {
    match kind {
        Some(Kind::Grpc) => b"h2",
        Some(_) | None => b"http/1.1",
    }
}

fn mysql(table: &Table<'_>, kind: Option<Kind>) -> MysqlCheck {
    let mut check = MysqlCheck::default();
    let Some(node) = of_kind(table, kind, "user", &[Kind::Mysql]) else {
        return check;
    };
    if let Some(user) = node.text() {
        // Names of accounts have 32 characters in MySQL, 80 in MariaDB.
        if user.is_empty() || user.len() > 80 || user.contains('\0') {
            let message = format!("`{}` is no user of MySQL", user.escape_debug());
            let d = Diagnostic::error("bad-user", user.at, message);
            table
                .report
                .push(d.help("write the name of an account, such as \"isobar\""));
        } else {
            check.user = Some((*user).to_owned());
        }
    }
    check
}

/// The keys of HTTP checks.
fn http(table: &Table<'_>, kind: Option<Kind>) -> HttpCheck {
    let mut check = HttpCheck {
        path: "/".to_owned(),
        method: Method::GET,
        host: None,
        headers: Vec::new(),
        status: vec![WELL],
        body: None,
    };
    let of_http = |key| of_kind(table, kind, key, &[Kind::Http]);
    if let Some(path) = of_http("path").and_then(|n| n.text()) {
        if path.starts_with('/')
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
            && path.parse::<http::uri::PathAndQuery>().is_ok()
        {
            (*path).clone_into(&mut check.path);
        } else {
            let message = format!("`{}` is not the path of a request", path.escape_debug());
            let d = Diagnostic::error("bad-path", path.at, message);
            table
                .report
                .push(d.help("write it as it is sent: \"/healthz\" or \"/check?deep=1\""));
        }
    }
    if let Some(text) = of_http("method").and_then(|n| n.text())
        && let Some(method) = matchers::method(text, table.report)
    {
        if method == Method::CONNECT {
            let d = Diagnostic::error("bad-method", text.at, "a check cannot CONNECT");
            table
                .report
                .push(d.help("\"GET\", \"HEAD\" and \"OPTIONS\" are usual"));
        } else {
            check.method = method;
        }
    }
    check.host = of_kind(table, kind, "host", &[Kind::Http, Kind::Grpc])
        .and_then(|n| n.text())
        .and_then(|text| headers::value(text, table.report));
    if let Some(node) = of_http("headers") {
        check.headers = fields(node);
    }
    if let Some(node) = of_http("expect")
        && let Some(expect) = node.table(format!("`expect` of {}", table.what), EXPECT)
    {
        self::expect(expect, &mut check);
    }
    check
}

const EXPECT: &str = "upstreams.*.health.expect";

fn fields(node: Node<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(table) = node.table("`headers`".to_owned(), "upstreams.*.health.headers") else {
        return Vec::new();
    };
    let mut found: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, node) in table.entries() {
        let value = node
            .text()
            .and_then(|text| headers::value(text, node.report));
        let Some(name) = headers::name(key, Side::Response, node.report) else {
            continue;
        };
        if name == http::header::HOST {
            let d = Diagnostic::error("reserved-header", key.at, "`host` has a key of its own");
            node.report
                .push(d.help("write host = \"app.internal\" beside `headers`"));
            continue;
        }
        if found.iter().any(|(before, _)| *before == name) {
            let message = format!("`{name}` is given twice: case does not matter in header names");
            let d = Diagnostic::error("duplicate-header", key.at, message);
            node.report.push(d);
        }
        found.extend(value.map(|value| (name, value)));
    }
    found
}

fn expect(table: Table<'_>, check: &mut HttpCheck) {
    if let Some(node) = table.get("status") {
        let ranges: Vec<_> = node
            .one_or_more()
            .into_iter()
            .filter_map(|text| {
                let range = range(*text);
                if range.is_none() {
                    let message = format!(
                        "`{}` is no status and no range of them",
                        text.escape_debug()
                    );
                    let d = Diagnostic::error("bad-status", text.at, message);
                    let help = "write \"200\", \"200-299\" or a list; from 200 to 599";
                    table.report.push(d.help(help));
                }
                range
            })
            .collect();
        if node.list_is_empty() {
            let d = node.error("empty-list", "`status` is an empty list");
            table
                .report
                .push(d.help("leave it out for \"200-399\": no status would ever be well"));
        } else if !ranges.is_empty() {
            check.status = ranges;
        }
    }
    if let Some(text) = table.text("body") {
        check.body = match text.strip_prefix('~') {
            Some(pattern) => matchers::regex(pattern, text, table.report).map(BodyPattern::Regex),
            None if text.is_empty() => {
                let d = Diagnostic::error("bad-body", text.at, "`body` is empty");
                table
                    .report
                    .push(d.help("every body holds nothing: leave it out, or say what it holds"));
                None
            }
            None => Some(BodyPattern::Contains((*text).to_owned())),
        };
        if check.method == Method::HEAD {
            let message = "a response to HEAD has no body: this check would always fail";
            let d = Diagnostic::error("body-not-allowed", text.at, message);
            table.report.push(d.help("write method = \"GET\""));
        }
    }
    table.finish();
}

/// `200`, `200-299`
fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let text = text.trim();
        let is_number = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        let status = is_number.then(|| text.parse::<u16>().ok())??;
        (200..600).contains(&status).then_some(status)
    };
    let (low, high) = (status(low)?, status(high)?);
    (low <= high).then_some((low, high))
}
