//! What is particular to gRPC: a failure is told with status 200 and `grpc-status`.

use ::http::{HeaderMap, HeaderValue};

use crate::http1::{FieldId, RequestHead};
use crate::telemetry::reason::Reason;

/// How its messages are called; more may follow (`+proto`).
pub(super) const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Whether a request is a call of gRPC. (gRPC-Web speaks for itself, in HTTP's words.)
pub(super) fn is_call(head: &RequestHead, buf: &[u8]) -> bool {
    let kind = head.get(buf, FieldId::ContentType).unwrap_or_default();
    let (front, rest) = kind.split_at(kind.len().min(CONTENT_TYPE.len()));
    front.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// Writes the head of an answer that is all there is ("Trailers-Only", gRPC over HTTP2).
pub(super) fn write_error(out: &mut Vec<u8>, reason: Reason, id: Option<(&str, &[u8])>) {
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    let mut digits = itoa::Buffer::new();
    field("HTTP/1.1 200 OK\r\nContent-Type", CONTENT_TYPE);
    field("Grpc-Status", digits.format(code(reason)).as_bytes());
    // Our words hold nothing that would have to be written in percent.
    field("Grpc-Message", format!("isobar: {reason}").as_bytes());
    let details = format!(
        "isobar; error={}; details=\"{}\"",
        reason.proxy_error(),
        reason.as_str()
    );
    field("Proxy-Status", details.as_bytes());
    if let Some((name, id)) = id {
        field(name, id);
    }
    out.extend_from_slice(b"\r\n");
}

/// The end of a response that had begun.
pub(super) fn trailers(reason: Reason) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code(reason))));
    if let Ok(message) = HeaderValue::try_from(format!("isobar: {reason}")) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

/// The status code that clients act on: they try again after UNAVAILABLE, and wait after
/// RESOURCE_EXHAUSTED. Where nothing speaks against it, as gRPC's own table has it for the HTTP status
/// (http-grpc-status-mapping).
fn code(reason: Reason) -> u8 {
    const CANCELLED: u8 = 1;
    const DEADLINE_EXCEEDED: u8 = 4;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    match reason {
        Reason::ClientGone => CANCELLED,
        Reason::AttemptTimeout | Reason::Deadline | Reason::EndpointIdle => DEADLINE_EXCEEDED,
        Reason::BodyTooLarge | Reason::HeadTooLarge | Reason::RateLimit => RESOURCE_EXHAUSTED,
        _ => match reason.status() {
            404 | 405 | 421 => UNIMPLEMENTED,
            429 | 502 | 503 | 504 => UNAVAILABLE,
            _ => INTERNAL,
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::Limits;

    use super::*;

    #[test]
    fn calls() {
        let is = |kind: &str| {
            let text = format!("POST /s/m HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n\r\n");
            let mut head = RequestHead::new();
            head.parse(text.as_bytes(), &Limits::default()).unwrap();
            is_call(&head, text.as_bytes())
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC; x=y",
        ] {
            assert!(is(kind), "{kind}");
        }
        for kind in [
            "application/grpc-web",
            "application/json",
            "application/grp",
        ] {
            assert!(!is(kind), "{kind}");
        }
    }

    #[test]
    fn codes() {
        assert_eq!(code(Reason::NoEndpoint), 14);
        assert_eq!(code(Reason::Deadline), 4);
        assert_eq!(code(Reason::NoRoute), 12);
        assert_eq!(code(Reason::RateLimit), 8);
        assert_eq!(code(Reason::Internal), 13);
        assert_eq!(code(Reason::EndpointReset), 14);
    }
}
