//! Dialling an endpoint.

use std::io;
use std::task::{Context, Poll};

use rustix::io::Errno;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use crate::base::addr::EndpointAddr;
use crate::base::stream::Stream;
use crate::base::timer::Timer;

/// Why a connection could not be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The deadline came first.
    #[error("no answer to the connect in time")]
    Deadline,
    /// The process ends and cuts what is left.
    #[error("the proxy stops")]
    Stopped,
    /// The system refused.
    #[error("connect failed")]
    Io(#[from] io::Error),
}

/// Whether this process lacks something (ports, descriptors, memory): says nothing of the endpoint.
pub fn is_local(error: &io::Error) -> bool {
    const LOCAL: [Errno; 5] = [
        Errno::ADDRNOTAVAIL,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    Errno::from_io_error(error).is_some_and(|errno| LOCAL.contains(&errno))
}

/// Connects to `addr`. `timer` holds the deadline, armed by the caller; `is_cut` says whether the
/// process cuts what is left. Cancel-safe: dropping the future closes the socket.
pub async fn connect(
    addr: &EndpointAddr,
    timer: &Timer,
    is_cut: impl Fn() -> bool,
) -> Result<Stream, ConnectError> {
    let dial = async {
        Ok(match addr {
            EndpointAddr::Ip(addr) => {
                let stream = TcpStream::connect(addr).await?;
                // Heads and last segments leave at once; Nagle would hold them for an ACK.
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            EndpointAddr::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        })
    };
    let mut dial = std::pin::pin!(dial);
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(result) = dial.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(ConnectError::Io));
        }
        if timer.has_expired(cx) {
            return Poll::Ready(Err(ConnectError::Deadline));
        }
        if is_cut() {
            return Poll::Ready(Err(ConnectError::Stopped));
        }
        Poll::Pending
    })
    .await
}
