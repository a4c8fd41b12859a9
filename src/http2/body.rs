//! The two directions of a stream: what is read of it, and what is written.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use crate::base::buffer::Buffer;

/// What comes.
#[derive(Debug)]
pub(super) struct Incoming {
    recv: RecvStream,
    /// Bytes that were received and not taken yet.
    chunk: Bytes,
    end: End,
}

/// A head as text, on its way to whoever reads the stream.
#[derive(Debug, Default)]
pub(super) struct HeadText {
    text: Vec<u8>,
    /// How much of it was read.
    read: usize,
}

/// How far the end of a body has come.
#[derive(Debug)]
enum End {
    Open,
    /// It came with the head: whoever knows takes nothing, whoever goes by a length of 0 takes this.
    WithHead,
    /// It is here, with these trailers, and was not taken.
    Reached(Option<HeaderMap>),
    Taken,
}

/// What goes.
#[derive(Debug)]
pub(super) struct Outgoing {
    send: SendStream<Bytes>,
    /// Bytes until the end, if that was told in the head.
    left: Option<u64>,
    has_ended: bool,
}

/// Most bytes handed to `h2` at once: one frame.
const FRAME: usize = 16 * 1024;

// === impl HeadText ===

impl HeadText {
    pub(super) fn new(text: Vec<u8>) -> Self {
        Self { text, read: 0 }
    }

    /// Whether all of it was read.
    pub(super) fn is_read(&self) -> bool {
        self.read == self.text.len()
    }

    /// Reads of it, and of `body` where it ends and there is something: a small one comes with its head.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Buffer,
        body: Option<&mut Incoming>,
    ) -> usize {
        let mut n = into.push(&self.text[self.read..]);
        self.read += n;
        if self.is_read() {
            *self = Self::default();
            if let Some(body) = body.filter(|body| !body.is_over())
                && !into.spare().is_empty()
                && let Poll::Ready(Ok(more)) = body.poll_read(cx, into)
            {
                n += more;
            }
        }
        n
    }
}

// === impl Incoming ===

impl Incoming {
    /// The body of a message whose head has come, and was all of it if `is_whole`.
    pub(super) fn new(recv: RecvStream, is_whole: bool) -> Self {
        let end = if is_whole { End::WithHead } else { End::Open };
        Self {
            recv,
            chunk: Bytes::new(),
            end,
        }
    }

    /// Waits for bytes or the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() && matches!(self.end, End::Open) {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    let trailers = ready!(self.recv.poll_trailers(cx));
                    self.end = End::Reached(trailers.map_err(io::Error::other)?);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads; `Ok(0)` at the end, as often as asked, until that was taken.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let before = into.len();
        loop {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(())) if !self.chunk.is_empty() => {
                    let n = into.push(&self.chunk);
                    self.chunk.advance(n);
                    // What was taken may come again: the window is what bounds the memory of a stream.
                    if let Err(error) = self.recv.flow_control().release_capacity(n) {
                        return Poll::Ready(Err(io::Error::other(error)));
                    }
                    if !self.chunk.is_empty() {
                        break;
                    }
                }
                Poll::Ready(Ok(())) => break,
                // The error comes again.
                Poll::Ready(Err(error)) if into.len() == before => return Poll::Ready(Err(error)),
                Poll::Pending if into.len() == before => return Poll::Pending,
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(into.len() - before))
    }

    /// Whether the end was taken, or came with the head: all that is left to wait for is the other end
    /// giving up.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.end, End::Taken | End::WithHead)
    }

    /// The end, if it is here and nothing is left before it.
    pub(super) fn take_end(&mut self) -> Option<HeaderMap> {
        if !self.chunk.is_empty() {
            return None;
        }
        match &mut self.end {
            End::WithHead => {
                self.end = End::Taken;
                Some(HeaderMap::new())
            }
            End::Open if self.recv.is_end_stream() => {
                self.end = End::Taken;
                Some(HeaderMap::new())
            }
            End::Reached(trailers) => {
                // An empty map has no memory.
                let trailers = trailers.take().unwrap_or_default();
                self.end = End::Taken;
                Some(trailers)
            }
            End::Open | End::Taken => None,
        }
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// A body of `length` bytes; `None` = until [`Outgoing::finish`]. `has_ended`: the head said that
    /// there is none.
    pub(super) fn new(send: SendStream<Bytes>, length: Option<u64>, has_ended: bool) -> Self {
        Self {
            send,
            left: length,
            has_ended,
        }
    }

    /// Hands on what the other end's window lets pass.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_ended {
            // More than the head said; or the other end has gone.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let wanted = bytes.len().min(FRAME);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(wanted);
        let mut room = self.send.capacity();
        while room == 0 {
            room = match ready!(self.send.poll_capacity(cx)) {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
        }
        let n = wanted.min(room);
        if self.left.is_some_and(|left| left < n as u64) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        self.left = self.left.map(|left| left - n as u64);
        self.has_ended = self.left == Some(0);
        let data = Bytes::copy_from_slice(&bytes[..n]);
        let sent = self.send.send_data(data, self.has_ended);
        Poll::Ready(sent.map(|()| n).map_err(io::Error::other))
    }

    /// The body ends after so many bytes more.
    pub(super) fn ends_after(&mut self, bytes: u64) {
        self.left.get_or_insert(bytes);
    }

    /// The body is complete.
    ///
    /// # Errors
    /// It is not: the head told a length, and some of it is missing.
    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if std::mem::replace(&mut self.has_ended, true) {
            return Ok(());
        }
        match trailers {
            Some(trailers) => self.send.send_trailers(trailers),
            None => self.send.send_data(Bytes::new(), true),
        }
        .map_err(io::Error::other)
    }

    /// Whether nothing more can be written.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn reset(&mut self, reason: h2::Reason) {
        self.send.send_reset(reason);
    }

    /// Ready with an error once the other end has given the stream up.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        gone(ready!(self.send.poll_reset(cx)))
    }
}

/// How the end of a stream by the other end is told.
pub(super) fn gone(reset: Result<h2::Reason, h2::Error>) -> Poll<io::Error> {
    Poll::Ready(match reset {
        Ok(reason) => io::Error::other(h2::Error::from(reason)),
        Err(error) => io::Error::other(error),
    })
}
