//! Any fields: as text, parsed by the codec, and back.

use proptest::prelude::*;

use super::response_tests::parse_response;
use super::tests::{parse, parts, text};
use super::*;
use crate::http1::{FieldId, RequestBody};

/// Names that the codec leaves alone, as HTTP/2 has them: in lower case.
fn name() -> impl Strategy<Value = String> {
    "[a-z0-9!#$%&'*+.^`|~-]{1,20}".prop_filter("means something of its own", |name| {
        FieldId::of(name.as_bytes()) == FieldId::Other
            && names::known(name.as_bytes()).0 == Class::Other
    })
}

/// All that a value may hold, without spaces around it, which no codec keeps.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8];
    prop::collection::vec(byte, 0..40).prop_map(|v| v.trim_ascii().to_vec())
}

fn any_fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    prop::collection::vec((name(), value()), 0..40)
}

fn map(fields: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    map
}

/// Nothing but what ends a line ends one, and there is one for each field.
fn assert_lines(text: &[u8], lines: usize) {
    let count = |byte| text.split(|b| *b == byte).count() - 1;
    let ends = text.windows(2).filter(|w| *w == b"\r\n").count();
    assert_eq!((count(b'\r'), count(b'\n'), count(0)), (ends, ends, 0));
    assert_eq!(ends, lines + 1, "{}", text.escape_ascii());
}

fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    // Stable: values of one name stay in their order.
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn owned(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let fields = headers.iter();
    sorted(
        fields
            .map(|(n, v)| (n.to_string(), v.as_bytes().to_vec()))
            .collect(),
    )
}

proptest! {
    #[test]
    fn any_request_is_read_by_the_codec_and_back(
        given in any_fields(),
        target in "/[!-\"$-;=@-_a-~]{0,30}",
        is_whole: bool,
    ) {
        let mut parts = parts("PUT", Some("test"), "/", &[]);
        let Ok(target) = PathAndQuery::try_from(target) else { return Ok(()) };
        parts.uri = Uri::builder().scheme("https").authority("test").path_and_query(target).build().unwrap();
        parts.headers = map(&given);
        let text = text(&parts, is_whole);
        assert_lines(&text, 2 + given.len() + usize::from(!is_whole));

        let head = parse(&text);
        prop_assert_eq!(head.body, if is_whole { RequestBody::None } else { RequestBody::Chunked });
        let parsed = head.fields.iter().map(|f| {
            (f.name.text(&text).to_owned(), f.value.of(&text).to_vec())
        });
        let parsed = parsed.filter(|(n, _)| n != "Host" && n != "Transfer-Encoding");
        prop_assert_eq!(sorted(parsed.collect()), sorted(given.clone()));

        let back = read_request(&text, Scheme::HTTPS, "fallback").unwrap();
        prop_assert_eq!(back.request.uri(), &parts.uri);
        prop_assert_eq!(back.length, is_whole.then_some(0));
        prop_assert_eq!(owned(back.request.headers()), sorted(given));
    }

    #[test]
    fn any_response_is_read_by_the_codec_and_back(
        given in any_fields(),
        status in 200..600_u16,
        is_whole: bool,
        is_head: bool,
    ) {
        let mut text = Vec::new();
        let status = StatusCode::from_u16(status).unwrap();
        write_response(&mut text, status, &map(&given), is_whole, is_head, None);
        let method = if is_head { Method::HEAD } else { Method::GET };
        let head = parse_response(&text, &method);
        let is_chunked = head.has(FieldId::TransferEncoding);
        assert_lines(&text, 1 + given.len() + usize::from(is_chunked));
        let parsed = head.fields.iter().map(|f| {
            (f.name.text(&text).to_owned(), f.value.of(&text).to_vec())
        });
        let parsed = parsed.filter(|(n, _)| n != "Transfer-Encoding");
        prop_assert_eq!(sorted(parsed.collect()), sorted(given.clone()));

        let Reply { response: back, length, .. } = read_response(&text, false).unwrap();
        prop_assert_eq!((back.status(), length), (status, None));
        prop_assert_eq!(owned(back.headers()), sorted(given));
    }

    /// What is no text of ours is refused or read, and never a panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, opens: bool) {
        let _ = read_request(&bytes, Scheme::HTTP, "t");
        let _ = read_response(&bytes, opens);
        let request = [b"GET / HTTP/1.1\r\n", &bytes[..], b"\r\n\r\n"].concat();
        let _ = read_request(&request, Scheme::HTTP, "t");
        let response = [b"HTTP/1.1 200 \r\n", &bytes[..], b"\r\n\r\n"].concat();
        let _ = read_response(&response, opens);
    }
}
