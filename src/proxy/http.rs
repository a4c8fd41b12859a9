//! THE REQUEST STORY: what happens to one HTTP/1 request, top to bottom.
//!
//! ```text
//! 1 read the head (408 414 431 400)      -> read_head.rs
//! 2 begin the exchange, take a snapshot
//! 3 who is the client                    -> forwarded.rs; what is the path -> target.rs
//! 4 route (404, 421), its limits (429, 503), answer if it says
//!                                        -> limit.rs, answer.rs, redirect.rs
//! 5 limits known from the head (413)
//! 6 forward: attempts { pick 503, connect, send, await }
//!                                        -> attempt.rs, dial.rs, upload.rs, await_head.rs
//! 7 relay the response                   -> relay.rs
//! 8 record, exactly once                 -> exchange.rs
//! ```

use std::rc::Rc;

use http::Method;

use crate::base::buffer::Buffer;
use crate::base::clock::Nanos;
use crate::base::coroutine::Jobs;
use crate::http1::{FieldId, Form, Refusal, RequestBody, RequestHead, Version};
use crate::route::{self, HeaderLookup, Miss};
use crate::telemetry::access_log::Phase;
use crate::telemetry::reason::Reason;
use crate::upstream::Connection;

use super::answer::{self, Keep, answer_error, keep_after_answer, refuse};
use super::attempt;
use super::exchange::Exchange;
use super::forwarded;
use super::h1::{Conn, Next};
use super::pipeline::{Depth, Pipeline};
use super::read_head::{Head, read_head};
use super::redirect::expand;
use super::respond::Answer;
use super::scratch::{INBOUND, Scratch};
use super::snapshot::Plan;
use super::target;
use super::upgrade::Tunnel;
use super::worker::Worker;

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

/// Behind the head there is at least this much room for body bytes.
const BODY_ROOM: usize = 4 * 1024;

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
        let Some(snapshot) = worker.snapshot_for(conn.life.slot) else {
            return Next::Close;
        };
        let Some(listener) = snapshot.listener(conn.life.slot) else {
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
                detail: Some(Refusal::Http2Preface),
                ..
            } if !has_answered && listener.spec.http2.is_some() && conn.may_speak_h2() => {
                let prefix = std::mem::replace(&mut s.inbound, Buffer::with_capacity(INBOUND));
                return Next::Http2(Box::new(prefix));
            }
            Head::Refused {
                reason,
                detail,
                started,
            } => {
                let mut x = Exchange::begin(worker, snapshot.clone(), conn, started, now);
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
                let close_after = depth == Depth::Exceeded && !conn.stream.is_channel();
                if close_after {
                    // So that the answer says it, and the client asks for the rest elsewhere.
                    s.head.keep_alive = false;
                }
                let mut x = Exchange::begin(worker, snapshot.clone(), conn, started, now);
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
            // A stream of HTTP/2 is one exchange: what may still come on it is no request.
            After::KeepAlive { .. } if conn.stream.is_channel() => return Next::Close,
            After::KeepAlive { .. } | After::Tunnel { .. } => {}
        }
    }
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
    let Some(listener) = snapshot.listener(conn.life.slot) else {
        return After::Then(Next::Close);
    };
    let buf = s.inbound.filled();
    let peer = conn.peer.map(|p| p.ip());
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
    if let Some(limits) = &plan.limits
        && let Err(reason) = limits.admit(worker, s, x, client)
    {
        return refuse(conn, worker, s, x, reason).await;
    }
    let upstream = match &plan.action {
        Plan::Respond {
            status,
            body,
            content_type,
        } => {
            let keep = keep_after_answer(s, conn, worker.clock.now());
            let edits_type = plan.response_headers.replaces(b"content-type");
            let answer = Answer {
                content_type: (!edits_type).then(|| content_type.as_bytes()),
                body,
                ..Answer::new(*status).to(&s.head, keep)
            };
            let edits = &plan.response_headers;
            let body_len = answer::write(&mut s.to_client, x, &answer, edits);
            return answer::finish(conn, worker, s, x, body_len, keep).await;
        }
        Plan::Redirect { to, status } => {
            let buf = s.inbound.filled();
            let path = if has_dots {
                s.path.as_str()
            } else {
                s.head.path(buf)
            };
            let rest = &path[path.len() - rest..];
            s.text.clear();
            expand(&mut s.text, to, path, rest, &s.head, buf);
            let keep = keep_after_answer(s, conn, worker.clock.now());
            let answer = Answer {
                location: Some(s.text.as_bytes()),
                ..Answer::new(*status).to(&s.head, keep)
            };
            let edits = &plan.response_headers;
            let body_len = answer::write(&mut s.to_client, x, &answer, edits);
            return answer::finish(conn, worker, s, x, body_len, keep).await;
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
    attempt::forward(conn, worker, s, x, plan, &upstream, client, has_dots).await
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
