//! Names of fields: what each is to a head that changes versions. Pure.
//!
//! Most fields have a name that is known here: what it is costs one comparison, and where HPACK has it
//! in its static table is known with it.

use http::HeaderName;
use http::header::InvalidHeaderName;

use crate::base::fold::is_folded;

/// What a field is to a head that changes versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Chunked,
    ContentLength,
    ContentType,
    /// For one connection of HTTP/1 only (RFC 9113 section 8.2.2).
    Hop,
    Host,
    Other,
    /// Not for tables that others' fields are in, too: whoever could guess at it and see how much is
    /// sent would learn of each guess (RFC 7541 section 7.1).
    Secret,
    /// Of the connection as those are, but "trailers" may be said of it.
    Te,
    /// Seldom the same twice: in a table it would throw out what comes again.
    Unique,
    Upgrade,
    WebSocketAccept,
    WebSocketKey,
}

/// A field's name that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) class: Class,
    /// Its index in the static table of HPACK; 0 = it is not in there.
    pub(super) id: u8,
}

macro_rules! names {
    ($($name:literal / $len:literal, $first:literal, $id:literal, $class:ident;)*) => {
        /// What the field of this name is, whatever its case. One comparison, as length and first letter
        /// leave at most a few candidates. `name` holds no CR.
        #[inline]
        pub(super) fn known(name: &[u8]) -> Known {
            const UNKNOWN: Known = Known { class: Class::Other, id: 0 };
            let Some(first) = name.first() else {
                return UNKNOWN;
            };
            match (name.len(), first | 0x20) {
                $(($len, $first) if is_folded::<$len>(name, $name) => {
                    Known { class: Class::$class, id: $id }
                })*
                // Of no use to HTTP/2, and with a digit, which folding would find in a control character.
                (14, b'h') if name.eq_ignore_ascii_case(b"http2-settings") => {
                    Known { class: Class::Hop, id: 0 }
                }
                _ => UNKNOWN,
            }
        }

        /// The name for a map of trailers: a constant, if it is a known one. `name` is in lower case.
        pub(super) fn header_name(name: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
            match name.len() {
                $($len if name == $name.as_bytes() => {
                    const NAME: HeaderName = HeaderName::from_static($name);
                    Ok(NAME)
                })*
                _ => HeaderName::from_bytes(name),
            }
        }

        #[cfg(test)]
        const KNOWN: &[(&str, u8, Class)] = &[$(($name, $id, Class::$class)),*];
    };
}

names! {
    "accept" / 6, b'a', 19, Other;
    "accept-encoding" / 15, b'a', 16, Other;
    "accept-language" / 15, b'a', 17, Other;
    "accept-ranges" / 13, b'a', 18, Other;
    "access-control-allow-origin" / 27, b'a', 20, Other;
    "age" / 3, b'a', 21, Unique;
    "allow" / 5, b'a', 22, Other;
    "authorization" / 13, b'a', 23, Secret;
    "cache-control" / 13, b'c', 24, Other;
    "connection" / 10, b'c', 0, Hop;
    "content-disposition" / 19, b'c', 25, Other;
    "content-encoding" / 16, b'c', 26, Other;
    "content-language" / 16, b'c', 27, Other;
    "content-length" / 14, b'c', 28, ContentLength;
    "content-range" / 13, b'c', 30, Unique;
    "content-security-policy" / 23, b'c', 0, Other;
    "content-type" / 12, b'c', 31, ContentType;
    "cookie" / 6, b'c', 32, Secret;
    "date" / 4, b'd', 33, Other;
    "etag" / 4, b'e', 34, Unique;
    "expires" / 7, b'e', 36, Other;
    "forwarded" / 9, b'f', 0, Unique;
    "grpc-accept-encoding" / 20, b'g', 0, Other;
    "grpc-encoding" / 13, b'g', 0, Other;
    "grpc-message" / 12, b'g', 0, Other;
    "grpc-status" / 11, b'g', 0, Other;
    "grpc-timeout" / 12, b'g', 0, Unique;
    "host" / 4, b'h', 38, Host;
    "if-match" / 8, b'i', 39, Unique;
    "if-modified-since" / 17, b'i', 40, Unique;
    "if-none-match" / 13, b'i', 41, Unique;
    "if-range" / 8, b'i', 42, Unique;
    "keep-alive" / 10, b'k', 0, Hop;
    "last-modified" / 13, b'l', 44, Unique;
    "link" / 4, b'l', 45, Other;
    "location" / 8, b'l', 46, Unique;
    "origin" / 6, b'o', 0, Other;
    "pragma" / 6, b'p', 0, Other;
    "proxy-authorization" / 19, b'p', 49, Secret;
    "proxy-connection" / 16, b'p', 0, Hop;
    "range" / 5, b'r', 50, Unique;
    "referer" / 7, b'r', 51, Unique;
    "retry-after" / 11, b'r', 53, Other;
    "sec-websocket-accept" / 20, b's', 0, WebSocketAccept;
    "sec-websocket-key" / 17, b's', 0, WebSocketKey;
    "server" / 6, b's', 54, Other;
    "set-cookie" / 10, b's', 55, Secret;
    "strict-transport-security" / 25, b's', 56, Other;
    "te" / 2, b't', 0, Te;
    "traceparent" / 11, b't', 0, Unique;
    "tracestate" / 10, b't', 0, Other;
    "transfer-encoding" / 17, b't', 57, Chunked;
    "upgrade" / 7, b'u', 0, Upgrade;
    "upgrade-insecure-requests" / 25, b'u', 0, Other;
    "user-agent" / 10, b'u', 58, Other;
    "vary" / 4, b'v', 59, Other;
    "via" / 3, b'v', 60, Other;
    "www-authenticate" / 16, b'w', 61, Other;
    "x-content-type-options" / 22, b'x', 0, Other;
    "x-forwarded-for" / 15, b'x', 0, Unique;
    "x-forwarded-host" / 16, b'x', 0, Other;
    "x-forwarded-port" / 16, b'x', 0, Other;
    "x-forwarded-proto" / 17, b'x', 0, Other;
    "x-frame-options" / 15, b'x', 0, Other;
    "x-real-ip" / 9, b'x', 0, Unique;
    "x-request-id" / 12, b'x', 0, Unique;
}

#[cfg(test)]
mod tests {
    use super::super::hpack::statics;
    use super::*;

    #[test]
    fn name_is_known_whatever_its_case() {
        for &(name, id, class) in KNOWN {
            for name in [name.to_string(), name.to_uppercase()] {
                assert_eq!(known(name.as_bytes()), Known { class, id });
            }
            assert_eq!(statics::id_of(name.as_bytes()), id, "{name}");
            assert_eq!(header_name(name.as_bytes()).unwrap(), name);
        }
    }

    /// Each name with one byte replaced by any other.
    #[test]
    fn name_that_differs_in_a_byte_is_another() {
        for &(name, id, class) in KNOWN {
            for at in 0..name.len() {
                for byte in (0..=u8::MAX).filter(|&byte| byte != b'\r') {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = byte;
                    let found = known(&other);
                    if other.eq_ignore_ascii_case(name.as_bytes()) {
                        assert_eq!(found, Known { class, id });
                    } else {
                        let is_another = KNOWN
                            .iter()
                            .any(|(name, ..)| other.eq_ignore_ascii_case(name.as_bytes()));
                        let is_unknown = found.id == 0 && found.class == Class::Other;
                        assert!(is_another || is_unknown, "{}", other.escape_ascii());
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_and_the_longest_are_no_known_names() {
        for name in [&b""[..], &[b'a'; 1000]] {
            assert_eq!(
                known(name),
                Known {
                    class: Class::Other,
                    id: 0
                }
            );
        }
        assert!(header_name(b"").is_err());
        assert_eq!(header_name(b"x-sum").unwrap(), "x-sum");
    }
}
