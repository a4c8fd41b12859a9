//! What is said of one exchange: borrowed, so that nothing is copied before it is formatted.

use std::net::{IpAddr, SocketAddr};

use crate::base::clock::Nanos;
use crate::telemetry::reason::Reason;

/// One exchange, told at its end. Every text comes as it is; escaping is the formats' work.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the exchange began, in nanoseconds since 1970 (UTC).
    pub unix_nanos: u64,
    /// The client after `trusted_proxies`; `None` for a client on a unix socket.
    pub client: Option<IpAddr>,
    /// The other end of the connection; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// Name of the listener.
    pub listener: &'a str,
    /// Name of the route; empty when none was found.
    pub route: &'a str,
    /// Name of the upstream; empty when none was asked.
    pub upstream: &'a str,
    /// Address of the last endpoint tried; empty when none was.
    pub endpoint: &'a str,
    /// Empty when the head was never read.
    pub method: &'a [u8],
    /// The target as it came, query included.
    pub target: &'a [u8],
    /// The host asked for.
    pub host: &'a [u8],
    /// `User-Agent`; empty when absent.
    pub user_agent: &'a [u8],
    /// `Referer`; empty when absent.
    pub referer: &'a [u8],
    /// Such as `HTTP/1.1`; empty when unknown.
    pub protocol: &'a str,
    /// The request id; empty when off.
    pub request_id: &'a [u8],
    /// Final status; 0 = no response was sent (shown as 499 when the client was gone).
    pub status: u16,
    /// Endpoints tried.
    pub attempts: u32,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// When things happened.
    pub timings: Timings,
    /// How it ended.
    pub ending: Ending,
    /// Where it ended.
    pub phase: Phase,
    /// Why it was refused or failed; also says whose doing it was.
    pub reason: Option<Reason>,
    /// The connection became a tunnel.
    pub tunnel: bool,
}

/// Moments of an exchange, in nanoseconds since its beginning; `None` = not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// The request's head was complete.
    pub head: Option<Nanos>,
    /// The (last) endpoint was picked.
    pub picked: Option<Nanos>,
    /// The connection to it was ready.
    pub connected: Option<Nanos>,
    /// The first byte of its response came.
    pub first_byte: Option<Nanos>,
    /// The end.
    pub total: Nanos,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client went away.
    Cancelled,
    /// Something broke: an endpoint, a deadline, this program.
    Failed,
    /// A complete response was sent.
    Ok,
    /// We refused it: a limit, no route, a malformed request.
    Refused,
}

/// Where an exchange was when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Making a connection to an endpoint.
    Connect,
    /// Complete.
    Done,
    /// Choosing an endpoint.
    Pick,
    /// Waiting for an endpoint with room.
    Queue,
    /// Reading the request's head.
    RequestHead,
    /// Relaying the request, no response yet.
    Request,
    /// Relaying the response.
    Response,
    /// Finding the route.
    Route,
    /// In a tunnel.
    Tunnel,
    /// Waiting for the response's head.
    Wait,
}

// === impl Entry ===

impl Default for Entry<'_> {
    /// An exchange of which nothing is known yet.
    fn default() -> Self {
        Self {
            unix_nanos: 0,
            client: None,
            peer: None,
            listener: "",
            route: "",
            upstream: "",
            endpoint: "",
            method: b"",
            target: b"",
            host: b"",
            user_agent: b"",
            referer: b"",
            protocol: "",
            request_id: b"",
            status: 0,
            attempts: 0,
            bytes_in: 0,
            bytes_out: 0,
            timings: Timings::default(),
            ending: Ending::Ok,
            phase: Phase::Done,
            reason: None,
            tunnel: false,
        }
    }
}

impl Entry<'_> {
    /// The status to show: 499 stands for a client that went away before any response.
    pub(super) fn shown_status(&self) -> u16 {
        match (self.status, self.reason) {
            (0, Some(Reason::ClientGone)) => Reason::ClientGone.status(),
            (status, _) => status,
        }
    }
}

// === impl Ending ===

impl Ending {
    /// Every one, in the order of its place.
    pub const ALL: [Self; 4] = [Self::Cancelled, Self::Failed, Self::Ok, Self::Refused];

    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

// === impl Phase ===

impl Phase {
    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Done => "done",
            Self::Pick => "pick",
            Self::Queue => "queue",
            Self::RequestHead => "request_head",
            Self::Request => "request",
            Self::Response => "response",
            Self::Route => "route",
            Self::Tunnel => "tunnel",
            Self::Wait => "wait",
        }
    }
}
