//! A client's stream.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::HeaderMap;

use crate::base::buffer::Buffer;
use crate::base::stream::Channel;

use super::frame::Code;
use super::mux::{Key, Mux};

/// One request of a client and the response to it.
#[derive(Debug)]
pub struct ServerStream {
    mux: Rc<RefCell<Mux>>,
    key: Key,
    /// The next head is all there will be.
    ends_with_head: bool,
    is_encrypted: bool,
}

// === impl ServerStream ===

impl ServerStream {
    /// The stream at `key`, which is nobody else's.
    pub(super) fn new(mux: Rc<RefCell<Mux>>, key: Key, is_encrypted: bool) -> Self {
        Self {
            mux,
            key,
            ends_with_head: false,
            is_encrypted,
        }
    }
}

impl Drop for ServerStream {
    fn drop(&mut self) {
        self.mux.borrow_mut().release(self.key);
    }
}

impl Channel for ServerStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        self.mux.borrow_mut().poll_read(self.key, cx, into)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mux.borrow_mut().poll_readable(self.key, cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut mux = self.mux.borrow_mut();
        if mux.has_begun(self.key) {
            mux.poll_write(self.key, cx, bytes)
        } else {
            Poll::Ready(mux.reply(self.key, bytes, self.ends_with_head))
        }
    }

    fn take_end(&mut self) -> Option<HeaderMap> {
        self.mux.borrow_mut().take_end(self.key)
    }

    fn has_only_head(&self) -> bool {
        self.mux.borrow().has_only_head(self.key)
    }

    fn end_with_head(&mut self) {
        self.ends_with_head = true;
    }

    fn ends_after(&mut self, bytes: u64) {
        self.mux.borrow_mut().ends_after(self.key, bytes);
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        self.mux.borrow_mut().finish(self.key, trailers.as_ref())
    }

    fn reset(&mut self) {
        // RFC 9113 section 8.1: what was begun is not whole; what was not, may be asked for again.
        let mut mux = self.mux.borrow_mut();
        if !mux.has_ended(self.key) {
            mux.give_up(self.key, Code::INTERNAL_ERROR);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.mux.borrow_mut().poll_gone(self.key, cx)
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
