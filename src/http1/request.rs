//! Request heads.

use std::mem::MaybeUninit;

use http::Method;
use httparse::Status;

use super::field::{Field, FieldId, Span, is_aliased_framing, is_tchar};
use super::framing::{Framing, RequestBody};
use super::head::{FieldSet, Options, Progress, Resume, Version, diagnose_fields, line_end};
use super::limits::{HARD_MAX_FIELDS, Limits, MAX_METHOD_BYTES};
use super::refusal::Refusal;
use super::target::{Authority, Form, Target, authority};

/// A request head, as spans into the buffer it was parsed from; made once and filled again for
/// every request of a connection. What it says holds after [`Progress::Complete`].
#[derive(Debug, Default)]
pub struct RequestHead {
    /// The method; standard ones, and others of up to 15 bytes, are not on the heap.
    pub method: Method,
    /// The version.
    pub version: Version,
    /// The fields in their order.
    pub fields: Vec<Field>,
    /// How the body ends.
    pub body: RequestBody,
    /// Whether the client lets the connection live on.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends the body (never in HTTP/1.0).
    pub expect_continue: bool,
    /// Whether the client asks for another protocol: Upgrade, and `upgrade` in Connection, and
    /// HTTP/1.1.
    pub upgrade: bool,
    target: Span,
    parts: Target,
    /// With the port; empty when there is none.
    authority: Span,
    host_len: u32,
    head_len: u32,
    seen: u64,
    hop: FieldSet,
    resume: Resume,
}

// === impl RequestHead ===

impl RequestHead {
    /// An empty head with room for the fields of most requests.
    #[must_use]
    pub fn new() -> Self {
        // Browsers send 10-20 fields; it grows once for those that send more.
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

    /// Parses the head that `buf` begins with. After [`Progress::Partial`], call again with the
    /// same bytes and more behind them; after `Complete` or an error the next call begins anew.
    ///
    /// # Errors
    /// Why the request is refused: answer [`Refusal::status`] and close. The fields are cleared.
    #[inline]
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        if !self.resume.is_due(buf, limits) {
            return Ok(Progress::Partial);
        }
        let progress = self.attempt(buf, limits);
        match progress {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete) => self.resume = Resume::default(),
            Err(_) => self.reset(),
        }
        progress
    }

    fn attempt(&mut self, buf: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        let window = &buf[..buf.len().min(limits.max_head_bytes)];
        // RFC 9112 section 2.2: one empty line may precede a request.
        let start = match window {
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        let bytes = window.get(start..).unwrap_or_default();
        let mut scratch = [const { MaybeUninit::uninit() }; HARD_MAX_FIELDS];
        let scratch = scratch.get_mut(..limits.fields()).unwrap_or_default();
        let mut request = httparse::Request::new(&mut []);
        // The parser would skip any number of empty lines, bare ones too.
        let outcome = match bytes {
            [b'\r'] if start == 0 => Ok(Status::Partial),
            [b'\r' | b'\n', ..] => return Err(Refusal::BadRequestLine),
            _ => request.parse_with_uninit_headers(bytes, scratch),
        };
        if request.method.is_some_and(|m| m.len() > MAX_METHOD_BYTES) {
            return Err(Refusal::BadMethod);
        }
        if request
            .path
            .is_some_and(|p| p.len() > limits.max_target_bytes)
        {
            return Err(Refusal::TargetTooLong);
        }
        match outcome {
            Ok(Status::Complete(len)) => self.fill(buf, start + len, &request),
            Ok(Status::Partial) => still_partial(window, bytes, &request, limits),
            Err(error) => diagnose(window, bytes, &request, limits, error),
        }
    }

    /// The one pass over the fields.
    fn fill(
        &mut self,
        buf: &[u8],
        len: usize,
        request: &httparse::Request<'_, '_>,
    ) -> Result<Progress, Refusal> {
        let (method, path) = (
            request.method.unwrap_or_default(),
            request.path.unwrap_or_default(),
        );
        let target = Span::locate(buf, path.as_bytes());
        let version = if request.version == Some(1) {
            Version::Http11
        } else {
            Version::Http10
        };
        // httparse ends lines at bare LFs too. No value it passes holds a CR, so a line ended in
        // CRLF exactly when a CR stands two bytes before the next line.
        let is_crlf = |next: usize| buf.get(next.wrapping_sub(2)) == Some(&b'\r');
        let mut strict = is_crlf(len) && is_crlf(len.wrapping_sub(2));
        let mut framing = Framing::default();
        let mut options = Options::default();
        let mut hop = FieldSet::default();
        let mut seen = 0;
        let mut host = None;
        let mut many_hosts = false;
        let mut expects = false;

        self.fields.clear();
        let fields = request.headers.iter().enumerate().map(|(i, header)| {
            let name = Span::locate(buf, header.name.as_bytes());
            strict &= is_crlf(name.start as usize);
            let id = FieldId::of(header.name.as_bytes());
            let value = header.value;
            match id {
                FieldId::Other if is_aliased_framing(header.name.as_bytes()) => {
                    framing.refuse(Refusal::AliasedFraming);
                }
                FieldId::Connection => options.note(value),
                FieldId::ContentLength => framing.request_length(value),
                FieldId::Expect => expects |= value.eq_ignore_ascii_case(b"100-continue"),
                FieldId::Host => many_hosts |= host.replace(value).is_some(),
                FieldId::TransferEncoding => framing.encoding(value),
                _ => {}
            }
            if id.is_hop_by_hop() {
                hop.insert(i);
            }
            seen |= id.bit();
            Field {
                name,
                value: Span::locate(buf, value),
                id,
            }
        });
        self.fields.extend(fields);
        if !strict {
            return Err(Refusal::BareLf);
        }

        // The parser checked the token; `from_bytes` allocates for more than 15 bytes only.
        self.method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::BadMethod)?;
        self.parts = Target::parse(path.as_bytes(), target.start as usize, &self.method)?;
        self.target = target;
        self.body = framing.request(version, &self.method)?;
        if many_hosts {
            return Err(Refusal::MultipleHosts);
        }
        self.settle_host(buf, version, host)?;
        options.mark(buf, &self.fields, &mut hop)?;
        self.version = version;
        self.keep_alive = options.is_persistent(version);
        self.expect_continue = expects && version == Version::Http11;
        self.upgrade =
            options.upgrade && seen & FieldId::Upgrade.bit() != 0 && version == Version::Http11;
        self.head_len = len as u32;
        self.seen = seen;
        self.hop = hop;
        Ok(Progress::Complete)
    }

    /// RFC 9112 section 3.2: exactly one Host in 1.1, and the target's host is the same.
    #[inline]
    fn settle_host(
        &mut self,
        buf: &[u8],
        version: Version,
        host: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        self.authority = Span::default();
        self.host_len = 0;
        let checked = match host {
            // An old client that sends an empty one has none.
            Some([]) if version == Version::Http10 => None,
            Some(host) => Some((host, authority(host).ok_or(Refusal::BadHost)?)),
            None if version == Version::Http11 => return Err(Refusal::MissingHost),
            None => None,
        };
        let own = self.parts.authority;
        if !own.is_empty() {
            if checked.is_some_and(|(host, _)| !self.parts.agrees(buf, host)) {
                return Err(Refusal::HostMismatch);
            }
            let Authority { host_len, .. } = authority(own.of(buf)).ok_or(Refusal::BadHost)?;
            self.authority = own;
            self.host_len = host_len as u32;
        } else if let Some((host, Authority { host_len, .. })) = checked {
            self.authority = Span::locate(buf, host);
            self.host_len = host_len as u32;
        }
        Ok(())
    }

    /// Bytes of the head, an empty line before it included.
    #[inline]
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head_len as usize
    }

    /// The target as it was sent; pure ASCII.
    #[inline]
    #[must_use]
    pub fn target<'b>(&self, buf: &'b [u8]) -> &'b str {
        self.target.text(buf)
    }

    /// The same as bytes, for those who only copy it.
    #[inline]
    #[must_use]
    pub fn target_bytes<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.target.of(buf)
    }

    /// The authority as bytes, empty when there is none: for those who only copy it.
    #[inline]
    #[must_use]
    pub fn authority_bytes<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.authority.of(buf)
    }

    /// The form of the target.
    #[inline]
    #[must_use]
    pub fn form(&self) -> Form {
        self.parts.form
    }

    /// The path: `/` when an absolute target has none, `*` in asterisk form, empty for CONNECT.
    #[inline]
    #[must_use]
    pub fn path<'b>(&self, buf: &'b [u8]) -> &'b str {
        match self.parts.form {
            Form::Absolute if self.parts.path.is_empty() => "/",
            Form::Origin | Form::Absolute | Form::Authority | Form::Asterisk => {
                self.parts.path.text(buf)
            }
        }
    }

    /// The query without its question mark.
    #[inline]
    #[must_use]
    pub fn query<'b>(&self, buf: &'b [u8]) -> Option<&'b str> {
        self.parts.query.map(|q| q.text(buf))
    }

    /// The host of the target or else of Host, without its port, in the sender's case; an IPv6
    /// address keeps its brackets. `None` only in HTTP/1.0.
    #[inline]
    #[must_use]
    pub fn host<'b>(&self, buf: &'b [u8]) -> Option<&'b str> {
        let end = self.authority.start + self.host_len;
        (!self.authority.is_empty()).then(|| {
            Span {
                end,
                ..self.authority
            }
            .text(buf)
        })
    }

    /// The same with its port, if one was given.
    #[inline]
    #[must_use]
    pub fn authority<'b>(&self, buf: &'b [u8]) -> Option<&'b str> {
        (!self.authority.is_empty()).then(|| self.authority.text(buf))
    }

    /// Whether this is `OPTIONS *`, or its absolute form: an authority without path and query
    /// (RFC 9112 section 3.2.4).
    #[inline]
    #[must_use]
    pub fn is_asterisk(&self) -> bool {
        match self.parts.form {
            Form::Asterisk => true,
            Form::Absolute => {
                self.method == Method::OPTIONS
                    && self.parts.path.is_empty()
                    && self.parts.query.is_none()
            }
            Form::Origin | Form::Authority => false,
        }
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

    /// Whether field `i` is for this connection only: Connection, Keep-Alive, Proxy-Connection,
    /// TE, Transfer-Encoding, Upgrade, and what Connection names, unless it is a name this codec
    /// knows ([`FieldId`]) or one of the `X-Forwarded-` family. Trailer stays: trailers do too.
    #[inline]
    #[must_use]
    pub fn is_hop_by_hop(&self, i: usize) -> bool {
        self.hop.contains(i)
    }
}

/// All values of the fields of one name.
pub(super) fn get_all<'a>(
    fields: &'a [Field],
    buf: &'a [u8],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |f| f.name.of(buf).eq_ignore_ascii_case(name.as_bytes()))
        .map(|f| f.value.of(buf))
}

/// Whether a head that is not all there may still become one.
#[cold]
fn still_partial(
    window: &[u8],
    bytes: &[u8],
    request: &httparse::Request<'_, '_>,
    limits: &Limits,
) -> Result<Progress, Refusal> {
    match (request.method, request.path) {
        (None, _) if bytes.len() > MAX_METHOD_BYTES => Err(Refusal::BadMethod),
        (Some(m), None) if bytes.len() > m.len() + 1 + limits.max_target_bytes => {
            Err(Refusal::TargetTooLong)
        }
        // The head is full and its target has no end: that alone is too long.
        (Some(_), None) if window.len() >= limits.max_head_bytes => Err(Refusal::TargetTooLong),
        _ if window.len() >= limits.max_head_bytes => Err(Refusal::HeadTooLong),
        _ => Ok(Progress::Partial),
    }
}

/// What is wrong, in reading order, and the same however the bytes were cut.
#[cold]
fn diagnose(
    window: &[u8],
    bytes: &[u8],
    request: &httparse::Request<'_, '_>,
    limits: &Limits,
    error: httparse::Error,
) -> Result<Progress, Refusal> {
    let Some(method) = request.method else {
        let at = bytes
            .iter()
            .position(|&b| !is_tchar(b))
            .unwrap_or(bytes.len());
        return Err(match bytes.get(at) {
            Some(b'\r' | b'\n' | b' ') if at <= MAX_METHOD_BYTES => Refusal::BadRequestLine,
            _ => Refusal::BadMethod,
        });
    };
    let mut at = method.len() + 1;
    let Some(path) = request.path else {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|&b| b <= b' ' || b == 0x7f)
            .unwrap_or(rest.len());
        return Err(match rest.get(end) {
            _ if end > limits.max_target_bytes => Refusal::TargetTooLong,
            // Two spaces, or HTTP/0.9's line without a version.
            Some(b' ') if end == 0 => Refusal::BadRequestLine,
            Some(b'\r' | b'\n') => Refusal::BadRequestLine,
            _ => Refusal::BadTarget,
        });
    };
    at += path.len() + 1;
    if request.version.is_none() {
        let rest = bytes.get(at..).unwrap_or_default();
        let text = rest.get(..8).unwrap_or(rest);
        if text.len() < 8 && !text.contains(&b'\n') && window.len() < limits.max_head_bytes {
            // Tell HTTP/2.0 from nonsense only when all of it is there.
            return Ok(Progress::Partial);
        }
        return Err(match text {
            b"HTTP/2.0" if method == "PRI" && path == "*" => Refusal::Http2Preface,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Refusal::UnsupportedVersion
            }
            _ => Refusal::BadVersion,
        });
    }
    at += 8;
    Err(match line_end(bytes, at, Refusal::BadVersion) {
        Err(refusal) => refusal,
        Ok(None) => Refusal::BadVersion,
        Ok(Some(fields)) => diagnose_fields(bytes, fields, limits, error),
    })
}
