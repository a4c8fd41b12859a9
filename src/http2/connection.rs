//! Moves the bytes of a connection between its machine and what is below it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::base::buffer::Buffer;
use crate::base::stream::Stream;

use super::client::Link;
use super::frame::Code;
use super::mux::{End, Limits, Mux, Role};
use super::server::ServerStream;

/// What carries a connection.
pub trait Wire {
    /// As [`Stream::poll_read`].
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>>;
    /// As [`Stream::poll_write`].
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// Where bytes that come are looked at, by all connections of a worker: they are taken in at once, so
/// none has a buffer of its own.
#[derive(Debug, Default)]
pub struct Landing(RefCell<Option<Buffer>>);

/// A connection of HTTP/2, either end of it.
#[derive(Debug)]
pub struct Connection<W> {
    mux: Rc<RefCell<Mux>>,
    wire: W,
    landing: Rc<Landing>,
}

/// What is read at once: two records of TLS, and what most sockets hold when they wake us.
const LANDING: usize = 32 * 1024;

/// Reads in one turn, so that nobody else of the worker waits for one that has much to say.
const ROUNDS: usize = 8;

// === impl Wire ===

impl Wire for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        Self::poll_read(self, cx, into)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(self, cx, bytes)
    }
}

// === impl Landing ===

impl Landing {
    fn with<T>(&self, work: impl FnOnce(&mut Buffer) -> T) -> T {
        let kept = self.0.borrow_mut().take();
        let mut buffer = kept.unwrap_or_else(|| Buffer::with_capacity(LANDING));
        let done = work(&mut buffer);
        buffer.clear();
        *self.0.borrow_mut() = Some(buffer);
        done
    }
}

// === impl Connection ===

impl<W: Wire> Connection<W> {
    /// A client's connection. `salt` is not the same twice.
    pub fn server(wire: W, limits: Limits, landing: Rc<Landing>, salt: u64) -> Self {
        Self::new(Role::Server, wire, limits, landing, salt)
    }

    /// A connection to an endpoint, and what opens streams on it. `name` is what `:authority` says where
    /// a request names no host.
    pub fn client(
        wire: W,
        limits: Limits,
        landing: Rc<Landing>,
        is_encrypted: bool,
        name: &str,
    ) -> (Rc<Link>, Self) {
        let connection = Self::new(Role::Client, wire, limits, landing, 0);
        let link = Link::new(connection.mux.clone(), is_encrypted, name);
        (Rc::new(link), connection)
    }

    fn new(role: Role, wire: W, limits: Limits, landing: Rc<Landing>, salt: u64) -> Self {
        Self {
            mux: Rc::new(RefCell::new(Mux::new(role, limits, salt))),
            wire,
            landing,
        }
    }

    /// The next stream that the other end opens, and meanwhile moves what comes and goes; or how the
    /// connection has ended. Cancel-safe.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>, is_encrypted: bool) -> Poll<Accepted> {
        self.mux.borrow_mut().attend(cx);
        let mut rounds = 0;
        loop {
            let accepted = self.mux.borrow_mut().accept();
            if let Some(key) = accepted {
                let stream = ServerStream::new(self.mux.clone(), key, is_encrypted);
                return Poll::Ready(Accepted::Stream(stream));
            }
            if let Err(error) = self.flush(cx) {
                return Poll::Ready(self.broke(error));
            }
            let mut mux = self.mux.borrow_mut();
            if let Some(end) = mux.end() {
                if mux.unsent().is_empty() {
                    mux.over(end);
                    return Poll::Ready(Accepted::End(end));
                }
                return Poll::Pending;
            }
            if mux.is_stuffed() {
                return Poll::Pending;
            }
            rounds += 1;
            if rounds > ROUNDS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let (wire, landing) = (&mut self.wire, &self.landing);
            let read = landing.with(|buffer| match wire.poll_read(cx, buffer) {
                Poll::Ready(Ok(n)) => {
                    mux.receive(buffer.filled());
                    Poll::Ready(Ok(n))
                }
                other => other,
            });
            drop(mux);
            match read {
                Poll::Ready(Ok(0)) => {
                    self.mux.borrow_mut().over(End::Well);
                    return Poll::Ready(Accepted::End(End::Well));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(self.broke(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends what waits, as far as it is taken.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut mux = self.mux.borrow_mut();
        while !mux.unsent().is_empty() {
            match self.wire.poll_write(cx, mux.unsent()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => mux.sent(n),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn broke(&mut self, error: io::Error) -> Accepted {
        self.mux.borrow_mut().over(End::Well);
        Accepted::Broke(error)
    }

    /// Says that it ends once what is under way is done.
    pub fn leave(&mut self) {
        self.mux.borrow_mut().leave();
    }

    /// Ends it, and says why.
    pub fn fail(&mut self, code: Code) {
        self.mux.borrow_mut().fail(code);
    }

    /// What is below it; its streams learn that it is over.
    pub fn into_wire(self) -> W {
        self.mux.borrow_mut().over(End::Well);
        self.wire
    }
}

/// What became of waiting for a stream.
#[derive(Debug)]
pub enum Accepted {
    /// One.
    Stream(ServerStream),
    /// There are no more, and all that was to be said was sent.
    End(End),
    /// What carries the connection has failed.
    Broke(io::Error),
}
