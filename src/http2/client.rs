//! A stream to an endpoint.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::uri::Scheme;
use http::{HeaderMap, Method, response};

use crate::base::buffer::Buffer;
use crate::base::stream::Channel;

use super::body::{HeadText, Incoming, Outgoing};
use super::head::{self, HeadError, Outbound};

/// A connection to an endpoint, shared by its streams.
#[derive(Debug)]
pub struct Link {
    send: RefCell<SendRequest<Bytes>>,
    /// Streams open.
    streams: Cell<u32>,
    /// No new stream is to be opened on it.
    is_closing: Cell<bool>,
    /// Moves with all that comes on any of its streams.
    heard: Cell<u64>,
    is_encrypted: bool,
    /// What `:authority` says where a request names no host.
    name: Box<str>,
    /// Who waits to learn what the other end allows.
    unsettled: RefCell<Vec<Waker>>,
}

/// Streams that `h2` is told to assume before the other end's SETTINGS: a number that those, of 32 bits,
/// cannot bring, so that it shows whether they have come.
pub const UNSETTLED: usize = usize::MAX - 1;

/// Streams opened before the other end's SETTINGS: fewer it should not allow (RFC 9113 section 6.5.2).
const BEFORE_SETTINGS: u32 = 100;

/// One request to an endpoint and the response to it.
#[derive(Debug)]
pub struct ClientStream {
    link: Rc<Link>,
    state: State,
    outgoing: Option<Outgoing>,
    head: HeadText,
    is_head: bool,
    accept: Option<String>,
    /// What the connection had said when the request was sent.
    heard: u64,
    was_refused: bool,
    has_only_head: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing was sent.
    Idle,
    /// The request is on its way.
    Awaiting(ResponseFuture),
    /// The response has begun.
    Begun(Incoming),
    /// It broke.
    Broken,
}

// === impl Link ===

impl Link {
    /// A connection on which `send` opens streams.
    pub fn new(send: SendRequest<Bytes>, is_encrypted: bool, name: &str) -> Self {
        Self {
            send: RefCell::new(send),
            streams: Cell::new(0),
            is_closing: Cell::new(false),
            heard: Cell::new(0),
            is_encrypted,
            name: name.into(),
            unsettled: RefCell::default(),
        }
    }

    /// Whether one more stream may be opened, of `max` at most.
    pub fn has_room(&self, max: u32) -> bool {
        let allowed = match self.send.borrow().current_max_send_streams() {
            UNSETTLED => BEFORE_SETTINGS,
            allowed => u32::try_from(allowed).unwrap_or(u32::MAX),
        };
        !self.is_closing.get() && self.streams.get() < max.min(allowed)
    }

    /// Whether the other end's SETTINGS have come; who waits for them is told.
    pub fn is_settled(&self) -> bool {
        let is_settled = self.send.borrow().current_max_send_streams() != UNSETTLED;
        if is_settled {
            self.wake_unsettled();
        }
        is_settled
    }

    fn hear(&self) {
        self.heard.set(self.heard.get() + 1);
    }

    fn wake_unsettled(&self) {
        for waker in self.unsettled.take() {
            waker.wake();
        }
    }

    /// Streams open.
    pub fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// Opens no more streams.
    pub fn retire(&self) {
        self.is_closing.set(true);
        self.wake_unsettled();
    }

    /// Whether it opens no more streams.
    pub fn is_closing(&self) -> bool {
        self.is_closing.get()
    }
}

// === impl ClientStream ===

impl ClientStream {
    /// A stream on `link`, counted while it lives.
    pub fn new(link: Rc<Link>) -> Self {
        link.streams.set(link.streams.get() + 1);
        Self {
            link,
            state: State::Idle,
            outgoing: None,
            head: HeadText::default(),
            is_head: false,
            accept: None,
            heard: 0,
            was_refused: false,
            has_only_head: false,
        }
    }

    fn poll_send_head(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let link = self.link.clone();
        let mut send = link.send.borrow_mut();
        match send.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.refused(error))),
            Poll::Pending => {
                // Somebody's stream waits for the other end's leave. A handle remembers the last one that
                // does, and wakes one task; a fresh one does not wait for it.
                let fresh = send.clone();
                *send = fresh;
                ready!(send.poll_ready(cx)).map_err(io::Error::other)?;
            }
        }
        let scheme = if self.link.is_encrypted {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let Outbound {
            request,
            length,
            accept,
            end,
        } = head::read_request(bytes, scheme, &self.link.name).map_err(inexpressible)?;
        if accept.is_some() && !send.is_extended_connect_protocol_enabled() {
            // RFC 8441 section 3: it says so in its SETTINGS, which may be on their way.
            if send.current_max_send_streams() == UNSETTLED {
                self.link.unsettled.borrow_mut().push(cx.waker().clone());
                return Poll::Pending;
            }
            return Poll::Ready(Err(inexpressible(HeadError::Upgrade)));
        }
        let is_whole = length == Some(0);
        self.is_head = request.method() == Method::HEAD;
        self.accept = accept;
        match send.send_request(request, is_whole) {
            Ok((response, stream)) => self.begin(response, stream, length, is_whole),
            Err(error) => return Poll::Ready(Err(self.refused(error))),
        }
        Poll::Ready(Ok(end))
    }

    /// The connection takes no more streams: nothing was sent at all.
    fn refused(&mut self, error: h2::Error) -> io::Error {
        self.link.retire();
        self.was_refused = true;
        self.state = State::Broken;
        io::Error::other(error)
    }

    fn begin(
        &mut self,
        response: ResponseFuture,
        stream: SendStream<Bytes>,
        length: Option<u64>,
        is_whole: bool,
    ) {
        self.heard = self.link.heard.get();
        self.state = State::Awaiting(response);
        self.outgoing = Some(Outgoing::new(stream, length, is_whole));
    }

    /// Waits for something to read.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.head.is_read() {
            return Poll::Ready(Ok(()));
        }
        let State::Awaiting(response) = &mut self.state else {
            return match &mut self.state {
                State::Begun(incoming) => incoming.poll_fill(cx),
                State::Idle => Poll::Pending,
                State::Awaiting(_) | State::Broken => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                }
            };
        };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            match interim {
                Ok(interim) => {
                    let (parts, ()) = interim.into_parts();
                    self.write_text(&parts, false);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(self.broke(error))),
            }
        }
        match ready!(std::pin::Pin::new(response).poll(cx)) {
            Ok(response) => {
                let (parts, recv) = response.into_parts();
                self.has_only_head = recv.is_end_stream();
                self.write_text(&parts, self.has_only_head);
                self.state = State::Begun(Incoming::new(recv, self.has_only_head));
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.broke(error))),
        }
    }

    fn write_text(&mut self, parts: &response::Parts, is_whole: bool) {
        self.link.hear();
        let mut text = Vec::with_capacity(512);
        head::write_response(
            &mut text,
            parts.status,
            &parts.headers,
            is_whole,
            self.is_head,
            self.accept.as_deref(),
        );
        self.head = HeadText::new(text);
    }

    fn broke(&mut self, error: h2::Error) -> io::Error {
        // Section 8.7: either of them says that nothing was done.
        let refused = error.is_remote()
            && (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)
                || error.is_go_away() && error.reason() == Some(Reason::NO_ERROR));
        self.was_refused = refused;
        if !error.is_reset() {
            self.link.retire();
        }
        self.state = State::Broken;
        io::Error::other(error)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        self.link.streams.set(self.link.streams.get() - 1);
    }
}

impl Channel for ClientStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        ready!(self.poll_fill(cx))?;
        let body = match &mut self.state {
            State::Begun(incoming) => Some(incoming),
            State::Idle | State::Awaiting(_) | State::Broken => None,
        };
        match body {
            body if !self.head.is_read() => Poll::Ready(Ok(self.head.read(cx, into, body))),
            Some(incoming) => {
                self.link.hear();
                incoming.poll_read(cx, into)
            }
            None => Poll::Pending,
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.outgoing {
            None => self.poll_send_head(cx, bytes),
            Some(outgoing) => outgoing.poll_write(cx, bytes),
        }
    }

    fn take_end(&mut self) -> Option<HeaderMap> {
        if !self.head.is_read() {
            return None;
        }
        match &mut self.state {
            State::Begun(incoming) => incoming.take_end(),
            State::Idle | State::Awaiting(_) | State::Broken => None,
        }
    }

    fn has_only_head(&self) -> bool {
        self.has_only_head
    }

    fn end_with_head(&mut self) {
        // The head of a request says so itself.
    }

    fn ends_after(&mut self, bytes: u64) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.ends_after(bytes);
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        match &mut self.outgoing {
            None => Err(io::ErrorKind::InvalidInput.into()),
            Some(outgoing) => outgoing.finish(trailers),
        }
    }

    fn reset(&mut self) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.reset(Reason::CANCEL);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.poll_gone(cx),
            None => Poll::Pending,
        }
    }

    fn suspect(&mut self) {
        if self.link.heard.get() == self.heard {
            self.link.retire();
        }
    }

    fn was_refused(&self) -> bool {
        self.was_refused
    }

    fn is_encrypted(&self) -> bool {
        self.link.is_encrypted
    }
}

fn inexpressible(error: HeadError) -> io::Error {
    let kind = match error {
        HeadError::Upgrade => io::ErrorKind::Unsupported,
        HeadError::Authority | HeadError::Malformed | HeadError::Target => {
            io::ErrorKind::InvalidInput
        }
    };
    io::Error::new(kind, error)
}
