//! What connections of TCP and flows of UDP share: who may begin one, what an endpoint is chosen by, and
//! the one place where a flow becomes metrics and a log line.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Nanos;
use crate::config;
use crate::telemetry::access_log::{Entry, Phase, Timings};
use crate::telemetry::metrics::cells::EndpointOutcome;
use crate::telemetry::reason::Reason;
use crate::upstream::{Admission, LocalEndpoint, LocalUpstream, Seen, Ticket, Upstream};

use super::exchange::{ended_in, ending, last_endpoint};
use super::forwarded::push_ip;
use super::snapshot::ListenerPlan;
use super::worker::Worker;

/// One connection of TCP, or flow of UDP, as it goes along. Ends in [`FlowExchange::record`], exactly
/// once.
///
/// It keeps its listener as it was when it began, and not the whole configuration: it may last for days.
#[derive(Debug)]
pub(super) struct FlowExchange {
    /// Its listener.
    pub listener: Arc<ListenerPlan>,
    /// What carries it.
    pub transport: Transport,
    /// When the first was seen of it.
    pub started: Nanos,
    /// The client: what the PROXY protocol said, or the other end; `None` on Unix sockets.
    pub client: Option<SocketAddr>,
    /// The name that it asks for, if it is TLS.
    pub name: Option<Box<str>>,
    /// Where it goes.
    pub upstream: Option<Rc<LocalUpstream>>,
    /// The endpoint's receipt, once picked.
    pub ticket: Option<Ticket>,
    /// The endpoint of the attempt before, if that failed.
    pub left: Option<Rc<LocalEndpoint>>,
    /// Let in by the upstream's breaker, if it has one.
    admission: Option<Admission>,
    /// When an endpoint was picked (the last attempt's).
    pub picked_at: Option<Nanos>,
    /// When a connection to it was there.
    pub connected_at: Option<Nanos>,
    /// When the first byte of it was there.
    pub first_byte_at: Option<Nanos>,
    /// Endpoints tried.
    pub attempts: u32,
    /// Where it is.
    pub phase: Phase,
    /// Why it was refused or failed.
    pub reason: Option<Reason>,
    /// Bytes of the client that endpoints were sent.
    pub bytes_in: u64,
    /// Bytes of endpoints that the client was sent.
    pub bytes_out: u64,
}

/// What carries a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// An endpoint that says nothing (a sink of logs) but keeps a connection, or takes datagrams, for so long has not
/// refused them: those that do it at once need a round trip for it, which takes 0.3 s around the world.
pub(super) const KEPT: Duration = Duration::from_secs(1);

// === impl FlowExchange ===

impl FlowExchange {
    pub(super) fn begin(
        listener: Arc<ListenerPlan>,
        transport: Transport,
        client: Option<SocketAddr>,
        started: Nanos,
    ) -> Self {
        Self {
            listener,
            transport,
            started,
            client,
            name: None,
            upstream: None,
            ticket: None,
            left: None,
            admission: None,
            picked_at: None,
            connected_at: None,
            first_byte_at: None,
            attempts: 0,
            phase: Phase::Route,
            reason: None,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Whether it may go on to `upstream`: the listener's rates, the upstream's breaker.
    pub(super) fn admit(
        &mut self,
        worker: &Worker,
        upstream: &Arc<Upstream>,
        now: Nanos,
    ) -> Result<Rc<LocalUpstream>, Reason> {
        let cells = self.listener.cells.worker(worker.index);
        if let Some(limits) = &self.listener.layer4.limits {
            let observed = || cells.observed.of(Reason::RateLimit).inc();
            limits.admit_flow(self.client.map(|c| c.ip()), now, observed)?;
        }
        let upstream = worker.upstream(upstream);
        self.upstream = Some(upstream.clone());
        let admitted = upstream.shared.admit(worker.index, now);
        self.admission = admitted.map_err(|_| Reason::Breaker)?;
        upstream.shared.cells.worker(worker.index).exchanges.inc();
        Ok(upstream)
    }

    /// The attempt failed, and another one may follow: its endpoint has room again, and is told in the
    /// log if none follows.
    pub(super) fn let_go(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.left = Some(ticket.endpoint().clone());
            self.connected_at = None;
        }
    }

    /// Whether the breaker waits to be told how it ended.
    pub(super) fn is_watched(&self) -> bool {
        self.admission.is_some()
    }

    /// Tells the breaker how it ended, all attempts taken together.
    pub(super) fn conclude(&mut self, seen: Seen, now: Nanos) {
        if let Some(admission) = self.admission.take() {
            admission.end(seen, now);
        }
    }

    /// Counts for its endpoint how it ended there.
    pub(super) fn count_outcome(&self, worker: &Worker, outcome: EndpointOutcome) {
        if let Some(ticket) = &self.ticket {
            let endpoint = &ticket.endpoint().shared;
            endpoint.cells.worker(worker.index).requests(outcome).inc();
        }
    }

    /// Writes the metrics and the log line.
    pub(super) fn record(self, worker: &Worker, now: Nanos) {
        let total = self.count(worker, now);
        if let Some(log) = worker.log.borrow_mut().as_mut() {
            let at = now.wrapping_add(worker.unix_offset.get());
            log.write(&self.entry(total, at), &mut worker.rng.borrow_mut());
        }
    }

    /// The same with no more than a few lines a second: who sends single datagrams, forged ones too, must
    /// not fill a disk with refusals.
    pub(super) fn record_refusal(self, worker: &Worker, now: Nanos) {
        if worker.may_log(now) {
            self.record(worker, now);
        } else {
            self.count(worker, now);
        }
    }

    /// Writes the metrics; how long it took.
    fn count(&self, worker: &Worker, now: Nanos) -> Nanos {
        let total = now.saturating_sub(self.started);
        let cells = self.listener.cells.worker(worker.index);
        cells.received_bytes.add(self.bytes_in);
        cells.sent_bytes.add(self.bytes_out);
        if let Some(reason) = self.reason {
            cells.refusals.of(reason).inc();
        }
        cells.flows(ending(self.reason)).inc();
        cells.flow_duration.observe(total);
        total
    }

    fn entry(&self, total: Nanos, unix_nanos: u64) -> Entry<'_> {
        let since = |at: Option<Nanos>| at.map(|at| at.saturating_sub(self.started));
        Entry {
            unix_nanos: unix_nanos.saturating_sub(total),
            client: self.client.map(|c| c.ip()),
            peer: self.client,
            listener: &self.listener.spec.name,
            upstream: self.upstream.as_ref().map_or("", |u| &u.shared.spec.name),
            endpoint: last_endpoint(self.ticket.as_ref(), self.left.as_ref()),
            host: self.name.as_deref().unwrap_or_default().as_bytes(),
            protocol: match self.transport {
                Transport::Tcp => "TCP",
                Transport::Udp => "UDP",
            },
            attempts: self.attempts,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            timings: Timings {
                head: None,
                picked: since(self.picked_at),
                connected: since(self.connected_at),
                first_byte: since(self.first_byte_at),
                total,
            },
            ending: ending(self.reason),
            phase: ended_in(self.reason, self.phase),
            reason: self.reason,
            ..Entry::default()
        }
    }
}

/// What a hash policy goes by, as for requests with `key = "client"`: the client's address as text. Empty =
/// the policy hashes nothing, or there is nobody.
pub(super) fn hash_key(spec: &config::Upstream, client: Option<IpAddr>, key: &mut Vec<u8>) {
    if let Some(client) = client.filter(|_| spec.policy.kind.hashes()) {
        push_ip(key, client);
    }
}
