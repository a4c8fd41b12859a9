//! Responses that isobar makes itself: the only place that picks a status.

use http::{HeaderName, Method, StatusCode};
use std::io;

use crate::config::HeaderEdits;
use crate::http1::{Refusal, RequestHead, Version};
use crate::telemetry::reason::Reason;
use crate::upstream::ConnectError;

use super::answer::Keep;
use super::body::FlowError;
use super::headers;

/// What an answer of ours looks like.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// The status.
    pub status: StatusCode,
    /// Content-Type; `None` = no body type to name.
    pub content_type: Option<&'a [u8]>,
    /// Location of a redirect.
    pub location: Option<&'a [u8]>,
    /// The body; not sent to HEAD, but its length is.
    pub body: &'a [u8],
    /// What failed, for Proxy-Status.
    pub reason: Option<Reason>,
    /// The request's id and the field that bears it, told with errors so that a user can quote it.
    pub request_id: Option<(&'a HeaderName, &'a [u8])>,
    /// When to ask again, in seconds.
    pub retry_after: Option<u64>,
    /// Whether the connection closes.
    pub close: bool,
    /// Whether it answers HEAD.
    pub is_head: bool,
    /// An HTTP/1.0 client must be told that the connection stays.
    pub keep_alive_10: bool,
}

// === impl Answer ===

impl<'a> Answer<'a> {
    /// An answer without a body, after which the connection closes.
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            status,
            content_type: None,
            location: None,
            body: b"",
            reason: None,
            request_id: None,
            retry_after: None,
            close: true,
            is_head: false,
            keep_alive_10: false,
        }
    }

    /// An error, with `text` from [`error_text`].
    pub(super) fn error(
        reason: Reason,
        text: &'a str,
        request_id: Option<(&'a HeaderName, &'a [u8])>,
    ) -> Self {
        Self {
            content_type: Some(b"text/plain; charset=utf-8"),
            body: text.as_bytes(),
            reason: Some(reason),
            request_id,
            ..Self::new(status_of(reason))
        }
    }

    /// As it answers the request with this head.
    pub(super) fn to(self, head: &RequestHead, keep: Keep) -> Self {
        Self {
            close: keep == Keep::No,
            is_head: head.method == Method::HEAD,
            keep_alive_10: head.version == Version::Http10,
            ..self
        }
    }

    /// Bytes of the body that are sent.
    pub(super) fn body_len(&self) -> u64 {
        if self.is_head || !self.may_have_body() {
            0
        } else {
            self.body.len() as u64
        }
    }

    /// 204 and 304 end with their heads (RFC 9112 section 6.3).
    fn may_have_body(&self) -> bool {
        !matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
    }
}

/// Writes an answer; of `edits` what is set and added.
pub(super) fn write_answer(out: &mut Vec<u8>, answer: &Answer<'_>, edits: &HeaderEdits) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(answer.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(answer.status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let field = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    if let Some(content_type) = answer.content_type {
        field(out, "Content-Type", content_type);
    }
    if let Some(location) = answer.location {
        field(out, "Location", location);
    }
    // RFC 9110 section 8.6: no Content-Length in 1xx and 204.
    let has_body = answer.may_have_body();
    if has_body {
        field(
            out,
            "Content-Length",
            digits.format(answer.body.len()).as_bytes(),
        );
    }
    if let Some(reason) = answer.reason {
        // RFC 9209: who speaks and what went wrong, for people and for the next proxy.
        out.extend_from_slice(b"Proxy-Status: isobar; error=");
        out.extend_from_slice(reason.proxy_error().as_bytes());
        // Section 2.1.4: a String, in quotes; our words hold nothing to escape.
        out.extend_from_slice(b"; details=\"");
        out.extend_from_slice(reason.as_str().as_bytes());
        out.extend_from_slice(b"\"\r\n");
        if let Some((name, id)) = answer.request_id {
            field(out, name.as_str(), id);
        }
        if let Some(seconds) = answer.retry_after {
            field(out, "Retry-After", digits.format(seconds).as_bytes());
        }
        if reason == Reason::MethodRefused {
            field(
                out,
                "Allow",
                b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            );
        }
    }
    headers::write_edits(out, edits);
    if answer.close {
        field(out, "Connection", b"close");
    } else if answer.keep_alive_10 {
        field(out, "Connection", b"keep-alive");
    }
    out.extend_from_slice(b"\r\n");
    if has_body && !answer.is_head {
        out.extend_from_slice(answer.body);
    }
}

/// The body of an error: one line that says what happened, in words.
pub(super) fn error_text(reason: Reason, detail: Option<Refusal>, out: &mut String) {
    use std::fmt::Write as _;
    out.clear();
    // Writing to a String cannot fail.
    let _ = match detail {
        Some(refusal) => writeln!(out, "{} {reason}: {refusal}", reason.status()),
        None if reason == Reason::PlainHttp => writeln!(
            out,
            "{} {reason}: this port speaks TLS; ask for https://",
            reason.status()
        ),
        None => writeln!(out, "{} {reason}", reason.status()),
    };
}

/// The status of `reason` as a type; every reason's number is a valid status.
pub(super) fn status_of(reason: Reason) -> StatusCode {
    StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What a refused request head or body is called.
pub(super) fn request_refused(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::HeadTooLong | Refusal::TrailersTooLong => Reason::HeadTooLarge,
        Refusal::TooManyFields => Reason::TooManyFields,
        Refusal::TargetTooLong => Reason::TargetTooLong,
        Refusal::UnknownCoding => Reason::TransferCoding,
        Refusal::Http2Preface | Refusal::UnsupportedVersion => Reason::Version,
        Refusal::BadHost
        | Refusal::HostMismatch
        | Refusal::MissingHost
        | Refusal::MultipleHosts => Reason::BadHost,
        Refusal::AliasedFraming
        | Refusal::BadLength
        | Refusal::BadTransferEncoding
        | Refusal::BodyOnConnect
        | Refusal::ConflictingLength
        | Refusal::LengthAndEncoding
        | Refusal::TransferEncodingIn10 => Reason::AmbiguousFraming,
        Refusal::BadChunk | Refusal::ChunkExtensionTooLong | Refusal::ForbiddenTrailer => {
            Reason::BadBody
        }
        Refusal::ChunkTooLarge => Reason::BodyTooLarge,
        Refusal::BadFieldName
        | Refusal::BadFieldValue
        | Refusal::BadMethod
        | Refusal::BadRequestLine
        | Refusal::BadStatusLine
        | Refusal::BadTarget
        | Refusal::BadVersion
        | Refusal::BareCr
        | Refusal::BareLf
        | Refusal::ObsFold
        | Refusal::SpaceBeforeColon
        | Refusal::TooManyConnectionOptions => Reason::BadRequest,
    }
}

/// What a refused response head is called.
pub(super) fn response_refused(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::HeadTooLong | Refusal::TooManyFields | Refusal::TrailersTooLong => {
            Reason::ResponseHeadTooLarge
        }
        _ => Reason::BadResponse,
    }
}

/// What a failed connect is called.
pub(super) fn connect_failed(error: &ConnectError) -> Reason {
    match error {
        ConnectError::Deadline => Reason::ConnectTimeout,
        ConnectError::Stopped => Reason::Draining,
        ConnectError::Tls(_) => Reason::EndpointTls,
        ConnectError::Io(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            // A Unix socket that is not there.
            | io::ErrorKind::NotFound => Reason::ConnectRefused,
            io::ErrorKind::TimedOut => Reason::ConnectTimeout,
            _ => Reason::Unreachable,
        },
    }
}

/// What a broken upload is called; `None` = the endpoint stopped reading, which is not the end: it
/// may have answered.
pub(super) fn upload_failed(error: &FlowError) -> Option<Reason> {
    match error {
        FlowError::Read(_) | FlowError::Truncated => Some(Reason::ClientGone),
        FlowError::Length => Some(Reason::BadRequest),
        FlowError::Refused(refusal) => Some(request_refused(*refusal)),
        FlowError::TooLarge => Some(Reason::BodyTooLarge),
        // It cannot be said to this endpoint in its protocol: nothing was sent.
        FlowError::Write(e) if e.kind() == io::ErrorKind::Unsupported => {
            Some(Reason::UpgradeRefused)
        }
        FlowError::Write(e) if e.kind() == io::ErrorKind::InvalidInput => Some(Reason::BadRequest),
        FlowError::Write(_) => None,
    }
}

/// What a broken download is called.
pub(super) fn download_failed(error: &FlowError) -> Reason {
    match error {
        FlowError::Write(_) => Reason::ClientGone,
        FlowError::Length | FlowError::Refused(_) => Reason::BadResponse,
        FlowError::Read(_) | FlowError::TooLarge | FlowError::Truncated => {
            Reason::ResponseIncomplete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_written() {
        for (status, is_head, sent) in [
            (200, false, 4),
            (200, true, 0),
            (204, false, 0),
            (304, false, 0),
            (404, false, 4),
        ] {
            let answer = Answer {
                body: b"body",
                is_head,
                ..Answer::new(StatusCode::from_u16(status).unwrap())
            };
            let mut out = Vec::new();
            write_answer(&mut out, &answer, &HeaderEdits::default());
            let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            assert_eq!(
                (answer.body_len(), out.len() - end),
                (sent, sent as usize),
                "{status}"
            );
        }
    }
}
