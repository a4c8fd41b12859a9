//! Any fields: as text, parsed by the codec, and back.

use http::Method;
use proptest::prelude::*;

use super::kit::{Fields, owned};
use super::response_tests::{parse_response, sent, try_text};
use super::tests::{outbound, parse, parts, text};
use super::*;
use crate::http1::{FieldId, RequestBody};
use crate::http2::hpack::Decoder;
use crate::http2::names::{self, Class};

/// Names that the codec leaves alone, as HTTP/2 has them: in lower case.
fn name() -> impl Strategy<Value = String> {
    "[a-z0-9!#$%&'*+.^`|~-]{1,20}".prop_filter("means something of its own", |name| {
        FieldId::of(name.as_bytes()) == FieldId::Other
            && names::known(name.as_bytes()).class == Class::Other
    })
}

/// All that a value may hold, without spaces around it, which no codec keeps.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8];
    prop::collection::vec(byte, 0..40).prop_map(|v| v.trim_ascii().to_vec())
}

fn any_fields() -> impl Strategy<Value = Fields> {
    prop::collection::vec((name(), value()), 0..40)
}

/// Nothing but what ends a line ends one, and there is one for each field.
fn assert_lines(text: &[u8], lines: usize) {
    let count = |byte| text.split(|b| *b == byte).count() - 1;
    let ends = text.windows(2).filter(|w| *w == b"\r\n").count();
    assert_eq!((count(b'\r'), count(b'\n'), count(0)), (ends, ends, 0));
    assert_eq!(ends, lines + 1, "{}", text.escape_ascii());
}

fn others(fields: Fields) -> Fields {
    let is_other = |(name, _): &(String, Vec<u8>)| !name.starts_with(':');
    fields.into_iter().filter(is_other).collect()
}

proptest! {
    #[test]
    fn any_request_is_read_by_the_codec_and_back(
        given in any_fields(),
        target in "/[!$-;=@-Z_a-z~]{0,30}",
        is_whole: bool,
    ) {
        let mut fields = parts("PUT", Some("test"), &target, &[]);
        fields.extend(given.clone());
        let text = text(&fields, is_whole);
        assert_lines(&text, 2 + given.len() + usize::from(!is_whole));

        let head = parse(&text);
        prop_assert_eq!(head.body, if is_whole { RequestBody::None } else { RequestBody::Chunked });
        let parsed = head.fields.iter().map(|f| {
            (f.name.text(&text).to_owned(), f.value.of(&text).to_vec())
        });
        let parsed = parsed.filter(|(n, _)| n != "Host" && n != "Transfer-Encoding");
        prop_assert_eq!(parsed.collect::<Fields>(), given.clone());

        let back = outbound(&text).unwrap();
        prop_assert_eq!(back.get(":path"), Some(target.as_str()));
        prop_assert_eq!(others(back.fields), given);
    }

    #[test]
    fn any_response_is_read_by_the_codec_and_back(
        given in any_fields(),
        status in 200..600_u16,
        is_whole: bool,
        is_head: bool,
    ) {
        let mut fields = owned(&[(":status", status.to_string().as_bytes())]);
        fields.extend(given.clone());
        let text = try_text(&fields, is_whole, is_head, None).unwrap().0;
        let method = if is_head { Method::HEAD } else { Method::GET };
        let head = parse_response(&text, &method);
        let is_chunked = head.has(FieldId::TransferEncoding);
        assert_lines(&text, 1 + given.len() + usize::from(is_chunked));
        let parsed = head.fields.iter().map(|f| {
            (f.name.text(&text).to_owned(), f.value.of(&text).to_vec())
        });
        let parsed = parsed.filter(|(n, _)| n != "Transfer-Encoding");
        prop_assert_eq!(parsed.collect::<Fields>(), given);

        let (back, length, _) = sent(&text, false).unwrap();
        prop_assert_eq!((back, length), (fields, None));
    }

    /// What is no text of ours is refused or read, and never a panic.
    #[test]
    fn any_text_is_read_or_refused(bytes: Vec<u8>, opens: bool) {
        let _ = outbound(&bytes);
        let _ = sent(&bytes, opens);
        let request = [b"GET / HTTP/1.1\r\n", &bytes[..], b"\r\n\r\n"].concat();
        let _ = outbound(&request);
        let response = [b"HTTP/1.1 200 \r\n", &bytes[..], b"\r\n\r\n"].concat();
        let _ = sent(&response, opens);
    }

    /// Any block makes a text of sound lines, or none.
    #[test]
    fn any_block_is_sound_or_malformed(
        block: Vec<u8>,
        fields in prop::collection::vec(("(:method|:path|:scheme|:authority|:protocol|[a-z]{0,3}|.{0,3})", any::<Vec<u8>>()), 0..8),
        is_whole: bool,
    ) {
        let _ = tests::try_text(&fields, is_whole).map(|(text, _)| {
            let lines = text.windows(2).filter(|w| *w == b"\r\n").count();
            assert_lines(&text, lines - 1);
            assert!(lines <= fields.len() + 8);
        });
        let mut request = RequestText::default();
        request.begin(1000, 0);
        let mut out = Vec::new();
        let _ = Decoder::new(4096).decode(&block, |field| request.field(&mut out, &field));
        let _ = request.finish(&mut out, is_whole);
    }
}
