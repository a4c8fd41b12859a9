//! Names of fields: what each is to a head that changes versions. Pure.
//!
//! Most fields have a name that is known here, and such a one is neither parsed nor checked nor
//! allocated: it is a constant.

use http::HeaderName;

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
    /// Never the same twice.
    Unique,
    Upgrade,
    WebSocketAccept,
    WebSocketKey,
}

macro_rules! names {
    ($($name:literal / $len:literal, $first:literal, $class:ident;)*) => {
        /// What the field of this name is, whatever its case, and the name, if it is a known one. One
        /// comparison, as length and first letter leave at most a few candidates. `name` holds no CR.
        pub(super) fn known(name: &[u8]) -> (Class, Option<HeaderName>) {
            let Some(first) = name.first() else {
                return (Class::Other, None);
            };
            match (name.len(), first | 0x20) {
                $(($len, $first) if is_folded::<$len>(name, $name) => {
                    const NAME: HeaderName = HeaderName::from_static($name);
                    (Class::$class, Some(NAME))
                })*
                // Of no use to HTTP/2, and with a digit, which folding would find in a control character.
                (14, b'h') if name.eq_ignore_ascii_case(b"http2-settings") => (Class::Hop, None),
                _ => (Class::Other, None),
            }
        }

        #[cfg(test)]
        const KNOWN: &[(&str, Class)] = &[$(($name, Class::$class)),*];
    };
}

names! {
    "accept" / 6, b'a', Other;
    "accept-encoding" / 15, b'a', Other;
    "accept-language" / 15, b'a', Other;
    "accept-ranges" / 13, b'a', Other;
    "access-control-allow-origin" / 27, b'a', Other;
    "age" / 3, b'a', Other;
    "allow" / 5, b'a', Other;
    "authorization" / 13, b'a', Other;
    "cache-control" / 13, b'c', Other;
    "connection" / 10, b'c', Hop;
    "content-disposition" / 19, b'c', Other;
    "content-encoding" / 16, b'c', Other;
    "content-language" / 16, b'c', Other;
    "content-length" / 14, b'c', ContentLength;
    "content-range" / 13, b'c', Other;
    "content-security-policy" / 23, b'c', Other;
    "content-type" / 12, b'c', ContentType;
    "cookie" / 6, b'c', Other;
    "date" / 4, b'd', Other;
    "etag" / 4, b'e', Other;
    "expires" / 7, b'e', Other;
    "forwarded" / 9, b'f', Other;
    "grpc-accept-encoding" / 20, b'g', Other;
    "grpc-encoding" / 13, b'g', Other;
    "grpc-message" / 12, b'g', Other;
    "grpc-status" / 11, b'g', Other;
    "grpc-timeout" / 12, b'g', Unique;
    "host" / 4, b'h', Host;
    "if-match" / 8, b'i', Other;
    "if-modified-since" / 17, b'i', Other;
    "if-none-match" / 13, b'i', Other;
    "if-range" / 8, b'i', Other;
    "keep-alive" / 10, b'k', Hop;
    "last-modified" / 13, b'l', Other;
    "link" / 4, b'l', Other;
    "location" / 8, b'l', Other;
    "origin" / 6, b'o', Other;
    "pragma" / 6, b'p', Other;
    "proxy-connection" / 16, b'p', Hop;
    "range" / 5, b'r', Other;
    "referer" / 7, b'r', Other;
    "retry-after" / 11, b'r', Other;
    "sec-websocket-accept" / 20, b's', WebSocketAccept;
    "sec-websocket-key" / 17, b's', WebSocketKey;
    "server" / 6, b's', Other;
    "set-cookie" / 10, b's', Other;
    "strict-transport-security" / 25, b's', Other;
    "te" / 2, b't', Hop;
    "traceparent" / 11, b't', Unique;
    "tracestate" / 10, b't', Other;
    "transfer-encoding" / 17, b't', Chunked;
    "upgrade" / 7, b'u', Upgrade;
    "upgrade-insecure-requests" / 25, b'u', Other;
    "user-agent" / 10, b'u', Other;
    "vary" / 4, b'v', Other;
    "via" / 3, b'v', Other;
    "www-authenticate" / 16, b'w', Other;
    "x-content-type-options" / 22, b'x', Other;
    "x-forwarded-for" / 15, b'x', Other;
    "x-forwarded-host" / 16, b'x', Other;
    "x-forwarded-port" / 16, b'x', Other;
    "x-forwarded-proto" / 17, b'x', Other;
    "x-frame-options" / 15, b'x', Other;
    "x-real-ip" / 9, b'x', Other;
    "x-request-id" / 12, b'x', Unique;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_known_whatever_its_case() {
        for (name, class) in KNOWN {
            for name in [name.to_string(), name.to_uppercase()] {
                let lower = HeaderName::from_bytes(name.as_bytes()).unwrap();
                assert_eq!(known(name.as_bytes()), (*class, Some(lower)));
            }
        }
    }

    /// Each name with one byte replaced by any other.
    #[test]
    fn name_that_differs_in_a_byte_is_another() {
        for (name, _) in KNOWN {
            for at in 0..name.len() {
                for byte in (0..=u8::MAX).filter(|&byte| byte != b'\r') {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = byte;
                    let is_same = other.eq_ignore_ascii_case(name.as_bytes());
                    let (class, found) = known(&other);
                    match HeaderName::from_bytes(&other) {
                        Ok(parsed) if found.is_some() => assert_eq!(found, Some(parsed)),
                        _ => assert_eq!(found, None, "{}", other.escape_ascii()),
                    }
                    assert!(is_same == found.as_ref().is_some_and(|n| n.as_str() == *name));
                    assert!(found.is_some() || class == Class::Other);
                }
            }
        }
    }

    #[test]
    fn nothing_and_the_longest_are_no_known_names() {
        assert_eq!(known(b""), (Class::Other, None));
        assert_eq!(known(&[b'a'; 1000]), (Class::Other, None));
    }
}
