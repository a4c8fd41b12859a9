//! A response that came, as text.

use crate::http2::hpack::{Field, statics};
use crate::http2::names::{self, Class};

use super::{Malformed, note_length, write_field};

/// Makes text of the fields of a response, one after the other.
#[derive(Debug, Default)]
pub(in crate::http2) struct ResponseText {
    status: u16,
    /// It answers HEAD.
    is_head: bool,
    /// It answers the opening of a WebSocket, and is to bear this.
    accept: Option<String>,
    opened: bool,
    length: Option<u64>,
    is_malformed: bool,
    is_too_long: bool,
    max: usize,
    start: usize,
}

/// What is to be known of a response whose text was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) struct Answered {
    /// Another one follows.
    pub(in crate::http2) is_interim: bool,
    /// How long the body will be, if that was said and there may be one.
    pub(in crate::http2) length: Option<u64>,
    /// It is larger than is allowed, and not whole.
    pub(in crate::http2) is_too_long: bool,
}

// === impl ResponseText ===

impl ResponseText {
    /// Begins a head at the end of `out`, of `max` bytes at most. `is_head`: it answers HEAD; `accept`:
    /// it answers the opening of a WebSocket.
    pub(in crate::http2) fn new(
        out: &[u8],
        max: usize,
        is_head: bool,
        accept: Option<String>,
    ) -> Self {
        Self {
            is_head,
            accept,
            max,
            start: out.len(),
            ..Self::default()
        }
    }

    /// Adds a field to `out`.
    pub(in crate::http2) fn field(&mut self, out: &mut Vec<u8>, field: &Field<'_>) {
        if !field.is_sound || self.is_malformed {
            self.is_malformed = true;
            return;
        }
        if out.len() - self.start > self.max {
            self.is_too_long = true;
            return;
        }
        let (name, value) = (field.name, field.value);
        if name.first() == Some(&b':') {
            let status = (field.id == statics::STATUS && self.status == 0)
                .then(|| status(value))
                .flatten();
            match status {
                Some(status) => self.begin(out, status),
                None => self.is_malformed = true,
            }
            return;
        }
        if self.status == 0 {
            self.is_malformed = true;
            return;
        }
        let class = match field.id {
            0 | statics::TRANSFER_ENCODING | statics::CONTENT_LENGTH => names::known(name).class,
            _ => Class::Other,
        };
        match class {
            // RFC 9113 section 8.2.2.
            Class::Chunked | Class::Upgrade => self.is_malformed = true,
            Class::Hop if name != b"http2-settings" => self.is_malformed = true,
            Class::Te if value != b"trailers" => self.is_malformed = true,
            // Of a tunnel there is no length, and its one true Sec-WebSocket-Accept is made below.
            Class::ContentLength | Class::WebSocketAccept if self.opened => {}
            // As of requests: a length that is not understood here is held to nothing.
            Class::ContentLength => {
                self.is_malformed |= !note_length(&mut self.length, value);
                write_field(out, name, value);
            }
            _ => write_field(out, name, value),
        }
    }

    /// Ends the head. `is_whole`: neither body nor trailers follow.
    ///
    /// # Errors
    /// It is none; what it has added to `out` is of no use.
    pub(in crate::http2) fn finish(
        self,
        out: &mut Vec<u8>,
        is_whole: bool,
    ) -> Result<Answered, Malformed> {
        let is_interim = matches!(self.status, 100..200) && !self.opened;
        if self.is_malformed || self.status == 0 || is_interim && is_whole {
            return Err(Malformed);
        }
        let bears_body =
            !is_interim && !self.opened && !self.is_head && !matches!(self.status, 204 | 304);
        if let Some(accept) = self.accept.filter(|_| self.opened) {
            write_field(out, b"Connection", b"Upgrade");
            write_field(out, b"Upgrade", b"websocket");
            write_field(out, b"Sec-WebSocket-Accept", accept.as_bytes());
        } else if bears_body && !is_whole && self.length.is_none() {
            write_field(out, b"Transfer-Encoding", b"chunked");
        }
        out.extend_from_slice(b"\r\n");
        Ok(Answered {
            is_interim,
            length: self.length.filter(|_| bears_body),
            is_too_long: self.is_too_long,
        })
    }

    fn begin(&mut self, out: &mut Vec<u8>, status: u16) {
        self.opened = self.accept.is_some() && status == 200;
        self.status = status;
        let status = if self.opened { 101 } else { status };
        let digits = [status / 100, status / 10 % 10, status % 10];
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&digits.map(|digit| b'0' + digit as u8));
        out.extend_from_slice(b" \r\n");
    }
}

/// Three digits from 100 on; but no 101, which HTTP/2 does not have (section 8.6).
fn status(value: &[u8]) -> Option<u16> {
    let digits: &[u8; 3] = value.try_into().ok()?;
    let status = digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u16::from(digit - b'0'))
    })?;
    (status >= 100 && status != 101).then_some(status)
}
