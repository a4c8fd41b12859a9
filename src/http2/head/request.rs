//! A request that came, as text.

use std::ops::Range;

use crate::http2::hpack::{Field, statics};
use crate::http2::names::{self, Class};
use crate::http2::websocket::{self, WEBSOCKET};

use super::{BEYOND, Malformed, note_length, write_field};

/// Makes text of the fields of a request, one after the other. Kept and used again: it holds no more
/// than what one head needs.
#[derive(Debug, Default)]
pub(in crate::http2) struct RequestText {
    /// The values of pseudo-fields, one behind the other.
    pseudo: Vec<u8>,
    method: Option<Range<usize>>,
    path: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    protocol: Option<Range<usize>>,
    has_scheme: bool,
    /// The request line was written.
    has_begun: bool,
    /// It opens a WebSocket.
    opens: bool,
    /// It is a CONNECT, of whatever protocol.
    is_connect: bool,
    is_head: bool,
    /// The value of the one field that its crumbs make (RFC 9113 section 8.2.3).
    cookie: Vec<u8>,
    has_cookie: bool,
    /// What Content-Length says.
    length: Option<u64>,
    is_malformed: bool,
    /// What makes the key of a WebSocket.
    random: u128,
    /// Bytes of text beyond which its reader refuses it.
    max: usize,
}

/// What is to be known of a request whose text was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) struct Asked {
    /// It asked for the head alone.
    pub(in crate::http2) is_head: bool,
    /// It is a CONNECT, of whatever protocol: what follows is no body.
    pub(in crate::http2) is_connect: bool,
    /// How long the body will be, if that was said.
    pub(in crate::http2) length: Option<u64>,
}

// === impl RequestText ===

impl RequestText {
    /// Begins the next head. Its text is to be cut beyond `max` bytes; `random` makes the key of a
    /// WebSocket.
    pub(in crate::http2) fn begin(&mut self, max: usize, random: u128) {
        let (mut pseudo, mut cookie) = (
            std::mem::take(&mut self.pseudo),
            std::mem::take(&mut self.cookie),
        );
        pseudo.clear();
        cookie.clear();
        *self = Self {
            pseudo,
            cookie,
            random,
            max,
            ..Self::default()
        };
    }

    /// Adds a field to `out`.
    pub(in crate::http2) fn field(&mut self, out: &mut Vec<u8>, field: &Field<'_>) {
        if !field.is_sound || self.is_malformed {
            self.is_malformed = true;
            return;
        }
        // Too long: whoever reads it will say so.
        // (Pseudo-fields are in the text as soon as others are.)
        let pseudo = if self.has_begun { 0 } else { self.pseudo.len() };
        if out.len() + self.cookie.len() + pseudo > self.max + BEYOND {
            return;
        }
        let (name, value) = (field.name, field.value);
        let class = match field.id {
            statics::AUTHORITY | statics::METHOD | statics::PATH | statics::SCHEME => {
                self.pseudo(field.id, value);
                return;
            }
            0 if name == b":protocol" => {
                self.pseudo(0, value);
                return;
            }
            _ if name.first() == Some(&b':') => {
                self.is_malformed = true;
                return;
            }
            statics::HOST => Class::Host,
            statics::CONTENT_LENGTH => Class::ContentLength,
            0 | statics::TRANSFER_ENCODING => names::known(name).class,
            _ => Class::Other,
        };
        self.begin_fields(out);
        match class {
            // RFC 9113 section 8.2.2.
            Class::Chunked | Class::Upgrade => self.is_malformed = true,
            Class::Hop if name != b"http2-settings" => self.is_malformed = true,
            Class::Te if value != b"trailers" => self.is_malformed = true,
            // Section 8.3.1: the same as :authority, or it is an error, which two Hosts are.
            Class::Host => {
                let authority = self.authority.clone().map(|a| &self.pseudo[a]);
                if !authority.is_some_and(|a| a.eq_ignore_ascii_case(value)) {
                    write_field(out, name, value);
                }
            }
            // What follows is no body, whatever was said of its length (RFC 9110 section 9.3.6).
            Class::ContentLength if self.opens => {}
            // What HTTP/1 would take for a length and this does not, would not be held to it (section 8.1.1):
            // what is beyond it would be the begin of another request.
            Class::ContentLength => {
                self.is_malformed |= !note_length(&mut self.length, value);
                write_field(out, name, value);
            }
            Class::WebSocketKey if self.opens => {}
            _ if field.id == statics::COOKIE => {
                if std::mem::replace(&mut self.has_cookie, true) {
                    self.cookie.extend_from_slice(b"; ");
                }
                self.cookie.extend_from_slice(value);
            }
            _ => write_field(out, name, value),
        }
    }

    /// Ends the head. `is_whole`: no body follows.
    ///
    /// # Errors
    /// It is none; what `out` holds is of no use.
    pub(in crate::http2) fn finish(
        &mut self,
        out: &mut Vec<u8>,
        is_whole: bool,
    ) -> Result<Asked, Malformed> {
        if !self.is_malformed {
            self.begin_fields(out);
        }
        if self.is_malformed {
            return Err(Malformed);
        }
        if self.has_cookie {
            write_field(out, b"cookie", &self.cookie);
        }
        // What follows a CONNECT is no body.
        if !is_whole && !self.is_connect && self.length.is_none() {
            write_field(out, b"Transfer-Encoding", b"chunked");
        }
        out.extend_from_slice(b"\r\n");
        Ok(Asked {
            is_head: self.is_head,
            is_connect: self.is_connect,
            length: self.length,
        })
    }

    /// One that comes twice, or behind a field, is malformed (section 8.3).
    fn pseudo(&mut self, id: u8, value: &[u8]) {
        let slot = match id {
            statics::AUTHORITY => &mut self.authority,
            statics::METHOD => &mut self.method,
            statics::PATH => &mut self.path,
            statics::SCHEME => {
                let is_again = std::mem::replace(&mut self.has_scheme, true);
                self.is_malformed |= is_again || self.has_begun || !is_scheme(value);
                return;
            }
            _ => &mut self.protocol,
        };
        if slot.is_some() || self.has_begun {
            self.is_malformed = true;
            return;
        }
        let start = self.pseudo.len();
        self.pseudo.extend_from_slice(value);
        *slot = Some(start..self.pseudo.len());
    }

    /// Writes what stands before the fields, once.
    fn begin_fields(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| &self.pseudo[range]);
        let (method, path) = (part(&self.method), part(&self.path));
        let (authority, protocol) = (part(&self.authority), part(&self.protocol));
        let Some(method) = method.filter(|method| is_token(method)) else {
            self.is_malformed = true;
            return;
        };
        let is_connect = method == b"CONNECT";
        let opens = is_connect && protocol.is_some_and(|p| p.eq_ignore_ascii_case(b"websocket"));
        // Section 8.5 and RFC 8441 section 4: a CONNECT has neither scheme nor path, unless it has a
        // protocol, which nothing else has; all others have both.
        let has_target = path.is_some() && self.has_scheme;
        let has_none = path.is_none() && !self.has_scheme;
        let is_well = if is_connect && protocol.is_none() {
            has_none
        } else {
            has_target && (is_connect || protocol.is_none())
        };
        let has_space = |text: &[u8]| text.iter().any(|&b| b <= b' ');
        let is_path = |path: &[u8]| {
            (path.first() == Some(&b'/') || path == b"*")
                && !path.iter().any(|&b| b <= b' ' || b == b'#' || b == 0x7f)
        };
        if !is_well || path.is_some_and(|p| !is_path(p)) || authority.is_some_and(has_space) {
            self.is_malformed = true;
            return;
        }
        // A tunnel to anywhere, or by a protocol that is unknown here: refused by its method.
        let is_tunnel = is_connect && !opens;
        let needs_port = is_tunnel && authority.is_some_and(|a| !has_port(a));
        out.extend_from_slice(if opens { b"GET" } else { method });
        out.push(b' ');
        match path {
            _ if is_tunnel => {
                out.extend_from_slice(authority.unwrap_or(b"-"));
                if needs_port {
                    out.extend_from_slice(b":443");
                }
            }
            Some(path) => out.extend_from_slice(path),
            None => out.push(b'/'),
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(authority) = authority {
            out.extend_from_slice(b"Host: ");
            out.extend_from_slice(authority);
            out.extend_from_slice(if needs_port { b":443\r\n" } else { b"\r\n" });
        }
        self.is_head = method == b"HEAD";
        if opens {
            write_field(out, b"Connection", b"Upgrade");
            write_field(out, b"Upgrade", WEBSOCKET.as_bytes());
            let key = websocket::key(self.random);
            write_field(out, b"Sec-WebSocket-Key", key.as_bytes());
        }
        self.opens = opens;
        self.is_connect = is_connect;
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(is_tchar)
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
}

/// Whether an authority says its port.
fn has_port(authority: &[u8]) -> bool {
    let digits = authority.iter().rev().take_while(|b| b.is_ascii_digit());
    let digits = digits.count();
    digits > 0 && authority.iter().rev().nth(digits) == Some(&b':')
}
