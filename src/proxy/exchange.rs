//! What is known about one exchange, and the one place where it becomes metrics and a log line.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::HeaderName;

use crate::base::clock::Nanos;
use crate::http1::{FieldId, RequestHead, Version};
use crate::telemetry::access_log::{Ending, Entry, Phase, Timings};
use crate::telemetry::metrics::cells::{CodeClass, Protocol};
use crate::telemetry::reason::{Reason, Who};
use crate::upstream::{Admission, LocalEndpoint, LocalUpstream, Seen, Ticket};

use super::h1::Conn;
use super::limit::Place;
use super::snapshot::{Held, ListenerPlan, RoutePlan};
use super::worker::Worker;

/// One request and its response, as it goes along. Ends in [`Exchange::record`], exactly once.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The configuration it began under and ends under.
    pub snapshot: Rc<Held>,
    /// The slot of its listener.
    slot: usize,
    /// When the first byte of the request was seen.
    pub started: Nanos,
    /// When its head was complete.
    pub head_at: Nanos,
    /// The route's index in the snapshot, once known.
    route: Option<usize>,
    /// The upstream, once known.
    pub upstream: Option<Rc<LocalUpstream>>,
    /// The endpoint's receipt, once picked.
    pub ticket: Option<Ticket>,
    /// The endpoint of the attempt before, if that failed.
    left: Option<Rc<LocalEndpoint>>,
    /// How the endpoint answered, as far as the head of its response tells.
    pub seen: Option<Seen>,
    /// Let in by the upstream's breaker, if it has one.
    pub admission: Option<Admission>,
    /// Counted against the route's `max_concurrent`, if it has one.
    pub place: Option<Place>,
    /// When to ask again, told with a refusal; in nanoseconds from then.
    pub retry_after: Option<Nanos>,
    /// When an endpoint was picked (the last attempt's).
    pub picked_at: Option<Nanos>,
    /// When a connection to it was there.
    pub connected_at: Option<Nanos>,
    /// When the response's head was there.
    pub first_byte_at: Option<Nanos>,
    /// Endpoints tried.
    pub attempts: u32,
    /// Who sent it.
    pub client: Option<IpAddr>,
    /// Its id.
    pub request_id: [u8; REQUEST_ID_MAX],
    /// How much of `request_id` is used.
    pub request_id_len: usize,
    /// The status sent to the client; 0 = none.
    pub status: u16,
    /// Where it is.
    pub phase: Phase,
    /// Why it was refused or failed.
    pub reason: Option<Reason>,
    /// Request body bytes.
    pub body_in: u64,
    /// Response body bytes.
    pub body_out: u64,
    /// Bytes read from the client, head included.
    pub received: u64,
    /// Bytes written to the client, head included.
    pub sent: u64,
    /// It became a tunnel.
    pub tunnel: bool,
    /// What its client speaks.
    pub protocol: Protocol,
}

/// Longest request id taken over from a trusted proxy: a UUID has 36 bytes, tracing systems' ids
/// up to 64.
pub(super) const REQUEST_ID_MAX: usize = 64;

/// A request id of ours: 128 bits in hex.
const REQUEST_ID_LEN: usize = 32;

// === impl Exchange ===

impl Exchange {
    /// An exchange whose first byte was seen at `started` and whose head is complete, or refused, at
    /// `now`.
    pub(super) fn begin(
        worker: &Worker,
        snapshot: Rc<Held>,
        conn: &Conn,
        started: Nanos,
        now: Nanos,
    ) -> Self {
        if let Some(listener) = snapshot.listener(conn.life.slot) {
            listener.cells.worker(worker.index).requests.inc();
        }
        worker.cells().requests.inc();
        let mut x = Self::new(snapshot, conn.life.slot, conn.peer, started, now);
        if conn.stream.is_channel() {
            x.protocol = Protocol::H2;
        }
        x
    }

    /// The same for what is no request: nothing is counted but its end.
    pub(super) fn new(
        snapshot: Rc<Held>,
        slot: usize,
        peer: Option<SocketAddr>,
        started: Nanos,
        now: Nanos,
    ) -> Self {
        Self {
            snapshot,
            slot,
            started,
            head_at: now,
            route: None,
            upstream: None,
            ticket: None,
            left: None,
            seen: None,
            admission: None,
            place: None,
            retry_after: None,
            picked_at: None,
            connected_at: None,
            first_byte_at: None,
            attempts: 0,
            client: peer.map(|p| p.ip()),
            request_id: [0; REQUEST_ID_MAX],
            request_id_len: 0,
            status: 0,
            phase: Phase::RequestHead,
            reason: None,
            body_in: 0,
            body_out: 0,
            received: 0,
            sent: 0,
            tunnel: false,
            protocol: Protocol::H1,
        }
    }

    /// The response field in which endpoints of its upstream speak of themselves, to this proxy alone.
    pub(super) fn agent_header(&self) -> Option<&HeaderName> {
        let agent = self.upstream.as_ref()?.shared.spec.agent.as_ref()?;
        agent.header.as_ref()
    }

    /// A limit would have refused it for `reason`, had it not been told to observe.
    pub(super) fn observed(&self, worker: &Worker, reason: Reason) {
        if let Some(route) = self.route() {
            route.cells.worker(worker.index).observed.of(reason).inc();
        }
    }

    /// An attempt failed, and another one may follow: its endpoint has room again, and is told in the
    /// log if none follows.
    pub(super) fn let_go(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.left = Some(ticket.endpoint().clone());
            self.connected_at = None;
        }
    }

    /// Tells the breaker how it ended, all attempts taken together.
    pub(super) fn conclude(&mut self, seen: Seen, now: Nanos) {
        if let Some(admission) = self.admission.take() {
            admission.end(seen, now);
        }
    }

    /// The request's id.
    pub(super) fn request_id(&self) -> &[u8] {
        &self.request_id[..self.request_id_len]
    }

    /// The request's id with the name of the field that bears it; `None` = the listener has none.
    pub(super) fn named_id(&self) -> Option<(&HeaderName, &[u8])> {
        let name = self.listener().spec.forwarding.request_id.as_ref()?;
        Some((name, self.request_id()))
    }

    /// Takes over the id that a trusted proxy gave, if it is a plain word, or makes one.
    pub(super) fn set_request_id(&mut self, given: Option<&[u8]>, worker: &Worker) {
        if let Some(given) = given
            && (1..=REQUEST_ID_MAX).contains(&given.len())
            && given.iter().all(u8::is_ascii_graphic)
        {
            self.request_id[..given.len()].copy_from_slice(given);
            self.request_id_len = given.len();
            return;
        }
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut rng = worker.rng.borrow_mut();
        let bytes: u128 = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        for (i, digit) in self.request_id[..REQUEST_ID_LEN].iter_mut().enumerate() {
            *digit = DIGITS[(bytes >> (4 * i)) as usize & 15];
        }
        self.request_id_len = REQUEST_ID_LEN;
    }

    /// The plan of its listener.
    pub(super) fn listener(&self) -> &ListenerPlan {
        let found = self.snapshot.listener(self.slot);
        found.expect("invariant: a connection finds its listener before it begins an exchange")
    }

    /// The route, once known.
    pub(super) fn route(&self) -> Option<&RoutePlan> {
        self.route.and_then(|i| self.snapshot.plans.get(i))
    }

    /// Notes the route at `index`.
    pub(super) fn set_route(&mut self, index: usize, worker: &Worker) {
        self.route = Some(index);
        if let Some(route) = self.route() {
            route.cells.worker(worker.index).in_flight.inc();
        }
    }

    /// Writes the metrics and the log line. `head` is `None` when it could not be read.
    pub(super) fn record(
        self,
        worker: &Worker,
        peer: Option<SocketAddr>,
        head: Option<(&RequestHead, &[u8])>,
        now: Nanos,
    ) {
        let total = now.saturating_sub(self.started);
        let listener = self.listener().cells.worker(worker.index);
        listener.received_bytes.add(self.received);
        listener.sent_bytes.add(self.sent);
        let cells = match self.route() {
            Some(route) => {
                let cells = route.cells.worker(worker.index);
                cells.in_flight.dec();
                cells
            }
            None => self.snapshot.unrouted.worker(worker.index),
        };
        if let Some(reason) = self.reason {
            if self.route().is_some() {
                cells.refusals.of(reason).inc();
            } else {
                listener.refusals.of(reason).inc();
            }
        }
        cells
            .requests(self.protocol, CodeClass::of(self.status))
            .inc();
        cells.duration.observe(total);
        if let Some(at) = self.first_byte_at {
            cells
                .response_start
                .observe(at.saturating_sub(self.started));
        }
        cells.request_body_bytes.add(self.body_in);
        cells.response_body_bytes.add(self.body_out);
        if let Some(log) = worker.log.borrow_mut().as_mut() {
            let entry = self.entry(
                peer,
                head,
                total,
                now.wrapping_add(worker.unix_offset.get()),
            );
            log.write(&entry, &mut worker.rng.borrow_mut());
        }
    }

    fn entry<'a>(
        &'a self,
        peer: Option<SocketAddr>,
        head: Option<(&'a RequestHead, &'a [u8])>,
        total: Nanos,
        unix_nanos: u64,
    ) -> Entry<'a> {
        let since = |at: Option<Nanos>| at.map(|at| at.saturating_sub(self.started));
        let mut entry = Entry {
            unix_nanos: unix_nanos.saturating_sub(total),
            client: self.client,
            peer,
            listener: &self.listener().spec.name,
            route: self.route().map_or("", |r| &r.name),
            upstream: self.upstream.as_ref().map_or("", |u| &u.shared.spec.name),
            endpoint: last_endpoint(self.ticket.as_ref(), self.left.as_ref()),
            request_id: self.request_id(),
            status: self.status,
            attempts: self.attempts,
            bytes_in: self.body_in,
            bytes_out: self.body_out,
            timings: Timings {
                head: Some(self.head_at.saturating_sub(self.started)),
                picked: since(self.picked_at),
                connected: since(self.connected_at),
                first_byte: since(self.first_byte_at),
                total,
            },
            ending: ending(self.reason),
            phase: ended_in(self.reason, self.phase),
            reason: self.reason,
            tunnel: self.tunnel,
            protocol: "HTTP/1.1",
            ..Entry::default()
        };
        if let Some((head, buf)) = head {
            entry.method = head.method.as_str().as_bytes();
            entry.target = head.target_bytes(buf);
            entry.host = head.authority_bytes(buf);
            entry.user_agent = head.get(buf, FieldId::UserAgent).unwrap_or_default();
            entry.referer = head.get(buf, FieldId::Referer).unwrap_or_default();
            entry.protocol = match (self.protocol, head.version) {
                (Protocol::H2, _) => "HTTP/2.0",
                (Protocol::H1, Version::Http10) => "HTTP/1.0",
                (Protocol::H1, Version::Http11) => "HTTP/1.1",
            };
        }
        entry
    }
}

/// The name of the endpoint that was tried last; empty when none was.
pub(super) fn last_endpoint<'a>(
    ticket: Option<&'a Ticket>,
    left: Option<&'a Rc<LocalEndpoint>>,
) -> &'a str {
    let endpoint = ticket.map(Ticket::endpoint).or(left);
    endpoint.map_or("", |e| &e.shared.name)
}

/// Where it was when it ended, having come to `phase`.
pub(super) fn ended_in(reason: Option<Reason>, phase: Phase) -> Phase {
    if reason.is_none() { Phase::Done } else { phase }
}

/// How the log calls the end of an exchange with this reason.
pub(super) fn ending(reason: Option<Reason>) -> Ending {
    match reason {
        None => Ending::Ok,
        Some(Reason::ClientGone) => Ending::Cancelled,
        Some(reason) if reason.who() == Who::Client => Ending::Refused,
        Some(_) => Ending::Failed,
    }
}
