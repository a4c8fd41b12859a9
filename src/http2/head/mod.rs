//! Heads between HTTP/2 and the text of HTTP/1.1 (RFC 9113 section 8.3).
//!
//! A head as text is not what goes to a peer: the codec of HTTP/1 parses it, with all its rules, and
//! what may go on is written anew. Text from here is sound line by line, because the types of the
//! `http` crate hold neither CR nor LF nor NUL; whether it makes sense is not decided here.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request,
};
use thiserror::Error;

use super::names::{self, Class};
use super::websocket::{self, WEBSOCKET};

/// A head of ours cannot be said in HTTP/2.
#[derive(Debug, Error)]
pub(super) enum HeadError {
    /// It is not what the rest of the program writes.
    #[error("the head is not one of HTTP/1.1")]
    Malformed,
    /// The host is none that a URI can have.
    #[error("the host cannot be told in HTTP/2")]
    Authority,
    /// The target is none that a URI can have.
    #[error("the target cannot be told in HTTP/2")]
    Target,
    /// An upgrade to something other than a WebSocket.
    #[error("only WebSockets can be opened over HTTP/2")]
    Upgrade,
}

/// A request's head to be sent, and what to remember of it.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) request: Request<()>,
    /// The body's length; `None` = told by its end.
    pub(super) length: Option<u64>,
    /// It opens a WebSocket: what the answer must bear.
    pub(super) accept: Option<String>,
    /// How long the head is.
    pub(super) end: usize,
}

/// A response's head to be sent, and what to remember of it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) response: Response<()>,
    /// The body's length, where it is told.
    pub(super) length: Option<u64>,
    /// How long the head is.
    pub(super) end: usize,
}

/// Writes a request that came over HTTP/2. `is_whole`: no body follows. `random` makes the key of a
/// WebSocket.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    parts: &request::Parts,
    is_whole: bool,
    random: impl FnOnce() -> u128,
) {
    let opens = parts
        .extensions
        .get::<Protocol>()
        .is_some_and(|p| p.as_str().eq_ignore_ascii_case(WEBSOCKET));
    let authority = parts.uri.authority().map(|authority| {
        // The target of CONNECT has a port, even where its protocol is one that could do without.
        if parts.method == Method::CONNECT && !opens && authority.port().is_none() {
            Cow::Owned(format!("{authority}:443"))
        } else {
            Cow::Borrowed(authority.as_str())
        }
    });
    let authority = authority.as_deref();
    if opens {
        out.extend_from_slice(b"GET ");
    } else {
        out.extend_from_slice(parts.method.as_str().as_bytes());
        out.push(b' ');
    }
    match parts.uri.path_and_query() {
        // A tunnel to anywhere, or by a protocol that is unknown here: refused by its method.
        _ if parts.method == Method::CONNECT && !opens => {
            out.extend_from_slice(authority.unwrap_or("-").as_bytes());
        }
        Some(path) => out.extend_from_slice(path.as_str().as_bytes()),
        None => out.push(b'/'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        write_field(out, b"Host", authority.as_bytes());
    }
    if opens {
        write_field(out, b"Connection", b"Upgrade");
        write_field(out, b"Upgrade", WEBSOCKET.as_bytes());
        let key = websocket::key(random());
        write_field(out, b"Sec-WebSocket-Key", key.as_bytes());
    }
    let mut has_cookie = false;
    let mut has_length = false;
    for (name, value) in &parts.headers {
        let value = value.as_bytes();
        let skip = match *name {
            // Section 8.3.1: the same as :authority, or it is an error, which two Hosts are.
            HOST => authority.is_some_and(|a| a.as_bytes().eq_ignore_ascii_case(value)),
            COOKIE => {
                has_cookie = true;
                true
            }
            // What follows is no body, whatever was said of its length (RFC 9110 section 9.3.6).
            CONTENT_LENGTH => {
                has_length = true;
                opens
            }
            _ => opens && name == "sec-websocket-key",
        };
        if !skip {
            write_field(out, name.as_str().as_bytes(), value);
        }
    }
    if has_cookie {
        // Section 8.2.3: its crumbs are one field again.
        let mut separator: &[u8] = b"cookie: ";
        for crumb in parts.headers.get_all(COOKIE) {
            out.extend_from_slice(separator);
            out.extend_from_slice(crumb.as_bytes());
            separator = b"; ";
        }
        out.extend_from_slice(b"\r\n");
    }
    // What follows a CONNECT is no body either.
    let bears_body = !is_whole && parts.method != Method::CONNECT;
    if bears_body && !has_length {
        write_field(out, b"Transfer-Encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response that came over HTTP/2. `is_whole`: neither body nor trailers follow;
/// `is_head`: it answers HEAD; `accept`: it answers the opening of a WebSocket.
pub(super) fn write_response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    is_whole: bool,
    is_head: bool,
    accept: Option<&str>,
) {
    let opened = accept.filter(|_| status == StatusCode::OK);
    let status = opened.map_or(status, |_| StatusCode::SWITCHING_PROTOCOLS);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" \r\n");
    let mut has_length = false;
    for (name, value) in headers {
        has_length |= *name == CONTENT_LENGTH;
        // Of a tunnel there is no length, and its one true Sec-WebSocket-Accept is made below.
        let skip = opened.is_some() && (*name == CONTENT_LENGTH || name == "sec-websocket-accept");
        if !skip {
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let bears_body = !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !is_head;
    if let Some(accept) = opened {
        write_field(out, b"Connection", b"Upgrade");
        write_field(out, b"Upgrade", WEBSOCKET.as_bytes());
        write_field(out, b"Sec-WebSocket-Accept", accept.as_bytes());
    } else if bears_body && !is_whole && !has_length {
        write_field(out, b"Transfer-Encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
}

/// Reads the request's head at the front of `text`, as the proxy writes it for an endpoint. `scheme` is that of the
/// connection, `fallback` the authority where the text names none.
pub(super) fn read_request(
    text: &[u8],
    scheme: Scheme,
    fallback: &str,
) -> Result<Outbound, HeadError> {
    let mut lines = Lines::new(text);
    let line = lines.first().ok_or(HeadError::Malformed)?;
    let shared = share(text);
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(HeadError::Malformed);
    };
    let method_len = method.len();
    let mut method = Method::from_bytes(method).map_err(|_| HeadError::Malformed)?;
    let mut headers = HeaderMap::with_capacity(room(text));
    let mut authority = None;
    let mut length = Some(0);
    let mut upgrade: Option<Bytes> = None;
    let mut key = None;
    let mut is_grpc = false;
    while let Some(Line { name, value }) = lines.next().ok_or(HeadError::Malformed)? {
        let known = names::known(name);
        match known.0 {
            Class::Host => authority = Some(part(&shared, value)),
            Class::Upgrade => upgrade = Some(part(&shared, value)),
            Class::WebSocketKey => key = Some(part(&shared, value)),
            Class::Chunked => length = None,
            Class::Hop => {}
            class => {
                let value = part(&shared, value);
                if class == Class::ContentLength {
                    length = Some(number(&value).ok_or(HeadError::Malformed)?);
                }
                is_grpc |= class == Class::ContentType && value.starts_with(b"application/grpc");
                append(&mut headers, name, known, value)?;
            }
        }
    }
    let authority = match authority.filter(|a| !a.is_empty()) {
        Some(authority) => Authority::from_maybe_shared(authority),
        None => Authority::try_from(fallback),
    };
    let authority = authority.map_err(|_| HeadError::Authority)?;
    // It stands behind the method.
    let start = method_len + 1;
    let path = path(&shared.slice(start..start + target.len()))?;
    let mut accept = None;
    if let Some(protocol) = upgrade {
        if !protocol.eq_ignore_ascii_case(WEBSOCKET.as_bytes()) {
            return Err(HeadError::Upgrade);
        }
        method = Method::CONNECT;
        accept = Some(websocket::accept(&key.unwrap_or_default()));
        // Its bytes are not a body: they end when either side says so.
        length = None;
    }
    if is_grpc {
        // Its servers insist (gRPC over HTTP2, "TE"), and trailers pass here.
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    let mut uri = uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(authority);
    uri.path_and_query = Some(path);
    let uri = Uri::from_parts(uri).map_err(|_| HeadError::Target)?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    if accept.is_some() {
        let protocol = Protocol::from_static(WEBSOCKET);
        request.extensions_mut().insert(protocol);
    }
    Ok(Outbound {
        request,
        length,
        accept,
        end: lines.at,
    })
}

/// Reads the response's head at the front of `text`, as the proxy writes it for a client. `opens`: the
/// request opens a WebSocket, so a 101 is a 200.
pub(super) fn read_response(text: &[u8], opens: bool) -> Result<Reply, HeadError> {
    let mut lines = Lines::new(text);
    let line = lines.first().ok_or(HeadError::Malformed)?;
    let shared = share(text);
    let status = line.get(9..12).ok_or(HeadError::Malformed)?;
    let status = StatusCode::from_bytes(status).map_err(|_| HeadError::Malformed)?;
    let opened = opens && status == StatusCode::SWITCHING_PROTOCOLS;
    let status = match status {
        _ if opened => StatusCode::OK,
        // Nothing was opened, and each of these would say so (RFC 8441 section 5).
        status if opens && status.is_success() => StatusCode::BAD_GATEWAY,
        status => status,
    };
    let mut headers = HeaderMap::with_capacity(room(text));
    let mut length = None;
    while let Some(Line { name, value }) = lines.next().ok_or(HeadError::Malformed)? {
        let known = names::known(name);
        match known.0 {
            Class::Hop | Class::Upgrade | Class::Chunked => {}
            Class::WebSocketAccept if opened => {}
            class => {
                let value = part(&shared, value);
                if class == Class::ContentLength {
                    length = Some(number(&value).ok_or(HeadError::Malformed)?);
                }
                append(&mut headers, name, known, value)?;
            }
        }
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Reply {
        response,
        length,
        end: lines.at,
    })
}

/// Room for the fields of most heads that are as long: small ones have few, and a small map costs the
/// allocator half as much.
fn room(text: &[u8]) -> usize {
    if text.len() <= 256 { 6 } else { 12 }
}

/// The lines of a head.
struct Lines<'t> {
    text: &'t [u8],
    at: usize,
}

/// One field: its name as it stands there, and where its value does.
struct Line<'t> {
    name: &'t [u8],
    value: Range<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The request line or status line.
    fn first(&mut self) -> Option<&'t [u8]> {
        let end = find_crlf(self.text)?;
        self.at = end + 2;
        Some(&self.text[..end])
    }

    /// The next field; `Some(None)` at the end, `None` if there is no end. (In what we write no CR stands
    /// alone.)
    #[expect(clippy::option_option, reason = "a field, the end, or neither")]
    fn next(&mut self) -> Option<Option<Line<'t>>> {
        let rest = self.text.get(self.at..)?;
        // Names are short: looking byte by byte costs less than setting out to search.
        let name = rest.iter().position(|&b| b == b':' || b == b'\r')?;
        if rest[name] == b'\r' {
            let is_end = name == 0 && rest.get(1) == Some(&b'\n');
            self.at += 2;
            return is_end.then_some(None);
        }
        let start = name + 1;
        let end = start + find_crlf(&rest[start..])?;
        let trimmed = rest[start..end].trim_ascii_start();
        let from = self.at + end - trimmed.len();
        let value = from..from + trimmed.trim_ascii_end().len();
        self.at += end + 2;
        let name = &rest[..name];
        Some(Some(Line { name, value }))
    }
}

/// A copy of the head at the front of `text`, which its values share: one allocation for all.
fn share(text: &[u8]) -> Bytes {
    /// Up to this the bytes behind the head, if there are any, are copied sooner than its end is found.
    const SMALL: usize = 1024;
    let end = if text.len() <= SMALL {
        text.len()
    } else {
        memchr::memmem::find(text, b"\r\n\r\n").map_or(text.len(), |at| at + 4)
    };
    Bytes::copy_from_slice(&text[..end])
}

/// A part of what is shared, which is let go where there is none.
fn part(shared: &Bytes, of: Range<usize>) -> Bytes {
    if of.is_empty() {
        Bytes::new()
    } else {
        shared.slice(of)
    }
}

/// Where the line at the front of `text` ends; in what we write no CR stands alone.
fn find_crlf(text: &[u8]) -> Option<usize> {
    memchr::memchr(b'\r', text).filter(|&at| text.get(at + 1) == Some(&b'\n'))
}

fn append(
    headers: &mut HeaderMap,
    name: &[u8],
    (class, known): (Class, Option<HeaderName>),
    value: Bytes,
) -> Result<(), HeadError> {
    let name = match known {
        Some(name) => name,
        None => HeaderName::from_bytes(name).map_err(|_| HeadError::Malformed)?,
    };
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| HeadError::Malformed)?;
    // HPACK would make room for it in its table, and throw out what comes again.
    value.set_sensitive(class == Class::Unique);
    headers.append(name, value);
    Ok(())
}

/// What is in a path that the type does not take is written in percent (RFC 3986 section 2.1): HTTP/1
/// lets it pass, and means the same by both.
fn path(target: &Bytes) -> Result<PathAndQuery, HeadError> {
    if let Ok(path) = PathAndQuery::from_maybe_shared(target.clone()) {
        return Ok(path);
    }
    let target = text_of(target)?;
    let mut encoded = String::with_capacity(target.len() + 16);
    for byte in target.bytes() {
        match byte {
            b'<' | b'>' | b'`' | b'"' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'#' | 0x7f.. => {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            byte => encoded.push(byte as char),
        }
    }
    PathAndQuery::try_from(encoded).map_err(|_| HeadError::Target)
}

fn text_of(bytes: &[u8]) -> Result<&str, HeadError> {
    std::str::from_utf8(bytes).map_err(|_| HeadError::Target)
}

fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod any_fields;
#[cfg(test)]
mod response_tests;
#[cfg(test)]
mod tests;
