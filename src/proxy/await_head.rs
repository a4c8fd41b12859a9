//! Awaiting the head of a response while the request is still on its way.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::base::tls::refusal_in_words;
use crate::http1::{Limits, Progress};
use crate::telemetry::metrics::cells::EndpointOutcome;
use crate::telemetry::reason::Reason;
use crate::upstream::Connection;

use super::blame::{blame, judge, observe_response};
use super::exchange::Exchange;
use super::h1::Conn;
use super::hedge::Hedging;
use super::respond;
use super::retry::{Tries, kind_of};
use super::scratch::Scratch;
use super::upload::{Deadlines, Turn, Upload, arm, is_client_gone};
use super::worker::Worker;

/// Bounds of a response head: twice what a request may have by default, because endpoints are
/// ours and set large cookies; still bounded, because they may be broken.
pub(super) const RESPONSE_LIMITS: Limits = Limits {
    max_head_bytes: 64 * 1024,
    max_fields: 256,
    max_target_bytes: 0,
};

/// What came of awaiting it.
pub(super) enum Awaited {
    /// A response head; interim ones are told apart by their status.
    Head,
    /// The connection broke before the first byte of a response; why, if TLS says so.
    Broken(Option<String>),
    Failed(Reason),
}

/// Sends what there is of the request and waits for the head of a response, both at once.
pub(super) async fn await_head(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    upload: &mut Upload<'_>,
    connection: &mut Connection,
    deadlines: &mut Deadlines,
) -> Awaited {
    let mut progress = (upload.flow.progress, Turn::Endpoint);
    s.reply.reset();
    poll_fn(|cx| {
        let progress = &mut progress;
        poll_head(cx, conn, worker, s, upload, connection, deadlines, progress)
    })
    .await
}

/// The same with a second attempt beside it, once the response is late. Whichever answers first is
/// the exchange's: its connection, its ticket, its response.
#[expect(
    clippy::too_many_arguments,
    reason = "the state of the story, each part borrowed apart"
)]
pub(super) async fn await_first_head(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    tries: &mut Tries<'_>,
    upload: &mut Upload<'_>,
    connection: &mut Connection,
    deadlines: &mut Deadlines,
    hedging: &mut Hedging<'_>,
) -> Awaited {
    let mut progress = (upload.flow.progress, Turn::Endpoint);
    s.reply.reset();
    let awaited = poll_fn(|cx| {
        let polled = poll_head(
            cx,
            conn,
            worker,
            s,
            upload,
            connection,
            deadlines,
            &mut progress,
        );
        if let Poll::Ready(awaited) = polled {
            // The second one is all there is now, if there is one.
            if !hedging.is_asking() {
                return Poll::Ready(awaited);
            }
            let now = worker.clock.now();
            let reason = match awaited {
                Awaited::Head => {
                    let buf = s.response.filled();
                    // One that the route would try elsewhere is tried elsewhere already.
                    if !tries.wants_other(&s.reply, buf, true) {
                        return Poll::Ready(Awaited::Head);
                    }
                    let status = s.reply.status.as_u16();
                    put_aside(worker, x, EndpointOutcome::of(status));
                    let seen = observe_response(x, &s.reply, buf, true, now);
                    judge(x, seen, now);
                    None
                }
                Awaited::Broken(_) => Some(Reason::EndpointReset),
                Awaited::Failed(reason) if kind_of(reason).is_none() => {
                    return Poll::Ready(awaited);
                }
                Awaited::Failed(reason) => Some(reason),
            };
            if let Some(reason) = reason {
                blame(worker, x, upload, reason, now);
            }
            hedging.promote(worker, s, x, connection);
            deadlines.begin_attempt(now);
            arm(conn, *deadlines, now, deadlines.endpoint_idle);
            return poll_head(
                cx,
                conn,
                worker,
                s,
                upload,
                connection,
                deadlines,
                &mut progress,
            );
        }
        // Not before the request is out: what is late then is the endpoint.
        if upload.stopped && hedging.poll(cx, conn, worker, s, x, tries).is_ready() {
            blame(worker, x, upload, Reason::ClientGone, worker.clock.now());
            hedging.promote(worker, s, x, connection);
            hedging.won(worker);
            return Poll::Ready(Awaited::Head);
        }
        Poll::Pending
    })
    .await;
    hedging.call_off(worker);
    awaited
}

#[expect(
    clippy::too_many_arguments,
    reason = "the state of the story, each part borrowed apart"
)]
fn poll_head(
    cx: &mut Context<'_>,
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    upload: &mut Upload<'_>,
    connection: &mut Connection,
    deadlines: &mut Deadlines,
    progress: &mut (u64, Turn),
) -> Poll<Awaited> {
    let limits = RESPONSE_LIMITS;
    // The request.
    let sent = upload.advance(
        cx,
        &mut conn.stream,
        &mut s.inbound,
        &mut connection.stream,
        &mut s.to_endpoint,
        &worker.pipes,
    );
    if let Err(error) = sent
        && let Some(reason) = respond::upload_failed(&error)
    {
        return Poll::Ready(Awaited::Failed(reason));
    }
    // The response.
    loop {
        if !s.response.is_empty() {
            match s.reply.parse(s.response.filled(), &limits, &s.head.method) {
                Ok(Progress::Complete) => return Poll::Ready(Awaited::Head),
                Ok(Progress::Partial) => {}
                Err(refusal) => {
                    tracing::debug!(%refusal, "response head refused");
                    return Poll::Ready(Awaited::Failed(respond::response_refused(refusal)));
                }
            }
        }
        if s.response.is_none() {
            // Wait without a buffer.
            match connection.stream.poll_readable(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => s.response = worker.buffers.take(),
                Poll::Ready(Err(_)) => return Poll::Ready(Awaited::Broken(None)),
            }
        }
        if s.response.spare().is_empty() {
            s.response.grow(s.response.capacity() * 2); // bounded by RESPONSE_LIMITS
        }
        match connection.stream.poll_read(cx, &mut s.response) {
            Poll::Pending => break,
            Poll::Ready(Ok(n)) if n > 0 => {}
            Poll::Ready(read) if s.response.is_empty() => {
                let why = read.err().as_ref().and_then(refusal_in_words);
                return Poll::Ready(Awaited::Broken(why));
            }
            Poll::Ready(_) => return Poll::Ready(Awaited::Failed(Reason::ResponseIncomplete)),
        }
    }
    if upload.stopped && is_client_gone(cx, conn, &mut s.inbound) {
        return Poll::Ready(Awaited::Failed(Reason::ClientGone));
    }
    if conn.is_cutting() || connection.is_cut() {
        return Poll::Ready(Awaited::Failed(Reason::Draining));
    }
    let turn = upload.turn();
    if *progress != (upload.flow.progress, turn) {
        *progress = (upload.flow.progress, turn);
        let now = worker.clock.now();
        if deadlines.attempt.is_none() && upload.stopped {
            deadlines.begin_attempt(now);
        }
        arm(conn, *deadlines, now, deadlines.patience(turn));
    }
    if conn.timer.has_expired(cx) {
        let reason = deadlines.expired(worker.clock.now(), turn);
        return Poll::Ready(Awaited::Failed(reason));
    }
    Poll::Pending
}

/// Counts an attempt whose response nobody will see.
fn put_aside(worker: &Worker, x: &Exchange, outcome: EndpointOutcome) {
    if let Some(ticket) = &x.ticket {
        let cells = &ticket.endpoint().shared.cells;
        cells.worker(worker.index).requests(outcome).inc();
    }
}
