//! THE REQUEST STORY: what happens to one HTTP/1 request, top to bottom.
//!
//! ```text
//! 1 read the head (408 414 431 400)      5 limits known from the head (413)
//! 2 begin the exchange, take a snapshot  6 forward: attempts { pick 503, connect, send, await } -> attempt.rs
//! 3 who is the client; what is the path  7 relay the response                                   -> relay.rs
//! 4 route (404, 421), answer if it says  8 record, exactly once                                 -> exchange.rs
//! ```

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use http::Method;

use crate::base::buffer::Buffer;
use crate::base::clock::Nanos;
use crate::base::coroutine::Jobs;
use crate::config::HeaderEdits;
use crate::http1::{
    FieldId, Form, Progress, Refusal, RequestBody, RequestHead, ResponseHead, Version,
};
use crate::route::{self, HeaderLookup, Miss};
use crate::telemetry::access_log::Phase;
use crate::telemetry::reason::Reason;
use crate::upstream::Connection;

use super::exchange::Exchange;
use super::forwarded;
use super::h1::{Conn, Next};
use super::pipeline::{Depth, Pipeline};
use super::respond::{self, Answer};
use super::snapshot::{ListenerPlan, Plan};
use super::target;
use super::upgrade::Tunnel;
use super::worker::{self, Worker};

/// What serving a request needs; lives as long as its exchanger and is used again.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Bytes from the client: the head stays at the front for the whole exchange.
    pub(super) inbound: Buffer,
    /// The request's head, as spans of `inbound`.
    pub(super) head: RequestHead,
    /// The response's head, as spans of `response`.
    pub(super) reply: ResponseHead,
    /// The head (and chunk framing) on its way to the endpoint.
    pub(super) to_endpoint: Vec<u8>,
    /// The head (and chunk framing) on its way to the client.
    pub(super) to_client: Vec<u8>,
    /// Bytes from the endpoint; lent by the worker while there are any.
    pub(super) response: Buffer,
    /// The path with its dots resolved, where it had any.
    pub(super) path: String,
    /// Text of answers of ours.
    pub(super) text: String,
    /// The hash key, where it is no part of the head.
    pub(super) key: Vec<u8>,
    /// The `Set-Cookie` value that goes with the response; empty = none.
    pub(super) cookie: Vec<u8>,
}

/// How a request ended, for its connection.
#[derive(Debug)]
pub(super) enum After {
    /// The next request may follow.
    KeepAlive {
        /// Bytes at the front of `inbound` that were this request; they stay until it is recorded.
        used: usize,
    },
    /// Something else.
    Then(Next),
    /// A 101 was answered: the connections are joined.
    Tunnel {
        /// To the endpoint.
        connection: Connection,
        /// What came behind the 101.
        outbound: Buffer,
        /// No progress for this long ends it.
        idle_timeout: Nanos,
    },
}

/// Room for the heads of nearly all requests (the browsers' are 0.5 to 2 KiB) and the first body
/// bytes; a larger head grows the buffer up to `max_header_bytes`.
pub(super) const INBOUND: usize = 8 * 1024;

/// Behind the head there is at least this much room for body bytes.
const BODY_ROOM: usize = 4 * 1024;

enum Head {
    Ready {
        started: Nanos,
    },
    /// Nothing there.
    Idle,
    /// The client is gone, or has said all it will say.
    Closed,
    Refused {
        reason: Reason,
        detail: Option<Refusal>,
        started: Nanos,
    },
}

/// The body of an exchanger: connection after connection, each until it has no request at hand.
pub(super) async fn exchanger(jobs: Jobs<Conn, (Conn, Next)>, worker: Rc<Worker>) {
    let mut scratch = Scratch::new();
    loop {
        let mut conn = jobs.next().await;
        let next = serve(&mut conn, &worker, &mut scratch).await;
        scratch.reset(&worker);
        jobs.finish((conn, next));
    }
}

/// Serves the requests that are at hand.
async fn serve(conn: &mut Conn, worker: &Rc<Worker>, s: &mut Scratch) -> Next {
    let mut pipeline = Pipeline::default();
    let mut has_answered = false;
    loop {
        let Some(snapshot) = worker.snapshot_for(conn.slot) else {
            return Next::Close;
        };
        let Some(listener) = snapshot.listener(conn.slot) else {
            return Next::Close;
        };
        // 1 the head
        let head = read_head(conn, worker, s, listener).await;
        let now = worker.clock.now();
        let peer = conn.peer;
        let after = match head {
            Head::Idle => {
                // Readiness may be a false alarm, on a fresh connection it usually is: only a
                // request that was answered begins a new wait.
                if has_answered {
                    conn.timer.arm(now + listener.keepalive_timeout);
                }
                return Next::Idle;
            }
            Head::Closed => {
                // Half a head is no exchange, but somebody should know. (Old browsers send a line's
                // end behind a body, which is none.)
                if s.inbound.filled().iter().any(|b| !b"\r\n".contains(b)) {
                    let reason = if conn.is_cutting() {
                        Reason::Draining
                    } else {
                        Reason::ClientGone
                    };
                    let cells = listener.cells.worker(worker.index);
                    cells.refusals.of(reason).inc();
                }
                return Next::Close;
            }
            Head::Refused {
                reason,
                detail,
                started,
            } => {
                let mut x =
                    Exchange::begin(worker, snapshot.clone(), conn.slot, peer, started, now);
                x.reason = Some(reason);
                x.received = s.inbound.len() as u64;
                if listener.spec.forwarding.request_id.is_some() {
                    x.set_request_id(None, worker);
                }
                // The head before it, perhaps of another connection, says nothing of this one.
                s.head.method = Method::GET;
                s.head.version = Version::Http11;
                let is_told = answer_error(conn, worker, s, &mut x, reason, detail, Keep::No).await;
                x.record(worker, peer, None, worker.clock.now());
                return if is_told { Next::Linger } else { Next::Reset };
            }
            Head::Ready { started } => {
                // 2 begin
                has_answered = true;
                let max = listener.spec.max_pipelined;
                let depth = pipeline.begin(&s.head, s.inbound.len(), max);
                let close_after = depth == Depth::Exceeded;
                if close_after {
                    // So that the answer says it, and the client asks for the rest elsewhere.
                    s.head.keep_alive = false;
                }
                let mut x =
                    Exchange::begin(worker, snapshot.clone(), conn.slot, peer, started, now);
                x.received = s.head.head_len() as u64;
                let after = exchange(conn, worker, s, &mut x).await;
                if let After::Tunnel {
                    connection,
                    outbound,
                    idle_timeout,
                } = after
                {
                    // The exchange goes on inside the tunnel and is recorded at its end.
                    return Next::Tunnel(Box::new(Tunnel {
                        exchange: x,
                        head_len: s.head.head_len(),
                        head: std::mem::take(&mut s.head),
                        inbound: std::mem::replace(&mut s.inbound, Buffer::with_capacity(INBOUND)),
                        connection,
                        outbound,
                        idle_timeout,
                    }));
                }
                let received = x.received;
                // 8 record
                x.record(
                    worker,
                    peer,
                    Some((&s.head, s.inbound.filled())),
                    worker.clock.now(),
                );
                match after {
                    After::KeepAlive { used } => {
                        s.inbound.consume(used);
                        pipeline.end(received, s.inbound.len());
                        if close_after {
                            if !s.inbound.is_empty() {
                                let cells = listener.cells.worker(worker.index);
                                cells.refusals.of(Reason::PipelineLimit).inc();
                            }
                            After::Then(Next::Linger)
                        } else {
                            after
                        }
                    }
                    // More requests lie unread behind the last one.
                    After::Then(Next::Close) if close_after => After::Then(Next::Linger),
                    After::Then(_) | After::Tunnel { .. } => after,
                }
            }
        };
        match after {
            After::Then(next) => return next,
            After::KeepAlive { .. } if conn.ended && s.inbound.is_empty() => return Next::Close,
            After::KeepAlive { .. } | After::Tunnel { .. } => {}
        }
    }
}

/// Reads until a head is complete. Returns [`Head::Idle`] rather than wait with nothing read.
async fn read_head(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    listener: &ListenerPlan,
) -> Head {
    s.inbound.compact();
    s.head.reset();
    let mut started = None;
    let mut armed = false;
    poll_fn(|cx| {
        loop {
            if !s.inbound.is_empty() {
                let started = *started.get_or_insert_with(|| worker.clock.now());
                match s.head.parse(s.inbound.filled(), &listener.limits) {
                    Ok(Progress::Complete) => return Poll::Ready(Head::Ready { started }),
                    Ok(Progress::Partial) => {}
                    Err(refusal) => {
                        let reason = respond::request_refused(refusal);
                        let detail = Some(refusal);
                        return Poll::Ready(Head::Refused {
                            reason,
                            detail,
                            started,
                        });
                    }
                }
                if conn.ended {
                    return Poll::Ready(Head::Closed);
                }
                if s.inbound.spare().is_empty() {
                    // The parser refuses what exceeds `max_header_bytes`: this doubles up to there.
                    s.inbound.grow(s.inbound.capacity() * 2);
                }
            } else if conn.ended {
                return Poll::Ready(Head::Closed);
            }
            match conn.stream.poll_read(cx, &mut s.inbound) {
                Poll::Ready(Ok(0)) => conn.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Head::Closed),
                Poll::Pending if s.inbound.is_empty() => return Poll::Ready(Head::Idle),
                Poll::Pending => {
                    let started = started.unwrap_or_else(|| worker.clock.now());
                    if !armed {
                        // From the first byte to the last, however many come between.
                        conn.timer.arm(started + listener.header_timeout);
                        armed = true;
                    }
                    if conn.is_cutting() {
                        return Poll::Ready(Head::Closed);
                    }
                    if conn.timer.has_expired(cx) {
                        let reason = Reason::HeaderTimeout;
                        return Poll::Ready(Head::Refused {
                            reason,
                            detail: None,
                            started,
                        });
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// From a complete head to the end of the response.
async fn exchange(
    conn: &mut Conn,
    worker: &Rc<Worker>,
    s: &mut Scratch,
    x: &mut Exchange,
) -> After {
    // 3 who and what
    x.phase = Phase::Route;
    let snapshot = x.snapshot.clone();
    let Some(listener) = snapshot.listener(conn.slot) else {
        return After::Then(Next::Close);
    };
    let buf = s.inbound.filled();
    let peer = conn.peer.map(|p| p.ip().to_canonical());
    let client = forwarded::client(peer, &listener.spec.trusted_proxies, &s.head, buf);
    x.client = client.addr;
    if let Some(name) = &listener.spec.forwarding.request_id {
        let given = if !client.is_trusted {
            None
        } else if name.as_str() == "x-request-id" {
            s.head.get(buf, FieldId::XRequestId)
        } else {
            s.head.get_all(buf, name.as_str()).next()
        };
        x.set_request_id(given, worker);
    }
    if s.head.method == Method::CONNECT || s.head.form() == Form::Authority {
        return refuse(conn, worker, s, x, Reason::MethodRefused).await;
    }
    if s.head.has(FieldId::Expect) && !s.head.expect_continue && s.head.version == Version::Http11 {
        return refuse(conn, worker, s, x, Reason::Expectation).await;
    }
    // 4 route
    let mut path_scratch = std::mem::take(&mut s.path);
    let raw_path = s.head.path(buf);
    let path = target::resolve_dots(raw_path, &mut path_scratch).unwrap_or(raw_path);
    let request = route::Request {
        listener: listener.route_index,
        host: s.head.host(buf).unwrap_or_default(),
        path,
        query: s.head.query(buf),
        method: s.head.method.as_str(),
        client: client.addr,
        headers: &Headers { head: &s.head, buf },
    };
    let found = snapshot
        .routes
        .find(&request)
        .map(|m| (m.index, m.rest.len()));
    let has_dots = path.len() != raw_path.len() || path != raw_path;
    s.path = path_scratch;
    let (index, rest) = match found {
        Ok(found) => found,
        Err(Miss::NoHost) => return refuse(conn, worker, s, x, Reason::Misdirected).await,
        Err(Miss::NoRoute) => return refuse(conn, worker, s, x, Reason::NoRoute).await,
    };
    x.set_route(index, worker);
    let Some(plan) = snapshot.plans.get(index) else {
        return refuse(conn, worker, s, x, Reason::Internal).await;
    };
    let upstream = match &plan.action {
        Plan::Respond {
            status,
            body,
            content_type,
        } => {
            let keep = keep_after_answer(s, conn);
            let edits_type = plan.response_headers.replaces(b"content-type");
            let answer = Answer {
                status: *status,
                content_type: (!edits_type).then(|| content_type.as_bytes()),
                location: None,
                body,
                reason: None,
                request_id: None,
                close: keep == Keep::No,
                is_head: s.head.method == Method::HEAD,
                keep_alive_10: s.head.version == Version::Http10,
            };
            s.to_client.clear();
            let body_len = answer.body_len();
            respond::write_answer(&mut s.to_client, &answer, |out| {
                write_edits(out, &plan.response_headers);
            });
            x.status = status.as_u16();
            return finish_answer(conn, worker, s, x, body_len, keep).await;
        }
        Plan::Redirect { to, status } => {
            let buf = s.inbound.filled();
            let path = if has_dots {
                s.path.as_str()
            } else {
                s.head.path(buf)
            };
            s.text.clear();
            expand(
                &mut s.text,
                to,
                path,
                &path[path.len() - rest..],
                &s.head,
                buf,
            );
            let keep = keep_after_answer(s, conn);
            let answer = Answer {
                status: *status,
                content_type: None,
                location: Some(s.text.as_bytes()),
                body: b"",
                reason: None,
                request_id: None,
                close: keep == Keep::No,
                is_head: s.head.method == Method::HEAD,
                keep_alive_10: s.head.version == Version::Http10,
            };
            s.to_client.clear();
            let body_len = answer.body_len();
            respond::write_answer(&mut s.to_client, &answer, |out| {
                write_edits(out, &plan.response_headers);
            });
            x.status = status.as_u16();
            return finish_answer(conn, worker, s, x, body_len, keep).await;
        }
        Plan::Split { to, total } => {
            let at = worker.rng.borrow_mut().below(*total as usize) as u64;
            let mut sum = 0;
            let chosen = to.iter().find(|(_, weight)| {
                sum += u64::from(*weight);
                at < sum
            });
            match chosen {
                Some((upstream, _)) => worker.upstream(upstream),
                None => return refuse(conn, worker, s, x, Reason::Internal).await,
            }
        }
        Plan::Upstream(upstream) => worker.upstream(upstream),
    };
    x.upstream = Some(upstream.clone());
    // 5 limits known from the head
    let max_body = listener.spec.max_body_bytes.unwrap_or(u64::MAX);
    if matches!(s.head.body, RequestBody::Length(n) if n > max_body) {
        return refuse(conn, worker, s, x, Reason::BodyTooLarge).await;
    }
    // Body bytes go behind the head, which stays.
    let head_len = s.head.head_len();
    if s.inbound.capacity() < head_len + BODY_ROOM {
        s.inbound.grow(head_len + BODY_ROOM);
    }
    // 6, 7
    super::attempt::forward(conn, worker, s, x, plan, &upstream, client, has_dots).await
}

/// Whether the connection may serve another request after an answer of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    No,
}

/// After an answer that did not read the body the connection stays only if there was none.
pub(super) fn keep_after_answer(s: &Scratch, conn: &Conn) -> Keep {
    let no_body = matches!(s.head.body, RequestBody::None | RequestBody::Length(0));
    if no_body && s.head.keep_alive && conn.life.get() == worker::Phase::Running {
        Keep::Yes
    } else {
        Keep::No
    }
}

/// Answers an error; the head has been read, the body not.
pub(super) async fn refuse(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    reason: Reason,
) -> After {
    let keep = keep_after_answer(s, conn);
    fail(conn, worker, s, x, reason, None, keep).await
}

/// Answers an error and says what becomes of the connection.
pub(super) async fn fail(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    reason: Reason,
    detail: Option<Refusal>,
    keep: Keep,
) -> After {
    x.reason = Some(reason);
    if reason == Reason::ClientGone {
        return After::Then(Next::Close);
    }
    let is_told = answer_error(conn, worker, s, x, reason, detail, keep).await;
    match keep {
        _ if !is_told => After::Then(Next::Reset),
        Keep::Yes => After::KeepAlive {
            used: s.head.head_len(),
        },
        Keep::No => After::Then(Next::Linger),
    }
}

/// Whether the client was told.
async fn answer_error(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    reason: Reason,
    detail: Option<Refusal>,
    keep: Keep,
) -> bool {
    respond::error_text(reason, detail, &mut s.text);
    let status = respond::status_of(reason);
    let name = x.listener().spec.forwarding.request_id.as_ref();
    let answer = Answer {
        status,
        content_type: Some(b"text/plain; charset=utf-8"),
        location: None,
        body: s.text.as_bytes(),
        reason: Some(reason),
        request_id: name.map(|name| (name, x.request_id())),
        close: keep == Keep::No,
        is_head: s.head.method == Method::HEAD,
        keep_alive_10: s.head.version == Version::Http10,
    };
    s.to_client.clear();
    let body_len = answer.body_len();
    respond::write_answer(&mut s.to_client, &answer, |_| {});
    x.status = status.as_u16();
    let is_told = send(conn, worker, &s.to_client, x).await.is_ok();
    if is_told {
        x.body_out = body_len;
    }
    is_told
}

/// Sends an answer of ours that is no error.
async fn finish_answer(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    body_len: u64,
    keep: Keep,
) -> After {
    x.first_byte_at = Some(worker.clock.now());
    if let Err(reason) = send(conn, worker, &s.to_client, x).await {
        x.reason = Some(reason);
        // What is in the kernel's hands is not waited for either.
        return After::Then(Next::Reset);
    }
    x.body_out = body_len;
    match keep {
        Keep::Yes => After::KeepAlive {
            used: s.head.head_len(),
        },
        Keep::No => After::Then(Next::Linger),
    }
}

/// Writes `bytes` to the client. The listener's idle time-out is for each step forward, as it is for
/// a body that is relayed; the route's deadline, if it has one, is for all.
///
/// # Errors
/// Why the client did not get them all.
pub(super) async fn send(
    conn: &mut Conn,
    worker: &Worker,
    bytes: &[u8],
    x: &mut Exchange,
) -> Result<(), Reason> {
    let mut rest = bytes;
    let mut armed_at = usize::MAX;
    // One that has passed does not keep the client from being told so.
    let total = x.route().and_then(|r| Some(x.started + r.timeout?));
    let total = total.filter(|&total| worker.clock.now() < total);
    let sent = poll_fn(|cx| {
        while !rest.is_empty() {
            match conn.stream.poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => rest = &rest[n..],
                Poll::Ready(_) => return Poll::Ready(Err(Reason::ClientGone)),
                Poll::Pending => {
                    let now = worker.clock.now();
                    if armed_at != rest.len() {
                        let idle = now + x.listener().idle_timeout;
                        conn.timer.arm(total.map_or(idle, |total| total.min(idle)));
                        armed_at = rest.len();
                    }
                    if conn.is_cutting() {
                        return Poll::Ready(Err(Reason::Draining));
                    }
                    if conn.timer.has_expired(cx) {
                        let is_late = total.is_some_and(|total| now >= total);
                        return Poll::Ready(Err(if is_late {
                            Reason::Deadline
                        } else {
                            Reason::ClientIdle
                        }));
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await;
    x.sent += (bytes.len() - rest.len()) as u64;
    sent
}

fn write_edits(out: &mut Vec<u8>, edits: &HeaderEdits) {
    for (name, value) in edits.set.iter().chain(&edits.add) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Fills a redirect's template. A path that the client chose must not turn a redirect within the
/// site into one to another host: `//evil.example`, or `/\evil.example` to a browser, so only one
/// slash stays in front unless the template itself has two.
fn expand(
    out: &mut String,
    template: &str,
    path: &str,
    rest: &str,
    head: &RequestHead,
    buf: &[u8],
) {
    let mut left = template;
    while let Some(open) = left.find('{') {
        out.push_str(&left[..open]);
        left = &left[open..];
        let Some(close) = left.find('}') else { break };
        match &left[..=close] {
            "{rest}" => push_path(out, rest),
            "{path}" => push_path(out, path),
            "{host}" => out.push_str(head.host(buf).unwrap_or_default()),
            "{query}" => {
                if let Some(query) = head.query(buf) {
                    out.push('?');
                    out.push_str(query);
                }
            }
            other => out.push_str(other),
        }
        left = &left[close + 1..];
    }
    out.push_str(left);
    // A client's `//other.example/` would lead to another host (RFC 3986 section 4.2); browsers
    // read a backslash as a slash.
    if !template.starts_with("//")
        && let Some(rest) = out.strip_prefix('/')
    {
        let spare = rest.len() - rest.trim_start_matches(['/', '\\']).len();
        out.replace_range(1..=spare, "");
    }
}

/// A path begins with a slash or is empty, so that what follows a template's host can never make
/// that host longer (`https://example.com{rest}` with `.evil.example`). Routing already gives no
/// other rest, but OPTIONS may ask for `*`.
fn push_path(out: &mut String, path: &str) {
    if !path.is_empty() && !path.starts_with('/') {
        out.push('/');
    }
    out.push_str(path);
}

/// The view of a head that routing has.
#[derive(Debug)]
struct Headers<'a> {
    head: &'a RequestHead,
    buf: &'a [u8],
}

impl HeaderLookup for Headers<'_> {
    fn any(&self, name: &str, f: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.head.get_all(self.buf, name).any(f)
    }
}

// === impl Scratch ===

impl Scratch {
    fn new() -> Self {
        Self {
            inbound: Buffer::with_capacity(INBOUND),
            head: RequestHead::new(),
            reply: ResponseHead::new(),
            to_endpoint: Vec::with_capacity(2048),
            to_client: Vec::with_capacity(2048),
            response: Buffer::none(),
            path: String::new(),
            text: String::new(),
            key: Vec::new(),
            cookie: Vec::new(),
        }
    }

    /// Ready for another connection: what one large message made grow is given back.
    fn reset(&mut self, worker: &Worker) {
        if self.inbound.capacity() > INBOUND {
            self.inbound = Buffer::with_capacity(INBOUND);
        }
        self.inbound.clear();
        for out in [&mut self.to_endpoint, &mut self.to_client] {
            out.clear();
            out.shrink_to(64 * 1024);
        }
        if !self.response.is_none() {
            worker.give_back(std::mem::replace(&mut self.response, Buffer::none()));
        }
    }
}
