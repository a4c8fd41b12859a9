//! Blocks of fields to text and back: what the text says is refused by the codec of HTTP/1 or read as it came,
//! and what is written of it says the same again. A module of `http2`, whose functions are its own.

use http::{HeaderMap, Method};

use crate::http1::{
    FieldId, Limits, Progress, RequestBody, RequestHead, ResponseBody, ResponseHead,
};

use super::head::{
    self, Asked, HeadError, Line, RequestText, ResponseText, Trailers, write_trailers,
};
use super::hpack::{Decoder, Encoder, Field, Indexing, statics};
use super::names::{self, Class};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// So small that texts are cut now and then.
const MAX_HEAD: usize = 2048;

const LIMITS: Limits = Limits {
    max_head_bytes: MAX_HEAD,
    max_fields: 100,
    max_target_bytes: 1000,
};

/// Names that a byte stands for.
const NAMES: [&str; 24] = [
    ":method",
    ":scheme",
    ":path",
    ":authority",
    ":protocol",
    ":status",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "sec-websocket-accept",
    "sec-websocket-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-a",
    "set-cookie",
    "age",
    "",
];

/// What else there is to be known of a head.
#[derive(Clone, Copy)]
struct Steer {
    is_whole: bool,
    is_head: bool,
    opens: bool,
}

pub fn drive(data: &[u8]) {
    let [first, bytes @ ..] = data else { return };
    let steer = Steer {
        is_whole: first & 1 != 0,
        is_head: first & 2 != 0,
        opens: first & 4 != 0,
    };
    match first >> 4 & 3 {
        0 => any_text(bytes, steer.opens),
        1 => any_blocks(bytes, steer),
        _ => any_fields(bytes, steer),
    }
}

// === text that nobody wrote ===

fn any_text(bytes: &[u8], opens: bool) {
    for first in ["", "GET / HTTP/1.1\r\n", "HTTP/1.1 200 \r\n"] {
        let text = [first.as_bytes(), bytes, b"\r\n\r\n"].concat();
        for fields in [sent_request(&text), sent_response(&text, opens)]
            .into_iter()
            .flatten()
        {
            for (name, value) in fields {
                let is_end = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
                assert!(name.starts_with(b":") || !value.iter().any(is_end));
            }
        }
    }
}

fn sent_request(text: &[u8]) -> Result<Fields, HeadError> {
    let mut lines: Vec<Line> = Vec::new();
    let request = head::read_request(text, &mut lines, "test")?;
    assert!(request.end <= text.len());
    let mut block = Vec::new();
    request.write(&mut block, &mut Encoder::new(), &lines, true);
    Ok(decoded(&block))
}

fn sent_response(text: &[u8], opens: bool) -> Result<Fields, HeadError> {
    let mut lines: Vec<Line> = Vec::new();
    let reply = head::read_response(text, &mut lines, opens)?;
    assert!(reply.end <= text.len());
    let mut block = Vec::new();
    reply.write(&mut block, &mut Encoder::new(), &lines);
    Ok(decoded(&block))
}

fn decoded(block: &[u8]) -> Fields {
    let mut fields = Fields::new();
    let add = |field: Field<'_>| fields.push((field.name.to_vec(), field.value.to_vec()));
    Decoder::new(4096)
        .decode(block, add)
        .expect("what was encoded is decoded");
    fields
}

// === blocks ===

/// Blocks of a connection, each behind its length.
fn any_blocks(mut bytes: &[u8], steer: Steer) {
    let mut decoder = Decoder::new(4096);
    let mut other = (Encoder::new(), Decoder::new(4096));
    while let [length, rest @ ..] = bytes {
        let (block, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let Some(mut fields) = take(&mut decoder, block, steer) else {
            return;
        };
        // Tables of both sides stay in step, whatever is added to them.
        let mut again = Vec::new();
        other.0.set_max_table(usize::from(*length) * 32);
        other.0.begin(&mut again);
        for (name, value) in &fields {
            let indexing = match value.len() % 5 {
                0 => Indexing::Leave,
                1 => Indexing::Never,
                _ => Indexing::Add,
            };
            let id = statics::id_of(name);
            other.0.field(&mut again, id, name, value, indexing);
        }
        let mut back = Fields::new();
        let add = |field: Field<'_>| back.push((field.name.to_vec(), field.value.to_vec()));
        assert_eq!(other.1.decode(&again, add), Ok(()));
        // They are written in lower case, as HTTP/2 has them.
        for (name, _) in &mut fields {
            name.make_ascii_lowercase();
        }
        assert_eq!(back, fields);
    }
}

/// Names and values, each behind its length; or a name that a byte stands for.
fn any_fields(mut bytes: &[u8], steer: Steer) {
    let mut block = Vec::new();
    let mut encoder = Encoder::new();
    encoder.begin(&mut block);
    // What most heads begin with.
    for (name, value) in match steer.opens {
        _ if bytes.first().is_some_and(|b| b & 1 == 0) => &[][..],
        true => &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/chat"),
        ],
        false => &[(":method", "PUT"), (":scheme", "https"), (":path", "/")],
    } {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let id = statics::id_of(name);
        encoder.field(&mut block, id, name, value, Indexing::Add);
    }
    bytes = bytes.get(1..).unwrap_or_default();
    while let [first, rest @ ..] = bytes {
        let (name, rest) = match NAMES.get(usize::from(*first)) {
            Some(name) => (name.as_bytes(), rest),
            None => rest.split_at(rest.len().min(usize::from(*first) - NAMES.len())),
        };
        let [length, rest @ ..] = rest else { break };
        let (value, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let id = statics::id_of(name);
        encoder.field(&mut block, id, name, value, Indexing::Add);
    }
    take(&mut Decoder::new(4096), &block, steer).expect("what was encoded is decoded");
}

/// A block as a request, as a response and as trailers; its fields, if it is one.
fn take(decoder: &mut Decoder, block: &[u8], steer: Steer) -> Option<Fields> {
    let mut request = (RequestText::default(), Vec::new());
    request.0.begin(MAX_HEAD, 7);
    let accept = steer.opens.then(|| "made=".to_owned());
    let mut response = (
        ResponseText::new(&[], MAX_HEAD, steer.is_head, accept),
        Vec::new(),
    );
    let mut trailers = Trailers::new(MAX_HEAD);
    let mut fields = Fields::new();
    let decoding = decoder.decode(block, |field| {
        assert_eq!(field.id, statics::id_of(field.name));
        assert_eq!(field.is_sound, is_sound(&field));
        request.0.field(&mut request.1, &field);
        response.0.field(&mut response.1, &field);
        trailers.field(&field);
        fields.push((field.name.to_vec(), field.value.to_vec()));
    });
    decoding.ok()?;
    let (mut request, mut text) = request;
    // One field can be as large as the table, or all of the block; what is before it is cut.
    let most = MAX_HEAD + 2048 + 2 * (4096 + 2 * block.len());
    if let Ok(asked) = request.finish(&mut text, steer.is_whole) {
        assert!(text.len() <= most, "{} of {most}", text.len());
        expect_request(&text, asked, &fields, steer);
    }
    let (response, mut text) = response;
    if let Ok(answered) = response.finish(&mut text, steer.is_whole) {
        assert!(text.len() <= most, "{} of {most}", text.len());
        expect_lines(&text);
        if !answered.is_too_long {
            let length = answered.length;
            expect_response(&text, length, answered.is_interim, &fields, steer);
        }
    }
    if let Ok(map) = trailers.finish() {
        expect_trailers(&map);
    }
    Some(fields)
}

/// By RFC 9110 section 5, byte by byte.
fn is_sound(field: &Field<'_>) -> bool {
    let is_letter =
        |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(b);
    let is_token = !field.name.is_empty() && field.name.iter().all(is_letter);
    let is_name = is_token || field.id != 0 || field.name == b":protocol";
    let is_text = |b: &u8| *b == b'\t' || *b >= b' ' && *b != 0x7f;
    is_name && field.value.iter().all(is_text)
}

/// Nothing but CRLF ends a line, and nothing follows the empty one.
fn expect_lines(text: &[u8]) {
    let count = |byte| text.iter().filter(|b| **b == byte).count();
    let ends = text.windows(2).filter(|w| *w == b"\r\n").count();
    assert_eq!((count(b'\r'), count(b'\n'), count(0)), (ends, ends, 0));
    let empty = text.windows(4).position(|w| w == b"\r\n\r\n");
    assert_eq!(empty, Some(text.len() - 4), "{}", text.escape_ascii());
}

fn expect_request(text: &[u8], asked: Asked, given: &Fields, steer: Steer) {
    expect_lines(text);
    let line = text.split(|b| *b == b'\r').next().unwrap_or_default();
    assert_eq!(line.iter().filter(|b| **b <= b' ').count(), 2);
    let mut head = RequestHead::new();
    let Ok(progress) = head.parse(text, &LIMITS) else {
        return;
    };
    assert_eq!(progress, Progress::Complete);
    assert_eq!(head.head_len(), text.len());
    if head.method == Method::CONNECT {
        // Refused by its method.
        return;
    }
    let body = match asked.length {
        Some(length) => RequestBody::Length(length),
        None if steer.is_whole || asked.is_connect => RequestBody::None,
        None => RequestBody::Chunked,
    };
    assert_eq!(head.body, body);
    assert_eq!(asked.is_head, head.method == Method::HEAD);
    let parsed = head.fields.iter();
    let parsed = parsed.map(|f| (f.name.of(text).to_vec(), f.value.of(text).to_vec()));
    assert_eq!(others(parsed), others(given.iter().cloned()));

    let mut lines = Vec::new();
    let back = head::read_request(text, &mut lines, "test").expect("it is one");
    let length = match body {
        _ if asked.is_connect => None,
        RequestBody::None => Some(0),
        RequestBody::Length(length) => Some(length),
        RequestBody::Chunked => None,
    };
    assert_eq!((back.end, back.length), (text.len(), length));
    assert_eq!(
        (back.is_head, back.accept.is_some()),
        (asked.is_head, asked.is_connect)
    );
    let mut block = Vec::new();
    back.write(&mut block, &mut Encoder::new(), &lines, true);
    let back = sound(&block);
    assert_eq!(others(back.into_iter()), others(given.iter().cloned()));
}

fn expect_response(
    text: &[u8],
    length: Option<u64>,
    is_interim: bool,
    given: &Fields,
    steer: Steer,
) {
    let method = if steer.is_head {
        Method::HEAD
    } else {
        Method::GET
    };
    let mut head = ResponseHead::new();
    let Ok(progress) = head.parse(text, &LIMITS, &method) else {
        return;
    };
    assert_eq!(progress, Progress::Complete);
    assert_eq!(head.head_len(), text.len());
    let opened = head.status == 101;
    assert!(!opened || steer.opens);
    match head.body {
        ResponseBody::None => assert_eq!(length, None),
        ResponseBody::Length(n) => assert_eq!(length, Some(n)),
        ResponseBody::Chunked => assert!(length.is_none() && !steer.is_whole),
        // That it ends with its head is told beside the text.
        ResponseBody::UntilClose => assert!(length.is_none() && (steer.is_whole || opened)),
    }
    assert_eq!(is_interim, head.status.is_informational() && !opened);
    let parsed = head.fields.iter();
    let parsed = parsed.map(|f| (f.name.of(text).to_vec(), f.value.of(text).to_vec()));
    assert_eq!(others(parsed), others(given.iter().cloned()));

    let mut lines = Vec::new();
    let back = head::read_response(text, &mut lines, steer.opens).expect("it is one");
    assert_eq!(back.end, text.len());
    let mut block = Vec::new();
    back.write(&mut block, &mut Encoder::new(), &lines);
    let back = sound(&block);
    assert_eq!(others(back.into_iter()), others(given.iter().cloned()));
}

fn expect_trailers(map: &HeaderMap) {
    let mut block = Vec::new();
    write_trailers(&mut block, &mut Encoder::new(), map);
    let back = sound(&block);
    assert_eq!(back.len(), map.len());
}

/// The fields of a block that we wrote.
fn sound(block: &[u8]) -> Fields {
    let mut fields = Fields::new();
    let decoding = Decoder::new(4096).decode(block, |field| {
        assert!(field.is_sound, "{field:?}");
        fields.push((field.name.to_vec(), field.value.to_vec()));
    });
    assert_eq!(decoding, Ok(()));
    fields
}

/// Those that mean nothing to us, as HTTP/1 has their values.
fn others(fields: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Fields {
    let is_other = |(name, _): &(Vec<u8>, Vec<u8>)| {
        !name.starts_with(b":")
            && FieldId::of(name) == FieldId::Other
            && names::known(name).class == Class::Other
    };
    let fields = fields.filter(is_other);
    fields.map(|(n, v)| (n, v.trim_ascii().to_vec())).collect()
}
