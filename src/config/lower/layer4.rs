//! What listeners speak, `protocol`, with the keys that not all of them have: those of layer 4, and
//! those of HTTP where there is none.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::diagnostic::Diagnostic;
use super::super::model::{FlowKey, Name, TcpSpec, UdpSpec};
use super::super::node::{Located, Node, quote_all};
use super::super::reader::Table;
use super::process::set;
use super::{Reference, limits, reference};

/// What a listener speaks, before what belongs to it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http,
    Tcp,
    Udp,
}

const WORDS: [(&str, Spoken); 3] = [
    ("http", Spoken::Http),
    ("tcp", Spoken::Tcp),
    ("udp", Spoken::Udp),
];

/// What other programs call them.
const ALIASES: [(&str, &str); 12] = [
    (
        "dns",
        "write protocol = \"udp\", and \"tcp\" in a second listener at the same port",
    ),
    ("grpc", "isobar calls it `http`: gRPC is HTTP/2"),
    (
        "h2",
        "isobar calls it `http`: HTTP/2 is spoken unless `http2` says otherwise",
    ),
    (
        "h2c",
        "isobar calls it `http`: HTTP/2 is spoken unless `http2` says otherwise",
    ),
    ("http1", "isobar calls it `http`"),
    (
        "http2",
        "isobar calls it `http`: HTTP/2 is spoken unless `http2` says otherwise",
    ),
    (
        "https",
        "write protocol = \"http\", and `tls` with a certificate",
    ),
    (
        "quic",
        "write protocol = \"udp\" and flow = \"quic\": QUIC is passed on unopened",
    ),
    ("ssl", TLS),
    ("stream", "isobar calls it `tcp`"),
    ("tls", TLS),
    (
        "ws",
        "isobar calls it `http`: WebSockets are upgrades of requests",
    ),
];

const TLS: &str = "write protocol = \"tcp\" and `tls` with a certificate, or `passthrough` to leave TLS \
                   to endpoints";

/// Keys that not every protocol has, and which have them.
const KEYS: [(&str, &[Spoken]); 20] = [
    ("detect", &[Spoken::Http, Spoken::Tcp]),
    ("flow", &[Spoken::Udp]),
    ("forwarding", &[Spoken::Http]),
    ("half_close_timeout", &[Spoken::Tcp]),
    ("header_timeout", &[Spoken::Http]),
    ("http2", &[Spoken::Http]),
    ("keepalive_timeout", &[Spoken::Http]),
    ("max_body_bytes", &[Spoken::Http]),
    ("max_connection_age", &[Spoken::Http]),
    ("max_connections", &[Spoken::Http, Spoken::Tcp]),
    ("max_flows", &[Spoken::Udp]),
    ("max_flows_per_client", &[Spoken::Udp]),
    ("max_header_bytes", &[Spoken::Http]),
    ("max_headers", &[Spoken::Http]),
    ("max_pipelined", &[Spoken::Http]),
    ("passthrough", &[Spoken::Http, Spoken::Tcp]),
    ("rate_limit", &[Spoken::Tcp, Spoken::Udp]),
    ("responses", &[Spoken::Udp]),
    ("tls", &[Spoken::Http, Spoken::Tcp]),
    ("trusted_proxies", &[Spoken::Http]),
];

/// Most flows, and most answers of one.
const MAX_COUNT: u64 = limits::MAX_COUNT;

/// 16,384: each takes one of the ports that Linux gives out (28,232 by default, `ip_local_port_range`: one
/// pool for all sockets of UDP, whatever the destination), and a descriptor, of which systemd's hard limit
/// gives 524,288 and a shell's often 20,000 or fewer. Some 8 MB.
const MAX_FLOWS: NonZeroU32 = NonZeroU32::new(16_384).expect("not zero");

/// A quarter of them: an office behind one address has fewer, and a flood from one address leaves the rest
/// alone.
const MAX_FLOWS_PER_CLIENT: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

/// Bytes of a connection id: RFC 9000 section 17.2.
const CONNECTION_ID: std::ops::RangeInclusive<u64> = 1..=20;

/// What most servers choose (Google's, nginx's 20 aside).
const USUAL_CONNECTION_ID: u8 = 8;

/// `protocol`; `None` = a word that means none, which was reported.
pub(super) fn protocol(table: &Table<'_>) -> Option<Spoken> {
    let Some(node) = table.get("protocol") else {
        return Some(Spoken::Http);
    };
    let alias = node
        .as_str()
        .and_then(|text| ALIASES.iter().find(|(word, _)| *word == text));
    let Some((word, help)) = alias else {
        return node.word(&WORDS);
    };
    let message = format!("`protocol` cannot be `{word}`");
    table
        .report
        .push(node.error("unknown-value", message).help(*help));
    None
}

/// Reports keys that have no meaning with what is spoken. Without a good word all of them are let pass:
/// nobody knows which are meant.
pub(super) fn refuse_others(table: &Table<'_>, spoken: Option<Spoken>) {
    for (key, of) in KEYS {
        if !table.has(key) || spoken.is_some_and(|spoken| of.contains(&spoken)) {
            continue;
        }
        let (Some(node), Some(spoken)) = (table.get(key), spoken) else {
            continue;
        };
        let words: Vec<&str> = of.iter().map(|spoken| spoken.word()).collect();
        let message = format!(
            "`{key}` works with protocol {}, and {} speaks `{}`",
            quote_all(words.iter().copied()).replace(", ", " and "),
            table.what,
            spoken.word()
        );
        table.report.push(
            node.error("wrong-protocol", message)
                .help(instead(key, spoken)),
        );
    }
}

/// What to write instead.
fn instead(key: &str, spoken: Spoken) -> &'static str {
    match (key, spoken) {
        ("rate_limit", Spoken::Http) => {
            "requests are limited by route: write it in [[routes]], beside its `upstream`"
        }
        ("half_close_timeout", Spoken::Http) => {
            "requests and responses say where they end: remove it; `idle_timeout` ends what hangs"
        }
        ("half_close_timeout", Spoken::Udp) => {
            "nobody ends one half of a flow: remove it; `idle_timeout` ends flows"
        }
        ("flow" | "max_flows" | "max_flows_per_client" | "responses", Spoken::Http) => {
            "only datagrams have flows: write protocol = \"udp\", or remove it"
        }
        ("max_flows" | "max_flows_per_client", Spoken::Tcp) => {
            "only datagrams have flows: `max_connections` bounds connections, `rate_limit` new ones"
        }
        ("flow" | "responses", Spoken::Tcp) => {
            "only datagrams have flows: a connection ends when its peers end it, or by `idle_timeout`"
        }
        ("max_connections", _) => {
            "datagrams have no connections: `max_flows` bounds flows, all workers together"
        }
        ("tls" | "passthrough" | "detect", _) => {
            "datagrams are passed on unopened: DTLS and QUIC end at the endpoint"
        }
        ("trusted_proxies", _) => {
            "no header field names the client here: `proxy_protocol` says from whom the PROXY protocol \
             is taken, which does"
        }
        ("forwarding", _) => {
            "there are no requests to put fields into: `send_proxy_protocol`, in the upstream, tells \
             endpoints who the client is"
        }
        ("max_connection_age", _) => {
            "only HTTP can tell a client to come again on another connection: `idle_timeout` ends \
             silent ones"
        }
        ("header_timeout" | "keepalive_timeout", _) => {
            "bytes are passed on as they are, without requests: `idle_timeout` ends what is silent"
        }
        _ => "bytes are passed on as they are, without requests: remove it",
    }
}

/// The keys of a listener that speaks TCP; `others` = somebody has a place to go without `upstream`.
pub(super) fn tcp<'a>(table: &Table<'a>, others: bool) -> (TcpSpec, Option<Reference<'a>>) {
    let upstream = table.text("upstream").map(reference);
    if upstream.is_none() && !table.has("upstream") && !others {
        let message = format!("{} has no `upstream`", table.what);
        let d = Diagnostic::error("missing-key", table.at, message);
        let help = "connections have no routes: write upstream = \"NAME\"; it may be left out where \
                    `passthrough` or `other` in `detect` say where connections go";
        table
            .report
            .push(d.label("`upstream` is required").help(help));
    }
    let mut spec = TcpSpec {
        upstream: upstream.as_ref().map(|name| name.value.clone()),
        idle_timeout: Some(TcpSpec::IDLE_TIMEOUT),
        half_close_timeout: TcpSpec::HALF_CLOSE_TIMEOUT,
        rate_limits: limits::rate_limits(table, limits::Of::Listener),
    };
    if let Some(node) = table.get("idle_timeout") {
        spec.idle_timeout = match node.as_str() {
            Some("none") => None,
            Some("off" | "never" | "infinite" | "infinity" | "0" | "0s") => {
                let message = format!(
                    "`idle_timeout` of {} cannot be `{}`",
                    table.what,
                    node.as_str().unwrap_or_default()
                );
                let help = "for connections that may be silent for ever, write \"none\"";
                table
                    .report
                    .push(node.error("unknown-value", message).help(help));
                None
            }
            _ => table.timeout("idle_timeout").map(|t| t.value),
        };
    }
    set(
        &mut spec.half_close_timeout,
        table.timeout("half_close_timeout"),
    );
    (spec, upstream)
}

/// The keys of a listener that speaks UDP.
pub(super) fn udp<'a>(table: &Table<'a>) -> (UdpSpec, Option<Reference<'a>>) {
    let upstream = table.text("upstream").map(reference);
    if !table.has("upstream") {
        let message = format!("{} has no `upstream`", table.what);
        let d = Diagnostic::error("missing-key", table.at, message);
        let help = "datagrams have no routes: write upstream = \"NAME\"";
        table
            .report
            .push(d.label("`upstream` is required").help(help));
    }
    let mut spec = UdpSpec {
        upstream: upstream
            .as_ref()
            .map_or_else(|| Name::from(""), |name| name.value.clone()),
        flow: FlowKey::Client,
        // What NATs keep a mapping for at least in practice (RFC 4787 section 4.3 asks for 2 minutes of
        // them): who is silent for longer comes back by another port anyway.
        idle_timeout: Duration::from_secs(30),
        responses: None,
        max_flows: MAX_FLOWS,
        max_flows_per_client: MAX_FLOWS_PER_CLIENT,
        rate_limits: limits::rate_limits(table, limits::Of::Listener),
    };
    if let Some(node) = table.get("flow") {
        spec.flow = flow(node, table).unwrap_or(spec.flow);
    }
    if table.get("idle_timeout").and_then(|n| n.as_str()) == Some("none") {
        if let Some(node) = table.get("idle_timeout") {
            let message = format!("`idle_timeout` of {} cannot be `none`", table.what);
            let help = "nobody says that a flow has ended: only time does; \"30s\" is usual";
            table
                .report
                .push(node.error("unknown-value", message).help(help));
        }
    } else {
        set(&mut spec.idle_timeout, table.timeout("idle_timeout"));
    }
    let responses = table.bounded(
        "responses",
        1..=MAX_COUNT,
        "how many datagrams answer one of a client, 1 for DNS; leave it out where nobody knows",
    );
    spec.responses = responses.and_then(|n| NonZeroU32::new(*n as u32));
    if let (FlowKey::Quic { .. }, Some(responses)) = (spec.flow, responses) {
        let message = format!(
            "`responses` of {} would end connections of QUIC",
            table.what
        );
        let d = Diagnostic::error("flow-end", responses.at, message);
        let help = "remove it: an endpoint sends a connection any number of datagrams, and \
                    `idle_timeout` ends its flow";
        table.report.push(d.help(help));
    }
    max_flows(table, &mut spec);
    (spec, upstream)
}

/// `max_flows` and `max_flows_per_client`; the second is at most the first.
fn max_flows(table: &Table<'_>, spec: &mut UdpSpec) {
    let count = |key, help| {
        let n: Located<'_, u64> = table.bounded(key, 1..=MAX_COUNT, help)?;
        Some((NonZeroU32::new(*n as u32)?, n.at))
    };
    let all = count(
        "max_flows",
        "each has a socket with a port of its own: 16384 is usual, and ip_local_port_range bounds it",
    );
    if let Some((all, _)) = all {
        spec.max_flows = all;
    }
    let each = count("max_flows_per_client", "a quarter of `max_flows` is usual");
    spec.max_flows_per_client = spec.max_flows_per_client.min(spec.max_flows);
    if let Some((each, at)) = each {
        spec.max_flows_per_client = each;
        if each > spec.max_flows {
            let message = format!(
                "`max_flows_per_client` of {} is {each}, above its `max_flows` of {}",
                table.what, spec.max_flows
            );
            let d = Diagnostic::warning("no-effect", at, message);
            let help = "one address may take every flow: a flood from it drives out the others";
            table.report.push(d.help(help));
        }
    }
}

/// "client", "quic" or { quic = 20 }.
fn flow(node: Node<'_>, listener: &Table<'_>) -> Option<FlowKey> {
    const FORMS: [(&str, FlowKey); 2] = [
        ("client", FlowKey::Client),
        (
            "quic",
            FlowKey::Quic {
                length: USUAL_CONNECTION_ID,
            },
        ),
    ];
    if node.is_string() {
        return node.word(&FORMS);
    }
    if !node.is_table() {
        let help = "write flow = \"client\", \"quic\" (connection ids of 8 bytes) or { quic = 20 }";
        listener
            .report
            .push(node.mismatch("a word or a table").help(help));
        return None;
    }
    let table = node.table(format!("`flow` of {}", listener.what), "listeners.*.flow")?;
    table.known_as(&[("connection_id_length", "`quic`"), ("length", "`quic`")]);
    let length = table.require("quic").and_then(|node| {
        let help = "bytes of the connection ids that endpoints choose: 8 and 20 are usual";
        node.bounded(CONNECTION_ID, Some(help))
    });
    table.finish();
    length.map(|length| FlowKey::Quic {
        length: *length as u8,
    })
}

// === impl Spoken ===

impl Spoken {
    /// The word in the configuration.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
