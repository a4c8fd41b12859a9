//! Answers of our own on their way to the client, and what becomes of its connection.

use std::future::poll_fn;
use std::task::Poll;

use crate::base::clock::Nanos;
use crate::config::HeaderEdits;
use crate::http1::{Refusal, RequestBody};
use crate::telemetry::reason::Reason;

use super::exchange::Exchange;
use super::h1::{Conn, Next};
use super::http::After;
use super::respond::{self, Answer};
use super::scratch::Scratch;
use super::worker::Worker;

/// Errors are the proxy's own: no route edits them.
const NO_EDITS: HeaderEdits = HeaderEdits {
    set: Vec::new(),
    add: Vec::new(),
    remove: Vec::new(),
};

/// Whether the connection may serve another request after an answer of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    No,
}

/// After an answer that did not read the body the connection stays only if there was none.
pub(super) fn keep_after_answer(s: &Scratch, conn: &Conn, now: Nanos) -> Keep {
    let no_body = matches!(s.head.body, RequestBody::None | RequestBody::Length(0));
    if no_body && s.head.keep_alive && !conn.is_last_answer(now) {
        Keep::Yes
    } else {
        Keep::No
    }
}

/// Answers an error; the head has been read, the body not.
pub(super) async fn refuse(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    reason: Reason,
) -> After {
    let keep = keep_after_answer(s, conn, worker.clock.now());
    fail(conn, worker, s, x, reason, None, keep).await
}

/// Answers an error and says what becomes of the connection.
pub(super) async fn fail(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    reason: Reason,
    detail: Option<Refusal>,
    keep: Keep,
) -> After {
    x.reason = Some(reason);
    if reason == Reason::ClientGone {
        return After::Then(Next::Close);
    }
    if !answer_error(conn, worker, s, x, reason, detail, keep).await {
        return After::Then(Next::Reset);
    }
    match keep {
        Keep::Yes => After::KeepAlive {
            used: s.head.head_len(),
        },
        Keep::No => After::Then(Next::Linger),
    }
}

/// Answers an error; whether the client was told.
pub(super) async fn answer_error(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    reason: Reason,
    detail: Option<Refusal>,
    keep: Keep,
) -> bool {
    respond::error_text(reason, detail, &mut s.text);
    let answer = Answer {
        // Whole seconds, rounded up (RFC 9110 section 10.2.3).
        retry_after: x.retry_after.map(|after| after.div_ceil(1_000_000_000)),
        ..Answer::error(reason, &s.text, x.named_id()).to(&s.head, keep)
    };
    s.to_client.clear();
    let (status, body_len) = (answer.status, answer.body_len());
    respond::write_answer(&mut s.to_client, &answer, &NO_EDITS);
    x.status = status.as_u16();
    let is_told = send(conn, worker, &s.to_client, x).await.is_ok();
    if is_told {
        x.body_out = body_len;
    }
    is_told
}

/// Lays out an answer of ours that is no error; how long its body is.
pub(super) fn write(
    out: &mut Vec<u8>,
    x: &mut Exchange,
    answer: &Answer<'_>,
    edits: &HeaderEdits,
) -> u64 {
    out.clear();
    respond::write_answer(out, answer, edits);
    x.status = answer.status.as_u16();
    answer.body_len()
}

/// Sends it.
pub(super) async fn finish(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    body_len: u64,
    keep: Keep,
) -> After {
    x.first_byte_at = Some(worker.clock.now());
    if let Err(reason) = send(conn, worker, &s.to_client, x).await {
        x.reason = Some(reason);
        // What is in the kernel's hands is not waited for either.
        return After::Then(Next::Reset);
    }
    x.body_out = body_len;
    match keep {
        Keep::Yes => After::KeepAlive {
            used: s.head.head_len(),
        },
        Keep::No => After::Then(Next::Linger),
    }
}

/// Writes `bytes` to the client. The listener's idle time-out is for each step forward, as it is for
/// a body that is relayed; the route's deadline, if it has one, is for all.
///
/// # Errors
/// Why the client did not get them all.
pub(super) async fn send(
    conn: &mut Conn,
    worker: &Worker,
    bytes: &[u8],
    x: &mut Exchange,
) -> Result<(), Reason> {
    let mut rest = bytes;
    let mut armed_at = usize::MAX;
    // One that has passed does not keep the client from being told so.
    let total = x.route().and_then(|r| Some(x.started + r.timeout?));
    let total = total.filter(|&total| worker.clock.now() < total);
    let sent = poll_fn(|cx| {
        while !rest.is_empty() {
            match conn.stream.poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => rest = &rest[n..],
                Poll::Ready(_) => return Poll::Ready(Err(Reason::ClientGone)),
                Poll::Pending => {
                    let now = worker.clock.now();
                    if armed_at != rest.len() {
                        let idle = now + x.listener().idle_timeout;
                        conn.timer.arm(total.map_or(idle, |total| total.min(idle)));
                        armed_at = rest.len();
                    }
                    if conn.is_cutting() {
                        return Poll::Ready(Err(Reason::Draining));
                    }
                    if conn.timer.has_expired(cx) {
                        let is_late = total.is_some_and(|total| now >= total);
                        return Poll::Ready(Err(if is_late {
                            Reason::Deadline
                        } else {
                            Reason::ClientIdle
                        }));
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await;
    x.sent += (bytes.len() - rest.len()) as u64;
    sent
}
