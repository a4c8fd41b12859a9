//! What serving requests needs, lent by an exchanger to one connection after the other.

use crate::base::buffer::Buffer;
use crate::http1::{RequestHead, ResponseHead};

use super::worker::Worker;

/// What serving a request needs; lives as long as its exchanger and is used again.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Bytes from the client: the head stays at the front for the whole exchange.
    pub(super) inbound: Buffer,
    /// The request's head, as spans of `inbound`.
    pub(super) head: RequestHead,
    /// The response's head, as spans of `response`.
    pub(super) reply: ResponseHead,
    /// The head (and chunk framing) on its way to the endpoint.
    pub(super) to_endpoint: Vec<u8>,
    /// The head (and chunk framing) on its way to the client.
    pub(super) to_client: Vec<u8>,
    /// Bytes from the endpoint; lent by the worker while there are any.
    pub(super) response: Buffer,
    /// The path with its dots resolved, where it had any.
    pub(super) path: String,
    /// Text of answers of ours.
    pub(super) text: String,
    /// The hash key, where it is no part of the head.
    pub(super) key: Vec<u8>,
    /// The `Set-Cookie` value that goes with the response; empty = none.
    pub(super) cookie: Vec<u8>,
}

/// Room for the heads of nearly all requests (the browsers' are 0.5 to 2 KiB) and the first body
/// bytes; a larger head grows the buffer up to `max_header_bytes`.
pub(super) const INBOUND: usize = 8 * 1024;

// === impl Scratch ===

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            inbound: Buffer::with_capacity(INBOUND),
            head: RequestHead::new(),
            reply: ResponseHead::new(),
            to_endpoint: Vec::with_capacity(2048),
            to_client: Vec::with_capacity(2048),
            response: Buffer::none(),
            path: String::new(),
            text: String::new(),
            key: Vec::new(),
            cookie: Vec::new(),
        }
    }

    /// Ready for another connection: what one large message made grow is given back.
    pub(super) fn reset(&mut self, worker: &Worker) {
        if self.inbound.capacity() > INBOUND {
            self.inbound = Buffer::with_capacity(INBOUND);
        }
        self.inbound.clear();
        for out in [&mut self.to_endpoint, &mut self.to_client] {
            out.clear();
            out.shrink_to(64 * 1024);
        }
        if !self.response.is_none() {
            worker.give_back(std::mem::replace(&mut self.response, Buffer::none()));
        }
    }
}
