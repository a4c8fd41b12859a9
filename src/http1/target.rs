//! The request target: its four forms (RFC 9112 section 3.2), and the host that it names.

use std::net::Ipv6Addr;

use http::Method;

use super::field::Span;
use super::refusal::Refusal;

/// The form of a request target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A path and perhaps a query: the usual one.
    #[default]
    Origin,
    /// `http://` or `https://`, host, path, query: what a client sends to a proxy.
    Absolute,
    /// Host and port: CONNECT only.
    Authority,
    /// `*`: OPTIONS only.
    Asterisk,
}

/// A target taken apart; spans are relative to the buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Target {
    pub(super) form: Form,
    /// Empty for origin and asterisk form.
    pub(super) authority: Span,
    /// Empty when the target has none (absolute form without a path, authority form).
    pub(super) path: Span,
    /// Without the question mark; `None` when there is none.
    pub(super) query: Option<Span>,
    /// The port that the scheme implies; 0 without a scheme.
    default_port: u16,
}

/// A host and its port, read from `host[:port]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority {
    /// Bytes of the host, brackets included.
    pub(super) host_len: usize,
    pub(super) port: Option<u16>,
}

const IN_PATH: u8 = 1;
const IN_QUERY: u8 = 2;
const IN_NAME: u8 = 4;

/// Which bytes stand where. Path and query: what hyper's `http::Uri` takes (the WHATWG URL
/// standard's path and query states, with the quotes, braces and bars that browsers leave
/// unescaped), less `#` and all that is not ASCII. Names: unreserved characters only.
static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        if matches!(b, 0x21 | 0x22 | 0x24..=0x3b | 0x3d | 0x40..=0x5f | 0x61..=0x7e) {
            table[i] |= IN_PATH;
        }
        if matches!(b, 0x21 | 0x24..=0x3b | 0x3d | 0x3f..=0x7e) {
            table[i] |= IN_QUERY;
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            table[i] |= IN_NAME;
        }
        i += 1;
    }
    table
};

// === impl Target ===

impl Target {
    /// Takes `bytes`, which begin at `at` in the buffer, apart.
    #[inline]
    pub(super) fn parse(bytes: &[u8], at: usize, method: &Method) -> Result<Self, Refusal> {
        if bytes.first() == Some(&b'/') && *method != Method::CONNECT {
            let (path, query) = path_and_query(bytes, at)?;
            return Ok(Self {
                path,
                query,
                ..Self::default()
            });
        }
        Self::parse_other(bytes, at, method)
    }

    #[cold]
    fn parse_other(bytes: &[u8], at: usize, method: &Method) -> Result<Self, Refusal> {
        let whole = Span::new(at, at + bytes.len());
        if *method == Method::CONNECT {
            return match authority(bytes) {
                Some(Authority { port: Some(_), .. }) => Ok(Self {
                    form: Form::Authority,
                    authority: whole,
                    ..Self::default()
                }),
                Some(_) | None => Err(Refusal::BadTarget),
            };
        }
        if bytes == b"*" {
            return if *method == Method::OPTIONS {
                Ok(Self {
                    form: Form::Asterisk,
                    path: whole,
                    ..Self::default()
                })
            } else {
                Err(Refusal::BadTarget)
            };
        }
        let (scheme, default_port) = match bytes {
            _ if has_prefix(bytes, b"http://") => (7, 80),
            _ if has_prefix(bytes, b"https://") => (8, 443),
            _ => return Err(Refusal::BadTarget),
        };
        let rest = bytes.get(scheme..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|b| matches!(b, b'/' | b'?' | b'#'))
            .unwrap_or(rest.len());
        let (host, tail) = rest.split_at(end);
        authority(host).ok_or(Refusal::BadHost)?;
        let (path, query) = path_and_query(tail, at + scheme + end)?;
        let authority = Span::new(at + scheme, at + scheme + end);
        Ok(Self {
            form: Form::Absolute,
            authority,
            path,
            query,
            default_port,
        })
    }

    /// Whether Host says the same as the target; only a target with an authority has a say.
    pub(super) fn agrees(&self, buf: &[u8], host: &[u8]) -> bool {
        let own = self.authority.of(buf);
        if own.eq_ignore_ascii_case(host) {
            return true;
        }
        let (Some(a), Some(b)) = (authority(own), authority(host)) else {
            return false;
        };
        let same_host = match (own.get(..a.host_len), host.get(..b.host_len)) {
            (Some(x), Some(y)) => x.eq_ignore_ascii_case(y),
            _ => false,
        };
        // A CONNECT target always has a port; Host may leave it out.
        let implied = if self.form == Form::Authority {
            a.port
        } else {
            Some(self.default_port)
        };
        same_host && a.port.or(implied) == b.port.or(implied)
    }
}

/// Splits path from query and checks the bytes of both.
#[inline]
fn path_and_query(bytes: &[u8], at: usize) -> Result<(Span, Option<Span>), Refusal> {
    let is_in = |class: u8| move |&b: &u8| CLASS[b as usize] & class != 0;
    let end = bytes
        .iter()
        .position(|b| !is_in(IN_PATH)(b))
        .unwrap_or(bytes.len());
    let path = Span::new(at, at + end);
    match bytes.get(end..).unwrap_or_default() {
        [] => Ok((path, None)),
        [b'?', query @ ..] if query.iter().all(is_in(IN_QUERY)) => {
            Ok((path, Some(Span::new(at + end + 1, at + bytes.len()))))
        }
        _ => Err(Refusal::BadTarget),
    }
}

/// Reads `host[:port]`: a non-empty name or a bracketed IPv6 address; a port of 1-65535.
#[inline]
pub(super) fn authority(bytes: &[u8]) -> Option<Authority> {
    let host_len = if bytes.first() == Some(&b'[') {
        let close = bytes.iter().position(|&b| b == b']')?;
        // An address only: no zone (RFC 6874), no IPvFuture.
        std::str::from_utf8(bytes.get(1..close)?)
            .ok()?
            .parse::<Ipv6Addr>()
            .ok()?;
        close + 1
    } else {
        bytes
            .iter()
            .position(|&b| CLASS[b as usize] & IN_NAME == 0)
            .unwrap_or(bytes.len())
    };
    if host_len == 0 {
        return None;
    }
    let port = match bytes.get(host_len..)? {
        [] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return None,
    };
    Some(Authority { host_len, port })
}

/// One to five digits, 1-65535.
fn port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits
        .iter()
        .fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    u16::try_from(n).ok().filter(|&n| n != 0)
}

fn has_prefix(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes
        .get(..prefix.len())
        .is_some_and(|b| b.eq_ignore_ascii_case(prefix))
}
