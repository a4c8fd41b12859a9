//! Accepting: each worker takes from its own socket and passes on what another has room for.
//!
//! Hashing by the kernel alone gives the busiest of four workers a third more than its share of 64
//! connections (measured: max/mean 1.30 on average), and a connection stays where it is for life.
//! So after each accept the worker compares itself with the least loaded one and hands over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::base::addr::canonical;
use crate::base::reactor::Reactor;
use crate::base::socket::Socket;
use crate::base::stream::Stream;

/// A connection on its way to another worker.
#[derive(Debug)]
pub struct Handed {
    /// The socket.
    pub fd: OwnedFd,
    /// The client; `None` = a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The listener it came by.
    pub slot: usize,
    /// Connections of that listener, all workers together. Comes along because the other worker
    /// may not have heard of the listener yet.
    pub open: Arc<AtomicUsize>,
}

/// How many connections each worker has, and the way to each.
#[derive(Clone, Debug)]
pub struct Spread {
    loads: Arc<[Padded]>,
    ways: Arc<[mpsc::Sender<Handed>]>,
}

/// A listening socket of one worker.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// TCP whose connections are passed on as they are: in the worker's own reactor.
    Bytes(AsyncFd<OwnedFd>, Reactor),
    /// Unix.
    Unix(UnixListener),
}

/// Counters that each worker writes and all read: a line of its own for each.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicUsize);

/// Connections on their way to one worker: a burst of accepts between two of its turns.
const IN_FLIGHT: usize = 1024;

/// Pause after accept(2) failed for want of descriptors or memory: long enough for some to come
/// free, short enough that the backlog does not overflow at 40,000 connections a second.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === impl Spread ===

impl Spread {
    /// The spread of `workers` workers, and what each of them receives from.
    pub fn new(workers: usize) -> (Self, Vec<mpsc::Receiver<Handed>>) {
        let (ways, ends): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(IN_FLIGHT)).unzip();
        let loads = (0..workers).map(|_| Padded::default()).collect();
        (
            Self {
                loads,
                ways: ways.into(),
            },
            ends,
        )
    }

    /// Worker `me` takes one connection more.
    pub fn add(&self, me: usize) {
        // Relaxed: loads are hints for the next hand-over.
        self.loads[me].0.fetch_add(1, Ordering::Relaxed);
    }

    /// Worker `me` has one connection less.
    pub fn sub(&self, me: usize) {
        self.loads[me].0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.loads.len()
    }

    /// Connections of each worker.
    pub fn loads(&self) -> Vec<usize> {
        self.loads
            .iter()
            .map(|l| l.0.load(Ordering::Relaxed))
            .collect()
    }

    /// The worker that should take a connection that `me` has accepted and counted; `None` = `me`.
    /// One more than the least loaded is no imbalance, nor are 6 %: moving costs two system calls.
    pub fn better(&self, me: usize) -> Option<usize> {
        let load = |i: usize| self.loads[i].0.load(Ordering::Relaxed);
        let least = (0..self.loads.len()).min_by_key(|&i| (load(i), i != me))?;
        let low = load(least);
        (load(me) > low + 1 + low / 16).then_some(least)
    }

    /// Passes a connection on to worker `to`, which it is counted for from now on. Comes back
    /// when the other has too many waiting, or takes none any more.
    pub fn hand_over(&self, me: usize, to: usize, handed: Handed) -> Result<(), Handed> {
        self.add(to);
        self.sub(me);
        self.ways[to].try_send(handed).map_err(|error| {
            self.sub(to);
            self.add(me);
            error.into_inner()
        })
    }
}

// === impl Handed ===

impl Handed {
    /// A connection of listener `slot`, off the reactor of the worker that accepted it.
    pub fn new(
        stream: Stream,
        peer: Option<SocketAddr>,
        slot: usize,
        open: Arc<AtomicUsize>,
    ) -> io::Result<Self> {
        let fd = match stream {
            Stream::Tcp(s) => OwnedFd::from(s.into_std()?),
            Stream::Unix(s) => OwnedFd::from(s.into_std()?),
            // Connections move before anything is said on them.
            Stream::Tls(_) | Stream::Channel(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self {
            fd,
            peer,
            slot,
            open,
        })
    }

    /// The stream, on the reactor of the worker that received it: its own, if that is given.
    pub fn into_stream(self, reactor: Option<&Reactor>) -> io::Result<Stream> {
        if self.peer.is_some() {
            let stream = std::net::TcpStream::from(self.fd);
            Ok(Stream::Tcp(match reactor {
                Some(reactor) => Socket::accepted(stream, reactor)?,
                None => TcpStream::from_std(stream)?.into(),
            }))
        } else {
            let stream = std::os::unix::net::UnixStream::from(self.fd);
            Ok(Stream::Unix(UnixStream::from_std(stream)?))
        }
    }
}

// === impl Acceptor ===

/// Lets every segment through but SYN: from then on no handshake begins, and those that have begun
/// are finished. Classic BPF over the TCP header (linux/filter.h): byte 13 holds the flags, 0x02
/// is SYN.
const NO_SYN: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 13),       // ldb [13]
    SockFilter::new(0x45, 0, 1, 0x02),     // jset #SYN, next, after next
    SockFilter::new(0x06, 0, 0, 0),        // ret: drop
    SockFilter::new(0x06, 0, 0, u32::MAX), // ret: keep
];

impl Acceptor {
    /// Begins no new handshake. Closing a listening socket resets the connections that wait in
    /// its queue, so the queue is closed at its entrance first and emptied after. A client that
    /// comes now repeats its SYN a second later: to our successor, or to be refused.
    pub fn refuse_new(&self) {
        if let Self::Tcp(_) | Self::Bytes(..) = self
            && let Err(error) = SockRef::from(self).attach_filter(&NO_SYN)
        {
            // Sandboxes may forbid filters: then a connection made in the instant between the last
            // accept and the close is reset.
            tracing::debug!(%error, "no filter; a connection that comes while closing may be lost");
        }
    }

    /// A connection that is already waiting, asked of the kernel itself: the reactor tells of it
    /// later. `None` = there is none.
    pub fn accept_waiting(&self) -> Option<(Stream, Option<SocketAddr>)> {
        let socket = SockRef::from(self);
        loop {
            let accepted = socket.accept().and_then(|(socket, peer)| {
                socket.set_nonblocking(true)?;
                if let Self::Unix(_) = self {
                    let stream = UnixStream::from_std(socket.into())?;
                    return Ok((Stream::Unix(stream), None));
                }
                socket.set_tcp_nodelay(true)?;
                let stream = TcpStream::from_std(socket.into())?;
                Ok((Stream::Tcp(stream.into()), peer.as_socket().map(canonical)))
            });
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(e) if is_transient(&e) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next connection. Cancel-safe: no connection is lost when the future is dropped.
    pub async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream.into()), Some(canonical(peer))))
            }
            Self::Bytes(listener, reactor) => {
                let accept = |listener: &OwnedFd| {
                    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                    Ok(acceptfrom_with(listener, flags)?)
                };
                let (fd, peer) = listener.async_io(Interest::READABLE, accept).await?;
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let socket = Socket::accepted(fd.into(), reactor)?;
                Ok((Stream::Tcp(socket), peer.map(canonical)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Bytes(listener, _) => listener.get_ref().as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// The client gave up while it waited: nothing is wrong with us.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_is_far_above_the_others() {
        let (spread, _ends) = Spread::new(4);
        let mut rng = crate::base::rng::Rng::new(7);
        // As the kernel does it: at random; each accept may hand over.
        for _ in 0..64 {
            let me = rng.below(4);
            spread.add(me);
            if let Some(to) = spread.better(me) {
                spread.add(to);
                spread.sub(me);
            }
        }
        let loads = spread.loads();
        assert_eq!(loads.iter().sum::<usize>(), 64);
        assert!(
            loads.iter().all(|&l| l <= 17),
            "{loads:?}: max/mean above 1.1"
        );
    }

    #[test]
    fn one_worker_keeps_what_it_has() {
        let (spread, _ends) = Spread::new(1);
        for _ in 0..9 {
            spread.add(0);
            assert_eq!(spread.better(0), None);
        }
    }
}
