//! What the writer of a stream may send.

use std::io;
use std::task::{Context, Poll};

use http::HeaderMap;

use crate::http2::frame::{self, Code, HEADER, MAX_FRAME, flag, kind};
use crate::http2::head::{self, HeadError, Outbound, Reply};

use super::stream::{Key, StreamError};
use super::{Mux, OUT_FULL, Role};

impl Mux {
    /// Opens a stream with the request at the front of `text`: what it is, and how long the head was.
    pub(in crate::http2) fn poll_ask(
        &mut self,
        cx: &Context<'_>,
        text: &[u8],
        fallback: &str,
        is_encrypted: bool,
    ) -> Poll<Result<(Key, usize), AskError>> {
        if self.takes_no_more() {
            return Poll::Ready(Err(AskError::Refused));
        }
        let mut lines = std::mem::take(&mut self.lines);
        let asked = self.ask(cx, text, &mut lines, fallback, is_encrypted);
        self.lines = lines;
        asked
    }

    fn ask(
        &mut self,
        cx: &Context<'_>,
        text: &[u8],
        lines: &mut Vec<head::Line>,
        fallback: &str,
        is_encrypted: bool,
    ) -> Poll<Result<(Key, usize), AskError>> {
        let request = match head::read_request(text, lines, fallback) {
            Ok(request) => request,
            Err(error) => return Poll::Ready(Err(AskError::Inexpressible(error))),
        };
        // Heads wait as bodies do, for an endpoint that does not read.
        let is_full =
            self.streams.open() >= self.theirs.max_streams as usize || self.pending() >= OUT_FULL;
        // RFC 8441 section 3: the other end says so in its SETTINGS, which may be on their way.
        let is_unknown = request.accept.is_some() && !self.theirs.connects;
        if is_unknown && self.has_settings {
            return Poll::Ready(Err(AskError::Inexpressible(HeadError::Upgrade)));
        }
        if is_full || is_unknown {
            self.wait_to_open(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.open_with(request, lines, is_encrypted)))
    }

    fn open_with(
        &mut self,
        request: Outbound<'_>,
        lines: &[head::Line],
        is_encrypted: bool,
    ) -> (Key, usize) {
        let id = self.next_ours;
        self.next_ours += 2;
        let start = self.begin_block();
        request.write(&mut self.out, &mut self.encoder, lines, is_encrypted);
        let is_whole = request.length == Some(0);
        self.end_block(start, id, is_whole);
        let key = self.streams.insert(id);
        let (window_in, window_out) = (self.window_of_new(), self.theirs.window.into());
        let stream = &mut self.streams[key];
        stream.window_in = window_in;
        stream.window_out = window_out;
        stream.is_head = request.is_head;
        stream.opens = request.accept.is_some();
        stream.accept = request.accept;
        stream.left = request.length;
        stream.has_begun = true;
        stream.has_ended = is_whole;
        self.held += 1;
        (key, request.end)
    }

    /// Sends the response's head at the front of `text`: how long it is. `is_all`: nothing follows.
    pub(in crate::http2) fn reply(
        &mut self,
        key: Key,
        text: &[u8],
        is_all: bool,
    ) -> io::Result<usize> {
        let stream = &self.streams[key];
        if let Some(error) = stream.error {
            return Err(error.into());
        }
        let (opens, is_head) = (stream.opens, stream.is_head);
        let mut lines = std::mem::take(&mut self.lines);
        let sent = head::read_response(text, &mut lines, opens).map(|reply| {
            let is_interim = reply.status < 200;
            let is_whole = !is_interim
                && (is_all
                    || is_head
                    || reply.length == Some(0)
                    || matches!(reply.status, 204 | 304));
            self.answer(key, &reply, &lines, is_interim, is_whole);
            reply.end
        });
        self.lines = lines;
        sent.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    fn answer(
        &mut self,
        key: Key,
        reply: &Reply<'_>,
        lines: &[head::Line],
        is_interim: bool,
        is_whole: bool,
    ) {
        let start = self.begin_block();
        reply.write(&mut self.out, &mut self.encoder, lines);
        let stream = &mut self.streams[key];
        if !is_interim {
            stream.has_begun = true;
            stream.left = reply.length;
            stream.has_ended = is_whole;
        }
        let id = stream.id;
        self.end_block(start, id, is_whole);
        self.close_if_over(key);
    }

    /// Whether its final head was sent.
    pub(in crate::http2) fn has_begun(&self, key: Key) -> bool {
        self.streams[key].has_begun
    }

    /// Sends what the other end's windows and our own room let pass of `bytes`, as one frame.
    pub(in crate::http2) fn poll_write(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let pending = self.pending();
        let max = self.theirs.max_frame;
        let window = self.window_out;
        let turn = self.turn;
        let stream = &mut self.streams[key];
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error.into()));
        }
        if stream.has_ended {
            // More than the head said.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = stream.window_out.min(window).max(0) as usize;
        let n = bytes.len().min(max).min(room);
        // A frame each while several wait: one that always has more would leave nothing to the others. What it
        // wrote in this turn is still to be sent, and then there is another turn.
        let has_written = stream.wrote_in == turn;
        let is_others_turn = has_written && self.woken > 1;
        if n == 0 || pending >= OUT_FULL || is_others_turn {
            stream.wants_write = true;
            stream.wait(cx);
            // Its own window it waits for by itself.
            if stream.window_out > 0 && !std::mem::replace(&mut stream.is_blocked, true) {
                let place = (key, stream.id);
                if has_written {
                    self.blocked.push_back(place);
                } else {
                    self.blocked.push_front(place);
                }
            }
            return Poll::Pending;
        }
        stream.wrote_in = turn;
        if stream.left.is_some_and(|left| left < n as u64) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        stream.left = stream.left.map(|left| left - n as u64);
        stream.has_ended = stream.left == Some(0);
        stream.window_out -= n as i64;
        self.window_out -= n as i64;
        let flags = if stream.has_ended {
            flag::END_STREAM
        } else {
            0
        };
        frame::begin(&mut self.out, n, kind::DATA, flags, stream.id);
        self.out.extend_from_slice(&bytes[..n]);
        self.close_if_over(key);
        self.touch();
        Poll::Ready(Ok(n))
    }

    /// The body has this many more bytes, unless its length was told in the head.
    pub(in crate::http2) fn ends_after(&mut self, key: Key, bytes: u64) {
        let stream = &mut self.streams[key];
        if stream.has_begun {
            stream.left.get_or_insert(bytes);
        }
    }

    /// The body is complete.
    ///
    /// # Errors
    /// It is not: the head told a length, and some of it is missing. Or it has not begun.
    pub(in crate::http2) fn finish(
        &mut self,
        key: Key,
        trailers: Option<&HeaderMap>,
    ) -> io::Result<()> {
        let stream = &mut self.streams[key];
        if !stream.has_begun || stream.left.is_some_and(|left| left > 0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if stream.has_ended {
            return Ok(());
        }
        if let Some(error) = stream.error {
            return Err(error.into());
        }
        stream.has_ended = true;
        let id = stream.id;
        match trailers {
            Some(trailers) => {
                let start = self.begin_block();
                head::write_trailers(&mut self.out, &mut self.encoder, trailers);
                self.end_block(start, id, true);
            }
            None => frame::begin(&mut self.out, 0, kind::DATA, flag::END_STREAM, id),
        }
        self.close_if_over(key);
        self.touch();
        Ok(())
    }

    // === giving up ===

    /// Gives the stream up for `code`, if it is not over.
    pub(in crate::http2) fn give_up(&mut self, key: Key, code: Code) {
        let stream = &mut self.streams[key];
        if stream.is_closed() {
            return;
        }
        let id = stream.id;
        frame::reset(&mut self.out, id, code);
        stream.fail(StreamError::Given(code));
        if let Some(at) = self.accepted.iter().position(|accepted| *accepted == key) {
            // Nobody has looked at it yet, and nobody will.
            self.accepted.remove(at);
            self.forget(key);
        } else {
            self.close(key);
        }
        self.remember(id);
        self.touch();
    }

    /// Whether all that is to be sent on it was.
    pub(in crate::http2) fn has_ended(&self, key: Key) -> bool {
        self.streams[key].has_ended
    }

    /// Nobody has the stream any more.
    pub(in crate::http2) fn release(&mut self, key: Key) {
        // RFC 9113 section 8.1: who was answered whole need not send the rest.
        let is_answered = self.role == Role::Server && self.streams[key].has_ended;
        if is_answered && self.streams[key].due == Some(0) {
            self.let_end(key);
        } else {
            let code = if is_answered {
                Code::NO_ERROR
            } else {
                Code::CANCEL
            };
            self.give_up(key, code);
        }
        self.forget(key);
    }

    /// Lets the other end say that it has said all, which it has: the length it told is here, and many a client tells
    /// the end in a frame of its own. A reset could cross that, and clients have taken it for a failure.
    fn let_end(&mut self, key: Key) {
        let stream = &mut self.streams[key];
        if !stream.is_closed() {
            let id = stream.id;
            self.close(key);
            self.remember(id);
        }
    }

    /// Lets go of a stream.
    pub(super) fn forget(&mut self, key: Key) {
        let unread = self.streams[key].inbox.len() as u32 + self.input.disown(key);
        self.streams.remove(key);
        self.held -= 1;
        if unread > 0 {
            self.free_connection(unread);
        }
        self.opened_up();
        if self.streams.len() == 0 {
            self.rest();
        }
        if self.wants_to_end() {
            self.touch();
        }
    }

    /// Both ends have said all.
    pub(super) fn close_if_over(&mut self, key: Key) {
        if self.streams[key].is_closed() {
            self.close(key);
        }
    }

    /// No more frames of it come or go.
    pub(super) fn close(&mut self, key: Key) {
        self.streams.close(key);
        self.opened_up();
        if self.wants_to_end() {
            self.touch();
        }
    }

    fn wait_to_open(&mut self, cx: &Context<'_>) {
        if !self.opening.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.opening.push(cx.waker().clone());
        }
    }

    /// Those that wait to open a stream may try again.
    pub(super) fn opened_up(&mut self) {
        for waker in self.opening.drain(..) {
            waker.wake();
        }
    }

    /// Those that wait for room may try again.
    pub(super) fn unblock(&mut self) {
        if self.window_out <= 0 || self.pending() >= OUT_FULL {
            return;
        }
        self.turn = self.turn.wrapping_add(1).max(1);
        self.woken = self.blocked.len();
        for _ in 0..self.blocked.len() {
            let Some((key, id)) = self.blocked.pop_front() else {
                break;
            };
            // It may have been let go meanwhile, and another one have its place.
            if self.streams.find(id) == Some(key) {
                let stream = &mut self.streams[key];
                stream.is_blocked = false;
                stream.wake_writer();
            }
        }
    }

    /// An idle connection holds no memory that comes again with the next stream.
    fn rest(&mut self) {
        self.blocked = std::collections::VecDeque::new();
        self.accepted = std::collections::VecDeque::new();
        self.lines = Vec::new();
    }

    // === header blocks ===

    /// Begins a frame of fields; where it begins.
    fn begin_block(&mut self) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER]);
        start
    }

    /// Ends it: its header is written, and what is beyond a frame goes into more of them.
    fn end_block(&mut self, start: usize, stream: u32, has_end: bool) {
        let length = self.out.len() - start - HEADER;
        let end = if has_end { flag::END_STREAM } else { 0 };
        if length <= MAX_FRAME {
            self.put_header(
                start,
                length,
                kind::HEADERS,
                end | flag::END_HEADERS,
                stream,
            );
        } else {
            let rest = self.out.split_off(start + HEADER + MAX_FRAME);
            self.put_header(start, MAX_FRAME, kind::HEADERS, end, stream);
            let mut pieces = rest.chunks(MAX_FRAME).peekable();
            while let Some(piece) = pieces.next() {
                let is_last = pieces.peek().is_none();
                let flags = if is_last { flag::END_HEADERS } else { 0 };
                let out = &mut self.out;
                frame::begin(out, piece.len(), kind::CONTINUATION, flags, stream);
                out.extend_from_slice(piece);
            }
        }
        self.touch();
    }

    fn put_header(&mut self, at: usize, length: usize, kind: u8, flags: u8, stream: u32) {
        let header = frame::Header {
            length: length as u32,
            kind,
            flags,
            stream,
        };
        if let Some(place) = self.out.get_mut(at..at + HEADER) {
            place.copy_from_slice(&header.to_bytes());
        }
    }
}

/// Why a request was not sent.
#[derive(Debug)]
pub(in crate::http2) enum AskError {
    /// The connection takes no more streams.
    Refused,
    /// It cannot be said in HTTP/2.
    Inexpressible(HeadError),
}
