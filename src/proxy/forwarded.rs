//! Who the client is, and what endpoints are told of it: X-Forwarded-* and RFC 7239 Forwarded.
//!
//! Such fields are believed only when the connection comes from a trusted proxy; from anyone else
//! they are removed, so that nobody can speak for another address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::base::decimal;
use crate::http1::{FieldId, RequestHead};

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The client's address: the peer's, or the last one in X-Forwarded-For (else Forwarded) that
    /// is no trusted proxy. `None` on Unix sockets that nobody forwarded to.
    pub addr: Option<IpAddr>,
    /// Whether the peer is a trusted proxy.
    pub is_trusted: bool,
}

/// The fields that speak for a client; from an untrusted peer they are dropped.
pub(super) fn is_forwarding_field(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Forwarded
            | FieldId::XForwardedFor
            | FieldId::XForwardedHost
            | FieldId::XForwardedPort
            | FieldId::XForwardedProto
            | FieldId::XRealIp
    )
}

/// Whether a field that the codec does not know by name claims something about the client and must
/// not pass: any other of the X-Forwarded- family (-Prefix, -Server …) from strangers; and, whoever
/// sends it, a name that is one of these only once its underscores are hyphens. CGI and WSGI fold
/// both spellings into one variable, and no proxy writes such a name: it is forged further out.
pub(super) fn is_claim(name: &[u8], is_trusted: bool) -> bool {
    const FAMILY: &str = "x-forwarded-";
    if !name.first().is_some_and(|b| b.eq_ignore_ascii_case(&b'x')) {
        return false;
    }
    let of_family = name
        .get(..FAMILY.len())
        .is_some_and(|front| is_folded(front, FAMILY));
    (of_family && (!is_trusted || name.contains(&b'_'))) || is_folded(name, "x-real-ip")
}

/// Whether two field names are one to a program that takes `_` for `-`.
pub(super) fn is_folded(name: &[u8], other: &str) -> bool {
    let fold = |b: u8| {
        if b == b'_' {
            b'-'
        } else {
            b.to_ascii_lowercase()
        }
    };
    name.len() == other.len()
        && name
            .iter()
            .zip(other.as_bytes())
            .all(|(&a, &b)| fold(a) == fold(b))
}

/// The client of a request that came from `peer` (`None`: a Unix socket, trusted if any network is
/// listed, because its permissions say who may connect).
pub(super) fn client(
    peer: Option<IpAddr>,
    trusted: &[IpNet],
    head: &RequestHead,
    buf: &[u8],
) -> Client {
    let is_trusted_addr = |addr: &IpAddr| trusted.iter().any(|net| net.contains(addr));
    let is_trusted = match &peer {
        Some(addr) => is_trusted_addr(addr),
        None => !trusted.is_empty(),
    };
    if !is_trusted {
        return Client {
            addr: peer,
            is_trusted,
        };
    }
    let mut addr = peer;
    // From right to left: each hop appended the address it saw. The first one that no trusted
    // proxy wrote may say anything, so the walk ends there; so it does at a word that is none.
    let id = if head.has(FieldId::XForwardedFor) {
        FieldId::XForwardedFor
    } else {
        FieldId::Forwarded
    };
    for field in head.fields.iter().rev().filter(|f| f.id == id) {
        for element in field.value.of(buf).rsplit(|&b| b == b',') {
            let Some(hop) = hop_address(id, element) else {
                return Client { addr, is_trusted };
            };
            addr = Some(hop);
            if !is_trusted_addr(&hop) {
                return Client { addr, is_trusted };
            }
        }
    }
    Client { addr, is_trusted }
}

fn hop_address(id: FieldId, element: &[u8]) -> Option<IpAddr> {
    let element = std::str::from_utf8(element).ok()?.trim();
    if id == FieldId::XForwardedFor {
        return parse_address(element);
    }
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("for");
        named.then(|| parse_address(value.trim().trim_matches('"')))?
    })
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_address(text: &str) -> Option<IpAddr> {
    let addr: IpAddr = if let Ok(addr) = text.parse() {
        addr
    } else if let Some(rest) = text.strip_prefix('[') {
        rest.split_once(']')?.0.parse().ok()?
    } else {
        text.rsplit_once(':')?.0.parse().ok()?
    };
    // Dual-stack hops write IPv4 addresses mapped into IPv6; networks are given in IPv4.
    Some(addr.to_canonical())
}

/// Writes the X-Forwarded-* fields: what a trusted proxy said, then what we saw.
pub(super) fn write_x_forwarded(
    out: &mut Vec<u8>,
    peer: Option<IpAddr>,
    client: Client,
    head: &RequestHead,
    buf: &[u8],
    scheme: &str,
) {
    let mut has_said = false;
    if client.is_trusted {
        for field in head
            .fields
            .iter()
            .filter(|f| f.id == FieldId::XForwardedFor)
        {
            out.extend_from_slice(if has_said {
                b", "
            } else {
                b"X-Forwarded-For: "
            });
            out.extend_from_slice(field.value.of(buf));
            has_said = true;
        }
    }
    if let Some(peer) = peer {
        out.extend_from_slice(if has_said {
            b", "
        } else {
            b"X-Forwarded-For: "
        });
        push_ip(out, peer);
        has_said = true;
    }
    if has_said {
        out.extend_from_slice(b"\r\n");
    }
    if !(client.is_trusted && head.has(FieldId::XForwardedProto)) {
        out.extend_from_slice(b"X-Forwarded-Proto: ");
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !(client.is_trusted && head.has(FieldId::XForwardedHost))
        && let host = head.authority_bytes(buf)
        && !host.is_empty()
    {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the RFC 7239 Forwarded field: the elements of trusted proxies, then ours (section 4).
pub(super) fn write_forwarded(
    out: &mut Vec<u8>,
    peer: Option<IpAddr>,
    client: Client,
    head: &RequestHead,
    buf: &[u8],
    scheme: &str,
) {
    out.extend_from_slice(b"Forwarded: ");
    if client.is_trusted {
        for field in head.fields.iter().filter(|f| f.id == FieldId::Forwarded) {
            out.extend_from_slice(field.value.of(buf));
            out.extend_from_slice(b", ");
        }
    }
    match peer {
        // Section 6: an IPv6 address is bracketed and, for its colons, quoted.
        Some(IpAddr::V6(addr)) if addr.to_ipv4_mapped().is_none() => {
            out.extend_from_slice(b"for=\"[");
            push_ip(out, IpAddr::V6(addr));
            out.extend_from_slice(b"]\"");
        }
        Some(addr) => {
            out.extend_from_slice(b"for=");
            push_ip(out, addr);
        }
        None => out.extend_from_slice(b"for=unknown"),
    }
    if let Some(host) = head.authority(buf) {
        // A host with a port holds a colon, which is no token character.
        let quote: &[u8] = if host.contains([':', '[']) {
            b"\""
        } else {
            b""
        };
        out.extend_from_slice(b";host=");
        out.extend_from_slice(quote);
        out.extend_from_slice(host.as_bytes());
        out.extend_from_slice(quote);
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An address as text; one mapped into IPv6 (dual-stack listeners) as the IPv4 address it is.
pub(super) fn push_ip(out: &mut Vec<u8>, addr: IpAddr) {
    decimal::push_ip(out, addr.to_canonical());
}

#[cfg(test)]
mod tests {
    use crate::http1::Limits;

    use super::*;

    fn parse(fields: &str) -> (RequestHead, Vec<u8>) {
        let text = format!("GET / HTTP/1.1\r\nHost: a.example:8080\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::new();
        head.parse(&text, &Limits::default()).unwrap();
        (head, text)
    }

    fn found(peer: &str, fields: &str) -> String {
        let (head, buf) = parse(fields);
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        client(Some(peer.parse().unwrap()), &trusted, &head, &buf)
            .addr
            .unwrap()
            .to_string()
    }

    #[test]
    fn strangers_are_not_believed() {
        assert_eq!(
            found("192.0.2.7", "X-Forwarded-For: 1.2.3.4\r\n"),
            "192.0.2.7"
        );
        assert_eq!(
            found("192.0.2.7", "Forwarded: for=1.2.3.4\r\n"),
            "192.0.2.7"
        );
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_vouches_for_is_the_client() {
        let f = "X-Forwarded-For: 6.6.6.6, 198.51.100.9, 10.1.1.1\r\n";
        assert_eq!(found("10.0.0.1", f), "198.51.100.9");
        let split = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 198.51.100.9:4711,10.1.1.1\r\n";
        assert_eq!(found("10.0.0.1", split), "198.51.100.9");
        assert_eq!(
            found("10.0.0.1", "X-Forwarded-For: 10.9.9.9\r\n"),
            "10.9.9.9"
        );
        assert_eq!(
            found("10.0.0.1", "X-Forwarded-For: 1.1.1.1, junk, 10.2.2.2\r\n"),
            "10.2.2.2"
        );
        assert_eq!(found("10.0.0.1", ""), "10.0.0.1");
        let mapped = "X-Forwarded-For: 198.51.100.9, ::ffff:10.1.1.1\r\n";
        assert_eq!(found("10.0.0.1", mapped), "198.51.100.9");
    }

    #[test]
    fn rfc_7239_elements() {
        let f = "Forwarded: for=\"[2001:db8:cafe::17]:4711\";proto=http, for=10.3.3.3\r\n";
        assert_eq!(found("10.0.0.1", f), "2001:db8:cafe::17");
        assert_eq!(found("10.0.0.1", "Forwarded: for=_hidden\r\n"), "10.0.0.1");
    }

    #[test]
    fn fields_written() {
        let (head, buf) = parse("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n");
        let mut out = Vec::new();
        let peer = Some("10.0.0.1".parse().unwrap());
        let trusted = Client {
            addr: peer,
            is_trusted: true,
        };
        write_x_forwarded(&mut out, peer, trusted, &head, &buf, "http");
        write_forwarded(&mut out, peer, trusted, &head, &buf, "http");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: a.example:8080\r\n\
             Forwarded: for=10.0.0.1;host=\"a.example:8080\";proto=http\r\n"
        );
        let mut out = Vec::new();
        let peer = Some("2001:db8::1".parse().unwrap());
        let stranger = Client {
            addr: peer,
            is_trusted: false,
        };
        write_x_forwarded(&mut out, peer, stranger, &head, &buf, "http");
        write_forwarded(&mut out, peer, stranger, &head, &buf, "http");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: a.example:8080\r\n\
             Forwarded: for=\"[2001:db8::1]\";host=\"a.example:8080\";proto=http\r\n"
        );
    }

    #[test]
    fn mapped_addresses_are_written_as_what_they_are() {
        let mut out = Vec::new();
        push_ip(&mut out, "::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(out, b"192.0.2.1");
    }
}
