//! A connected byte stream, whatever carries it: the one type the data path reads and writes.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::buffer::Buffer;

/// A stream between two ends.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

// === impl Stream ===

impl Stream {
    /// Reads into the spare room of `buffer`; `Ok(0)` is the end of the stream (or no room).
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer.spare());
        let polled = match self {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, &mut into),
            Self::Unix(s) => Pin::new(s).poll_read(cx, &mut into),
        };
        match polled {
            Poll::Ready(Ok(())) => {
                let n = into.filled().len();
                buffer.commit(n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits until a read would not block; takes no buffer.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
        }
    }

    /// Waits until a write would not block.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_write_ready(cx),
            Self::Unix(s) => s.poll_write_ready(cx),
        }
    }

    /// Writes what the kernel takes of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }

    /// Writes what the kernel takes of `first` and `second`, in one call.
    pub fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        if first.is_empty() {
            return self.poll_write(cx, second);
        }
        if second.is_empty() {
            return self.poll_write(cx, first);
        }
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        match self {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, &slices),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, &slices),
        }
    }

    /// Ends our direction of the stream (TCP: FIN). Never blocks.
    pub fn shutdown_write(&self) {
        // An error means the stream is gone already, which is what was asked for.
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Write);
    }

    /// Makes the closing of a TCP stream an RST, so that the other end learns of an abort.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(s) = self {
            let _ = s.set_zero_linger();
        }
    }

    /// Whether an idle stream has become readable (data nobody asked for, or its end): such a one
    /// must not be used again. Costs no system call unless the reactor has seen an event.
    pub fn is_stale(&self) -> bool {
        let mut byte = [0u8; 1];
        let read = match self {
            Self::Tcp(s) => s.try_read(&mut byte),
            Self::Unix(s) => s.try_read(&mut byte),
        };
        !matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same question asked of the kernel, for requests that must not be repeated: one call,
    /// and it sees what the reactor has not yet been told.
    pub fn is_stale_now(&self) -> bool {
        let mut byte = [0u8; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        !matches!(
            rustix::net::recv(self.as_fd(), &mut byte[..], flags),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    /// Writes what the kernel takes of `bytes` at once, whatever the reactor has been told: a stream
    /// just accepted counts as not ready until its first event.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        Ok(rustix::net::send(self.as_fd(), bytes, flags)?)
    }

    /// Drops what has been received until now, up to 16 KiB, without waiting for more.
    pub fn drop_now(&self) {
        let mut bytes = [0u8; 4096];
        let flags = rustix::net::RecvFlags::DONTWAIT;
        for _ in 0..4 {
            match rustix::net::recv(self.as_fd(), &mut bytes[..], flags) {
                Ok((n, _)) if n == bytes.len() => {}
                _ => return,
            }
        }
    }

    /// Runs `f` if the stream is ready for `interest`; `WouldBlock` from `f` clears the readiness.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        f: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Self::Tcp(s) => s.try_io(interest, f),
            Self::Unix(s) => s.try_io(interest, f),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}
