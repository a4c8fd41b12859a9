//! Header blocks: new streams, responses, trailers (RFC 9113 sections 6.2 and 8).

use crate::http2::frame::{self, Code, Header, flag};
use crate::http2::head::{Asked, Malformed, ResponseText, Trailers};

use super::stream::Key;
use super::{BLOCK_MAX, Mux, RESETS_REMEMBERED, Role};

/// A header block of which pieces have come.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    has_end: bool,
    bytes: Vec<u8>,
    pieces: u32,
}

// === impl Block ===

impl Block {
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    pub(super) fn has_end(&self) -> bool {
        self.has_end
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a piece, of `max`; whether that is within the bounds.
    pub(super) fn add(&mut self, piece: &[u8], max: u32) -> bool {
        self.pieces += 1;
        self.bytes.extend_from_slice(piece);
        self.pieces <= max && self.bytes.len() <= BLOCK_MAX
    }
}

impl Mux {
    pub(super) fn headers(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let block = fragment(header, payload)?;
        // Section 5.1.1: streams are opened by clients, with odd numbers.
        if header.stream.is_multiple_of(2) {
            return Err(Code::PROTOCOL_ERROR);
        }
        let has_end = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.block_of(header.stream, has_end, block);
        }
        self.block = Some(Block {
            stream: header.stream,
            has_end,
            bytes: block.to_vec(),
            pieces: 0,
        });
        Ok(())
    }

    /// Takes a header block that is whole.
    pub(super) fn block_of(
        &mut self,
        stream: u32,
        has_end: bool,
        block: &[u8],
    ) -> Result<(), Code> {
        self.heard += 1;
        match (self.role, self.streams.find(stream)) {
            (Role::Server, None) if stream > self.last_theirs => self.open(stream, has_end, block),
            (Role::Server, Some(key)) => self.trailers(key, has_end, block),
            (Role::Client, Some(key)) if self.streams[key].has_head => {
                self.trailers(key, has_end, block)
            }
            (Role::Client, Some(key)) => self.response(key, has_end, block),
            (_, None) => {
                self.skip(block)?;
                self.expect_late(stream, has_end)
            }
        }
    }

    /// HPACK must stay in step, whoever wants the fields.
    fn skip(&mut self, block: &[u8]) -> Result<(), Code> {
        let decoded = self.decoder.decode(block, |_| {});
        decoded.map_err(|_| Code::COMPRESSION_ERROR)
    }

    /// A request.
    fn open(&mut self, id: u32, has_end: bool, block: &[u8]) -> Result<(), Code> {
        self.last_theirs = id;
        let max = self.limits.max_streams;
        // Streams that are over for the client and that somebody here still has, count beside its own.
        let is_too_many = self.streams.open() >= max as usize || self.held >= max.saturating_mul(2);
        if is_too_many || self.our_goodbye.is_final() {
            self.skip(block)?;
            if !self.our_goodbye.is_final() {
                frame::reset(&mut self.out, id, Code::REFUSED_STREAM);
                self.touch();
            }
            self.remember(id);
            return Ok(());
        }
        let key = self.streams.insert(id);
        let mut text = std::mem::take(&mut self.streams[key].text);
        let random = u128::from(self.salt) << 64 | u128::from(id);
        self.request.begin(self.limits.max_head, random);
        let (request, out) = (&mut self.request, text.tail());
        let decoded = self
            .decoder
            .decode(block, |field| request.field(out, &field));
        decoded.map_err(|_| Code::COMPRESSION_ERROR)?;
        let asked = self.request.finish(text.tail(), has_end);
        let window_in = self.window_of_new();
        let window_out = i64::from(self.theirs.window);
        let stream = &mut self.streams[key];
        stream.text = text;
        let Ok(Asked {
            is_head,
            is_connect,
            length,
        }) = asked
        else {
            self.refuse_malformed(key, id);
            return Ok(());
        };
        if has_end && length.is_some_and(|length| length > 0) {
            self.refuse_malformed(key, id);
            return Ok(());
        }
        stream.window_in = window_in;
        stream.window_out = window_out;
        stream.has_head = true;
        stream.is_head = is_head;
        stream.opens = is_connect;
        stream.has_end = has_end;
        stream.is_only_head = has_end;
        stream.due = length.filter(|_| !is_connect);
        self.held += 1;
        self.accepted.push_back(key);
        Ok(())
    }

    /// A request that is none (section 8.1.1).
    fn refuse_malformed(&mut self, key: Key, id: u32) {
        self.streams.remove(key);
        frame::reset(&mut self.out, id, Code::PROTOCOL_ERROR);
        self.touch();
        self.remember(id);
    }

    /// A response, or an interim one.
    fn response(&mut self, key: Key, has_end: bool, block: &[u8]) -> Result<(), Code> {
        let stream = &mut self.streams[key];
        let text = stream.text.tail();
        let accept = stream.accept.clone();
        let mut response = ResponseText::new(text, self.limits.max_head, stream.is_head, accept);
        let decoded = self
            .decoder
            .decode(block, |field| response.field(text, &field));
        decoded.map_err(|_| Code::COMPRESSION_ERROR)?;
        let answered = match response.finish(text, has_end) {
            Ok(answered) if text.len() <= 2 * self.limits.max_head => answered,
            // Or more interim heads than anybody reads.
            Ok(_) | Err(Malformed) => {
                self.give_up(key, Code::PROTOCOL_ERROR);
                return Ok(());
            }
        };
        stream.wake_reader();
        if answered.is_too_long {
            self.give_up(key, Code::ENHANCE_YOUR_CALM);
            return Ok(());
        }
        if answered.is_interim {
            return Ok(());
        }
        stream.has_head = true;
        stream.due = answered.length;
        if has_end {
            // A HEAD and a 304 may tell a length of what does not come.
            stream.is_only_head = true;
            self.end_of(key);
        }
        Ok(())
    }

    fn trailers(&mut self, key: Key, has_end: bool, block: &[u8]) -> Result<(), Code> {
        if self.streams[key].has_end {
            self.skip(block)?;
            return Err(Code::STREAM_CLOSED);
        }
        let mut trailers = Trailers::new(self.limits.max_head);
        let decoded = self.decoder.decode(block, |field| trailers.field(&field));
        decoded.map_err(|_| Code::COMPRESSION_ERROR)?;
        match trailers.finish() {
            // Section 8.1: they end the message.
            Ok(map) if has_end => {
                self.streams[key].trailers = Some(map);
                self.end_of(key);
            }
            Ok(_) | Err(Malformed) => self.give_up(key, Code::PROTOCOL_ERROR),
        }
        Ok(())
    }

    /// Frames of this stream may still be on their way.
    pub(super) fn remember(&mut self, id: u32) {
        if self.role == Role::Client {
            // Of an endpoint's streams none is closed to it by itself: late frames are no error.
            return;
        }
        if self.given_up.len() >= RESETS_REMEMBERED.max(self.limits.max_streams as usize) {
            self.given_up.pop_front();
        }
        self.given_up.push_back(id);
    }
}

/// The fields of a HEADERS frame (section 6.2).
fn fragment(header: Header, payload: &[u8]) -> Result<&[u8], Code> {
    let mut rest = payload;
    let mut padding = 0;
    if header.has(flag::PADDED) {
        let (length, behind) = rest.split_first().ok_or(Code::FRAME_SIZE_ERROR)?;
        (padding, rest) = (usize::from(*length), behind);
    }
    if header.has(flag::PRIORITY) {
        rest = rest.get(5..).ok_or(Code::FRAME_SIZE_ERROR)?;
    }
    let length = rest
        .len()
        .checked_sub(padding)
        .ok_or(Code::PROTOCOL_ERROR)?;
    Ok(&rest[..length])
}
