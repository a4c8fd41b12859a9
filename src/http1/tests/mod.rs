//! Tests of the codec as a whole: the corpus, limits, sizes.

mod differential;
mod oracle;
mod roundtrip;

use http::Method;

use super::corpus::{Case, Outcome, REQUESTS, RESPONSES, read_request, read_response};
use super::*;
use crate::http1 as codec;

const LIMITS: Limits = Limits {
    max_head_bytes: 32 * 1024,
    max_fields: 100,
    max_target_bytes: 8000,
};

fn requests() -> impl Iterator<Item = &'static Case> {
    REQUESTS.iter().copied().flatten()
}

fn responses() -> impl Iterator<Item = &'static Case> {
    RESPONSES.iter().copied().flatten()
}

fn method(case: &Case) -> Method {
    Method::from_bytes(case.method.as_bytes()).unwrap()
}

#[test]
fn the_corpus_comes_out_as_it_says() {
    let mut wrong = Vec::new();
    for case in requests() {
        let outcome = read_request(&[case.bytes], &LIMITS);
        if outcome != case.outcome() {
            wrong.push(format!(
                "request {}: {outcome:?}, not {:?}",
                case.name,
                case.outcome()
            ));
        }
    }
    for case in responses() {
        let outcome = read_response(&[case.bytes], &LIMITS, &method(case));
        if outcome != case.outcome() {
            wrong.push(format!(
                "response {}: {outcome:?}, not {:?}",
                case.name,
                case.outcome()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(requests().count() + responses().count() >= 120);
}

#[test]
fn a_cut_anywhere_changes_nothing() {
    for case in requests() {
        for cut in 0..=case.bytes.len() {
            let (a, b) = case.bytes.split_at(cut);
            assert_eq!(
                read_request(&[a, b], &LIMITS),
                case.outcome(),
                "{} at {cut}",
                case.name
            );
        }
        let bytes: Vec<&[u8]> = case.bytes.chunks(1).collect();
        assert_eq!(
            read_request(&bytes, &LIMITS),
            case.outcome(),
            "{} by bytes",
            case.name
        );
    }
    for case in responses() {
        let method = method(case);
        for cut in 0..=case.bytes.len() {
            let (a, b) = case.bytes.split_at(cut);
            let outcome = read_response(&[a, b], &LIMITS, &method);
            assert_eq!(outcome, case.outcome(), "{} at {cut}", case.name);
        }
        let bytes: Vec<&[u8]> = case.bytes.chunks(1).collect();
        let outcome = read_response(&bytes, &LIMITS, &method);
        assert_eq!(outcome, case.outcome(), "{} by bytes", case.name);
    }
}

#[test]
fn two_cuts_in_a_chunked_body_change_nothing() {
    for case in requests().filter(|c| c.bytes.windows(9).any(|w| w == b"chunked\r\n")) {
        let n = case.bytes.len();
        let from = case
            .bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or(n);
        for i in from..=n {
            for j in i..=n {
                let pieces = [&case.bytes[..i], &case.bytes[i..j], &case.bytes[j..]];
                let outcome = read_request(&pieces, &LIMITS);
                assert_eq!(outcome, case.outcome(), "{} at {i} and {j}", case.name);
            }
        }
    }
}

/// Both at once and byte by byte.
fn refused(bytes: &[u8], limits: &Limits) -> Option<Refusal> {
    let whole = read_request(&[bytes], limits);
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(whole, read_request(&pieces, limits));
    match whole {
        Outcome::Refused(refusal) => Some(refusal),
        Outcome::Accepted(_) | Outcome::Partial => None,
    }
}

fn head(target: usize, value: usize) -> Vec<u8> {
    let (target, value) = ("a".repeat(target - 1), "b".repeat(value));
    format!("GET /{target} HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n").into_bytes()
}

#[test]
fn limits_are_exact() {
    let limits = Limits {
        max_head_bytes: 200,
        max_fields: 3,
        max_target_bytes: 50,
    };
    let fixed = head(1, 0).len();
    assert_eq!(refused(&head(50, 0), &limits), None);
    assert_eq!(refused(&head(51, 0), &limits), Some(Refusal::TargetTooLong));
    assert_eq!(
        refused(&head(500, 0), &limits),
        Some(Refusal::TargetTooLong)
    );
    assert_eq!(refused(&head(1, 200 - fixed), &limits), None);
    assert_eq!(
        refused(&head(1, 201 - fixed), &limits),
        Some(Refusal::HeadTooLong)
    );
    assert_eq!(refused(&head(1, 2000), &limits), Some(Refusal::HeadTooLong));
    let fields = |n: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: 1\r\n".repeat(n - 1)
        )
        .into_bytes()
    };
    assert_eq!(refused(&fields(3), &limits), None);
    assert_eq!(refused(&fields(4), &limits), Some(Refusal::TooManyFields));
    let hard = Limits {
        max_fields: usize::MAX,
        ..LIMITS
    };
    assert_eq!(refused(&fields(HARD_MAX_FIELDS), &hard), None);
    assert_eq!(
        refused(&fields(HARD_MAX_FIELDS + 1), &hard),
        Some(Refusal::TooManyFields)
    );
    assert_eq!(refused(&[b'A'; 64], &limits), Some(Refusal::BadMethod));
    assert_eq!(
        refused(
            b"X",
            &Limits {
                max_head_bytes: 0,
                ..LIMITS
            }
        ),
        Some(Refusal::HeadTooLong)
    );
}

#[test]
fn trailers_and_extensions_are_bounded() {
    let chunked = |body: String| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
            .into_bytes()
    };
    let extension = |n: usize| chunked(format!("0{}\r\n\r\n", ";".repeat(n)));
    assert_eq!(refused(&extension(256), &LIMITS), None);
    assert_eq!(
        refused(&extension(257), &LIMITS),
        Some(Refusal::ChunkExtensionTooLong)
    );
    let many =
        |n: usize| chunked(format!("1;{}\r\nx\r\n", "e".repeat(255)).repeat(n) + "0\r\n\r\n");
    assert_eq!(
        refused(&many(64), &LIMITS),
        Some(Refusal::BadChunk).filter(|_| false)
    );
    assert_eq!(
        refused(&many(65), &LIMITS),
        Some(Refusal::ChunkExtensionTooLong)
    );
    let trailer = |n: usize| chunked(format!("0\r\nX: {}\r\n\r\n", "e".repeat(n)));
    let fixed = "X: \r\n\r\n".len();
    assert_eq!(refused(&trailer(16 * 1024 - fixed), &LIMITS), None);
    assert_eq!(
        refused(&trailer(16 * 1024 - fixed + 1), &LIMITS),
        Some(Refusal::TrailersTooLong)
    );
    let fields = |n: usize| chunked(format!("0\r\n{}\r\n", "X: 1\r\n".repeat(n)));
    assert_eq!(refused(&fields(100), &LIMITS), None);
    assert_eq!(refused(&fields(101), &LIMITS), Some(Refusal::TooManyFields));
}

#[test]
fn a_head_is_filled_again_without_a_trace_of_the_one_before() {
    let first =
        b"POST /a?b HTTP/1.1\r\nHost: a:1\r\nConnection: close, x, upgrade\r\nUpgrade: y\r\n\
        X: 1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    let second = b"GET / HTTP/1.0\r\nY: 1\r\nZ: 1\r\n\r\n";
    let (mut used, mut fresh) = (RequestHead::new(), RequestHead::new());
    assert_eq!(used.parse(first, &LIMITS), Ok(Progress::Complete));
    assert!(used.upgrade && used.expect_continue && used.has(FieldId::Host));
    assert_eq!(used.parse(second, &LIMITS), Ok(Progress::Complete));
    assert_eq!(fresh.parse(second, &LIMITS), Ok(Progress::Complete));
    // Everything but the capacity of `fields`, which Debug does not show.
    assert_eq!(format!("{used:?}"), format!("{fresh:?}"));
    assert_eq!((used.host(second), used.query(second)), (None, None));
    assert!(!used.is_hop_by_hop(1) && !used.is_hop_by_hop(2));

    // A refused head leaves nothing that a careless caller could forward.
    assert_eq!(
        used.parse(b"GET / HTTP/1.1\r\nX: 1\r\n\r\n", &LIMITS),
        Err(Refusal::MissingHost)
    );
    assert!(used.fields.is_empty() && used.head_len() == 0);
}

#[test]
fn accessors_answer() {
    let buf = b"OPTIONS http://A:80 HTTP/1.1\r\nHost: a\r\nX-a: 1\r\nVia: 2\r\nx-A: 3\r\n\r\n";
    let mut head = RequestHead::new();
    assert_eq!(head.parse(buf, &LIMITS), Ok(Progress::Complete));
    assert_eq!(
        (head.path(buf), head.query(buf), head.is_asterisk()),
        ("/", None, true)
    );
    assert_eq!(
        (head.host(buf), head.authority(buf)),
        (Some("A"), Some("A:80"))
    );
    assert_eq!(
        (head.get(buf, FieldId::Via), head.get(buf, FieldId::Date)),
        (Some(&b"2"[..]), None)
    );
    assert_eq!(head.get_all(buf, "X-A").collect::<Vec<_>>(), [b"1", b"3"]);
    // The wrong buffer: nonsense, but no panic.
    assert_eq!((head.target(b""), head.host(b"")), ("", Some("")));
    let buf = b"GET https://[::1]:8443?q=1 HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n";
    assert_eq!(head.parse(buf, &LIMITS), Ok(Progress::Complete));
    assert_eq!(
        (head.path(buf), head.query(buf), head.is_asterisk()),
        ("/", Some("q=1"), false)
    );
    assert_eq!(
        (head.host(buf), head.form()),
        (Some("[::1]"), Form::Absolute)
    );
}

#[test]
fn spliced_data_is_told_to_the_decoder() {
    let mut chunks = ChunkDecoder::new(&LIMITS);
    assert_eq!(
        chunks.decode(b"100\r\nabcd"),
        Ok(Chunk::Data { skip: 5, len: 4 })
    );
    assert_eq!(chunks.data_left(), 252);
    chunks.advance(252);
    assert_eq!(chunks.decode(b"\r\n0\r\n"), Ok(Chunk::NeedMore { skip: 5 }));
    assert_eq!(chunks.data_left(), 0);
    assert_eq!(chunks.decode(b"\r\n"), Ok(Chunk::End { skip: 2 }));
    assert!(chunks.is_done());
    assert_eq!(chunks.decode(b"GET"), Ok(Chunk::End { skip: 0 }));
    chunks.reset();
    assert_eq!(
        chunks.decode(b"1\r\nx"),
        Ok(Chunk::Data { skip: 3, len: 1 })
    );
}

#[test]
fn a_size_line_is_plain_hexadecimal() {
    for n in [0, 1, 9, 10, 15, 16, 255, 4096, 0x1000_0000_0000, u64::MAX] {
        assert_eq!(SizeLine::new(n).as_bytes(), format!("{n:x}\r\n").as_bytes());
    }
}

/// What a connection keeps between requests; an idle one keeps none of them.
#[test]
fn sizes_are_known() {
    assert!(
        size_of::<RequestHead>() <= 208,
        "{}",
        size_of::<RequestHead>()
    );
    assert!(
        size_of::<ResponseHead>() <= 136,
        "{}",
        size_of::<ResponseHead>()
    );
    assert!(
        size_of::<ChunkDecoder>() <= 96,
        "{}",
        size_of::<ChunkDecoder>()
    );
    assert_eq!(size_of::<Chunk>(), 24);
    assert_eq!(size_of::<Refusal>(), 1);
}

#[test]
fn every_refusal_has_its_own_name_and_a_status() {
    let mut names = std::collections::BTreeSet::new();
    for case in requests().chain(responses()) {
        if let Err(Some(refusal)) = case.expect {
            names.insert(refusal.reason());
            assert!(refusal.status().is_client_error() || refusal.status().is_server_error());
            // The name is the variant in snake case.
            let variant = format!("{refusal:?}").to_lowercase();
            assert_eq!(refusal.reason().replace('_', ""), variant);
            assert!(!refusal.to_string().ends_with('.'));
        }
    }
    // All but those that take long messages: lengths, numbers of fields, extensions, trailers.
    assert_eq!(names.len(), 34 - 5);
}
