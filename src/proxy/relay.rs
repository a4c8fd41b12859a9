//! The response on its way to the client, while the request may still be on its way to the endpoint.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::base::buffer::Buffer;
use crate::http1::{ChunkDecoder, Limits, ResponseBody, Version};
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::{EndpointOutcome, PoolClose};
use crate::telemetry::reason::Reason;
use crate::upstream::{Connection, LocalUpstream, Seen};

use super::answer::fail;
use super::blame::judge;
use super::body::{Flow, FlowError, Framing, Reader};
use super::exchange::Exchange;
use super::grpc;
use super::h1::{Conn, Next};
use super::headers::{self, ResponseContext, ResponseFraming};
use super::http::After;
use super::respond;
use super::scratch::Scratch;
use super::snapshot::RoutePlan;
use super::splice::Side;
use super::trailers::Trailers;
use super::upload::{
    Deadlines, Turn, Upload, account_upload, arm, is_client_gone, keep_unless_broken,
};
use super::worker::Worker;

/// Relays the response whose head is in `s.reply`, to its end.
#[expect(
    clippy::too_many_arguments,
    reason = "the state of the story, each part borrowed apart"
)]
pub(super) async fn relay(
    conn: &mut Conn,
    worker: &Rc<Worker>,
    s: &mut Scratch,
    x: &mut Exchange,
    plan: &RoutePlan,
    upstream: &Rc<LocalUpstream>,
    upload: &mut Upload<'_>,
    mut connection: Connection,
    deadlines: Deadlines,
) -> After {
    x.phase = Phase::Response;
    let is_11 = s.head.version == Version::Http11;
    // How the body comes, and how it goes on: a client of HTTP/1.0 knows no chunks, one of
    // HTTP/1.1 keeps its connection even if the endpoint ends the body by closing.
    let is_streamed = connection.stream.is_channel();
    let is_to_stream = conn.stream.is_channel();
    let is_all = connection
        .stream
        .channel()
        .is_some_and(|c| c.has_only_head());
    let (reader, framing, body) = match s.reply.body {
        // All of it has come, and it says nothing of a length.
        ResponseBody::UntilClose if is_all => {
            if let Some(channel) = conn.stream.channel() {
                channel.end_with_head();
            }
            let body = if is_to_stream {
                ResponseFraming::AsIs
            } else {
                ResponseFraming::Empty
            };
            (Reader::Done, Framing::Raw, body)
        }
        ResponseBody::Length(_) | ResponseBody::Chunked if is_streamed => {
            let trailers = Trailers::of_response(
                &plan.response_headers,
                x.agent_header(),
                &s.reply.fields,
                s.response.filled(),
            );
            let declared = match s.reply.body {
                ResponseBody::Length(n) => Some(n),
                _ => None,
            };
            let reader = Reader::Streamed(trailers, declared);
            match s.reply.body {
                _ if is_to_stream => (reader, Framing::Streamed, ResponseFraming::AsIs),
                ResponseBody::Length(_) => (reader, Framing::Raw, ResponseFraming::AsIs),
                _ if is_11 => (reader, Framing::Chunked, ResponseFraming::Chunked),
                _ => (reader, Framing::Raw, ResponseFraming::UntilClose),
            }
        }
        ResponseBody::None => (Reader::Done, Framing::Raw, ResponseFraming::AsIs),
        ResponseBody::Length(n) => (Reader::Length(n), Framing::Raw, ResponseFraming::AsIs),
        ResponseBody::Chunked => {
            let trailers = Trailers::of_response(
                &plan.response_headers,
                x.agent_header(),
                &s.reply.fields,
                s.response.filled(),
            );
            let reader = Reader::Chunked(ChunkDecoder::new(&Limits::default()), trailers);
            if is_to_stream {
                (reader, Framing::Streamed, ResponseFraming::AsIs)
            } else if is_11 {
                (reader, Framing::Chunked, ResponseFraming::Chunked)
            } else {
                (reader, Framing::Raw, ResponseFraming::UntilClose)
            }
        }
        ResponseBody::UntilClose if is_to_stream => {
            (Reader::UntilClose, Framing::Streamed, ResponseFraming::AsIs)
        }
        ResponseBody::UntilClose if is_11 => (
            Reader::UntilClose,
            Framing::Chunked,
            ResponseFraming::Chunked,
        ),
        ResponseBody::UntilClose => (
            Reader::UntilClose,
            Framing::Raw,
            ResponseFraming::UntilClose,
        ),
    };
    let request_read = upload.flow.has_read_all();
    let close = !s.head.keep_alive
        || !request_read
        || body == ResponseFraming::UntilClose
        || conn.ended && s.inbound.len() == upload.flow.cursor()
        || conn.is_last_answer(worker.clock.now());
    let cx = ResponseContext {
        edits: &plan.response_headers,
        body,
        close,
        keep_alive_10: !is_11,
        upgrade: false,
        via: x.listener().spec.forwarding.via.as_deref(),
        cookie: (!s.cookie.is_empty()).then_some(&*s.cookie),
        hidden: x.agent_header(),
    };
    s.to_client.clear();
    headers::write_response(&mut s.to_client, &s.reply, s.response.filled(), &cx);
    x.status = s.reply.status.as_u16();
    s.response.consume(s.reply.head_len());

    let mut download = Flow::new(reader, framing, 0, u64::MAX).once();
    if !is_streamed
        && download
            .left()
            .is_none_or(|left| left > worker.buffers.size() as u64)
        && matches!(
            s.reply.body,
            ResponseBody::Length(_) | ResponseBody::Chunked
        )
    {
        widen(worker, s);
    } else {
        s.response.compact();
    }
    // Bytes moved, and who is waited for: what a pipe took in has not moved yet, but the endpoint
    // has done its part.
    let mut progress = None;
    let ended = poll_fn(|cx| {
        let sent = upload.advance(
            cx,
            &mut conn.stream,
            &mut s.inbound,
            &mut connection.stream,
            &mut s.to_endpoint,
            &worker.pipes,
        );
        // The endpoint answers without reading on, or the client stopped sending: the response
        // still goes its way (RFC 9112 section 9.6 leaves that to the sender).
        match sent {
            Ok(()) | Err(FlowError::Write(_)) => {}
            Err(FlowError::Read(_)) => return Poll::Ready(Err(Reason::ClientGone)),
            // An endpoint that waits for the rest learns that none will come.
            Err(
                FlowError::Length
                | FlowError::Refused(_)
                | FlowError::TooLarge
                | FlowError::Truncated,
            ) => {
                connection.stream.break_off();
            }
        }
        let polled = download.poll(
            cx,
            &mut connection.stream,
            &mut s.response,
            &mut conn.stream,
            &mut s.to_client,
            &worker.pipes,
        );
        match polled {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(respond::download_failed(&error))),
            Poll::Pending => {}
        }
        // An endpoint that is silent for long: no write would tell of a client that has gone.
        if upload.stopped && is_client_gone(cx, conn, &mut s.inbound) {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        if conn.is_cutting() || connection.is_cut() {
            return Poll::Ready(Err(Reason::Draining));
        }
        let moved = download.progress + upload.flow.progress;
        // An endpoint that has answered before it has the whole request may be waiting for the rest.
        let turn = match download.waits {
            Side::Write => Turn::Client,
            Side::Read => upload.turn(),
        };
        if progress != Some((moved, turn)) {
            progress = Some((moved, turn));
            arm(
                conn,
                deadlines,
                worker.clock.now(),
                deadlines.patience(turn),
            );
        }
        if conn.timer.has_expired(cx) {
            return Poll::Ready(Err(deadlines.expired(worker.clock.now(), turn)));
        }
        Poll::Pending
    })
    .await;

    let turn = match download.waits {
        Side::Write => Turn::Client,
        Side::Read => upload.turn(),
    };
    // What the head said holds, unless the endpoint broke off.
    let seen = x.seen.take().unwrap_or(Seen::Cancelled);
    let seen = match ended {
        Err(Reason::BadResponse | Reason::ResponseIncomplete | Reason::EndpointIdle) => {
            Seen::Failed
        }
        Err(Reason::Deadline) if turn == Turn::Endpoint && seen == Seen::Answered => Seen::Late,
        Ok(()) | Err(_) => seen,
    };
    let now = worker.clock.now();
    judge(x, seen, now);
    x.conclude(seen, now);
    account_upload(x, upload);
    x.body_out = download.body_bytes;
    x.sent += download.written;
    let cells = worker.cells();
    let spliced = download.spliced + upload.flow.spliced;
    cells.spliced_bytes.add(spliced);
    cells
        .copied_bytes
        .add(download.body_bytes + upload.flow.body_bytes - spliced);
    if let Some(ticket) = &x.ticket {
        let endpoint = ticket.endpoint().shared.cells.worker(worker.index);
        let outcome = match ended {
            Ok(()) => EndpointOutcome::of(x.status),
            Err(Reason::BadResponse | Reason::ResponseIncomplete) => EndpointOutcome::Reset,
            Err(Reason::EndpointIdle) => EndpointOutcome::Timeout,
            Err(Reason::Deadline) if turn == Turn::Endpoint => EndpointOutcome::Timeout,
            Err(_) => EndpointOutcome::Cancelled,
        };
        endpoint.requests(outcome).inc();
        endpoint.sent_bytes.add(upload.flow.written);
        endpoint
            .received_bytes
            .add(s.reply.head_len() as u64 + download.body_bytes);
    }

    // The endpoint's connection goes back if nothing is left on it in either direction.
    let is_clean = ended.is_ok()
        && !is_streamed
        && s.reply.keep_alive
        && s.reply.body != ResponseBody::UntilClose
        && s.response.len() == download.cursor()
        && upload.stopped
        && !upload.broken;
    if is_clean {
        if let Some(ticket) = &x.ticket {
            let max_idle = upstream.shared.spec.keepalive.max_idle as usize;
            let pool = &ticket.endpoint().pool;
            if !pool.put(connection, now, max_idle) {
                let cells = upstream.shared.cells.worker(worker.index);
                cells.pool_closes(PoolClose::Full).inc();
            }
        }
    } else {
        if ended.is_err() || !upload.stopped || upload.broken {
            // It learns that nobody listens any more.
            connection.stream.reset_on_close();
        }
        drop(connection);
    }
    download.release(&worker.pipes);
    upload.flow.release(&worker.pipes);
    worker.give_back(std::mem::replace(&mut s.response, Buffer::none()));

    match ended {
        // Nothing of the head was sent yet: the client can still be told properly.
        Err(reason) if download.written == 0 && reason != Reason::ClientGone => {
            x.body_out = 0;
            x.first_byte_at = None;
            let keep = keep_unless_broken(s, upload);
            fail(conn, worker, s, x, reason, None, keep).await
        }
        // The response is cut, and a reset keeps the client from taking it for complete. A call of gRPC
        // is told why: its status comes last.
        Err(reason) => {
            x.reason = Some(reason);
            if let Some(channel) = conn.stream.channel()
                && reason != Reason::ClientGone
                && grpc::is_call(&s.head, s.inbound.filled())
                && channel.finish(Some(grpc::trailers(reason))).is_ok()
            {
                return After::Then(Next::Close);
            }
            After::Then(Next::Reset)
        }
        Ok(()) if close || !upload.flow.has_read_all() || upload.broken => {
            After::Then(if s.head.keep_alive || !request_read {
                Next::Linger
            } else {
                Next::Close
            })
        }
        Ok(()) => After::KeepAlive {
            used: upload.flow.cursor(),
        },
    }
}

/// Swaps the response's buffer for a larger one, if there is one to lend.
fn widen(worker: &Worker, s: &mut Scratch) {
    let Some(mut bulk) = worker.take_bulk() else {
        return s.response.compact();
    };
    if bulk.push(s.response.filled()) < s.response.len() {
        worker.give_back(bulk);
        return s.response.compact();
    }
    worker.give_back(std::mem::replace(&mut s.response, bulk));
}
