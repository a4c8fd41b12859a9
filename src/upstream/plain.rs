//! Connections to endpoints for bytes as they are: nothing is agreed on, so that nothing but connecting is done.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use crate::base::reactor::Reactor;
use crate::base::socket::Socket;
use crate::base::stream::Stream;
use crate::base::timer::Timer;

use super::{ConnectError, Connection, Endpoint};

/// A connection to `endpoint` at `addr`, in the reactor of its `worker`. `timer` holds the deadline, armed by the
/// caller; `has_spoken` says that something waits to be sent on it, `is_cut` whether the process cuts what is
/// left. Cancel-safe: dropping the future closes the socket.
pub async fn open_plain(
    addr: SocketAddr,
    endpoint: &Arc<Endpoint>,
    reactor: &Reactor,
    worker: usize,
    has_spoken: bool,
    timer: &Timer,
    is_cut: impl Fn() -> bool,
) -> Result<Connection, ConnectError> {
    let connecting = Socket::connect(addr, reactor, has_spoken)?;
    poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.poll_connected(cx) {
            return Poll::Ready(connected.map_err(ConnectError::Io));
        }
        if timer.has_expired(cx) {
            return Poll::Ready(Err(ConnectError::Deadline));
        }
        if is_cut() {
            return Poll::Ready(Err(ConnectError::Stopped));
        }
        Poll::Pending
    })
    .await?;
    let stream = Stream::Tcp(connecting.connected());
    Ok(Connection::new(stream, endpoint.clone(), worker))
}
