//! Asking an endpoint once. One file a protocol; each speaks over any stream of bytes, reads a
//! bounded amount, and leaves deadlines to [`probe`].

mod grpc;
mod http;
mod mysql;
mod postgres;
mod redis;
mod smtp;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::base::addr::EndpointAddr;
use crate::base::proxy_protocol::{Tlvs, Transport, write_v1, write_v2};
use crate::base::unix;
use crate::config::{Check, HealthSpec, ProxyVersion};
use crate::telemetry::metrics::cells::CheckResult;
use crate::upstream::is_local;

use grpc::Scheme;

/// Why a check did not pass.
#[derive(Debug, Error)]
pub enum Failure {
    /// The body is not as expected.
    #[error("the body is not as expected")]
    Body,
    /// The endpoint ended the connection too soon.
    #[error("the connection ended before the answer did")]
    Closed,
    /// The endpoint could not be reached.
    #[error("connect failed: {0}")]
    Connect(io::Error),
    /// This process lacks something: says nothing of the endpoint.
    #[error("not checked: {0}")]
    Local(io::Error),
    /// What came is not of the protocol, or is an error of it.
    #[error("{0}")]
    Protocol(String),
    /// A status that is not well.
    #[error("status {0}")]
    Status(u16),
    /// The time was up.
    #[error("{what} within {after:?}")]
    Timeout {
        /// What did not happen.
        what: &'static str,
        /// The time there was.
        after: Duration,
    },
    /// TLS could not be agreed on.
    #[error("{0}")]
    Tls(String),
    /// It says of itself that it is not well.
    #[error("{0}")]
    Unwell(String),
}

/// Most bytes of an answer that are looked at, of protocols with short answers.
const MAX_ANSWER: usize = 8 * 1024;

/// Asks the endpoint at `addr` once, for at most `spec.timeout`. Dropping the future closes the
/// connection.
///
/// # Errors
/// Why it did not pass.
pub async fn probe(spec: &HealthSpec, addr: &EndpointAddr) -> Result<(), Failure> {
    // Tokio's clock, so that a paused one moves it.
    let deadline = Instant::now() + spec.timeout;
    let late = |what| Failure::Timeout {
        what,
        after: spec.timeout,
    };
    let silent = |_| late("no answer");
    match target(spec, addr) {
        EndpointAddr::Ip(target) => {
            let stream = timeout_at(deadline, tcp(target))
                .await
                .map_err(|_| late("no connection"))??;
            let answer = timeout_at(deadline, Box::pin(ask(spec, addr, stream)));
            answer.await.map_err(silent)?
        }
        EndpointAddr::Unix(path) => {
            let stream = timeout_at(deadline, unix::connect(&path))
                .await
                .map_err(|_| late("no connection"))?
                .map_err(connect_failure)?;
            let answer = timeout_at(deadline, Box::pin(ask(spec, addr, stream)));
            answer.await.map_err(silent)?
        }
    }
}

/// Where checks of the endpoint at `addr` connect.
fn target(spec: &HealthSpec, addr: &EndpointAddr) -> EndpointAddr {
    match (addr, spec.port) {
        (EndpointAddr::Ip(addr), Some(port)) => {
            EndpointAddr::Ip(SocketAddr::new(addr.ip(), port.get()))
        }
        (EndpointAddr::Ip(_) | EndpointAddr::Unix(_), _) => addr.clone(),
    }
}

pub(in crate::health) async fn tcp(addr: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(addr).await.map_err(connect_failure)?;
    // A check that ends first would leave its port in TIME_WAIT for a minute: with 10,000 endpoints
    // every 5 s, 120,000 of them. RST instead, as HAProxy's checks do.
    let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.map_err(Failure::Local)?;
    Ok(stream)
}

async fn ask(
    spec: &HealthSpec,
    addr: &EndpointAddr,
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) -> Result<(), Failure> {
    if let Some(version) = spec.send_proxy_protocol {
        let header = header(version);
        stream
            .write_all(&header)
            .await
            .map_err(|_| Failure::Closed)?;
    }
    match &spec.tls {
        None => speak(&spec.check, Scheme::Http, addr, stream).await,
        Some(tls) => {
            let stream = tls::begin(tls, &spec.check, addr, stream).await?;
            speak(&spec.check, Scheme::Https, addr, stream).await
        }
    }
}

/// What connections to the endpoint begin with, where no client is behind one.
fn header(version: ProxyVersion) -> Vec<u8> {
    let mut header = Vec::new();
    match version {
        ProxyVersion::V1 => write_v1(&mut header, None),
        ProxyVersion::V2 => write_v2(&mut header, Transport::Stream, None, &Tlvs::default()),
    }
    header
}

async fn speak(
    check: &Check,
    scheme: Scheme,
    addr: &EndpointAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) -> Result<(), Failure> {
    match check {
        Check::Grpc(check) => grpc::ask(check, scheme, addr, stream).await,
        Check::Http(check) => http::ask(check, addr, stream).await,
        Check::Mysql(check) => mysql::ask(check, stream).await,
        Check::Postgres => postgres::ask(stream).await,
        Check::Redis => redis::ask(stream).await,
        Check::Smtp => smtp::ask(stream).await,
        Check::Tcp => Ok(()),
    }
}

fn connect_failure(error: io::Error) -> Failure {
    if is_local(&error) {
        Failure::Local(error)
    } else {
        Failure::Connect(error)
    }
}

/// Reads until `find` has found what it looks for, at most [`MAX_ANSWER`] bytes.
pub(in crate::health) async fn read_until<T>(
    stream: &mut (impl AsyncRead + Unpin),
    protocol: &str,
    mut find: impl FnMut(&[u8]) -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let mut answer = Vec::with_capacity(512);
    loop {
        let mut chunk = [0; 512];
        let read = stream.read(&mut chunk).await.map_err(|_| Failure::Closed)?;
        if read == 0 {
            return Err(Failure::Closed);
        }
        answer.extend_from_slice(&chunk[..read]);
        if let Some(found) = find(&answer)? {
            return Ok(found);
        }
        if answer.len() >= MAX_ANSWER {
            return Err(Failure::Protocol(format!("the answer is not {protocol}")));
        }
    }
}

/// What an endpoint said, fit for a log line: short and printable.
pub(in crate::health) fn quoted(text: &[u8]) -> String {
    /// A line of a terminal.
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(text);
    let text: String = text.trim().chars().take(SHOWN).collect();
    text.escape_debug().to_string()
}

// === impl Failure ===

impl Failure {
    /// Its class, for metrics.
    pub fn result(&self) -> CheckResult {
        match self {
            Self::Body => CheckResult::Body,
            Self::Closed => CheckResult::Closed,
            Self::Connect(_) => CheckResult::Connect,
            Self::Local(_) => CheckResult::Local,
            Self::Protocol(_) => CheckResult::Protocol,
            Self::Status(_) => CheckResult::Status,
            Self::Timeout { .. } => CheckResult::Timeout,
            Self::Tls(_) => CheckResult::Tls,
            Self::Unwell(_) => CheckResult::Status,
        }
    }
}

#[cfg(test)]
mod tests;
