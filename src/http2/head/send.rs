//! A head as text, as a block of fields.

use crate::http2::hpack::{Encoder, Indexing, statics};
use crate::http2::names::{self, Class, Known};
use crate::http2::websocket::{self, WEBSOCKET};

use super::lines::{self, Line};
use super::{HeadError, number};

/// A request's head to be sent, and what to remember of it.
#[derive(Debug)]
pub(in crate::http2) struct Outbound<'t> {
    text: &'t [u8],
    method: &'t [u8],
    target: &'t [u8],
    authority: &'t [u8],
    is_grpc: bool,
    /// The body's length; `None` = told by its end.
    pub(in crate::http2) length: Option<u64>,
    /// It opens a WebSocket: what the answer must bear.
    pub(in crate::http2) accept: Option<String>,
    /// It asks for the head alone.
    pub(in crate::http2) is_head: bool,
    /// How long the head is.
    pub(in crate::http2) end: usize,
}

/// A response's head to be sent, and what to remember of it.
#[derive(Debug)]
pub(in crate::http2) struct Reply<'t> {
    text: &'t [u8],
    opened: bool,
    pub(in crate::http2) status: u16,
    /// The body's length, where it is told.
    pub(in crate::http2) length: Option<u64>,
    /// How long the head is.
    pub(in crate::http2) end: usize,
}

/// Reads the request's head at the front of `text`, as the proxy writes it for an endpoint. `fallback` is
/// the authority where the text names none. `lines` is memory that is used again.
pub(in crate::http2) fn read_request<'t>(
    text: &'t [u8],
    lines: &mut Vec<Line>,
    fallback: &'t str,
) -> Result<Outbound<'t>, HeadError> {
    let (line, end) = lines::split(text, lines).ok_or(HeadError::Malformed)?;
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(HeadError::Malformed);
    };
    if method.is_empty() || target.first() != Some(&b'/') && target != b"*" {
        return Err(HeadError::Malformed);
    }
    let mut authority = fallback.as_bytes();
    let mut length = Some(0);
    let mut upgrade = None;
    let mut key: &[u8] = b"";
    let mut is_grpc = false;
    for line in &*lines {
        let value = line.value(text);
        match names::known(line.name(text)).class {
            Class::Host if !value.is_empty() => authority = value,
            Class::Upgrade => upgrade = Some(value),
            Class::WebSocketKey => key = value,
            Class::Chunked => length = None,
            Class::ContentLength => length = Some(number(value).ok_or(HeadError::Malformed)?),
            Class::ContentType => is_grpc = value.starts_with(b"application/grpc"),
            _ => {}
        }
    }
    let mut accept = None;
    if let Some(protocol) = upgrade {
        if !protocol.eq_ignore_ascii_case(WEBSOCKET.as_bytes()) {
            return Err(HeadError::Upgrade);
        }
        accept = Some(websocket::accept(key));
        // Its bytes are not a body: they end when either side says so.
        length = None;
    }
    Ok(Outbound {
        text,
        method,
        target,
        authority,
        is_grpc,
        length,
        accept,
        is_head: method == b"HEAD",
        end,
    })
}

impl Outbound<'_> {
    /// Writes the block. `lines` is what [`read_request`] left there.
    pub(in crate::http2) fn write(
        &self,
        out: &mut Vec<u8>,
        encoder: &mut Encoder,
        lines: &[Line],
        is_encrypted: bool,
    ) {
        encoder.begin(out);
        let opens = self.accept.is_some();
        let method: &[u8] = if opens { b"CONNECT" } else { self.method };
        encoder.field(out, statics::METHOD, b":method", method, Indexing::Add);
        if opens {
            let protocol = WEBSOCKET.as_bytes();
            encoder.field(out, 0, b":protocol", protocol, Indexing::Add);
        }
        let scheme: &[u8] = if is_encrypted { b"https" } else { b"http" };
        encoder.field(out, statics::SCHEME, b":scheme", scheme, Indexing::Add);
        let authority = self.authority;
        encoder.field(
            out,
            statics::AUTHORITY,
            b":authority",
            authority,
            Indexing::Add,
        );
        write_path(out, encoder, self.target);
        for line in lines {
            let (name, value) = (line.name(self.text), line.value(self.text));
            let known = names::known(name);
            match known.class {
                Class::Chunked | Class::Hop | Class::Host | Class::Te => {}
                Class::Upgrade | Class::WebSocketKey => {}
                _ => write(out, encoder, known, name, value),
            }
        }
        if self.is_grpc {
            // Servers of gRPC insist (gRPC over HTTP2, "TE"), and trailers pass here.
            encoder.field(out, 0, b"te", b"trailers", Indexing::Add);
        }
    }
}

/// Reads the response's head at the front of `text`, as the proxy writes it for a client. `opens`: the
/// request opens a WebSocket, so a 101 is a 200. `lines` is memory that is used again.
pub(in crate::http2) fn read_response<'t>(
    text: &'t [u8],
    lines: &mut Vec<Line>,
    opens: bool,
) -> Result<Reply<'t>, HeadError> {
    let (line, end) = lines::split(text, lines).ok_or(HeadError::Malformed)?;
    let status = line.get(9..12).and_then(number);
    let status = status.filter(|status| (100..1000).contains(status));
    let status = status.ok_or(HeadError::Malformed)? as u16;
    let opened = opens && status == 101;
    let status = match status {
        _ if opened => 200,
        // Nothing was opened, and each of these would say so (RFC 8441 section 5).
        200..300 if opens => 502,
        101 => return Err(HeadError::Malformed),
        status => status,
    };
    let mut length = None;
    for line in &*lines {
        if names::known(line.name(text)).class == Class::ContentLength {
            length = Some(number(line.value(text)).ok_or(HeadError::Malformed)?);
        }
    }
    Ok(Reply {
        text,
        opened,
        status,
        length,
        end,
    })
}

impl Reply<'_> {
    /// Writes the block. `lines` is what [`read_response`] left there.
    pub(in crate::http2) fn write(&self, out: &mut Vec<u8>, encoder: &mut Encoder, lines: &[Line]) {
        encoder.begin(out);
        let digits = [self.status / 100, self.status / 10 % 10, self.status % 10];
        let digits = digits.map(|digit| b'0' + digit as u8);
        encoder.field(out, statics::STATUS, b":status", &digits, Indexing::Add);
        for line in lines {
            let (name, value) = (line.name(self.text), line.value(self.text));
            let known = names::known(name);
            match known.class {
                Class::Chunked | Class::Hop | Class::Te | Class::Upgrade => {}
                Class::WebSocketAccept if self.opened => {}
                _ => write(out, encoder, known, name, value),
            }
        }
    }
}

/// Writes a field of whose name this is known.
pub(super) fn write(
    out: &mut Vec<u8>,
    encoder: &mut Encoder,
    known: Known,
    name: &[u8],
    value: &[u8],
) {
    let indexing = match known.class {
        Class::Secret => Indexing::Never,
        Class::Unique | Class::ContentLength => Indexing::Leave,
        _ => Indexing::Add,
    };
    encoder.field(out, known.id, name, value, indexing);
}

/// What is in a path that a URI cannot have is written in percent (RFC 3986 section 2.1): HTTP/1 lets it
/// pass, and means the same by both.
fn write_path(out: &mut Vec<u8>, encoder: &mut Encoder, target: &[u8]) {
    let is_plain = |b: &u8| {
        !matches!(
            b,
            b'<' | b'>' | b'`' | b'"' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'#' | 0x7f..
        )
    };
    if target.iter().all(is_plain) {
        encoder.field(out, statics::PATH, b":path", target, Indexing::Leave);
        return;
    }
    let mut encoded = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if is_plain(byte) {
            encoded.push(*byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    encoder.field(out, statics::PATH, b":path", &encoded, Indexing::Leave);
}
