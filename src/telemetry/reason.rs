//! Why an exchange was refused or failed: one enum for the response, the metrics and the log.
//!
//! Each reason has a status, the proxy error type of RFC 9209 (section 2.3, for `Proxy-Status`), our
//! own word (metric label, log field) and the party whose doing it was.

use std::fmt;

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// The client's: it sent what we refuse, was too slow, or went away.
    Client,
    /// The endpoint's (or nobody could be reached).
    Endpoint,
    /// Ours: a limit, a deadline, a state or a fault of this process.
    Proxy,
}

/// Why an exchange was refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The request's framing can be read in two ways (CL and TE, differing CLs, TE on HTTP/1.0 …).
    AmbiguousFraming,
    /// The endpoint did not answer within the route's `per_try_timeout`.
    AttemptTimeout,
    /// Bad chunk syntax or trailers in a request body.
    BadBody,
    /// Host missing, doubled, malformed, or at odds with an absolute target.
    BadHost,
    /// The request head is not HTTP.
    BadRequest,
    /// The endpoint's response is not HTTP, or its framing can be read in two ways.
    BadResponse,
    /// The request body is larger than the listener allows.
    BodyTooLarge,
    /// The upstream's breaker is open.
    Breaker,
    /// The client went away before its response was complete; 499 stands in logs only.
    ClientGone,
    /// The client stopped sending its body, or stopped reading its response.
    ClientIdle,
    /// The endpoint refused the connection.
    ConnectRefused,
    /// The endpoint did not accept the connection in time.
    ConnectTimeout,
    /// The listener's `max_connections` is reached: the connection is answered and closed.
    ConnectionsLimit,
    /// The route's total deadline passed.
    Deadline,
    /// The process drains and takes no new work.
    Draining,
    /// No byte came from the endpoint for `idle_timeout` while one was awaited.
    EndpointIdle,
    /// The endpoint closed or reset the connection before any byte of its response.
    EndpointReset,
    /// No TLS, or no protocol, could be agreed on with the endpoint.
    EndpointTls,
    /// The endpoint's `max_connections` is reached.
    EndpointsLimit,
    /// `Expect` names something other than 100-continue.
    Expectation,
    /// The listener's `max_flows` or `max_flows_per_client` is reached, and the flow was the quietest.
    FlowsLimit,
    /// The request head is larger than the listener allows.
    HeadTooLarge,
    /// The request head did not arrive in time.
    HeaderTimeout,
    /// A fault of this program.
    Internal,
    /// A method we do not serve (CONNECT).
    MethodRefused,
    /// The request is for a host that this connection may not ask for.
    Misdirected,
    /// No endpoint is ready.
    NoEndpoint,
    /// No route matches.
    NoRoute,
    /// More requests wait in the connection's buffer than the listener allows.
    PipelineLimit,
    /// The client speaks plain HTTP to a port that speaks TLS.
    PlainHttp,
    /// The header of the PROXY protocol is missing, late or wrong, or its sender is not one of
    /// `proxy_protocol.from`.
    ProxyProtocol,
    /// Every endpoint has its most exchanges, and the queue is full.
    QueueFull,
    /// Every endpoint had its most exchanges for as long as the queue lets wait.
    QueueTimeout,
    /// The client has had its share: the route's `rate_limit`.
    RateLimit,
    /// The endpoint's response head is larger than we accept.
    ResponseHeadTooLarge,
    /// The endpoint's response ended before its body was complete.
    ResponseIncomplete,
    /// The route's `max_concurrent` is reached.
    RouteLimit,
    /// The request target alone is larger than the head may be.
    TargetTooLong,
    /// The request has more fields than the listener allows.
    TooManyFields,
    /// A transfer coding we do not know.
    TransferCoding,
    /// The connection begins with nothing that its listener serves.
    UnknownProtocol,
    /// The endpoint cannot be reached: no network path, no local port, no file descriptor.
    Unreachable,
    /// The endpoint answered an upgrade with something that is none.
    UpgradeRefused,
    /// An HTTP version we do not speak.
    Version,
}

struct Row {
    word: &'static str,
    status: u16,
    proxy_error: &'static str,
    who: Who,
}

// === impl Who ===

impl Who {
    /// The word in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Endpoint => "endpoint",
            Self::Proxy => "proxy",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Reason ===

impl Reason {
    /// Every reason, in the order of its [`index`](Self::index).
    pub const ALL: [Self; 44] = [
        Self::AmbiguousFraming,
        Self::AttemptTimeout,
        Self::BadBody,
        Self::BadHost,
        Self::BadRequest,
        Self::BadResponse,
        Self::BodyTooLarge,
        Self::Breaker,
        Self::ClientGone,
        Self::ClientIdle,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectionsLimit,
        Self::Deadline,
        Self::Draining,
        Self::EndpointIdle,
        Self::EndpointReset,
        Self::EndpointTls,
        Self::EndpointsLimit,
        Self::Expectation,
        Self::FlowsLimit,
        Self::HeadTooLarge,
        Self::HeaderTimeout,
        Self::Internal,
        Self::MethodRefused,
        Self::Misdirected,
        Self::NoEndpoint,
        Self::NoRoute,
        Self::PipelineLimit,
        Self::PlainHttp,
        Self::ProxyProtocol,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::RateLimit,
        Self::ResponseHeadTooLarge,
        Self::ResponseIncomplete,
        Self::RouteLimit,
        Self::TargetTooLong,
        Self::TooManyFields,
        Self::TransferCoding,
        Self::UnknownProtocol,
        Self::Unreachable,
        Self::UpgradeRefused,
        Self::Version,
    ];

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word in metrics, logs and response bodies.
    pub const fn as_str(self) -> &'static str {
        self.row().word
    }

    /// The status of the response, if one can still be sent.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The proxy error type of RFC 9209, section 2.3.
    pub const fn proxy_error(self) -> &'static str {
        self.row().proxy_error
    }

    /// Whose doing it was.
    pub const fn who(self) -> Who {
        self.row().who
    }

    /// Statuses follow RFC 9110 section 15 and, for what lies behind us, the recommendations of
    /// RFC 9209 section 2.3; where a refusal of a client's request has no type of its own there,
    /// it is `http_request_error` (malformed) or `http_request_denied` (refused by a limit).
    const fn row(self) -> Row {
        use Who::{Client, Endpoint, Proxy};
        let (word, status, proxy_error, who) = match self {
            Self::AmbiguousFraming => ("ambiguous_framing", 400, "http_request_error", Client),
            Self::AttemptTimeout => ("attempt_timeout", 504, "http_response_timeout", Endpoint),
            Self::BadBody => ("bad_body", 400, "http_request_error", Client),
            Self::BadHost => ("bad_host", 400, "http_request_error", Client),
            Self::BadRequest => ("bad_request", 400, "http_request_error", Client),
            Self::BadResponse => ("bad_response", 502, "http_protocol_error", Endpoint),
            Self::BodyTooLarge => ("body_too_large", 413, "http_request_denied", Client),
            Self::Breaker => ("breaker", 503, "destination_unavailable", Proxy),
            Self::ClientGone => ("client_gone", 499, "http_request_error", Client),
            Self::ClientIdle => ("client_idle", 408, "http_request_error", Client),
            Self::ConnectRefused => ("connect_refused", 502, "connection_refused", Endpoint),
            Self::ConnectTimeout => ("connect_timeout", 504, "connection_timeout", Endpoint),
            Self::ConnectionsLimit => ("connections_limit", 503, "connection_limit_reached", Proxy),
            Self::Deadline => ("deadline", 504, "http_response_timeout", Proxy),
            Self::Draining => ("draining", 503, "http_request_denied", Proxy),
            Self::EndpointIdle => ("endpoint_idle", 504, "connection_read_timeout", Endpoint),
            Self::EndpointReset => ("endpoint_reset", 502, "connection_terminated", Endpoint),
            Self::EndpointTls => ("endpoint_tls", 502, "tls_protocol_error", Endpoint),
            Self::EndpointsLimit => ("endpoints_limit", 503, "connection_limit_reached", Proxy),
            Self::Expectation => ("expectation", 417, "http_request_error", Client),
            Self::FlowsLimit => ("flows_limit", 503, "connection_limit_reached", Proxy),
            Self::HeadTooLarge => ("head_too_large", 431, "http_request_denied", Client),
            Self::HeaderTimeout => ("header_timeout", 408, "http_request_error", Client),
            Self::Internal => ("internal", 500, "proxy_internal_error", Proxy),
            Self::MethodRefused => ("method_refused", 405, "http_request_denied", Client),
            Self::Misdirected => ("misdirected", 421, "http_request_denied", Client),
            Self::NoEndpoint => ("no_endpoint", 503, "destination_unavailable", Endpoint),
            Self::NoRoute => ("no_route", 404, "destination_not_found", Client),
            Self::PipelineLimit => ("pipeline_limit", 429, "http_request_denied", Client),
            Self::PlainHttp => ("plain_http", 400, "http_request_error", Client),
            Self::ProxyProtocol => ("proxy_protocol", 400, "http_request_error", Client),
            Self::QueueFull => ("queue_full", 503, "connection_limit_reached", Proxy),
            Self::QueueTimeout => ("queue_timeout", 503, "connection_limit_reached", Proxy),
            Self::RateLimit => ("rate_limit", 429, "http_request_denied", Client),
            Self::ResponseHeadTooLarge => (
                "response_head_too_large",
                502,
                "http_response_header_section_size",
                Endpoint,
            ),
            Self::ResponseIncomplete => (
                "response_incomplete",
                502,
                "http_response_incomplete",
                Endpoint,
            ),
            Self::RouteLimit => ("route_limit", 503, "http_request_denied", Proxy),
            Self::TargetTooLong => ("target_too_long", 414, "http_request_denied", Client),
            Self::TooManyFields => ("too_many_fields", 431, "http_request_denied", Client),
            Self::TransferCoding => ("transfer_coding", 501, "http_request_error", Client),
            Self::UnknownProtocol => ("unknown_protocol", 400, "http_request_error", Client),
            Self::Unreachable => ("unreachable", 502, "destination_ip_unroutable", Endpoint),
            Self::UpgradeRefused => ("upgrade_refused", 502, "http_upgrade_failed", Endpoint),
            Self::Version => ("version", 505, "http_request_error", Client),
        };
        Row {
            word,
            status,
            proxy_error,
            who,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// RFC 9209, section 2.3: the registered proxy error types.
    const REGISTERED: [&str; 32] = [
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "connection_limit_reached",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_incomplete",
        "http_response_header_section_size",
        "http_response_header_size",
        "http_response_body_size",
        "http_response_trailer_section_size",
        "http_response_trailer_size",
        "http_response_transfer_coding",
        "http_response_content_coding",
        "http_response_timeout",
        "http_upgrade_failed",
        "http_protocol_error",
        "proxy_internal_response",
        "proxy_internal_error",
        "proxy_configuration_error",
        "proxy_loop_detected",
    ];

    #[test]
    fn every_reason_has_its_own_place_and_word() {
        let mut words = HashSet::new();
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert!(words.insert(reason.as_str()), "{reason} twice");
            assert!(
                reason
                    .as_str()
                    .bytes()
                    .all(|b| b == b'_' || b.is_ascii_lowercase())
            );
        }
        assert_eq!(
            Reason::Version.index() + 1,
            Reason::ALL.len(),
            "ALL holds the last one"
        );
    }

    #[test]
    fn proxy_error_types_are_registered() {
        for reason in Reason::ALL {
            assert!(REGISTERED.contains(&reason.proxy_error()), "{reason}");
        }
    }

    #[test]
    fn status_agrees_with_who() {
        for reason in Reason::ALL {
            let class = reason.status() / 100;
            match reason.who() {
                Who::Client => {
                    assert!(
                        class == 4 || matches!(reason.status(), 501 | 505),
                        "{reason}"
                    );
                }
                Who::Endpoint | Who::Proxy => assert_eq!(class, 5, "{reason}"),
            }
        }
    }
}
