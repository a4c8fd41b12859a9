//! A new connection to an endpoint, and what is told of one that could not be made.

use crate::base::clock::{Nanos, nanos};
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::{ConnectFailure, EndpointOutcome, PoolOutcome};
use crate::telemetry::reason::Reason;
use crate::upstream::{self, ConnectError, Connection, LocalUpstream, Seen, Ticket, connect};

use super::exchange::Exchange;
use super::h1::Conn;
use super::respond;
use super::upload::{Deadlines, arm};
use super::worker::Worker;

/// Makes a new connection to the ticket's endpoint.
pub(super) async fn dial(
    conn: &Conn,
    worker: &Worker,
    x: &mut Exchange,
    upstream: &LocalUpstream,
    ticket: &Ticket,
    deadlines: Deadlines,
    now: Nanos,
) -> Result<Connection, (Reason, Seen)> {
    x.phase = Phase::Connect;
    let cells = upstream.shared.cells.worker(worker.index);
    let endpoint = &ticket.endpoint().shared;
    arm(
        conn,
        deadlines,
        now,
        nanos(upstream.shared.spec.connect_timeout),
    );
    let connected = Box::pin(connect(&endpoint.addr, &conn.timer, || conn.is_cutting())).await;
    let after = worker.clock.now();
    let elapsed = after.saturating_sub(now);
    match connected {
        Ok(stream) => {
            x.connected_at = Some(after);
            cells.pool(PoolOutcome::Fresh).inc();
            cells.connect_duration.observe(elapsed);
            Ok(Connection::new(stream, endpoint.clone(), worker.index))
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
                _ => ConnectFailure::Unreachable,
            };
            cells.connect_failures(failure).inc();
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
            tracing::debug!(endpoint.addr = %endpoint.name, %error, "connect failed");
            Err((reason, seen))
        }
    }
}

/// Whether this process lacks something.
pub(super) fn is_local(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Io(error) if upstream::is_local(error))
}
