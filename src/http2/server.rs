//! A client's stream.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, StatusCode};

use crate::base::buffer::Buffer;
use crate::base::stream::Channel;

use super::body::{HeadText, Incoming, Outgoing, gone};
use super::head::{self, Reply};

/// One request of a client and the response to it.
#[derive(Debug)]
pub struct ServerStream {
    head: HeadText,
    incoming: Incoming,
    answer: Answer,
    /// Whether it asked for the head alone.
    is_head: bool,
    /// Whether it opens a WebSocket.
    opens: bool,
    /// The next head is all there will be.
    ends_with_head: bool,
    is_encrypted: bool,
}

#[derive(Debug)]
enum Answer {
    Awaited(SendResponse<Bytes>),
    Begun(Outgoing),
}

// === impl ServerStream ===

impl ServerStream {
    /// The stream of `request`. `random` makes the key of a WebSocket.
    pub fn new(
        request: Request<RecvStream>,
        answer: SendResponse<Bytes>,
        is_encrypted: bool,
        random: impl FnOnce() -> u128,
    ) -> Self {
        let (parts, recv) = request.into_parts();
        let mut text = Vec::with_capacity(512);
        let is_whole = recv.is_end_stream();
        head::write_request(&mut text, &parts, is_whole, random);
        Self {
            head: HeadText::new(text),
            incoming: Incoming::new(recv, is_whole),
            answer: Answer::Awaited(answer),
            is_head: parts.method == Method::HEAD,
            opens: parts.method == Method::CONNECT,
            ends_with_head: false,
            is_encrypted,
        }
    }

    /// Sends the head at the front of `bytes`: how long it is.
    fn send_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let Reply {
            response,
            length,
            end,
        } = head::read_response(bytes, self.opens).map_err(invalid)?;
        let Answer::Awaited(answer) = &mut self.answer else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let status = response.status();
        if status.is_informational() {
            answer
                .send_informational(response)
                .map_err(io::Error::other)?;
            return Ok(end);
        }
        let is_whole = self.ends_with_head
            || length == Some(0)
            || self.is_head
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let send = answer
            .send_response(response, is_whole)
            .map_err(io::Error::other)?;
        self.answer = Answer::Begun(Outgoing::new(send, length, is_whole));
        Ok(end)
    }
}

impl Channel for ServerStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        if !self.head.is_read() {
            return Poll::Ready(Ok(self.head.read(cx, into, Some(&mut self.incoming))));
        }
        if self.incoming.is_over() {
            return Poll::Ready(Err(ready!(self.poll_gone(cx))));
        }
        self.incoming.poll_read(cx, into)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.head.is_read() {
            return Poll::Ready(Ok(()));
        }
        if self.incoming.is_over() {
            return Poll::Ready(Err(ready!(self.poll_gone(cx))));
        }
        self.incoming.poll_fill(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.answer {
            Answer::Awaited(_) => Poll::Ready(self.send_head(bytes)),
            Answer::Begun(outgoing) => outgoing.poll_write(cx, bytes),
        }
    }

    fn take_end(&mut self) -> Option<HeaderMap> {
        if !self.head.is_read() {
            return None;
        }
        self.incoming.take_end()
    }

    fn has_only_head(&self) -> bool {
        self.incoming.is_over()
    }

    fn end_with_head(&mut self) {
        self.ends_with_head = true;
    }

    fn ends_after(&mut self, bytes: u64) {
        if let Answer::Begun(outgoing) = &mut self.answer {
            outgoing.ends_after(bytes);
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        match &mut self.answer {
            Answer::Awaited(_) => Err(io::ErrorKind::InvalidInput.into()),
            Answer::Begun(outgoing) => outgoing.finish(trailers),
        }
    }

    fn reset(&mut self) {
        // RFC 9113 section 8.1: what was begun is not whole; what was not, may be asked for again.
        match &mut self.answer {
            Answer::Awaited(answer) => answer.send_reset(Reason::INTERNAL_ERROR),
            Answer::Begun(outgoing) if !outgoing.has_ended() => {
                outgoing.reset(Reason::INTERNAL_ERROR);
            }
            Answer::Begun(_) => {}
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.answer {
            Answer::Awaited(answer) => gone(ready!(answer.poll_reset(cx))),
            Answer::Begun(outgoing) => outgoing.poll_gone(cx),
        }
    }

    fn suspect(&mut self) {
        // Of a client nothing is asked.
    }

    fn was_refused(&self) -> bool {
        false
    }

    fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}
