//! The checked model: what the rest of the program reads. An impossible state has no
//! representation here; `lower` is the only place that makes a [`Config`] from text.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use regex::Regex;

use crate::balance::Policy;
use crate::base::addr::{BindAddr, EndpointAddr};
use crate::route::Rule;

/// The name of a listener, route or upstream: its identity across reloads.
pub type Name = Arc<str>;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The process itself.
    pub process: Process,
    /// Metrics and readiness.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// By name, in file order.
    pub listeners: Vec<Listener>,
    /// In file order; a listener's `upstream` shorthand is lowered to a catch-all route that bears
    /// the listener's name.
    pub routes: Vec<Route>,
    /// By name, in file order.
    pub upstreams: Vec<Upstream>,
}

/// `[process]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `None` = one per available core.
    pub workers: Option<NonZeroUsize>,
    /// How long a drain may take before it cuts.
    pub grace: Duration,
    /// Drop privileges to this user after binding, when started as root.
    pub user: Option<String>,
    /// Where operators' overrides are kept from one start to the next; `None` = they last as long as
    /// the process.
    pub state_dir: Option<PathBuf>,
    /// Reload by itself when a file of the configuration changes.
    pub watch: bool,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `/metrics`, `/livez`, `/readyz`.
    pub bind: Option<SocketAddr>,
    /// The Unix socket of the control API.
    pub socket: Option<PathBuf>,
    /// Who may use the socket; empty = root and the user that the process runs as.
    pub allow_uids: Vec<u32>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The program's own log.
    pub level: tracing::Level,
    /// The access log; `None` = off.
    pub access: Option<AccessLog>,
}

/// `log.access`
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Line format.
    pub format: AccessFormat,
    /// Where lines go.
    pub to: LogTarget,
    /// Share of exchanges logged, 0.0-1.0.
    pub sample: f64,
}

/// Access-log line formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// Apache combined.
    Combined,
    /// Apache common.
    Common,
    /// One JSON object a line.
    Json,
    /// For eyes: `key=value` after a short summary.
    Text,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// A file, opened for append, reopened on SIGUSR1.
    File(PathBuf),
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
}

/// `[listeners.NAME]` with protocol http.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The table's name.
    pub name: Name,
    /// At least one.
    pub bind: Vec<BindAddr>,
    /// Connections above this are answered 503, closed and counted.
    pub max_connections: u32,
    /// From the first byte of a head (or the accept) to its end: 408 after.
    pub header_timeout: Duration,
    /// A keep-alive connection without a request is closed after this.
    pub keepalive_timeout: Duration,
    /// No progress in either direction while a request is in flight: 408 or 504.
    pub idle_timeout: Duration,
    /// Largest request head: 431 (414 when the target alone is larger).
    pub max_header_bytes: usize,
    /// Most fields in a request head: 431.
    pub max_headers: usize,
    /// Largest request body: 413. `None` = no limit.
    pub max_body_bytes: Option<u64>,
    /// Requests that may wait in one connection's buffer at once; with more behind it, the last of
    /// that many closes the connection.
    pub max_pipelined: u32,
    /// Whose X-Forwarded-* and Forwarded fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What is told to endpoints about the client.
    pub forwarding: Forwarding,
}

/// `listeners.NAME.forwarding`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// X-Forwarded-For, -Proto and -Host (default on).
    pub x_forwarded: bool,
    /// RFC 7239 Forwarded (default off).
    pub forwarded: bool,
    /// Via, with this pseudonym (default none).
    pub via: Option<Box<str>>,
    /// Name of the request-id field; `None` = off. Default `x-request-id`.
    pub request_id: Option<HeaderName>,
}

/// `[[routes]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Given, or derived from the matchers; unique.
    pub name: Name,
    /// What it matches (listeners included).
    pub rule: Rule,
    /// What it does.
    pub action: Action,
    /// Total deadline of the exchange.
    pub timeout: Option<Duration>,
    /// Changes to the target and Host.
    pub rewrite: Rewrite,
    /// Edits of the request head.
    pub request_headers: HeaderEdits,
    /// Edits of the response head.
    pub response_headers: HeaderEdits,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answer with a redirect; `{rest}` in `to` is the path after a prefix match, `{path}` the whole
    /// path, `{query}` the query with its `?` (empty without one), `{host}` the request's host.
    Redirect {
        /// Template of Location.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
    /// Answer with a fixed response.
    Respond {
        /// Status.
        status: StatusCode,
        /// Body.
        body: String,
        /// Content-Type; default `text/plain; charset=utf-8`.
        content_type: HeaderValue,
    },
    /// To one of several upstreams, chosen at random by weight.
    Split(Vec<(Name, u32)>),
    /// To an upstream.
    Upstream(Name),
}

/// `rewrite`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Removed from the front of the path, on a segment boundary.
    pub strip_prefix: Option<String>,
    /// Put in front of the path (after stripping).
    pub add_prefix: Option<String>,
    /// Replaces Host towards the endpoint.
    pub host: Option<HeaderValue>,
}

/// `request_headers`, `response_headers`: remove, then set, then add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replace (or insert).
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Append.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Remove.
    pub remove: Vec<HeaderName>,
}

/// `[upstreams.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The table's name.
    pub name: Name,
    /// Possibly empty (then every request gets 503).
    pub endpoints: Vec<Endpoint>,
    /// Operators may add and remove endpoints at run time.
    pub dynamic: bool,
    /// `balance`
    pub policy: Policy,
    /// Where the hash key comes from (hash policies).
    pub hash_key: HashKey,
    /// Cookie stickiness.
    pub sticky: Option<Sticky>,
    /// Deadline of a connect.
    pub connect_timeout: Duration,
    /// No byte from the endpoint for this long while one is awaited: 504.
    pub idle_timeout: Duration,
    /// Idle connections kept.
    pub keepalive: Keepalive,
    /// Active checks; `None` = every member is taken for well.
    pub health: Option<Arc<HealthSpec>>,
    /// What holds while no member is ready.
    pub when_unhealthy: WhenUnhealthy,
}

/// `health`
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSpec {
    /// What is asked.
    pub check: Check,
    /// From one check to the next.
    pub interval: Duration,
    /// The same while the endpoint is down.
    pub down_interval: Duration,
    /// From the connect to the last byte that a check needs.
    pub timeout: Duration,
    /// Checks in a row that pass before a down endpoint is up; at least 1.
    pub rise: u32,
    /// Checks in a row that fail before an up endpoint is down; at least 1.
    pub fall: u32,
    /// By what share an interval may be shorter or longer, 0.0 to 0.5.
    pub jitter: f64,
    /// Where checks connect in the place of the endpoint's own port.
    pub port: Option<NonZeroU16>,
    /// What a new endpoint is taken for.
    pub init_state: InitState,
}

/// `health.check` with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// A request is answered as expected.
    Http(HttpCheck),
    /// A startup message is answered by a server that takes connections.
    Postgres,
    /// PING is answered.
    Redis,
    /// The greeting and the answer to EHLO are positive.
    Smtp,
    /// A connection can be made.
    Tcp,
}

/// `health.check = "http"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The request's path, its query included.
    pub path: String,
    /// The request's method.
    pub method: Method,
    /// Its Host; `None` = the endpoint's address.
    pub host: Option<HeaderValue>,
    /// More fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Statuses that are well, as inclusive ranges; at least one.
    pub status: Vec<(u16, u16)>,
    /// What the body must hold; `None` = it is not read.
    pub body: Option<BodyPattern>,
}

/// `health.expect.body`
#[derive(Clone, Debug)]
pub enum BodyPattern {
    /// This text is somewhere in it.
    Contains(String),
    /// This regular expression matches.
    Regex(Regex),
}

/// `health.init_state`, as HAProxy's `init-state`: what a new endpoint is taken for, and how many
/// checks change that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitState {
    /// Down; the first check that passes brings it up.
    Down,
    /// Down; `rise` checks in a row bring it up.
    FullyDown,
    /// Up; `fall` checks in a row take it down.
    FullyUp,
    /// Up; the first check that fails takes it down.
    Up,
}

/// `when_unhealthy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnhealthy {
    /// Requests get 503.
    FailClosed,
    /// Every member that operators admit is taken for ready.
    FailOpen,
}

/// One entry of `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub addr: EndpointAddr,
    /// Default 1.
    pub weight: u32,
}

/// `keepalive`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections older than this are closed (default 55 s).
    pub idle_timeout: Duration,
    /// Idle connections kept per endpoint and worker (default 64; 0 = a connection per request).
    pub max_idle: u32,
}

/// `balance.key`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address (after `trusted_proxies`).
    Client,
    /// A cookie.
    Cookie(String),
    /// A header field.
    Header(HeaderName),
    /// The Host.
    Host,
    /// The path.
    Path,
    /// A query parameter.
    Query(String),
}

/// `sticky`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Cookie name.
    pub cookie: String,
    /// The `Secure` attribute.
    pub secure: bool,
    /// `Max-Age`; `None` = a session cookie.
    pub ttl: Option<Duration>,
}

// === impl Check ===

impl Check {
    /// The word in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Smtp => "smtp",
            Self::Tcp => "tcp",
        }
    }
}

// === impl BodyPattern ===

impl PartialEq for BodyPattern {
    /// Regular expressions are equal when they are written alike.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Contains(a), Self::Contains(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Contains(_), Self::Regex(_)) | (Self::Regex(_), Self::Contains(_)) => false,
        }
    }
}

impl Eq for BodyPattern {}

// === impl InitState ===

impl InitState {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::FullyDown => "fully-down",
            Self::FullyUp => "fully-up",
            Self::Up => "up",
        }
    }
}
