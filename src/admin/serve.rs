//! The admin server on its TCP address: read-only.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::answer::Answers;
use super::connections::{self, Door, HEADER_TIMEOUT, Standing};
use crate::runtime::readiness::Readiness;
use crate::telemetry::metrics::registry::Registry;

/// What the admin server shows.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// For `/metrics`.
    pub registry: Arc<Registry>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
}

struct Tcp {
    listener: TcpListener,
    answers: Answers,
}

/// Serves until `stop` is cancelled, then lets answers in flight end. Cancel safe: dropping it
/// closes every connection.
///
/// # Errors
/// The listener cannot be used on this runtime; a failed accept or connection is none.
pub async fn serve(
    listener: StdTcpListener,
    state: AdminState,
    stop: CancellationToken,
) -> io::Result<()> {
    serve_with(listener, state, stop, HEADER_TIMEOUT).await
}

pub(super) async fn serve_with(
    listener: StdTcpListener,
    state: AdminState,
    stop: CancellationToken,
    header_timeout: Duration,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let door = Tcp {
        listener: TcpListener::from_std(listener)?,
        answers: Answers::new(state.registry, state.readiness),
    };
    connections::serve(door, stop, header_timeout).await;
    Ok(())
}

// === impl Tcp ===

impl Door for Tcp {
    type Stream = TcpStream;
    type Client = ();

    async fn accept(&self) -> io::Result<(TcpStream, ())> {
        let (stream, _peer) = self.listener.accept().await?;
        Ok((stream, ()))
    }

    /// Its address is its guard.
    fn standing(&self, (): ()) -> Standing {
        Standing::Allowed
    }

    async fn answer(&self, (): (), request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.answers.clone().answer(request).await
    }
}
