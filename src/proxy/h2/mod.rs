//! One HTTP/2 client connection: its streams are exchanges, each served by the request story.
//!
//! The connection's task reads and writes frames; every stream is a task of the same worker that lends
//! itself an exchanger as a connection of HTTP/1 does. A connection without streams keeps none.

mod io;
mod meter;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ::h2::Reason as Code;
use ::h2::server::Builder;
use bytes::Bytes;
use tokio::task::spawn_local;

use crate::base::buffer::Buffer;
use crate::base::clock::{Nanos, nanos};
use crate::base::coroutine::Coroutine;
use crate::base::stream::Stream;
use crate::config::Http2;
use crate::http2::ServerStream;
use crate::telemetry::reason::Reason;

use super::h1::{Conn, Next, linger};
use super::http;
use super::snapshot::ListenerPlan;
use super::upgrade;
use super::worker::{Phase, Worker};
use io::{Watch, WatchedIo};

/// After a GOAWAY the client has this long to hear of it: as a client of HTTP/1 has that was answered
/// for the last time.
const FAREWELL: Duration = Duration::from_secs(2);

/// Streams reset by us or before we had looked at them, that `h2` remembers for late frames.
const RESETS_REMEMBERED: usize = 64;

/// Bytes that `h2` holds of a stream's response before they are frames: two of them.
const SEND_BUFFER: usize = 64 * 1024;

/// The streams of a connection.
#[derive(Debug, Default)]
struct Streams {
    open: Cell<u32>,
    /// Told when the last one ends.
    waker: RefCell<Option<Waker>>,
}

/// Counts a stream while it lives.
#[derive(Debug)]
struct Open(Rc<Streams>);

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        let open = self.0.open.get() - 1;
        self.0.open.set(open);
        if open == 0
            && let Some(waker) = self.0.waker.take()
        {
            waker.wake();
        }
    }
}

/// Serves a connection of which `prefix` was read to its end.
pub(super) async fn serve(conn: Conn, prefix: Buffer, worker: Rc<Worker>) {
    let Conn {
        stream,
        timer,
        peer,
        life,
        ended: _,
        expires,
        identity,
    } = conn;
    let Some(snapshot) = worker.snapshot_for(life.slot) else {
        return;
    };
    let Some((listener, limits)) = snapshot
        .listener(life.slot)
        .and_then(|listener| Some((listener, listener.spec.http2?)))
    else {
        return;
    };
    let is_encrypted = stream.is_encrypted();
    let watch = Rc::new(Watch::new(&limits, worker.clock));
    let io = WatchedIo::new(stream, prefix, watch.clone());
    let cells = listener.cells.clone();
    let name = listener.spec.name.clone();
    let streams = Rc::new(Streams::default());
    let mut patience = Patience {
        header_timeout: listener.header_timeout,
        keepalive_timeout: listener.keepalive_timeout,
        expires,
        // From the accept, or from the end of the handshake, to the first request.
        idle: listener.header_timeout,
        idle_since: Some(worker.clock.now()),
        is_leaving: false,
        ends_at: None,
    };
    timer.arm(worker.clock.now() + listener.header_timeout);
    let handshake = builder(limits, listener).handshake::<_, Bytes>(io);
    drop(snapshot);
    let mut handshake = std::pin::pin!(handshake);
    let shaken = poll_fn(|cx| {
        if let Poll::Ready(shaken) = handshake.as_mut().poll(cx) {
            return Poll::Ready(shaken.ok());
        }
        let is_over = timer.has_expired(cx) || life.phase() >= Phase::Draining;
        if is_over || watch.abuse().is_some() {
            return Poll::Ready(None);
        }
        Poll::Pending
    });
    let Some(mut connection) = shaken.await else {
        return;
    };

    let is_well = poll_fn(|cx| {
        loop {
            match connection.poll_accept(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(patience.ends_at.is_none()),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "a connection of HTTP/2 broke");
                    return Poll::Ready(false);
                }
                Poll::Ready(Some(Ok((request, answer)))) => {
                    streams.open.set(streams.open.get() + 1);
                    let open = Open(streams.clone());
                    let random = || u128::from(worker.rng.borrow_mut().next_u64()) << 64;
                    let channel = ServerStream::new(request, answer, is_encrypted, random);
                    let conn = Conn {
                        stream: Stream::Channel(Box::new(channel)),
                        timer: worker.timers.timer(),
                        peer,
                        life: life.clone(),
                        ended: false,
                        expires: Nanos::MAX,
                        identity: identity.clone(),
                    };
                    spawn_local(exchange(conn, worker.clone(), open));
                }
            }
        }
        if life.phase() == Phase::Cutting {
            return Poll::Ready(false);
        }
        let now = worker.clock.now();
        let is_idle = streams.open.get() == 0;
        let block_since = watch.header_block_since();
        let verdict = patience.look(is_idle, block_since, life.phase() != Phase::Running, now);
        match verdict {
            Verdict::Stay => {}
            Verdict::Leave => {
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            Verdict::End => return Poll::Ready(patience.ends_at.is_none()),
            Verdict::Slow => {
                patience.ends_at = Some(now + nanos(FAREWELL));
                let reason = Reason::HeaderTimeout;
                cells.worker(worker.index).refusals.of(reason).inc();
                connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
                cx.waker().wake_by_ref();
            }
        }
        if let Some(abuse) = watch.abuse()
            && patience.ends_at.is_none()
        {
            cells.worker(worker.index).abuses(abuse).inc();
            if worker.may_log(now) {
                let client = peer.map(tracing::field::display);
                let kind = abuse.as_str();
                tracing::info!(listener = %name, client, kind, "a connection of HTTP/2 was abused");
            }
            // RFC 9113 section 10.5. What is not taken within the farewell is not waited for.
            connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
            patience.ends_at = Some(now + nanos(FAREWELL));
            cx.waker().wake_by_ref();
        }
        timer.arm(patience.until(is_idle, block_since));
        // Also so that a change of the phase is noticed.
        if timer.has_expired(cx) {
            cx.waker().wake_by_ref();
        }
        *streams.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
    // Its streams learn of it, and end.
    drop(connection);
    poll_fn(|cx| {
        if streams.open.get() == 0 {
            return Poll::Ready(());
        }
        *streams.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
    // What the client has not read yet would be lost with the first window that it opens: closing with
    // bytes unread resets the connection.
    if is_well && let Some(stream) = watch.take_stream() {
        let conn = Conn {
            stream,
            timer,
            peer,
            life,
            ended: false,
            expires,
            identity,
        };
        linger(conn, worker).await;
    }
}

/// How long a connection is borne with.
#[derive(Debug)]
struct Patience {
    /// From the begin of a head to its end.
    header_timeout: Nanos,
    /// Without a stream, once there was one.
    keepalive_timeout: Nanos,
    /// When it is old.
    expires: Nanos,
    /// Without a stream, now.
    idle: Nanos,
    /// Since when it has no stream.
    idle_since: Option<Nanos>,
    /// It was said that it ends.
    is_leaving: bool,
    /// It was refused, and ends then at the latest.
    ends_at: Option<Nanos>,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    /// GOAWAY, and what is under way is finished.
    Leave,
    /// Nobody listens any more.
    End,
    /// It owes the rest of a head.
    Slow,
}

// === impl Patience ===

impl Patience {
    fn look(
        &mut self,
        is_idle: bool,
        block_since: Option<Nanos>,
        is_draining: bool,
        now: Nanos,
    ) -> Verdict {
        if !is_idle {
            self.idle_since = None;
            self.idle = self.keepalive_timeout;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
        if let Some(at) = self.ends_at {
            return if now >= at {
                Verdict::End
            } else {
                Verdict::Stay
            };
        }
        let is_quiet_for = |time: Nanos| {
            self.idle_since
                .is_some_and(|since| now >= since.saturating_add(time))
        };
        if self.is_leaving {
            if is_quiet_for(nanos(FAREWELL)) {
                return Verdict::End;
            }
        } else if is_draining || now >= self.expires || is_quiet_for(self.idle) {
            self.is_leaving = true;
            self.idle_since = self.idle_since.map(|_| now);
            return Verdict::Leave;
        }
        match block_since {
            Some(since) if now >= since + self.header_timeout => Verdict::Slow,
            _ => Verdict::Stay,
        }
    }

    /// When to look again, whatever happens.
    fn until(&self, is_idle: bool, block_since: Option<Nanos>) -> Nanos {
        if let Some(at) = self.ends_at {
            return at;
        }
        let idle = if self.is_leaving {
            nanos(FAREWELL)
        } else {
            self.idle
        };
        let idle = self
            .idle_since
            .filter(|_| is_idle)
            .map(|at| at.saturating_add(idle));
        let block = block_since.map(|at| at.saturating_add(self.header_timeout));
        let old = (!self.is_leaving).then_some(self.expires);
        [idle, block, old]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Nanos::MAX)
    }
}

fn builder(limits: Http2, listener: &ListenerPlan) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_concurrent_streams(limits.max_streams.get())
        .max_header_list_size(listener.spec.max_header_bytes as u32)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        // Those that were reset before anybody looked at them: all that may be open, and as many again.
        .max_pending_accept_reset_streams(2 * limits.max_streams.get() as usize)
        // The watch counts them, by time and not for ever.
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    builder
}

/// Serves one stream.
async fn exchange(conn: Conn, worker: Rc<Worker>, _open: Open) {
    let mut exchanger = worker.take_exchanger(|| {
        let worker = worker.clone();
        Coroutine::new(|jobs| http::exchanger(jobs, worker))
    });
    exchanger.begin(conn);
    let (mut conn, next) = poll_fn(|cx| exchanger.poll_result(cx)).await;
    worker.put_exchanger(exchanger);
    match next {
        // Its end was told; a request that was not read to its end is reset with NO_ERROR by `h2`
        // (RFC 9113 section 8.1).
        Next::Close | Next::Idle | Next::Linger | Next::Http2(_) => {}
        Next::Reset => conn.stream.reset_on_close(),
        Next::Tunnel(tunnel) => {
            Box::pin(upgrade::run(conn, *tunnel, worker)).await;
        }
    }
}
