//! Connections of the admin server: bounded in number, in silence and in age.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::Answers;
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

/// Connections at once: a pair of Prometheus servers, a few balancers that probe, people. More wait
/// in the kernel's queue until one ends.
const MAX_CONNECTIONS: usize = 64;

/// For a request's head, and for the next one on an idle connection; Prometheus scrapes every 15 s
/// to 60 s and dials anew without complaint.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that takes its answer too slowly or lives on and on is ended after this.
const MAX_AGE: Duration = Duration::from_secs(300);

/// What an answer in flight gets when the server stops or the connection is too old.
const GRACE: Duration = Duration::from_secs(2);

/// Pause after a failed accept: out of descriptors, and the workers need them more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    let listener = TcpListener::from_std(listener)?;
    let answers = Answers::new(state.registry, state.readiness);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    loop {
        // Every arm is cancel safe: an accept that lost the race leaves its connection queued.
        tokio::select! {
            () = &mut stopped => break,
            Some(_ended) = connections.join_next() => {}
            accepted = accept(&listener, &places) => {
                if let Some((stream, place)) = accepted {
                    let (answers, stop) = (answers.clone(), stop.clone());
                    connections.spawn(async move {
                        connection(stream, answers, stop, header_timeout).await;
                        drop(place);
                    });
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    // Closed never: the semaphore lives as long as the server.
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _peer)) => Some((stream, place)),
        Err(error) => {
            tracing::debug!(%error, "admin: cannot accept");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    answers: Answers,
    stop: CancellationToken,
    header_timeout: Duration,
) {
    let service = service_fn(move |request| answers.clone().answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        // The smallest hyper allows: heads here are short.
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // How it ends is the client's business: no arm's result is of interest.
    tokio::select! {
        _ = &mut connection => return,
        () = stop.cancelled() => {}
        () = sleep(MAX_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}
