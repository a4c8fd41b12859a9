//! Connections of the admin servers: bounded in number, in silence and in age.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at once: a pair of Prometheus servers, a few balancers that probe, people. More wait
/// in the kernel's queue until one ends.
const MAX_CONNECTIONS: usize = 64;

/// Connections at once of clients that get nothing but a refusal. They have places of their own, so
/// that they cannot take those of others; more are closed unanswered.
const MAX_REFUSED: usize = 8;

/// For a request's head, and for the next one on an idle connection; Prometheus scrapes every 15 s
/// to 60 s and dials anew without complaint.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// For the one request of a client that is refused.
const REFUSED_AGE: Duration = Duration::from_secs(2);

/// A connection that takes its answer too slowly or lives on and on is ended after this.
const MAX_AGE: Duration = Duration::from_secs(300);

/// What an answer in flight gets when the server stops or the connection is too old.
const GRACE: Duration = Duration::from_secs(2);

/// Pause after a failed accept: out of descriptors, and the workers need them more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from, and who answers what they ask.
pub(super) trait Door: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Who is at its other end.
    type Client: Copy + Send + Sync + 'static;

    /// The next connection. Cancel safe: one that is not returned stays queued.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Client)>> + Send;

    /// What the client may expect.
    fn standing(&self, client: Self::Client) -> Standing;

    /// The answer to one request.
    fn answer(
        &self,
        client: Self::Client,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// What a client may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Answers.
    Allowed,
    /// A refusal, whatever it asks.
    Refused,
}

/// Serves until `stop` is cancelled, then lets answers in flight end. Cancel safe: dropping it
/// closes every connection.
pub(super) async fn serve<D: Door>(door: D, stop: CancellationToken, header_timeout: Duration) {
    let door = Arc::new(door);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let refused = Arc::new(Semaphore::new(MAX_REFUSED));
    let mut connections = JoinSet::new();
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    loop {
        // Every arm is cancel safe: an accept that lost the race leaves its connection queued.
        tokio::select! {
            () = &mut stopped => break,
            Some(_ended) = connections.join_next() => {}
            accepted = accept(&*door, &places) => {
                let Some((stream, client, place)) = accepted else {
                    continue;
                };
                let (place, max_age) = match door.standing(client) {
                    Standing::Allowed => (place, MAX_AGE),
                    Standing::Refused => match Arc::clone(&refused).try_acquire_owned() {
                        Ok(place) => (place, REFUSED_AGE),
                        Err(_) => continue,
                    },
                };
                let (door, stop) = (Arc::clone(&door), stop.clone());
                connections.spawn(async move {
                    connection(stream, client, &*door, &stop, header_timeout, max_age).await;
                    drop(place);
                });
            }
        }
    }
    drop(door);
    while connections.join_next().await.is_some() {}
}

/// The next connection, once there is a place for it.
async fn accept<D: Door>(
    door: &D,
    places: &Arc<Semaphore>,
) -> Option<(D::Stream, D::Client, OwnedSemaphorePermit)> {
    // Closed never: the semaphore lives as long as the server.
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match door.accept().await {
        Ok((stream, client)) => Some((stream, client, place)),
        Err(error) => {
            tracing::debug!(%error, "admin: cannot accept");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection<D: Door>(
    stream: D::Stream,
    client: D::Client,
    door: &D,
    stop: &CancellationToken,
    header_timeout: Duration,
    max_age: Duration,
) {
    let service =
        service_fn(async |request| Ok::<_, Infallible>(door.answer(client, request).await));
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
        () = sleep(max_age) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}
