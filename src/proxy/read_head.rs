//! The head of a request: read until it is complete, refused, too late or not there at all.

use std::future::poll_fn;
use std::task::Poll;

use crate::base::clock::Nanos;
use crate::http1::{Progress, Refusal};
use crate::telemetry::reason::Reason;

use super::h1::Conn;
use super::respond;
use super::scratch::Scratch;
use super::snapshot::ListenerPlan;
use super::worker::Worker;

/// What became of reading a head.
pub(super) enum Head {
    Ready {
        started: Nanos,
    },
    /// Nothing there.
    Idle,
    /// The client is gone, or has said all it will say.
    Closed,
    Refused {
        reason: Reason,
        detail: Option<Refusal>,
        started: Nanos,
    },
}

/// Reads until a head is complete. Returns [`Head::Idle`] rather than wait with nothing read.
pub(super) async fn read_head(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    listener: &ListenerPlan,
) -> Head {
    s.inbound.compact();
    s.head.reset();
    let mut started = None;
    let mut armed = false;
    poll_fn(|cx| {
        loop {
            if !s.inbound.is_empty() {
                let started = *started.get_or_insert_with(|| worker.clock.now());
                match s.head.parse(s.inbound.filled(), &listener.limits) {
                    Ok(Progress::Complete) => return Poll::Ready(Head::Ready { started }),
                    Ok(Progress::Partial) => {}
                    Err(refusal) => {
                        let reason = respond::request_refused(refusal);
                        let detail = Some(refusal);
                        return Poll::Ready(Head::Refused {
                            reason,
                            detail,
                            started,
                        });
                    }
                }
                if conn.ended {
                    return Poll::Ready(Head::Closed);
                }
                if s.inbound.spare().is_empty() {
                    // The parser refuses what exceeds `max_header_bytes`: this doubles up to there.
                    s.inbound.grow(s.inbound.capacity() * 2);
                }
            } else if conn.ended {
                return Poll::Ready(Head::Closed);
            }
            match conn.stream.poll_read(cx, &mut s.inbound) {
                Poll::Ready(Ok(0)) => conn.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Head::Closed),
                Poll::Pending if s.inbound.is_empty() => return Poll::Ready(Head::Idle),
                Poll::Pending => {
                    let started = started.unwrap_or_else(|| worker.clock.now());
                    if !armed {
                        // From the first byte to the last, however many come between.
                        conn.timer.arm(started + listener.header_timeout);
                        armed = true;
                        conn.stream.acknowledge();
                    }
                    if conn.is_cutting() {
                        return Poll::Ready(Head::Closed);
                    }
                    if conn.timer.has_expired(cx) {
                        let reason = Reason::HeaderTimeout;
                        return Poll::Ready(Head::Refused {
                            reason,
                            detail: None,
                            started,
                        });
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}
