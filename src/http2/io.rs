//! The bytes below a connection of HTTP/2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::buffer::Buffer;
use crate::base::stream::Stream;

/// A stream, with bytes before it that were read already.
#[derive(Debug)]
pub struct FrameIo {
    prefix: Buffer,
    stream: Stream,
}

// === impl FrameIo ===

impl FrameIo {
    /// `stream`, of which `prefix` was read.
    pub fn new(stream: Stream, prefix: Buffer) -> Self {
        let prefix = if prefix.is_empty() {
            // An empty one would read as the end.
            Buffer::none()
        } else {
            prefix
        };
        Self { prefix, stream }
    }
}

impl AsyncRead for FrameIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_none() {
            let n = this.prefix.len().min(into.remaining());
            into.put_slice(&this.prefix.filled()[..n]);
            this.prefix.consume(n);
            if this.prefix.is_empty() {
                this.prefix = Buffer::none();
            }
            return Poll::Ready(Ok(()));
        }
        AsyncRead::poll_read(Pin::new(&mut this.stream), cx, into)
    }
}

impl AsyncWrite for FrameIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().stream), cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(Pin::new(&mut self.get_mut().stream), cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.get_mut().stream), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.get_mut().stream), cx)
    }
}
