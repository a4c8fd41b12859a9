//! What is counted of each named object, as one worker's cells.
//!
//! The field docs say when a cell moves; [`families`](super::families) says what is exposed.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::cell::{Counter, Gauge, Histogram};
use crate::base::tls::{Handshake, TlsVersion};
use crate::telemetry::abuse::Abuse;
use crate::telemetry::access_log::Ending;
use crate::telemetry::reason::Reason;

/// Counters by [`Reason`].
#[derive(Debug)]
pub struct ByReason([Counter; Reason::ALL.len()]);

/// Class of a response's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CodeClass {
    /// No response was sent (the client went away, the connection broke).
    None,
    /// 1xx: only 101, an upgrade.
    Informational,
    /// 2xx.
    Success,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
}

/// The protocol a client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// How an attempt at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndpointOutcome {
    /// The client or the proxy's own deadline ended it: not the endpoint's fault.
    Cancelled,
    /// A response with a 4xx status.
    ClientError,
    /// No connection.
    ConnectError,
    /// A complete response, not 4xx or 5xx.
    Ok,
    /// The connection broke, or the response was not HTTP.
    Reset,
    /// A response with a 5xx status.
    ServerError,
    /// Nothing came in time.
    Timeout,
}

/// Why a connection to an endpoint could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectFailure {
    /// Out of local ports, descriptors or memory.
    Local,
    /// The endpoint refused it.
    Refused,
    /// `connect_timeout` passed.
    Timeout,
    /// No TLS, or no protocol, could be agreed on.
    Tls,
    /// No network path.
    Unreachable,
}

/// Where the connection of an attempt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PoolOutcome {
    /// A new connection was made.
    Fresh,
    /// An idle one was used.
    Reused,
    /// An idle one was found closed at check-out and thrown away (another outcome follows).
    Stale,
}

/// Why an idle connection left the pool without being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PoolClose {
    /// The endpoint closed it, or sent something unasked.
    Dead,
    /// `idle_timeout` passed.
    Expired,
    /// `max_idle` is reached: it was not kept.
    Full,
    /// The endpoint is down or left the upstream, or the process drains.
    Removed,
}

/// How an active check of an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CheckResult {
    /// The body is not as expected.
    Body,
    /// The connection ended before the answer did.
    Closed,
    /// No connection could be made.
    Connect,
    /// Out of local ports, descriptors or memory: says nothing of the endpoint.
    Local,
    /// It passed.
    Ok,
    /// What came is not of the protocol, or is an error of it.
    Protocol,
    /// The status is not as expected.
    Status,
    /// `timeout` passed.
    Timeout,
    /// TLS could not be agreed on: an expired or unknown certificate, a wrong name, no TLS at all.
    Tls,
    /// Not made: an answer to a client proved the endpoint well.
    Traffic,
}

/// Why a flow of UDP ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowEnd {
    /// Its client had `max_flows_per_client`, and it was the quietest of them.
    ClientLimit,
    /// Nothing was heard of it for `idle_timeout`.
    Idle,
    /// There were `max_flows`, and it was the one to go.
    Limit,
    /// Its client has had all answers (`responses`).
    Responses,
    /// The listener or the process ended.
    Stopped,
}

/// Why a datagram was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DatagramDrop {
    /// It would have begun a flow on a listener that drains.
    Draining,
    /// No endpoint took it.
    Endpoint,
    /// The system refused it: a destination that cannot be reached, a firewall.
    Refused,
    /// The flow that it would have begun was refused: a limit, no endpoint.
    Refusal,
    /// The socket that was to send it had no room.
    SendBuffer,
    /// With the PROXY protocol's header it is longer than a datagram may be.
    TooLong,
    /// The PROXY protocol's header in it is missing or wrong, or its sender is not one of those it is
    /// taken from.
    ProxyProtocol,
}

/// Why another attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RetryReason {
    /// No connection.
    Connect,
    /// The connection broke before a response.
    Reset,
    /// The response's status is in `retry.on`.
    Status,
    /// Nothing came within `per_try_timeout`.
    Timeout,
}

/// One worker: things that belong to no named object.
#[derive(Debug, Default)]
pub struct WorkerCells {
    /// Client connections this worker serves now.
    pub connections: Gauge,
    /// Requests whose head was read.
    pub requests: Counter,
    /// Nanoseconds the worker's runtime was busy (stored from the runtime's own total).
    pub busy: Counter,
    /// Times the worker's runtime went to sleep (stored from the runtime's own total).
    pub parks: Counter,
    /// I/O buffers in use, those of exchangers at work included.
    pub buffers_in_use: Gauge,
    /// I/O buffers kept for reuse.
    pub buffers_spare: Gauge,
    /// Upgraded connections open.
    pub tunnels: Gauge,
    /// Upgrades done.
    pub tunnels_total: Counter,
    /// Body and tunnel bytes relayed through a buffer.
    pub copied_bytes: Counter,
    /// Body and tunnel bytes moved by splice(2).
    pub spliced_bytes: Counter,
    /// Access-log lines formatted (written by `telemetry::access_log`).
    pub log_lines: Counter,
    /// Access-log lines dropped because the writer was behind (likewise).
    pub log_dropped: Counter,
}

/// One listener.
#[derive(Debug, Default)]
pub struct ListenerCells {
    /// Connections accepted.
    pub accepts: Counter,
    /// Failed calls of accept(2): out of descriptors or memory.
    pub accept_errors: Counter,
    /// Connections open.
    pub connections: Gauge,
    /// Accepted connections given to another worker (counted by the giver).
    pub handoffs: Counter,
    /// Requests whose head was read.
    pub requests: Counter,
    /// Connections and requests refused before a route was known, by reason.
    pub refusals: ByReason,
    /// Connections of HTTP/2 that were ended because they were abused.
    abuses: [Counter; Abuse::ALL.len()],
    /// Bytes read from clients, heads included.
    pub received_bytes: Counter,
    /// Bytes written to clients, heads included.
    pub sent_bytes: Counter,
    handshakes: [Counter; Handshake::ALL.len()],
    /// TLS handshakes that succeeded: from the accept to the end.
    pub handshake_duration: Histogram,
    tls_connections: [Counter; TlsVersion::ALL.len()],
    flows: [Counter; Ending::ALL.len()],
    /// Flows of UDP that are open.
    pub open_flows: Gauge,
    flow_ends: [Counter; FlowEnd::ALL.len()],
    /// Datagrams of clients.
    pub received_datagrams: Counter,
    /// Datagrams that clients were sent.
    pub sent_datagrams: Counter,
    dropped_datagrams: [Counter; DatagramDrop::ALL.len()],
    /// Connections of TCP and flows of UDP that were passed on: from the accept to the end.
    pub flow_duration: Histogram,
    /// What a limit would have refused, had it not been told to observe.
    pub observed: ByReason,
    /// Times new certificates were served, or files were whole again. Control plane only.
    pub renewals: Counter,
    /// Times changed files could not be served. Control plane only.
    pub failed_renewals: Counter,
}

/// One route.
#[derive(Debug, Default)]
pub struct RouteCells {
    requests: [[Counter; CodeClass::ALL.len()]; Protocol::ALL.len()],
    /// Exchanges begun and not ended.
    pub in_flight: Gauge,
    /// From the first byte of the request's head to the end of the response.
    pub duration: Histogram,
    /// From the first byte of the request's head to the first byte of the response's, written.
    pub response_start: Histogram,
    /// Exchanges refused or failed by us, by reason.
    pub refusals: ByReason,
    /// Exchanges that a limit would have refused, had it not been told to observe.
    pub observed: ByReason,
    /// Request body bytes received.
    pub request_body_bytes: Counter,
    /// Response body bytes sent.
    pub response_body_bytes: Counter,
}

/// One upstream. (Requests by outcome are summed from the endpoints, gone ones included.)
#[derive(Debug, Default)]
pub struct UpstreamCells {
    /// Successful connects: from the call to the connection being usable.
    pub connect_duration: Histogram,
    connect_failures: [Counter; ConnectFailure::ALL.len()],
    /// From the request's head being written to the first byte of the response.
    pub response_start: Histogram,
    pool: [Counter; PoolOutcome::ALL.len()],
    pool_closes: [Counter; PoolClose::ALL.len()],
    /// Requests sent once more because a reused connection turned out to be dead.
    pub replays: Counter,
    retries: [Counter; RetryReason::ALL.len()],
    /// Retries and hedges that the budget did not grant.
    pub budget_refusals: Counter,
    /// Second attempts begun beside a first one.
    pub hedges: Counter,
    /// Second attempts that answered first.
    pub hedges_won: Counter,
    /// Exchanges begun: what the retry budget is a share of.
    pub exchanges: Counter,
    /// Exchanges that wait for an endpoint with room.
    pub queued: Gauge,
    /// How long those waited that went in.
    pub queue_wait: Histogram,
    /// Exchanges that the breaker would have refused, had it not been told to observe.
    pub breaker_observed: Counter,
    /// 0 = closed, 1 = half-open, 2 = open. Control plane only.
    pub breaker: Gauge,
    /// Times it opened. Control plane only.
    pub breaker_opened: Counter,
    /// Picks that found no endpoint ready.
    pub no_endpoint: Counter,
    /// 1 while endpoints that are down are used because none is up. Control plane only.
    pub failing_open: Gauge,
    /// 1 while no endpoint is ready. Control plane only.
    pub failing_closed: Gauge,
}

/// One endpoint.
#[derive(Debug, Default)]
pub struct EndpointCells {
    requests: [Counter; EndpointOutcome::ALL.len()],
    /// Connections open to it, idle ones included.
    pub connections: Gauge,
    /// Connections idle in the pool.
    pub idle_connections: Gauge,
    /// Connections made.
    pub connects: Counter,
    /// Bytes written to it, heads included.
    pub sent_bytes: Counter,
    /// Bytes read from it, heads included.
    pub received_bytes: Counter,
    /// 0 = nobody checks it, 1 = down, 2 = up. Control plane only, as what follows.
    pub health: Gauge,
    checks: [Counter; CheckResult::ALL.len()],
    agent_checks: [Counter; CheckResult::ALL.len()],
    /// 1 while it is ejected.
    pub ejected: Gauge,
    /// Times it was ejected.
    pub ejections: Counter,
    /// Times it would have been, had the limit or the mode let it.
    pub ejections_spared: Counter,
}

/// The access log's writer thread.
#[derive(Debug, Default)]
pub struct LogWriterCells {
    /// Lines written.
    pub lines: Counter,
    /// Bytes written.
    pub bytes: Counter,
    /// Lines lost because a write failed.
    pub lost_lines: Counter,
    /// Writes, opens and reopens that failed.
    pub errors: Counter,
}

/// Attempts to replace the configuration.
#[derive(Debug, Default)]
pub struct ConfigCells {
    /// Reloads that were made.
    pub reloads: Counter,
    /// Reloads that were refused.
    pub refused: Counter,
    /// Whether the last attempt was refused: 0 or 1.
    last_refused: AtomicU64,
    /// When the configuration that is served was loaded, in milliseconds since 1970.
    loaded_at: AtomicU64,
}

// === impl ConfigCells ===

impl ConfigCells {
    /// A configuration is served since `now_unix_ms`, by the start or a reload.
    pub fn succeeded(&self, now_unix_ms: u64) {
        if self.loaded_at.swap(now_unix_ms, Relaxed) != 0 {
            self.reloads.inc();
        }
        self.last_refused.store(0, Relaxed);
    }

    /// A configuration was refused.
    pub fn failed(&self) {
        self.refused.inc();
        self.last_refused.store(1, Relaxed);
    }

    /// Whether the files can be served as far as is known: the last attempt succeeded.
    pub fn is_last_good(&self) -> bool {
        self.last_refused.load(Relaxed) == 0
    }

    /// When the configuration that is served was loaded, in seconds since 1970.
    pub fn loaded_at_seconds(&self) -> f64 {
        self.loaded_at.load(Relaxed) as f64 / 1000.0
    }
}

// === impl ByReason ===

impl Default for ByReason {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ByReason {
    /// The counter of `reason`.
    #[inline]
    pub fn of(&self, reason: Reason) -> &Counter {
        &self.0[reason.index()]
    }
}

// === impl CodeClass ===

impl CodeClass {
    /// Every class.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
    ];

    /// The class of a status; 0 and everything outside 100-599 is [`CodeClass::None`].
    #[inline]
    pub const fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::None,
        }
    }

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 2] = [Self::H1, Self::H2];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

// === impl EndpointOutcome ===

impl EndpointOutcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Cancelled,
        Self::ClientError,
        Self::ConnectError,
        Self::Ok,
        Self::Reset,
        Self::ServerError,
        Self::Timeout,
    ];

    /// The outcome of a complete response with this status.
    #[inline]
    pub const fn of(status: u16) -> Self {
        match status {
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Ok,
        }
    }

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::ClientError => "client_error",
            Self::ConnectError => "connect_error",
            Self::Ok => "ok",
            Self::Reset => "reset",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
        }
    }
}

// === impl ConnectFailure ===

impl ConnectFailure {
    /// Every failure.
    pub const ALL: [Self; 5] = [
        Self::Local,
        Self::Refused,
        Self::Timeout,
        Self::Tls,
        Self::Unreachable,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
        }
    }
}

// === impl PoolOutcome ===

impl PoolOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Reused, Self::Stale];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Reused => "reused",
            Self::Stale => "stale",
        }
    }
}

// === impl PoolClose ===

impl PoolClose {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Dead, Self::Expired, Self::Full, Self::Removed];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Full => "full",
            Self::Removed => "removed",
        }
    }
}

// === impl CheckResult ===

impl CheckResult {
    /// Every result.
    pub const ALL: [Self; 10] = [
        Self::Body,
        Self::Closed,
        Self::Connect,
        Self::Local,
        Self::Ok,
        Self::Protocol,
        Self::Status,
        Self::Timeout,
        Self::Tls,
        Self::Traffic,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Closed => "closed",
            Self::Connect => "connect",
            Self::Local => "local",
            Self::Ok => "ok",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Traffic => "traffic",
        }
    }
}

// === impl FlowEnd ===

impl FlowEnd {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::ClientLimit,
        Self::Idle,
        Self::Limit,
        Self::Responses,
        Self::Stopped,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientLimit => "client_limit",
            Self::Idle => "idle",
            Self::Limit => "limit",
            Self::Responses => "responses",
            Self::Stopped => "stopped",
        }
    }
}

// === impl DatagramDrop ===

impl DatagramDrop {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Draining,
        Self::Endpoint,
        Self::Refused,
        Self::Refusal,
        Self::SendBuffer,
        Self::TooLong,
        Self::ProxyProtocol,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Endpoint => "endpoint",
            Self::Refused => "refused",
            Self::Refusal => "flow_refused",
            Self::SendBuffer => "send_buffer",
            Self::TooLong => "too_long",
            Self::ProxyProtocol => "proxy_protocol",
        }
    }
}

// === impl RetryReason ===

impl RetryReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Reset, Self::Status, Self::Timeout];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Status => "status",
            Self::Timeout => "timeout",
        }
    }
}

// === impl ListenerCells ===

impl ListenerCells {
    /// Connections of HTTP/2 that were ended, by the kind of abuse.
    #[inline]
    pub fn abuses(&self, kind: Abuse) -> &Counter {
        &self.abuses[kind.index()]
    }

    /// TLS handshakes by how they ended.
    #[inline]
    pub fn handshakes(&self, ending: Handshake) -> &Counter {
        &self.handshakes[ending as usize]
    }

    /// Connections of TCP and flows of UDP by how they ended.
    #[inline]
    pub fn flows(&self, ending: Ending) -> &Counter {
        &self.flows[ending as usize]
    }

    /// Flows of UDP by why they ended.
    #[inline]
    pub fn flow_ends(&self, end: FlowEnd) -> &Counter {
        &self.flow_ends[end as usize]
    }

    /// Datagrams that were not passed on.
    #[inline]
    pub fn dropped_datagrams(&self, why: DatagramDrop) -> &Counter {
        &self.dropped_datagrams[why as usize]
    }

    /// Connections whose handshake succeeded, by version.
    #[inline]
    pub fn tls_connections(&self, version: TlsVersion) -> &Counter {
        &self.tls_connections[version as usize]
    }
}

// === impl RouteCells ===

impl RouteCells {
    /// Requests by protocol and class of the final status.
    #[inline]
    pub fn requests(&self, protocol: Protocol, class: CodeClass) -> &Counter {
        &self.requests[protocol as usize][class as usize]
    }
}

// === impl UpstreamCells ===

impl UpstreamCells {
    /// Failed connects.
    #[inline]
    pub fn connect_failures(&self, failure: ConnectFailure) -> &Counter {
        &self.connect_failures[failure as usize]
    }

    /// Where the connections of attempts came from.
    #[inline]
    pub fn pool(&self, outcome: PoolOutcome) -> &Counter {
        &self.pool[outcome as usize]
    }

    /// Idle connections closed.
    #[inline]
    pub fn pool_closes(&self, close: PoolClose) -> &Counter {
        &self.pool_closes[close as usize]
    }

    /// Further attempts.
    #[inline]
    pub fn retries(&self, reason: RetryReason) -> &Counter {
        &self.retries[reason as usize]
    }
}

// === impl EndpointCells ===

impl EndpointCells {
    /// Attempts by outcome.
    #[inline]
    pub fn requests(&self, outcome: EndpointOutcome) -> &Counter {
        &self.requests[outcome as usize]
    }

    /// Active checks by result.
    #[inline]
    pub fn checks(&self, result: CheckResult) -> &Counter {
        &self.checks[result as usize]
    }

    /// Questions to its agent by result.
    #[inline]
    pub fn agent_checks(&self, result: CheckResult) -> &Counter {
        &self.agent_checks[result as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array is indexed by `as usize`: the order of each `ALL` must be that of its enum.
    #[test]
    fn order_of_all_is_order_of_enum() {
        assert!(
            CodeClass::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            Protocol::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            EndpointOutcome::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            ConnectFailure::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            PoolOutcome::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            PoolClose::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            CheckResult::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            FlowEnd::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            DatagramDrop::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
        assert!(
            RetryReason::ALL
                .iter()
                .enumerate()
                .all(|(i, &v)| i == v as usize)
        );
    }

    #[test]
    fn status_has_its_class() {
        assert_eq!(CodeClass::of(0), CodeClass::None);
        assert_eq!(CodeClass::of(101), CodeClass::Informational);
        assert_eq!(CodeClass::of(204), CodeClass::Success);
        assert_eq!(CodeClass::of(308), CodeClass::Redirection);
        assert_eq!(CodeClass::of(499), CodeClass::ClientError);
        assert_eq!(CodeClass::of(504), CodeClass::ServerError);
        assert_eq!(CodeClass::of(600), CodeClass::None);
        assert_eq!(EndpointOutcome::of(302), EndpointOutcome::Ok);
        assert_eq!(EndpointOutcome::of(404), EndpointOutcome::ClientError);
        assert_eq!(EndpointOutcome::of(599), EndpointOutcome::ServerError);
    }
}
