//! The checked model: what the rest of the program reads. An impossible state has no
//! representation here; `lower` is the only place that makes a [`Config`] from text.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use regex::Regex;

use crate::balance::Policy;
use crate::base::addr::{BindAddr, EndpointAddr};
use crate::base::tls::{ServerSpec, TlsClient};
use crate::route::{HostPattern, Rule};

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
    /// The peers that this process acts as one with.
    pub fleet: Option<Arc<Fleet>>,
}

/// `[fleet]`
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Peers of other names are not listened to.
    pub name: Name,
    /// UDP for gossip and TCP for comparing, on one port number. `[::]` is every address, of IPv4 too:
    /// what `":7946"` becomes.
    pub bind: SocketAddr,
    /// Where peers reach this one; `None` = at `bind`, or, where that is every address, at the one that
    /// this machine has towards its seeds (then there are some).
    pub advertise: Option<SocketAddr>,
    /// Whom to ask for the others.
    pub seeds: Vec<Seed>,
    /// The keyring: the first line encrypts, the others are accepted.
    pub secret_file: PathBuf,
    /// Where this peer's identity and what it knows are kept, that of `[process]` unless the fleet's own
    /// table names another; `None` = nowhere: it is a new peer after each start.
    pub state_dir: Option<PathBuf>,
    /// Where this peer stands; what `[process]` says unless the fleet's own table does.
    pub zone: Option<Name>,
    /// How many peers check each endpoint; 0 = everybody checks for itself.
    pub probers: u32,
    /// The share of an upstream's endpoints that the facts of one peer may take away, 0.01 to 1.0.
    pub max_remove: f64,
    /// How far the clock of a peer may be off before it is not believed.
    pub max_clock_skew: Duration,
    /// Where endpoints register themselves.
    pub register: Option<Register>,
}

/// `fleet.seeds`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// One peer.
    Addr(SocketAddr),
    /// `"dns:isobar.internal:7946"`: every address of the name, asked for again while peers are missing.
    Dns {
        /// The name.
        name: String,
        /// The port of all of them.
        port: u16,
    },
}

/// `fleet.register`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The address that it is served at, over HTTP; `[::]` as in [`Fleet::bind`].
    pub bind: SocketAddr,
    /// The tokens that endpoints show, one a line: any of them will do.
    pub token_file: PathBuf,
    /// The longest `ttl` that an endpoint may ask for.
    pub max_ttl: Duration,
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
    /// Where this process stands: endpoints of the same zone are preferred.
    pub zone: Option<Name>,
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

/// `[listeners.NAME]`. What is said of requests means something while it serves HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The table's name.
    pub name: Name,
    /// At least one; of UDP no Unix socket.
    pub bind: Vec<BindAddr>,
    /// What is spoken with its clients.
    pub serves: Serves,
    /// From whom the PROXY protocol is taken, and from nobody else anything at all; `None` = clients
    /// connect themselves.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Connections that begin with a ClientHello for one of these go there unopened; the first that
    /// matches. Not with UDP.
    pub passthrough: Vec<Passthrough>,
    /// What else may be spoken at the same port; `None` = nothing. Not with UDP.
    pub detect: Option<Detect>,
    /// How long its connections may take to end once it drains; `None` = `process.grace`.
    pub grace: Option<Duration>,
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
    /// TLS; `None` = clear text.
    pub tls: Option<Arc<ListenerTls>>,
    /// HTTP/2, by ALPN under TLS and by prior knowledge in clear text; `None` = HTTP/1 only.
    pub http2: Option<Http2>,
    /// A connection older than this (up to a tenth more or less, so that those opened together do not
    /// end together) ends with its next answer, one of HTTP/2 by GOAWAY; `None` = it may live for ever.
    pub max_connection_age: Option<Duration>,
}

/// `listeners.NAME.protocol`, with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Serves {
    /// Requests, to routes.
    Http,
    /// Connections, as they are.
    Tcp(TcpSpec),
    /// Datagrams.
    Udp(UdpSpec),
}

/// A listener with `protocol = "tcp"`.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpSpec {
    /// Whom its connections go to; `None` = only those that `passthrough` or `detect` name have
    /// somebody, others are refused.
    pub upstream: Option<Name>,
    /// No byte in either direction for this long ends a connection; `None` = it may be silent for ever.
    pub idle_timeout: Option<Duration>,
    /// The same once one side has ended its direction.
    pub half_close_timeout: Duration,
    /// How often whom it serves; by client or as a whole.
    pub rate_limits: Vec<RateLimit>,
}

/// A listener with `protocol = "udp"`.
#[derive(Clone, Debug, PartialEq)]
pub struct UdpSpec {
    /// Whom its datagrams go to.
    pub upstream: Name,
    /// What belongs together.
    pub flow: FlowKey,
    /// No datagram in either direction for this long ends a flow.
    pub idle_timeout: Duration,
    /// So many datagrams of the endpoint end a flow (1 for DNS); `None` = only time does.
    pub responses: Option<NonZeroU32>,
    /// Most flows at once, all workers together; above, those that were quiet for longest go.
    pub max_flows: NonZeroU32,
    /// Most flows of one source address (IPv6: /64); above, its own that was quiet for longest goes.
    pub max_flows_per_client: NonZeroU32,
    /// How often whom it serves a new flow; by client or as a whole.
    pub rate_limits: Vec<RateLimit>,
}

/// `listeners.NAME.flow`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKey {
    /// The client's address and port.
    Client,
    /// The QUIC connection id of `length` bytes that endpoints hand out, so that a client that moves
    /// keeps its endpoint; the client's address and port for what is no QUIC.
    Quic {
        /// How long the connection ids are that endpoints choose: 1 to 20.
        length: u8,
    },
}

/// `listeners.NAME.proxy_protocol`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Who speaks it, beside everybody who connects to a Unix socket; at least one, unless all binds are
    /// such sockets. Connections of others are refused.
    pub from: Vec<IpNet>,
    /// Within what time the header must be there.
    pub timeout: Duration,
}

/// One of `listeners.NAME.passthrough`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// Names that clients ask for, any of these; empty = every one, and none at all.
    pub sni: Vec<HostPattern>,
    /// Protocols that clients offer, any of these; empty = whatever they offer.
    pub alpn: Vec<String>,
    /// Where they go.
    pub upstream: Name,
}

/// `listeners.NAME.detect`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detect {
    /// HTTP in clear text is served at a port that speaks TLS; otherwise it is answered 400.
    pub http: bool,
    /// Where connections go that begin with neither TLS nor HTTP, or with nothing for `timeout`.
    pub other: Option<Name>,
    /// For how long the first bytes are waited for.
    pub timeout: Duration,
}

/// `listeners.NAME.tls`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificates, whom it asks for one, versions, protocols.
    pub server: ServerSpec,
    /// Whether sessions are resumed by tickets.
    pub tickets: bool,
    /// File whose first line is the secret that ticket keys are derived from, and whose further lines
    /// are those of before; `None` = one in `state_dir`, or one for the life of the process.
    pub ticket_secret_file: Option<PathBuf>,
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// What endpoints are told of the client's certificate.
    pub client_headers: ClientHeaders,
}

/// `listeners.NAME.tls.client_headers`: request fields about the client's certificate. Whatever
/// clients send under these names is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHeaders {
    /// The certificate itself as RFC 9440 writes it (`:BASE64:`); by custom `client-cert`.
    pub certificate: Option<HeaderName>,
    /// The SHA-256 of the certificate in lower-case hex.
    pub fingerprint: Option<HeaderName>,
    /// Its subject as RFC 4514 writes it (`CN=alice,O=Example`).
    pub subject: Option<HeaderName>,
}

/// `http2` of a listener
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Most streams that a client may have open at once on a connection.
    pub max_streams: NonZeroU32,
    /// Bytes that a client may send on a stream before they are read.
    pub stream_window: u32,
    /// The same on a connection as a whole.
    pub connection_window: u32,
    /// Streams that a client may cancel at once; a thirtieth of it comes back every second. The same
    /// for the others.
    pub max_resets: u32,
    /// PING frames.
    pub max_pings: u32,
    /// SETTINGS frames.
    pub max_settings: u32,
    /// Frames that move nothing: empty DATA, HEADERS and CONTINUATION, PRIORITY, unknown ones, and
    /// WINDOW_UPDATE beyond what our own DATA frames explain.
    pub max_idle_frames: u32,
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
    /// What is tried again, and how often.
    pub retry: Retry,
    /// How often whom it serves; all of them must let an exchange pass.
    pub rate_limits: Vec<RateLimit>,
    /// Most exchanges at once, all workers together.
    pub max_concurrent: Option<MaxConcurrent>,
}

/// Whether a limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Enforce,
    /// It only counts what it would have refused.
    Observe,
}

/// `retry`
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts of one exchange in all, hedges among them: 1 to [`Retry::MAX_ATTEMPTS`].
    pub attempts: u32,
    /// After what another attempt is made.
    pub on: RetryOn,
    /// How much of an attempt each exchange adds to its upstream's budget, 0.0 to 1.0.
    pub budget: f64,
    /// What one attempt may take until the response's head; `None` = what the upstream's timeouts say.
    pub per_try_timeout: Option<Duration>,
    /// When a second attempt is made beside the first.
    pub hedge: Hedge,
    /// Most bytes of a request body that are kept to be sent again.
    pub body: usize,
}

/// `retry.on`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// A connection could not be made: nothing was sent, any method.
    pub connect: bool,
    /// The connection ended before the response's head: requests that may be repeated.
    pub reset: bool,
    /// `per_try_timeout` or the upstream's `idle_timeout` passed before the response's head: the same.
    pub timeout: bool,
    /// The response has one of these statuses (sorted): the same.
    pub statuses: Vec<u16>,
    /// The response's head has one of these values of `grpc-status` (sorted), any method: servers
    /// that answer so without a message have done nothing.
    pub grpc: Vec<u8>,
}

/// `retry.hedge_after`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// When the response's head has not come after this time.
    After(Duration),
    /// When it has taken longer than this percentile (50 to 99) of those before it.
    Percentile(u8),
    /// Never.
    Off,
}

/// One of `rate_limit`: `rate` exchanges in `per`, `burst` of them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Who is counted apart. Exchanges without the header or cookie are counted together.
    pub key: LimitKey,
    /// How many; at least 1.
    pub rate: u32,
    /// In what time.
    pub per: Duration,
    /// How many at once; at least 1.
    pub burst: u32,
    /// Whether it refuses.
    pub mode: Mode,
    /// Most keys that are remembered; above, those heard of least recently are forgotten.
    pub max_keys: u32,
}

/// `rate_limit.key`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address (after `trusted_proxies`); of IPv6 the /64.
    Client,
    /// A cookie.
    Cookie(String),
    /// A header field.
    Header(HeaderName),
    /// Nobody: the route as a whole.
    Route,
}

/// `max_concurrent`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxConcurrent {
    /// How many.
    pub limit: NonZeroU32,
    /// Whether it refuses.
    pub mode: Mode,
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
    /// Endpoints that speak for themselves.
    pub agent: Option<Arc<AgentSpec>>,
    /// What requests say of endpoints.
    pub outlier: Outlier,
    /// When the upstream as a whole is given a rest.
    pub breaker: Option<Breaker>,
    /// Attempts a second that the budget for retries and hedges grants whatever the traffic.
    pub retry_floor: u32,
    /// Exchanges that an endpoint has in flight at most, all workers together.
    pub max_connections: Option<NonZeroU32>,
    /// Where exchanges wait while every endpoint has its most.
    pub queue: Queue,
    /// The same limit, learnt from latency, for each endpoint.
    pub adaptive: Option<Adaptive>,
    /// For how long an endpoint that is new or has recovered gets less than its share.
    pub slow_start: Option<Duration>,
    /// What is spoken with endpoints.
    pub protocol: Protocol,
    /// TLS to endpoints; `None` = clear text.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Most streams on one HTTP/2 connection (the endpoint may allow fewer); above, another is made.
    pub max_streams: NonZeroU32,
    /// Who the client is, told at the beginning of each connection; `None` = nothing is. A connection
    /// that tells of one client is not used for another.
    pub send_proxy_protocol: Option<ProxyVersion>,
    /// What becomes of an endpoint's exchanges when checks take it down.
    pub on_down: OnDown,
}

/// `upstreams.NAME.send_proxy_protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text: addresses only.
    V1,
    /// Binary: addresses, and what is known besides (ALPN, name, TLS, id); the only one for UDP.
    V2,
}

/// `upstreams.NAME.on_down`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// They end.
    Close,
    /// They go on.
    Keep,
}

/// `upstreams.NAME.protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where the endpoint agrees to it (ALPN), HTTP/1.1 otherwise: needs `tls`.
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2: by ALPN with `tls`, by prior knowledge without.
    H2,
}

/// `upstreams.NAME.tls`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name that certificates must have and SNI tells; `None` = the endpoint's own address.
    pub server_name: Option<String>,
    /// Where the CAs are that are trusted; `None` = those of the system.
    pub ca: Option<PathBuf>,
    /// What this proxy proves itself with: certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// SHA-256 of the public keys (SubjectPublicKeyInfo) of which the endpoint's certificate must have
    /// one, beside all else; empty = any.
    pub pins: Vec<[u8; 32]>,
    /// Whether the certificate must be right; `insecure = true` says no.
    pub verify: bool,
    /// All of it, ready for use: of the same files, the same.
    pub client: TlsClient,
}

/// `agent`: what an endpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSpec {
    /// Where its agent listens (HAProxy's agent-check protocol); `None` = nobody is asked.
    pub port: Option<NonZeroU16>,
    /// Sent to the agent first.
    pub send: Option<String>,
    /// From one question to the next.
    pub interval: Duration,
    /// From the connect to the end of the answer's first line.
    pub timeout: Duration,
    /// A response field in which an endpoint says the same; taken out of what the client gets.
    pub header: Option<HeaderName>,
}

/// `outlier`: passive checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Failures of the endpoint (5xx, reset, silence) in a row.
    pub consecutive_failures: Option<NonZeroU32>,
    /// Connects that failed in a row.
    pub consecutive_connect_failures: Option<NonZeroU32>,
    /// Share of failures of both kinds.
    pub failure_ratio: Option<FailureRatio>,
    /// First ejection; each further one is twice as long.
    pub eject_for: Duration,
    /// Longest ejection.
    pub max_eject: Duration,
    /// Share of the endpoints that may be ejected at once; the last one that is ready never is.
    pub max_ejected: f64,
    /// Whether anybody is ejected.
    pub mode: Mode,
}

/// `failure_ratio` of `outlier` and `breaker`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailureRatio {
    /// Above this share, 0.0 to 1.0.
    pub above: f64,
    /// Of at least so many requests.
    pub min_requests: u32,
    /// In this time.
    pub window: Duration,
}

/// `breaker`
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// Opens when too many attempts fail.
    pub failure_ratio: Option<FailureRatio>,
    /// How long it stays open before trials are let through.
    pub open_for: Duration,
    /// Trials that must all succeed before it closes; so many at once.
    pub trials: NonZeroU32,
    /// Refuses while so many exchanges wait in the queue.
    pub max_pending: Option<NonZeroU32>,
    /// Refuses while so many exchanges are in flight, all endpoints together.
    pub max_in_flight: Option<NonZeroU32>,
    /// Whether it refuses.
    pub mode: Mode,
}

/// `queue`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Most that wait; 0 = nobody does.
    pub length: u32,
    /// Longest wait.
    pub timeout: Duration,
}

/// `adaptive_concurrency`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// The limit is never lower.
    pub min: NonZeroU32,
    /// The limit is never higher.
    pub max: NonZeroU32,
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
    /// A response that proves the endpoint well stands in for the next check.
    pub traffic: bool,
    /// Checks (http and grpc) speak TLS.
    pub tls: Option<CheckTls>,
    /// Checks begin as the upstream's connections do, with a header that tells of no client; `None` = they
    /// do not, or have a `port` of their own.
    pub send_proxy_protocol: Option<ProxyVersion>,
}

// === impl HealthSpec ===

impl HealthSpec {
    /// A check as it is where its table says no more.
    pub fn usual(check: Check) -> Self {
        Self {
            check,
            interval: Duration::from_secs(2),
            down_interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            jitter: 0.2,
            port: None,
            init_state: InitState::Up,
            traffic: false,
            tls: None,
            send_proxy_protocol: None,
        }
    }
}

/// `health.tls`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckTls {
    /// The name that the certificate must have and SNI tells; `None` = as the check's Host says, or
    /// the endpoint's address.
    pub server_name: Option<String>,
    /// Where the CAs are that are trusted; `None` = those of the system.
    pub ca: Option<PathBuf>,
    /// Whether the certificate must be right.
    pub verify: bool,
    /// All of it, ready for use: of the same CAs, the same.
    pub client: TlsClient,
    /// Nothing was said of the check: it is as `tls` of the upstream, its certificate and pins
    /// included.
    pub of_upstream: bool,
}

/// `health.check` with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// grpc.health.v1.Health answers SERVING.
    Grpc(GrpcCheck),
    /// A request is answered as expected.
    Http(HttpCheck),
    /// The greeting of a server that takes connections, and the answer to a login if there is a user.
    Mysql(MysqlCheck),
    /// A startup message is answered by a server that takes connections.
    Postgres,
    /// PING is answered.
    Redis,
    /// The greeting and the answer to EHLO are positive.
    Smtp,
    /// A connection can be made.
    Tcp,
}

/// `health.check = "grpc"`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcCheck {
    /// The service that is asked for; empty = the server as a whole.
    pub service: String,
    /// Its `:authority`; `None` = the endpoint's address.
    pub host: Option<HeaderValue>,
}

/// `health.check = "mysql"`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MysqlCheck {
    /// Logs in under this name, without a password; `None` = the greeting is enough.
    pub user: Option<String>,
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
    /// 0 is used first; higher ones take what those below them cannot. `backup = true` is
    /// [`Endpoint::BACKUP`], which takes nothing while anybody else is ready.
    pub priority: u8,
    /// Where it stands.
    pub zone: Option<Name>,
}

/// `keepalive`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections older than this are closed (default 55 s).
    pub idle_timeout: Duration,
    /// Idle connections kept per endpoint and worker (default 256; 0 = a connection per request).
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
    /// File whose first line is the secret that cookies are signed with, and whose further lines are
    /// those they were signed with before; `None` = a key in `state_dir`, or none.
    pub secret_file: Option<PathBuf>,
}

// === impl Retry ===

impl Retry {
    /// More would be a storm, whatever the budget says.
    pub const MAX_ATTEMPTS: u32 = 10;
}

impl Default for Retry {
    /// Three attempts as in nginx's and Envoy's usual settings; a fifth of the traffic may be
    /// retries, as Finagle's budget has it. 64 KiB hold what forms and API calls send.
    fn default() -> Self {
        Self {
            attempts: 3,
            on: RetryOn {
                connect: true,
                reset: true,
                timeout: false,
                statuses: Vec::new(),
                grpc: Vec::new(),
            },
            budget: 0.2,
            per_try_timeout: None,
            hedge: Hedge::Off,
            body: 64 * 1024,
        }
    }
}

// === impl Outlier ===

impl Outlier {
    /// What holds where the file says nothing: an endpoint that nobody can connect to is left alone
    /// for a while, nothing else is judged.
    pub const fn unconfigured() -> Self {
        Self {
            consecutive_failures: None,
            consecutive_connect_failures: NonZeroU32::new(3),
            failure_ratio: None,
            eject_for: Duration::from_secs(10),
            max_eject: Duration::from_secs(300),
            max_ejected: 0.5,
            mode: Mode::Enforce,
        }
    }

    /// Nobody is judged: `outlier = "off"`.
    pub const fn off() -> Self {
        Self {
            consecutive_connect_failures: None,
            ..Self::unconfigured()
        }
    }
}

// === impl Queue ===

impl Default for Queue {
    /// A second and a half at 700 requests a second; who waits longer than 2 s has reloaded the page.
    fn default() -> Self {
        Self {
            length: 1000,
            timeout: Duration::from_secs(2),
        }
    }
}

// === impl ClientHeaders ===

impl ClientHeaders {
    /// Those that are told.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        [&self.subject, &self.fingerprint, &self.certificate]
            .into_iter()
            .flatten()
    }
}

// === impl TcpSpec ===

impl TcpSpec {
    /// An hour: databases and shells are silent for long, and keep-alives of the system (two hours until
    /// the first) find dead peers too late to be of help.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

    /// As long as Linux waits in FIN_WAIT_2 for ends that nobody reads, five times.
    pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
}

// === impl Serves ===

impl Serves {
    /// The word in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
        }
    }

    /// Whom connections or datagrams go to, where nothing else is said of them; requests have routes.
    pub const fn upstream(&self) -> Option<&Name> {
        match self {
            Self::Http => None,
            Self::Tcp(spec) => spec.upstream.as_ref(),
            Self::Udp(spec) => Some(&spec.upstream),
        }
    }
}

// === impl Detect ===

impl Default for Detect {
    /// Nothing beside TLS and HTTP; 3 s are three losses of a first segment.
    fn default() -> Self {
        Self {
            http: false,
            other: None,
            timeout: Duration::from_secs(3),
        }
    }
}

// === impl Http2 ===

impl Default for Http2 {
    /// 100 streams as RFC 9113 section 6.5.2 advises. 128 KiB a stream carry 2.6 MB/s over 50 ms; the
    /// connection's window is that of all streams together, so that no number of streams which nobody
    /// reads stalls another. The rest: nghttp2 lets 1,000 resets pass at once and 33 a second; a
    /// browser that leaves a page cancels all its streams, gRPC's bandwidth probes are PINGs.
    fn default() -> Self {
        Self {
            max_streams: NonZeroU32::new(100).expect("invariant: not zero"),
            stream_window: 128 * 1024,
            connection_window: 100 * 128 * 1024,
            max_resets: 1000,
            max_pings: 1000,
            max_settings: 100,
            max_idle_frames: 1000,
        }
    }
}

// === impl Check ===

impl Check {
    /// The word in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Grpc(_) => "grpc",
            Self::Http(_) => "http",
            Self::Mysql(_) => "mysql",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Smtp => "smtp",
            Self::Tcp => "tcp",
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The priority of backups.
    pub const BACKUP: u8 = u8::MAX;
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
