//! A connected socket of TCP, read from and written to without a detour: the calls as the kernel has them (those
//! of libc are points where a thread can be cancelled, which is two atomic operations each), and the reactor told
//! of the outcome in the same step.
//!
//! Which reactor: the runtime's, or, where a socket only carries bytes, the worker's own ([`super::reactor`]).

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, socket_with, sockopt,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

use super::reactor::{Place, Reactor, Ready};

/// A connected socket.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    /// In the runtime's reactor.
    Shared(TcpStream),
    /// In the worker's; the place goes first.
    Own(Place, std::net::TcpStream, Cell<Sent>),
}

/// What was sent on a socket, as far as Nagle's algorithm goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// Nothing yet. What goes first is not held back, and many a connection sends no more: so the call that
    /// switches the algorithm off (1 of 16) is for those that do.
    Nothing,
    /// Something; the next is not to be held for its ACK.
    Once,
    /// Nothing is held back any more.
    AtOnce,
}

/// A socket that is being connected.
#[derive(Debug)]
pub struct Connecting(Place, std::net::TcpStream);

// === impl Socket ===

impl Socket {
    /// `stream`, which was just accepted and does not block, in the worker's own reactor.
    pub fn accepted(stream: std::net::TcpStream, reactor: &Reactor) -> io::Result<Self> {
        // Its client has often spoken already; if not, one read finds nothing.
        let place = reactor.add(&stream, Ready::BOTH)?;
        Ok(Self(Kind::Own(place, stream, Cell::new(Sent::AtOnce))))
    }

    /// Begins to connect to `addr`, in the worker's own reactor.
    ///
    /// `has_spoken` says that something is to be sent as soon as it is connected. That acknowledges the SYN-ACK
    /// then, and what is sent next acknowledges the answer: two segments less, 3 % of the cost of a short
    /// connection. Not for one that may have nothing to say: its endpoint might be the first to speak, and would
    /// not hear for 200 ms that it is connected.
    pub fn connect(
        addr: SocketAddr,
        reactor: &Reactor,
        has_spoken: bool,
    ) -> io::Result<Connecting> {
        let family = match addr {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        if has_spoken {
            // Best effort: it only saves segments.
            let _ = sockopt::set_tcp_quickack(&fd, false);
        }
        match rustix::net::connect(&fd, &addr) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let stream = std::net::TcpStream::from(fd);
        // Not before: one that does not connect yet has nothing but its end to tell of.
        let place = reactor.add(&stream, Ready::NONE)?;
        Ok(Connecting(place, stream))
    }

    /// Waits until a read would not block. It may be a false alarm. Always for the same task.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Shared(s) => s.poll_read_ready(cx),
            Kind::Own(place, ..) => place.poll_ready(cx, Ready::READ).map(Ok),
        }
    }

    /// Waits until a write would not block. It may be a false alarm. Always for the same task.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Shared(s) => s.poll_write_ready(cx),
            Kind::Own(place, ..) => place.poll_ready(cx, Ready::WRITE).map(Ok),
        }
    }

    /// Does `io` if the reactor has told that its socket is ready for reading or for writing. `WouldBlock`, of
    /// either, tells the reactor to tell of what comes next.
    #[inline]
    pub fn try_io<T>(
        &self,
        interest: Interest,
        io: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let (place, stream, sent) = match &self.0 {
            Kind::Shared(s) => return s.try_io(interest, io),
            Kind::Own(place, stream, sent) => (place, stream, sent),
        };
        let what = if interest.is_readable() {
            Ready::READ
        } else {
            Ready::WRITE
        };
        if !place.is_ready(what) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if what == Ready::WRITE && sent.get() != Sent::AtOnce {
            sent.set(sent.get().again(stream)?);
        }
        let done = io();
        if done.as_ref().is_err_and(is_would_block) {
            place.clear(what);
        }
        done
    }

    /// Reads what is there into the room that `lend` gives; that is asked for only if the reactor has told of
    /// something. `Ok(0)` is the end. `WouldBlock`: nothing is there, and who waits for more has yet to say so.
    #[inline]
    pub fn recv<'a>(&self, lend: impl FnOnce() -> &'a mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        let read = self.try_io(Interest::READABLE, || {
            let into = lend();
            let (n, _) = rustix::net::recv(self, &mut *into, RecvFlags::empty())?;
            got = n;
            // A short read tells that there is no more (epoll(7)), so that the next one is not tried.
            if 0 < n && n < into.len() && !self.is_urgent() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(n)
        });
        if got > 0 { Ok(got) } else { read }
    }

    /// Whether urgent data has come. (The runtime's reactor does not tell.)
    #[inline]
    fn is_urgent(&self) -> bool {
        match &self.0 {
            Kind::Shared(_) => false,
            Kind::Own(place, ..) => place.is_ready(Ready::URGENT),
        }
    }

    /// Writes what is taken of `bytes`. After `Pending` the same bytes are to be written again.
    #[inline]
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut sent = 0;
            let written = self.try_io(Interest::WRITABLE, || {
                sent = rustix::net::send(self, bytes, SendFlags::NOSIGNAL)?;
                // One that was cut short found the kernel's buffer full.
                if 0 < sent && sent < bytes.len() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(sent)
            });
            match written {
                _ if sent > 0 => return Poll::Ready(Ok(sent)),
                Err(e) if is_would_block(&e) => ready!(self.poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    /// Reads what is there now.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.recv(|| into)
    }

    /// Has the kernel acknowledge what has come and was read, if it has not, and what comes from now on until the
    /// connection looks like one of questions and answers (tcp(7), `TCP_QUICKACK`; of Linux, `tcp_cleanup_rbuf`).
    pub fn acknowledge(&self) {
        // Best effort: it is late otherwise.
        let _ = sockopt::set_tcp_quickack(self, true);
    }

    /// Whether it is in the worker's own reactor.
    pub fn is_own(&self) -> bool {
        matches!(self.0, Kind::Own(..))
    }

    /// See [`Place::ask_soon`]; `false` = it cannot be asked.
    pub fn ask_soon(&self) -> bool {
        match &self.0 {
            Kind::Shared(_) => false,
            Kind::Own(place, ..) => {
                place.ask_soon();
                true
            }
        }
    }

    /// See [`Place::is_soon`].
    pub fn is_soon(&self) -> bool {
        matches!(&self.0, Kind::Own(place, ..) if place.is_soon())
    }

    /// See [`Place::forget_soon`].
    pub fn forget_soon(&self) {
        if let Kind::Own(place, ..) = &self.0 {
            place.forget_soon();
        }
    }

    /// Makes its closing an abort.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO))
    }

    /// Our end of it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Shared(s) => s.local_addr(),
            Kind::Own(_, s, _) => s.local_addr(),
        }
    }

    /// Off any reactor.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.0 {
            Kind::Shared(s) => s.into_std(),
            Kind::Own(place, s, sent) => {
                if sent.get() != Sent::AtOnce {
                    s.set_nodelay(true)?;
                }
                place.leave(&s)?;
                Ok(s)
            }
        }
    }
}

impl Sent {
    /// What it is with what is sent now.
    #[cold]
    fn again(self, stream: &std::net::TcpStream) -> io::Result<Self> {
        if self == Self::Nothing {
            return Ok(Self::Once);
        }
        stream.set_nodelay(true)?;
        Ok(Self::AtOnce)
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Shared(stream))
    }
}

impl AsFd for Socket {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Shared(s) => s.as_fd(),
            Kind::Own(_, s, _) => s.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Kind::Shared(s) = &mut this.0 {
            return Pin::new(s).poll_read(cx, into);
        }
        // Others must have their turn while one sends faster than is read.
        let turn = ready!(coop::poll_proceed(cx));
        loop {
            match this.recv(|| into.initialize_unfilled()) {
                Ok(n) => {
                    into.advance(n);
                    turn.made_progress();
                    return Poll::Ready(Ok(()));
                }
                Err(e) if is_would_block(&e) => ready!(this.poll_read_ready(cx))?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.0 {
            Kind::Shared(s) => Pin::new(s).poll_write(cx, bytes),
            Kind::Own(..) => {
                let turn = ready!(coop::poll_proceed(cx));
                let sent = ready!(this.poll_send(cx, bytes));
                turn.made_progress();
                Poll::Ready(sent)
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Kind::Shared(s) = &mut this.0 {
            return Pin::new(s).poll_write_vectored(cx, slices);
        }
        let turn = ready!(coop::poll_proceed(cx));
        loop {
            let written = this.try_io(Interest::WRITABLE, || {
                let mut message = rustix::net::SendAncillaryBuffer::default();
                let flags = SendFlags::NOSIGNAL;
                Ok(rustix::net::sendmsg(&*this, slices, &mut message, flags)?)
            });
            match written {
                Err(e) if is_would_block(&e) => ready!(this.poll_write_ready(cx))?,
                written => {
                    turn.made_progress();
                    return Poll::Ready(written);
                }
            }
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
        let done = rustix::net::shutdown(&*self, rustix::net::Shutdown::Write);
        Poll::Ready(done.map_err(Into::into))
    }
}

// === impl Connecting ===

impl Connecting {
    /// Ready once it is connected, or cannot be.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_ready(cx, Ready::WRITE));
        // Who is not told of an error need not ask for it.
        if self.0.is_ready(Ready::ERROR)
            && let Err(e) = sockopt::socket_error(&self.1)?
        {
            return Poll::Ready(Err(e.into()));
        }
        Poll::Ready(Ok(()))
    }

    /// Once it is.
    pub fn connected(self) -> Socket {
        Socket(Kind::Own(self.0, self.1, Cell::new(Sent::Nothing)))
    }
}

fn is_would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A connection whose one end is in the runtime's reactor, and two where it is in one of its own: one
    /// accepted, one connected.
    async fn pairs() -> Vec<(Socket, TcpStream)> {
        let (listener, addr, reactor) = listen().await;
        let mut pairs = Vec::new();
        for is_own in [false, true] {
            let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
            let accepted = accepted.unwrap().0;
            let here = if is_own {
                Socket::accepted(accepted.into_std().unwrap(), &reactor).unwrap()
            } else {
                accepted.into()
            };
            pairs.push((here, client.unwrap()));
        }
        let here = connect(addr, &reactor).await.unwrap();
        pairs.push((here, listener.accept().await.unwrap().0));
        pairs
    }

    /// Somebody to connect to, and a reactor that runs.
    async fn listen() -> (TcpListener, SocketAddr, Reactor) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (reactor, running) = Reactor::start().unwrap();
        tokio::task::spawn_local(running);
        (listener, addr, reactor)
    }

    async fn connect(addr: SocketAddr, reactor: &Reactor) -> io::Result<Socket> {
        let connecting = Socket::connect(addr, reactor, false)?;
        poll_fn(|cx| connecting.poll_connected(cx)).await?;
        Ok(connecting.connected())
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(test));
    }

    /// What is read once something is there.
    async fn read(socket: &Socket, room: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; room];
        let read = poll_fn(|cx| {
            loop {
                let into = &mut bytes[..];
                match socket.recv(|| into) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        ready!(socket.poll_read_ready(cx))?;
                    }
                    read => return Poll::Ready(read),
                }
            }
        });
        let n = read.await?;
        bytes.truncate(n);
        Ok(bytes)
    }

    #[test]
    fn a_short_read_is_the_last_until_more_comes() {
        run(async {
            for (here, mut there) in pairs().await {
                there.write_all(b"some words").await.unwrap();
                assert_eq!(read(&here, 4).await.unwrap(), b"some");
                // Full: there may be more.
                assert_eq!(read(&here, 64).await.unwrap(), b" words");
                let nothing = here.recv(|| panic!("nothing was told of"));
                assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
                there.write_all(b"more").await.unwrap();
                assert_eq!(read(&here, 64).await.unwrap(), b"more");
            }
        });
    }

    #[test]
    fn an_end_is_told_again_and_again_and_a_reset_once() {
        run(async {
            for (here, mut there) in pairs().await {
                there.write_all(b"last").await.unwrap();
                there.shutdown().await.unwrap();
                assert_eq!(read(&here, 64).await.unwrap(), b"last");
                assert_eq!(read(&here, 64).await.unwrap(), b"");
                assert_eq!(read(&here, 64).await.unwrap(), b"");
            }
            for (here, there) in pairs().await {
                there.set_zero_linger().unwrap();
                drop(there);
                let reset = read(&here, 64).await.unwrap_err();
                assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
            }
        });
    }

    #[test]
    fn one_that_cannot_be_connected_says_why() {
        run(async {
            let (listener, addr, reactor) = listen().await;
            drop(listener);
            let refused = connect(addr, &reactor).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn only_the_first_that_is_sent_may_be_held_back() {
        run(async {
            let (_listener, addr, reactor) = listen().await;
            let here = connect(addr, &reactor).await.unwrap();
            let is_at_once = || sockopt::tcp_nodelay(&here).unwrap();
            for was_sent in [false, true, true] {
                let n = poll_fn(|cx| here.poll_send(cx, b"some")).await.unwrap();
                assert_eq!(n, 4);
                assert_eq!(is_at_once(), was_sent);
            }
            let unused = connect(addr, &reactor).await.unwrap();
            assert!(unused.into_std().unwrap().nodelay().unwrap());
        });
    }

    /// The last step of the handshake is held back until there is something to send with it.
    #[test]
    fn who_speaks_first_does_not_acknowledge_first() {
        run(async {
            let (listener, addr, reactor) = listen().await;
            let connecting = Socket::connect(addr, &reactor, true).unwrap();
            poll_fn(|cx| connecting.poll_connected(cx)).await.unwrap();
            let here = connecting.connected();
            let n = poll_fn(|cx| here.poll_send(cx, b"first")).await.unwrap();
            assert_eq!(n, 5);
            let (mut there, _) = listener.accept().await.unwrap();
            let mut heard = [0; 5];
            there.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"first");
            there.write_all(b"answer").await.unwrap();
            assert_eq!(read(&here, 64).await.unwrap(), b"answer");
            // The answer is to be acknowledged by what is sent next, unless that takes too long. (Linux 5.1 to
            // 5.19 take a connection for one of questions and answers after three of them, not one.)
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            if !release.starts_with("5.") {
                assert!(!sockopt::tcp_quickack(&here).unwrap());
            }
            here.acknowledge();
            assert!(sockopt::tcp_quickack(&here).unwrap());
        });
    }

    #[test]
    fn one_that_leaves_its_reactor_lives_on() {
        run(async {
            for (here, mut there) in pairs().await {
                there.write_all(b"before").await.unwrap();
                assert_eq!(read(&here, 64).await.unwrap(), b"before");
                let here: Socket = TcpStream::from_std(here.into_std().unwrap())
                    .unwrap()
                    .into();
                there.write_all(b"after").await.unwrap();
                assert_eq!(read(&here, 64).await.unwrap(), b"after");
            }
        });
    }

    #[test]
    fn what_is_not_taken_is_written_once_there_is_room() {
        run(async {
            for (here, mut there) in pairs().await {
                let said: Vec<u8> = (0..8 << 20).map(|n| (n % 251) as u8).collect();
                let writing = async {
                    let mut left = &said[..];
                    while !left.is_empty() {
                        let n = poll_fn(|cx| here.poll_send(cx, left)).await.unwrap();
                        left = &left[n..];
                    }
                };
                let mut heard = vec![0; said.len()];
                let ((), read) = tokio::join!(writing, there.read_exact(&mut heard));
                read.unwrap();
                assert_eq!(heard, said);
                drop(there);
                let gone = poll_fn(|cx| {
                    loop {
                        match ready!(here.poll_send(cx, b"x")) {
                            // The reset of the first is on its way.
                            Ok(_) => {}
                            Err(e) => return Poll::Ready(e.kind()),
                        }
                    }
                });
                let gone = gone.await;
                assert!(
                    matches!(
                        gone,
                        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                    ),
                    "{gone:?}"
                );
            }
        });
    }
}
