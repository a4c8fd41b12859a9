//! THE STORY OF A CONNECTION whose bytes are passed on as they are, top to bottom.
//!
//! ```text
//! 1 whom it comes from, what it begins with      -> greet.rs, if the listener wants to know
//! 2 may it go on: rates, breaker                 -> flow.rs
//! 3 attempts { pick or wait, connect }           -> queue.rs, dial.rs: nothing was sent, so another
//!                                                   endpoint may be asked
//! 4 joined: both directions until both have ended -> pump.rs
//! 5 record, exactly once                         -> flow.rs
//! ```
//!
//! What one side does the other learns as it was: an end as an end, of that direction alone; a reset as
//! a reset. A connection that could not be served is reset, so that nobody takes it for an empty answer.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::base::buffer::Buffer;
use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::{Retry, Serves};
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::EndpointOutcome;
use crate::telemetry::reason::Reason;
use crate::upstream::{Connection, LocalUpstream, Picked, Purpose, Seen, Ticket, Tried, Upstream};

use super::dial::dial;
use super::flow::{FlowExchange, Transport, hash_key};
use super::h1::Conn;
use super::pump::{Pump, Start};
use super::queue::{self, Wanting};
use super::retry::{self, Tries};
use super::snapshot::ListenerPlan;
use super::splice::Side;
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
}

/// A client's connection and one to an endpoint, joined. It is all that such a pair costs while it is
/// quiet, beside its task and its sockets.
#[derive(Debug)]
pub(super) struct Joined {
    conn: Conn,
    connection: Connection,
    up: Pump,
    down: Pump,
    exchange: FlowExchange,
    /// No progress for this long ends it.
    idle_timeout: Nanos,
    /// The same once one side has ended its direction.
    half_close_timeout: Nanos,
    /// What had moved when that was last looked at.
    progress: u64,
    /// When something last moved, or ended.
    active_at: Nanos,
    /// Whether the kernel asks both ends from time to time whether they are still there.
    is_kept_alive: bool,
    /// Who was found to have reset it by writing to him. What he had said before is still passed on.
    fault: Option<Reason>,
}

/// What `passthrough` and `detect` of HTTP listeners have: an hour is what TCP listeners have too.
const IDLE: Nanos = 3600 * 1_000_000_000;

/// Once it has been quiet for so long the kernel asks the other ends whether they are there, so that those
/// which went without a word are found, however long a connection may be silent. Short ones never need it,
/// and do not pay for it. NATs and firewalls forget connections after a few minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How often one who has ended its direction is looked after: a reset of his is told to nobody who does not
/// write to him. Asking costs a system call.
const LOOK: Duration = Duration::from_secs(1);

/// Time for an answer that is computed once the request has ended.
const HALF_CLOSE: Nanos = 300 * 1_000_000_000;

/// Connects a client with an endpoint; `None` = it is over.
pub(super) async fn connect(
    mut conn: Conn,
    worker: Rc<Worker>,
    listener: Arc<ListenerPlan>,
    passage: Passage,
) -> Option<Box<Joined>> {
    let now = worker.clock.now();
    let mut x = FlowExchange::begin(listener, Transport::Tcp, conn.peer, now);
    x.name = passage.name;
    match find_endpoint(&mut conn, &worker, &mut x, &passage.upstream).await {
        Ok(connection) => Some(Box::new(Joined::new(
            conn,
            connection,
            x,
            passage.start,
            &worker,
        ))),
        Err(reason) => {
            refuse(conn, &worker, x, reason);
            None
        }
    }
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
                };
                let waited = queue::wait_for(conn, worker, &upstream, wanting, deadlines);
                let ticket = Box::pin(waited).await?;
                now = worker.clock.now();
                ticket
            }
        };
        x.attempts += 1;
        x.phase = Phase::Connect;
        match dial(
            conn,
            worker,
            &upstream,
            &ticket,
            Purpose::Bytes,
            deadlines,
            now,
        )
        .await
        {
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
}

// === impl Waiting ===

impl Wanting for Waiting<'_> {
    fn pick(&mut self, upstream: &LocalUpstream, now: Nanos, rng: &mut Rng) -> Picked {
        upstream.pick(self.key, self.tried, true, now, rng)
    }

    /// What it has sent is not taken, so its end can be seen only while it has sent nothing; one that has,
    /// and went, is found out by the first write.
    fn is_gone(&mut self, cx: &mut Context<'_>, conn: &mut Conn) -> bool {
        let mut first = [0; 1];
        matches!(
            conn.stream.poll_peek(cx, &mut first, 0),
            Poll::Ready(Ok(0) | Err(_))
        )
    }
}

// === impl Passage ===

impl Passage {
    pub(super) fn new(upstream: &Arc<Upstream>, name: Option<String>, start: Start) -> Self {
        Self {
            upstream: upstream.clone(),
            name: name.map(Into::into),
            start,
        }
    }
}

// === impl Joined ===

impl Joined {
    fn new(
        conn: Conn,
        connection: Connection,
        exchange: FlowExchange,
        start: Start,
        worker: &Worker,
    ) -> Self {
        let (idle_timeout, half_close_timeout) = match &exchange.listener.spec.serves {
            Serves::Tcp(tcp) => (
                tcp.idle_timeout.map_or(Nanos::MAX, nanos),
                nanos(tcp.half_close_timeout),
            ),
            Serves::Http | Serves::Udp(_) => (IDLE, HALF_CLOSE),
        };
        let joined = Self {
            conn,
            connection,
            up: Pump::new(Buffer::none(), start),
            down: Pump::new(Buffer::none(), start),
            exchange,
            idle_timeout,
            half_close_timeout,
            progress: 0,
            active_at: worker.clock.now(),
            is_kept_alive: false,
            fault: None,
        };
        joined.arm(worker.clock.now());
        joined
    }

    /// For how long it may be quiet.
    fn patience(&self) -> Nanos {
        if self.is_half() {
            self.idle_timeout.min(self.half_close_timeout)
        } else {
            self.idle_timeout
        }
    }

    /// Waits for the next thing that time brings.
    fn arm(&self, now: Nanos) {
        let mut at = self.active_at.saturating_add(self.patience());
        if !self.is_kept_alive {
            at = at.min(self.active_at.saturating_add(nanos(KEEPALIVE)));
        }
        if self.is_half() {
            at = at.min(now.saturating_add(nanos(LOOK)));
        }
        match at {
            Nanos::MAX => self.conn.timer.disarm(),
            at => self.conn.timer.arm(at),
        }
    }

    /// Whether one direction has ended.
    fn is_half(&self) -> bool {
        self.up.is_done || self.down.is_done
    }

    /// Ends the direction towards one who has ended his own, and then closed all of it.
    fn look_after(&mut self, worker: &Worker) {
        if self.up.is_done && !self.down.is_done && self.conn.stream.is_reset() {
            self.down.give_up(worker);
        } else if self.down.is_done && !self.up.is_done && self.connection.stream.is_reset() {
            self.up.give_up(worker);
        }
    }

    /// How it ended, once both directions have.
    fn verdict(&self) -> Option<Reason> {
        // It had more to hear than it wanted to. An endpoint may: its client needs the answer alone.
        let is_gone = self.down.is_deaf.then_some(Reason::ClientGone);
        self.fault.or(is_gone)
    }

    /// Moves what can be moved; ready when there is nothing more to come: why, if it is a fault.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<Option<Reason>> {
        let was_half = self.is_half();
        let (client, endpoint) = (&mut self.conn.stream, &mut self.connection.stream);
        let (up, down) = (&mut self.up, &mut self.down);
        match up.poll(cx, worker, client, endpoint, down.is_done) {
            Ok(()) => {}
            Err((Side::Read, _)) => return Poll::Ready(self.fault.or(Some(Reason::ClientGone))),
            // It may have said something before, which lies here unread.
            Err((Side::Write, _)) => {
                self.fault.get_or_insert(Reason::EndpointReset);
                up.give_up(worker);
            }
        }
        match down.poll(cx, worker, endpoint, client, up.is_done) {
            Ok(()) => {}
            Err((Side::Read, _)) => return Poll::Ready(self.fault.or(Some(Reason::EndpointReset))),
            Err((Side::Write, _)) => {
                self.fault.get_or_insert(Reason::ClientGone);
                down.give_up(worker);
                // What it said before is read now, if its endpoint takes it.
                cx.waker().wake_by_ref();
            }
        }
        if up.is_done && down.is_done {
            return Poll::Ready(self.verdict());
        }
        if self.conn.is_cutting() || self.connection.is_cut() {
            return Poll::Ready(Some(Reason::Draining));
        }
        let moved = up.moved + down.moved;
        let has_answered = down.moved > 0;
        if moved != self.progress || self.is_half() != was_half {
            self.progress = moved;
            let now = worker.clock.now();
            if has_answered && self.exchange.first_byte_at.is_none() {
                self.exchange.first_byte_at = Some(now);
            }
            self.active_at = now;
            self.arm(now);
        }
        while self.conn.timer.has_expired(cx) {
            let now = worker.clock.now();
            let quiet = now.saturating_sub(self.active_at);
            if quiet >= self.patience() {
                return Poll::Ready(self.fault.or(Some(Reason::ClientIdle)));
            }
            self.look_after(worker);
            if self.up.is_done && self.down.is_done {
                return Poll::Ready(self.verdict());
            }
            if quiet >= nanos(KEEPALIVE) && !self.is_kept_alive {
                self.is_kept_alive = true;
                self.conn.stream.keep_alive(KEEPALIVE);
                self.connection.stream.keep_alive(KEEPALIVE);
            }
            self.arm(now);
        }
        Poll::Pending
    }

    /// Closes both and records it. The client's connection comes back if it still sends, and closing it
    /// would reset it and lose what it has not read yet.
    pub(super) fn end(self, reason: Option<Reason>, worker: &Worker) -> Option<Conn> {
        let Self {
            mut conn,
            mut connection,
            up,
            down,
            exchange: mut x,
            fault,
            ..
        } = self;
        // What lies here when time is up is lost: nobody may take what came before for all of it.
        let is_quiet = match reason {
            None => true,
            Some(Reason::ClientIdle) => !up.holds_bytes() && !down.holds_bytes(),
            // It ended its direction first, and all of that was passed on.
            Some(Reason::ClientGone) => down.is_deaf && fault.is_none(),
            Some(_) => false,
        };
        if !is_quiet {
            conn.stream.reset_on_close();
            connection.stream.reset_on_close();
        }
        let now = worker.clock.now();
        if x.first_byte_at.is_none() && down.moved > 0 {
            x.first_byte_at = Some(now);
        }
        x.reason = reason;
        x.bytes_in = up.moved;
        x.bytes_out = down.moved;
        let (outcome, seen) = match reason {
            // It took the connection and then would not have it.
            Some(Reason::EndpointReset) if down.moved == 0 => {
                (EndpointOutcome::Reset, Seen::Failed)
            }
            Some(Reason::EndpointReset) => (EndpointOutcome::Reset, Seen::Answered),
            Some(Reason::ClientGone | Reason::Draining) => {
                (EndpointOutcome::Cancelled, Seen::Cancelled)
            }
            _ => (EndpointOutcome::Ok, Seen::Answered),
        };
        x.count_outcome(worker, outcome);
        if let (Some(ticket), Some(upstream)) = (&x.ticket, &x.upstream) {
            let endpoint = ticket.endpoint().shared.cells.worker(worker.index);
            endpoint.sent_bytes.add(up.moved);
            endpoint.received_bytes.add(down.moved);
            Ticket::judge(ticket, &upstream.shared, seen, now);
        }
        x.conclude(seen, now);
        let lingers = reason.is_none() && up.is_deaf;
        let cells = worker.cells();
        for mut pump in [up, down] {
            cells.spliced_bytes.add(pump.spliced);
            cells.copied_bytes.add(pump.moved - pump.spliced);
            pump.release(worker);
        }
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
