//! Tunnels: after a 101 the two connections are joined, whatever is spoken on them.

use std::future::poll_fn;
use std::rc::Rc;

use crate::base::buffer::Buffer;
use crate::base::clock::Nanos;
use crate::http1::RequestHead;
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::EndpointOutcome;
use crate::telemetry::reason::Reason;
use crate::upstream::Connection;

use super::answer::send;
use super::exchange::Exchange;
use super::h1::{Conn, Next};
use super::headers;
use super::http::After;
use super::owed::Owed;
use super::pair::{Pair, Patience};
use super::pump::{Pump, Start};
use super::scratch::Scratch;
use super::snapshot::RoutePlan;
use super::upload::Deadlines;
use super::worker::Worker;

/// What a connection needs to become a tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The exchange that asked for it; recorded when the tunnel ends.
    pub exchange: Exchange,
    /// The request's head and the buffer it lies in (for the log), with what the client sent after.
    pub head: RequestHead,
    /// Where the head lies.
    pub inbound: Buffer,
    /// How many bytes of `inbound` are the head.
    pub head_len: usize,
    /// The connection to the endpoint.
    pub connection: Connection,
    /// What the endpoint sent after its 101.
    pub outbound: Buffer,
    /// No progress for this long ends it.
    pub idle_timeout: Nanos,
}

/// Answers 101 and hands both connections over to a tunnel.
pub(super) async fn begin(
    conn: &mut Conn,
    worker: &Rc<Worker>,
    s: &mut Scratch,
    x: &mut Exchange,
    plan: &RoutePlan,
    mut connection: Connection,
    deadlines: Deadlines,
) -> After {
    let cx = headers::ResponseContext {
        edits: &plan.response_headers,
        body: headers::ResponseFraming::UntilClose,
        close: false,
        keep_alive_10: false,
        upgrade: true,
        via: x.listener().spec.forwarding.via.as_deref(),
        cookie: None,
        hidden: x.agent_header(),
    };
    s.to_client.clear();
    headers::write_response(&mut s.to_client, &s.reply, s.response.filled(), &cx);
    x.status = 101;
    if let Err(reason) = send(conn, worker, &s.to_client, x).await {
        x.reason = Some(reason);
        connection.stream.reset_on_close();
        if let Some(ticket) = &x.ticket {
            let endpoint = ticket.endpoint().shared.cells.worker(worker.index);
            endpoint.requests(EndpointOutcome::Cancelled).inc();
        }
        return After::Then(Next::Reset);
    }
    s.response.consume(s.reply.head_len());
    s.response.compact();
    let outbound = std::mem::replace(&mut s.response, Buffer::none());
    After::Tunnel {
        connection,
        outbound,
        idle_timeout: deadlines.client_idle.max(deadlines.endpoint_idle),
    }
}

/// Runs a tunnel to its end. The connection comes back if its client still sends, and closing it
/// would reset it and lose what the client has not read yet.
pub(super) async fn run(mut conn: Conn, tunnel: Tunnel, worker: Rc<Worker>) -> Option<Conn> {
    let Tunnel {
        mut exchange,
        head,
        mut inbound,
        head_len,
        mut connection,
        outbound,
        idle_timeout,
    } = tunnel;
    let cells = worker.cells();
    cells.tunnels.inc();
    cells.tunnels_total.inc();
    exchange.phase = Phase::Tunnel;
    exchange.tunnel = true;

    // What the client sent behind its request's head goes first; the head stays for the log.
    let mut early = Buffer::none();
    if inbound.len() > head_len {
        early = worker.buffers.take();
        early.grow(inbound.len() - head_len);
        early.push(&inbound.filled()[head_len..]);
        inbound.truncate(head_len);
    }
    let patience = Patience {
        idle: idle_timeout,
        half_closed: idle_timeout,
    };
    let up = Pump::new(early, Start::Copying);
    let down = Pump::new(outbound, Start::Copying);
    let now = worker.clock.now();
    let mut pair = Pair::new((up, down), patience, Owed::nothing(), &conn.timer, now);
    let reason = poll_fn(|cx| {
        let is_cut = conn.is_cutting() || connection.is_cut();
        let ends = (&mut conn.stream, &mut connection.stream);
        pair.poll(cx, &worker, &conn.timer, ends, is_cut)
    })
    .await;

    // Idle tunnels are closed by both sides' own choice of time-out, not by a fault.
    if !pair.ends_quietly(reason) {
        conn.stream.reset_on_close();
        connection.stream.reset_on_close();
    }
    let (sent, received) = (pair.up.moved, pair.down.moved);
    exchange.reason = reason;
    exchange.body_in += sent;
    exchange.body_out += received;
    exchange.received += sent;
    exchange.sent += received;
    let lingers = reason.is_none() && pair.up.is_deaf;
    pair.release(&worker);
    cells.tunnels.dec();
    if let Some(ticket) = &exchange.ticket {
        let outcome = match reason {
            Some(Reason::EndpointReset) => EndpointOutcome::Reset,
            Some(Reason::ClientGone | Reason::Draining) => EndpointOutcome::Cancelled,
            _ => EndpointOutcome::Ok,
        };
        ticket
            .endpoint()
            .shared
            .cells
            .worker(worker.index)
            .requests(outcome)
            .inc();
    }
    drop(connection);
    let now = worker.clock.now();
    exchange.record(&worker, conn.peer, Some((&head, inbound.filled())), now);
    lingers.then_some(conn)
}
