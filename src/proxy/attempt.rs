//! Attempts: pick an endpoint, get a connection, send the request, await the response's head.
//!
//! What may be repeated (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1): a connect that failed has
//! sent nothing, so another endpoint is tried for any method. A REUSED connection that died before
//! the first byte of a response may have been closed while idle: the request is sent once more, on
//! a new connection, if it is idempotent and all that was sent can be sent again, or if nothing
//! was sent. A request that is neither never reaches an endpoint twice.

use std::rc::Rc;

use http::StatusCode;

use crate::balance::Outcome;
use crate::base::buffer::Buffer;
use crate::base::clock::{Nanos, nanos};
use crate::http1::{ChunkDecoder, RequestBody, Version};
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::{EndpointOutcome, PoolOutcome, RetryReason};
use crate::telemetry::reason::Reason;
use crate::upstream::{LocalUpstream, Reuse};

use super::answer::{fail, refuse, send};
use super::await_head::{Awaited, await_head};
use super::body::{Flow, Framing, Reader};
use super::dial::dial;
use super::exchange::Exchange;
use super::forwarded::Client;
use super::h1::Conn;
use super::headers::{self, RequestContext};
use super::http::After;
use super::relay;
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

/// Endpoints tried for one exchange while connects fail.
const ATTEMPTS: usize = 3;

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
    let deadlines = Deadlines {
        total: plan.timeout.map(|t| x.started + t),
        client_idle: x.listener().idle_timeout,
        endpoint_idle: nanos(spec.idle_timeout),
    };
    write_head(conn, s, x, plan, client, has_dots);

    let head_len = s.head.head_len();
    let in_hand = (s.inbound.len() - head_len) as u64;
    let (reader, framing, all_in_hand) = match s.head.body {
        RequestBody::None => (Reader::Done, Framing::Raw, true),
        RequestBody::Length(n) => (Reader::Length(n), Framing::Raw, n <= in_hand),
        RequestBody::Chunked => {
            let decoder = ChunkDecoder::new(&x.listener().limits);
            let trailers = Trailers::of_request(
                &plan.request_headers,
                x.listener().spec.forwarding.request_id.as_ref(),
                &s.head.fields,
                s.inbound.filled(),
            );
            (Reader::Chunked(decoder, trailers), Framing::Chunked, false)
        }
    };
    let max_body = x.listener().spec.max_body_bytes.unwrap_or(u64::MAX);
    let flow = Flow::new(reader, framing, head_len, max_body);
    let mut upload = Upload {
        flow,
        stopped: false,
        broken: false,
        awaits_100: s.head.expect_continue,
    };
    let repeatable = headers::is_idempotent(&s.head.method);
    let reuse = if repeatable && all_in_hand {
        Reuse::Repeatable
    } else {
        Reuse::Unrepeatable
    };

    let key = Key::of(spec, s, client);
    let mut cookie = spec.sticky.as_ref().map(|sticky| Cookie::find(s, sticky));
    let mut tried = [0usize; ATTEMPTS];
    let mut tries = 0;
    let mut replayed = false;
    let (connection, now) = loop {
        // 6a pick
        x.phase = Phase::Pick;
        let now = worker.clock.now();
        x.picked_at = Some(now);
        // A replay stays with its endpoint: only that connection died.
        let stuck = if tries == 0 {
            let value = cookie.as_ref().and_then(|c| c.of(s));
            value.and_then(|value| upstream.pick_sticky(value))
        } else {
            None
        };
        let is_stuck = stuck.is_some();
        let picked = stuck.or_else(|| {
            let mut rng = worker.rng.borrow_mut();
            upstream.pick(key.bytes(s), &tried[..tries], now, &mut rng)
        });
        let Some(ticket) = picked else {
            cells.no_endpoint.inc();
            return refuse(conn, worker, s, x, Reason::NoEndpoint).await;
        };
        if let (Some(cookie), false) = (&mut cookie, is_stuck) {
            cookie.set = true;
        }
        x.attempts += 1;
        // 6b a connection
        let checkout = if replayed {
            None
        } else {
            let endpoint = ticket.endpoint();
            let checkout = endpoint.pool.take(
                reuse,
                &endpoint.shared,
                upstream.idle_timeout,
                now,
                worker.index,
            );
            cells
                .pool(PoolOutcome::Stale)
                .add(u64::from(checkout.stale));
            checkout.connection
        };
        let is_reused = checkout.is_some();
        let connection = match checkout {
            Some(connection) => {
                cells.pool(PoolOutcome::Reused).inc();
                Ok(connection)
            }
            None => dial(conn, worker, x, upstream, &ticket, deadlines, now).await,
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(reason) => {
                let index = ticket.index;
                x.ticket = Some(ticket);
                let is_ours = matches!(reason, Reason::Deadline | Reason::Draining);
                if !is_ours && tries + 1 < ATTEMPTS && tries + 1 < upstream.len() {
                    tried[tries] = index;
                    tries += 1;
                    cells.retries(RetryReason::Connect).inc();
                    continue;
                }
                let keep = keep_unless_broken(s, &upload);
                return fail(conn, worker, s, x, reason, None, keep).await;
            }
        };
        x.ticket = Some(ticket);
        // 6c send, and await the head
        x.phase = Phase::Wait;
        arm(conn, deadlines, now, deadlines.endpoint_idle);
        let mut has_begun = false;
        let mut interims = 0;
        let awaited = loop {
            let awaited =
                await_head(conn, worker, s, &mut upload, &mut connection, deadlines).await;
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
                headers::write_interim(&mut s.to_client, &s.reply, s.response.filled());
                if let Err(reason) = send(conn, worker, &s.to_client, x).await {
                    break Awaited::Failed(reason);
                }
            }
            s.response.consume(s.reply.head_len());
            s.response.compact();
            arm(conn, deadlines, worker.clock.now(), deadlines.endpoint_idle);
        };
        let now = worker.clock.now();
        match awaited {
            Awaited::Head => {
                x.first_byte_at = Some(now);
                break (connection, now);
            }
            Awaited::Broken => {
                if is_reused {
                    // It was closed while idle, or as the request came.
                    connection.lost_the_race(now);
                }
                let may_replay = is_reused
                    && !replayed
                    && !has_begun
                    && (upload.flow.written == 0 || repeatable)
                    && upload.flow.can_rewind();
                if may_replay {
                    replayed = true;
                    cells.replays.inc();
                    upload.flow.rewind();
                    upload.stopped = false;
                    upload.broken = false;
                    x.ticket = None;
                    continue;
                }
                return failed(conn, worker, s, x, &mut upload, Reason::EndpointReset, now).await;
            }
            Awaited::Failed(reason) => {
                return failed(conn, worker, s, x, &mut upload, reason, now).await;
            }
        }
    };

    observe(x, s.reply.status, now);
    cells
        .response_start
        .observe(now.saturating_sub(x.picked_at.unwrap_or(now)));
    // A 101 joins the two connections, if it was asked for.
    if s.reply.status.as_u16() == 101 {
        if !s.head.upgrade || !s.reply.upgrade || !upload.stopped || upload.broken {
            connection.stream.reset_on_close();
            return failed(conn, worker, s, x, &mut upload, Reason::UpgradeRefused, now).await;
        }
        // The tunnel begins behind the request's body.
        s.inbound.close_gap(head_len, upload.flow.cursor());
        account_upload(x, &upload);
        return upgrade::begin(conn, worker, s, x, plan, connection, deadlines).await;
    }
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
        scheme: "http",
        request_id: x.request_id(),
    };
    headers::write_request(&mut s.to_endpoint, &s.head, buf, &cx);
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
    let (outcome, observed) = match reason {
        Reason::ClientGone
        | Reason::ClientIdle
        | Reason::Draining
        | Reason::BadBody
        | Reason::BodyTooLarge
        | Reason::AmbiguousFraming
        | Reason::HeadTooLarge
        | Reason::TooManyFields => (EndpointOutcome::Cancelled, Outcome::Cancelled),
        // All the time was the client's, and it still was its turn.
        Reason::Deadline if upload.turn() == Turn::Client => {
            (EndpointOutcome::Cancelled, Outcome::Cancelled)
        }
        Reason::Deadline | Reason::EndpointIdle => (EndpointOutcome::Timeout, Outcome::Failed),
        _ => (EndpointOutcome::Reset, Outcome::Failed),
    };
    if let Some(ticket) = &x.ticket {
        let elapsed = now.saturating_sub(x.picked_at.unwrap_or(now));
        ticket.observe(observed, elapsed, now);
        ticket
            .endpoint()
            .shared
            .cells
            .worker(worker.index)
            .requests(outcome)
            .inc();
    }
    if !s.response.is_none() {
        worker.give_back(std::mem::replace(&mut s.response, Buffer::none()));
    }
    let keep = keep_unless_broken(s, upload);
    upload.flow.release(&worker.pipes);
    fail(conn, worker, s, x, reason, None, keep).await
}

/// Tells the policy how fast the head came: a server error counts as slow, never as fast.
fn observe(x: &Exchange, status: StatusCode, now: Nanos) {
    let Some(ticket) = &x.ticket else { return };
    let elapsed = now.saturating_sub(x.picked_at.unwrap_or(now));
    let outcome = if status.is_server_error() {
        Outcome::Failed
    } else {
        Outcome::Ok
    };
    ticket.observe(outcome, elapsed, now);
}
