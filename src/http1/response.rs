//! Response heads.

use std::mem::MaybeUninit;

use http::{Method, StatusCode};
use httparse::Status;

use super::field::{Field, FieldId, Span};
use super::framing::{Framing, ResponseBody, is_fieldless};
use super::head::{FieldSet, Options, Progress, Resume, Version, diagnose_fields, line_end};
use super::limits::{HARD_MAX_FIELDS, Limits};
use super::refusal::Refusal;
use super::request::get_all;

/// A response head, as spans into the buffer it was parsed from; made once and filled again for
/// every response of a connection. What it says holds after [`Progress::Complete`].
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// The status, 100-999.
    pub status: StatusCode,
    /// The version.
    pub version: Version,
    /// The fields in their order.
    pub fields: Vec<Field>,
    /// How the body ends.
    pub body: ResponseBody,
    /// Whether the endpoint lets the connection live on: false too when the body ends with the
    /// connection, or when a 1xx or 204 announces a body that must not come.
    pub keep_alive: bool,
    /// Whether the endpoint names another protocol: Upgrade, and `upgrade` in Connection, and
    /// HTTP/1.1. With status 101, the connection has switched.
    pub upgrade: bool,
    reason: Span,
    head_len: u32,
    seen: u64,
    hop: FieldSet,
    resume: Resume,
}

/// Bytes of `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

// === impl ResponseHead ===

impl ResponseHead {
    /// An empty head with room for the fields of most responses.
    #[must_use]
    pub fn new() -> Self {
        Self {
            fields: Vec::with_capacity(24),
            ..Self::default()
        }
    }

    /// Forgets everything but its capacity; needed only when a partial head is given up.
    pub fn reset(&mut self) {
        self.fields.clear();
        self.resume = Resume::default();
        self.head_len = 0;
        self.seen = 0;
        self.hop = FieldSet::default();
    }

    /// Parses the head that `buf` begins with, the response to a request with `method`; an
    /// interim one (1xx) is complete like any other, and the next call reads the one after it.
    /// After [`Progress::Partial`], call again with the same bytes and more behind them.
    ///
    /// # Errors
    /// Why the response is refused: answer 502 and drop the connection. The fields are cleared.
    #[inline]
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        method: &Method,
    ) -> Result<Progress, Refusal> {
        if !self.resume.is_due(buf, limits) {
            return Ok(Progress::Partial);
        }
        let progress = self.attempt(buf, limits, method);
        match progress {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete) => self.resume = Resume::default(),
            Err(_) => self.reset(),
        }
        progress
    }

    fn attempt(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        method: &Method,
    ) -> Result<Progress, Refusal> {
        let window = &buf[..buf.len().min(limits.max_head_bytes)];
        let mut scratch = [const { MaybeUninit::uninit() }; HARD_MAX_FIELDS];
        let scratch = scratch.get_mut(..limits.fields()).unwrap_or_default();
        // No empty line may precede a response: it is the tail of something else.
        if let [b'\r' | b'\n', ..] = window {
            return Err(Refusal::BadStatusLine);
        }
        let mut response = httparse::Response::new(&mut []);
        let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            window,
            scratch,
        );
        match outcome {
            Ok(Status::Complete(len)) => self.fill(buf, len, &response, method),
            Ok(Status::Partial) if window.len() < limits.max_head_bytes => Ok(Progress::Partial),
            Ok(Status::Partial) => Err(Refusal::HeadTooLong),
            Err(error) => diagnose(window, &response, limits, error),
        }
    }

    /// The one pass over the fields.
    fn fill(
        &mut self,
        buf: &[u8],
        len: usize,
        response: &httparse::Response<'_, '_>,
        method: &Method,
    ) -> Result<Progress, Refusal> {
        let version = if response.version == Some(1) {
            Version::Http11
        } else {
            Version::Http10
        };
        let status = StatusCode::from_u16(response.code.unwrap_or_default())
            .map_err(|_| Refusal::BadStatusLine)?;
        // See RequestHead: a CR two bytes before each next line.
        let is_crlf = |next: usize| buf.get(next.wrapping_sub(2)) == Some(&b'\r');
        let mut strict = is_crlf(len) && is_crlf(len.wrapping_sub(2));
        let fieldless = is_fieldless(method, status);
        let mut framing = Framing::default();
        let mut options = Options::default();
        let mut hop = FieldSet::default();
        let mut seen = 0;

        self.fields.clear();
        let fields = response.headers.iter().enumerate().map(|(i, header)| {
            let name = Span::locate(buf, header.name.as_bytes());
            strict &= is_crlf(name.start as usize);
            let id = FieldId::of(header.name.as_bytes());
            let mut value = Span::locate(buf, header.value);
            match id {
                FieldId::Connection => options.note(header.value),
                FieldId::ContentLength => match framing.response_length(buf, value) {
                    Some(first) if !fieldless => value = first,
                    Some(_) | None => hop.insert(i),
                },
                FieldId::TransferEncoding => framing.encoding(header.value),
                _ => {}
            }
            if id.is_hop_by_hop() {
                hop.insert(i);
            }
            seen |= id.bit();
            Field { name, value, id }
        });
        self.fields.extend(fields);
        if !strict {
            return Err(Refusal::BareLf);
        }

        self.body = framing.response(version, method, status)?;
        options.mark(buf, &self.fields, &mut hop)?;
        let is_lie = fieldless && *method != Method::CONNECT && framing.announces_body();
        self.keep_alive =
            options.is_persistent(version) && self.body != ResponseBody::UntilClose && !is_lie;
        self.upgrade =
            options.upgrade && seen & FieldId::Upgrade.bit() != 0 && version == Version::Http11;
        // The first line ends two bytes before the first field, or before the empty line.
        let end = self
            .fields
            .first()
            .map_or(len - 2, |f| f.name.start as usize)
            - 2;
        self.reason = Span::new(end.min(STATUS_LINE + 1), end);
        self.status = status;
        self.version = version;
        self.head_len = len as u32;
        self.seen = seen;
        self.hop = hop;
        Ok(Progress::Complete)
    }

    /// Bytes of the head.
    #[inline]
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head_len as usize
    }

    /// The reason phrase as it was sent; may be empty, may hold obs-text.
    #[inline]
    #[must_use]
    pub fn reason<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.reason.of(buf)
    }

    /// Whether a field of this id is there.
    #[inline]
    #[must_use]
    pub fn has(&self, id: FieldId) -> bool {
        self.seen & id.bit() != 0
    }

    /// The first value of a known field.
    #[inline]
    #[must_use]
    pub fn get<'b>(&self, buf: &'b [u8], id: FieldId) -> Option<&'b [u8]> {
        if !self.has(id) {
            return None;
        }
        self.fields
            .iter()
            .find(|f| f.id == id)
            .map(|f| f.value.of(buf))
    }

    /// All values of the fields of this name, whatever its case, in their order.
    pub fn get_all<'a>(&'a self, buf: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        get_all(&self.fields, buf, name)
    }

    /// Whether field `i` must not be forwarded: as for requests, and Content-Length where it must
    /// not be sent (1xx, 204, 2xx to CONNECT) or repeats one before it.
    #[inline]
    #[must_use]
    pub fn is_hop_by_hop(&self, i: usize) -> bool {
        self.hop.contains(i)
    }
}

/// What is wrong, in reading order, and the same however the bytes were cut.
#[cold]
fn diagnose(
    window: &[u8],
    response: &httparse::Response<'_, '_>,
    limits: &Limits,
    error: httparse::Error,
) -> Result<Progress, Refusal> {
    if response.version.is_none() {
        let text = window.get(..8).unwrap_or(window);
        let may_be_http = b"HTTP/".starts_with(text.get(..5).unwrap_or(text));
        if text.len() < 8 && may_be_http && window.len() < limits.max_head_bytes {
            return Ok(Progress::Partial);
        }
        return Err(match text {
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Refusal::UnsupportedVersion
            }
            _ => Refusal::BadVersion,
        });
    }
    if response.code.is_none() || response.reason.is_none() {
        return Err(Refusal::BadStatusLine);
    }
    let end = window
        .iter()
        .position(|&b| b == b'\r' || b == b'\n')
        .unwrap_or(window.len());
    Err(match line_end(window, end, Refusal::BadStatusLine) {
        Err(refusal) => refusal,
        Ok(None) => Refusal::BadStatusLine,
        Ok(Some(fields)) => diagnose_fields(window, fields, limits, error),
    })
}
