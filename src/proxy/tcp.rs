//! THE STORY OF A CONNECTION whose bytes are passed on as they are, top to bottom.
//!
//! ```text
//! 1 whom it comes from, what it begins with      -> greet.rs, if the listener wants to know
//! 2 may it go on: rates, breaker                 -> flow.rs
//! 3 attempts { pick or wait, hear, connect }     -> queue.rs, opening.rs, dial.rs: nothing was sent, so
//!                                                   another endpoint may be asked
//! 4 joined: both directions until both have ended -> pump.rs
//! 5 record, exactly once                         -> flow.rs
//! ```
//!
//! What one side does the other learns as it was: an end as an end, of that direction alone; a reset as
//! a reset. A connection that could not be served is reset, so that nobody takes it for an empty answer. Of urgent
//! data (RFC 6093) the one byte that is urgent is not passed on, and everything before and behind it is.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::base::buffer::Buffer;
use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::base::stream::Stream;
use crate::config::{ProxyVersion, Retry, Serves, TcpSpec};
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::EndpointOutcome;
use crate::telemetry::reason::Reason;
use crate::upstream::{Connection, LocalUpstream, Picked, Purpose, Seen, Tried, Upstream};

use super::announce;
use super::dial::dial;
use super::flow::{FlowExchange, KEPT, Transport, hash_key};
use super::h1::Conn;
use super::opening::Opening;
use super::owed::Owed;
use super::pair::{Pair, Patience};
use super::pump::{Pump, Start};
use super::queue::{self, Wanting};
use super::retry::{self, Tries};
use super::snapshot::ListenerPlan;
use super::upload::Deadlines;
use super::worker::Worker;

/// Where a connection goes as it is.
#[derive(Debug)]
pub(super) struct Passage {
    /// To whom.
    pub upstream: Arc<Upstream>,
    /// The name that it asks for, if it is TLS.
    pub name: Option<Box<str>>,
    /// How it is moved at first.
    pub start: Start,
    /// What it begins with was looked at, where it lies.
    pub is_looked_at: bool,
}

/// A client's connection and one to an endpoint, joined. It is all that such a pair costs while it is
/// quiet, beside its task and its sockets.
#[derive(Debug)]
pub(super) struct Joined {
    conn: Conn,
    connection: Connection,
    pair: Pair,
    exchange: FlowExchange,
}

/// Connects a client with an endpoint; `None` = it is over.
pub(super) async fn connect(
    mut conn: Conn,
    worker: Rc<Worker>,
    listener: Arc<ListenerPlan>,
    passage: Passage,
) -> Option<Box<Joined>> {
    let now = worker.clock.now();
    let mut x = FlowExchange::begin(listener, Transport::Tcp, conn.peer, now);
    if let Some(name) = &passage.name
        && passage.upstream.spec.send_proxy_protocol == Some(ProxyVersion::V2)
    {
        tell_name(&mut conn, name);
    }
    let mut opening = Opening::new(&conn, &passage);
    x.name = passage.name;
    let found = find_endpoint(&mut conn, &worker, &mut x, &passage.upstream, &mut opening).await;
    let connection = match found {
        Ok(connection) => connection,
        Err(reason) => {
            opening.release(&worker);
            refuse(conn, &worker, x, reason);
            return None;
        }
    };
    let is_told_at_once = opening.has_spoken() && connection.stream.is_own();
    let owed = Owed::new(is_told_at_once);
    let first = opening.into_bytes(&mut conn, &worker);
    let is_gone = first.is_err();
    let up = Pump::new(first.unwrap_or(Buffer::none()), passage.start);
    let joined = Joined::new(conn, connection, x, up, owed, &worker);
    if is_gone {
        joined.end(Some(Reason::ClientGone), &worker);
        return None;
    }
    Some(Box::new(joined))
}

/// Notes the name that it asks for, for endpoints that are told of clients.
fn tell_name(conn: &mut Conn, name: &str) {
    let mut told = announce::origin(&conn.stream, conn.peer, conn.proxied.as_deref());
    if told.tlvs.authority().is_none() {
        told.tlvs.set_authority(name.as_bytes());
    }
    conn.proxied = Some(Rc::new(told));
}

/// Ends a connection that nobody serves.
pub(super) fn refuse(mut conn: Conn, worker: &Worker, mut x: FlowExchange, reason: Reason) {
    x.reason = Some(reason);
    conn.stream.reset_on_close();
    drop(conn);
    x.record(worker, worker.clock.now());
}

/// A connection to an endpoint for it.
async fn find_endpoint(
    conn: &mut Conn,
    worker: &Worker,
    x: &mut FlowExchange,
    upstream: &Arc<Upstream>,
    opening: &mut Opening,
) -> Result<Connection, Reason> {
    let upstream = x.admit(worker, upstream, x.started)?;
    let cells = upstream.shared.cells.worker(worker.index);
    let spec = &upstream.shared.spec;
    let mut key = Vec::new();
    hash_key(spec, x.client.map(|c| c.ip()), &mut key);
    let key = (!key.is_empty()).then_some(&key[..]);
    // Nothing but connecting takes time here, and that has a limit of its own.
    let deadlines = Deadlines {
        total: None,
        attempt: None,
        per_try: None,
        client_idle: Nanos::MAX,
        endpoint_idle: Nanos::MAX,
    };
    let retry = Retry::default();
    let mut tries = Tries::new(&retry);
    loop {
        x.phase = Phase::Pick;
        let mut now = worker.clock.now();
        x.picked_at = Some(now);
        let is_called = !tries.is_first();
        let picked = {
            let mut rng = worker.rng.borrow_mut();
            upstream.pick(key, tries.tried(), is_called, now, &mut rng)
        };
        let ticket = match picked {
            Picked::One(ticket) => ticket,
            Picked::Nobody => {
                cells.no_endpoint.inc();
                return Err(Reason::NoEndpoint);
            }
            Picked::Full => {
                x.phase = Phase::Queue;
                let wanting = Waiting {
                    key,
                    tried: tries.tried(),
                    is_heard: opening.is_held(),
                };
                let waited = queue::wait_for(conn, worker, &upstream, wanting, deadlines);
                let ticket = Box::pin(waited).await?;
                now = worker.clock.now();
                ticket
            }
        };
        if opening.hear(conn, worker).is_err() {
            // This one was not asked, so it is not named.
            return Err(Reason::ClientGone);
        }
        x.attempts += 1;
        x.phase = Phase::Connect;
        let has_spoken = opening.has_spoken();
        let purpose = Purpose::Bytes { has_spoken };
        match dial(conn, worker, &upstream, &ticket, purpose, deadlines, now).await {
            Ok((connection, at)) => {
                // What comes of it is the client's and the endpoint's own affair: this it was good for.
                ticket.observe(Seen::Answered, Some(at.saturating_sub(now)), at);
                x.connected_at = Some(at);
                x.ticket = Some(ticket);
                x.phase = Phase::Tunnel;
                return Ok(connection);
            }
            Err((reason, seen)) => {
                let now = worker.clock.now();
                let another = retry::kind_of(reason).and_then(|why| {
                    let mut rng = worker.rng.borrow_mut();
                    let at = (worker.index, now);
                    tries.another(why, ticket.endpoint(), &upstream, None, at, &mut rng)
                });
                x.ticket = Some(ticket);
                if another.is_none() {
                    x.conclude(seen, now);
                    return Err(reason);
                }
                x.let_go();
            }
        }
    }
}

/// A connection that waits for an endpoint with room.
struct Waiting<'a> {
    key: Option<&'a [u8]>,
    tried: &'a Tried,
    /// What it has said was taken.
    is_heard: bool,
}

// === impl Waiting ===

impl Wanting for Waiting<'_> {
    fn pick(&mut self, upstream: &LocalUpstream, now: Nanos, rng: &mut Rng) -> Picked {
        upstream.pick(self.key, self.tried, true, now, rng)
    }

    /// What it has sent is not taken before the first attempt, so its end can be seen only while it has sent
    /// nothing; one that has, and went, is found out by what is read or written next. Of what is encrypted
    /// nothing can be told without taking it, and an end may be that of one direction: only a reset is seen.
    fn is_gone(&mut self, cx: &mut Context<'_>, conn: &mut Conn) -> bool {
        let mut first = [0; 1];
        if let Stream::Tls(tls) = &mut conn.stream {
            return match tls.socket_mut().poll_peek(cx, &mut first, 0) {
                Poll::Ready(Ok(_)) => tls.socket().is_reset(),
                Poll::Ready(Err(_)) => true,
                Poll::Pending => false,
            };
        }
        match conn.stream.poll_peek(cx, &mut first, 0) {
            // Who has said all that he wants to say waits for the answer.
            Poll::Ready(Ok(n)) => n == 0 && !self.is_heard,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

// === impl Passage ===

impl Passage {
    /// Of one that has not been looked at.
    pub(super) fn new(upstream: &Arc<Upstream>) -> Self {
        Self {
            upstream: upstream.clone(),
            name: None,
            start: Start::Copying,
            is_looked_at: false,
        }
    }

    /// Of one that was found to ask for `name`, or for none.
    pub(super) fn looked_at(upstream: &Arc<Upstream>, name: Option<String>, start: Start) -> Self {
        Self {
            name: name.map(Into::into),
            start,
            is_looked_at: true,
            ..Self::new(upstream)
        }
    }
}

// === impl Joined ===

impl Joined {
    fn new(
        conn: Conn,
        connection: Connection,
        exchange: FlowExchange,
        up: Pump,
        owed: Owed,
        worker: &Worker,
    ) -> Self {
        let (idle, half_closed) = match &exchange.listener.spec.serves {
            Serves::Tcp(tcp) => (
                tcp.idle_timeout.map_or(Nanos::MAX, nanos),
                nanos(tcp.half_close_timeout),
            ),
            // What `passthrough` and `detect` of HTTP listeners have.
            Serves::Http | Serves::Udp(_) => (
                nanos(TcpSpec::IDLE_TIMEOUT),
                nanos(TcpSpec::HALF_CLOSE_TIMEOUT),
            ),
        };
        let patience = Patience { idle, half_closed };
        let down = Pump::new(Buffer::none(), up.start);
        let now = worker.clock.now();
        let pair = Pair::new((up, down), patience, owed, &conn.timer, now);
        Self {
            conn,
            connection,
            pair,
            exchange,
        }
    }

    /// Moves what can be moved; ready when there is nothing more to come: why, if it is a fault.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<Option<Reason>> {
        let is_cut = self.conn.is_cutting() || self.connection.is_cut();
        let ends = (&mut self.conn.stream, &mut self.connection.stream);
        let polled = self.pair.poll(cx, worker, &self.conn.timer, ends, is_cut);
        if self.exchange.first_byte_at.is_none() {
            self.note_answer(worker);
        }
        polled
    }

    /// Looks whether the endpoint has shown that it is well. It is told of then and not at the end, which may be
    /// days away: failures are told of at once, and would stand alone.
    fn note_answer(&mut self, worker: &Worker) {
        let x = &mut self.exchange;
        if self.pair.down.moved > 0 {
            let now = worker.clock.now();
            x.first_byte_at = Some(now);
            if let (Some(ticket), Some(upstream)) = (&x.ticket, &x.upstream) {
                ticket.judge(&upstream.shared, Seen::Answered, now);
            }
            x.conclude(Seen::Answered, now);
        } else if x.is_watched() {
            let now = worker.timers.present();
            if x.connected_at
                .is_some_and(|at| now.saturating_sub(at) >= nanos(KEPT))
            {
                x.conclude(Seen::Answered, now);
            }
        }
    }

    /// Closes both and records it. The client's connection comes back if it still sends, and closing it
    /// would reset it and lose what it has not read yet.
    pub(super) fn end(self, reason: Option<Reason>, worker: &Worker) -> Option<Conn> {
        let Self {
            mut conn,
            mut connection,
            mut pair,
            exchange: mut x,
        } = self;
        if !pair.ends_quietly(reason) {
            conn.stream.reset_on_close();
            connection.stream.reset_on_close();
        }
        let now = worker.clock.now();
        let (sent, received) = (pair.up.moved, pair.down.moved);
        x.reason = reason;
        x.bytes_in = sent;
        x.bytes_out = received;
        let (outcome, seen) = match reason {
            // It took the connection and then would not have it, whatever it is for. (What a client says may
            // well be a reason: that is no fault of the endpoint.)
            Some(Reason::EndpointReset) if sent + received == 0 => {
                (EndpointOutcome::Reset, Seen::Failed)
            }
            Some(Reason::EndpointReset) => (EndpointOutcome::Reset, Seen::Cancelled),
            Some(Reason::ClientGone | Reason::Draining) => {
                (EndpointOutcome::Cancelled, Seen::Cancelled)
            }
            // An endpoint that is gone is silent too.
            Some(Reason::ClientIdle) => (EndpointOutcome::Ok, Seen::Cancelled),
            _ => (EndpointOutcome::Ok, Seen::Answered),
        };
        x.count_outcome(worker, outcome);
        if let (Some(ticket), Some(upstream)) = (&x.ticket, &x.upstream) {
            let endpoint = ticket.endpoint().shared.cells.worker(worker.index);
            endpoint.sent_bytes.add(sent);
            endpoint.received_bytes.add(received);
            // What it answered was told of when it did.
            if x.first_byte_at.is_none() {
                ticket.judge(&upstream.shared, seen, now);
            }
        }
        x.conclude(seen, now);
        let lingers = reason.is_none() && pair.up.is_deaf;
        pair.release(worker);
        drop(connection);
        x.record(worker, now);
        lingers.then_some(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_pair_is_small() {
        // With its task, two sockets in the reactor and a timer: within 1.5 KiB (bench/README.md).
        assert!(size_of::<Joined>() <= 640, "{}", size_of::<Joined>());
    }
}
