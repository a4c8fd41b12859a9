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

use tokio::task::spawn_local;

use crate::base::buffer::Buffer;
use crate::base::clock::Nanos;
use crate::base::coroutine::Coroutine;
use crate::base::stream::Stream;
use crate::http2::{Accepted, Code, Connection, End, Limits};
use crate::telemetry::abuse::Abuse;
use crate::telemetry::reason::Reason;

use super::announce::origin;
use super::h1::{Conn, Exchanger, Next, linger};
use super::http;
use super::upgrade;
use super::worker::{Phase, Worker};
use io::{Watch, WatchedIo};
use patience::{Patience, Verdict};

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
        // Its end was told; a request that was not read to its end is reset with NO_ERROR (RFC 9113
        // section 8.1).
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
    let limits = Limits {
        stream_window: limits.stream_window,
        connection_window: limits.connection_window,
        max_streams: limits.max_streams.get(),
        max_head: listener.spec.max_header_bytes,
    };
    drop(snapshot);
    let salt = worker.rng.borrow_mut().next_u64();
    let mut connection = Connection::server(io, limits, worker.landing.clone(), salt);

    let tell = |abuse: Abuse, now| {
        cells.worker(worker.index).abuses(abuse).inc();
        if worker.may_log(now) {
            let client = peer.map(tracing::field::display);
            let kind = abuse.as_str();
            tracing::info!(listener = %name, client, kind, "a connection of HTTP/2 was abused");
        }
    };
    let is_well = poll_fn(|cx| {
        loop {
            match connection.poll_accept(cx, is_encrypted) {
                Poll::Pending => break,
                Poll::Ready(Accepted::End(End::Well)) => {
                    return Poll::Ready(!patience.has_refused());
                }
                Poll::Ready(Accepted::End(End::Fault(code))) => {
                    tracing::debug!(%code, "a connection of HTTP/2 was ended");
                    let now = worker.clock.now();
                    if code == Code::ENHANCE_YOUR_CALM && patience.refuse(now) {
                        tell(watch.suspect(), now);
                    }
                    return Poll::Ready(false);
                }
                Poll::Ready(Accepted::Broke(error)) => {
                    tracing::debug!(%error, "a connection of HTTP/2 broke");
                    return Poll::Ready(false);
                }
                Poll::Ready(Accepted::Stream(channel)) => {
                    streams.open.set(streams.open.get() + 1);
                    let open = Open(streams.clone());
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
                connection.leave();
                cx.waker().wake_by_ref();
            }
            Verdict::End => return Poll::Ready(!patience.has_refused()),
            Verdict::Slow => {
                let reason = Reason::HeaderTimeout;
                cells.worker(worker.index).refusals.of(reason).inc();
                connection.fail(Code::ENHANCE_YOUR_CALM);
                cx.waker().wake_by_ref();
            }
        }
        if let Some(abuse) = watch.abuse()
            && patience.refuse(now)
        {
            tell(abuse, now);
            // RFC 9113 section 10.5. What is not taken within the farewell is not waited for.
            connection.fail(Code::ENHANCE_YOUR_CALM);
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
    let stream = connection.into_wire().into_stream();
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
    if is_well {
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
