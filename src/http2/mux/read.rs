//! What the reader of a stream gets.

use std::io;
use std::task::{Context, Poll};

use http::HeaderMap;

use crate::base::buffer::Buffer;

use super::Mux;
use super::stream::{KEPT, Key};

impl Mux {
    /// As [`Channel::poll_read`](crate::base::stream::Channel::poll_read).
    pub(in crate::http2) fn poll_read(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        into: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let stream = &mut self.streams[key];
        let mut n = 0;
        if !stream.text.is_empty() {
            n = into.push(stream.text.unread());
            stream.text.consume(n);
            if !stream.text.is_empty() {
                return Poll::Ready(Ok(n));
            }
        }
        // A small body comes with its head.
        if !stream.inbox.is_empty() {
            let read = into.push(stream.inbox.unread());
            stream.inbox.consume(read);
            stream.inbox.shrink(KEPT);
            n += read;
            // What was taken may come again: the window is what bounds the memory of a stream.
            self.free(key, read as u32);
            return Poll::Ready(Ok(n));
        }
        if n > 0 {
            return Poll::Ready(Ok(n));
        }
        let is_over = stream.is_end_taken || stream.is_only_head;
        if stream.has_end && !is_over {
            return Poll::Ready(Ok(0));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error.into()));
        }
        stream.wants_read = true;
        stream.wait(cx);
        Poll::Pending
    }

    /// As [`Channel::poll_readable`](crate::base::stream::Channel::poll_readable).
    pub(in crate::http2) fn poll_readable(
        &mut self,
        key: Key,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &mut self.streams[key];
        let is_over = stream.is_end_taken || stream.is_only_head;
        if !stream.text.is_empty() || !stream.inbox.is_empty() || stream.has_end && !is_over {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error.into()));
        }
        stream.wants_read = true;
        stream.wait(cx);
        Poll::Pending
    }

    /// As [`Channel::take_end`](crate::base::stream::Channel::take_end).
    pub(in crate::http2) fn take_end(&mut self, key: Key) -> Option<HeaderMap> {
        let stream = &mut self.streams[key];
        let is_here = stream.has_end && stream.text.is_empty() && stream.inbox.is_empty();
        if !is_here || std::mem::replace(&mut stream.is_end_taken, true) {
            return None;
        }
        // An empty map has no memory.
        Some(stream.trailers.take().unwrap_or_default())
    }

    /// Whether the head is all there is.
    pub(in crate::http2) fn has_only_head(&self, key: Key) -> bool {
        self.streams[key].is_only_head
    }

    /// Ready once the stream was given up, by whomever.
    pub(in crate::http2) fn poll_gone(&mut self, key: Key, cx: &Context<'_>) -> Poll<io::Error> {
        let stream = &mut self.streams[key];
        if let Some(error) = stream.error {
            return Poll::Ready(error.into());
        }
        stream.wait(cx);
        Poll::Pending
    }
}
