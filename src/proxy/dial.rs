//! A new connection to an endpoint, and what is told of one that could not be made.

use std::fmt::Display;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Nanos, nanos};
use crate::config::Protocol;
use crate::telemetry::metrics::cells::{ConnectFailure, EndpointOutcome, PoolOutcome};
use crate::telemetry::reason::Reason;
use crate::upstream::{
    self, ConnectError, Connection, Endpoint, LocalEndpoint, LocalUpstream, Purpose, Reuse, Seen,
    Ticket,
};

use super::announce::announce;
use super::h1::Conn;
use super::respond;
use super::upload::{Deadlines, arm};
use super::worker::Worker;

/// A connection to `endpoint` that is there and may carry the request, if there is one.
pub(super) fn check_out(
    worker: &Worker,
    upstream: &LocalUpstream,
    endpoint: &LocalEndpoint,
    reuse: Reuse,
    now: Nanos,
) -> Option<Connection> {
    let spec = &upstream.shared.spec;
    if spec.protocol != Protocol::H1
        && let Some(stream) = endpoint.links.take(spec.max_streams.get())
    {
        return Some(Connection::shared(stream, &endpoint.shared));
    }
    let idle_timeout = upstream.idle_timeout;
    let pool = &endpoint.pool;
    let found = pool.take(reuse, &endpoint.shared, idle_timeout, now, worker.index);
    let cells = upstream.shared.cells.worker(worker.index);
    cells.pool(PoolOutcome::Stale).add(u64::from(found.stale));
    found.connection
}

/// Makes a new connection to the ticket's endpoint for `purpose`; with it the time when it was there.
pub(super) async fn dial(
    conn: &Conn,
    worker: &Worker,
    upstream: &LocalUpstream,
    ticket: &Ticket,
    purpose: Purpose,
    deadlines: Deadlines,
    now: Nanos,
) -> Result<(Connection, Nanos), (Reason, Seen)> {
    let cells = upstream.shared.cells.worker(worker.index);
    let endpoint = &ticket.endpoint().shared;
    arm(
        conn,
        deadlines,
        now,
        nanos(upstream.shared.spec.connect_timeout),
    );
    let spec = &upstream.shared.spec;
    let announced = announce(conn, spec);
    let is_cut = || conn.is_cutting();
    let connected = match (&endpoint.addr, worker.reactor.get()) {
        (EndpointAddr::Ip(addr), Some(reactor))
            if let Purpose::Bytes { has_spoken } = purpose
                && spec.tls.is_none()
                && announced.is_empty() =>
        {
            let (me, timer) = (worker.index, &conn.timer);
            upstream::open_plain(*addr, endpoint, reactor, me, has_spoken, timer, is_cut).await
        }
        _ => {
            let means = worker.means();
            let made = upstream::open(
                ticket.endpoint(),
                &upstream.shared,
                &means,
                &announced,
                purpose,
                &conn.timer,
                is_cut,
            );
            Box::pin(made).await
        }
    };
    let after = worker.clock.now();
    let elapsed = after.saturating_sub(now);
    match connected {
        Ok(connection) => {
            cells.pool(PoolOutcome::Fresh).inc();
            cells.connect_duration.observe(elapsed);
            // What comes of it may be known in a week.
            ticket.connected();
            Ok((connection, after))
        }
        Err(error) => {
            let mut reason = respond::connect_failed(&error);
            if reason == Reason::ConnectTimeout && deadlines.total.is_some_and(|t| after >= t) {
                reason = Reason::Deadline;
            }
            let failure = match reason {
                _ if is_local(&error) => ConnectFailure::Local,
                Reason::ConnectRefused => ConnectFailure::Refused,
                Reason::ConnectTimeout => ConnectFailure::Timeout,
                Reason::EndpointTls => ConnectFailure::Tls,
                _ => ConnectFailure::Unreachable,
            };
            if failure == ConnectFailure::Tls {
                tell_of_tls(worker, upstream, endpoint, &error, after);
            } else {
                cells.connect_failures(failure).inc();
                tracing::debug!(endpoint.addr = %endpoint.name, %error, "connect failed");
            }
            endpoint
                .cells
                .worker(worker.index)
                .requests(EndpointOutcome::ConnectError)
                .inc();
            // Want of descriptors or ports says nothing of the endpoint, nor does our own deadline.
            let seen = match reason {
                Reason::Deadline | Reason::Draining => Seen::Cancelled,
                _ if failure == ConnectFailure::Local => Seen::Cancelled,
                _ => Seen::Unconnected,
            };
            ticket.observe(seen, Some(elapsed), after);
            ticket.judge(&upstream.shared, seen, after);
            Err((reason, seen))
        }
    }
}

/// Counts a failure of TLS, and tells why: it will not mend itself, so somebody should read it.
pub(super) fn tell_of_tls(
    worker: &Worker,
    upstream: &LocalUpstream,
    endpoint: &Endpoint,
    why: &dyn Display,
    now: Nanos,
) {
    let cells = upstream.shared.cells.worker(worker.index);
    cells.connect_failures(ConnectFailure::Tls).inc();
    if worker.may_log(now) {
        let name = &upstream.shared.spec.name;
        tracing::warn!(
            upstream = %name, endpoint = %endpoint.name, %why, "TLS with an endpoint failed"
        );
    }
}

/// Whether this process lacks something.
pub(super) fn is_local(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Io(error) if upstream::is_local(error))
}
