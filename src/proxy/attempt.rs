//! Attempts: pick an endpoint, get a connection, send the request, await the response's head.
//!
//! What may be repeated (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1): a connect that failed has
//! sent nothing, so another endpoint is tried for any method. A REUSED connection that died before
//! the first byte of a response may have been closed while idle: the request is sent once more, on
//! a new connection, if it is idempotent and all that was sent can be sent again, or if nothing
//! was sent. After anything else another attempt is made if the route wants one, the request is
//! idempotent and the upstream's budget has it (`retry.rs`). A request that is not idempotent reaches
//! an endpoint twice only by a gRPC status that its route names.

use std::rc::Rc;

use crate::base::buffer::Buffer;
use crate::base::clock::{Nanos, nanos};
use crate::config::Hedge;
use crate::http1::{ChunkDecoder, RequestBody, ResponseBody, Version};
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::{EndpointOutcome, PoolOutcome, RetryReason};
use crate::telemetry::reason::Reason;
use crate::upstream::{Connection, LocalUpstream, Picked, Purpose, Reuse, SOON};

use super::answer::{fail, refuse, send};
use super::await_head::{Awaited, await_first_head, await_head};
use super::blame::{blame, judge, observe_response};
use super::body::{Flow, Framing, Reader};
use super::dial::{check_out, dial, tell_of_tls};
use super::exchange::Exchange;
use super::forwarded::Client;
use super::h1::Conn;
use super::headers::{self, RequestContext};
use super::hedge::Hedging;
use super::http::After;
use super::queue;
use super::relay;
use super::retry::{self, Tries};
use super::scratch::Scratch;
use super::snapshot::RoutePlan;
use super::stick::{Cookie, Key};
use super::trailers::Trailers;
use super::upgrade;
use super::upload::{Deadlines, Turn, Upload, account_upload, arm, keep_unless_broken};
use super::worker::Worker;

/// Interim responses of one exchange: a 100 and some early hints are usual; without a bound an
/// endpoint could hold an exchange for ever with them.
const INTERIMS_MAX: u32 = 32;

/// Forwards the request whose head and plan are known, and relays the response.
#[expect(
    clippy::too_many_arguments,
    reason = "the state of the story, each part borrowed apart"
)]
pub(super) async fn forward(
    conn: &mut Conn,
    worker: &Rc<Worker>,
    s: &mut Scratch,
    x: &mut Exchange,
    plan: &RoutePlan,
    upstream: &Rc<LocalUpstream>,
    client: Client,
    has_dots: bool,
) -> After {
    let spec = &upstream.shared.spec;
    let cells = upstream.shared.cells.worker(worker.index);
    match upstream.shared.admit(worker.index, x.head_at) {
        Ok(admission) => x.admission = admission,
        Err(retry_after) => {
            x.retry_after = Some(retry_after);
            return refuse(conn, worker, s, x, Reason::Breaker).await;
        }
    }
    cells.exchanges.inc();
    let mut deadlines = Deadlines {
        total: plan.timeout.map(|t| x.started + t),
        attempt: None,
        per_try: plan.retry.per_try_timeout.map(nanos),
        client_idle: x.listener().idle_timeout,
        endpoint_idle: nanos(spec.idle_timeout),
    };
    write_head(conn, s, x, plan, client, has_dots);

    let head_len = s.head.head_len();
    let in_hand = (s.inbound.len() - head_len) as u64;
    let all_in_hand = match s.head.body {
        RequestBody::None => true,
        RequestBody::Length(n) => n <= in_hand,
        RequestBody::Chunked => false,
    };
    let max_body = x.listener().spec.max_body_bytes.unwrap_or(u64::MAX);
    let is_idempotent = headers::is_idempotent(&s.head.method);
    let keep = if is_idempotent && !all_in_hand {
        plan.retry.body
    } else {
        0
    };
    let flow = Flow::new(reader(conn, s, x, plan), Framing::Raw, head_len, max_body).kept(keep);
    let mut upload = Upload {
        flow,
        stopped: false,
        broken: false,
        awaits_100: s.head.expect_continue,
        is_acknowledged: false,
    };
    let reuse = if is_idempotent && all_in_hand {
        Reuse::Repeatable
    } else {
        Reuse::Unrepeatable
    };

    let key = Key::of(spec, s, client);
    let mut cookie = spec.sticky.as_ref().map(|sticky| Cookie::find(s, sticky));
    let mut tries = Tries::new(&plan.retry);
    let mut replayed = false;
    let (mut connection, now) = loop {
        // 6a pick
        x.phase = Phase::Pick;
        // The time of the attempt before is over, and is not that of this one.
        deadlines.attempt = None;
        let mut now = worker.clock.now();
        x.picked_at = Some(now);
        let stuck = match &cookie {
            Some(cookie) if tries.is_first() => {
                cookie.of(s).map(|v| upstream.pick_sticky(v, false))
            }
            _ => None,
        };
        let picked = match stuck {
            Some(Picked::One(ticket)) => Picked::One(ticket),
            stuck => {
                // One whose endpoint has no room goes elsewhere this time, and keeps its cookie.
                if let Some(cookie) = &mut cookie {
                    cookie.set |= !matches!(stuck, Some(Picked::Full));
                }
                let mut rng = worker.rng.borrow_mut();
                let is_called = replayed || !tries.is_first();
                upstream.pick(key.bytes(s), tries.tried(), is_called, now, &mut rng)
            }
        };
        let picked = match picked {
            Picked::One(ticket) => Ok(ticket),
            Picked::Nobody => Err(Reason::NoEndpoint),
            Picked::Full => {
                x.phase = Phase::Queue;
                let wishes = queue::Wishes {
                    key: &key,
                    cookie: cookie.as_ref().filter(|_| tries.is_first()),
                    tried: tries.tried(),
                };
                let waited = queue::wait(conn, worker, s, upstream, wishes, deadlines);
                let waited = Box::pin(waited).await;
                now = worker.clock.now();
                waited
            }
        };
        let ticket = match picked {
            Ok(ticket) => ticket,
            Err(reason) => {
                match reason {
                    Reason::NoEndpoint => {
                        cells.no_endpoint.inc();
                        x.retry_after = Some(SOON);
                    }
                    Reason::EndpointsLimit | Reason::QueueFull | Reason::QueueTimeout => {
                        x.retry_after = Some(SOON);
                    }
                    _ => {}
                }
                return refuse(conn, worker, s, x, reason).await;
            }
        };
        x.attempts += 1;
        x.picked_at = Some(now);
        if all_in_hand {
            deadlines.begin_attempt(now);
        }
        // 6b a connection
        let checkout = if replayed {
            None
        } else {
            check_out(worker, upstream, ticket.endpoint(), reuse, now)
        };
        let is_reused = checkout.is_some();
        let connection = if let Some(connection) = checkout {
            cells.pool(PoolOutcome::Reused).inc();
            Ok(connection)
        } else {
            x.phase = Phase::Connect;
            let dialled = dial(
                conn,
                worker,
                upstream,
                &ticket,
                Purpose::Requests,
                deadlines,
                now,
            )
            .await;
            dialled.map(|(connection, at)| {
                x.connected_at = Some(at);
                connection
            })
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err((reason, seen)) => {
                // Nothing was sent to it: whatever the method, another one may be asked.
                let why = retry::kind_of(reason);
                let pause = why.and_then(|why| {
                    let mut rng = worker.rng.borrow_mut();
                    let at = (worker.index, worker.clock.now());
                    tries.another(why, ticket.endpoint(), upstream, None, at, &mut rng)
                });
                x.ticket = Some(ticket);
                if let Some(pause) = pause {
                    if let Err(reason) = retry::pause(conn, worker, s, deadlines, pause).await {
                        return refuse(conn, worker, s, x, reason).await;
                    }
                    x.let_go();
                    continue;
                }
                x.conclude(seen, worker.clock.now());
                let keep = keep_unless_broken(s, &upload);
                return fail(conn, worker, s, x, reason, None, keep).await;
            }
        };
        x.ticket = Some(ticket);
        upload.flow.frame(framing(s, &connection));
        // 6c send, and await the head
        x.phase = Phase::Wait;
        arm(conn, deadlines, now, deadlines.endpoint_idle);
        let mut has_begun = false;
        let mut interims = 0;
        let hedge = plan.retry.hedge;
        let mut hedging = Hedging::new(hedge, s, is_idempotent, upstream, &key);
        let awaited = loop {
            let awaited = match &mut hedging {
                None => {
                    await_head(
                        conn,
                        worker,
                        s,
                        &mut upload,
                        &mut connection,
                        &mut deadlines,
                    )
                    .await
                }
                Some(hedging) => {
                    let first = await_first_head(
                        conn,
                        worker,
                        s,
                        x,
                        &mut tries,
                        &mut upload,
                        &mut connection,
                        &mut deadlines,
                        hedging,
                    );
                    Box::pin(first).await
                }
            };
            if !matches!(awaited, Awaited::Head)
                || !s.reply.status.is_informational()
                || s.reply.status.as_u16() == 101
            {
                break awaited;
            }
            interims += 1;
            if interims > INTERIMS_MAX {
                break Awaited::Failed(Reason::BadResponse);
            }
            upload.awaits_100 &= s.reply.status.as_u16() != 100;
            // An interim response (100, 103, …) passes, to those who understand it.
            has_begun = true;
            if s.head.version == Version::Http11 {
                s.to_client.clear();
                let hidden = x.agent_header();
                headers::write_interim(&mut s.to_client, &s.reply, s.response.filled(), hidden);
                if let Err(reason) = send(conn, worker, &s.to_client, x).await {
                    break Awaited::Failed(reason);
                }
            }
            s.response.consume(s.reply.head_len());
            s.response.compact();
            arm(conn, deadlines, worker.clock.now(), deadlines.endpoint_idle);
        };
        let now = worker.clock.now();
        // What was forwarded of one attempt cannot be taken back.
        let may_repeat = is_idempotent && !has_begun && upload.flow.can_rewind();
        let was_nothing_sent = !has_begun && upload.flow.written == 0 && upload.flow.can_rewind();
        let reason = match awaited {
            Awaited::Head => {
                let buf = s.response.filled();
                let wants_other = !has_begun
                    && upload.flow.can_rewind()
                    && tries.wants_other(&s.reply, buf, is_idempotent);
                let pause = if wants_other {
                    let after = retry::retry_after(&s.reply, buf);
                    let ticket = x.ticket.as_ref();
                    ticket.and_then(|ticket| {
                        let mut rng = worker.rng.borrow_mut();
                        let at = (worker.index, now);
                        let why = RetryReason::Status;
                        tries.another(why, ticket.endpoint(), upstream, after, at, &mut rng)
                    })
                } else {
                    None
                };
                let Some(pause) = pause else {
                    x.first_byte_at = Some(now);
                    break (connection, now);
                };
                let seen = observe_response(x, &s.reply, buf, all_in_hand, now);
                judge(x, seen, now);
                set_aside(worker, s, x, upstream, connection, &upload);
                if let Err(reason) = retry::pause(conn, worker, s, deadlines, pause).await {
                    return failed(conn, worker, s, x, &mut upload, reason, now).await;
                }
                again(conn, s, x, plan, client, has_dots, &mut upload);
                continue;
            }
            Awaited::Broken(refusal) => {
                // A second attempt that took the first one's place has a connection of its own.
                let is_promoted = hedging.as_ref().is_some_and(Hedging::is_promoted);
                // It says that it has done nothing with it: RFC 9113 section 8.7 allows any method.
                let was_refused = connection.stream.channel().is_some_and(|c| c.was_refused());
                if was_refused && !replayed && !has_begun && upload.flow.can_rewind() {
                    replayed = true;
                    cells.replays.inc();
                    again(conn, s, x, plan, client, has_dots, &mut upload);
                    continue;
                }
                if is_reused && !is_promoted {
                    // It was closed while idle, or as the request came.
                    connection.lost_the_race(now);
                    if !replayed && (may_repeat || was_nothing_sent) {
                        replayed = true;
                        cells.replays.inc();
                        again(conn, s, x, plan, client, has_dots, &mut upload);
                        continue;
                    }
                }
                match (refusal, &x.ticket) {
                    // The end of the handshake, told where an answer was due.
                    (Some(why), Some(ticket)) if !is_reused => {
                        let endpoint = &ticket.endpoint().shared;
                        tell_of_tls(worker, upstream, endpoint, &why, now);
                        Reason::EndpointTls
                    }
                    _ => Reason::EndpointReset,
                }
            }
            Awaited::Failed(reason) => reason,
        };
        let was_endpoint_awaited = matches!(
            reason,
            Reason::AttemptTimeout | Reason::Deadline | Reason::EndpointIdle
        ) && upload.turn() == Turn::Endpoint;
        if was_endpoint_awaited && let Some(channel) = connection.stream.channel() {
            channel.suspect();
        }
        let why = retry::kind_of(reason).filter(|_| may_repeat || was_nothing_sent);
        let pause = why.and_then(|why| {
            let ticket = x.ticket.as_ref()?;
            let mut rng = worker.rng.borrow_mut();
            let at = (worker.index, now);
            tries.another(why, ticket.endpoint(), upstream, None, at, &mut rng)
        });
        let Some(pause) = pause else {
            return failed(conn, worker, s, x, &mut upload, reason, now).await;
        };
        blame(worker, x, &upload, reason, now);
        // It learns that nobody waits for it any more.
        connection.stream.reset_on_close();
        drop(connection);
        put_response_away(worker, s);
        x.let_go();
        if let Err(reason) = retry::pause(conn, worker, s, deadlines, pause).await {
            return failed(conn, worker, s, x, &mut upload, reason, now).await;
        }
        again(conn, s, x, plan, client, has_dots, &mut upload);
    };

    deadlines.attempt = None;
    deadlines.per_try = None;
    // A 101 joins the two connections, if it was asked for.
    let is_upgrade = s.reply.status.as_u16() == 101;
    if is_upgrade && (!s.head.upgrade || !s.reply.upgrade || !upload.stopped || upload.broken) {
        connection.stream.reset_on_close();
        return failed(conn, worker, s, x, &mut upload, Reason::UpgradeRefused, now).await;
    }
    // Where the request was not in hand, its time was the client's too.
    let seen = observe_response(x, &s.reply, s.response.filled(), all_in_hand, now);
    if matches!(plan.retry.hedge, Hedge::Percentile(_)) && all_in_hand {
        upstream.learn(now.saturating_sub(x.head_at));
    }
    cells
        .response_start
        .observe(now.saturating_sub(x.picked_at.unwrap_or(now)));
    if is_upgrade {
        judge(x, seen, now);
        x.conclude(seen, now);
        // The tunnel begins behind the request's body.
        s.inbound.close_gap(head_len, upload.flow.cursor());
        account_upload(x, &upload);
        return upgrade::begin(conn, worker, s, x, plan, connection, deadlines).await;
    }
    x.seen = Some(seen);
    // 7 relay the response
    s.cookie.clear();
    if let Some(cookie) = cookie {
        cookie.write_set(x, &mut s.cookie);
    }
    relay::relay(
        conn,
        worker,
        s,
        x,
        plan,
        upstream,
        &mut upload,
        connection,
        deadlines,
    )
    .await
}

fn write_head(
    conn: &Conn,
    s: &mut Scratch,
    x: &Exchange,
    plan: &RoutePlan,
    client: Client,
    has_dots: bool,
) {
    let buf = s.inbound.filled();
    let path = if has_dots {
        s.path.as_str()
    } else {
        s.head.path(buf)
    };
    s.to_endpoint.clear();
    let cx = RequestContext {
        path,
        query: s.head.query(buf),
        rewrite: &plan.rewrite,
        edits: &plan.request_headers,
        forwarding: &x.listener().spec.forwarding,
        peer: conn.peer.map(|p| p.ip()),
        client,
        scheme: if conn.stream.is_encrypted() {
            "https"
        } else {
            "http"
        },
        request_id: x.request_id(),
        proof: x.listener().spec.tls.as_ref().map(|tls| {
            let identity = conn.identity.as_deref();
            (&tls.client_headers, identity)
        }),
    };
    headers::write_request(&mut s.to_endpoint, &s.head, buf, &cx);
}

/// How the request's body ends on `connection`.
fn framing(s: &Scratch, connection: &Connection) -> Framing {
    match s.head.body {
        RequestBody::None | RequestBody::Length(_) => Framing::Raw,
        RequestBody::Chunked if connection.stream.is_channel() => Framing::Streamed,
        RequestBody::Chunked => Framing::Chunked,
    }
}

/// What reads the request's body, from its first byte.
fn reader<'p>(conn: &Conn, s: &Scratch, x: &Exchange, plan: &'p RoutePlan) -> Reader<'p> {
    match s.head.body {
        RequestBody::None => Reader::Done,
        RequestBody::Length(n) if conn.stream.is_channel() => {
            Reader::Streamed(trailers_of(s, x, plan), Some(n))
        }
        RequestBody::Length(n) => Reader::Length(n),
        RequestBody::Chunked if conn.stream.is_channel() => {
            Reader::Streamed(trailers_of(s, x, plan), None)
        }
        RequestBody::Chunked => {
            let decoder = ChunkDecoder::new(&x.listener().limits);
            Reader::Chunked(decoder, trailers_of(s, x, plan))
        }
    }
}

fn trailers_of<'p>(s: &Scratch, x: &Exchange, plan: &'p RoutePlan) -> Trailers<'p> {
    Trailers::of_request(
        &plan.request_headers,
        &x.listener().spec,
        &s.head.fields,
        s.inbound.filled(),
    )
}

/// Lays everything out to send the request once more.
fn again<'p>(
    conn: &Conn,
    s: &mut Scratch,
    x: &mut Exchange,
    plan: &'p RoutePlan,
    client: Client,
    has_dots: bool,
    upload: &mut Upload<'p>,
) {
    x.let_go();
    write_head(conn, s, x, plan, client, has_dots);
    upload.flow.rewind(reader(conn, s, x, plan));
    upload.stopped = false;
    upload.broken = false;
}

/// Drops a response that the client will not see. Its connection is kept if nothing is left on it.
fn set_aside(
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    upstream: &LocalUpstream,
    mut connection: Connection,
    upload: &Upload<'_>,
) {
    let Some(ticket) = &x.ticket else {
        return;
    };
    let endpoint = ticket.endpoint();
    let cells = endpoint.shared.cells.worker(worker.index);
    cells
        .requests(EndpointOutcome::of(s.reply.status.as_u16()))
        .inc();
    cells.sent_bytes.add(upload.flow.written);
    cells.received_bytes.add(s.response.len() as u64);
    let body = s.response.len() - s.reply.head_len();
    let is_whole = match s.reply.body {
        ResponseBody::None => body == 0,
        ResponseBody::Length(n) => body as u64 == n,
        ResponseBody::Chunked | ResponseBody::UntilClose => false,
    };
    if is_whole && s.reply.keep_alive && upload.stopped && !upload.broken {
        let max_idle = upstream.shared.spec.keepalive.max_idle as usize;
        endpoint.pool.put(connection, worker.clock.now(), max_idle);
    } else {
        connection.stream.reset_on_close();
    }
    x.let_go();
    put_response_away(worker, s);
}

fn put_response_away(worker: &Worker, s: &mut Scratch) {
    if !s.response.is_none() {
        worker.give_back(std::mem::replace(&mut s.response, Buffer::none()));
    }
}

/// Ends an exchange that broke before a response was begun.
async fn failed(
    conn: &mut Conn,
    worker: &Worker,
    s: &mut Scratch,
    x: &mut Exchange,
    upload: &mut Upload<'_>,
    reason: Reason,
    now: Nanos,
) -> After {
    account_upload(x, upload);
    let seen = blame(worker, x, upload, reason, now);
    x.conclude(seen, now);
    put_response_away(worker, s);
    let keep = keep_unless_broken(s, upload);
    upload.flow.release(&worker.pipes);
    fail(conn, worker, s, x, reason, None, keep).await
}
