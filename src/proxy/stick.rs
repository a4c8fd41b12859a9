//! What ties a client to an endpoint: the key of a hash policy, and the sticky cookie.

use crate::config::{HashKey, Sticky, Upstream};
use crate::http1::FieldId;
use crate::upstream::Ticket;

use super::exchange::Exchange;
use super::forwarded::{Client, push_ip};
use super::scratch::Scratch;

/// The hash key of an exchange.
#[derive(Debug)]
pub(super) enum Key {
    /// The policy hashes nothing, or the request has none: then any endpoint will do.
    None,
    /// A part of the request's head: a range of the inbound buffer.
    Part(usize, usize),
    /// Made of it and written to the scratch: the client's address as text, as nginx hashes it; or
    /// the host in lower case.
    Text,
}

/// The sticky cookie of an exchange.
#[derive(Debug)]
pub(super) struct Cookie<'u> {
    sticky: &'u Sticky,
    /// Where its value is in the inbound buffer.
    found: Option<(usize, usize)>,
    /// The client is to be given a new one.
    pub(super) set: bool,
}

// === impl Key ===

impl Key {
    /// The key of the request in `s`, which keeps a key that is no part of the head.
    pub(super) fn of(spec: &Upstream, s: &mut Scratch, client: Client) -> Self {
        if !spec.policy.kind.hashes() {
            return Self::None;
        }
        let buf = s.inbound.filled();
        let part = match &spec.hash_key {
            HashKey::Client => {
                let Some(addr) = client.addr else {
                    return Self::None;
                };
                s.key.clear();
                push_ip(&mut s.key, addr);
                return Self::Text;
            }
            HashKey::Cookie(name) => cookie(s, name),
            HashKey::Header(name) => s.head.get_all(buf, name.as_str()).next(),
            // Hosts differ in case only by the client's whim (RFC 9110 section 4.2.3).
            HashKey::Host => {
                let Some(host) = s.head.host(buf) else {
                    return Self::None;
                };
                s.key.clear();
                s.key.extend_from_slice(host.as_bytes());
                s.key.make_ascii_lowercase();
                return Self::Text;
            }
            HashKey::Path => Some(s.head.path(buf).as_bytes()),
            HashKey::Query(name) => s.head.query(buf).and_then(|q| parameter(q, name)),
        };
        part.and_then(|part| range(buf, part))
            .map_or(Self::None, |(a, b)| Self::Part(a, b))
    }

    /// Its bytes.
    pub(super) fn bytes<'a>(&'a self, s: &'a Scratch) -> Option<&'a [u8]> {
        match self {
            Self::None => None,
            Self::Part(start, end) => s.inbound.filled().get(*start..*end),
            Self::Text => Some(&s.key),
        }
    }
}

// === impl Cookie ===

impl<'u> Cookie<'u> {
    /// Looks for the cookie in the request.
    pub(super) fn find(s: &Scratch, sticky: &'u Sticky) -> Self {
        let value = cookie(s, &sticky.cookie);
        let found = value.and_then(|value| range(s.inbound.filled(), value));
        Self {
            sticky,
            found,
            set: false,
        }
    }

    /// Its value.
    pub(super) fn of<'a>(&self, s: &'a Scratch) -> Option<&'a [u8]> {
        let (start, end) = self.found?;
        s.inbound.filled().get(start..end)
    }

    /// Writes the `Set-Cookie` value that ties the client to the endpoint picked, if it has none yet.
    pub(super) fn write_set(&self, x: &Exchange, out: &mut Vec<u8>) {
        let ticket = x.ticket.as_ref().filter(|_| self.set);
        let Some(value) = ticket.and_then(Ticket::cookie) else {
            return;
        };
        out.extend_from_slice(self.sticky.cookie.as_bytes());
        out.push(b'=');
        value.write_to(out);
        // Lax: sent on top-level navigation, not on embedded cross-site requests.
        out.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax");
        if self.sticky.secure {
            out.extend_from_slice(b"; Secure");
        }
        if let Some(ttl) = self.sticky.ttl {
            out.extend_from_slice(b"; Max-Age=");
            out.extend_from_slice(itoa::Buffer::new().format(ttl.as_secs()).as_bytes());
        }
    }
}

/// The value of a cookie (RFC 6265 section 4.2: `name=value` pairs, `; ` between them).
pub(super) fn cookie<'a>(s: &'a Scratch, name: &str) -> Option<&'a [u8]> {
    let buf = s.inbound.filled();
    let fields = s.head.fields.iter().filter(|f| f.id == FieldId::Cookie);
    fields
        .flat_map(|f| f.value.of(buf).split(|&b| b == b';'))
        .find_map(|pair| {
            let rest = pair.trim_ascii_start().strip_prefix(name.as_bytes())?;
            Some(rest.strip_prefix(b"=")?.trim_ascii_end())
        })
}

/// The raw value of a query parameter.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a [u8]> {
    query
        .split('&')
        .find_map(|pair| match pair.split_once('=') {
            Some((n, value)) if n == name => Some(value.as_bytes()),
            None if pair == name => Some(&b""[..]),
            _ => None,
        })
}

/// Where `part`, a slice of `buf`, lies in it.
pub(super) fn range(buf: &[u8], part: &[u8]) -> Option<(usize, usize)> {
    let start = (part.as_ptr() as usize).checked_sub(buf.as_ptr() as usize)?;
    (start + part.len() <= buf.len()).then_some((start, start + part.len()))
}
