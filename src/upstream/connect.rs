//! Connections to endpoints: dialled, encrypted, and agreed on what is spoken.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustix::io::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::base::addr::EndpointAddr;
use crate::base::clock::Clock;
use crate::base::stream::Stream;
use crate::base::timer::Timer;
use crate::base::tls::{Gate, RecordBuffers, TlsStream, in_words, server_name};
use crate::base::unix;
use crate::config::{Protocol, UpstreamTls};
use crate::http2::{Accepted, ClientStream, Connection as Http2, Landing, Limits, Link};

use super::links::{Dialing, Turn};
use super::pool::Counted;
use super::{Connection, Endpoint, LocalEndpoint, Upstream};

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
    /// No TLS could be agreed on, or no protocol; why, in plain words.
    #[error("{0}")]
    Tls(String),
}

/// What a connection is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What a client says, whatever it speaks.
    Bytes {
        /// It has said something, which waits to be passed on. Otherwise the endpoint may be the first to speak.
        has_spoken: bool,
    },
    /// Requests, in the protocol of the upstream.
    Requests,
}

/// What a worker lends to its connections.
#[derive(Clone, Debug)]
pub struct Means {
    /// Its number.
    pub worker: usize,
    /// Its clock.
    pub clock: Clock,
    /// Buffers for what is encrypted.
    pub records: Rc<RecordBuffers>,
    /// What handshakes pass.
    pub gate: Rc<Gate>,
    /// Where connections of HTTP/2 read.
    pub landing: Rc<Landing>,
}

/// Bytes that an endpoint may send on a stream before they are read: 5 MB/s over 50 ms.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Largest head of a response, as HTTP/1 has it.
const HEAD_MAX: usize = 64 * 1024;

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

/// A connection to `endpoint`, or a stream on one, for `purpose`: made if there is none. `timer` holds
/// the deadline, armed by the caller; `announced` is what a new connection begins with, before all else;
/// `is_cut` says whether the process cuts what is left. Whether it
/// was made for this exchange is told beside it. Cancel-safe: dropping the future closes what was begun.
pub async fn open(
    endpoint: &LocalEndpoint,
    upstream: &Upstream,
    means: &Means,
    announced: &[u8],
    purpose: Purpose,
    timer: &Timer,
    is_cut: impl Fn() -> bool,
) -> Result<Connection, ConnectError> {
    let spec = &upstream.spec;
    // One that carries bytes is its client's own.
    let protocol = match purpose {
        Purpose::Bytes { .. } => Protocol::H1,
        Purpose::Requests => spec.protocol,
    };
    let dialing = if protocol == Protocol::H1 {
        None
    } else {
        let turn = poll_fn(|cx| {
            if let Poll::Ready(turn) = endpoint.links.poll_turn(cx, spec.max_streams.get()) {
                return Poll::Ready(Ok(turn));
            }
            ended(cx, timer, &is_cut)
        });
        match turn.await? {
            Turn::Stream(stream) => return Ok(Connection::shared(stream, &endpoint.shared)),
            Turn::Dial(dialing) => Some(dialing),
            Turn::H1 => None,
        }
    };
    let mut stream = connect(&endpoint.shared.addr, timer, &is_cut).await?;
    if !announced.is_empty() {
        announce(&mut stream, announced, timer, &is_cut).await?;
    }
    let stream = match &spec.tls {
        Some(tls) => {
            let config = match purpose {
                Purpose::Bytes { .. } => tls.client.config_without_protocol(),
                Purpose::Requests => tls.client.config(),
            };
            let name = name(tls, &endpoint.shared.addr).ok_or_else(|| {
                ConnectError::Tls("it has no name to verify: set `server_name`".to_owned())
            })?;
            secure(stream, config.clone(), name, means, timer, &is_cut).await?
        }
        None => stream,
    };
    let speaks_h2 = match (&stream, protocol) {
        (_, Protocol::H1) => false,
        (Stream::Tls(tls), protocol) => {
            let is_agreed = tls.protocol() == Some(b"h2");
            if !is_agreed && protocol == Protocol::H2 {
                let why =
                    "it does not speak HTTP/2 (ALPN); `protocol = \"auto\"` would use HTTP/1.1";
                return Err(ConnectError::Tls(why.to_owned()));
            }
            is_agreed
        }
        (_, _) => true,
    };
    let shared = &endpoint.shared;
    if !speaks_h2 {
        if let Some(dialing) = dialing {
            dialing.made_h1();
        }
        return Ok(Connection::new(stream, shared.clone(), means.worker));
    }
    let link = link(stream, upstream, shared, means);
    keep(dialing, endpoint, &link, means);
    let stream = Box::new(ClientStream::new(link));
    Ok(Connection::shared(stream, shared))
}

/// Adds a new connection to those of the endpoint. (One that was thought to speak HTTP/1.1 may have
/// changed its mind meanwhile.)
fn keep(dialing: Option<Dialing<'_>>, endpoint: &LocalEndpoint, link: &Rc<Link>, means: &Means) {
    let now = means.clock.now();
    match dialing {
        Some(dialing) => dialing.made(link.clone(), now),
        None => endpoint.links.add(link.clone(), now),
    }
}

/// Connects to `addr`. Cancel-safe: dropping the future closes the socket.
async fn connect(
    addr: &EndpointAddr,
    timer: &Timer,
    is_cut: &impl Fn() -> bool,
) -> Result<Stream, ConnectError> {
    let dial = async {
        Ok(match addr {
            EndpointAddr::Ip(addr) => {
                let stream = TcpStream::connect(addr).await?;
                // Heads and last segments leave at once; Nagle would hold them for an ACK.
                stream.set_nodelay(true)?;
                Stream::Tcp(stream.into())
            }
            EndpointAddr::Unix(path) => Stream::Unix(unix::connect(path).await?),
        })
    };
    let mut dial = std::pin::pin!(dial);
    poll_fn(|cx| {
        if let Poll::Ready(result) = dial.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(ConnectError::Io));
        }
        ended(cx, timer, is_cut)
    })
    .await
}

/// Says `bytes` first, on a connection on which nothing was said yet.
async fn announce(
    stream: &mut Stream,
    bytes: &[u8],
    timer: &Timer,
    is_cut: &impl Fn() -> bool,
) -> Result<(), ConnectError> {
    let mut left = bytes;
    poll_fn(|cx| {
        while !left.is_empty() {
            match stream.poll_write(cx, left) {
                Poll::Ready(Ok(n)) => left = &left[n..],
                Poll::Ready(Err(e)) => return Poll::Ready(Err(ConnectError::Io(e))),
                Poll::Pending => return ended(cx, timer, is_cut),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Agrees on TLS with an endpoint that must be `name`.
async fn secure(
    stream: Stream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    means: &Means,
    timer: &Timer,
    is_cut: &impl Fn() -> bool,
) -> Result<Stream, ConnectError> {
    let failed = |error: io::Error| match in_words(&error, &name) {
        Some(words) => ConnectError::Tls(words),
        None if is_local(&error) => ConnectError::Io(error),
        // It took the connection, so it is neither refused nor out of reach.
        None => ConnectError::Tls(format!("it hung up in the handshake: {error}")),
    };
    let stream = TlsStream::client(stream, config, name.clone(), means.records.clone());
    let mut stream = stream.map_err(|error| failed(io::Error::other(error)))?;
    poll_fn(|cx| {
        if let Poll::Ready(shaken) = stream.poll_handshake(cx, &means.gate) {
            return Poll::Ready(shaken.map_err(failed));
        }
        ended(cx, timer, is_cut)
    })
    .await?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn name(tls: &UpstreamTls, addr: &EndpointAddr) -> Option<ServerName<'static>> {
    match (&tls.server_name, addr) {
        (Some(name), _) => server_name(name).ok(),
        (None, EndpointAddr::Ip(addr)) => Some(ServerName::from(addr.ip())),
        (None, EndpointAddr::Unix(_)) => None,
    }
}

/// Begins HTTP/2 on `stream`, and moves its frames from then on.
fn link(stream: Stream, upstream: &Upstream, endpoint: &Arc<Endpoint>, means: &Means) -> Rc<Link> {
    let is_encrypted = stream.is_encrypted();
    let max_streams = upstream.spec.max_streams.get();
    let limits = Limits {
        stream_window: STREAM_WINDOW,
        // That of all streams together: no client that does not read stalls another.
        connection_window: STREAM_WINDOW
            .saturating_mul(max_streams)
            .min(i32::MAX as u32),
        // An endpoint opens none.
        max_streams: 0,
        max_head: HEAD_MAX,
    };
    let landing = means.landing.clone();
    let (link, mut connection) =
        Http2::client(stream, limits, landing, is_encrypted, &endpoint.name);
    let counted = Counted::new(endpoint.clone(), means.worker);
    // It ends when nobody has a stream on it and nobody keeps it for more.
    spawn_local(async move {
        let _counted = counted;
        match poll_fn(|cx| connection.poll_accept(cx, is_encrypted)).await {
            Accepted::Broke(error) => {
                tracing::debug!(%error, "a connection of HTTP/2 to an endpoint broke");
            }
            Accepted::End(end) => {
                tracing::debug!(?end, "a connection of HTTP/2 to an endpoint ended");
            }
            // Endpoints open none: whoever tries breaks the connection.
            Accepted::Stream(_) => {}
        }
    });
    link
}

/// Whether a wait is over because its time is, or the process.
fn ended<T>(
    cx: &mut std::task::Context<'_>,
    timer: &Timer,
    is_cut: &impl Fn() -> bool,
) -> Poll<Result<T, ConnectError>> {
    if timer.has_expired(cx) {
        return Poll::Ready(Err(ConnectError::Deadline));
    }
    if is_cut() {
        return Poll::Ready(Err(ConnectError::Stopped));
    }
    Poll::Pending
}
