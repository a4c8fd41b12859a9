//! `[upstreams.NAME]`

use std::collections::HashMap;
use std::time::Duration;

use crate::balance::{Policy, PolicyKind};
use crate::base::addr::EndpointAddr;

use super::super::diagnostic::Diagnostic;
use super::super::model::{Endpoint, HashKey, Outlier, Queue, Sticky, Upstream, WhenUnhealthy};
use super::super::node::{Located, Node, quote_all};
use super::super::reader::Table;
use super::super::source::At;
use super::super::suggest::closest;
use super::process::{Defaults, keepalive, protocol, set};
use super::{Reference, address, agent, headers, health};

/// An upstream with its places.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) upstream: Upstream,
    pub(super) name: Reference<'a>,
}

/// Weights are shares: 1000 tells 0.1 % apart, and bounds the tables of the hash policies.
const MAX_WEIGHT: u64 = 1000;

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

pub(super) fn lower<'a>(
    name: Reference<'a>,
    node: Node<'a>,
    defaults: &Defaults,
) -> Option<Draft<'a>> {
    let table = node.table(format!("upstream `{}`", *name), "upstreams.*")?;
    protocol(
        &table,
        "h1",
        &["h2", "auto"],
        "HTTP/2 to endpoints comes in a later version; `h1` works today",
    );
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
    let endpoints = endpoints(&table, members);
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
        sticky: table.table("sticky", "upstreams.*.sticky").map(sticky),
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
    };
    set(&mut u.connect_timeout, table.timeout("connect_timeout"));
    set(&mut u.idle_timeout, table.timeout("idle_timeout"));
    if let Some(t) = table.table("keepalive", "upstreams.*.keepalive") {
        u.keepalive = keepalive(t, &u.keepalive);
    }

    table.later("tls", "TLS to endpoints comes in a later version");
    table.later(
        "send_proxy_protocol",
        "the PROXY protocol comes in a later version",
    );
    let limits = "limits and queues per endpoint come in a later version";
    table.later("max_connections", limits);
    table.later("queue", limits);
    if let Some(t) = table.table("health", "upstreams.*.health") {
        u.health = health::lower(t, &u.endpoints);
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
    let later = "what requests say of an endpoint counts in a later version; `health` checks it";
    for key in ["outlier", "breaker", "slow_start"] {
        table.later(key, later);
    }
    table.finish();
    Some(Draft { upstream: u, name })
}

/// Whether all endpoints stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Members {
    Given,
    /// `dynamic`: a list that is empty, or missing, may be meant.
    MayCome,
}

fn endpoints<'a>(table: &Table<'a>, members: Members) -> Vec<Located<'a, Endpoint>> {
    let node = match members {
        Members::Given => table.require_unless("endpoints", &["source"]),
        Members::MayCome => table.get("endpoints"),
    };
    let Some(node) = node else {
        return Vec::new();
    };
    let mut found: Vec<Located<'a, Endpoint>> = Vec::new();
    let mut first: HashMap<EndpointAddr, At<'a>> = HashMap::new();
    let nodes = node.list().unwrap_or_default();
    if node.list_is_empty() && members == Members::Given {
        let message = format!("{} has no endpoints: every request gets 503", table.what);
        let d = Diagnostic::warning("no-endpoints", node.at, message);
        table
            .report
            .push(d.help("give it one, such as \"127.0.0.1:3000\""));
    }
    for node in &nodes {
        let Some(endpoint) = endpoint(table, *node) else {
            continue;
        };
        if let Some(before) = first.insert(endpoint.addr.clone(), endpoint.at) {
            let message = format!("{} has the endpoint `{}` twice", table.what, endpoint.addr);
            table.report.push(
                Diagnostic::error("duplicate-endpoint", endpoint.at, message)
                    .related(before, "given here before")
                    .help("to give it a larger share, write { address = \"…\", weight = 2 }"),
            );
        }
        found.push(endpoint);
    }
    if !found.is_empty() && found.len() == nodes.len() && found.iter().all(|e| e.weight == 0) {
        let message = format!("{} has weight 0 on every endpoint", table.what);
        let d = node.error("zero-weights", message);
        table
            .report
            .push(d.help("set one weight above 0, or remove the endpoints"));
    }
    found
}

fn endpoint<'a>(upstream: &Table<'a>, node: Node<'a>) -> Option<Located<'a, Endpoint>> {
    if node.is_string() {
        let addr = address::endpoint(node.text()?, node.report)?;
        return Some(Located {
            value: Endpoint {
                addr: addr.value,
                weight: 1,
                priority: 0,
                zone: None,
            },
            at: addr.at,
        });
    }
    if !node.is_table() {
        let help = "write \"127.0.0.1:3000\" or { address = \"127.0.0.1:3000\", weight = 2 }";
        node.report
            .push(node.mismatch("an address or a table").help(help));
        return None;
    }
    let table = node.table(
        format!("an endpoint of {}", upstream.what),
        "upstreams.*.endpoints",
    )?;
    let addr = table.require("address").and_then(|n| n.text());
    let weight = table.integer("weight", 0..=MAX_WEIGHT);
    table.later("zone", "zones come in a later version");
    table.later(
        "backup",
        "backup endpoints come in a later version; balance = \"first\" uses them in order",
    );
    let report = table.report;
    table.finish();
    let addr = address::endpoint(addr?, report)?;
    let weight = weight.map_or(1, |w| *w as u32);
    Some(Located {
        value: Endpoint {
            addr: addr.value,
            weight,
            priority: 0,
            zone: None,
        },
        at: addr.at,
    })
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
    let hashes = matches!(
        policy.kind,
        PolicyKind::RingHash | PolicyKind::Maglev | PolicyKind::Rendezvous
    );
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

fn sticky(table: Table<'_>) -> Sticky {
    let mut sticky = Sticky {
        cookie: "isobar".to_owned(),
        secure: false,
        ttl: None,
        secret_file: None,
    };
    if let Some(cookie) = table.require("cookie").and_then(|n| n.text()) {
        // RFC 6265 section 4.1.1: a cookie name is a token.
        if !cookie.is_empty() && cookie.bytes().all(headers::is_token_byte) {
            (*cookie).clone_into(&mut sticky.cookie);
        } else {
            let message = format!("`{}` is not a cookie name", cookie.escape_debug());
            let d = Diagnostic::error("bad-cookie", cookie.at, message);
            table
                .report
                .push(d.help("letters, digits and !#$%&'*+-.^_`|~"));
        }
    }
    sticky.secure = table.flag("secure").unwrap_or(sticky.secure);
    if let Some(ttl) = table.timeout("ttl") {
        if ttl.value < Duration::from_secs(1) || ttl.subsec_millis() != 0 {
            let d = Diagnostic::error("out-of-range", ttl.at, "`ttl` must be whole seconds");
            table.report.push(d.help(
                "a cookie's Max-Age counts seconds; without `ttl` it lasts the browser's session",
            ));
        }
        sticky.ttl = Some(*ttl);
    }
    table.finish();
    sticky
}
