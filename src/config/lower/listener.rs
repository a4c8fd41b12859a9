//! `[listeners.NAME]`

use std::time::Duration;

use http::HeaderName;

use super::super::PortZero;
use super::super::diagnostic::Diagnostic;
use super::super::model::{Forwarding, Listener, Serves};
use super::super::node::Node;
use super::super::reader::{Aliases, Table};
use super::super::units::format_duration;
use super::layer4::Spoken;
use super::listener_tls::Inside;
use super::process::set;
use super::{
    Reference, address, first_bytes, headers, http2, layer4, listener_tls, proxy_protocol,
    reference,
};
use crate::base::addr::BindAddr;

/// A listener with its places.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) listener: Listener,
    pub(super) name: Reference<'a>,
    pub(super) binds: Vec<address::Bind<'a>>,
    /// The shorthand of HTTP.
    pub(super) upstream: Option<Reference<'a>>,
    /// Whom connections or datagrams go to as they are.
    pub(super) targets: Vec<Reference<'a>>,
}

/// Smallest and largest request head that may be asked for: below 1 KiB browsers' requests fail,
/// above 1 MiB one head holds more memory than a thousand idle connections.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1024..=1 << 20;

/// Most fields: the parser's table of fields lives on the stack of a request.
const MAX_HEADERS: u64 = crate::http1::HARD_MAX_FIELDS as u64;

/// Shortest and longest age: below a second every request would have a handshake of its own; a month
/// is longer than any process runs.
const MAX_AGE: (Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(30 * 24 * 60 * 60),
);

/// What other programs call keys.
const KEYS: Aliases = &[
    ("HostSNI", "`sni`, in `passthrough`"),
    ("accept-proxy", "`proxy_protocol`"),
    ("accept_proxy", "`proxy_protocol`"),
    ("address", "`bind`"),
    ("addresses", "`bind`"),
    ("backend", "`upstream`"),
    ("certFile", "`cert`, in `certificates` of `tls`"),
    ("client_header_timeout", "`header_timeout`"),
    ("client_max_body_size", "`max_body_bytes`"),
    ("cluster", "`upstream`"),
    ("crt", "`cert`, in `certificates` of `tls`"),
    ("default_backend", "`upstream`"),
    ("drain_timeout", "`grace`"),
    ("h2", "`http2`"),
    ("hard-stop-after", "`grace`"),
    ("http2_max_concurrent_streams", "`max_streams`, in `http2`"),
    ("keepalive_time", "`max_connection_age`"),
    ("keyFile", "`key`, in `certificates` of `tls`"),
    ("listen", "`bind`"),
    ("max_concurrent_streams", "`max_streams`, in `http2`"),
    ("max_connection_duration", "`max_connection_age`"),
    ("max_connection_lifetime", "`max_connection_age`"),
    ("max_streams", "`max_streams`, in `http2`"),
    ("maxconn", "`max_connections`"),
    ("mode", "`protocol`"),
    ("port", "`bind`: \":5432\" is that port of every address"),
    ("proxyProtocol", "`proxy_protocol`"),
    ("proxy_pass", "`upstream`"),
    (
        "proxy_requests",
        "nothing: `responses` ends a flow, and a datagram more begins another",
    ),
    ("proxy_responses", "`responses`"),
    ("proxy_timeout", "`idle_timeout`"),
    ("server_names", "`sni`, in `passthrough`"),
    ("session_timeout", "`idle_timeout`"),
    ("sni", "`sni`, in `passthrough`"),
    ("sni_hosts", "`sni`, in `passthrough`"),
    ("ssl", "`tls`"),
    ("ssl_certificate", "`cert`, in `certificates` of `tls`"),
    ("ssl_certificate_key", "`key`, in `certificates` of `tls`"),
    ("ssl_preread", "`passthrough`"),
    ("terminationDelay", "`half_close_timeout`"),
    ("timeout_client", "`idle_timeout`"),
    ("timeout_server", "`idle_timeout`"),
    ("timeout_tunnel", "`idle_timeout`"),
    ("tunnel_timeout", "`idle_timeout`"),
];

pub(super) fn lower<'a>(
    name: Reference<'a>,
    node: Node<'a>,
    port_zero: PortZero,
) -> Option<Draft<'a>> {
    let table = node.table(format!("listener `{}`", *name), "listeners.*")?;
    table.known_as(KEYS);
    let spoken = layer4::protocol(&table);
    layer4::refuse_others(&table, spoken);
    let binds: Vec<_> = table
        .require("bind")
        .map(|node| node.one_or_more())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|text| address::bind(text, table.report, port_zero))
        .filter(|bind| spoken != Some(Spoken::Udp) || is_of_datagrams(bind, &table))
        .collect();
    if let Some(node) = table.get("bind")
        && node.list_is_empty()
    {
        let message = format!("{} has an empty `bind`", table.what);
        table.report.push(
            node.error("missing-key", message)
                .help("write bind = \":8080\""),
        );
    }

    let mut l = Listener {
        name: name.value.clone(),
        bind: binds.iter().map(|b| b.value.clone()).collect(),
        serves: Serves::Http,
        proxy_protocol: None,
        passthrough: Vec::new(),
        detect: None,
        grace: None,
        // 20,000: about 20 MB of idle connections; the descriptors are two per busy connection.
        max_connections: 20_000,
        header_timeout: Duration::from_secs(10),
        // Above the 60 s that balancers in front of us keep connections, so that they close first.
        keepalive_timeout: Duration::from_secs(75),
        idle_timeout: Duration::from_secs(60),
        max_header_bytes: 32 << 10,
        max_headers: 100,
        max_body_bytes: None,
        max_pipelined: 256,
        trusted_proxies: Vec::new(),
        forwarding: Forwarding {
            x_forwarded: true,
            forwarded: false,
            via: None,
            request_id: Some(HeaderName::from_static("x-request-id")),
        },
        tls: None,
        http2: None,
        max_connection_age: None,
    };
    if let Some(grace) = table.get("grace").and_then(|node| node.duration()) {
        l.grace = Some(*grace);
    }
    l.proxy_protocol = proxy_protocol::accepted(&table, &l.bind, spoken);
    let mut upstream = None;
    let mut targets = Vec::new();
    if spoken != Some(Spoken::Udp) {
        if let Some(n) = table.integer("max_connections", 1..=u64::from(u32::MAX)) {
            l.max_connections = *n as u32;
        }
        let (passthrough, to) = first_bytes::passthrough(&table);
        l.passthrough = passthrough;
        targets.extend(to);
        let (detect, other) = first_bytes::detect(&table, spoken);
        l.detect = detect;
        targets.extend(other);
    }
    match spoken {
        None | Some(Spoken::Http) => {
            http(&table, &mut l);
            upstream = table.text("upstream").map(reference);
        }
        Some(Spoken::Tcp) => {
            let others = table.has("passthrough")
                || table
                    .get("detect")
                    .is_some_and(|node| node.peek("other").is_some());
            let (spec, to) = layer4::tcp(&table, others);
            l.serves = Serves::Tcp(spec);
            targets.extend(to);
            l.tls = listener_tls::lower(&table, Inside::Bytes);
        }
        Some(Spoken::Udp) => {
            let (spec, to) = layer4::udp(&table);
            l.serves = Serves::Udp(spec);
            targets.extend(to);
        }
    }
    table.finish();
    Some(Draft {
        listener: l,
        name,
        binds,
        upstream,
        targets,
    })
}

/// Reports an address that no datagram comes to.
fn is_of_datagrams(bind: &address::Bind<'_>, table: &Table<'_>) -> bool {
    let is_unix = matches!(bind.value, BindAddr::Unix(_));
    if is_unix {
        let message = format!(
            "{} speaks `udp`, and `{}` is a Unix socket",
            table.what, bind.value
        );
        let d = Diagnostic::error("bad-address", bind.at, message);
        let help =
            "datagrams come to a port: write \":5353\", or protocol = \"tcp\" for the socket";
        table.report.push(d.help(help));
    }
    !is_unix
}

/// The keys of a listener that serves requests.
fn http(table: &Table<'_>, l: &mut Listener) {
    l.http2 = http2::lower(table);
    set(&mut l.header_timeout, table.timeout("header_timeout"));
    set(&mut l.keepalive_timeout, table.timeout("keepalive_timeout"));
    set(&mut l.idle_timeout, table.timeout("idle_timeout"));
    if let Some(node) = table.get("max_header_bytes")
        && let Some(size) = node.size()
    {
        if HEADER_BYTES.contains(&size) {
            l.max_header_bytes = *size as usize;
        } else {
            let message = "`max_header_bytes` must be from 1KiB to 1MiB";
            table.report.push(node.error("out-of-range", message));
        }
    }
    if let Some(n) = table.integer("max_headers", 1..=MAX_HEADERS) {
        l.max_headers = *n as usize;
    }
    if let Some(node) = table.get("max_body_bytes")
        && node.as_str() != Some("none")
        && let Some(size) = node.size()
    {
        if *size == 0 {
            let d = node.error(
                "out-of-range",
                "`max_body_bytes` of zero would refuse every body",
            );
            table.report.push(d.help("for no limit, write \"none\""));
        }
        l.max_body_bytes = Some(*size);
    }
    if let Some(n) = table.integer("max_pipelined", 1..=65_536) {
        l.max_pipelined = *n as u32;
    }
    if let Some(node) = table.get("trusted_proxies") {
        let networks = node.one_or_more();
        l.trusted_proxies = networks
            .into_iter()
            .filter_map(|n| address::network(n, table.report))
            .collect();
    }
    if let Some(t) = table.table("forwarding", "listeners.*.forwarding") {
        forwarding(t, &mut l.forwarding);
    }
    if let Some(node) = table.get("max_connection_age") {
        l.max_connection_age = max_connection_age(node, table);
    }
    l.tls = listener_tls::lower(table, Inside::Http(l.http2.as_ref()));
}

/// "off" or a duration.
fn max_connection_age(node: Node<'_>, table: &Table<'_>) -> Option<Duration> {
    if node.as_str() == Some("off") {
        return None;
    }
    let age = node.duration()?;
    let (low, high) = MAX_AGE;
    if (low..=high).contains(&age.value) {
        return Some(*age);
    }
    let message = format!(
        "`max_connection_age` of {} must be from {} to {}",
        table.what,
        format_duration(low),
        format_duration(high)
    );
    let d = Diagnostic::error("out-of-range", age.at, message);
    let help = "\"30m\" spreads clients over new machines; for no limit, write \"off\"";
    table.report.push(d.help(help));
    None
}

fn forwarding(table: Table<'_>, f: &mut Forwarding) {
    f.x_forwarded = table.flag("x_forwarded").unwrap_or(f.x_forwarded);
    f.forwarded = table.flag("forwarded").unwrap_or(f.forwarded);
    if let Some(via) = table.text("via") {
        // RFC 9110 section 7.6.3: a pseudonym is a token.
        if !via.is_empty() && via.bytes().all(headers::is_token_byte) {
            f.via = Some((*via).into());
        } else {
            let message = format!("`via` cannot be `{}`", via.escape_debug());
            let d = Diagnostic::error("bad-header", via.at, message);
            table.report.push(
                d.help("a pseudonym is one word, such as \"isobar\"; for no Via, leave it out"),
            );
        }
    }
    if let Some(text) = table.text("request_id") {
        if *text == "off" {
            f.request_id = None;
        } else if let Some(name) = headers::name(text, headers::Side::Request, table.report) {
            f.request_id = Some(name);
        }
    }
    table.finish();
}
