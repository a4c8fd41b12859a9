//! THE place that decides how long a body is, and refuses every head that leaves doubt.

use http::{Method, StatusCode};

use super::field::{Span, elements, is_token, trim};
use super::head::Version;
use super::refusal::Refusal;

/// How a request's body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    #[default]
    None,
    /// After this many bytes; 0 when the sender said so.
    Length(u64),
    /// With the last chunk and its trailers.
    Chunked,
}

/// How a response's body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none, whatever the fields say.
    #[default]
    None,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk and its trailers.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// The longest body. From 2^63 on, a reader with signed lengths sees a negative one.
pub(super) const MAX_BODY: u64 = i64::MAX as u64;

/// 2^63 - 1 has 19 digits.
const MAX_LENGTH_DIGITS: usize = 19;

/// What the framing fields of one head said, in reading order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    length: Option<u64>,
    chunked: bool,
    /// The first thing wrong; kept to be told once the whole head is known to be sound.
    refusal: Option<Refusal>,
}

// === impl Framing ===

impl Framing {
    /// A Content-Length of a request: exactly one, one plain number.
    #[inline]
    pub(super) fn request_length(&mut self, value: &[u8]) {
        match (self.length, decimal(value)) {
            (None, Some(n)) => self.length = Some(n),
            (None, None) if value.contains(&b',') => self.refuse(Refusal::ConflictingLength),
            (None | Some(_), None) => self.refuse(Refusal::BadLength),
            (Some(_), Some(_)) => self.refuse(Refusal::ConflictingLength),
        }
    }

    /// A Content-Length of a response: all must be equal, in one list or in several fields. What
    /// to forward: `None` for a spare field, else the span of the first number.
    #[inline]
    pub(super) fn response_length(&mut self, buf: &[u8], value: Span) -> Option<Span> {
        let bytes = value.of(buf);
        let is_first = self.length.is_none();
        let mut first = value;
        match decimal(bytes) {
            Some(n) => self.merge(n),
            None => {
                for (i, element) in elements(bytes).enumerate() {
                    match decimal(element) {
                        Some(n) => self.merge(n),
                        None => self.refuse(Refusal::BadLength),
                    }
                    if i == 0 {
                        first = Span::locate(buf, element);
                    }
                }
            }
        }
        is_first.then_some(first)
    }

    fn merge(&mut self, n: u64) {
        match self.length {
            None => self.length = Some(n),
            Some(known) if known == n => {}
            Some(_) => self.refuse(Refusal::ConflictingLength),
        }
    }

    /// A Transfer-Encoding: exactly one, exactly `chunked`.
    #[inline]
    pub(super) fn encoding(&mut self, value: &[u8]) {
        if !self.chunked && value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
        } else {
            let refusal = judge_coding(value, self.chunked);
            self.chunked = true;
            self.refuse(refusal);
        }
    }

    #[inline]
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    /// The refusals that hold for both directions.
    #[inline]
    fn check(&self, version: Version) -> Result<(), Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(Refusal::LengthAndEncoding);
        }
        if self.chunked && version == Version::Http10 {
            return Err(Refusal::TransferEncodingIn10);
        }
        self.refusal.map_or(Ok(()), Err)
    }

    /// The body of a request.
    #[inline]
    pub(super) fn request(self, version: Version, method: &Method) -> Result<RequestBody, Refusal> {
        self.check(version)?;
        let body = match (self.chunked, self.length) {
            (true, _) => RequestBody::Chunked,
            (false, Some(n)) => RequestBody::Length(n),
            (false, None) => RequestBody::None,
        };
        // RFC 9110 section 9.3.6: bytes after a CONNECT head are the tunnel's.
        if *method == Method::CONNECT && !matches!(body, RequestBody::None | RequestBody::Length(0))
        {
            return Err(Refusal::BodyOnConnect);
        }
        Ok(body)
    }

    /// The body of a response to `method`.
    #[inline]
    pub(super) fn response(
        self,
        version: Version,
        method: &Method,
        status: StatusCode,
    ) -> Result<ResponseBody, Refusal> {
        self.check(version)?;
        Ok(if is_bodiless(method, status) {
            ResponseBody::None
        } else if self.chunked {
            ResponseBody::Chunked
        } else if let Some(n) = self.length {
            ResponseBody::Length(n)
        } else {
            ResponseBody::UntilClose
        })
    }

    /// Whether body bytes were announced: harmless for HEAD and 304, a lie for 1xx and 204.
    #[inline]
    pub(super) fn announces_body(&self) -> bool {
        self.chunked || self.length.is_some_and(|n| n > 0)
    }
}

/// RFC 9112 section 6.3, rules 1 and 2.
#[inline]
fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || status == StatusCode::NOT_MODIFIED || is_fieldless(method, status)
}

/// Where Content-Length must not be sent at all (RFC 9110 section 8.6): 1xx, 204, and 2xx to
/// CONNECT.
#[inline]
pub(super) fn is_fieldless(method: &Method, status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || (*method == Method::CONNECT && status.is_success())
}

/// Plain decimal digits: no sign, no space, no empty value, below 2^63.
#[inline]
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS {
        return None;
    }
    let mut n: u64 = 0;
    for &b in value {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits stay below 2^64.
        n = n * 10 + u64::from(digit);
    }
    (n <= MAX_BODY).then_some(n)
}

/// Which refusal a Transfer-Encoding other than a first `chunked` deserves: 501 when it is sound
/// but unknown (RFC 9112 section 6.1), 400 when it is unsound or chunked is not its end.
#[cold]
fn judge_coding(value: &[u8], has_chunked: bool) -> Refusal {
    let mut chunked_at_end = false;
    let mut sound = !has_chunked && !trim(value).is_empty();
    for coding in elements(value) {
        // Nothing may follow chunked, so a coding after it is unsound, a second chunked too.
        sound &= is_token(coding) && !chunked_at_end;
        chunked_at_end |= coding.eq_ignore_ascii_case(b"chunked");
    }
    if sound {
        Refusal::UnknownCoding
    } else {
        Refusal::BadTransferEncoding
    }
}
