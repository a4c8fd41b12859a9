//! An origin of HTTP/2 on the `h2` crate: each stream is answered by a script, what came is kept.
//!
//! A script is an async function of an [`Exchange`], run on the origin's own thread.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use h2::server::{Builder as Settings, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::h2::{self as client, Identity, fields};
use super::{deadline, remaining};

/// A running origin; dropping it closes all its connections, and fails the test when a script of
/// its own had failed.
pub struct H2Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

/// How an origin is made.
pub struct Builder {
    script: Script,
    settings: Settings,
    identity: Option<Arc<rustls::ServerConfig>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection, from 0 in order of acceptance.
    pub connection: usize,
    pub method: String,
    /// `:authority`
    pub authority: Option<String>,
    /// `:scheme`
    pub scheme: Option<String>,
    /// `:path`
    pub path: String,
    /// `:protocol`
    pub protocol: Option<String>,
    pub headers: HeaderMap,
    /// Filled by [`Exchange::read`].
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Filled by [`Exchange::await_reset`].
    pub reset: Option<Reason>,
    /// Its script has ended.
    pub is_done: bool,
}

/// One stream, in the hands of the script.
pub struct Exchange {
    /// What came with its head.
    pub seen: Seen,
    /// Its number, from 0 in order of arrival.
    pub id: usize,
    pub recv: RecvStream,
    pub answer: SendResponse<Bytes>,
    /// Once the head is sent.
    pub send: Option<SendStream<Bytes>>,
    shared: Arc<Shared>,
    kill: CancellationToken,
    leave: CancellationToken,
}

type Script = Arc<dyn Fn(Exchange) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    accepted: usize,
    open: usize,
    failures: Vec<String>,
}

// === impl Builder ===

impl Builder {
    /// Streams at once on a connection, as its SETTINGS say.
    pub fn max_streams(mut self, max: u32) -> Self {
        self.settings.max_concurrent_streams(max);
        self
    }

    /// Extended CONNECT is welcome (RFC 8441).
    pub fn extended_connect(mut self) -> Self {
        self.settings.enable_connect_protocol();
        self
    }

    /// Over TLS, by ALPN.
    pub fn tls(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.server(&[b"h2"]));
        self
    }

    pub fn start(self) -> H2Origin {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        runtime.spawn(accept(
            listener,
            Arc::new(self),
            shared.clone(),
            stop.clone(),
        ));
        H2Origin {
            addr,
            shared,
            stop,
            runtime: Some(runtime),
        }
    }
}

// === impl H2Origin ===

impl H2Origin {
    pub fn build<F>(script: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Builder
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut settings = Settings::new();
        settings.max_concurrent_streams(1000);
        // No stream that is not read stalls another.
        settings.initial_connection_window_size(64 << 20);
        Builder {
            script: Arc::new(move |exchange| Box::pin(script(exchange))),
            settings,
            identity: None,
        }
    }

    /// In clear text.
    pub fn start<F>(script: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::build(script).start()
    }

    /// Reads every request whole and answers 200 with this text.
    pub fn named(name: &'static str) -> Self {
        Self::start(move |exchange| exchange.reply(name))
    }

    /// Answers with the body and the trailers that came.
    pub fn echo() -> Self {
        Self::start(Exchange::echo)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request whose head has come, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.locked().seen.clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.locked().accepted
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.locked().open
    }

    /// Waits until `n` requests' heads have come.
    #[track_caller]
    pub fn await_requests(&self, n: usize) -> Vec<Seen> {
        self.await_state(&format!("{n} requests at the origin"), |s| {
            s.seen.len() >= n
        });
        self.requests()
    }

    /// Waits until the script of the n-th request (from 0) has ended.
    #[track_caller]
    pub fn await_done(&self, n: usize) -> Seen {
        self.await_state(&format!("request {n} at the origin to be over"), |s| {
            s.seen.get(n).is_some_and(|r| r.is_done)
        });
        self.requests().swap_remove(n)
    }

    /// Waits until exactly `n` connections are open.
    #[track_caller]
    pub fn await_open(&self, n: usize) {
        self.await_state(&format!("{n} open connections at the origin"), |s| {
            s.open == n
        });
    }

    #[track_caller]
    fn await_state(&self, what: &str, done: impl Fn(&State) -> bool) {
        let end = deadline();
        let mut state = self.shared.locked();
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

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let failures = std::mem::take(&mut self.shared.locked().failures);
        assert!(
            failures.is_empty() || std::thread::panicking(),
            "origin failed: {failures:?}"
        );
    }
}

async fn accept(
    listener: TcpListener,
    built: Arc<Builder>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let connection = {
            let mut state = shared.locked();
            state.accepted += 1;
            state.open += 1;
            state.accepted - 1
        };
        shared.changed.notify_all();
        stream.set_nodelay(true).unwrap();
        let (built, shared, kill) = (built.clone(), shared.clone(), stop.child_token());
        tokio::spawn(async move {
            match &built.identity {
                None => serve(stream, &built, &shared, connection, kill).await,
                Some(config) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &built, &shared, connection, kill).await;
                    }
                }
            }
            shared.locked().open -= 1;
            shared.changed.notify_all();
        });
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin,
    built: &Builder,
    shared: &Arc<Shared>,
    connection: usize,
    kill: CancellationToken,
) {
    let Ok(mut frames) = built.settings.handshake::<_, Bytes>(io).await else {
        return;
    };
    let leave = CancellationToken::new();
    let mut has_left = false;
    loop {
        let (request, answer) = tokio::select! {
            () = kill.cancelled() => return,
            () = leave.cancelled(), if !has_left => {
                has_left = true;
                frames.graceful_shutdown();
                continue;
            }
            accepted = frames.accept() => match accepted {
                Some(Ok(accepted)) => accepted,
                Some(Err(_)) | None => return,
            },
        };
        let (parts, recv) = request.into_parts();
        let seen = Seen {
            connection,
            method: parts.method.to_string(),
            authority: parts.uri.authority().map(ToString::to_string),
            scheme: parts.uri.scheme_str().map(ToOwned::to_owned),
            path: parts
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            protocol: parts
                .extensions
                .get::<h2::ext::Protocol>()
                .map(|p| p.as_str().to_owned()),
            headers: parts.headers,
            body: Vec::new(),
            trailers: None,
            reset: None,
            is_done: false,
        };
        let id = {
            let mut state = shared.locked();
            state.seen.push(seen.clone());
            state.seen.len() - 1
        };
        shared.changed.notify_all();
        let exchange = Exchange {
            seen,
            id,
            recv,
            answer,
            send: None,
            shared: shared.clone(),
            kill: kill.clone(),
            leave: leave.clone(),
        };
        let script = tokio::spawn((built.script)(exchange));
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = script.await
                && error.is_panic()
            {
                let text = error.into_panic().downcast_ref::<String>().cloned();
                let text = text.unwrap_or_else(|| "a script panicked".to_owned());
                shared.locked().failures.push(text);
            }
            shared.update(id, |seen| seen.is_done = true);
        });
    }
}

// === impl Exchange ===

impl Exchange {
    /// The request's body to its end; `false` if it broke.
    pub async fn read(&mut self) -> bool {
        match client::read_all(&mut self.recv).await {
            Ok((body, trailers)) => {
                self.seen.body.clone_from(&body);
                self.seen.trailers.clone_from(&trailers);
                self.shared.update(self.id, |seen| {
                    seen.body = body;
                    seen.trailers = trailers;
                });
                true
            }
            Err(_) => false,
        }
    }

    /// A 1xx.
    pub fn interim(&mut self, status: u16, list: &[(&str, &str)]) {
        self.answer
            .send_informational(response(status, list))
            .unwrap();
    }

    /// The head of a response that goes on.
    pub fn head(&mut self, status: u16, list: &[(&str, &str)]) {
        self.begin(status, list, false);
    }

    /// The head that is all of it.
    pub fn whole(&mut self, status: u16, list: &[(&str, &str)]) {
        self.begin(status, list, true);
    }

    fn begin(&mut self, status: u16, list: &[(&str, &str)], is_whole: bool) {
        // A stream that was given up takes no head; the test sees to what that means.
        self.send = self
            .answer
            .send_response(response(status, list), is_whole)
            .ok();
    }

    /// A piece of the body; `false` if the stream is over.
    pub async fn data(&mut self, bytes: &[u8]) -> bool {
        match &mut self.send {
            Some(send) => client::send_all(send, bytes, false).await.is_ok(),
            None => false,
        }
    }

    /// The end of the body.
    pub fn end(&mut self) {
        if let Some(send) = &mut self.send {
            let _ = send.send_data(Bytes::new(), true);
        }
    }

    /// The end of the body, with trailers.
    pub fn trailers(&mut self, list: &[(&str, &str)]) {
        if let Some(send) = &mut self.send {
            let _ = send.send_trailers(fields(list));
        }
    }

    pub fn reset(&mut self, reason: Reason) {
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.answer.send_reset(reason),
        }
    }

    /// Waits until the other side resets the stream.
    pub async fn await_reset(&mut self) {
        let reset = match &mut self.send {
            Some(send) => std::future::poll_fn(|cx| send.poll_reset(cx)).await,
            None => std::future::poll_fn(|cx| self.answer.poll_reset(cx)).await,
        };
        self.shared.update(self.id, |seen| seen.reset = reset.ok());
    }

    /// Waits at a gate of the test.
    pub async fn pass(&self, gate: &Gate) {
        let gate = gate.clone();
        let _ = tokio::task::spawn_blocking(move || gate.pass()).await;
    }

    /// Closes its connection, without a word.
    pub fn kill_connection(&self) {
        self.kill.cancel();
    }

    /// Says GOAWAY on its connection: it takes no more streams.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Reads the request and answers 200 with this text.
    pub async fn reply(mut self, text: &str) {
        self.read().await;
        let length = text.len().to_string();
        self.head(200, &[("content-length", &length)]);
        self.data(text.as_bytes()).await;
        self.end();
    }

    /// Answers 200 with what comes as it comes, and the trailers.
    pub async fn echo(mut self) {
        self.head(200, &[]);
        while let Some(Ok(chunk)) = client::next(&mut self.recv).await {
            self.shared
                .update(self.id, |seen| seen.body.extend_from_slice(&chunk));
            if !self.data(&chunk).await {
                return;
            }
        }
        match self.recv.trailers().await {
            Ok(Some(trailers)) => {
                if let Some(send) = &mut self.send {
                    let _ = send.send_trailers(trailers);
                }
            }
            Ok(None) => self.end(),
            Err(_) => {}
        }
    }
}

fn response(status: u16, list: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status).body(()).unwrap();
    *response.headers_mut() = fields(list);
    response
}

// === impl Shared ===

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, id: usize, change: impl FnOnce(&mut Seen)) {
        change(&mut self.locked().seen[id]);
        self.changed.notify_all();
    }
}
