//! The request on its way to the endpoint, and the deadlines of an exchange.

use std::task::{Context, Poll};

use crate::base::buffer::Buffer;
use crate::base::clock::Nanos;
use crate::base::stream::Stream;
use crate::http1::RequestBody;
use crate::telemetry::reason::Reason;

use super::answer::Keep;
use super::body::{Flow, FlowError};
use super::exchange::Exchange;
use super::h1::Conn;
use super::scratch::Scratch;
use super::splice::{Pipes, Side};

/// The request on its way.
#[derive(Debug)]
pub(super) struct Upload<'p> {
    pub(super) flow: Flow<'p>,
    /// Nothing more will be sent: it is complete, or the endpoint stopped reading.
    pub(super) stopped: bool,
    /// It stopped before its end.
    pub(super) broken: bool,
    /// The client waits for the endpoint's 100 before it sends the body.
    pub(super) awaits_100: bool,
    /// What came of it before the rest has been acknowledged.
    pub(super) is_acknowledged: bool,
}

/// The deadlines of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// Of the whole exchange.
    pub(super) total: Option<Nanos>,
    /// Of this attempt, until the response's head; begins when the request is out of the client's
    /// hands.
    pub(super) attempt: Option<Nanos>,
    /// How long an attempt may take.
    pub(super) per_try: Option<Nanos>,
    /// No progress of the client.
    pub(super) client_idle: Nanos,
    /// No progress of the endpoint.
    pub(super) endpoint_idle: Nanos,
}

/// Who is to move next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The client is to send its body, or to read its response.
    Client,
    /// The endpoint is to read, or to answer.
    Endpoint,
}

/// Arms the connection's timer for `patience` from `now`, or the total deadline if that is sooner.
#[inline]
pub(super) fn arm(conn: &Conn, deadlines: Deadlines, now: Nanos, patience: Nanos) {
    let at = now.saturating_add(patience);
    let at = deadlines.total.map_or(at, |total| total.min(at));
    conn.timer
        .arm(deadlines.attempt.map_or(at, |attempt| attempt.min(at)));
}

/// Looks after a client whose request has been read: what it pipelines is read as far as there is
/// room, its end is remembered (half-closing is its right), its reset ends the exchange.
pub(super) fn is_client_gone(cx: &mut Context<'_>, conn: &mut Conn, inbound: &mut Buffer) -> bool {
    while !conn.ended && !inbound.spare().is_empty() {
        match conn.stream.poll_read(cx, inbound) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => conn.ended = true,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return true,
        }
    }
    false
}

// === impl Deadlines ===

impl Deadlines {
    /// From here on the time is the endpoint's.
    pub(super) fn begin_attempt(&mut self, now: Nanos) {
        self.attempt = self.per_try.map(|per_try| now.saturating_add(per_try));
    }

    /// How long no progress is borne.
    pub(super) fn patience(&self, turn: Turn) -> Nanos {
        match turn {
            Turn::Client => self.client_idle,
            Turn::Endpoint => self.endpoint_idle,
        }
    }

    /// Whose time is up, when the timer has expired at `now`.
    pub(super) fn expired(&self, now: Nanos, turn: Turn) -> Reason {
        if self.total.is_some_and(|total| now >= total) {
            return Reason::Deadline;
        }
        if self.attempt.is_some_and(|attempt| now >= attempt) {
            return Reason::AttemptTimeout;
        }
        match turn {
            Turn::Client => Reason::ClientIdle,
            Turn::Endpoint => Reason::EndpointIdle,
        }
    }
}

// === impl Upload ===

impl Upload<'_> {
    /// Moves what can be moved; an error ends it, and is told once.
    #[inline]
    pub(super) fn advance(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        inbound: &mut Buffer,
        to: &mut Stream,
        out: &mut Vec<u8>,
        pipes: &Pipes,
    ) -> Result<(), FlowError> {
        if self.stopped {
            return Ok(());
        }
        match self.flow.poll(cx, from, inbound, to, out, pipes) {
            Poll::Pending => {
                if self.flow.waits == Side::Read && !self.is_acknowledged {
                    self.is_acknowledged = true;
                    from.acknowledge();
                }
                // While the endpoint does not take what is there, nobody reads from the client.
                if self.flow.waits == Side::Write
                    && let Some(channel) = from.channel()
                    && let Poll::Ready(error) = channel.poll_gone(cx)
                {
                    self.stopped = true;
                    self.broken = true;
                    return Err(FlowError::Read(error));
                }
                Ok(())
            }
            Poll::Ready(ended) => {
                self.stopped = true;
                self.broken = ended.is_err();
                ended
            }
        }
    }

    /// Whose turn it is: not the client's while it may wait for the endpoint's 100.
    pub(super) fn turn(&self) -> Turn {
        let is_invited = !self.awaits_100 || self.flow.body_bytes > 0;
        if !self.stopped && self.flow.waits == Side::Read && is_invited {
            Turn::Client
        } else {
            Turn::Endpoint
        }
    }
}

/// The client's connection stays if its request was read to its end.
pub(super) fn keep_unless_broken(s: &mut Scratch, upload: &Upload<'_>) -> Keep {
    let no_body = matches!(s.head.body, RequestBody::None | RequestBody::Length(0));
    if no_body && s.head.keep_alive && !upload.broken {
        Keep::Yes
    } else {
        Keep::No
    }
}

pub(super) fn account_upload(x: &mut Exchange, upload: &Upload<'_>) {
    x.body_in = upload.flow.body_bytes;
    x.received += upload.flow.body_bytes;
}
