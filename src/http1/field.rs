//! Fields: where they lie in the buffer, and which of them the proxy knows.

use crate::base::fold::is_folded;

/// A range of the buffer a head was parsed from. 32 bits, because heads end at `max_head_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, in the sender's case.
    pub name: Span,
    /// The value without surrounding spaces and tabs.
    pub value: Span,
    /// Which known name it is.
    pub id: FieldId,
}

macro_rules! field_ids {
    ($($variant:ident = $name:literal / $len:literal, $first:literal, $role:ident;)*) => {
        /// The field names that the proxy treats in some way of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum FieldId {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
            /// Any other name.
            Other,
        }

        impl FieldId {
            /// Which known name this is, whatever its case: one comparison, as length and first
            /// letter leave at most a few candidates. `name` must be a token, as every field name
            /// is that was parsed; bytes that no token has may compare equal to others.
            #[inline]
            #[must_use]
            pub fn of(name: &[u8]) -> Self {
                let Some(first) = name.first() else { return Self::Other };
                match (name.len(), first | 0x20) {
                    $(($len, $first) if is_folded::<$len>(name, $name) => Self::$variant,)*
                    _ => Self::Other,
                }
            }

            /// The name in lower case; empty for [`FieldId::Other`].
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other => "",
                }
            }

            #[inline]
            pub(super) const fn role(self) -> Role {
                match self {
                    $(Self::$variant => Role::$role,)*
                    Self::Other => Role::Unknown,
                }
            }

            #[cfg(test)]
            pub(super) const KNOWN: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

/// What the codec does with a name beyond framing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Meant for this connection only (RFC 9110 section 7.6.1): never forwarded.
    HopByHop,
    /// Meant for the recipient: Connection cannot name it away.
    EndToEnd,
    /// The same, and good as a trailer too.
    EndToEndOrTrailer,
    /// Not in the list: Connection may name it; good as a trailer.
    Unknown,
}

field_ids! {
    Accept = "accept" / 6, b'a', EndToEnd;
    AcceptEncoding = "accept-encoding" / 15, b'a', EndToEnd;
    Authorization = "authorization" / 13, b'a', EndToEnd;
    CacheControl = "cache-control" / 13, b'c', EndToEnd;
    Connection = "connection" / 10, b'c', HopByHop;
    ContentEncoding = "content-encoding" / 16, b'c', EndToEnd;
    ContentLength = "content-length" / 14, b'c', EndToEnd;
    ContentRange = "content-range" / 13, b'c', EndToEnd;
    ContentType = "content-type" / 12, b'c', EndToEnd;
    Cookie = "cookie" / 6, b'c', EndToEnd;
    Date = "date" / 4, b'd', EndToEnd;
    Etag = "etag" / 4, b'e', EndToEndOrTrailer;
    Expect = "expect" / 6, b'e', EndToEnd;
    Forwarded = "forwarded" / 9, b'f', EndToEnd;
    Host = "host" / 4, b'h', EndToEnd;
    KeepAlive = "keep-alive" / 10, b'k', HopByHop;
    Location = "location" / 8, b'l', EndToEnd;
    MaxForwards = "max-forwards" / 12, b'm', EndToEnd;
    Origin = "origin" / 6, b'o', EndToEnd;
    Pragma = "pragma" / 6, b'p', EndToEnd;
    ProxyAuthenticate = "proxy-authenticate" / 18, b'p', EndToEnd;
    ProxyAuthorization = "proxy-authorization" / 19, b'p', EndToEnd;
    ProxyConnection = "proxy-connection" / 16, b'p', HopByHop;
    Range = "range" / 5, b'r', EndToEnd;
    Referer = "referer" / 7, b'r', EndToEnd;
    Server = "server" / 6, b's', EndToEnd;
    SetCookie = "set-cookie" / 10, b's', EndToEnd;
    StrictTransportSecurity = "strict-transport-security" / 25, b's', EndToEnd;
    Te = "te" / 2, b't', HopByHop;
    Traceparent = "traceparent" / 11, b't', EndToEnd;
    Tracestate = "tracestate" / 10, b't', EndToEnd;
    Trailer = "trailer" / 7, b't', EndToEnd;
    TransferEncoding = "transfer-encoding" / 17, b't', HopByHop;
    Upgrade = "upgrade" / 7, b'u', HopByHop;
    UserAgent = "user-agent" / 10, b'u', EndToEnd;
    Vary = "vary" / 4, b'v', EndToEnd;
    Via = "via" / 3, b'v', EndToEnd;
    WwwAuthenticate = "www-authenticate" / 16, b'w', EndToEnd;
    XForwardedFor = "x-forwarded-for" / 15, b'x', EndToEnd;
    XForwardedHost = "x-forwarded-host" / 16, b'x', EndToEnd;
    XForwardedPort = "x-forwarded-port" / 16, b'x', EndToEnd;
    XForwardedProto = "x-forwarded-proto" / 17, b'x', EndToEnd;
    XRealIp = "x-real-ip" / 9, b'x', EndToEnd;
    XRequestId = "x-request-id" / 12, b'x', EndToEnd;
}

// === impl Span ===

impl Span {
    /// Whether it holds no byte.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Its bytes; empty when the span does not lie in `buf`.
    #[inline]
    #[must_use]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Its text; empty when the span does not lie in `buf` or is not UTF-8.
    #[inline]
    #[must_use]
    pub fn text(self, buf: &[u8]) -> &str {
        std::str::from_utf8(self.of(buf)).unwrap_or_default()
    }

    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// Where `part` lies in `buf`, of which it is a slice.
    #[inline]
    pub(super) fn locate(buf: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(buf.as_ptr() as usize);
        Self::new(start, start.wrapping_add(part.len()))
    }
}

// === impl FieldId ===

impl FieldId {
    /// Never forwarded, whether Connection names it or not.
    #[inline]
    pub(super) fn is_hop_by_hop(self) -> bool {
        self.role() == Role::HopByHop
    }

    /// Whether a `Connection` option of the same name takes this field away. Only names that the
    /// proxy does not know: those it knows are meant for the recipient (RFC 9110 section 7.6.1
    /// forbids naming such), and a client must not be able to strip what a trusted hop before us
    /// vouches for, hence the `x-forwarded-` family too.
    #[inline]
    pub(super) fn is_removable(self, name: &[u8]) -> bool {
        const FAMILY: &[u8] = b"x-forwarded-";
        self == Self::Other
            && !name
                .get(..FAMILY.len())
                .is_some_and(|n| n.eq_ignore_ascii_case(FAMILY))
    }

    /// A bit of a set of known names.
    #[inline]
    pub(super) fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

/// Whether a program that folds `_` into `-` would read this name as a framing field.
#[inline]
pub(super) fn is_aliased_framing(name: &[u8]) -> bool {
    let alias = |of: &[u8]| {
        name.iter()
            .zip(of)
            .all(|(&n, &o)| n.eq_ignore_ascii_case(&o) || (n == b'_' && o == b'-'))
    };
    match name.len() {
        14 => alias(b"content-length"),
        17 => alias(b"transfer-encoding"),
        _ => false,
    }
}

/// The elements of a comma-separated list, each without surrounding spaces and tabs.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// Without surrounding spaces and tabs.
#[inline]
pub(super) fn trim(mut v: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = v {
        v = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = v {
        v = rest;
    }
    v
}

/// RFC 9110 section 5.6.2: `tchar`.
#[inline]
pub(super) fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether it is a non-empty token.
pub(super) fn is_token(v: &[u8]) -> bool {
    !v.is_empty() && v.iter().all(|&b| is_tchar(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        assert!(FieldId::KNOWN.len() < 64, "a set of them is one u64");
        for &id in FieldId::KNOWN {
            assert_eq!(FieldId::of(id.name().as_bytes()), id);
            assert_eq!(FieldId::of(id.name().to_ascii_uppercase().as_bytes()), id);
            let mut near = id.name().as_bytes().to_vec();
            *near.last_mut().unwrap() ^= 1;
            assert_eq!(FieldId::of(&near), FieldId::Other);
        }
        assert_eq!(FieldId::of(b""), FieldId::Other);
    }

    #[test]
    fn a_field_is_five_words_of_32_bits() {
        assert_eq!(size_of::<Field>(), 20);
    }

    #[test]
    fn framing_aliases_are_seen() {
        assert!(is_aliased_framing(b"Content_Length"));
        assert!(is_aliased_framing(b"transfer_Encoding"));
        assert!(!is_aliased_framing(b"content_lengti"));
        assert!(!is_aliased_framing(b"x_forwarded_for"));
    }

    #[test]
    fn a_span_outside_its_buffer_is_empty() {
        assert_eq!(Span::new(2, 9).of(b"abc"), b"");
        assert_eq!(Span::new(9, 2).text(b"abc"), "");
    }
}
