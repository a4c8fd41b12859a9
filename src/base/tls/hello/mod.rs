//! What a connection begins with, as peeked from its socket: a ClientHello (RFC 8446 section 4.1.2), or
//! HTTP.
//!
//! Whom a ClientHello asks for is read as rustls would read it, so that a connection which is passed on
//! unopened and one that ends here are told apart by the same name.

use std::borrow::Cow;
use std::net::IpAddr;

use rustls::pki_types::DnsName;

/// Most bytes of a ClientHello, its header of four included. A post-quantum key share makes one of 1.7
/// KiB; 16 KiB are what one record may hold. On the wire it is longer by five bytes a record.
pub const HELLO_MAX: usize = 16 * 1024;

/// What the bytes that a connection begins with are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// A whole ClientHello; what is behind it is not looked at.
    Client(ClientHello),
    /// TLS, but not as it may be.
    Malformed(&'static str),
    /// The beginning of a ClientHello.
    More,
    /// Not a record of TLS 1.0 to 1.3 with a handshake: another protocol, or a ClientHello in the form
    /// of SSL 2.0, which RFC 6176 forbids and rustls does not take either.
    NotTls,
    /// A ClientHello of more than [`HELLO_MAX`] bytes, or of more than there is room for.
    TooLong,
}

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name (SNI): lower case, valid in DNS, without a final dot. `None` = no name, or an IP
    /// address, which is none (RFC 6066 section 3) and which some clients send nevertheless. With
    /// Encrypted Client Hello, the outer one.
    pub server_name: Option<String>,
    /// The protocols it offers, the preferred one first; none of them is empty.
    pub alpn: Vec<Vec<u8>>,
    /// Whether it has an encrypted ClientHello within (RFC 9849), or pretends to.
    pub has_ech: bool,
}

/// Looks at the first `bytes` of a connection. `is_full` = there is no room for more of them.
///
/// All of them are gone through at each call: five bytes of a record at a time until the hello is
/// whole, and once more then.
pub fn peek(bytes: &[u8], is_full: bool) -> Peeked {
    match handshake(bytes) {
        Ok(message) => match hello(&message) {
            Some(Ok(hello)) => Peeked::Client(hello),
            Some(Err(why)) => Peeked::Malformed(why),
            None => Peeked::Malformed("a length in its ClientHello is wrong"),
        },
        Err(Peeked::More) if is_full => Peeked::TooLong,
        Err(otherwise) => otherwise,
    }
}

// === records ===

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Most bytes in a record (RFC 8446 section 5.1).
const RECORD_MAX: usize = 1 << 14;

/// The body of the first handshake message, which is a ClientHello. It may be cut into records anywhere.
fn handshake(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Peeked> {
    /// Four bytes: a type and a length.
    const HEADER: usize = 4;
    let mut rest = bytes;
    let mut have = 0;
    let mut header = [0; HEADER];
    let needed = loop {
        let fragment = record(&mut rest)?;
        // The header is complete at the latest when it is read below.
        for (to, from) in header.iter_mut().skip(have).zip(fragment) {
            *to = *from;
        }
        have += fragment.len();
        if header[0] != CLIENT_HELLO {
            return Err(Peeked::Malformed("its first message is no ClientHello"));
        }
        if have >= HEADER {
            let [_, high, middle, low] = header;
            let needed = HEADER + u32::from_be_bytes([0, high, middle, low]) as usize;
            if needed > HELLO_MAX {
                return Err(Peeked::TooLong);
            }
            if have >= needed {
                break needed;
            }
        }
        if rest.is_empty() {
            return Err(Peeked::More);
        }
    };
    let mut again = bytes;
    let first = record(&mut again)?;
    if let Some(message) = first.get(HEADER..needed) {
        return Ok(Cow::Borrowed(message));
    }
    let mut message = Vec::with_capacity(needed);
    message.extend_from_slice(first);
    while message.len() < needed {
        message.extend_from_slice(record(&mut again)?);
    }
    message.truncate(needed);
    message.drain(..HEADER);
    Ok(Cow::Owned(message))
}

/// What is there of the next record, never empty: the first bytes of one are as good as the whole.
fn record<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], Peeked> {
    let wrong = |index: usize, is_right: fn(u8) -> bool| {
        let byte = rest.get(index).copied();
        byte.is_some_and(|byte| !is_right(byte))
    };
    // SSL 3.0 to TLS 1.2 say 3.0 to 3.3 here, TLS 1.3 says 3.1 or 3.3.
    if wrong(0, |kind| kind == HANDSHAKE) || wrong(1, |major| major == 3) || wrong(2, |m| m <= 4) {
        return Err(Peeked::NotTls);
    }
    let Some(([_, _, _, high, low], after)) = rest.split_first_chunk::<5>() else {
        return Err(Peeked::More);
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if len == 0 || len > RECORD_MAX {
        return Err(Peeked::Malformed("the length of a record is wrong"));
    }
    let (fragment, after) = after.split_at(len.min(after.len()));
    *rest = after;
    if fragment.is_empty() {
        return Err(Peeked::More);
    }
    Ok(fragment)
}

// === the message ===

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What the body of a ClientHello says; `None` = a length in it is wrong.
fn hello(message: &[u8]) -> Option<Result<ClientHello, &'static str>> {
    let mut rest = message;
    // Which versions are offered is not said here since TLS 1.3, and is not asked.
    let _legacy_version = take::<2>(&mut rest)?;
    let _random = take::<32>(&mut rest)?;
    let session = short_vector(&mut rest)?;
    let suites = vector(&mut rest)?;
    let compressions = short_vector(&mut rest)?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return None;
    }
    let mut found = ClientHello::default();
    if rest.is_empty() {
        // Before TLS 1.2 there may be no extensions at all.
        return Some(Ok(found));
    }
    let mut extensions = vector(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut kinds = Vec::new();
    while !extensions.is_empty() {
        let kind = u16::from_be_bytes(*take::<2>(&mut extensions)?);
        let data = vector(&mut extensions)?;
        kinds.push(kind);
        match kind {
            SERVER_NAME => match server_name(data)? {
                Ok(name) => found.server_name = name,
                Err(why) => return Some(Err(why)),
            },
            ALPN => found.alpn = protocols(data)?,
            ENCRYPTED_CLIENT_HELLO => found.has_ech = true,
            _ => {}
        }
    }
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
        return Some(Err("its ClientHello has an extension twice"));
    }
    Some(Ok(found))
}

/// RFC 6066 section 3: a list of names, of which there is one of each type, and one type.
fn server_name(data: &[u8]) -> Option<Result<Option<String>, &'static str>> {
    const HOST_NAME: u8 = 0;
    let mut rest = data;
    let mut names = vector(&mut rest)?;
    if names.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut found = None;
    while !names.is_empty() {
        let [kind] = *take::<1>(&mut names)?;
        if kind != HOST_NAME {
            // How long a name of another type is, nobody can say; as rustls does.
            break;
        }
        let name = vector(&mut names)?;
        if found.replace(name).is_some() {
            return Some(Err("its ClientHello asks for two names"));
        }
    }
    let Some(name) = found else {
        return Some(Ok(None));
    };
    let Ok(name) = std::str::from_utf8(name) else {
        return Some(Err("its ClientHello asks for a name that is none"));
    };
    if name.parse::<IpAddr>().is_ok() {
        return Some(Ok(None));
    }
    match DnsName::try_from(name) {
        Ok(_) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            Some(Ok(Some(name.to_ascii_lowercase())))
        }
        Err(_) => Some(Err("its ClientHello asks for a name that is none")),
    }
}

/// RFC 7301 section 3.1.
fn protocols(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = data;
    let mut list = vector(&mut rest)?;
    if list.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = short_vector(&mut list)?;
        if protocol.is_empty() {
            return None;
        }
        protocols.push(protocol.to_vec());
    }
    Some(protocols)
}

fn take<'b, const N: usize>(rest: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(taken)
}

/// Bytes behind their length in two bytes.
fn vector<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let len = usize::from(u16::from_be_bytes(*take::<2>(rest)?));
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

/// Bytes behind their length in one byte.
fn short_vector<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let [len] = *take::<1>(rest)?;
    let (taken, after) = rest.split_at_checked(usize::from(len))?;
    *rest = after;
    Some(taken)
}

// === beside TLS ===

/// Whether a connection that begins with `bytes` speaks HTTP/1 or HTTP/2 in clear text; `None` = more
/// bytes are needed, at most 41 in all.
///
/// A method and a space are not enough (RFC 9112 section 3): SSH, SMTP, FTP and others begin with words
/// too. A method is of capital letters and hyphens here, as all that are registered are, and what
/// follows it begins as a target does, of CONNECT alone with anything.
pub fn looks_like_http(bytes: &[u8]) -> Option<bool> {
    /// UPDATEREDIRECTREF, the longest one registered, has 17.
    const METHOD_MAX: usize = 32;
    let is_method = |b: &u8| b.is_ascii_uppercase() || *b == b'-';
    let method = bytes.iter().take_while(|b| is_method(b)).count();
    if method > METHOD_MAX {
        return Some(false);
    }
    let (method, rest) = bytes.split_at(method);
    let Some((b' ', target)) = rest.split_first() else {
        return if rest.is_empty() { None } else { Some(false) };
    };
    if method.is_empty() {
        return Some(false);
    }
    if method == b"CONNECT" {
        return Some(true);
    }
    match target.first() {
        None => None,
        Some(b'/' | b'*') => Some(true),
        Some(_) => is_either_begun(target),
    }
}

/// Whether `target` begins with a scheme of HTTP.
fn is_either_begun(target: &[u8]) -> Option<bool> {
    let mut is_possible = false;
    for scheme in [&b"http://"[..], b"https://"] {
        let len = scheme.len().min(target.len());
        if target[..len].eq_ignore_ascii_case(&scheme[..len]) {
            if len == scheme.len() {
                return Some(true);
            }
            is_possible = true;
        }
    }
    if is_possible { None } else { Some(false) }
}

/// A fatal alert in clear text, which ends a connection that has not agreed on keys; such as 112,
/// `unrecognized_name`.
pub fn alert(description: u8) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, description]
}

#[cfg(test)]
mod tests;
