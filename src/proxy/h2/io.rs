//! The bytes below a client's connection: every frame is looked at on its way.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::base::buffer::Buffer;
use crate::base::clock::{Clock, Nanos};
use crate::base::stream::Stream;
use crate::config::Http2;
use crate::http2::Wire;
use crate::telemetry::abuse::Abuse;

use super::meter::FrameMeter;

/// A stream whose frames are watched, with bytes before it that were read already.
#[derive(Debug)]
pub(super) struct WatchedIo {
    prefix: Buffer,
    stream: Stream,
    watch: Rc<Watch>,
}

/// What was seen of the frames; shared with the connection's task.
#[derive(Debug)]
pub(super) struct Watch {
    meter: RefCell<FrameMeter>,
    abuse: Cell<Option<Abuse>>,
    clock: Clock,
}

// === impl Watch ===

impl Watch {
    /// A watch within these limits.
    pub(super) fn new(limits: &Http2, clock: Clock) -> Self {
        Self {
            meter: RefCell::new(FrameMeter::new(limits, clock.now())),
            abuse: Cell::new(None),
            clock,
        }
    }

    /// The abuse that was seen; nothing is read any more after it.
    pub(super) fn abuse(&self) -> Option<Abuse> {
        self.abuse.get()
    }

    /// What the client abuses, if its connection ends because it does.
    pub(super) fn suspect(&self) -> Abuse {
        self.meter.borrow().suspect()
    }

    /// Since when the client owes the rest of a head.
    pub(super) fn header_block_since(&self) -> Option<Nanos> {
        self.meter.borrow().header_block_since()
    }
}

// === impl WatchedIo ===

impl WatchedIo {
    /// `stream`, of which `prefix` was read.
    pub(super) fn new(stream: Stream, prefix: Buffer, watch: Rc<Watch>) -> Self {
        Self {
            prefix,
            stream,
            watch,
        }
    }

    /// What is below.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl Wire for WatchedIo {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        if self.watch.abuse.get().is_some() {
            return Poll::Pending;
        }
        let before = into.len();
        if self.prefix.is_empty() {
            self.prefix = Buffer::none();
            match self.stream.poll_read(cx, into) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(_)) => {}
                other => return other,
            }
        } else {
            let n = into.push(self.prefix.filled());
            self.prefix.consume(n);
        }
        let now = self.watch.clock.now();
        let received = &into.filled()[before..];
        let n = received.len();
        if let Err(abuse) = self.watch.meter.borrow_mut().received(received, now) {
            // None of it is looked at; the connection's task says goodbye.
            into.truncate(before);
            self.watch.abuse.set(Some(abuse));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = self.stream.poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = wrote {
            let sent = bytes.get(..n).unwrap_or_default();
            self.watch.meter.borrow_mut().sent(sent);
        }
        wrote
    }
}
