//! `Check` of grpc.health.v1.Health (the gRPC health checking protocol), over HTTP/2 with prior
//! knowledge. Its two messages have one field each: their encoding is here.

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::base::addr::EndpointAddr;
use crate::config::GrpcCheck;

use super::{Failure, quoted};

/// Most of an answer that is looked at; it has seven bytes.
const MAX_ANSWER: usize = 8 * 1024;

/// The path of the method.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Whether TLS is beneath: the request says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Asks how the service is.
pub(super) async fn ask(
    check: &GrpcCheck,
    scheme: Scheme,
    addr: &EndpointAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), Failure> {
    let request = request(check, scheme, addr)?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(failure)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(failure)?;
        let (response, mut body) = sender.send_request(request, false).map_err(failure)?;
        body.send_data(message(&check.service), true)
            .map_err(failure)?;
        judge(&check.service, response.await.map_err(failure)?).await
    };
    // The connection's own end is seen by the exchange, as its error.
    let connection = async {
        let _ = connection.await;
        std::future::pending().await
    };
    // Neither is used again: the one that is dropped takes nothing with it.
    tokio::select! {
        judged = exchange => judged,
        never = connection => never,
    }
}

fn request(check: &GrpcCheck, scheme: Scheme, addr: &EndpointAddr) -> Result<Request<()>, Failure> {
    let invalid = |error: &dyn std::fmt::Display| {
        Failure::Protocol(format!("the request cannot be written: {error}"))
    };
    let authority = match (&check.host, addr) {
        (Some(host), _) => host.to_str().map_err(|e| invalid(&e))?.to_owned(),
        (None, EndpointAddr::Ip(addr)) => addr.to_string(),
        (None, EndpointAddr::Unix(_)) => "localhost".to_owned(),
    };
    let uri = Uri::builder()
        .scheme(match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
        .authority(authority)
        .path_and_query(CHECK)
        .build()
        .map_err(|e| invalid(&e))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let fields = request.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(TE, HeaderValue::from_static("trailers"));
    fields.insert(USER_AGENT, HeaderValue::from_static("isobar-health"));
    Ok(request)
}

/// A `HealthCheckRequest` in its frame: not compressed, length, then field 1 if it is not empty.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.put_u8(FIELD_1_BYTES);
        let mut rest = service.len();
        while rest >= 0x80 {
            field.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        field.put_u8(rest as u8);
        field.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(5 + field.len());
    message.put_u8(0);
    message.put_u32(field.len() as u32);
    message.put(field);
    message.freeze()
}

/// Tags of protocol buffers: the number of the field, then its type in three bits.
const FIELD_1_BYTES: u8 = 1 << 3 | 2;
const FIELD_1_VARINT: u64 = 1 << 3;

async fn judge(service: &str, response: Response<RecvStream>) -> Result<(), Failure> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(Failure::Status(head.status.as_u16()));
    }
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(Failure::Protocol("the answer is not gRPC".to_owned()));
    }
    // An error without a message comes in the head alone.
    status(service, &head.headers)?;
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failure)?;
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
        if read.len() > MAX_ANSWER {
            return Err(Failure::Protocol("the answer is too long".to_owned()));
        }
    }
    if let Some(trailers) = body.trailers().await.map_err(failure)? {
        status(service, &trailers)?;
    }
    match serving(&read) {
        Some(1) => Ok(()),
        Some(0) => Err(Failure::Unwell("it says UNKNOWN".to_owned())),
        Some(2) => Err(Failure::Unwell("it says NOT_SERVING".to_owned())),
        Some(3) => Err(Failure::Unwell("it says SERVICE_UNKNOWN".to_owned())),
        Some(other) => Err(Failure::Unwell(format!("it says status {other}"))),
        None => Err(Failure::Protocol(
            "the answer is no HealthCheckResponse".to_owned(),
        )),
    }
}

/// `grpc-status`, which must be 0 where it is there.
fn status(service: &str, fields: &HeaderMap) -> Result<(), Failure> {
    let Some(code) = fields.get("grpc-status") else {
        return Ok(());
    };
    Err(Failure::Unwell(match code.as_bytes() {
        b"0" => return Ok(()),
        // Codes of the protocol that have a meaning of their own here.
        b"5" => format!("it knows no service `{}`", quoted(service.as_bytes())),
        b"12" => "it does not offer grpc.health.v1.Health".to_owned(),
        code => {
            let message = fields.get("grpc-message").map(HeaderValue::as_bytes);
            let message = message.map(|m| format!(": {}", quoted(m)));
            format!(
                "grpc-status {}{}",
                quoted(code),
                message.unwrap_or_default()
            )
        }
    }))
}

/// `status` of a `HealthCheckResponse` in its frame; `None` = it is none. A field that is left out
/// is 0; the last of several holds; fields of later versions are skipped.
fn serving(frame: &[u8]) -> Option<u64> {
    let (head, mut rest) = frame.split_at_checked(5)?;
    // Not compressed: we offered no encoding.
    let [0, length @ ..] = head else { return None };
    let length = u32::from_be_bytes(<[u8; 4]>::try_from(length).ok()?);
    if rest.len() != length as usize {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if tag == FIELD_1_VARINT {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What h2's error says of the endpoint.
#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn failure(error: h2::Error) -> Failure {
    if error.is_io() {
        return Failure::Closed;
    }
    match error.reason() {
        // What we say to bytes that are no frames.
        Some(h2::Reason::FRAME_SIZE_ERROR | h2::Reason::PROTOCOL_ERROR) if error.is_library() => {
            Failure::Protocol("the answer is not HTTP/2".to_owned())
        }
        Some(reason) => Failure::Protocol(format!("it ended the request: {reason}")),
        None => Failure::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_protocol_has_them() {
        assert_eq!(&message("")[..], b"\0\0\0\0\0");
        assert_eq!(&message("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "x".repeat(300);
        assert_eq!(&message(&long)[..8], b"\0\0\0\x01\x2f\x0a\xac\x02");
    }

    #[test]
    fn statuses_are_read_and_the_rest_is_skipped() {
        assert_eq!(serving(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(serving(b"\0\0\0\0\0"), Some(0));
        assert_eq!(serving(b"\0\0\0\0\x04\x08\x01\x08\x02"), Some(2));
        let later = b"\0\0\0\0\x16\x12\x02ab\x19AAAAAAAA\x25AAAA\x08\x01\x28\x7f";
        assert_eq!(serving(later), Some(1));
        let cut = b"\0\0\0\0\x02\x08\x01";
        for end in 0..cut.len() {
            assert_eq!(serving(&cut[..end]), None, "{end}");
        }
        for wrong in [
            &b"\x01\0\0\0\x02\x08\x01"[..],
            b"\0\0\0\0\x01\x08\x01",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x0b\x01",
            b"\0\0\0\0\x03\x12\x7fa",
            b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(serving(wrong), None, "{wrong:?}");
        }
    }
}
