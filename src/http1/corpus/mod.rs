//! Ambiguous, broken and borderline messages with what must become of each; unit tests, the
//! comparison with hyper and the fuzz targets share them.
//!
//! What an accepted message means is written as one line of text, which [`read_request`] and
//! [`read_response`] produce: method or status, target, host, framing, persistence, and then the
//! decoded content, the trailers that pass, and how many bytes are left over for the next message.

mod requests;
mod responses;

use std::fmt::Write as _;

use http::Method;

pub use requests::REQUESTS;
pub use responses::RESPONSES;

use super::{
    Chunk, ChunkDecoder, Field, FieldId, Limits, Progress, Refusal, RequestBody, RequestHead,
    ResponseBody, ResponseHead, Version,
};

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is odd about it.
    pub name: &'static str,
    /// The bytes, body included.
    pub bytes: &'static [u8],
    /// The method of the request that a response answers; unused for requests.
    pub method: &'static str,
    /// Accepted with this meaning; or refused for this reason; or, without one, not all there.
    pub expect: Result<&'static str, Option<Refusal>>,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It means this; see the module's documentation.
    Accepted(String),
    /// It is not all there.
    Partial,
    /// It is refused.
    Refused(Refusal),
}

/// A body being read from a buffer that grows piece by piece.
#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(Box<ChunkDecoder>),
    UntilClose,
}

/// How a body stands.
enum Content {
    Done { trailers: String },
    Unfinished,
}

// === impl Case ===

impl Case {
    const fn accept(name: &'static str, bytes: &'static [u8], meaning: &'static str) -> Self {
        Self {
            name,
            bytes,
            method: "GET",
            expect: Ok(meaning),
        }
    }

    const fn refuse(name: &'static str, bytes: &'static [u8], refusal: Refusal) -> Self {
        Self {
            name,
            bytes,
            method: "GET",
            expect: Err(Some(refusal)),
        }
    }

    const fn partial(name: &'static str, bytes: &'static [u8]) -> Self {
        Self {
            name,
            bytes,
            method: "GET",
            expect: Err(None),
        }
    }

    const fn to(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    /// The expectation in the form of an outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.expect {
            Ok(meaning) => Outcome::Accepted(meaning.to_owned()),
            Err(None) => Outcome::Partial,
            Err(Some(refusal)) => Outcome::Refused(refusal),
        }
    }
}

/// Reads one request whose bytes come in `pieces`.
#[must_use]
pub fn read_request(pieces: &[&[u8]], limits: &Limits) -> Outcome {
    let mut head = RequestHead::new();
    read(pieces, |buf| {
        if head.parse(buf, limits)? == Progress::Partial {
            return Ok(None);
        }
        let mut meaning = format!("{} {}", head.method, head.target(buf));
        if let Some(host) = head.authority(buf) {
            let _ = write!(meaning, " host={host}");
        }
        let body = match head.body {
            RequestBody::None => Body::Length(0),
            RequestBody::Length(n) => Body::Length(n),
            RequestBody::Chunked => Body::Chunked(Box::new(ChunkDecoder::new(limits))),
        };
        let framing = match head.body {
            RequestBody::None => "none".to_owned(),
            RequestBody::Length(n) => format!("{n}"),
            RequestBody::Chunked => "chunked".to_owned(),
        };
        let _ = write!(meaning, " {framing} {}", persistence(head.keep_alive));
        if head.version == Version::Http10 {
            meaning.push_str(" 1.0");
        }
        if head.expect_continue {
            meaning.push_str(" 100-continue");
        }
        if head.upgrade {
            meaning.push_str(" upgrade");
        }
        hops(&mut meaning, buf, &head.fields, |i| head.is_hop_by_hop(i));
        Ok(Some((head.head_len(), body, meaning)))
    })
}

/// Reads one response (an interim one too) to `method` whose bytes come in `pieces`; their end is
/// the end of the connection.
#[must_use]
pub fn read_response(pieces: &[&[u8]], limits: &Limits, method: &Method) -> Outcome {
    let mut head = ResponseHead::new();
    read(pieces, |buf| {
        if head.parse(buf, limits, method)? == Progress::Partial {
            return Ok(None);
        }
        let reason = String::from_utf8_lossy(head.reason(buf));
        let (framing, body) = match head.body {
            ResponseBody::None => ("none".to_owned(), Body::Length(0)),
            ResponseBody::Length(n) => (format!("{n}"), Body::Length(n)),
            ResponseBody::Chunked => (
                "chunked".to_owned(),
                Body::Chunked(Box::new(ChunkDecoder::new(limits))),
            ),
            ResponseBody::UntilClose => ("until-close".to_owned(), Body::UntilClose),
        };
        let status = head.status.as_u16();
        let mut meaning = format!(
            "{status} ({reason}) {framing} {}",
            persistence(head.keep_alive)
        );
        if head.version == Version::Http10 {
            meaning.push_str(" 1.0");
        }
        if head.upgrade {
            meaning.push_str(" upgrade");
        }
        // The lengths that go on, because merging and stripping are part of the meaning.
        for (i, field) in head.fields.iter().enumerate() {
            if field.id == FieldId::ContentLength && !head.is_hop_by_hop(i) {
                let _ = write!(meaning, " cl={}", field.value.text(buf));
            }
        }
        hops(&mut meaning, buf, &head.fields, |i| head.is_hop_by_hop(i));
        Ok(Some((head.head_len(), body, meaning)))
    })
}

fn persistence(keep_alive: bool) -> &'static str {
    if keep_alive { "keep" } else { "close" }
}

/// The fields that Connection named away.
fn hops(meaning: &mut String, buf: &[u8], fields: &[Field], is_hop: impl Fn(usize) -> bool) {
    for (i, field) in fields.iter().enumerate() {
        if field.id == FieldId::Other && is_hop(i) {
            let _ = write!(meaning, " -{}", field.name.text(buf));
        }
    }
}

type Head = Option<(usize, Body, String)>;

fn read(pieces: &[&[u8]], mut head: impl FnMut(&[u8]) -> Result<Head, Refusal>) -> Outcome {
    let mut buf: Vec<u8> = Vec::new();
    let mut content = Vec::new();
    let mut open: Option<(Body, String)> = None;
    let mut finished: Option<String> = None;
    for piece in pieces {
        buf.extend_from_slice(piece);
        if finished.is_some() {
            continue;
        }
        if open.is_none() {
            match head(&buf) {
                Ok(Some((len, body, meaning))) => {
                    buf.drain(..len);
                    open = Some((body, meaning));
                }
                Ok(None) => continue,
                Err(refusal) => return Outcome::Refused(refusal),
            }
        }
        if let Some((body, meaning)) = &mut open {
            match pump(body, &mut buf, &mut content) {
                Ok(Content::Done { trailers }) => {
                    finished = Some(std::mem::take(meaning) + &trailers);
                }
                Ok(Content::Unfinished) => {}
                Err(refusal) => return Outcome::Refused(refusal),
            }
        }
    }
    let meaning = match (finished, open) {
        (Some(meaning), _) => meaning,
        (None, Some((Body::UntilClose, meaning))) => meaning,
        (None, _) => return Outcome::Partial,
    };
    let mut meaning = meaning;
    if !content.is_empty() {
        let _ = write!(meaning, " {:?}", String::from_utf8_lossy(&content));
    }
    if !buf.is_empty() {
        let _ = write!(meaning, " +{}", buf.len());
    }
    Outcome::Accepted(meaning)
}

/// Moves what `buf` holds of the body to `content`.
fn pump(body: &mut Body, buf: &mut Vec<u8>, content: &mut Vec<u8>) -> Result<Content, Refusal> {
    match body {
        Body::UntilClose => {
            content.append(buf);
            Ok(Content::Unfinished)
        }
        Body::Length(left) => {
            let n = (*left).min(buf.len() as u64);
            content.extend(buf.drain(..n as usize));
            *left -= n;
            if *left > 0 {
                return Ok(Content::Unfinished);
            }
            Ok(Content::Done {
                trailers: String::new(),
            })
        }
        Body::Chunked(chunks) => loop {
            match chunks.decode(buf)? {
                Chunk::NeedMore { skip } => {
                    buf.drain(..skip);
                    return Ok(Content::Unfinished);
                }
                Chunk::Data { skip, len } => {
                    buf.drain(..skip);
                    content.extend(buf.drain(..len));
                }
                Chunk::End { skip } => {
                    let mut trailers = String::new();
                    for field in chunks.trailers() {
                        let (name, value) = (field.name.text(buf), field.value.text(buf));
                        let _ = write!(trailers, " {name}={value}");
                    }
                    buf.drain(..skip);
                    return Ok(Content::Done { trailers });
                }
            }
        },
    }
}
