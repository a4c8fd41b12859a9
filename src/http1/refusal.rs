//! Every reason to refuse a message.

use http::StatusCode;

/// Why a message was refused. The connection it came on cannot be used further: where the next
/// message starts is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A field name that another program may fold into a framing field (`content_length`).
    #[error("a field name that reads as a framing field once its underscores become hyphens")]
    AliasedFraming,
    /// The chunked coding is broken.
    #[error("a chunk must be hexadecimal size, CRLF, data, CRLF")]
    BadChunk,
    /// A field name is empty or has a byte that is no token character, or the colon is missing.
    #[error("a field line must be a token, a colon, a value")]
    BadFieldName,
    /// A field value holds a control byte.
    #[error("a field value holds a control byte")]
    BadFieldValue,
    /// Host, or the authority of the target, is no host with an optional port.
    #[error("the host must be a name or an address with an optional port and nothing else")]
    BadHost,
    /// Content-Length is no plain decimal number below 2^63.
    #[error("content-length must be one decimal number below 2^63")]
    BadLength,
    /// The method is no token, or is longer than 32 bytes.
    #[error("the method must be a token of at most 32 bytes")]
    BadMethod,
    /// The request line is not method, space, target, space, version.
    #[error("the request line must be method, one space, target, one space, version")]
    BadRequestLine,
    /// The status line is not version, space, three digits from 100, reason.
    #[error("the status line must be version, one space, three digits from 100, reason")]
    BadStatusLine,
    /// The target has a byte or a form that this method may not have.
    #[error("the target has a forbidden byte or a form that does not fit its method")]
    BadTarget,
    /// Transfer-Encoding is not one final `chunked`.
    #[error("transfer-encoding must be exactly one chunked")]
    BadTransferEncoding,
    /// The version is not `HTTP/` digit dot digit.
    #[error("the version must be HTTP/ digit dot digit")]
    BadVersion,
    /// A CR without LF.
    #[error("a carriage return must be followed by a line feed")]
    BareCr,
    /// A LF without CR.
    #[error("a line must end in CRLF, not in a lone line feed")]
    BareLf,
    /// CONNECT with a body.
    #[error("a CONNECT request has no body, so it must not announce one")]
    BodyOnConnect,
    /// Chunk extensions exceed 256 bytes in one chunk or 16 KiB in a body.
    #[error("chunk extensions exceed 256 bytes in one chunk or 16 KiB in the body")]
    ChunkExtensionTooLong,
    /// A chunk size of more than 16 digits, or from 2^63 on.
    #[error("a chunk size has more than 16 digits or is 2^63 or more")]
    ChunkTooLarge,
    /// Two lengths that differ, or in a request two lengths at all.
    #[error("content-length is given more than once")]
    ConflictingLength,
    /// A trailer that decides framing or routing.
    #[error("a trailer must not decide framing or routing")]
    ForbiddenTrailer,
    /// The head is longer than the limit.
    #[error("the head is longer than the limit")]
    HeadTooLong,
    /// The host of an absolute or authority target is not that of Host.
    #[error("the host of the target and the host field must be the same")]
    HostMismatch,
    /// The HTTP/2 connection preface on an HTTP/1 connection.
    #[error("this is the HTTP/2 preface, but the connection speaks HTTP/1")]
    Http2Preface,
    /// Content-Length beside Transfer-Encoding.
    #[error("content-length beside transfer-encoding leaves the length in doubt")]
    LengthAndEncoding,
    /// HTTP/1.1 without Host.
    #[error("an HTTP/1.1 request must have a host field")]
    MissingHost,
    /// More than one Host.
    #[error("a request must have one host field only")]
    MultipleHosts,
    /// A field line that goes on with white space.
    #[error("a field line must not go on in the next line")]
    ObsFold,
    /// White space in a field name, or between it and its colon.
    #[error("no space may stand in a field name or before its colon")]
    SpaceBeforeColon,
    /// The target is longer than the limit.
    #[error("the target is longer than the limit")]
    TargetTooLong,
    /// More than 32 connection options.
    #[error("connection names more than 32 options")]
    TooManyConnectionOptions,
    /// More fields than the limit.
    #[error("the message has more fields than the limit")]
    TooManyFields,
    /// Trailers exceed 16 KiB.
    #[error("the trailers exceed 16 KiB")]
    TrailersTooLong,
    /// Transfer-Encoding in an HTTP/1.0 message.
    #[error("HTTP/1.0 has no transfer-encoding")]
    TransferEncodingIn10,
    /// A transfer coding that this proxy does not know.
    #[error("the only transfer coding known here is chunked")]
    UnknownCoding,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("the version must be HTTP/1.0 or HTTP/1.1")]
    UnsupportedVersion,
}

// === impl Refusal ===

impl Refusal {
    /// The status that answers a request refused so; for a response the caller says 502.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLong | Self::TooManyFields | Self::TrailersTooLong => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::ChunkTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Http2Preface | Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::AliasedFraming
            | Self::BadChunk
            | Self::BadFieldName
            | Self::BadFieldValue
            | Self::BadHost
            | Self::BadLength
            | Self::BadMethod
            | Self::BadRequestLine
            | Self::BadStatusLine
            | Self::BadTarget
            | Self::BadTransferEncoding
            | Self::BadVersion
            | Self::BareCr
            | Self::BareLf
            | Self::BodyOnConnect
            | Self::ChunkExtensionTooLong
            | Self::ConflictingLength
            | Self::ForbiddenTrailer
            | Self::HostMismatch
            | Self::LengthAndEncoding
            | Self::MissingHost
            | Self::MultipleHosts
            | Self::ObsFold
            | Self::SpaceBeforeColon
            | Self::TooManyConnectionOptions
            | Self::TransferEncodingIn10 => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable name for logs, metrics and the `details` of an RFC 9209 `Proxy-Status`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AliasedFraming => "aliased_framing",
            Self::BadChunk => "bad_chunk",
            Self::BadFieldName => "bad_field_name",
            Self::BadFieldValue => "bad_field_value",
            Self::BadHost => "bad_host",
            Self::BadLength => "bad_length",
            Self::BadMethod => "bad_method",
            Self::BadRequestLine => "bad_request_line",
            Self::BadStatusLine => "bad_status_line",
            Self::BadTarget => "bad_target",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::BadVersion => "bad_version",
            Self::BareCr => "bare_cr",
            Self::BareLf => "bare_lf",
            Self::BodyOnConnect => "body_on_connect",
            Self::ChunkExtensionTooLong => "chunk_extension_too_long",
            Self::ChunkTooLarge => "chunk_too_large",
            Self::ConflictingLength => "conflicting_length",
            Self::ForbiddenTrailer => "forbidden_trailer",
            Self::HeadTooLong => "head_too_long",
            Self::HostMismatch => "host_mismatch",
            Self::Http2Preface => "http2_preface",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::MissingHost => "missing_host",
            Self::MultipleHosts => "multiple_hosts",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::TargetTooLong => "target_too_long",
            Self::TooManyConnectionOptions => "too_many_connection_options",
            Self::TooManyFields => "too_many_fields",
            Self::TrailersTooLong => "trailers_too_long",
            Self::TransferEncodingIn10 => "transfer_encoding_in_10",
            Self::UnknownCoding => "unknown_coding",
            Self::UnsupportedVersion => "unsupported_version",
        }
    }
}
