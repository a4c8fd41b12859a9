//! A connection above `max_connections`: told so in one write, and closed.
//!
//! HAProxy lets such connections wait in the kernel's queue, where a client learns nothing until
//! its own time is up. Here it hears 503 at once, so that it, or the balancer in front of it, can go
//! elsewhere. Under a flood this must cost little more than the accept did: no task, no exchanger,
//! no wait. One write goes out, and a bounded number of connections linger for what their clients
//! still send: a socket closed with bytes unread is reset, and an answer may be lost with it.

use std::cell::Cell;
use std::rc::Rc;

use crate::config::{HeaderEdits, Serves};
use crate::telemetry::reason::Reason;

use super::exchange::Exchange;
use super::flow::{FlowExchange, Transport};
use super::h1::{Conn, linger};
use super::respond::{self, Answer};
use super::snapshot::Held;
use super::tcp;
use super::worker::Worker;

/// Lingering connections of one worker: most clients send their request within a round trip, so
/// this serves bursts of hundreds a second. Beyond it a client may see a reset instead.
const LINGERING_MAX: usize = 128;

/// How many connections of one worker were turned away and linger.
#[derive(Debug, Default)]
pub(super) struct TurnedAway(Cell<usize>);

/// Answers 503 to a connection whose listener, in `snapshot`, has as many as it may. What is
/// returned, if anything, is to be run for the answer to arrive for sure.
pub fn turn_away(
    mut conn: Conn,
    worker: &Rc<Worker>,
    snapshot: Rc<Held>,
) -> Option<impl Future<Output = ()> + use<>> {
    if let Some(listener) = snapshot.kept_listener(conn.life.slot)
        && matches!(listener.spec.serves, Serves::Tcp(_))
    {
        let now = worker.clock.now();
        let x = FlowExchange::begin(listener, Transport::Tcp, conn.peer, now);
        tcp::refuse(conn, worker, x, Reason::ConnectionsLimit);
        return None;
    }
    // Over TLS nothing can be said before the handshake, which is what there is no room for.
    let is_tls = snapshot
        .listener(conn.life.slot)
        .is_some_and(|l| l.tls.is_some() || !l.layer4.passthrough.is_empty());
    let is_told = tell(&conn, worker, snapshot, Reason::ConnectionsLimit, !is_tls);
    let lingering = &worker.turned_away.0;
    if !is_told || lingering.get() >= LINGERING_MAX {
        conn.stream.shutdown_write();
        // What has come already at least does not reset the answer.
        conn.stream.drop_now();
        return None;
    }
    lingering.set(lingering.get() + 1);
    let worker = worker.clone();
    Some(async move {
        linger(conn, worker.clone()).await;
        let lingering = &worker.turned_away.0;
        lingering.set(lingering.get() - 1);
    })
}

/// Answers a connection that has said nothing yet, or nothing that counts, in one write if it may
/// speak, and records that. Whether the client was told.
pub(super) fn tell(
    conn: &Conn,
    worker: &Worker,
    snapshot: Rc<Held>,
    reason: Reason,
    may_speak: bool,
) -> bool {
    let now = worker.clock.now();
    let mut x = Exchange::new(snapshot, conn.life.slot, conn.peer, now, now);
    x.reason = Some(reason);
    if x.named_id().is_some() {
        x.set_request_id(None, worker);
    }
    let mut text = String::new();
    respond::error_text(reason, None, &mut text);
    let answer = Answer {
        retry_after: (reason == Reason::ConnectionsLimit).then_some(1),
        ..Answer::error(reason, &text, x.named_id())
    };
    let (status, body_len) = (answer.status.as_u16(), answer.body_len());
    let mut out = Vec::with_capacity(512);
    respond::write_answer(&mut out, &answer, &HeaderEdits::default());
    // The buffer of a new socket is empty: either all of it fits, or the client has gone.
    let is_told = may_speak && conn.stream.write_now(&out).is_ok_and(|n| n == out.len());
    if is_told {
        x.status = status;
        x.body_out = body_len;
        x.sent = out.len() as u64;
    }
    x.record(worker, conn.peer, None, worker.clock.now());
    is_told
}
