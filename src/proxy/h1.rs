//! One HTTP/1 client connection: wait without a buffer, serve what comes, wait again.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::base::buffer::Buffer;
use crate::base::clock::{Nanos, nanos};
use crate::base::coroutine::Coroutine;
use crate::base::proxy_protocol::Header;
use crate::base::stream::Stream;
use crate::base::timer::Timer;
use crate::base::tls::ClientIdentity;

use super::greet;
use super::h2;
use super::http;
use super::snapshot::ListenerPlan;
use super::tcp::{self, Joined, Passage};
use super::upgrade::{self, Tunnel};
use super::worker::{Life, Phase, Worker};

/// The reusable future that serves requests.
pub(super) type Exchanger = Coroutine<Conn, (Conn, Next)>;

/// One client connection. It is all that an idle connection costs beside its task and socket, so
/// it holds no buffer.
#[derive(Debug)]
pub struct Conn {
    /// The bytes.
    pub stream: Stream,
    /// Its deadline.
    pub timer: Timer,
    /// The other end, under its canonical address: as it is, or as the PROXY protocol said; `None` on Unix
    /// sockets.
    pub peer: Option<SocketAddr>,
    /// Its listener, and whether that serves, drains or is cut on this worker.
    pub life: Rc<Life>,
    /// The client has ended its direction: no request will follow.
    pub ended: bool,
    /// Who its client is by the certificate that it showed, if endpoints are told.
    pub identity: Option<Rc<ClientIdentity>>,
    /// When it has been open for as long as it may: the answer after that is its last.
    pub expires: Nanos,
    /// What the PROXY protocol said of it, if it did.
    pub proxied: Option<Rc<Header>>,
}

/// What becomes of a connection after its requests were served.
#[derive(Debug)]
pub(super) enum Next {
    /// It is closed at once.
    Close,
    /// It waits for the next request.
    Idle,
    /// It is closed once the client has seen our last bytes: what it still sends is read and
    /// dropped for a while, because closing a socket with unread bytes resets it and the client
    /// would lose the answer (RFC 9112 section 9.6).
    Linger,
    /// It is reset: the response was cut and the client must not take it for complete.
    Reset,
    /// It becomes a tunnel.
    Tunnel(Box<Tunnel>),
    /// It speaks HTTP/2; what was read of it.
    Http2(Box<Buffer>),
    /// It is passed on as it is.
    Passage(Box<Passage>),
}

/// How long a client that has been answered may send nothing before it is closed: nginx's 5 s are
/// for slow links; 2 s cover a round trip of 300 ms with every segment lost twice.
const LINGER_IDLE: Duration = Duration::from_secs(2);

/// How long it may go on sending, which many do until their body is out before they read. Bytes
/// are not counted: reading them costs no more than a body that is allowed. 10 s are half a
/// gigabyte at 400 Mbit/s.
const LINGER_TIME: Duration = Duration::from_secs(10);

// === impl Conn ===

impl Conn {
    /// Whether the answer that begins now is its last: it drains, or has grown old.
    #[inline]
    pub fn is_last_answer(&self, now: Nanos) -> bool {
        self.life.phase() != Phase::Running || now >= self.expires
    }

    /// Whether HTTP/2 may begin on it by prior knowledge (RFC 9113 section 3.3): under TLS it is agreed on.
    pub(super) fn may_speak_h2(&self) -> bool {
        matches!(self.stream, Stream::Tcp(_) | Stream::Unix(_))
    }

    /// Whether what is left of its listener must end now.
    #[inline]
    pub fn is_cutting(&self) -> bool {
        self.life.phase() == Phase::Cutting
    }
}

/// The task of a connection.
///
/// Written by hand: the compiler's state machine keeps an argument beside the variable that it is
/// moved into, at each level of calls, and an idle connection would be three times its size.
struct Serving<G> {
    state: State,
    worker: Rc<Worker>,
    _guard: G,
}

/// What a handshake came to: `None` = there is nobody left.
pub(super) type Greeted = Option<(Conn, Next)>;

enum State {
    /// Waiting without a buffer for the first bytes of a request.
    Waiting(Conn),
    /// Finding out who it is and what it speaks.
    Greeting(Pin<Box<dyn Future<Output = Greeted>>>),
    /// Requests are at hand; the exchanger has the connection.
    Exchanging(Exchanger),
    /// Looking for an endpoint to pass it on to.
    Connecting(Pin<Box<dyn Future<Output = Option<Box<Joined>>>>>),
    /// Passed on.
    Joined(Box<Joined>),
    /// Lingering, or a tunnel.
    Ending(Pin<Box<dyn Future<Output = ()>>>),
    Ended,
}

/// Serves one connection of `listener` to its end; `guard` is dropped with it.
pub fn serve<G: Unpin>(
    conn: Conn,
    listener: Arc<ListenerPlan>,
    worker: Rc<Worker>,
    guard: G,
) -> impl Future<Output = ()> {
    let state = if greet::is_needed(&listener) {
        State::Greeting(Box::pin(greet::greet(conn, worker.clone(), listener)))
    } else if let Some(upstream) = &listener.layer4.upstream {
        let passage = Passage::new(upstream);
        let connected = tcp::connect(conn, worker.clone(), listener, passage);
        State::Connecting(Box::pin(connected))
    } else {
        State::Waiting(conn)
    };
    Serving {
        state,
        worker,
        _guard: guard,
    }
}

// === impl Serving ===

impl<G: Unpin> Future for Serving<G> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Waiting(conn) => {
                    let is_readable = ready!(poll_wait(cx, conn));
                    match std::mem::replace(&mut this.state, State::Ended) {
                        State::Waiting(conn) if is_readable => this.begin(conn),
                        State::Waiting(mut conn) => conn.stream.say_goodbye(),
                        _ => {}
                    }
                }
                State::Greeting(greeting) => {
                    let greeted = ready!(greeting.as_mut().poll(cx));
                    this.state = State::Ended;
                    if let Some((conn, next)) = greeted {
                        this.follow(conn, next);
                    }
                }
                State::Exchanging(exchanger) => {
                    let (conn, next) = ready!(exchanger.poll_result(cx));
                    this.follow(conn, next);
                }
                State::Connecting(connecting) => {
                    let joined = ready!(connecting.as_mut().poll(cx));
                    this.state = joined.map_or(State::Ended, State::Joined);
                }
                State::Joined(joined) => {
                    let reason = ready!(joined.poll(cx, &this.worker));
                    let state = std::mem::replace(&mut this.state, State::Ended);
                    if let State::Joined(joined) = state
                        && let Some(conn) = joined.end(reason, &this.worker)
                    {
                        let lingering = linger(conn, this.worker.clone());
                        this.state = State::Ending(Box::pin(lingering));
                    }
                }
                State::Ending(ending) => {
                    ready!(ending.as_mut().poll(cx));
                    this.state = State::Ended;
                }
                State::Ended => return Poll::Ready(()),
            }
        }
    }
}

impl<G> Serving<G> {
    /// Lends the connection to an exchanger.
    fn begin(&mut self, conn: Conn) {
        let mut exchanger = self.worker.take_exchanger(|| {
            let worker = self.worker.clone();
            Coroutine::new(|jobs| http::exchanger(jobs, worker))
        });
        exchanger.begin(conn);
        self.state = State::Exchanging(exchanger);
    }

    /// Goes on with a connection whose requests were served.
    fn follow(&mut self, mut conn: Conn, next: Next) {
        let worker = self.worker.clone();
        let state = match next {
            Next::Idle => State::Waiting(conn),
            Next::Close => {
                conn.stream.say_goodbye();
                State::Ended
            }
            Next::Http2(prefix) => State::Ending(Box::pin(h2::serve(conn, *prefix, worker))),
            Next::Passage(passage) => match worker.listener_for(conn.life.slot) {
                Some(listener) => {
                    let connected = tcp::connect(conn, worker, listener, *passage);
                    State::Connecting(Box::pin(connected))
                }
                None => State::Ended,
            },
            Next::Linger => State::Ending(Box::pin(linger(conn, worker))),
            Next::Reset => {
                conn.stream.reset_on_close();
                State::Ended
            }
            Next::Tunnel(tunnel) => State::Ending(Box::pin(async move {
                if let Some(conn) = upgrade::run(conn, *tunnel, worker.clone()).await {
                    linger(conn, worker).await;
                }
            })),
        };
        if let State::Exchanging(exchanger) = std::mem::replace(&mut self.state, state) {
            self.worker.put_exchanger(exchanger);
        }
    }
}

/// Waits for bytes; false = close. Holds nothing while it waits.
fn poll_wait(cx: &mut Context<'_>, conn: &mut Conn) -> Poll<bool> {
    if let Poll::Ready(ready) = conn.stream.poll_readable(cx) {
        return Poll::Ready(ready.is_ok());
    }
    if conn.timer.has_expired(cx) || conn.is_cutting() {
        return Poll::Ready(false);
    }
    // A request that is already here is still answered while draining; silence is not. The
    // kernel itself is asked: closing with bytes unread resets the connection, and the reactor
    // may not have told us of them yet (if there are any, it is about to).
    if conn.life.phase() == Phase::Draining && !conn.stream.is_stale_now() {
        return Poll::Ready(false);
    }
    Poll::Pending
}

/// Ends our direction and reads what the client still sends, for a while.
pub(super) async fn linger(mut conn: Conn, worker: Rc<Worker>) {
    conn.stream.shutdown_write();
    let end = worker.clock.now() + nanos(LINGER_TIME);
    conn.timer.arm(worker.clock.now() + nanos(LINGER_IDLE));
    poll_fn(|cx| {
        loop {
            if conn.timer.has_expired(cx) || conn.is_cutting() {
                return Poll::Ready(());
            }
            // Most wait for the end alone: no buffer is held meanwhile.
            if conn.stream.poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            let mut buffer = worker.buffers.take();
            let polled = conn.stream.poll_read(cx, &mut buffer);
            worker.buffers.put(buffer);
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => {
                    let idle = worker.clock.now() + nanos(LINGER_IDLE);
                    conn.timer.arm(idle.min(end));
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
}
