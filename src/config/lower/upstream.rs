//! `[upstreams.NAME]`

use std::num::NonZeroU32;

use crate::balance::{Policy, PolicyKind};
use crate::base::addr::EndpointAddr;

use super::super::diagnostic::Diagnostic;
use super::super::model::{HashKey, OnDown, Outlier, Protocol, Queue, Upstream, WhenUnhealthy};
use super::super::node::{Located, Node, quote_all};
use super::super::reader::{Aliases, Table};
use super::super::source::At;
use super::super::suggest::closest;
use super::endpoints::Members;
use super::process::{Defaults, keepalive, set};
use super::trust::Clients;
use super::{
    Reference, agent, breaker, capacity, endpoints, headers, health, outlier, proxy_protocol,
    sticky, upstream_tls,
};

/// An upstream with its places.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) upstream: Upstream,
    pub(super) name: Reference<'a>,
    /// The first endpoint with a zone.
    pub(super) zoned: Option<At<'a>>,
    pub(super) places: Places<'a>,
}

/// Where there is what depends on who leads to an upstream.
#[derive(Debug)]
pub(super) struct Places<'a> {
    /// The first endpoint that is a Unix socket.
    pub(super) unix: Option<At<'a>>,
    /// TLS to endpoints.
    pub(super) tls: Option<At<'a>>,
    pub(super) send_proxy_protocol: Option<At<'a>>,
    /// `keepalive`, where the file asks for idle connections that `send_proxy_protocol` forbids.
    pub(super) idle_connections: Option<At<'a>>,
    /// What only requests can have, with what the file calls it.
    pub(super) of_requests: Vec<(&'static str, At<'a>)>,
}

/// Most attempts a second that a budget may grant whatever the traffic.
const MAX_RETRY_FLOOR: u64 = 10_000;

const POLICIES: [(&str, PolicyKind); 9] = [
    ("round_robin", PolicyKind::RoundRobin),
    ("weighted", PolicyKind::Weighted),
    ("random", PolicyKind::Random),
    ("least_request", PolicyKind::LeastRequest),
    ("peak_ewma", PolicyKind::PeakEwma),
    ("ring_hash", PolicyKind::RingHash),
    ("maglev", PolicyKind::Maglev),
    ("rendezvous", PolicyKind::Rendezvous),
    ("first", PolicyKind::First),
];

const WHEN_UNHEALTHY: [(&str, WhenUnhealthy); 2] = [
    ("fail_closed", WhenUnhealthy::FailClosed),
    ("fail_open", WhenUnhealthy::FailOpen),
];

/// What other programs call them.
const ALIASES: [(&str, &str); 16] = [
    ("rr", "`round_robin`"),
    ("roundrobin", "`round_robin`"),
    ("wrr", "`weighted`"),
    ("static-rr", "`weighted`"),
    ("weighted_round_robin", "`weighted`"),
    ("least_conn", "`least_request`"),
    ("leastconn", "`least_request`"),
    ("least_connections", "`least_request`"),
    ("p2c", "`least_request`"),
    ("ewma", "`peak_ewma`"),
    ("least_time", "`peak_ewma`"),
    ("consistent_hash", "{ policy = \"ring_hash\", key = \"…\" }"),
    ("hash", "{ policy = \"maglev\", key = \"…\" }"),
    ("ip_hash", "{ policy = \"maglev\", key = \"client\" }"),
    ("source", "{ policy = \"maglev\", key = \"client\" }"),
    ("failover", "`first`"),
];

/// What other programs call keys.
const KEYS: Aliases = &[
    ("circuit_breaker", "`breaker`"),
    ("circuit_breakers", "`breaker`"),
    ("fail_timeout", "`eject_for`, in `outlier`"),
    ("lb_policy", "`balance`"),
    ("max_conns", "`max_connections`"),
    ("max_fails", "`consecutive_failures`, in `outlier`"),
    ("max_pending_requests", "`length`, in `queue`"),
    ("max_concurrent_streams", "`max_streams`"),
    ("maxconn", "`max_connections`"),
    ("maxqueue", "`length`, in `queue`"),
    ("min_retries_per_second", "`retry_floor`"),
    ("nodes", "`endpoints`"),
    ("outlier_detection", "`outlier`"),
    ("http2_max_concurrent_streams", "`max_streams`"),
    ("insecure_skip_verify", "`insecure`, in `tls`"),
    ("on-marked-down", "`on_down`"),
    ("on_marked_down", "`on_down`"),
    ("passive_health_check", "`outlier`"),
    ("proxyProtocol", "`send_proxy_protocol`"),
    ("proxy_connect_timeout", "`connect_timeout`"),
    ("proxy_protocol", "`send_proxy_protocol`"),
    (
        "proxy_timeout",
        "`idle_timeout`: of the listener, where it speaks tcp or udp",
    ),
    ("retries", "`retry`, in the routes that lead here"),
    ("retry", "`retry`, in the routes that lead here"),
    (
        "retry_budget",
        "`budget`, in `retry` of the routes that lead here",
    ),
    ("send-proxy", "send_proxy_protocol = \"v1\""),
    ("send-proxy-v2", "send_proxy_protocol = \"v2\""),
    ("send_proxy", "send_proxy_protocol = \"v1\""),
    ("send_proxy_v2", "send_proxy_protocol = \"v2\""),
    ("servers", "`endpoints`"),
    ("sni", "`server_name`, in `tls`"),
    ("ssl", "`tls`"),
    (
        "ssl_verify",
        "nothing: `tls` always verifies, unless it says insecure = true",
    ),
    ("slowstart", "`slow_start`"),
    ("transport", "`protocol`, and `tls`"),
    (
        "verify",
        "nothing: `tls` always verifies, unless it says insecure = true",
    ),
];

/// What servers allow unless told otherwise (nginx 128, Go 250, gRPC more).
const MAX_STREAMS: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

pub(super) fn lower<'a>(
    name: Reference<'a>,
    node: Node<'a>,
    defaults: &Defaults,
    clients: &'a Clients,
) -> Option<Draft<'a>> {
    let table = node.table(format!("upstream `{}`", *name), "upstreams.*")?;
    table.known_as(KEYS);
    table.later(
        "source",
        "endpoints from DNS, files and registries come in a later version",
    );
    let dynamic = table.get("dynamic").map(|node| node.flag());
    // A value that is neither was reported; that there are no endpoints is no second problem.
    let members = match dynamic {
        Some(Some(true) | None) => Members::MayCome,
        Some(Some(false)) | None => Members::Given,
    };
    let endpoints = endpoints::lower(&table, members);
    let zoned = endpoints.iter().find(|e| e.value.zone.is_some());
    let zoned = zoned.map(|e| e.at);
    let unix = endpoints
        .iter()
        .find(|e| matches!(e.value.addr, EndpointAddr::Unix(_)))
        .map(|e| e.at);
    let (policy, hash_key) = balance(&table);
    if matches!(policy.kind, PolicyKind::RoundRobin | PolicyKind::First)
        && let Some(heavy) = endpoints.iter().find(|e| e.value.weight > 1)
    {
        let message = format!("{} has weights, which its policy ignores", table.what);
        let d = Diagnostic::warning("no-effect", heavy.at, message);
        table
            .report
            .push(d.help("balance = \"weighted\" takes turns by weight"));
    }
    let mut u = Upstream {
        name: name.value.clone(),
        endpoints: endpoints.into_iter().map(|e| e.value).collect(),
        dynamic: dynamic.flatten().unwrap_or(false),
        policy,
        hash_key,
        sticky: table
            .table("sticky", "upstreams.*.sticky")
            .map(sticky::lower),
        connect_timeout: defaults.connect_timeout,
        idle_timeout: defaults.idle_timeout,
        keepalive: defaults.keepalive.clone(),
        health: None,
        when_unhealthy: WhenUnhealthy::FailClosed,
        agent: None,
        outlier: Outlier::unconfigured(),
        breaker: None,
        retry_floor: 10,
        max_connections: None,
        queue: Queue::default(),
        adaptive: None,
        slow_start: None,
        protocol: Protocol::H1,
        tls: None,
        max_streams: MAX_STREAMS,
        send_proxy_protocol: None,
        on_down: OnDown::Keep,
    };
    set(&mut u.connect_timeout, table.timeout("connect_timeout"));
    set(&mut u.idle_timeout, table.timeout("idle_timeout"));
    if let Some(t) = table.table("keepalive", "upstreams.*.keepalive") {
        u.keepalive = keepalive(t, &u.keepalive);
    }

    let tls = upstream_tls::lower(&table, &mut u, clients);
    proxy_protocol::sent(&table, &mut u);
    capacity::lower(&table, &mut u);
    u.outlier = outlier::lower(&table);
    u.breaker = breaker::lower(&table, &u);
    if let Some(floor) = table.bounded(
        "retry_floor",
        0..=MAX_RETRY_FLOOR,
        "attempts a second, beside the `budget` of routes: 10 is usual",
    ) {
        u.retry_floor = *floor as u32;
    }
    if let Some(t) = table.table("health", "upstreams.*.health") {
        u.health = health::lower(
            t,
            &u.endpoints,
            tls.as_ref(),
            u.send_proxy_protocol,
            clients,
        );
    }
    if let Some(t) = table.table("agent", "upstreams.*.agent") {
        u.agent = agent::lower(t, &u.endpoints);
    }
    if let Some(node) = table.get("when_unhealthy") {
        u.when_unhealthy = node.word(&WHEN_UNHEALTHY).unwrap_or(u.when_unhealthy);
        if u.when_unhealthy == WhenUnhealthy::FailOpen && !table.has("health") {
            let message = format!(
                "`when_unhealthy` does nothing: {} has no checks",
                table.what
            );
            let d = Diagnostic::warning("no-effect", node.at, message);
            let help = "without `health` every endpoint is taken for well";
            table.report.push(d.help(help));
        }
    }
    on_down(&table, &mut u);
    let places = Places::of(&table, &mut u, unix);
    table.finish();
    Some(Draft {
        upstream: u,
        name,
        zoned,
        places,
    })
}

/// What becomes of exchanges at an endpoint that is taken down, if anybody does.
fn on_down(table: &Table<'_>, u: &mut Upstream) {
    const WORDS: [(&str, OnDown); 2] = [("keep", OnDown::Keep), ("close", OnDown::Close)];
    let Some(node) = table.get("on_down") else {
        return;
    };
    if let Some("shutdown-sessions" | "shutdown_sessions") = node.as_str() {
        let d = node.error("unknown-value", "`on_down` cannot be `shutdown-sessions`");
        table.report.push(d.help("isobar calls it `close`"));
        return;
    }
    u.on_down = node.word(&WORDS).unwrap_or(u.on_down);
    if u.on_down == OnDown::Close && !table.has("health") && !table.has("agent") {
        let message = format!("`on_down` does nothing: {} has no checks", table.what);
        let d = Diagnostic::warning("no-effect", node.at, message);
        let help = "without `health` or `agent` nobody takes endpoints down";
        table.report.push(d.help(help));
    }
}

fn balance(upstream: &Table<'_>) -> (Policy, HashKey) {
    let mut policy = Policy {
        kind: PolicyKind::LeastRequest,
        bounded_load: None,
    };
    let mut key = HashKey::Client;
    let Some(node) = upstream.get("balance") else {
        return (policy, key);
    };
    if !node.is_table() {
        if node.is_string() {
            policy.kind = kind(node).unwrap_or(policy.kind);
        } else {
            let help =
                "write balance = \"least_request\" or { policy = \"ring_hash\", key = \"client\" }";
            upstream
                .report
                .push(node.mismatch("a policy or a table").help(help));
        }
        return (policy, key);
    }
    let what = format!("`balance` of {}", upstream.what);
    let Some(table) = node.table(what, "upstreams.*.balance") else {
        return (policy, key);
    };
    let known = table.require("policy").and_then(kind);
    policy.kind = known.unwrap_or(policy.kind);
    let hashes = policy.kind.hashes();
    let only_hash = |node: Node<'_>| {
        if known.is_some() && !hashes {
            let message = format!("`{}` works with hash policies only", node.key);
            let d = node.error("needs-hash-policy", message);
            upstream
                .report
                .push(d.help("hash policies are `ring_hash`, `maglev` and `rendezvous`"));
        }
    };
    if let Some(node) = table.get("key") {
        only_hash(node);
        key = node
            .text()
            .and_then(|text| hash_key(text, &table))
            .unwrap_or(key);
    }
    if let Some(node) = table.get("bounded_load") {
        only_hash(node);
        if let Some(bound) = node.number() {
            // 1.0 would need every endpoint at exactly the mean; NaN fails the comparison too.
            if bound > 1.0 && bound <= 100.0 {
                policy.bounded_load = Some(bound);
            } else {
                let d = node.error(
                    "out-of-range",
                    "`bounded_load` must be above 1.0, at most 100",
                );
                table
                    .report
                    .push(d.help("1.25 lets an endpoint have a quarter more than the mean load"));
            }
        }
    }
    table.finish();
    (policy, key)
}

// === impl Places ===

impl<'a> Places<'a> {
    /// Once all keys are read. A connection that tells of one client is not kept for another.
    fn of(table: &Table<'a>, u: &mut Upstream, unix: Option<At<'a>>) -> Self {
        let at = |key| table.get(key).map(|node| node.at);
        let keepalive = at("keepalive");
        let mut idle_connections = None;
        if u.send_proxy_protocol.is_some() {
            idle_connections = keepalive.filter(|_| u.keepalive.max_idle > 0);
            u.keepalive.max_idle = 0;
        }
        let mut of_requests = Vec::new();
        let mut put = |key, at: Option<At<'a>>| of_requests.extend(at.map(|at| (key, at)));
        put("sticky", at("sticky"));
        put(
            "protocol",
            at("protocol").filter(|_| u.protocol != Protocol::H1),
        );
        put("idle_timeout", at("idle_timeout"));
        put(
            "keepalive",
            keepalive.filter(|_| u.send_proxy_protocol.is_none() || idle_connections.is_some()),
        );
        put(
            "key",
            at("balance").filter(|_| u.hash_key != HashKey::Client),
        );
        let has_header = u.agent.as_ref().is_some_and(|agent| agent.header.is_some());
        put("header", at("agent").filter(|_| has_header));
        Self {
            unix,
            tls: at("tls").filter(|_| u.tls.is_some()),
            send_proxy_protocol: at("send_proxy_protocol"),
            idle_connections,
            of_requests,
        }
    }
}

fn kind(node: Node<'_>) -> Option<PolicyKind> {
    let text = node.text()?;
    if let Some((_, kind)) = POLICIES.iter().find(|(name, _)| *name == *text) {
        return Some(*kind);
    }
    let names = || POLICIES.iter().map(|(name, _)| *name);
    let alias = ALIASES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&text));
    let help = match (alias, closest(&text, names())) {
        (Some((_, ours)), _) => format!("isobar calls it {ours}"),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => format!("one of {}", quote_all(names())),
    };
    let message = format!("there is no policy `{}`", text.escape_debug());
    node.report
        .push(node.error("unknown-policy", message).help(help));
    None
}

fn hash_key(text: Located<'_, &str>, table: &Table<'_>) -> Option<HashKey> {
    let bad = |message: String| {
        let d = Diagnostic::error("bad-hash-key", text.at, message);
        let help = "one of `client`, `header:NAME`, `cookie:NAME`, `query:NAME`, `path`, `host`";
        table.report.push(d.help(help));
        None
    };
    let (kind, name) = text.split_once(':').unwrap_or((*text, ""));
    match (kind, name) {
        ("client", "") => Some(HashKey::Client),
        ("host", "") => Some(HashKey::Host),
        ("path", "") => Some(HashKey::Path),
        ("header" | "cookie" | "query", "") => {
            bad(format!("`{kind}` needs a name: \"{kind}:NAME\""))
        }
        ("header", name) => match name.parse() {
            Ok(name) => Some(HashKey::Header(name)),
            Err(_) => bad(format!("`{}` is not a header name", name.escape_debug())),
        },
        ("cookie", name) if name.bytes().all(headers::is_token_byte) => {
            Some(HashKey::Cookie(name.to_owned()))
        }
        ("cookie", name) => bad(format!("`{}` is not a cookie name", name.escape_debug())),
        ("query", name) => Some(HashKey::Query(name.to_owned())),
        _ => bad(format!("`{}` is not a hash key", text.escape_debug())),
    }
}
