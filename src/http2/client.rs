//! A stream to an endpoint.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;

use crate::base::buffer::Buffer;
use crate::base::stream::Channel;

use super::frame::Code;
use super::head::HeadError;
use super::mux::{AskError, Key, Mux, StreamError};

/// A connection to an endpoint, shared by its streams.
#[derive(Debug)]
pub struct Link {
    mux: Rc<RefCell<Mux>>,
    /// Streams that somebody has, those included that are not open yet.
    streams: Cell<u32>,
    is_encrypted: bool,
    /// What `:authority` says where a request names no host.
    name: Box<str>,
}

/// One request to an endpoint and the response to it.
#[derive(Debug)]
pub struct ClientStream {
    link: Rc<Link>,
    /// Once the request was sent.
    key: Option<Key>,
    /// What the connection had said when the request was sent.
    heard: u64,
    was_refused: bool,
}

// === impl Link ===

impl Link {
    pub(super) fn new(mux: Rc<RefCell<Mux>>, is_encrypted: bool, name: &str) -> Self {
        Self {
            mux,
            streams: Cell::new(0),
            is_encrypted,
            name: name.into(),
        }
    }

    /// Whether one more stream may be opened, of `max` at most.
    pub fn has_room(&self, max: u32) -> bool {
        let mux = self.mux.borrow();
        !mux.takes_no_more() && self.streams.get() < max.min(mux.allowed())
    }

    /// Streams that somebody has.
    pub fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// Opens no more streams.
    pub fn retire(&self) {
        self.mux.borrow_mut().retire();
    }

    /// Whether it opens no more streams.
    pub fn is_closing(&self) -> bool {
        self.mux.borrow().takes_no_more()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Nobody has a stream on it, and nobody keeps it for more.
        self.retire();
    }
}

// === impl ClientStream ===

impl ClientStream {
    /// A stream on `link`, counted while it lives.
    pub fn new(link: Rc<Link>) -> Self {
        link.streams.set(link.streams.get() + 1);
        Self {
            link,
            key: None,
            heard: 0,
            was_refused: false,
        }
    }

    /// Nothing comes before it is opened; ready if it never will be.
    fn poll_unopened(&self) -> Poll<io::Error> {
        if self.was_refused {
            return Poll::Ready(StreamError::Ended.into());
        }
        Poll::Pending
    }

    fn poll_ask(&mut self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let link = &self.link;
        let mut mux = link.mux.borrow_mut();
        match ready!(mux.poll_ask(cx, bytes, &link.name, link.is_encrypted)) {
            Ok((key, end)) => {
                self.heard = mux.heard();
                self.key = Some(key);
                Poll::Ready(Ok(end))
            }
            // Nothing was sent at all.
            Err(AskError::Refused) => {
                self.was_refused = true;
                Poll::Ready(Err(StreamError::Ended.into()))
            }
            Err(AskError::Inexpressible(error)) => {
                let kind = match error {
                    HeadError::Upgrade => io::ErrorKind::Unsupported,
                    HeadError::Malformed => io::ErrorKind::InvalidInput,
                };
                Poll::Ready(Err(io::Error::new(kind, error)))
            }
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.link.mux.borrow_mut().release(key);
        }
        self.link.streams.set(self.link.streams.get() - 1);
    }
}

impl Channel for ClientStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        match self.key {
            Some(key) => self.link.mux.borrow_mut().poll_read(key, cx, into),
            None => self.poll_unopened().map(Err),
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.key {
            Some(key) => self.link.mux.borrow_mut().poll_readable(key, cx),
            None => self.poll_unopened().map(Err),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.key {
            Some(key) => self.link.mux.borrow_mut().poll_write(key, cx, bytes),
            None => self.poll_ask(cx, bytes),
        }
    }

    fn take_end(&mut self) -> Option<HeaderMap> {
        self.link.mux.borrow_mut().take_end(self.key?)
    }

    fn has_only_head(&self) -> bool {
        self.key
            .is_some_and(|key| self.link.mux.borrow().has_only_head(key))
    }

    fn end_with_head(&mut self) {
        // The head of a request says so itself.
    }

    fn ends_after(&mut self, bytes: u64) {
        if let Some(key) = self.key {
            self.link.mux.borrow_mut().ends_after(key, bytes);
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        match self.key {
            None => Err(io::ErrorKind::InvalidInput.into()),
            Some(key) => self.link.mux.borrow_mut().finish(key, trailers.as_ref()),
        }
    }

    fn reset(&mut self) {
        if let Some(key) = self.key {
            self.link.mux.borrow_mut().give_up(key, Code::CANCEL);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.key {
            Some(key) => self.link.mux.borrow_mut().poll_gone(key, cx),
            None => self.poll_unopened(),
        }
    }

    fn suspect(&mut self) {
        let heard = self.link.mux.borrow().heard();
        if heard == self.heard {
            self.link.retire();
        }
    }

    fn was_refused(&self) -> bool {
        let error = self.key.and_then(|key| self.link.mux.borrow().error(key));
        // RFC 9113 sections 8.7 and 6.8: either of them says that nothing was done, the second whatever its code.
        let is_undone = matches!(
            error,
            Some(StreamError::Reset(Code::REFUSED_STREAM) | StreamError::Goodbye(_))
        );
        self.was_refused || is_undone
    }

    fn is_encrypted(&self) -> bool {
        self.link.is_encrypted
    }
}
