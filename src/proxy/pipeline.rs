//! How many requests of one connection waited together: what `max_pipelined` bounds.
//!
//! Requests are counted in batches. A batch is what lies in the buffer when its first request
//! begins; what comes later belongs to the next one, so a client that is always one request ahead
//! never has more than one waiting, however many it sends in all.

use crate::http1::{RequestBody, RequestHead};

/// The batch of one connection.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// Bytes of the batch that were not served yet.
    waiting: usize,
    /// Requests of it that were begun.
    begun: u32,
}

/// Whether a request is the last one of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// More wait behind it than may.
    Exceeded,
    /// Another one may follow.
    Within,
}

// === impl Pipeline ===

impl Pipeline {
    /// A request begins, `in_hand` bytes from its first one on are in the buffer.
    pub(super) fn begin(&mut self, head: &RequestHead, in_hand: usize, max: u32) -> Depth {
        if self.waiting == 0 {
            self.waiting = in_hand;
            self.begun = 0;
        }
        self.begun += 1;
        let body = match head.body {
            // How long a chunked one is nobody knows yet: it is taken for requests that wait.
            RequestBody::Chunked | RequestBody::None => 0,
            RequestBody::Length(n) => usize::try_from(n).unwrap_or(usize::MAX),
        };
        if self.begun >= max && self.waiting > head.head_len().saturating_add(body) {
            Depth::Exceeded
        } else {
            Depth::Within
        }
    }

    /// It is over: it had `bytes`, and `left` are in the buffer behind it.
    pub(super) fn end(&mut self, bytes: u64, left: usize) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // The framing of chunks is not in `bytes`, hence the second bound.
        self.waiting = self.waiting.saturating_sub(bytes).min(left);
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::Limits;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn head(text: &str) -> RequestHead {
        let mut head = RequestHead::new();
        head.parse(text.as_bytes(), &Limits::default()).unwrap();
        head
    }

    /// Serves what is in the buffer; how many requests until the end is told.
    fn served(pipeline: &mut Pipeline, request: &str, waiting: usize, max: u32) -> usize {
        let head = head(request);
        for n in 1..=waiting {
            let left = (waiting - n) * request.len();
            if pipeline.begin(&head, request.len() + left, max) == Depth::Exceeded {
                return n;
            }
            pipeline.end(request.len() as u64, left);
        }
        waiting
    }

    #[test]
    fn as_many_as_allowed_may_wait() {
        let mut pipeline = Pipeline::default();
        for _ in 0..5 {
            assert_eq!(served(&mut pipeline, GET, 4, 4), 4);
        }
        assert_eq!(served(&mut pipeline, GET, 5, 4), 4);
        assert_eq!(served(&mut Pipeline::default(), GET, 2, 1), 1);
        assert_eq!(served(&mut Pipeline::default(), GET, 1, 1), 1);
    }

    #[test]
    fn bodies_do_not_wait() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        let mut pipeline = Pipeline::default();
        assert_eq!(served(&mut pipeline, post, 4, 4), 4);
        assert_eq!(served(&mut pipeline, post, 9, 4), 4);
    }

    /// Seen red: the count went on as long as the buffer was never empty, so such a client was cut
    /// off after `max_pipelined` requests.
    #[test]
    fn one_request_ahead_is_never_too_many() {
        let head = head(GET);
        let mut pipeline = Pipeline::default();
        for _ in 0..100 {
            // The next one came while this one was served.
            assert_eq!(pipeline.begin(&head, GET.len(), 1), Depth::Within);
            pipeline.end(GET.len() as u64, GET.len());
        }
    }

    #[test]
    fn framing_of_chunks_is_forgotten_by_the_next_request_but_one() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (head, all) = (head(post), post.len() + "1\r\nx\r\n0\r\n\r\n".len());
        let mut pipeline = Pipeline::default();
        for _ in 0..100 {
            assert_eq!(pipeline.begin(&head, all, 3), Depth::Within);
            pipeline.end(post.len() as u64 + 1, all);
        }
    }
}
