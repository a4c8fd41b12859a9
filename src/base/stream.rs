//! A connected byte stream, whatever carries it: the one type the data path reads and writes.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use super::buffer::Buffer;
use super::socket::Socket;
use super::tls::TlsStream;

/// A stream between two ends.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(Socket),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over one of them.
    Tls(Box<TlsStream>),
    /// One of many streams of a connection.
    Channel(Box<dyn Channel>),
}

/// One exchange on a connection that carries many at once (HTTP/2).
///
/// What is read from it and written to it are a head as HTTP/1.1 text, and then the body as it is:
/// where the body ends, and the trailers behind it, are told beside the bytes. So whoever moves
/// messages needs one way of reading heads, and no framing is guessed at.
pub trait Channel: Debug {
    /// As [`Stream::poll_read`]. Once the end was told with `Ok(0)`, it is ready again only with an
    /// error: the other end has given the exchange up.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>>;
    /// As [`Stream::poll_readable`].
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// As [`Stream::poll_write`]; a head is written whole, in one call.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Whether the body's end has come and nothing of it is left to read; then its trailers, if there
    /// are any.
    fn take_end(&mut self) -> Option<HeaderMap>;
    /// Whether the head that was read last is all there is: no body, no trailers.
    fn has_only_head(&self) -> bool;
    /// The head to be written next is all there will be, though it may not say so itself.
    fn end_with_head(&mut self);
    /// The body has this many more bytes and then ends, without trailers.
    fn ends_after(&mut self, bytes: u64);
    /// The body is complete; unless its length was told in the head, this is what says so. With
    /// trailers, if there are any.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()>;
    /// Gives the exchange up: the other end is told, if it does not know.
    fn reset(&mut self);
    /// Ready with an error once the other end has given the exchange up: for who neither reads nor writes.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;
    /// An answer was waited for in vain. Where nothing came on the whole connection meanwhile, nothing more
    /// is asked of it: it may be dead, and all that follow would wait for it.
    fn suspect(&mut self);
    /// Whether the other end has said that it did nothing with what it was sent: it may be sent
    /// elsewhere, whatever it is.
    fn was_refused(&self) -> bool;
    /// Whether the connection below is encrypted.
    fn is_encrypted(&self) -> bool;
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
            Self::Tls(s) => return s.poll_read(cx, buffer),
            Self::Channel(s) => return s.poll_read(cx, buffer),
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

    /// Waits until a read would not block; takes no buffer. It may be a false alarm.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
            Self::Tls(s) => s.poll_readable(cx),
            Self::Channel(s) => s.poll_readable(cx),
        }
    }

    /// Waits until more than `known` bytes are there, and copies as many as fit without taking them: all
    /// of them will still be read. `Ok(n)` with `n <= known` is the end. Not for what is encrypted.
    pub fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
        known: usize,
    ) -> Poll<io::Result<usize>> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut was_ready = false;
        loop {
            match self {
                Self::Tcp(s) => ready!(s.poll_read_ready(cx))?,
                Self::Unix(s) => ready!(s.poll_read_ready(cx))?,
                Self::Tls(_) | Self::Channel(_) => {
                    return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
                }
            }
            // Nothing new is as good as nothing: the reactor is to tell of what comes next. Once the
            // other end has closed it goes on saying that there is something to read.
            let mut peek = |fd: BorrowedFd<'_>| match rustix::net::recv(fd, &mut *into, flags) {
                Ok((_, n)) if n <= known && n > 0 && !was_ready => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                // A reset is told only behind the bytes before it, and nobody takes those.
                Ok((_, n)) if n <= known && n > 0 => match rustix::net::sockopt::socket_error(fd) {
                    Ok(Err(e)) => Err(e.into()),
                    Ok(Ok(())) | Err(_) => Ok(n),
                },
                Ok((_, n)) => Ok(n),
                Err(e) => Err(e.into()),
            };
            let peeked = match self {
                Self::Tcp(s) => s.try_io(Interest::READABLE, || peek(s.as_fd())),
                Self::Unix(s) => s.try_io(Interest::READABLE, || peek(s.as_fd())),
                Self::Tls(_) | Self::Channel(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match peeked {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => was_ready = true,
                peeked => return Poll::Ready(peeked),
            }
        }
    }

    /// Takes `n` bytes that [`Stream::poll_peek`] has shown, and not one more.
    pub fn take_peeked(&mut self, n: usize) -> io::Result<()> {
        let mut bytes = [0; 512];
        let mut left = n;
        while left > 0 {
            let fd = self.fd().ok_or(io::ErrorKind::Unsupported)?;
            let want = left.min(bytes.len());
            match rustix::net::recv(fd, &mut bytes[..want], RecvFlags::DONTWAIT)? {
                (_, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (_, n) => left -= n,
            }
        }
        Ok(())
    }

    /// Writes what is taken of `bytes`. After `Pending` the same bytes are to be written again.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Tls(s) => s.poll_write(cx, &[IoSlice::new(bytes)]),
            Self::Channel(s) => s.poll_write(cx, bytes),
        }
    }

    /// Writes what is taken of `first` and `second`, in one call. After `Pending` the same bytes are
    /// to be written again.
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
            Self::Tls(s) => s.poll_write(cx, &slices),
            Self::Channel(s) => s.poll_write(cx, first),
        }
    }

    /// Ends our direction of the stream (TCP: FIN). Never blocks.
    pub fn shutdown_write(&mut self) {
        // An error means the stream is gone already, which is what was asked for.
        match self {
            Self::Tls(s) => s.shutdown_write(),
            Self::Channel(s) => {
                let _ = s.finish(None);
            }
            Self::Tcp(_) | Self::Unix(_) => {
                if let Some(fd) = self.fd() {
                    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
                }
            }
        }
    }

    /// Ends our direction in the middle of a message, where the other end must not take what came for all
    /// of it: what comes may still come. A stream of many has no such end, so it is given up.
    pub fn break_off(&mut self) {
        match self {
            Self::Channel(s) => s.reset(),
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => self.shutdown_write(),
        }
    }

    /// What is owed before an idle connection is closed: TLS tells an end from a cut.
    pub fn say_goodbye(&mut self) {
        if let Self::Tls(s) = self {
            s.say_goodbye();
        }
    }

    /// Has what has come acknowledged at once: nothing will be sent before more comes, and a client with Nagle's
    /// algorithm may keep the rest until then (40 ms). Costs a system call (TCP).
    pub fn acknowledge(&self) {
        match self {
            Self::Tcp(s) => s.acknowledge(),
            Self::Tls(s) => s.socket().acknowledge(),
            Self::Unix(_) | Self::Channel(_) => {}
        }
    }

    /// Makes the closing of the stream an abort (TCP: RST), so that the other end learns of it.
    pub fn reset_on_close(&mut self) {
        match self {
            Self::Tcp(s) => {
                let _ = s.set_zero_linger();
            }
            Self::Unix(_) => {}
            Self::Tls(s) => s.socket_mut().reset_on_close(),
            Self::Channel(s) => s.reset(),
        }
    }

    /// Whether an idle stream has become readable (data nobody asked for, or its end): such a one
    /// must not be used again. Costs no system call unless the reactor has seen an event.
    pub fn is_stale(&mut self) -> bool {
        if let Self::Tls(s) = self {
            return s.is_stale();
        }
        let mut byte = [0u8; 1];
        !matches!(self.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same question asked of the kernel, for requests that must not be repeated: one call,
    /// and it sees what the reactor has not yet been told.
    pub fn is_stale_now(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let Some(fd) = self.fd() else {
            return true;
        };
        let is_quiet = matches!(
            rustix::net::recv(fd, &mut byte[..], flags),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        );
        match self {
            _ if is_quiet => false,
            // Session tickets may have come.
            Self::Tls(s) => s.is_stale(),
            _ => true,
        }
    }

    /// Whether the other end has reset the connection, though it may have ended its direction before: the
    /// kernel is asked, because the reactor tells of a direction's end once. `false` for Unix sockets, which
    /// do not tell a reset from an end, and for a stream that is one of many. Only while our own direction
    /// is open: two ends look like a reset.
    pub fn is_reset(&self) -> bool {
        let socket = match self {
            Self::Tcp(s) => s,
            Self::Tls(s) => return s.socket().is_reset(),
            Self::Unix(_) | Self::Channel(_) => return false,
        };
        // Errors and hang-ups are told unasked (poll(2)).
        let mut asked = [PollFd::new(socket, PollFlags::empty())];
        let at_once = Timespec::default();
        matches!(rustix::event::poll(&mut asked, Some(&at_once)), Ok(1..))
            && asked[0]
                .revents()
                .intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Reads what is there now.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_read(into),
            Self::Unix(s) => s.try_read(into),
            Self::Tls(_) | Self::Channel(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Writes what the kernel takes of `bytes` at once, whatever the reactor has been told: a stream
    /// just accepted counts as not ready until its first event. Not for what is encrypted.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        match self.fd() {
            Some(fd) => Ok(rustix::net::send(fd, bytes, flags)?),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Drops what has been received until now, up to 16 KiB, without waiting for more.
    pub fn drop_now(&self) {
        let mut bytes = [0u8; 4096];
        let flags = RecvFlags::DONTWAIT;
        let Some(fd) = self.fd() else {
            return;
        };
        for _ in 0..4 {
            match rustix::net::recv(fd, &mut bytes[..], flags) {
                Ok((n, _)) if n == bytes.len() => {}
                _ => return,
            }
        }
    }

    /// Reads what is there, whatever the reactor has been told; `Ok(0)` is the end. Not for what is
    /// encrypted.
    pub fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        let fd = self.fd().ok_or(io::ErrorKind::Unsupported)?;
        let (n, _) = rustix::net::recv(fd, into, RecvFlags::DONTWAIT)?;
        Ok(n)
    }

    /// Has the kernel ask the other end whether it is there, after `quiet` without a word and then again
    /// until it has answered or is given up (TCP).
    pub fn keep_alive(&self, quiet: Duration) {
        // Three questions in a row that nobody answers, and it has gone. What the system does not know it
        // does without.
        let asking = TcpKeepalive::new()
            .with_time(quiet)
            .with_interval(quiet / 4)
            .with_retries(3);
        let _ = match self {
            Self::Tcp(s) => SockRef::from(s).set_tcp_keepalive(&asking),
            Self::Tls(s) => return s.socket().keep_alive(quiet),
            Self::Unix(_) | Self::Channel(_) => Ok(()),
        };
    }

    /// Our end of it; `None` = it has none that others know.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(s) => s.local_addr().ok(),
            Self::Tls(s) => s.socket().local_addr(),
            Self::Unix(_) | Self::Channel(_) => None,
        }
    }

    /// Whether it is a socket in the worker's own reactor.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Tcp(s) if s.is_own())
    }

    /// Whether what is said on it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(_) => true,
            Self::Channel(s) => s.is_encrypted(),
        }
    }

    /// The exchange, if it is one of many on its connection.
    pub fn channel(&mut self) -> Option<&mut dyn Channel> {
        match self {
            Self::Channel(s) => Some(&mut **s),
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => None,
        }
    }

    /// Whether it is one of many on its connection.
    pub fn is_channel(&self) -> bool {
        matches!(self, Self::Channel(_))
    }

    /// The socket, if it is one's own.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(s) => Some(s.as_fd()),
            Self::Unix(s) => Some(s.as_fd()),
            Self::Tls(s) => s.socket().fd(),
            Self::Channel(_) => None,
        }
    }
}

/// For libraries that speak a protocol over a stream of ours.
impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, into),
            Self::Unix(s) => Pin::new(s).poll_read(cx, into),
            Self::Tls(s) => s.poll_read_buf(cx, into),
            Self::Channel(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::Tls(s) => s.poll_write(cx, slices),
            Self::Channel(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is ever held back.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().shutdown_write();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Both ends of a connection of TCP, and of a Unix socket.
    async fn pairs() -> Vec<(Stream, Stream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (here, there) = UnixStream::pair().unwrap();
        vec![
            (
                Stream::Tcp(accepted.unwrap().0.into()),
                Stream::Tcp(client.unwrap().into()),
            ),
            (Stream::Unix(here), Stream::Unix(there)),
        ]
    }

    /// What is peeked beyond `known`, with how many polls it took.
    async fn peek(stream: &mut Stream, known: usize) -> (Vec<u8>, usize) {
        let (mut bytes, mut polls) = ([0; 64], 0);
        let n = poll_fn(|cx| {
            polls += 1;
            stream.poll_peek(cx, &mut bytes, known)
        });
        let n = n.await.unwrap();
        (bytes[..n].to_vec(), polls)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn peeks_see_more_as_it_comes_and_take_nothing() {
        run(async {
            for (mut here, mut there) in pairs().await {
                let said = b"some words";
                for n in 0..said.len() {
                    let write = there.write_all(&said[n..=n]);
                    let (written, (seen, polls)) = tokio::join!(write, peek(&mut here, n));
                    written.unwrap();
                    assert_eq!(seen, said[..=n]);
                    // One that finds nothing new, one that finds it.
                    assert!(polls <= 2, "{polls}");
                }
                here.take_peeked(5).unwrap();
                assert_eq!(peek(&mut here, 0).await.0, b"words");
                here.take_peeked(5).unwrap();
                assert!(here.take_peeked(1).is_err());
            }
        });
    }

    #[test]
    fn an_end_is_told_whether_or_not_bytes_lie_before_it() {
        run(async {
            for said in ["", "half"] {
                for (mut here, mut there) in pairs().await {
                    there.write_all(said.as_bytes()).await.unwrap();
                    let end = async { there.shutdown_write() };
                    // All that there is comes first, if something does; then that no more will.
                    if !said.is_empty() {
                        assert_eq!(peek(&mut here, 0).await.0, said.as_bytes());
                    }
                    let ((), (seen, polls)) = tokio::join!(end, peek(&mut here, said.len()));
                    assert_eq!(seen, said.as_bytes());
                    assert!(polls <= 2, "{polls}");
                    // And again, at once, for who asks once more.
                    let (seen, polls) = peek(&mut here, said.len()).await;
                    assert_eq!((&*seen, polls), (said.as_bytes(), 1));
                }
            }
        });
    }

    #[test]
    fn who_waits_for_more_does_not_spin() {
        run(async {
            for (mut here, mut there) in pairs().await {
                there.write_all(b"half").await.unwrap();
                assert_eq!(peek(&mut here, 0).await.0, b"half");
                // A task of its own: it is polled when it is woken, and only then.
                let waiting = tokio::task::LocalSet::new();
                let peeking = waiting.spawn_local(async move { peek(&mut here, 4).await });
                let others = async {
                    for (mut one, mut two) in pairs().await {
                        for _ in 0..50 {
                            one.write_all(b"x").await.unwrap();
                            peek(&mut two, 0).await;
                            two.take_peeked(1).unwrap();
                        }
                    }
                    there.write_all(b" and half").await.unwrap();
                };
                waiting.run_until(others).await;
                let (seen, polls) = waiting.run_until(peeking).await.unwrap();
                assert_eq!(seen, b"half and half");
                // Each event of a socket tells of all that it is ready for, room for writing included.
                assert!(polls <= 5, "{polls}");
            }
        });
    }

    /// It was an end, and whoever had gone was passed on to an endpoint.
    #[test]
    fn a_reset_is_an_error() {
        run(async {
            let (mut here, mut there) = pairs().await.remove(0);
            there.write_all(b"half").await.unwrap();
            assert_eq!(peek(&mut here, 0).await.0, b"half");
            there.reset_on_close();
            drop(there);
            let mut bytes = [0; 64];
            let peeked = poll_fn(|cx| here.poll_peek(cx, &mut bytes, 4)).await;
            assert_eq!(peeked.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[tokio::test]
    async fn the_kernel_is_told_to_ask() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let stream = Stream::Tcp(stream.unwrap().into());
        stream.keep_alive(Duration::from_secs(60));
        let Stream::Tcp(stream) = &stream else {
            panic!("not TCP")
        };
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().unwrap());
        let quiet = socket.tcp_keepalive_time().unwrap();
        assert_eq!(quiet, Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 15);
    }
}
