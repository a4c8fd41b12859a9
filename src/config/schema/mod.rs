//! The JSON Schema of a configuration file, for editors.
//!
//! These types are never filled: they say which keys there are, and their comments become the
//! descriptions that an editor shows. A test compares them with the keys that the loader reads.

#![expect(dead_code, reason = "the types are described, never built")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

mod fleet;
mod layer4;
mod resilience;
mod route;
mod tls;

use layer4::{
    Detect, DurationOrNone, Flow, ListenerRateLimits, OnDown, Passthroughs, ProxyProtocolOrOff,
    ProxyVersion,
};
use resilience::{AdaptiveOrSwitch, Breaker, OutlierOrOff, Queue};
use route::Route;
use tls::{DurationOrOff, Http2OrOff, ListenerTls, UpstreamProtocol, UpstreamTls};

/// The schema as JSON text, with a line end.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".to_owned(), "isobar configuration".into());
    // Serialising a tree of JSON values cannot fail; the empty object is a schema too.
    let text = serde_json::to_string_pretty(&schema).unwrap_or_else(|_| "{}".to_owned());
    text + "\n"
}

/// A span of time with units: "250ms", "30s", "1m30s", "1h". Units: ms, s, m, h, d.
#[derive(JsonSchema)]
struct Duration(
    #[schemars(
        regex(
            pattern = r"^\s*(\d+\s*d\s*)?(\d+\s*h\s*)?(\d+\s*m\s*)?(\d+\s*s\s*)?(\d+\s*ms\s*)?$"
        ),
        length(min = 2)
    )]
    String,
);

/// A size with a unit: "512B", "64KiB" (1024), "10MB" (1000).
#[derive(JsonSchema)]
struct Size(#[schemars(regex(pattern = r"^\s*\d+\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)\s*$"))] String);

/// A share: 0.0 to 1.0, or "0%" to "100%".
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Ratio {
    Number(#[schemars(range(min = 0.0, max = 1.0))] f64),
    Percent(#[schemars(regex(pattern = r"^\s*[0-9.]+\s*%?\s*$"))] String),
}

/// One string, or a list of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore {
    One(String),
    More(#[schemars(length(min = 1))] Vec<String>),
}

/// An isobar configuration. Unknown keys are errors.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct File {
    /// More files, relative to this one: ["conf.d/*.toml"]. They hold listeners, routes, upstreams.
    include: Option<Vec<String>>,
    /// The process itself (main file only).
    process: Option<Process>,
    /// Metrics and readiness (main file only).
    admin: Option<Admin>,
    /// Logs (main file only).
    log: Option<Log>,
    /// What upstreams inherit when they say nothing (main file only).
    defaults: Option<Defaults>,
    /// Peers that act as one (main file only).
    fleet: Option<fleet::Fleet>,
    /// Where clients connect, by name.
    listeners: Option<BTreeMap<String, Listener>>,
    /// What answers which request; the most specific match wins.
    routes: Option<Vec<Route>>,
    /// Sets of endpoints, by name.
    upstreams: Option<BTreeMap<String, Upstream>>,
}

/// The process itself.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Process {
    /// Worker threads: "auto" (one per available core) or a number from 1 to 1024.
    #[schemars(extend("default" = "auto"))]
    workers: Option<Workers>,
    /// How long a drain may take on SIGTERM before it cuts.
    #[schemars(extend("default" = "30s"))]
    grace: Option<Duration>,
    /// Drop privileges to this user after binding, when started as root. Default: stay.
    user: Option<String>,
    /// Folder where operators' overrides outlive the process. Default: none, they end with it.
    state_dir: Option<String>,
    /// Reload when a file of the configuration changes.
    #[schemars(extend("default" = false))]
    watch: Option<bool>,
    /// Where this process stands: endpoints of the same zone are preferred. Default: nowhere.
    zone: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Workers {
    Auto(Auto),
    Count(#[schemars(range(min = 1, max = 1024))] u32),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Auto {
    Auto,
}

/// Metrics and readiness.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Admin {
    /// Address of /metrics, /livez and /readyz, such as "127.0.0.1:9090". Default: none.
    bind: Option<String>,
    /// Path of the Unix socket of the control API, such as "/run/isobar/admin.sock". Default: none.
    socket: Option<String>,
    /// User ids that may use the socket. Default: root and the user that isobar runs as.
    #[schemars(length(min = 1))]
    allow_uids: Option<Vec<u32>>,
}

/// Logs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Log {
    /// Least severity of the program's own log.
    #[schemars(extend("default" = "info"))]
    level: Option<Level>,
    /// The access log: a table, or "off".
    #[schemars(extend("default" = "off"))]
    access: Option<AccessOrOff>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum AccessOrOff {
    Access(Access),
    Off(Off),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Off {
    Off,
}

/// One line an exchange.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Access {
    /// Line format.
    #[schemars(extend("default" = "json"))]
    format: Option<AccessFormat>,
    /// "stdout", "stderr" or the path of a file (relative to this one), reopened on SIGUSR1.
    #[schemars(extend("default" = "stdout"))]
    to: Option<String>,
    /// Share of exchanges logged.
    #[schemars(extend("default" = 1.0))]
    sample: Option<Ratio>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum AccessFormat {
    Combined,
    Common,
    Json,
    Text,
}

/// What upstreams inherit when they say nothing.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    /// Deadline of a connect to an endpoint.
    #[schemars(extend("default" = "1s"))]
    connect_timeout: Option<Duration>,
    /// No byte from the endpoint for this long while one is awaited: 504.
    #[schemars(extend("default" = "60s"))]
    idle_timeout: Option<Duration>,
    /// Idle connections kept to each endpoint.
    keepalive: Option<Keepalive>,
}

/// Idle connections kept to each endpoint.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Keepalive {
    /// Idle connections older than this are closed; keep it below the endpoint's own limit.
    #[schemars(extend("default" = "55s"))]
    idle_timeout: Option<Duration>,
    /// Kept per endpoint and worker; 0 opens a connection per request.
    #[schemars(range(min = 0, max = 65535), extend("default" = 256))]
    max_idle: Option<u32>,
}

/// A bound address where clients connect.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Listener {
    /// One address or a list: ":8080", "127.0.0.1:8080", "[::1]:8080", "unix:/run/web.sock".
    bind: OneOrMore,
    /// What clients speak.
    #[schemars(extend("default" = "http"))]
    protocol: Option<ListenerProtocol>,
    /// http: shorthand for a route that sends everything here to one upstream. tcp and udp: whom
    /// connections or datagrams go to.
    upstream: Option<String>,
    /// Who speaks the PROXY protocol, version 1 or 2; others are refused. udp: version 2. Default: nobody.
    proxy_protocol: Option<ProxyProtocolOrOff>,
    /// TLS connections that go to an upstream unopened, by what they ask for; the first that matches
    /// (http and tcp).
    passthrough: Option<Passthroughs>,
    /// What is spoken at this port beside TLS (http and tcp).
    detect: Option<Detect>,
    /// How long its connections may take to end once it drains. Default: as `grace` of `process`.
    grace: Option<Duration>,
    /// No byte in either direction once one side has ended its own (tcp).
    #[schemars(extend("default" = "5m"))]
    half_close_timeout: Option<Duration>,
    /// How often new connections (tcp) or flows (udp) are taken: a table, or a list of them.
    rate_limit: Option<ListenerRateLimits>,
    /// What datagrams belong together (udp).
    #[schemars(extend("default" = "client"))]
    flow: Option<Flow>,
    /// So many datagrams of the endpoint end a flow (udp); 1 for DNS. Default: only time ends it.
    #[schemars(range(min = 1, max = 1_000_000))]
    responses: Option<u32>,
    /// Most flows at once, all workers together (udp); above, those silent for longest go.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 16_384))]
    max_flows: Option<u32>,
    /// Most flows of one address, of IPv6 the /64 (udp).
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 4096))]
    max_flows_per_client: Option<u32>,
    /// Networks whose X-Forwarded-* and Forwarded fields are believed. Default: none.
    trusted_proxies: Option<OneOrMore>,
    /// Connections above this are closed and counted; http answers 503 (http and tcp).
    #[schemars(range(min = 1), extend("default" = 20000))]
    max_connections: Option<u32>,
    /// From the first byte of a request head to its end: 408 after.
    #[schemars(extend("default" = "10s"))]
    header_timeout: Option<Duration>,
    /// A keep-alive connection without a request is closed after this.
    #[schemars(extend("default" = "75s"))]
    keepalive_timeout: Option<Duration>,
    /// http: no progress in either direction while a request is in flight, 408 or 504. tcp: no byte in
    /// either direction, or "none". udp: no datagram, then the flow ends. Default: "60s" (http), "1h"
    /// (tcp), "30s" (udp).
    idle_timeout: Option<DurationOrNone>,
    /// Largest request head, 1KiB to 1MiB: 431 (414 when the target alone is larger).
    #[schemars(extend("default" = "32KiB"))]
    max_header_bytes: Option<Size>,
    /// Most fields in a request head: 431.
    #[schemars(range(min = 1, max = 1024), extend("default" = 100))]
    max_headers: Option<u32>,
    /// Largest request body: 413; or "none".
    #[schemars(extend("default" = "none"))]
    max_body_bytes: Option<SizeOrNone>,
    /// Requests that may wait in one connection's buffer.
    #[schemars(range(min = 1, max = 65536), extend("default" = 256))]
    max_pipelined: Option<u32>,
    /// What endpoints are told about the client.
    forwarding: Option<Forwarding>,
    /// A connection older than this ends with its next answer, 1s to 30d; or "off".
    #[schemars(extend("default" = "off"))]
    max_connection_age: Option<DurationOrOff>,
    /// HTTP/2: a table, or "off". Default: on, by ALPN in TLS and by prior knowledge in clear text.
    http2: Option<Http2OrOff>,
    /// Clients speak TLS. Default: clear text.
    tls: Option<ListenerTls>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum ListenerProtocol {
    /// Requests, to routes.
    Http,
    /// Connections, to `upstream`.
    Tcp,
    /// Datagrams, to `upstream`.
    Udp,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum SizeOrNone {
    Size(Size),
    None(NoLimit),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum NoLimit {
    None,
}

/// What endpoints are told about the client.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Forwarding {
    /// X-Forwarded-For, -Proto and -Host.
    #[schemars(extend("default" = true))]
    x_forwarded: Option<bool>,
    /// Forwarded (RFC 7239).
    #[schemars(extend("default" = false))]
    forwarded: Option<bool>,
    /// Via, with this pseudonym. Default: no Via.
    via: Option<String>,
    /// Name of the request-id field, or "off".
    #[schemars(extend("default" = "x-request-id"))]
    request_id: Option<String>,
}

/// A set of endpoints with one policy.
#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend("anyOf" = [{ "required": ["endpoints"] }, { "required": ["dynamic"] }])
)]
struct Upstream {
    /// Addresses, or tables with an address, a weight, a zone, a priority. Required unless `dynamic`.
    endpoints: Option<Vec<Endpoint>>,
    /// Operators may add and remove endpoints at run time.
    #[schemars(extend("default" = false))]
    dynamic: Option<bool>,
    /// Which endpoint gets the next request.
    #[schemars(extend("default" = "least_request"))]
    balance: Option<Balance>,
    /// A cookie keeps a client on its endpoint.
    sticky: Option<Sticky>,
    /// What endpoints speak.
    #[schemars(extend("default" = "h1"))]
    protocol: Option<UpstreamProtocol>,
    /// TLS to endpoints: true (CAs of the system, the endpoint's address as name), or a table.
    #[schemars(extend("default" = false))]
    tls: Option<UpstreamTls>,
    /// Most streams on one HTTP/2 connection; the endpoint may allow fewer.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    max_streams: Option<u32>,
    /// Deadline of a connect. Default: as [defaults].
    connect_timeout: Option<Duration>,
    /// No byte from the endpoint for this long while one is awaited: 504. Default: as [defaults].
    idle_timeout: Option<Duration>,
    /// Idle connections kept to each endpoint. Default: as [defaults].
    keepalive: Option<Keepalive>,
    /// Exchanges that an endpoint has in flight at most, all workers together. Default: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_connections: Option<u32>,
    /// Where exchanges wait while every endpoint has its most.
    queue: Option<Queue>,
    /// The same limit, learnt from what each endpoint takes: true, false or its bounds.
    #[schemars(extend("default" = false))]
    adaptive_concurrency: Option<AdaptiveOrSwitch>,
    /// For how long an endpoint that is new or has recovered gets less than its share, at most 1h.
    /// Default: it gets its share at once.
    slow_start: Option<Duration>,
    /// Passive checks: a table, or "off". Default: three connects in a row that fail eject.
    outlier: Option<OutlierOrOff>,
    /// When the upstream as a whole is given a rest. Default: never.
    breaker: Option<Breaker>,
    /// Retries and hedges a second that are granted whatever the traffic.
    #[schemars(range(min = 0, max = 10_000), extend("default" = 10))]
    retry_floor: Option<u32>,
    /// Active checks: an endpoint that fails them gets no requests. Default: none.
    health: Option<Health>,
    /// Endpoints speak for themselves: weight, drain, down. Default: nobody listens.
    agent: Option<Agent>,
    /// What holds while no endpoint is ready.
    #[schemars(extend("default" = "fail_closed"))]
    when_unhealthy: Option<WhenUnhealthy>,
    /// Who the client is, told to endpoints at the beginning of each connection.
    #[schemars(extend("default" = "off"))]
    send_proxy_protocol: Option<ProxyVersion>,
    /// What becomes of an endpoint's exchanges when checks take it down.
    #[schemars(extend("default" = "keep"))]
    on_down: Option<OnDown>,
}

/// What holds while no endpoint is ready.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum WhenUnhealthy {
    /// Requests get 503.
    FailClosed,
    /// All endpoints are used, whatever their checks say.
    FailOpen,
}

/// Active checks of the endpoints.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Health {
    /// What is asked of an endpoint.
    check: Check,
    /// Path of the request (http only), with a query if need be.
    #[schemars(extend("default" = "/"))]
    path: Option<String>,
    /// Method of the request (http only).
    #[schemars(extend("default" = "GET"))]
    method: Option<String>,
    /// Host of the request (http and grpc). Default: the endpoint's address.
    host: Option<String>,
    /// The service that is asked for (grpc only). Default: the server as a whole.
    #[schemars(extend("default" = ""))]
    service: Option<String>,
    /// Logs in under this name without a password (mysql only). Default: the greeting is enough.
    user: Option<String>,
    /// Checks speak TLS (http and grpc): true, false, or a table. Default: as `tls` of the upstream,
    /// unless there is a `port`.
    tls: Option<CheckTls>,
    /// More fields of the request (http only).
    headers: Option<BTreeMap<String, String>>,
    /// What the response must be (http only). Default: a status from 200 to 399.
    expect: Option<Expect>,
    /// From one check to the next.
    #[schemars(extend("default" = "2s"))]
    interval: Option<Duration>,
    /// The same while the endpoint is down. Default: as `interval`.
    down_interval: Option<Duration>,
    /// A check that has not passed by then has failed; at most the interval.
    #[schemars(extend("default" = "1s"))]
    timeout: Option<Duration>,
    /// Checks in a row that pass before a down endpoint is up.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    rise: Option<u32>,
    /// Checks in a row that fail before an up endpoint is down.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    fall: Option<u32>,
    /// By what share an interval may be shorter or longer, at most 0.5.
    #[schemars(extend("default" = 0.2))]
    jitter: Option<Ratio>,
    /// Where checks connect, instead of the endpoint's own port.
    #[schemars(range(min = 1, max = 65535))]
    port: Option<u16>,
    /// What a new endpoint is taken for until it was checked.
    #[schemars(extend("default" = "up"))]
    init_state: Option<InitState>,
    /// A good answer to a client within the last interval stands in for the check that is due.
    #[schemars(extend("default" = false))]
    traffic: Option<bool>,
}

/// What endpoints say of themselves, in HAProxy's agent-check words. At least one of port, header.
#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend("anyOf" = [{ "required": ["port"] }, { "required": ["header"] }])
)]
struct Agent {
    /// Where the agent of each endpoint listens. Default: nobody is asked.
    #[schemars(range(min = 1, max = 65535))]
    port: Option<u16>,
    /// Sent to the agent first, as it stands here. Default: nothing.
    #[schemars(length(max = 1024))]
    send: Option<String>,
    /// From one question to the next.
    #[schemars(extend("default" = "2s"))]
    interval: Option<Duration>,
    /// An agent whose line has not come by then is not heard; at most the interval.
    #[schemars(extend("default" = "1s"))]
    timeout: Option<Duration>,
    /// A response field in which an endpoint says the same; clients do not get it. Default: none.
    header: Option<String>,
}

/// What is asked of an endpoint.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Check {
    /// A connection.
    Tcp,
    /// A request, answered as expected.
    Http,
    /// Check of grpc.health.v1.Health, answered with SERVING.
    Grpc,
    /// PING of a Redis server.
    Redis,
    /// The startup of a connection to a PostgreSQL server.
    Postgres,
    /// The greeting of a MySQL server, and a login if there is a user.
    Mysql,
    /// The greeting of a mail server, and EHLO.
    Smtp,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum CheckTls {
    Switch(bool),
    Table(CheckTlsTable),
}

/// How checks speak TLS.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CheckTlsTable {
    /// The name that the certificate must have. Default: that of `host`, or the endpoint's address.
    server_name: Option<String>,
    /// File of the CAs that are trusted (PEM). Default: those of the system.
    ca: Option<String>,
    /// Takes every certificate.
    #[schemars(extend("default" = false))]
    insecure: Option<bool>,
}

/// What the response to a check must be.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Expect {
    /// "200", "200-299", or a list of these.
    #[schemars(extend("default" = "200-399"))]
    status: Option<OneOrMore>,
    /// Text that the body holds, or "~regex". Default: the body is not read.
    body: Option<String>,
}

/// What a new endpoint is taken for until it was checked.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum InitState {
    /// Up; the first check that fails takes it down.
    Up,
    /// Down; the first check that passes brings it up.
    Down,
    /// Up; `fall` checks in a row take it down.
    FullyUp,
    /// Down; `rise` checks in a row bring it up.
    FullyDown,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Endpoint {
    Address(String),
    Weighted(WeightedEndpoint),
}

/// An endpoint with a weight, a zone, a priority.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WeightedEndpoint {
    /// "10.0.0.11:8000" or "unix:/run/app.sock".
    address: String,
    /// Its share; 0 gets nothing unless all have 0.
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    weight: Option<u32>,
    /// Where it stands; that of `process.zone` is preferred. Default: nowhere.
    zone: Option<String>,
    /// 0 is used first; higher ones take what those below them cannot.
    #[schemars(range(min = 0, max = 15), extend("default" = 0))]
    priority: Option<u8>,
    /// Used only while nobody else is ready.
    #[schemars(extend("default" = false))]
    backup: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Balance {
    Policy(Policy),
    Table(BalanceTable),
}

/// A policy with parameters.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct BalanceTable {
    /// Which endpoint gets the next request.
    policy: Policy,
    /// What is hashed: "client", "header:NAME", "cookie:NAME", "query:NAME", "path" or "host".
    #[schemars(extend("default" = "client"))]
    key: Option<String>,
    /// No endpoint above this multiple (above 1.0) of the mean load. Default: no bound.
    #[schemars(range(max = 100), extend("exclusiveMinimum" = 1.0))]
    bounded_load: Option<f64>,
}

/// Which endpoint gets the next request.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Policy {
    /// In turn, weights ignored.
    RoundRobin,
    /// In turn by weight, evenly spread.
    Weighted,
    /// At random by weight.
    Random,
    /// Of two at random, the one with fewer requests in flight.
    LeastRequest,
    /// Of two at random, the one that answers sooner; failures count as slow.
    PeakEwma,
    /// Ketama ring, the same mapping as nginx.
    RingHash,
    /// Maglev table: even and quick.
    Maglev,
    /// Highest random weight: least disruption, cost grows with endpoints.
    Rendezvous,
    /// The first that is ready, in the order given.
    First,
}

/// A cookie keeps a client on its endpoint.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sticky {
    /// Name of the cookie.
    cookie: String,
    /// The Secure attribute: browsers send it over TLS only.
    #[schemars(extend("default" = false))]
    secure: Option<bool>,
    /// Max-Age in whole seconds. Default: until the browser closes.
    ttl: Option<Duration>,
    /// File whose first line (16 bytes or more) signs cookies: the same for all isobars of a fleet.
    /// What further lines have signed is understood. Default: a key in `state_dir`, or none.
    secret_file: Option<String>,
}
