//! Another attempt: after what, where, and whether there is budget for it.
//!
//! Three questions, in this order. May the request be sent again at all? A connect that failed has
//! sent nothing; anything else needs a request that is idempotent (RFC 9110 section 9.2.2) and whose
//! body is still there. Does the route want it? And does the upstream's budget have it: without one,
//! retries turn a brown-out into an outage (B. Beyer et al., "Site Reliability Engineering", chapter
//! 22: Addressing Cascading Failures).

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::Retry;
use crate::http1::{FieldId, ResponseHead};
use crate::telemetry::metrics::cells::RetryReason;
use crate::telemetry::reason::Reason;
use crate::upstream::{LocalEndpoint, LocalUpstream, Tried};

use super::grpc;
use super::h1::Conn;
use super::scratch::Scratch;
use super::upload::{Deadlines, is_client_gone};
use super::worker::Worker;

/// The attempts of one exchange.
#[derive(Debug)]
pub(super) struct Tries<'p> {
    spec: &'p Retry,
    /// Whom not to ask again while there is somebody else.
    tried: Tried,
    /// Attempts that failed and were followed by another.
    retries: u32,
}

/// First pause before an endpoint that has just failed is asked again, because there is no other;
/// doubled each time, and the whole of it random, so that those who wait do not come back together
/// (M. Brooker, "Exponential Backoff And Jitter", 2015). 25 ms and tenfold are Envoy's.
const PAUSE: Duration = Duration::from_millis(25);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Longest `Retry-After` that is waited for: more is for the client to decide.
const MAX_RETRY_AFTER: Nanos = 1_000_000_000;

// === impl Tries ===

impl<'p> Tries<'p> {
    pub(super) fn new(spec: &'p Retry) -> Self {
        Self {
            spec,
            tried: Tried::default(),
            retries: 0,
        }
    }

    /// Whom not to pick.
    pub(super) fn tried(&self) -> &Tried {
        &self.tried
    }

    /// Whether this is still the first attempt.
    pub(super) fn is_first(&self) -> bool {
        self.retries == 0
    }

    /// Asks for another attempt after one that ended for `why` at `endpoint`: how long to wait before
    /// it, or `None`. What is granted is counted and paid for.
    pub(super) fn another(
        &mut self,
        why: RetryReason,
        endpoint: &Rc<LocalEndpoint>,
        upstream: &LocalUpstream,
        retry_after: Option<Nanos>,
        (worker, now): (usize, Nanos),
        rng: &mut Rng,
    ) -> Option<Nanos> {
        if self.retries + 1 >= self.spec.attempts.min(Retry::MAX_ATTEMPTS) {
            return None;
        }
        let is_wanted = match why {
            RetryReason::Connect => self.spec.on.connect,
            RetryReason::Reset => self.spec.on.reset,
            RetryReason::Status => true,
            RetryReason::Timeout => self.spec.on.timeout,
        };
        if !is_wanted {
            return None;
        }
        let mut tried = self.tried.clone();
        tried.push(endpoint);
        let pause = if upstream.has_other(&tried) {
            0
        } else {
            // The same one again: only if it has answered, and not before it wants to be asked. One
            // that broke at this request may break at it again.
            if why != RetryReason::Status {
                return None;
            }
            let asked = retry_after.unwrap_or(0);
            if asked > MAX_RETRY_AFTER {
                return None;
            }
            let most = nanos(PAUSE) << self.retries.min(8);
            asked.max(rng.next_u64() % most.min(nanos(MAX_PAUSE)))
        };
        let cells = upstream.shared.cells.worker(worker);
        if !upstream.shared.withdraw(self.spec.budget, now) {
            cells.budget_refusals.inc();
            return None;
        }
        cells.retries(why).inc();
        self.tried = tried;
        self.retries += 1;
        Some(pause)
    }

    /// Whether there may be a second attempt beside the one at `first`; that one is not asked then.
    pub(super) fn may_hedge(
        &mut self,
        first: &Rc<LocalEndpoint>,
        upstream: &LocalUpstream,
    ) -> bool {
        if self.retries + 1 >= self.spec.attempts.min(Retry::MAX_ATTEMPTS) {
            return false;
        }
        let mut tried = self.tried.clone();
        tried.push(first);
        let has_other = upstream.has_other(&tried);
        if has_other {
            self.tried = tried;
        }
        has_other
    }

    /// Pays for a second attempt, which counts as one of the exchange's.
    pub(super) fn pay_for_hedge(
        &mut self,
        upstream: &LocalUpstream,
        worker: usize,
        now: Nanos,
    ) -> bool {
        let cells = upstream.shared.cells.worker(worker);
        if !upstream.shared.withdraw(self.spec.budget, now) {
            cells.budget_refusals.inc();
            return false;
        }
        cells.hedges.inc();
        self.retries += 1;
        true
    }

    /// Whether a response with this head is one to try again after, if the request may be sent again
    /// (`repeatable`) at all.
    pub(super) fn wants_other(&self, reply: &ResponseHead, buf: &[u8], repeatable: bool) -> bool {
        let on = &self.spec.on;
        if repeatable && on.statuses.binary_search(&reply.status.as_u16()).is_ok() {
            return true;
        }
        !on.grpc.is_empty()
            && grpc_status(reply, buf).is_some_and(|status| on.grpc.binary_search(&status).is_ok())
    }
}

/// Waits before another attempt, if there is anything to wait for.
///
/// # Errors
/// The client went, or time was up, meanwhile.
pub(super) async fn pause(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    deadlines: Deadlines,
    pause: Nanos,
) -> Result<(), Reason> {
    if pause == 0 {
        return Ok(());
    }
    let left = |total: Nanos| total.saturating_sub(worker.clock.now());
    let pause = deadlines
        .total
        .map_or(pause, |total| pause.min(left(total)));
    // Tokio's timer: the wheel's ticks are longer than most pauses. The wheel's is there for a cut, which
    // wakes those who wait on it.
    conn.timer.arm(worker.clock.now().saturating_add(pause));
    let mut sleep = Box::pin(tokio::time::sleep(Duration::from_nanos(pause)));
    poll_fn(|cx| {
        let is_over = sleep.as_mut().poll(cx).is_ready();
        if is_client_gone(cx, conn, &mut s.inbound) {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        if conn.is_cutting() {
            return Poll::Ready(Err(Reason::Draining));
        }
        let _ = conn.timer.has_expired(cx);
        if deadlines.total.is_some_and(|t| worker.clock.now() >= t) {
            return Poll::Ready(Err(Reason::Deadline));
        }
        if is_over {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    })
    .await
}

/// What kind of failure `reason` is, if it is one that another endpoint may not have.
pub(super) fn kind_of(reason: Reason) -> Option<RetryReason> {
    match reason {
        Reason::ConnectRefused
        | Reason::ConnectTimeout
        | Reason::EndpointTls
        | Reason::Unreachable => Some(RetryReason::Connect),
        // Half a head, or something that is none: the connection is as good as broken.
        Reason::EndpointReset | Reason::ResponseIncomplete | Reason::BadResponse => {
            Some(RetryReason::Reset)
        }
        Reason::AttemptTimeout | Reason::EndpointIdle => Some(RetryReason::Timeout),
        _ => None,
    }
}

/// The `grpc-status` of a response that ends with its head (gRPC over HTTP/2, "Trailers-Only").
pub(super) fn grpc_status(reply: &ResponseHead, buf: &[u8]) -> Option<u8> {
    let kind = reply.get(buf, FieldId::ContentType)?;
    let front = kind.get(..grpc::CONTENT_TYPE.len())?;
    if !front.eq_ignore_ascii_case(grpc::CONTENT_TYPE) {
        return None;
    }
    number(reply.get_all(buf, "grpc-status").next()?)
}

/// The seconds of `Retry-After`. A date is not worth a calendar: it is taken for long.
pub(super) fn retry_after(reply: &ResponseHead, buf: &[u8]) -> Option<Nanos> {
    let value = reply.get_all(buf, "retry-after").next()?;
    let seconds = number::<u32>(value).map_or(u64::from(u32::MAX), u64::from);
    Some(seconds.saturating_mul(1_000_000_000))
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
