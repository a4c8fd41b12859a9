//! One HTTP/2 client connection: its streams are exchanges, each served by the request story.
//!
//! The connection's task reads and writes frames; every stream is a task of the same worker that lends
//! itself an exchanger as a connection of HTTP/1 does. A connection without streams keeps none.

mod io;
mod meter;
mod patience;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use ::h2::Reason as Code;
use ::h2::server::Builder;
use bytes::Bytes;
use tokio::task::spawn_local;

use crate::base::buffer::Buffer;
use crate::base::clock::Nanos;
use crate::base::coroutine::Coroutine;
use crate::base::stream::Stream;
use crate::config::Http2;
use crate::http2::ServerStream;
use crate::telemetry::abuse::Abuse;
use crate::telemetry::reason::Reason;

use super::announce::origin;
use super::h1::{Conn, Exchanger, Next, linger};
use super::http;
use super::snapshot::ListenerPlan;
use super::upgrade;
use super::worker::{Phase, Worker};
use io::{Watch, WatchedIo};
use patience::{Patience, Verdict};

/// Streams reset by us or before we had looked at them, that `h2` remembers for late frames.
const RESETS_REMEMBERED: usize = 64;

/// Bytes that `h2` holds of a stream's response before they are frames: two of them.
const SEND_BUFFER: usize = 64 * 1024;

/// The `h2` crate charges 256 bytes for a frame that nobody has read, and ends the connection above its
/// budget, half of the window. At least this, four thousand frames: a burst of small messages is no
/// abuse where windows are small.
const SMALL_FRAMES: usize = 1024 * 1024;

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

/// The task of a stream. Written by hand, as that of a connection of HTTP/1 is: the compiler's would keep
/// and move the connection more than once.
struct Exchanging {
    state: State,
    worker: Rc<Worker>,
    _open: Open,
}

enum State {
    /// The exchanger has the stream.
    Exchanging(Exchanger),
    /// It has become a tunnel.
    Tunnel(Pin<Box<dyn Future<Output = ()>>>),
    Ended,
}

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

// === impl Exchanging ===

impl Exchanging {
    /// Lends the stream to an exchanger.
    fn begin(conn: Conn, worker: &Rc<Worker>, open: Open) -> Self {
        let mut exchanger = worker.take_exchanger(|| {
            let worker = worker.clone();
            Coroutine::new(|jobs| http::exchanger(jobs, worker))
        });
        exchanger.begin(conn);
        Self {
            state: State::Exchanging(exchanger),
            worker: worker.clone(),
            _open: open,
        }
    }
}

impl Future for Exchanging {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Exchanging(exchanger) => {
                    let (conn, next) = ready!(exchanger.poll_result(cx));
                    let state = follow(conn, next, &this.worker);
                    if let State::Exchanging(exchanger) = std::mem::replace(&mut this.state, state)
                    {
                        this.worker.put_exchanger(exchanger);
                    }
                }
                State::Tunnel(tunnel) => {
                    ready!(tunnel.as_mut().poll(cx));
                    this.state = State::Ended;
                }
                State::Ended => return Poll::Ready(()),
            }
        }
    }
}

/// What becomes of a stream whose request was served.
fn follow(mut conn: Conn, next: Next, worker: &Rc<Worker>) -> State {
    match next {
        // Its end was told; a request that was not read to its end is reset with NO_ERROR by `h2`
        // (RFC 9113 section 8.1).
        Next::Close | Next::Idle | Next::Linger | Next::Http2(_) | Next::Passage(_) => State::Ended,
        Next::Reset => {
            conn.stream.reset_on_close();
            State::Ended
        }
        Next::Tunnel(tunnel) => {
            let worker = worker.clone();
            State::Tunnel(Box::pin(async move {
                upgrade::run(conn, *tunnel, worker).await;
            }))
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
        proxied,
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
    // Its streams do not know it any more.
    let proxied = Some(Rc::new(origin(&stream, peer, proxied.as_deref())));
    let watch = Rc::new(Watch::new(&limits, worker.clock));
    let io = WatchedIo::new(stream, prefix, watch.clone());
    let cells = listener.cells.clone();
    let name = listener.spec.name.clone();
    let streams = Rc::new(Streams::default());
    let mut patience = Patience::new(
        listener.header_timeout,
        listener.keepalive_timeout,
        expires,
        worker.clock.now(),
    );
    timer.arm(patience.until(None));
    let handshake = builder(limits, listener).handshake::<_, Bytes>(io);
    drop(snapshot);
    let mut handshake = std::pin::pin!(handshake);
    let shaken = poll_fn(|cx| {
        watch.begin_turn();
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

    let tell = |abuse: Abuse, now| {
        cells.worker(worker.index).abuses(abuse).inc();
        if worker.may_log(now) {
            let client = peer.map(tracing::field::display);
            let kind = abuse.as_str();
            tracing::info!(listener = %name, client, kind, "a connection of HTTP/2 was abused");
        }
    };
    let is_well = poll_fn(|cx| {
        watch.begin_turn();
        loop {
            match connection.poll_accept(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(!patience.has_refused()),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "a connection of HTTP/2 broke");
                    let is_calmed = error.reason() == Some(Code::ENHANCE_YOUR_CALM);
                    let now = worker.clock.now();
                    if error.is_library() && is_calmed && patience.refuse(now) {
                        tell(watch.suspect(), now);
                    }
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
                        proxied: proxied.clone(),
                    };
                    spawn_local(Exchanging::begin(conn, &worker, open));
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
            Verdict::End => return Poll::Ready(!patience.has_refused()),
            Verdict::Slow => {
                let reason = Reason::HeaderTimeout;
                cells.worker(worker.index).refusals.of(reason).inc();
                connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
                cx.waker().wake_by_ref();
            }
        }
        if let Some(abuse) = watch.abuse()
            && patience.refuse(now)
        {
            tell(abuse, now);
            // RFC 9113 section 10.5. What is not taken within the farewell is not waited for.
            connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
            cx.waker().wake_by_ref();
        }
        timer.arm(patience.until(block_since));
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
            proxied,
        };
        linger(conn, worker).await;
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
        .data_frame_budget((limits.connection_window as usize / 2).max(SMALL_FRAMES))
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        // Those that were reset before anybody looked at them: all that may be open, and as many again.
        .max_pending_accept_reset_streams(2 * limits.max_streams.get() as usize)
        // The watch counts them, by time and not for ever.
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    builder
}
