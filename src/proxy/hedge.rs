//! A second attempt beside the first one, for a response that is late: whichever answers first is
//! taken (J. Dean and L. Barroso, "The Tail at Scale", CACM 56(2), 2013: hedged requests).
//!
//! Only requests that are idempotent and have no body are hedged: what is sent twice must be there
//! twice and do no harm twice. Hedges are attempts: the route's `attempts` and the upstream's budget
//! count them. The one that lost is reset, because HTTP/1.1 has no other way to call it off.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::base::buffer::Buffer;
use crate::base::clock::{Nanos, nanos};
use crate::config::Hedge;
use crate::http1::{Progress, RequestBody, ResponseHead};
use crate::telemetry::metrics::cells::{EndpointOutcome, PoolOutcome};
use crate::upstream::{
    self, ConnectError, Connection, LocalUpstream, Picked, Purpose, Reuse, Seen, Ticket,
};

use super::announce::announce;
use super::await_head::RESPONSE_LIMITS;
use super::blame::is_failure;
use super::dial::{check_out, is_local};
use super::exchange::Exchange;
use super::h1::Conn;
use super::retry::Tries;
use super::scratch::Scratch;
use super::stick::Key;
use super::worker::{Phase, Worker};

/// Whether and when a second attempt is made, and how it goes.
pub(super) struct Hedging<'a> {
    upstream: &'a LocalUpstream,
    key: &'a Key,
    late: Pin<Box<Sleep>>,
    /// The percentile that "late" stands for, where it is learnt.
    percentile: Option<u8>,
    second: Second,
    /// The second one has taken the first one's place.
    is_promoted: bool,
}

enum Second {
    /// It is not late yet.
    Not,
    Running(Box<Running>),
    /// It was made, or there was no place for it.
    Over,
}

struct Running {
    ticket: Ticket,
    began: Nanos,
    /// Its connection had been kept: it may have been closed meanwhile.
    is_reused: bool,
    link: Link,
    out: Vec<u8>,
    written: usize,
    response: Buffer,
    reply: ResponseHead,
}

enum Link {
    Dialing(Pin<Box<dyn Future<Output = Result<Connection, ConnectError>>>>),
    Open(Connection),
}

// === impl Hedging ===

impl<'a> Hedging<'a> {
    /// Hedging for the request in `s`, if the route wants it and the request bears it.
    pub(super) fn new(
        hedge: Hedge,
        s: &Scratch,
        is_idempotent: bool,
        upstream: &'a LocalUpstream,
        key: &'a Key,
    ) -> Option<Self> {
        if hedge == Hedge::Off {
            return None;
        }
        let has_body = !matches!(s.head.body, RequestBody::None | RequestBody::Length(0));
        if !is_idempotent || has_body || s.head.upgrade {
            return None;
        }
        let (after, percentile) = match hedge {
            Hedge::Off => return None,
            Hedge::After(after) => (nanos(after), None),
            Hedge::Percentile(p) => (upstream.percentile(p)?, Some(p)),
        };
        Some(Self {
            upstream,
            key,
            // Tokio's timer: the wheel's ticks are longer than most responses take.
            late: Box::pin(tokio::time::sleep(Duration::from_nanos(after))),
            percentile,
            second: Second::Not,
            is_promoted: false,
        })
    }

    /// Goes on with the second attempt; ready when the response's head is there.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        worker: &Worker,
        s: &mut Scratch,
        x: &mut Exchange,
        tries: &mut Tries<'_>,
    ) -> Poll<()> {
        if matches!(self.second, Second::Not) {
            if self.late.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.second = match self.begin(conn, worker, s, x, tries) {
                Some(running) => Second::Running(Box::new(running)),
                None => Second::Over,
            };
        }
        let Second::Running(running) = &mut self.second else {
            return Poll::Pending;
        };
        let ended = match running.poll(cx, self.upstream, worker, s) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {
                // An answer that says that the endpoint is not well is none to be taken: the first one may
                // yet do better.
                let (reply, buf) = (&running.reply, running.response.filled());
                if !is_failure(reply, buf) && !tries.wants_other(reply, buf, true) {
                    return Poll::Ready(());
                }
                let outcome = EndpointOutcome::of(reply.status.as_u16());
                (Seen::Failed, outcome)
            }
            Poll::Ready(Err(ended)) => ended,
        };
        let second = std::mem::replace(&mut self.second, Second::Over);
        if let Second::Running(running) = second {
            running.end(self.upstream, worker, ended.0, ended.1);
        }
        Poll::Pending
    }

    /// Whether the second attempt has been sent and may yet answer.
    pub(super) fn is_asking(&self) -> bool {
        matches!(&self.second, Second::Running(r)
            if matches!(r.link, Link::Open(_)) && r.written == r.out.len())
    }

    /// Whether the second one has taken the first one's place.
    pub(super) fn is_promoted(&self) -> bool {
        self.is_promoted
    }

    /// The second attempt takes the place of the first, which has failed or lost and must have been
    /// observed.
    pub(super) fn promote(
        &mut self,
        worker: &Worker,
        s: &mut Scratch,
        x: &mut Exchange,
        connection: &mut Connection,
    ) {
        let second = std::mem::replace(&mut self.second, Second::Over);
        let Second::Running(running) = second else {
            return;
        };
        let Running {
            ticket,
            began,
            link,
            response,
            reply,
            ..
        } = *running;
        let Link::Open(second) = link else { return };
        let mut first = std::mem::replace(connection, second);
        // It learns that nobody waits for it any more.
        first.stream.reset_on_close();
        self.is_promoted = true;
        x.ticket = Some(ticket);
        x.picked_at = Some(began);
        let old = std::mem::replace(&mut s.response, response);
        if !old.is_none() {
            worker.give_back(old);
        }
        s.reply = reply;
    }

    /// The second one answered first.
    pub(super) fn won(&self, worker: &Worker) {
        let cells = self.upstream.shared.cells.worker(worker.index);
        cells.hedges_won.inc();
    }

    fn begin(
        &self,
        conn: &Conn,
        worker: &Worker,
        s: &Scratch,
        x: &mut Exchange,
        tries: &mut Tries<'_>,
    ) -> Option<Running> {
        let first = x.ticket.as_ref()?.endpoint().clone();
        let now = worker.clock.now();
        let is_late = self.percentile.is_none_or(|p| self.upstream.take_late(p));
        if !is_late || !tries.may_hedge(&first, self.upstream) {
            return None;
        }
        let mut rng = worker.rng.borrow_mut();
        let key = self.key.bytes(s);
        // Behind those who wait, who have no attempt yet: while anybody does, there is no second one.
        let picked = self.upstream.pick(key, tries.tried(), false, now, &mut rng);
        drop(rng);
        let Picked::One(ticket) = picked else {
            return None;
        };
        if Rc::ptr_eq(ticket.endpoint(), &first)
            || !tries.pay_for_hedge(self.upstream, worker.index, now)
        {
            return None;
        }
        x.attempts += 1;
        let cells = self.upstream.shared.cells.worker(worker.index);
        let endpoint = ticket.endpoint();
        let kept = check_out(worker, self.upstream, endpoint, Reuse::Repeatable, now);
        let is_reused = kept.is_some();
        let link = if let Some(connection) = kept {
            cells.pool(PoolOutcome::Reused).inc();
            Link::Open(connection)
        } else {
            let endpoint = endpoint.clone();
            let upstream = self.upstream.shared.clone();
            let means = worker.means();
            let announced = announce(conn, &upstream.spec);
            let timer = worker.timers.timer();
            timer.arm(now + nanos(upstream.spec.connect_timeout));
            let life = conn.life.clone();
            Link::Dialing(Box::pin(async move {
                let is_cut = || life.phase() == Phase::Cutting;
                let purpose = Purpose::Requests;
                upstream::open(
                    &endpoint, &upstream, &means, &announced, purpose, &timer, is_cut,
                )
                .await
            }))
        };
        Some(Running {
            ticket,
            began: now,
            is_reused,
            link,
            out: s.to_endpoint.clone(),
            written: 0,
            response: Buffer::none(),
            reply: ResponseHead::new(),
        })
    }

    /// The first one answered: the second is called off.
    pub(super) fn call_off(&mut self, worker: &Worker) {
        let second = std::mem::replace(&mut self.second, Second::Over);
        if let Second::Running(running) = second {
            let outcome = EndpointOutcome::Cancelled;
            running.end(self.upstream, worker, Seen::Cancelled, outcome);
        }
    }
}

// === impl Running ===

impl Running {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &LocalUpstream,
        worker: &Worker,
        s: &Scratch,
    ) -> Poll<Result<(), (Seen, EndpointOutcome)>> {
        let broken = (Seen::Failed, EndpointOutcome::Reset);
        if let Link::Dialing(dial) = &mut self.link {
            match dial.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "connect of a hedge failed");
                    // Want of descriptors, or the end of the process, says nothing of the endpoint.
                    let is_ours = is_local(&error) || matches!(error, ConnectError::Stopped);
                    let seen = if is_ours {
                        Seen::Cancelled
                    } else {
                        Seen::Unconnected
                    };
                    return Poll::Ready(Err((seen, EndpointOutcome::ConnectError)));
                }
                Poll::Ready(Ok(connection)) => {
                    let cells = upstream.shared.cells.worker(worker.index);
                    cells.pool(PoolOutcome::Fresh).inc();
                    self.link = Link::Open(connection);
                }
            }
        }
        let Link::Open(connection) = &mut self.link else {
            return Poll::Pending;
        };
        while self.written < self.out.len() {
            match connection.stream.poll_write(cx, &self.out[self.written..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => self.written += n,
                Poll::Ready(_) => return Poll::Ready(Err(broken)),
            }
        }
        loop {
            if !self.response.is_empty() {
                let parsed =
                    self.reply
                        .parse(self.response.filled(), &RESPONSE_LIMITS, &s.head.method);
                match parsed {
                    // Nobody was told that there is a second attempt: its interim responses end here.
                    Ok(Progress::Complete) if self.reply.status.is_informational() => {
                        if self.reply.status.as_u16() == 101 {
                            return Poll::Ready(Err(broken));
                        }
                        self.response.consume(self.reply.head_len());
                        self.response.compact();
                        self.reply.reset();
                        continue;
                    }
                    Ok(Progress::Complete) => return Poll::Ready(Ok(())),
                    Ok(Progress::Partial) => {}
                    Err(_) => return Poll::Ready(Err(broken)),
                }
            }
            if self.response.is_none() {
                match connection.stream.poll_readable(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.response = worker.buffers.take(),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(broken)),
                }
            }
            if self.response.spare().is_empty() {
                self.response.grow(self.response.capacity() * 2); // bounded by RESPONSE_LIMITS
            }
            match connection.stream.poll_read(cx, &mut self.response) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => {}
                // A kept connection that was closed meanwhile: the first attempt is still there.
                Poll::Ready(_) if self.is_reused && self.response.is_empty() => {
                    let gone = (Seen::Cancelled, EndpointOutcome::Cancelled);
                    return Poll::Ready(Err(gone));
                }
                Poll::Ready(_) => return Poll::Ready(Err(broken)),
            }
        }
    }

    fn end(
        mut self,
        upstream: &LocalUpstream,
        worker: &Worker,
        seen: Seen,
        outcome: EndpointOutcome,
    ) {
        let now = worker.clock.now();
        let elapsed = now.saturating_sub(self.began);
        self.ticket.observe(seen, Some(elapsed), now);
        self.ticket.judge(&upstream.shared, seen, now);
        let endpoint = &self.ticket.endpoint().shared;
        endpoint.cells.worker(worker.index).requests(outcome).inc();
        if let Link::Open(connection) = &mut self.link {
            connection.stream.reset_on_close();
        }
        if !self.response.is_none() {
            worker.give_back(self.response);
        }
    }
}
