//! A scripted HTTP/1.1 origin on port 0: says what a test wrote, keeps what it was sent.
//!
//! A script is a function from a request's head to the [`Step`]s that answer it, so it may depend
//! on the connection, on the request's number or on its method. The connection is kept for the
//! next request unless a step ended it.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, Socket, Type};

use super::gate::Gate;
use super::wire::{Body, Broken, Head, Wire};
use super::{deadline, remaining};

/// What the origin does next for a request whose head it has read.
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads the request's body by its framing and keeps it. Without this step the body is taken
    /// for the next request's head: an answer before the upload ends by closing, as in life.
    ReadBody,
    /// Reads this many bytes of the body and leaves the rest in the socket.
    ReadSome(usize),
    /// These bytes as they are: heads, halves of heads, garbage.
    Send(Vec<u8>),
    /// This many bytes of [`pattern`], written in pieces.
    Fill(usize),
    /// A 200 whose body is the head and the raw body as received.
    Mirror,
    /// New keys (TLS 1.3), of the peer as well.
    NewKeys,
    /// Waits until the test opens the gate.
    Pass(Gate),
    /// Says nothing more; waits until the peer closes. What it still sends is kept as `rest`.
    AwaitClose,
    /// Sends back whatever comes until FIN, then FIN: after a 101.
    Echo,
    /// FIN, and keeps reading.
    Finish,
    /// Closes.
    Close,
    /// RST.
    Reset,
}

/// What the origin does with a connection it has just accepted.
#[derive(Clone, Debug)]
pub enum Greeting {
    /// Serves requests by the script.
    Serve,
    /// Closes before any request.
    Close,
    /// RST before any request.
    Reset,
    /// Says this unasked, then serves.
    Send(Vec<u8>),
}

/// A request as it came, to the byte.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which connection, from 0 in order of acceptance.
    pub connection: usize,
    /// Which request of its connection, from 0.
    pub nth: usize,
    pub head: Head,
    /// Filled by [`Step::ReadBody`] and [`Step::ReadSome`].
    pub body: Body,
    /// What came during [`Step::AwaitClose`] or [`Step::Echo`].
    pub rest: Vec<u8>,
    /// How many bytes of [`Step::Fill`] the kernel has taken.
    pub filled: usize,
    /// How the connection broke in the middle of this request, if it did.
    pub broken: Option<Broken>,
    /// All steps are done.
    pub is_done: bool,
}

/// How an origin is made: what to do is fixed before the port is known.
pub struct Builder {
    script: Script,
    greeting: Box<dyn Fn(usize) -> Greeting + Send + Sync>,
    idle_close: Box<dyn Fn(usize) -> Option<Duration> + Send + Sync>,
    is_narrow: bool,
    held: Option<SocketAddr>,
    tls: Option<Arc<ServerConfig>>,
}

/// A running origin; dropping it closes all its connections, and fails the test when a thread of
/// its own had failed.
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

type Script = Box<dyn Fn(&Request) -> Vec<Step> + Send + Sync>;

struct Shared {
    build: Builder,
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    accepted: usize,
    open: Vec<(usize, TcpStream)>,
    failures: Vec<String>,
}

// === answers ===

/// A response with a Content-Length.
pub fn response(status: u16, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut out = format!(
        "HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

/// Reads the request whole, then answers.
pub fn reply(status: u16, body: impl AsRef<[u8]>) -> Vec<Step> {
    vec![Step::ReadBody, Step::Send(response(status, body))]
}

/// Reads the request whole, then answers with these bytes.
pub fn raw(bytes: impl AsRef<[u8]>) -> Vec<Step> {
    vec![Step::ReadBody, Step::Send(bytes.as_ref().to_vec())]
}

/// A chunked 200 with the given chunks and trailer fields.
pub fn chunked(chunks: &[&str], trailers: &[(&str, &str)]) -> Vec<Step> {
    let mut out = String::from("HTTP/1.1 200 Test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in chunks {
        out.extend([&format!("{:x}\r\n", chunk.len()), *chunk, "\r\n"]);
    }
    out += "0\r\n";
    for (name, value) in trailers {
        out.extend([*name, ": ", *value, "\r\n"]);
    }
    out += "\r\n";
    raw(out)
}

/// A 200 whose body ends with the connection.
pub fn until_close(body: &str) -> Vec<Step> {
    vec![
        Step::ReadBody,
        Step::Send(format!("HTTP/1.1 200 Test\r\n\r\n{body}").into_bytes()),
        Step::Close,
    ]
}

/// A 200 with `n` bytes of [`pattern`].
pub fn filled(n: usize) -> Vec<Step> {
    let head = format!("HTTP/1.1 200 Test\r\nContent-Length: {n}\r\n\r\n");
    vec![Step::ReadBody, Step::Send(head.into_bytes()), Step::Fill(n)]
}

/// A 200 that shows the request as it came: head, then raw body.
pub fn mirror() -> Vec<Step> {
    vec![Step::ReadBody, Step::Mirror]
}

/// 101, then echo.
pub fn tunnel() -> Vec<Step> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    vec![Step::Send(head.as_bytes().to_vec()), Step::Echo]
}

/// Bytes `from..from + n` of an endless body in which no two neighbouring blocks are equal, so that
/// a lost or doubled buffer shows. 251 is the largest prime below 256.
pub fn pattern(from: usize, n: usize) -> Vec<u8> {
    (from..from + n).map(|i| (i % 251) as u8).collect()
}

// === impl Builder ===

impl Builder {
    /// What to do with the n-th connection, before its first request.
    pub fn greeting(mut self, f: impl Fn(usize) -> Greeting + Send + Sync + 'static) -> Self {
        self.greeting = Box::new(f);
        self
    }

    /// The n-th connection closes after so long without a next request; `None` = never.
    pub fn idle_close(
        mut self,
        f: impl Fn(usize) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.idle_close = Box::new(f);
        self
    }

    /// Its kernel takes little unread: a slow endpoint.
    pub fn narrow(mut self) -> Self {
        self.is_narrow = true;
        self
    }

    /// At an address that another socket holds with `SO_REUSEPORT`, without listening.
    pub fn at(mut self, addr: SocketAddr) -> Self {
        self.held = Some(addr);
        self
    }

    /// Over TLS. Connections whose handshake fails are accepted, and never ask.
    pub fn tls(mut self, config: ServerConfig) -> Self {
        self.tls = Some(Arc::new(config));
        self
    }

    pub fn start(self) -> Origin {
        let listener = match self.held {
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            Some(addr) => {
                let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
                // What its predecessor left behind in TIME_WAIT does not keep it away.
                socket.set_reuse_address(true).unwrap();
                socket.set_reuse_port(true).unwrap();
                socket.bind(&addr.into()).unwrap();
                socket.into()
            }
        };
        // The standard library asks for a queue of 128. A burst above that has its SYNs dropped, and
        // they are repeated a second later: as long as `connect_timeout`, so a test of 500 clients
        // would see a 504 now and then. To listen again only makes the queue longer.
        rustix::net::listen(&listener, 4096).unwrap();
        if self.is_narrow {
            // What it accepts inherits this.
            socket2::SockRef::from(&listener)
                .set_recv_buffer_size(16 * 1024)
                .unwrap();
        }
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            build: self,
            stop: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Origin { addr, shared }
    }
}

// === impl Origin ===

impl Origin {
    /// Answers every request by `script`.
    pub fn start(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::build(script).start()
    }

    /// Answers every request with the same steps.
    pub fn always(steps: Vec<Step>) -> Self {
        Self::start(move |_| steps.clone())
    }

    /// Answers 200 with this text: to tell endpoints apart.
    pub fn named(name: &str) -> Self {
        Self::always(reply(200, name))
    }

    pub fn build(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Builder {
        Builder {
            script: Box::new(script),
            greeting: Box::new(|_| Greeting::Serve),
            idle_close: Box::new(|_| None),
            is_narrow: false,
            held: None,
            tls: None,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request whose head has come, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// How many requests with that method have come.
    pub fn count(&self, method: &str) -> usize {
        self.requests()
            .iter()
            .filter(|r| r.head.method() == method)
            .count()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.state.lock().unwrap().accepted
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.state.lock().unwrap().open.len()
    }

    /// Waits until `n` requests' heads have come.
    #[track_caller]
    pub fn await_requests(&self, n: usize) -> Vec<Request> {
        self.await_state(&format!("{n} requests at the origin"), |s| {
            s.requests.len() >= n
        });
        self.requests()
    }

    /// Waits until the n-th request (from 0) is over: all steps done, or broken.
    #[track_caller]
    pub fn await_done(&self, n: usize) -> Request {
        self.await_state(&format!("request {n} at the origin to be over"), |s| {
            s.requests
                .get(n)
                .is_some_and(|r| r.is_done || r.broken.is_some())
        });
        self.requests().swap_remove(n)
    }

    /// Waits until exactly `n` connections are open.
    #[track_caller]
    pub fn await_open(&self, n: usize) {
        self.await_state(&format!("{n} open connections at the origin"), |s| {
            s.open.len() == n
        });
    }

    /// FIN on every open connection now: what an endpoint does that restarts.
    pub fn close_all(&self) {
        for (_, stream) in &self.shared.locked().open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    #[track_caller]
    fn await_state(&self, what: &str, done: impl Fn(&State) -> bool) {
        let end = deadline();
        let mut state = self.shared.state.lock().unwrap();
        while !done(&state) {
            assert!(
                state.failures.is_empty(),
                "origin failed: {:?}",
                state.failures
            );
            let left = remaining(end, what);
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // SeqCst: once per origin, nothing to save.
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees `stop`.
        let _ = TcpStream::connect(self.addr);
        self.close_all();
        let failures = std::mem::take(&mut self.shared.locked().failures);
        assert!(
            failures.is_empty() || std::thread::panicking(),
            "origin failed: {failures:?}"
        );
    }
}

// === the threads ===

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let connection = {
            let mut state = shared.state.lock().unwrap();
            let n = state.accepted;
            state.accepted += 1;
            state.open.push((n, stream.try_clone().unwrap()));
            n
        };
        shared.changed.notify_all();
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let run = std::panic::AssertUnwindSafe(|| serve(connection, stream, &shared));
            let outcome = std::panic::catch_unwind(run);
            let mut state = shared.state.lock().unwrap();
            // A reset has closed its own handle; this second one must not outlive it.
            state.open.retain(|(n, _)| *n != connection);
            if let Err(panic) = outcome {
                let text = panic.downcast_ref::<String>().cloned();
                state
                    .failures
                    .push(text.unwrap_or_else(|| "origin thread panicked".to_owned()));
            }
            drop(state);
            shared.changed.notify_all();
        });
    }
}

fn serve(connection: usize, stream: TcpStream, shared: &Shared) {
    let mut wire = match &shared.build.tls {
        None => Wire::new(stream),
        Some(config) => {
            let tls = ServerConnection::new(Arc::clone(config)).unwrap();
            Wire::secured(stream, tls)
        }
    };
    match (shared.build.greeting)(connection) {
        Greeting::Serve => {}
        Greeting::Close => return,
        Greeting::Reset => return wire.reset(),
        Greeting::Send(bytes) => drop(wire.send(&bytes)),
    }
    if wire
        .shake(super::now() + Duration::from_secs(3600))
        .is_err()
    {
        return;
    }
    let idle_close = (shared.build.idle_close)(connection);
    for nth in 0.. {
        // Without a limit of its own a connection may idle for as long as its test runs: the far
        // end, not the deadline, ends it.
        let idle = if nth == 0 { None } else { idle_close };
        let end = super::now() + idle.unwrap_or(Duration::from_secs(3600));
        let Ok(head) = wire.head(end) else { return };
        let request = Request {
            connection,
            nth,
            head,
            ..Request::default()
        };
        let steps = (shared.build.script)(&request);
        let id = {
            let mut state = shared.state.lock().unwrap();
            state.requests.push(request);
            state.requests.len() - 1
        };
        shared.changed.notify_all();
        for step in steps {
            match act(step, id, &mut wire, shared) {
                Ok(Next::Step) => {}
                Ok(Next::End) => return shared.update(id, |r| r.is_done = true),
                Ok(Next::Reset) => {
                    // Marked first: the peer that sees the RST may ask at once.
                    shared.update(id, |r| r.is_done = true);
                    // The registered handle shares the socket: only the last close sends the RST.
                    shared
                        .state
                        .lock()
                        .unwrap()
                        .open
                        .retain(|(n, _)| *n != connection);
                    return wire.reset();
                }
                Err(broken) => return shared.update(id, |r| r.broken = Some(broken)),
            }
        }
        shared.update(id, |r| r.is_done = true);
    }
}

enum Next {
    Step,
    End,
    Reset,
}

fn act(step: Step, id: usize, wire: &mut Wire, shared: &Shared) -> Result<Next, Broken> {
    match step {
        Step::ReadBody => {
            let framing = shared.request(id).head.request_framing();
            let body = wire
                .body(framing, deadline())
                .inspect_err(|b| shared.fail_if_late(b))?;
            shared.update(id, |r| r.body = body);
        }
        Step::ReadSome(n) => {
            let data = wire
                .exactly(n, deadline())
                .inspect_err(|b| shared.fail_if_late(b))?;
            shared.update(id, |r| r.body.raw = data);
        }
        Step::Send(bytes) => send(wire, &bytes)?,
        Step::Fill(n) => {
            // 64 KiB: a socket's buffer at a time.
            for from in (0..n).step_by(64 * 1024) {
                let piece = (n - from).min(64 * 1024);
                send(wire, &pattern(from, piece))?;
                shared.update(id, |r| r.filled += piece);
            }
        }
        Step::Mirror => {
            let request = shared.request(id);
            send(
                wire,
                &response(200, [request.head.raw, request.body.raw].concat()),
            )?;
        }
        Step::NewKeys => {
            let tls = wire.tls().expect("an origin over TLS");
            tls.refresh_traffic_keys().unwrap();
            wire.flush().map_err(|_| Broken::Reset)?;
        }
        Step::Pass(gate) => gate.pass(),
        Step::AwaitClose => {
            let rest = wire
                .read_to_end(deadline())
                .inspect_err(|b| shared.fail_if_late(b))?;
            shared.update(id, |r| r.rest = rest);
            return Ok(Next::End);
        }
        Step::Echo => loop {
            match wire.some(deadline()) {
                Ok(bytes) => {
                    send(wire, &bytes)?;
                    shared.update(id, |r| r.rest.extend_from_slice(&bytes));
                }
                Err(Broken::Closed(_)) => {
                    wire.finish();
                    return Ok(Next::End);
                }
                Err(other) => return Err(other),
            }
        },
        Step::Finish => wire.finish(),
        Step::Close => return Ok(Next::End),
        Step::Reset => return Ok(Next::Reset),
    }
    Ok(Next::Step)
}

fn send(wire: &mut Wire, bytes: &[u8]) -> Result<(), Broken> {
    wire.send(bytes).map_err(|_| Broken::Reset)
}

// === impl Shared ===

impl Shared {
    /// For a drop too: a wait that failed has panicked with the lock held.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, id: usize) -> Request {
        self.state.lock().unwrap().requests[id].clone()
    }

    fn update(&self, id: usize, change: impl FnOnce(&mut Request)) {
        change(&mut self.state.lock().unwrap().requests[id]);
        self.changed.notify_all();
    }

    /// A peer that sends nothing and does not close is a fault that the test must hear of.
    fn fail_if_late(&self, broken: &Broken) {
        if *broken == Broken::TimedOut {
            let text = "the origin waited in vain for the rest of a request or for its close";
            self.state.lock().unwrap().failures.push(text.to_owned());
        }
    }
}
