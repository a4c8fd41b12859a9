//! The bytes below a client's connection: every frame is looked at on its way.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::buffer::Buffer;
use crate::base::clock::{Clock, Nanos};
use crate::base::stream::Stream;
use crate::config::Http2;
use crate::telemetry::abuse::Abuse;

use super::meter::FrameMeter;

/// A stream whose frames are watched, with bytes before it that were read already.
#[derive(Debug)]
pub(super) struct WatchedIo {
    prefix: Buffer,
    /// Until it is dropped.
    stream: Option<Stream>,
    watch: Rc<Watch>,
}

/// What was seen of the frames; shared with the connection's task.
#[derive(Debug)]
pub(super) struct Watch {
    meter: RefCell<FrameMeter>,
    abuse: Cell<Option<Abuse>>,
    /// Nothing was left to read in this turn of the connection's task.
    is_dry: Cell<bool>,
    clock: Clock,
    /// What is below the connection, once that is over.
    left: RefCell<Option<Stream>>,
}

// === impl Watch ===

impl Watch {
    /// A watch within these limits.
    pub(super) fn new(limits: &Http2, clock: Clock) -> Self {
        Self {
            meter: RefCell::new(FrameMeter::new(limits, clock.now())),
            abuse: Cell::new(None),
            is_dry: Cell::new(false),
            clock,
            left: RefCell::new(None),
        }
    }

    /// The connection's task begins a turn. `h2` looks for frames once for each stream that it has to
    /// give; until the reactor runs there are none that were not there before.
    pub(super) fn begin_turn(&self) {
        self.is_dry.set(false);
    }

    /// The abuse that was seen; nothing is read any more after it.
    pub(super) fn abuse(&self) -> Option<Abuse> {
        self.abuse.get()
    }

    /// What the client abuses, if the `h2` crate says that it does.
    pub(super) fn suspect(&self) -> Abuse {
        self.meter.borrow().suspect()
    }

    /// The stream of a connection that is over.
    pub(super) fn take_stream(&self) -> Option<Stream> {
        self.left.borrow_mut().take()
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
            stream: Some(stream),
            watch,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }
}

impl Drop for WatchedIo {
    fn drop(&mut self) {
        *self.watch.left.borrow_mut() = self.stream.take();
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // What was asked before in this turn wakes the task.
        if this.watch.abuse.get().is_some() || this.watch.is_dry.get() {
            return Poll::Pending;
        }
        let before = into.filled().len();
        if this.prefix.is_empty() {
            this.prefix = Buffer::none();
            match AsyncRead::poll_read(this.stream()?, cx, into) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.watch.is_dry.set(true);
                    return Poll::Pending;
                }
            }
        } else {
            let n = this.prefix.len().min(into.remaining());
            into.put_slice(&this.prefix.filled()[..n]);
            this.prefix.consume(n);
        }
        let now = this.watch.clock.now();
        let received = &into.filled()[before..];
        if let Err(abuse) = this.watch.meter.borrow_mut().received(received, now) {
            // None of it is looked at; the connection's task says goodbye.
            into.set_filled(before);
            this.watch.abuse.set(Some(abuse));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = AsyncWrite::poll_write_vectored(this.stream()?, cx, slices);
        if let Poll::Ready(Ok(mut left)) = wrote {
            let mut meter = this.watch.meter.borrow_mut();
            for slice in slices {
                let n = left.min(slice.len());
                meter.sent(&slice[..n]);
                left -= n;
            }
        }
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self.get_mut().stream()?, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self.get_mut().stream()?, cx)
    }
}
