//! Waiting for an endpoint with room.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::telemetry::reason::Reason;
use crate::upstream::{Called, LocalUpstream, Picked, Ticket, Tried};

use super::h1::Conn;
use super::scratch::Scratch;
use super::stick::{Cookie, Key};
use super::upload::{Deadlines, arm, is_client_gone};
use super::worker::Worker;

/// Which endpoint it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    /// What a hash policy goes by.
    pub(super) key: &'a Key,
    /// Names the endpoint that is asked for first.
    pub(super) cookie: Option<&'a Cookie<'a>>,
    /// Whom to ask last.
    pub(super) tried: &'a Tried,
}

/// Who waits for an endpoint: what it wants, and whether it is still there.
pub(super) trait Wanting {
    /// An endpoint with room, for one who was called.
    fn pick(&mut self, upstream: &LocalUpstream, now: Nanos, rng: &mut Rng) -> Picked;
    /// Whether its client has gone.
    fn is_gone(&mut self, cx: &mut Context<'_>, conn: &mut Conn) -> bool;
}

/// A request that waits.
struct Waiting<'a> {
    wishes: Wishes<'a>,
    s: &'a mut Scratch,
}

/// Waits in the upstream's line until an endpoint has room for a request.
///
/// # Errors
/// Why there is none for this exchange.
pub(super) async fn wait(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    upstream: &Rc<LocalUpstream>,
    wishes: Wishes<'_>,
    deadlines: Deadlines,
) -> Result<Ticket, Reason> {
    wait_for(conn, worker, upstream, Waiting { wishes, s }, deadlines).await
}

/// The same for whoever wants one.
pub(super) async fn wait_for(
    conn: &mut Conn,
    worker: &Worker,
    upstream: &Rc<LocalUpstream>,
    mut wanting: impl Wanting,
    deadlines: Deadlines,
) -> Result<Ticket, Reason> {
    let spec = &upstream.shared.spec.queue;
    if spec.length == 0 {
        return Err(Reason::EndpointsLimit);
    }
    let joined = worker.clock.now();
    let line = &upstream.shared.waiting;
    let Some(waiter) = line.join(spec.length as usize, joined) else {
        return Err(Reason::QueueFull);
    };
    let cells = upstream.shared.cells.worker(worker.index);
    cells.queued.inc();
    arm(conn, deadlines, joined, nanos(spec.timeout));
    // Room that was made while nobody stood in the line called nobody.
    let mut may_pick = waiter.is_alone();
    let mut is_called = false;
    let waited = poll_fn(|cx| {
        loop {
            if may_pick {
                let now = worker.clock.now();
                // By the limits of now: a reload may have raised them.
                let upstream = worker.renewed(upstream);
                match wanting.pick(&upstream, now, &mut worker.rng.borrow_mut()) {
                    Picked::One(ticket) => return Poll::Ready(Ok(ticket)),
                    Picked::Nobody => return Poll::Ready(Err(Reason::NoEndpoint)),
                    Picked::Full => {}
                }
            }
            match waiter.poll_called(cx) {
                Poll::Pending => break,
                Poll::Ready(Called::Away) => return Poll::Ready(Err(Reason::QueueFull)),
                // It has looked since it was called, and somebody was quicker.
                Poll::Ready(Called::In) if is_called => {
                    let now = worker.clock.now();
                    waiter.again(now);
                    is_called = false;
                    may_pick = waiter.is_alone();
                    // Room that was made since it looked found nobody to call.
                    if !may_pick && worker.renewed(upstream).has_room() {
                        line.call(now);
                    }
                }
                Poll::Ready(Called::In) => {
                    is_called = true;
                    may_pick = true;
                }
            }
        }
        may_pick = false;
        if wanting.is_gone(cx, conn) {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        if conn.is_cutting() {
            return Poll::Ready(Err(Reason::Draining));
        }
        if conn.timer.has_expired(cx) {
            let is_late = deadlines.total.is_some_and(|t| worker.clock.now() >= t);
            return Poll::Ready(Err(if is_late {
                Reason::Deadline
            } else {
                Reason::QueueTimeout
            }));
        }
        Poll::Pending
    })
    .await;
    cells.queued.dec();
    let now = worker.clock.now();
    if waited.is_ok() {
        cells.queue_wait.observe(now.saturating_sub(joined));
        // One call for each who leaves; who finds more room than that passes it on.
        waiter.enter(|| worker.renewed(upstream).has_room(), now);
    }
    waited
}

// === impl Waiting ===

impl Wanting for Waiting<'_> {
    fn pick(&mut self, upstream: &LocalUpstream, now: Nanos, rng: &mut Rng) -> Picked {
        let Wishes { key, cookie, tried } = self.wishes;
        let value = cookie.and_then(|cookie| cookie.of(self.s));
        match value.map(|value| upstream.pick_sticky(value, true)) {
            Some(picked @ Picked::One(_)) => picked,
            _ => upstream.pick(key.bytes(self.s), tried, true, now, rng),
        }
    }

    fn is_gone(&mut self, cx: &mut Context<'_>, conn: &mut Conn) -> bool {
        is_client_gone(cx, conn, &mut self.s.inbound)
    }
}
