//! Whose fault it was: what an endpoint is told of its attempt, and what is counted for it.

use crate::base::clock::Nanos;
use crate::health::agent::line::MAX_LINE;
use crate::http1::ResponseHead;
use crate::telemetry::metrics::cells::EndpointOutcome;
use crate::telemetry::reason::Reason;
use crate::upstream::Seen;

use super::exchange::Exchange;
use super::retry::grpc_status;
use super::upload::{Turn, Upload};
use super::worker::Worker;

/// Counts an attempt that broke before its response's head was complete, and says how it went.
pub(super) fn blame(
    worker: &Worker,
    x: &Exchange,
    upload: &Upload<'_>,
    reason: Reason,
    now: Nanos,
) -> Seen {
    let (outcome, seen) = match reason {
        Reason::ClientGone
        | Reason::ClientIdle
        | Reason::Draining
        | Reason::BadBody
        | Reason::BadRequest
        | Reason::BodyTooLarge
        | Reason::AmbiguousFraming
        | Reason::HeadTooLarge
        | Reason::TooManyFields => (EndpointOutcome::Cancelled, Seen::Cancelled),
        // All the time was the client's, and it still was its turn.
        Reason::Deadline if upload.turn() == Turn::Client => {
            (EndpointOutcome::Cancelled, Seen::Cancelled)
        }
        // Our own deadlines: they tell a policy that it is slow, and slow is not broken.
        Reason::Deadline => (EndpointOutcome::Timeout, Seen::Late),
        Reason::AttemptTimeout | Reason::EndpointIdle => (EndpointOutcome::Timeout, Seen::Failed),
        _ => (EndpointOutcome::Reset, Seen::Failed),
    };
    if let (Some(ticket), Some(upstream)) = (&x.ticket, &x.upstream) {
        let elapsed = now.saturating_sub(x.picked_at.unwrap_or(now));
        ticket.observe(seen, Some(elapsed), now);
        ticket.judge(&upstream.shared, seen, now);
        let endpoint = &ticket.endpoint().shared;
        endpoint.cells.worker(worker.index).requests(outcome).inc();
    }
    seen
}

/// Tells the policy how an attempt went that brought a response: a server error counts as slow, never
/// as fast; and the control plane what the endpoint says of itself in it. `is_timed` says whether the
/// time that it took was the endpoint's. The rest of the response is still to come: see [`judge`].
pub(super) fn observe_response(
    x: &Exchange,
    reply: &ResponseHead,
    buf: &[u8],
    is_timed: bool,
    now: Nanos,
) -> Seen {
    let elapsed = now.saturating_sub(x.picked_at.unwrap_or(now));
    let seen = if is_failure(reply, buf) {
        Seen::Failed
    } else {
        Seen::Answered
    };
    if let (Some(ticket), Some(upstream)) = (&x.ticket, &x.upstream) {
        ticket.observe(seen, is_timed.then_some(elapsed), now);
        if let Some(name) = x.agent_header()
            && let Some(line) = reply.get_all(buf, name.as_str()).next()
        {
            ticket.hear(&upstream.shared, &line[..line.len().min(MAX_LINE)]);
        }
    }
    seen
}

/// Counts an attempt that brought a response for or against its endpoint, once that is over.
pub(super) fn judge(x: &Exchange, seen: Seen, now: Nanos) {
    if let (Some(ticket), Some(upstream)) = (&x.ticket, &x.upstream) {
        ticket.judge(&upstream.shared, seen, now);
    }
}

/// Whether a response says that the endpoint is not well. A method or version that it does not know
/// (501, 505) is the client's choice: it could have any endpoint ejected.
pub(super) fn is_failure(reply: &ResponseHead, buf: &[u8]) -> bool {
    match reply.status.as_u16() {
        501 | 505 => false,
        500..=599 => true,
        // gRPC's errors come with status 200. Of its codes these are the server's: unknown 2,
        // deadline exceeded 4, internal 13, unavailable 14, data loss 15.
        200 => matches!(grpc_status(reply, buf), Some(2 | 4 | 13 | 14 | 15)),
        _ => false,
    }
}
