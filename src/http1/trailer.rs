//! Which trailers may pass on, by their names alone (RFC 9110 section 6.5.1).
//!
//! A trailer comes after the decisions that its name may be part of, and many recipients merge it
//! into the head. So what frames, routes, authenticates or modifies a request, controls a response
//! or describes its content does not pass; the sender meant it for nobody who still can heed it.

use super::field::{FieldId, Role};

/// Names that the proxy does not know by an id, in lower case, sorted.
const NAMES: [&str; 10] = [
    "age",
    "allow",
    "cookie2",
    "early-data",
    "expires",
    "http2-settings",
    "prefer",
    "retry-after",
    "set-cookie2",
    "warning",
];

/// Families of such names, by their beginning.
const FAMILIES: [&str; 7] = [
    "accept-",
    "access-control-",
    "content-",
    "if-",
    "proxy-",
    "sec-",
    "x-forwarded-",
];

/// Members of those families that are defined for trailers: RFC 9530 section 2, RFC 9209 section 2,
/// RFC 9110 section 11.7.3.
const EXCEPT: [&str; 3] = [
    "content-digest",
    "proxy-authentication-info",
    "proxy-status",
];

/// As many bytes of a name as are looked at: no name here is longer.
const FRONT: usize = 32;

/// Whether a trailer of this name may be passed on, of whichever version of HTTP it came in.
pub fn may_be_trailer(name: &[u8]) -> bool {
    may_pass(FieldId::of(name), name)
}

/// The same of a name whose id is known. `x_real_ip` is judged as `x-real-ip`: CGI and WSGI
/// make one variable of both.
pub(super) fn may_pass(id: FieldId, name: &[u8]) -> bool {
    match id.role() {
        Role::EndToEndOrTrailer => return true,
        Role::EndToEnd | Role::HopByHop => return false,
        Role::Unknown => {}
    }
    let mut front = [0; FRONT];
    for (to, &from) in front.iter_mut().zip(name) {
        *to = match from {
            b'_' => b'-',
            other => other.to_ascii_lowercase(),
        };
    }
    let front = &front[..name.len().min(FRONT)];
    let is = |names: &[&str]| names.iter().any(|n| n.as_bytes() == front);
    let of_family = FAMILIES.iter().any(|f| front.starts_with(f.as_bytes()));
    if is(&EXCEPT) {
        return true;
    }
    let alias = if name.len() > FRONT {
        FieldId::Other
    } else {
        FieldId::of(front)
    };
    !of_family && !is(&NAMES) && matches!(alias.role(), Role::Unknown | Role::EndToEndOrTrailer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(name: &str) -> bool {
        may_pass(FieldId::of(name.as_bytes()), name.as_bytes())
    }

    #[test]
    fn what_rfc_9110_bars_does_not_pass_in_any_spelling() {
        for name in [
            "Authorization",
            "Cache-Control",
            "Connection",
            "Content-Encoding",
            "Content-Language",
            "Content-Length",
            "Content_Type",
            "Cookie",
            "Expires",
            "Forwarded",
            "Host",
            "If-None-Match",
            "If_Modified_Since",
            "Keep-Alive",
            "Proxy-Authorization",
            "Retry-After",
            "Set-Cookie",
            "TE",
            "Transfer_Encoding",
            "Via",
            "X-Forwarded-For",
            "X-Forwarded-A-Name-That-Is-Longer-Than-All-Of-Them",
            "X_FORWARDED_FOR",
            "X-Real-IP",
            "x_real-ip",
            "X_Request_Id",
        ] {
            assert!(!passes(name), "{name}");
        }
    }

    #[test]
    fn what_is_meant_to_be_a_trailer_passes() {
        for name in [
            "Content-Digest",
            "ETag",
            "Grpc-Status",
            "grpc_message",
            "Proxy-Status",
            "Server-Timing",
            "X-Checksum",
            "X-Forward",
            "A-Name-That-Is-Longer-Than-All-Of-Those-Above",
        ] {
            assert!(passes(name), "{name}");
        }
    }
}
